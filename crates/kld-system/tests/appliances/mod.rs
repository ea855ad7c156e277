//! Appliances built by hand, as the checker would return them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use kld_manifest::model::*;
use kld_manifest::{Span, Spanned};

/// A value written on this line.
pub(crate) fn at<T>(line: u32, value: T) -> Spanned<T> {
    Spanned::new(value, span(line))
}

pub(crate) fn span(line: u32) -> Span {
    Span { line, column: 3, length: 1 }
}

/// A name that the test states.
pub(crate) fn n<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("the test states a valid name")
}

fn property(line: u32, name: &str, value: &str) -> Property {
    Property { name: name.to_owned(), value: value.to_owned(), span: span(line) }
}

pub(crate) fn dataset(line: u32, name: &str, mountpoint: &str, properties: &[(&str, &str)]) -> Dataset {
    Dataset {
        name: at(line, n(name)),
        properties: properties.iter().map(|(name, value)| property(line, name, value)).collect(),
        mountpoint: Some(at(line, mountpoint.to_owned())),
        encryption: None,
    }
}

pub(crate) fn ports(ports: &[u16]) -> Vec<PortRange> {
    ports.iter().map(|p| PortRange { first: *p, last: *p }).collect()
}

pub(crate) fn allow(line: u32, protocol: Protocol, open: &[u16], purpose: &str) -> Allow {
    Allow {
        protocol,
        ports: ports(open),
        purpose: Some(purpose.to_owned()),
        from: Vec::new(),
        rate_per_second: None,
        span: span(line),
    }
}

pub(crate) fn zone(line: u32, interface: &str, kind: ZoneKind, allow: Vec<Allow>) -> Zone {
    Zone { interface: at(line, n(interface)), kind, allow, note: None }
}

/// Two keys that are in the documentation of WireGuard's protocol, so nobody's.
const LAPTOP_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const BACKUP_KEY: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

pub(crate) fn peer(line: u32, name: &str, key: &str, allowed: &str) -> Peer {
    Peer {
        name: at(line, name.to_owned()),
        public_key: at(line, key.to_owned()),
        allowed_ips: vec![at(line, n(allowed))],
        endpoint: None,
        keepalive_seconds: None,
    }
}

pub(crate) fn plane(
    line: u32,
    interface: &str,
    address: &str,
    port: u16,
    carrier: Carrier,
    peers: Vec<Peer>,
) -> Plane {
    Plane {
        interface: at(line, n(interface)),
        address: at(line, n(address)),
        port: at(line, port),
        carrier: at(line, carrier),
        peers,
    }
}

pub(crate) fn service(line: u32, unit: &str, command: Option<&str>) -> Service {
    Service {
        unit: at(line, n(unit)),
        command: command.map(|c| at(line + 1, c.to_owned())),
        setup: Vec::new(),
        before_snapshot: None,
        after_snapshot: None,
        user: None,
        listens: Vec::new(),
        datasets: Vec::new(),
        writes: Vec::new(),
        preset: None,
        hardening: Vec::new(),
        after: Vec::new(),
        environment: Vec::new(),
        secrets: Vec::new(),
        max_exposure_tenths: None,
    }
}

pub(crate) fn listen(line: u32, on: ListenOn, port: u16) -> Listen {
    Listen { on, port, protocol: Protocol::Tcp, span: span(line) }
}

fn directive(line: u32, name: &str, value: &str) -> Directive {
    Directive { name: name.to_owned(), value: value.to_owned(), span: span(line) }
}

fn user(line: u32, name: &str, system: bool) -> User {
    User {
        name: at(line, n(name)),
        system,
        home: None,
        shell: None,
        groups: Vec::new(),
        ssh_keys: Vec::new(),
        password_hash: None,
        admin: false,
    }
}

fn alert(line: u32, condition: AlertCondition, hold: u64, severity: Severity, text: &str) -> Alert {
    Alert { condition, hold: Duration::from_secs(hold), severity, text: text.to_owned(), span: span(line) }
}

fn steps(first_line: u32, texts: &[&str]) -> Procedure {
    let step = |(i, text): (usize, &&str)| Step {
        text: at(first_line + u32::try_from(i).expect("few steps"), (*text).to_owned()),
        role: if text.starts_with("If failed") { StepRole::Branch } else { StepRole::Work },
        action: StepAction::Run((*text).to_owned()),
        timeout: None,
    };
    Procedure { steps: texts.iter().enumerate().map(step).collect(), rto: None, rpo: None }
}

/// Nothing but a name.
pub(crate) fn empty() -> Appliance {
    Appliance {
        name: at(1, n("bare.internal")),
        purpose: None,
        owner: None,
        distro: at(2, Distro { family: DistroFamily::Debian, release: None }),
        profile: at(3, Profile::Server),
        pool: n("rpool"),
        datasets: Vec::new(),
        zones: Vec::new(),
        planes: Vec::new(),
        outbound: Outbound { allow: Vec::new(), unrestricted: false, span: Span::DEFAULT },
        packages: Vec::new(),
        users: Vec::new(),
        files: Vec::new(),
        services: Vec::new(),
        containers: Vec::new(),
        secrets: Vec::new(),
        snapshots: None,
        replication: None,
        monitoring: Monitoring::default(),
        upgrade_procedure: Procedure::default(),
        dr_procedure: Procedure::default(),
        verify: Vec::new(),
    }
}

pub(crate) fn policy(line: u32) -> SnapshotPolicy {
    SnapshotPolicy {
        template: "production".to_owned(),
        frequent_period_minutes: 15,
        frequently: 8,
        hourly: 48,
        daily: 30,
        weekly: 0,
        monthly: 12,
        yearly: 0,
        span: span(line),
    }
}

/// A web application on a plane with its database: the first recipe.
pub(crate) fn webapp() -> Appliance {
    let wg0 = || ListenOn::Plane(n("wg0"));
    let mut app = service(
        30,
        "webapp.service",
        Some("/usr/bin/gunicorn --bind ${WG0_ADDRESS}:8000 --chdir /opt/webapp app:app"),
    );
    app.user = Some(at(32, n("webapp")));
    app.listens = vec![listen(33, wg0(), 8000)];
    app.datasets = vec![at(34, n("rpool/srv/webapp"))];
    app.after = vec![at(35, n("postgresql@17-main.service"))];
    app.environment = vec![directive(36, "GREETING", "hello \"world\" 100%")];
    app.secrets = vec![at(37, n("session-key"))];
    app.setup = vec![at(38, "/usr/sbin/runuser -u postgres -- /usr/bin/createuser webapp".to_owned())];
    let mut database = service(40, "postgresql@17-main.service", None);
    database.listens = vec![listen(41, ListenOn::Loopback, 5432)];
    database.datasets = vec![at(42, n("rpool/srv/webapp-db"))];
    database.before_snapshot = Some(at(43, "/usr/sbin/runuser -u postgres -- psql -c CHECKPOINT".to_owned()));
    database.after_snapshot = Some(at(44, "/usr/bin/logger snapshot taken".to_owned()));
    let mut account = user(50, "webapp", true);
    account.home = Some(at(51, "/srv/webapp".to_owned()));
    let mut operator = user(52, "alice", false);
    operator.admin = true;
    operator.ssh_keys = vec![at(53, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE alice".to_owned())];
    Appliance {
        name: at(1, n("webapp.internal")),
        purpose: Some(at(2, "a small web application".to_owned())),
        datasets: vec![
            dataset(
                10,
                "rpool/srv/webapp",
                "/srv/webapp",
                &[("recordsize", "128k"), ("compression", "lz4"), ("atime", "off")],
            ),
            dataset(
                11,
                "rpool/srv/webapp-db",
                "/var/lib/postgresql",
                &[("recordsize", "8k"), ("quota", "20G")],
            ),
        ],
        zones: vec![
            zone(15, "eth0", ZoneKind::Public, vec![allow(15, Protocol::Udp, &[51820], "WireGuard")]),
            zone(
                16,
                "wg0",
                ZoneKind::Plane,
                vec![allow(16, Protocol::Tcp, &[8000], "the app"), allow(16, Protocol::Tcp, &[22], "SSH")],
            ),
            zone(17, "wg1", ZoneKind::Plane, vec![allow(17, Protocol::Tcp, &[9100], "node_exporter")]),
        ],
        planes: vec![
            plane(
                20,
                "wg0",
                "10.8.0.1/24",
                51820,
                Carrier::Public,
                vec![peer(21, "laptop", LAPTOP_KEY, "10.8.0.2/32")],
            ),
            plane(
                23,
                "wg1",
                "10.8.1.1/24",
                51821,
                Carrier::Plane(n("wg0")),
                vec![peer(24, "prometheus", BACKUP_KEY, "10.8.1.9/32")],
            ),
        ],
        packages: vec![at(27, n("gunicorn")), at(27, n("python3-flask")), at(27, n("postgresql"))],
        users: vec![account, operator],
        files: vec![
            FileSpec {
                path: at(55, "/opt/webapp".to_owned()),
                source: FileSource::Path { path: at(55, "app".to_owned()), sha256: None },
                mode: None,
                owner: None,
            },
            FileSpec {
                path: at(56, "/etc/webapp.conf".to_owned()),
                source: FileSource::Inline(at(56, "answer = 42\n".to_owned())),
                mode: Some(at(56, 0o640)),
                owner: Some(at(56, (n("root"), n("webapp")))),
            },
        ],
        services: vec![app, database],
        secrets: vec![Secret {
            name: at(60, n("session-key")),
            source: at(60, SecretSource::Generate { bytes: 32 }),
        }],
        snapshots: Some(policy(65)),
        monitoring: Monitoring {
            alerts: vec![
                alert(70, AlertCondition::PoolNotOnline, 0, Severity::Page, "pool_health != ONLINE"),
                alert(71, AlertCondition::ServiceDown { unit: None }, 60, Severity::Page, "service_up == 0"),
                alert(
                    72,
                    AlertCondition::DiskUsage { percent: 80 },
                    0,
                    Severity::Warn,
                    "disk usage >80%: warn 24h before action required",
                ),
            ],
            prometheus: Vec::new(),
        },
        upgrade_procedure: steps(80, &["kbe create pre-upgrade"]),
        verify: vec![Verify {
            name: at(90, "the app answers".to_owned()),
            command: at(91, "curl -fsS http://10.8.0.1:8000/".to_owned()),
            expect: Some(at(92, "hello".to_owned())),
            timeout: Duration::from_secs(10),
        }],
        ..empty()
    }
}

/// A git server with public ports, a replica, an encrypted dataset and a container: everything the first one has not.
pub(crate) fn gitea() -> Appliance {
    let mut git = service(40, "gitea", Some("/usr/local/bin/gitea web --port 3000"));
    git.user = Some(at(41, n("git")));
    git.listens = vec![listen(42, ListenOn::Plane(n("wg0")), 3000)];
    git.datasets = vec![at(43, n("rpool/srv/gitea")), at(43, n("rpool/srv/gitea-lfs"))];
    git.hardening =
        vec![directive(44, "ProtectSystem", "full"), directive(44, "MemoryDenyWriteExecute", "no")];
    git.after = vec![at(45, n("postgresql.service"))];
    let mut database = service(46, "postgresql.service", None);
    database.listens = vec![listen(47, ListenOn::Loopback, 5432)];
    database.datasets = vec![at(48, n("rpool/srv/gitea-db"))];
    let mut proxy = service(50, "nginx.service", None);
    proxy.listens =
        vec![listen(51, ListenOn::Public(n("eth0")), 80), listen(51, ListenOn::Public(n("eth0")), 443)];
    let mut encrypted =
        dataset(13, "rpool/srv/gitea-lfs", "/srv/gitea-lfs", &[("recordsize", "1M"), ("compression", "off")]);
    encrypted.encryption = Some(at(13, Encryption::Aes256Gcm));
    let mut https = allow(15, Protocol::Tcp, &[80, 443], "HTTPS");
    https.rate_per_second = Some(200);
    let mut backup = peer(29, "backup", BACKUP_KEY, "10.8.2.0/24");
    backup.allowed_ips.push(at(29, n("10.99.0.0/16")));
    backup.endpoint = Some(at(29, "backup.example.com:51820".to_owned()));
    backup.keepalive_seconds = Some(at(29, 25));
    Appliance {
        name: at(1, n("git.internal")),
        datasets: vec![
            dataset(11, "rpool/srv/gitea", "/srv/gitea", &[("recordsize", "128k"), ("atime", "off")]),
            dataset(12, "rpool/srv/gitea-db", "/var/lib/postgresql", &[("recordsize", "8k")]),
            encrypted,
            dataset(14, "rpool/apps/runner/cache", "/var/cache/runner", &[("compression", "zstd")]),
        ],
        zones: vec![
            zone(15, "eth0", ZoneKind::Public, vec![https]),
            zone(
                16,
                "wg0",
                ZoneKind::Plane,
                vec![
                    allow(16, Protocol::Tcp, &[3000], "Gitea admin UI"),
                    allow(16, Protocol::Tcp, &[22], "SSH git push"),
                    allow(16, Protocol::Tcp, &[8081], "runner"),
                ],
            ),
            zone(
                17,
                "wg1",
                ZoneKind::Plane,
                vec![
                    allow(17, Protocol::Tcp, &[9100], "node_exporter"),
                    allow(17, Protocol::Tcp, &[9101], "postgres_exporter"),
                ],
            ),
            zone(18, "wg2", ZoneKind::Plane, vec![]),
        ],
        planes: vec![
            plane(
                20,
                "wg0",
                "10.8.0.1/24",
                51820,
                Carrier::Public,
                vec![peer(21, "laptop", LAPTOP_KEY, "10.8.0.2/32")],
            ),
            plane(23, "wg1", "fd00:8:1::1/64", 51821, Carrier::Plane(n("wg0")), vec![]),
            plane(28, "wg2", "10.8.2.2/24", 51822, Carrier::Public, vec![backup]),
        ],
        outbound: Outbound {
            allow: vec![
                OutboundRule {
                    protocol: Protocol::Tcp,
                    ports: ports(&[443]),
                    to: vec![],
                    user: Some(n("git")),
                    purpose: Some("mirrors".to_owned()),
                    span: span(31),
                },
                OutboundRule {
                    protocol: Protocol::Tcp,
                    ports: ports(&[25]),
                    to: vec![n("192.0.2.25/32"), n("2001:db8::25/128")],
                    user: None,
                    purpose: Some("mail".to_owned()),
                    span: span(32),
                },
            ],
            unrestricted: false,
            span: span(30),
        },
        users: vec![user(60, "git", true)],
        services: vec![git, database, proxy],
        containers: vec![Container {
            name: at(54, n("runner")),
            image: at(55, "registry.example.com/runner:1.2.3".to_owned()),
            publish: vec![Publish {
                listen: listen(56, ListenOn::Plane(n("wg0")), 8081),
                container_port: 80,
            }],
            mounts: vec![(at(57, n("rpool/apps/runner/cache")), at(57, "/cache".to_owned()))],
            environment: vec![directive(58, "MODE", "ci")],
            secrets: vec![at(59, n("token"))],
            capabilities: vec![at(59, n("CAP_CHOWN"))],
        }],
        secrets: vec![Secret { name: at(62, n("token")), source: at(62, SecretSource::Supplied) }],
        snapshots: Some(policy(65)),
        replication: Some(Replication {
            user: n("backup"),
            host: ReplicationHost::Address(n("10.8.2.1")),
            dataset: n("tank/git"),
            schedule: at(67, Schedule::Daily { hour: 2, minute: 0 }),
            plane: at(68, n("wg2")),
            span: span(66),
        }),
        monitoring: Monitoring {
            alerts: vec![
                alert(70, AlertCondition::PoolNotOnline, 0, Severity::Page, "pool DEGRADED"),
                alert(
                    71,
                    AlertCondition::ServiceDown { unit: Some(n("gitea")) },
                    60,
                    Severity::Page,
                    "gitea down >1m",
                ),
                alert(
                    72,
                    AlertCondition::ReplicationLag { minutes: 90 },
                    0,
                    Severity::Warn,
                    "replication_lag_minutes > 90",
                ),
                alert(
                    73,
                    AlertCondition::Expression("rate(node_network_receive_errs_total[5m]) > 1".to_owned()),
                    300,
                    Severity::Warn,
                    "errors on the wire {{ here }}",
                ),
            ],
            prometheus: vec![at(74, n("fd00:8:1::9"))],
        },
        ..empty()
    }
}

/// The first recipe, as a person wrote it.
pub(crate) fn recipe() -> Appliance {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let checked = kld_manifest::check(&text);
    checked.appliance.unwrap_or_else(|| panic!("{path}: {:#?}", checked.diagnostics))
}

/// A service of each preset, with a command and of a package.
pub(crate) const PRESETS: &str = "\
name: presets
distro: Debian 13
profile: server
zfs_layout:
  rpool/srv/db: recordsize=8k
network_topology:
  eth0: TCP 80,443 web
outbound: any
users:
  data: system  home=/srv/db
services:
  - unit: strict.service
    command: /usr/bin/kldload
    listens: localhost:8000
    hardening: strict
  - unit: by-default.service
    command: /usr/bin/kldload
    listens: localhost:8001
  - unit: packaged.service
    command: /usr/bin/kldload
    hardening: packaged
  - unit: database.service
    command: /usr/bin/kldload
    user: data
    dataset: rpool/srv/db
    hardening: database
  - unit: web.service
    command: /usr/bin/kldload
    listens: localhost:8002
    hardening: web
  - unit: web-low.service
    command: /usr/bin/kldload
    listens: eth0:80
    hardening: web
  - unit: containers.service
    command: /usr/bin/podman run --rm docker.io/library/nginx:1.27.1
    hardening: container-host
  - unit: redis-server.service
  - unit: postgresql.service
    hardening: database
  - unit: nginx.service
    listens: eth0:443
    hardening: web  ProtectHome=read-only
  - unit: podman.service
    hardening: container-host
";

pub(crate) fn presets() -> Appliance {
    let checked = kld_manifest::check(PRESETS);
    checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
}

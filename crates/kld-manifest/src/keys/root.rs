//! The top level, and the small sections: accounts, files, secrets, proofs.

use super::{
    CONTAINER, DATASET, MONITORING, OUTBOUND_RULE, PROCEDURE, REPLICATION, SERVICE, SNAPSHOTS, WIREGUARD,
    ZONE,
};
use super::{Key, Kind, Rule, Section};
use crate::values::Wrong;

/// The whole manifest.
pub(crate) static ROOT: Section = Section {
    title: "The manifest",
    one: "the manifest",
    doc: "One manifest describes one machine. Nesting is by spaces; `//` and `#` (at the start or after a space) begin \
          a comment; `key: |` takes the deeper lines below it as they are; a value with special characters can stand in \
          double quotes; `<like this>` marks what is still to be filled in.",
    frame: "{}\n",
    shorthands: &[],
    keys: &[
        Key::required(
            "name",
            Kind::Text("a host name"),
            "Name of the machine; also its host name.",
            "name: git.internal",
        ),
        Key::optional(
            "purpose",
            Kind::Text("one sentence"),
            "What the machine is for.",
            "purpose: Source control for the team",
        ),
        Key::optional(
            "owner",
            Kind::Text("a name and how to reach it"),
            "Who answers for it.",
            "owner: Ops  ops@example.com",
        ),
        Key::required(
            "distro",
            Kind::Text("a distribution and its release"),
            "What it is made from: Debian, Ubuntu, CentOS Stream, Rocky Linux, RHEL, Fedora, Arch or Alpine, and the \
             release.",
            "distro: Debian 13",
        ),
        Key::required(
            "profile",
            Kind::Choice(&["server", "desktop", "core"]),
            "`core`: the stock distribution on ZFS and nothing else; `server`: a headless appliance with mesh, firewall, \
             snapshots and monitoring; `desktop`: a server with a graphical session.",
            "profile: server",
        ),
        Key::optional(
            "zfs_layout",
            Kind::Map("dataset names, pool first", &DATASET),
            "The datasets, one per service. Required for the profiles `server` and `desktop`.",
            "zfs_layout:\n  rpool/srv/webapp: recordsize=128k  compression=lz4",
        ),
        Key::optional(
            "network_topology",
            Kind::Map("interface names", &ZONE),
            "What may come in, interface by interface. `wg0`, `wg1`, … are WireGuard planes, every other name is a public \
             interface. What is not listed is dropped.",
            "network_topology:\n  eth0: nothing but WireGuard\n  wg0:  TCP 8000 web application\n  wg1:  TCP 9100 node_exporter",
        ),
        Key::optional(
            "wireguard",
            Kind::Section(&WIREGUARD),
            "Addresses and peers of the planes. A plane that is only named in `network_topology` takes its defaults.",
            "wireguard:\n  wg0: address=10.8.0.1/24  port=51820",
        ),
        Key::optional(
            "outbound",
            Kind::Items(&OUTBOUND_RULE),
            "What the machine may connect to beside DNS, DHCP, NTP and WireGuard: rules, `any`, or `nothing` (the \
             default).",
            "outbound: TCP 80,443 package updates",
        ),
        Key::optional(
            "packages",
            Kind::List("package names"),
            "Distribution packages to install.",
            "packages: gunicorn, python3-flask",
        ),
        Key::optional(
            "users",
            Kind::Map("login names", &USER),
            "Accounts made on the machine.",
            "users:\n  webapp: system  home=/srv/webapp",
        ),
        Key::optional(
            "files",
            Kind::Map("absolute paths on the machine", &FILE),
            "Files put into the machine.",
            "files:\n  /etc/motd: |\n    Welcome.",
        ),
        Key::optional(
            "secrets",
            Kind::Map("secret names", &SECRET),
            "Secrets by name. Values are made or supplied on the machine, never written here.",
            "secrets:\n  session-key: generate 32 bytes",
        ),
        Key::optional(
            "services",
            Kind::Items(&SERVICE),
            "The systemd services that the machine exists for.",
            "services:\n  - unit: webapp.service\n    dataset: rpool/srv/webapp",
        ),
        Key::optional(
            "containers",
            Kind::Items(&CONTAINER),
            "Containers run by podman as systemd services.",
            "containers:\n  - name: grafana\n    image: docker.io/grafana/grafana:11.2.0",
        ),
        Key::optional(
            "snapshot_policy",
            Kind::Section(&SNAPSHOTS),
            "How often snapshots are taken and how many are kept; `none` switches them off. Left out: sanoid's \
             production template (36 hourly, 30 daily, 3 monthly).",
            "snapshot_policy:\n  hourly: 48\n  daily: 30",
        ),
        Key::optional(
            "replication_policy",
            Kind::Section(&REPLICATION),
            "Where the datasets are copied to, and when.",
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: hourly",
        ),
        Key::optional(
            "monitoring",
            Kind::Section(&MONITORING),
            "What is watched.",
            "monitoring:\n  alerts:\n    - pool DEGRADED: page immediately",
        ),
        Key::optional(
            "upgrade_procedure",
            Kind::Section(&PROCEDURE),
            "The steps of an upgrade, numbered.",
            "upgrade_procedure:\n  1. kbe create pre-upgrade\n  2. apt-get dist-upgrade",
        ),
        Key::optional(
            "dr_procedure",
            Kind::Section(&PROCEDURE),
            "The steps of disaster recovery, numbered, with the targets `RTO:` and `RPO:`.",
            "dr_procedure:\n  RTO: 8 minutes  RPO: 24 hours\n  1. zpool import tank",
        ),
        Key::optional(
            "verify",
            Kind::Items(&VERIFY),
            "Commands that prove that the machine does its job.",
            "verify:\n  - name: the pool is well\n    command: zpool status -x",
        ),
    ],
};

/// One account.
pub(crate) static USER: Section = Section {
    title: "users: accounts",
    one: "an account",
    doc: "An account. `system` accounts run services and cannot log in; `admin` accounts may use sudo.",
    frame: "users:\n  alice:\n    {}\n",
    shorthands: &["users:\n  webapp: system  home=/srv/webapp\n"],
    keys: &[
        Key::optional("system", Kind::Flag, "A system account: no login, no password.", "system: yes"),
        Key::optional("admin", Kind::Flag, "May become root with sudo.", "admin: yes"),
        Key::optional(
            "home",
            Kind::Checked(&super::services::ABSOLUTE_PATH),
            "Home directory. Default: `/home/NAME`, none for system accounts.",
            "home: /srv/alice",
        ),
        Key::optional(
            "shell",
            Kind::Checked(&super::services::ABSOLUTE_PATH),
            "Login shell.",
            "shell: /bin/bash",
        ),
        Key::optional("groups", Kind::List("group names"), "Further groups.", "groups: adm, systemd-journal"),
        Key::optional(
            "ssh_key",
            Kind::Text("a line of authorized_keys"),
            "One public SSH key that may log in (in double quotes on a shorthand line).",
            "ssh_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB/aEgScRukbNCdLT0uiYFFA5Mkhxqmq0Mm3BcCeSDVu alice@laptop",
        ),
        Key::optional(
            "ssh_keys",
            Kind::List("lines of authorized_keys"),
            "Several public SSH keys, one per item.",
            "ssh_keys:\n  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB/aEgScRukbNCdLT0uiYFFA5Mkhxqmq0Mm3BcCeSDVu alice@laptop",
        ),
        Key::optional(
            "password_hash",
            Kind::Checked(&CRYPT_HASH),
            "A crypt(5) hash for console logins, as `mkpasswd` prints it. Never a password.",
            "password_hash: $y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
        ),
    ],
};

/// One file.
pub(crate) static FILE: Section = Section {
    title: "files",
    one: "a file",
    doc: "A file or directory beside the manifest, or literal text, at an absolute path of the machine. On one line the \
          first word is the source.",
    frame: "files:\n  /srv/webapp/app.py:\n    {}\n",
    shorthands: &[
        "files:\n  /srv/webapp/app.py: app.py  mode=0644  owner=webapp:webapp\n",
        "files:\n  /etc/motd: |\n    Welcome.\n",
    ],
    keys: &[
        Key::optional(
            "source",
            Kind::Text("a relative path"),
            "A file or directory beside the manifest or below.",
            "source: app.py",
        ),
        Key::optional(
            "sha256",
            Kind::Checked(&SHA256),
            "What `source`, a file, must be, as `sha256sum` prints it. Another file is refused before anything is touched.",
            "sha256: ab3c0f5e8d7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c\nsource: app.py",
        ),
        Key::optional(
            "content",
            Kind::Block,
            "The bytes themselves, instead of `source`.",
            "content: |\n  print('hello')",
        ),
        Key::optional(
            "mode",
            Kind::Checked(&MODE),
            "Permission bits in octal. Default: 0755 for a source that can be executed, else 0644.",
            "mode: 0640\nsource: app.py",
        ),
        Key::optional(
            "owner",
            Kind::Text("`user` or `user:group`"),
            "Owner and group. Default: root.",
            "owner: webapp:webapp\nsource: app.py",
        ),
    ],
};

/// One secret.
pub(crate) static SECRET: Section = Section {
    title: "secrets",
    one: "a secret",
    doc: "Where the value of a secret comes from. Services get it as a systemd credential, a file below \
          `$CREDENTIALS_DIRECTORY`.",
    frame: "secrets:\n  db-password:\n    {}\n",
    shorthands: &["secrets:\n  session-key: generate 32 bytes\n", "secrets:\n  api-token: supplied\n"],
    keys: &[
        Key::optional(
            "generate",
            Kind::Integer { min: 16, max: 512 },
            "This many random bytes, made at first boot and kept in base64.",
            "generate: 32",
        ),
        Key::optional(
            "supplied",
            Kind::Flag,
            "Given by a person: `kldload secret set NAME`, or at first boot as the systemd credential `kldload.secret.NAME`.",
            "supplied: yes",
        ),
    ],
};

/// One proof.
pub(crate) static VERIFY: Section = Section {
    title: "verify",
    one: "a proof",
    doc: "A command that proves that the machine does its job: run after the build, after an upgrade, and by `kst`.",
    frame: "verify:\n  - {}\n",
    shorthands: &[],
    keys: &[
        Key::required("name", Kind::Text("a sentence"), "What it proves.", "name: the application answers"),
        Key::required(
            "command",
            Kind::Text("a command"),
            "Run by `/bin/sh -c` as `nobody`; exit status 0 is good. `${WG0_ADDRESS}` is the address of `wg0`.",
            "command: curl -fsS http://${WG0_ADDRESS}:8000/healthz",
        ),
        Key::optional("expect", Kind::Text("text"), "Text that its output must contain.", "expect: ok"),
        Key::optional("timeout", Kind::Duration, "Given up after this long. Default: 10s.", "timeout: 30s"),
    ],
};

static MODE: Rule = Rule {
    what: "a file mode",
    pattern: "^0?[0-7]{3,4}$",
    check: |text| {
        let octal = (3..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let fits = octal && u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777);
        if fits {
            Ok(())
        } else {
            Err(Wrong::because("a mode is three or four octal digits").hint("for example `0644`"))
        }
    },
};

static SHA256: Rule = Rule { what: "a SHA-256", pattern: "^[0-9a-fA-F]{64}$", check: crate::digest::check };

static CRYPT_HASH: Rule = Rule {
    what: "a crypt(5) hash",
    pattern: "^\\$(y|gy|6|5|2b|7)\\$[./A-Za-z0-9$,=]+$",
    check: |text| {
        let known =
            ["$y$", "$gy$", "$6$", "$5$", "$2b$", "$7$"].iter().any(|prefix| text.starts_with(prefix));
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./$,=".contains(&b));
        if known && plain && text.len() >= 20 {
            Ok(())
        } else {
            Err(Wrong::because("a hash begins with `$y$`, `$6$` or another crypt(5) prefix")
                .hint("make one with `mkpasswd`; a password itself does not belong here"))
        }
    },
};

//! The checked model: what a manifest means.
//!
//! An [`Appliance`] is only made by the checker, so everything in it holds together: names are valid, every
//! service listens on a plane that exists, every dataset is inside the pool and used once. Values keep their
//! [`Span`], so that later stages can say which line asked for what.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::digest::Sha256;
use crate::names::{
    Capability, DatasetName, HostName, InterfaceName, PackageName, PoolName, SecretName, UnitName, UserName,
};
pub use crate::preset::Preset;
use crate::span::{Span, Spanned};

/// One machine, described and checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Appliance {
    /// Name of the machine; also its host name (`git.internal`).
    pub name: Spanned<HostName>,
    /// One sentence: what it is for.
    pub purpose: Option<Spanned<String>>,
    /// Who answers for it, as written.
    pub owner: Option<Spanned<String>>,
    /// What it is made from.
    pub distro: Spanned<Distro>,
    /// How much of kldload it carries.
    pub profile: Spanned<Profile>,
    /// The pool every dataset lives in (`rpool`).
    pub pool: PoolName,
    /// The datasets of `zfs_layout`, in the order written. System datasets are added by the layers.
    pub datasets: Vec<Dataset>,
    /// One zone per network interface of `network_topology`.
    pub zones: Vec<Zone>,
    /// The WireGuard interfaces, `wg0` first.
    pub planes: Vec<Plane>,
    /// What the machine itself may connect to.
    pub outbound: Outbound,
    /// Distribution packages to install.
    pub packages: Vec<Spanned<PackageName>>,
    /// Accounts.
    pub users: Vec<User>,
    /// Files copied into the machine.
    pub files: Vec<FileSpec>,
    /// systemd services: ours (with a command) and the distribution's (without).
    pub services: Vec<Service>,
    /// Podman containers run as systemd units (quadlets).
    pub containers: Vec<Container>,
    /// Secrets, by name only. Values are made or supplied on the machine.
    pub secrets: Vec<Secret>,
    /// How snapshots are taken and kept; `None` switches sanoid off.
    pub snapshots: Option<SnapshotPolicy>,
    /// Where datasets are replicated to.
    pub replication: Option<Replication>,
    /// What is watched.
    pub monitoring: Monitoring,
    /// Steps of an upgrade, carried out by `kldload upgrade`.
    pub upgrade_procedure: Procedure,
    /// Steps of disaster recovery, carried out by `kldload dr`.
    pub dr_procedure: Procedure,
    /// Commands that prove that the machine does its job.
    pub verify: Vec<Verify>,
}

/// The distribution an appliance is re-packed from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Distro {
    /// Which one.
    pub family: DistroFamily,
    /// Release as written (`13`, `9`, `trixie`), when written.
    pub release: Option<String>,
}

/// The distributions a manifest may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[allow(missing_docs, reason = "the names say it")]
#[serde(rename_all = "kebab-case")]
pub enum DistroFamily {
    Debian,
    Ubuntu,
    CentosStream,
    Rocky,
    Rhel,
    Fedora,
    Arch,
    Alpine,
}

/// How much of kldload the machine carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The stock distribution with ZFS as root; nothing of kldload in it.
    Core,
    /// A headless appliance: mesh, firewall, snapshots, monitoring.
    Server,
    /// A server with a graphical session.
    Desktop,
}

/// A dataset of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Dataset {
    /// Full name, `rpool/srv/gitea`.
    pub name: Spanned<DatasetName>,
    /// Properties as written and checked, `("recordsize", "128k")`, in the order written.
    /// `mountpoint` and the encryption properties are not in this list: they have fields of their own.
    pub properties: Vec<Property>,
    /// Where it is mounted: as written, else the name without the pool (`/srv/gitea`). `None`: not mounted.
    pub mountpoint: Option<Spanned<String>>,
    /// `encryption=on`: the dataset is made on the machine, with a key born there.
    pub encryption: Option<Spanned<Encryption>>,
}

/// One ZFS property, already known to be possible.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Property {
    /// As `zfs set` names it.
    pub name: String,
    /// As `zfs set` takes it.
    pub value: String,
    /// Where it was written.
    pub span: Span,
}

/// Native encryption of one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// `aes-256-gcm`, which is also what `on` means.
    Aes256Gcm,
    /// `aes-128-gcm`.
    Aes128Gcm,
}

/// What may come in through one interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Zone {
    /// The interface, as written.
    pub interface: Spanned<InterfaceName>,
    /// Public, or a plane.
    pub kind: ZoneKind,
    /// What is accepted.
    pub allow: Vec<Allow>,
    /// What the line says besides ports (`syncoid source — all three datasets replicated nightly`).
    pub note: Option<Spanned<String>>,
}

/// Which side of the wall an interface is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneKind {
    /// Anybody can send packets here.
    Public,
    /// A WireGuard plane: only peers.
    Plane,
}

/// Ports accepted in a zone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Allow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports, each a range (a single port is `n..=n`), sorted, not overlapping.
    pub ports: Vec<PortRange>,
    /// What they are for, as written.
    pub purpose: Option<String>,
    /// Accepted only from these networks; empty means from anybody in the zone.
    pub from: Vec<IpNet>,
    /// New connections per second from one address; the layers set a default on public zones.
    pub rate_per_second: Option<u32>,
    /// Where it was written.
    pub span: Span,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[allow(missing_docs, reason = "the names say it")]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Ports `first..=last`; `first <= last`, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// One WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plane {
    /// `wg0`, `wg1`, …
    pub interface: Spanned<InterfaceName>,
    /// Own address with the network's prefix length, `10.8.0.1/24`.
    pub address: Spanned<IpNet>,
    /// UDP port it listens on.
    pub port: Spanned<u16>,
    /// What carries it: the public interface, or another plane (so that one UDP port is open in all).
    pub carrier: Spanned<Carrier>,
    /// Who may talk on it.
    pub peers: Vec<Peer>,
}

/// What a plane's encrypted packets travel over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The public interface: the port is open to anybody.
    Public,
    /// Another plane: the port is open to its peers only.
    Plane(InterfaceName),
}

/// One WireGuard peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Peer {
    /// A name for people.
    pub name: Spanned<String>,
    /// Its public key, 32 bytes in base64 as `wg pubkey` prints it.
    pub public_key: Spanned<String>,
    /// Addresses it may use in the plane.
    pub allowed_ips: Vec<Spanned<IpNet>>,
    /// Where it is reached, `host:port`, when it has a fixed place.
    pub endpoint: Option<Spanned<String>>,
    /// Seconds between keepalive packets.
    pub keepalive_seconds: Option<Spanned<u16>>,
}

/// Connections the machine may open.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Outbound {
    /// What is allowed out of the public interface besides DNS, DHCP, NTP and WireGuard.
    pub allow: Vec<OutboundRule>,
    /// `outbound: any`: no restriction.
    pub unrestricted: bool,
    /// Where it was written.
    pub span: Span,
}

/// One allowed kind of outgoing connection.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutboundRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination ports.
    pub ports: Vec<PortRange>,
    /// Destination networks; empty means anywhere.
    pub to: Vec<IpNet>,
    /// Only processes of this user may.
    pub user: Option<UserName>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Where it was written.
    pub span: Span,
}

/// More have no numbers of their own: those of people begin behind them.
pub const MAX_SYSTEM_ACCOUNTS: usize = 200;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// Login name.
    pub name: Spanned<UserName>,
    /// A system account: no login, no password, home as given or `/nonexistent`.
    pub system: bool,
    /// Home directory.
    pub home: Option<Spanned<String>>,
    /// Login shell; system accounts have `/usr/sbin/nologin`.
    pub shell: Option<Spanned<String>>,
    /// Further groups.
    pub groups: Vec<Spanned<UserName>>,
    /// Public SSH keys that may log in.
    pub ssh_keys: Vec<Spanned<String>>,
    /// A crypt(3) hash for console logins; never a password.
    pub password_hash: Option<Spanned<String>>,
    /// May become root with sudo.
    pub admin: bool,
}

/// A file put into the machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileSpec {
    /// Absolute path in the machine, no `..`.
    pub path: Spanned<String>,
    /// Where its bytes come from.
    pub source: FileSource,
    /// Permission bits; `None` keeps the executable bit of the source (0644 or 0755).
    pub mode: Option<Spanned<u32>>,
    /// Owner and group; root when not written.
    pub owner: Option<Spanned<(UserName, UserName)>>,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSource {
    /// A file or directory beside the manifest.
    Path {
        /// A relative path that stays below it. Flat, so that files without a digest keep the normal form that histories know.
        #[serde(flatten)]
        path: Spanned<String>,
        /// What the file must be, when that is written; a directory cannot have one.
        sha256: Option<Spanned<Sha256>>,
    },
    /// Written in the manifest itself.
    Inline(Spanned<String>),
}

/// A systemd service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Service {
    /// `gitea.service`.
    pub unit: Spanned<UnitName>,
    /// What it runs. `None`: the unit comes from a package, and only a drop-in is written for it.
    pub command: Option<Spanned<String>>,
    /// Commands that run once on the machine's first boot, before the service, as `setup_user` or root.
    pub setup: Vec<Spanned<String>>,
    /// Runs before a snapshot of its datasets is taken; when it fails, none is.
    pub before_snapshot: Option<Spanned<String>>,
    /// Runs after it, also when `before_snapshot` has failed.
    pub after_snapshot: Option<Spanned<String>>,
    /// Account it runs as (`User=`).
    pub user: Option<Spanned<UserName>>,
    /// Where it listens; empty for a service that does not.
    pub listens: Vec<Listen>,
    /// The dataset it may write to (the only one), and further ones.
    pub datasets: Vec<Spanned<DatasetName>>,
    /// Further directories it may write to (below /run, /var/lib, /var/log, /var/cache).
    pub writes: Vec<Spanned<String>>,
    /// The sandbox that was chosen. `None`: `strict` with a `command`, `packaged` without one.
    pub preset: Option<Spanned<Preset>>,
    /// Hardening directives written by a person: they override the layer's own. `("ProtectSystem","strict")`.
    pub hardening: Vec<Directive>,
    /// Units it starts after and wants.
    pub after: Vec<Spanned<UnitName>>,
    /// Environment, `("PORT", "8000")`.
    pub environment: Vec<Directive>,
    /// Secrets handed over with LoadCredential.
    pub secrets: Vec<Spanned<SecretName>>,
    /// Highest accepted `systemd-analyze security` exposure, 0.0–10.0, times ten.
    pub max_exposure_tenths: Option<Spanned<u8>>,
}

/// `name=value` with its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Directive {
    pub name: String,
    pub value: String,
    pub span: Span,
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listen {
    /// The interface's address, or loopback.
    pub on: ListenOn,
    /// The port.
    pub port: u16,
    /// TCP unless `/udp` is written.
    pub protocol: Protocol,
    /// Where it was written.
    pub span: Span,
}

/// Which address a service binds to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenOn {
    /// 127.0.0.1 / ::1 only.
    Loopback,
    /// The address of a plane.
    Plane(InterfaceName),
    /// A public interface (`eth0:443`); the zone must open the port.
    Public(InterfaceName),
}

/// A container run by podman as a systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Container {
    /// Name; the unit is `NAME.service`.
    pub name: Spanned<UnitName>,
    /// Image reference; must carry a digest or a tag other than `latest`.
    pub image: Spanned<String>,
    /// `plane:port → container port`.
    pub publish: Vec<Publish>,
    /// `dataset → path in the container`.
    pub mounts: Vec<(Spanned<DatasetName>, Spanned<String>)>,
    /// Environment.
    pub environment: Vec<Directive>,
    /// Secrets.
    pub secrets: Vec<Spanned<SecretName>>,
    /// Rights of root that it keeps; all others are taken away.
    pub capabilities: Vec<Spanned<Capability>>,
}

/// A published container port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Publish {
    /// Where on the machine.
    pub listen: Listen,
    /// Port inside.
    pub container_port: u16,
}

/// A secret, by name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Secret {
    /// Its name.
    pub name: Spanned<SecretName>,
    /// Where the value comes from.
    pub source: Spanned<SecretSource>,
}

/// Where a secret's value comes from. Never from the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// Made on the machine at first boot: this many random bytes, in base64.
    Generate {
        /// 16–512.
        bytes: u16,
    },
    /// Given by a person, or at first boot as the systemd credential `kldload.secret.NAME`.
    Supplied,
}

/// How sanoid takes and keeps snapshots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SnapshotPolicy {
    /// Name of the template, `production` by default.
    pub template: String,
    /// Minutes between `frequently` snapshots; 0 for none.
    pub frequent_period_minutes: u32,
    /// How many of each are kept.
    pub frequently: u32,
    /// See `frequently`.
    pub hourly: u32,
    /// See `frequently`.
    pub daily: u32,
    /// See `frequently`.
    pub weekly: u32,
    /// See `frequently`.
    pub monthly: u32,
    /// See `frequently`.
    pub yearly: u32,
    /// Where it was written.
    pub span: Span,
}

/// Where and when datasets are replicated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Replication {
    /// Account on the other machine.
    pub user: UserName,
    /// The other machine: a host name or an address on a plane.
    pub host: ReplicationHost,
    /// Parent dataset there.
    pub dataset: DatasetName,
    /// When.
    pub schedule: Spanned<Schedule>,
    /// The plane it travels over.
    pub plane: Spanned<InterfaceName>,
    /// Where the target was written.
    pub span: Span,
}

/// The other end of a replication.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the names say it")]
#[serde(rename_all = "kebab-case")]
pub enum ReplicationHost {
    Name(HostName),
    Address(IpAddr),
}

/// When something runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Every n minutes (1–59).
    EveryMinutes(u32),
    /// Every hour at minute m.
    Hourly {
        /// 0–59.
        minute: u8,
    },
    /// Every day.
    Daily {
        /// 0–23.
        hour: u8,
        /// 0–59.
        minute: u8,
    },
    /// Every week.
    Weekly {
        /// `Mon` … `Sun`, as systemd writes it.
        day: &'static str,
        /// 0–23.
        hour: u8,
        /// 0–59.
        minute: u8,
    },
}

/// What is watched, and what is said when it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Monitoring {
    /// The alerts, in the order written.
    pub alerts: Vec<Alert>,
    /// Addresses of Prometheus servers that may scrape; empty means every peer of the monitoring plane.
    pub prometheus: Vec<Spanned<IpAddr>>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Alert {
    /// What must hold for it to fire.
    pub condition: AlertCondition,
    /// How long it must hold first.
    pub hold: Duration,
    /// How loud.
    pub severity: Severity,
    /// The line as written.
    pub text: String,
    /// Where it was written.
    pub span: Span,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertCondition {
    /// The pool is not ONLINE (`pool_health != ONLINE`, `pool DEGRADED`).
    PoolNotOnline,
    /// Replication is older than this (`replication_lag_minutes > 90`).
    ReplicationLag {
        /// Minutes.
        minutes: u32,
    },
    /// A service of the manifest is not active (`gitea down`), or any of them (`service_up == 0`, `None`).
    ServiceDown {
        /// The unit, `None` for any.
        unit: Option<UnitName>,
    },
    /// A file system is fuller than this (`disk usage >80%`).
    DiskUsage {
        /// 1–99.
        percent: u8,
    },
    /// A PromQL expression (`expr: …` in the structured form).
    Expression(String),
}

/// How loud an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Look at it tomorrow.
    Warn,
    /// Wake somebody.
    Page,
}

/// Numbered steps, with the targets of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Procedure {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Recovery time objective.
    pub rto: Option<Spanned<Duration>>,
    /// Recovery point objective.
    pub rpo: Option<Spanned<Duration>>,
}

/// One step of a procedure.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// As a person reads it, without the number.
    pub text: Spanned<String>,
    /// What it is there for.
    pub role: StepRole,
    /// Who does what.
    pub action: StepAction,
    /// Given up after this long.
    pub timeout: Option<Duration>,
}

/// What a step of a procedure is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepRole {
    /// It brings the procedure on.
    Work,
    /// `Verify: …`: it shows that what came before has worked.
    Proof,
    /// `If failed: …`: taken only when a step before it has failed.
    Branch,
}

/// What is done in a step of a procedure.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepAction {
    /// Run by `/bin/sh -c` as root on the machine: the manifest is its operator's own text.
    Run(String),
    /// Done by a person, who says how it went.
    Ask(String),
}

/// One proof that the machine works.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verify {
    /// What it proves.
    pub name: Spanned<String>,
    /// Run by `/bin/sh -c` as `nobody` on the machine; 0 means good.
    pub command: Spanned<String>,
    /// Text the output must contain.
    pub expect: Option<Spanned<String>>,
    /// Given up after this long.
    pub timeout: Duration,
}

impl Appliance {
    /// The dataset with this full name.
    pub fn dataset(&self, name: &DatasetName) -> Option<&Dataset> {
        self.datasets.iter().find(|dataset| dataset.name.value == *name)
    }

    /// The zone of an interface.
    pub fn zone(&self, interface: &InterfaceName) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.interface.value == *interface)
    }

    /// The plane on an interface.
    pub fn plane(&self, interface: &InterfaceName) -> Option<&Plane> {
        self.planes.iter().find(|plane| plane.interface.value == *interface)
    }

    /// The service with this unit.
    pub fn service(&self, unit: &UnitName) -> Option<&Service> {
        self.services.iter().find(|service| service.unit.value == *unit)
    }
}

//! The whole machine as data: what [`render`](crate::render) returns.
//!
//! Everything in a [`System`] is distro-neutral in shape and final in value: whoever builds an image or changes a
//! running machine takes it as it is and decides nothing. Every item carries a [`Because`]: the layer that asked for
//! it, the manifest line that caused it and the reason in words.

use std::fmt;

use kld_manifest::Span;
use kld_manifest::model::Profile;
use kld_manifest::names::{DatasetName, HostName, PackageName, PoolName, UnitName, UserName};

use crate::distro::DistroSpec;
use crate::layers::firewall::verdict::Ruleset;
use crate::node::NodeConfig;

/// One machine, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Host name; `None` for the plain core image, which leaves it to the person who boots it.
    pub host_name: Option<HostName>,
    /// The distribution it is re-packed from.
    pub distro: DistroSpec,
    /// How much of kldload it carries.
    pub profile: Profile,
    /// The pool that holds all datasets.
    pub pool: PoolName,
    /// The dataset of the first boot environment, `rpool/ROOT/debian`.
    pub boot_dataset: DatasetName,
    /// Every dataset, parents before children, sorted by name.
    pub datasets: Vec<SystemDataset>,
    /// Every package asked for (dependencies are the distribution's business), sorted by name.
    pub packages: Vec<Item<PackageName>>,
    /// Every account that is not a package's own, sorted by name.
    pub users: Vec<SystemUser>,
    /// Every file that is not a package's own, sorted by path.
    pub files: Vec<SystemFile>,
    /// Units switched on, off or masked, sorted by name.
    pub units: Vec<UnitState>,
    /// Arguments of the kernel command line, in order.
    pub kernel_args: Vec<Item<String>>,
    /// What the firewall does; core images have none.
    pub firewall: Ruleset,
    /// What the machine must know about itself. Core images have none.
    pub node: Option<NodeConfig>,
}

/// A part of kldload that asks for things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Layer {
    Boot,
    Datasets,
    Encryption,
    Users,
    Files,
    Secrets,
    Network,
    WireGuard,
    Firewall,
    Ssh,
    Hardening,
    Services,
    Containers,
    Snapshots,
    Replication,
    Monitoring,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "boot",
            Self::Datasets => "datasets",
            Self::Encryption => "encryption",
            Self::Users => "users",
            Self::Files => "files",
            Self::Secrets => "secrets",
            Self::Network => "network",
            Self::WireGuard => "wireguard",
            Self::Firewall => "firewall",
            Self::Ssh => "ssh",
            Self::Hardening => "hardening",
            Self::Services => "services",
            Self::Containers => "containers",
            Self::Snapshots => "snapshots",
            Self::Replication => "replication",
            Self::Monitoring => "monitoring",
        })
    }
}

/// Why something is in the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// Who asked.
    pub layer: Layer,
    /// The manifest line that caused it; [`Span::DEFAULT`] when every machine has it.
    pub span: Span,
    /// The reason, in words, lower case, without a full stop.
    pub reason: String,
}

impl Because {
    /// A reason that belongs to a manifest line.
    pub fn new(layer: Layer, span: Span, reason: impl Into<String>) -> Self {
        Self { layer, span, reason: reason.into() }
    }

    /// A reason that holds for every machine.
    pub fn always(layer: Layer, reason: impl Into<String>) -> Self {
        Self::new(layer, Span::DEFAULT, reason)
    }
}

/// A value and why it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    /// The value.
    pub value: T,
    /// Why.
    pub because: Because,
}

impl<T> Item<T> {
    /// A value and why it is there.
    pub fn new(value: T, because: Because) -> Self {
        Self { value, because }
    }
}

/// A ZFS dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemDataset {
    /// Full name.
    pub name: DatasetName,
    /// Properties set on this dataset, sorted by name; `mountpoint` and `canmount` are always among them.
    pub properties: Vec<Item<(String, String)>>,
    /// Whether the image holds it.
    pub created: Created,
    /// Who owns the root directory of its file system; `None` keeps what the packages made.
    pub owner: Option<MountOwner>,
    /// Why it exists.
    pub because: Because,
}

impl SystemDataset {
    /// The value of a property set here.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|p| p.value.0 == name).map(|p| p.value.1.as_str())
    }

    /// The directory it is mounted on when the machine runs; `None` when it only holds properties and children.
    pub fn mounted_at(&self) -> Option<&str> {
        let path = self.property("mountpoint").filter(|path| path.starts_with('/'))?;
        (self.property("canmount") != Some("off")).then_some(path)
    }
}

/// Where a dataset comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is in the image.
    InImage,
    /// It is made at first boot, because its key must be born there. The value is the algorithm, `aes-256-gcm`.
    OnNode(&'static str),
}

/// Owner and permissions of a dataset's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct MountOwner {
    pub user: UserName,
    pub group: UserName,
    pub mode: u32,
}

/// A file, directory or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFile {
    /// Absolute path.
    pub path: String,
    /// Permission bits. `None` only for [`Content::FromManifestDir`]: 0755 when the source is executable or a
    /// directory, else 0644.
    pub mode: Option<u32>,
    /// Owner and group, by name.
    pub owner: (String, String),
    /// What is in it.
    pub content: Content,
    /// The parts of its text that have a reason of their own: rules, directives, alerts.
    pub parts: Vec<Item<String>>,
    /// Why it exists.
    pub because: Because,
}

impl SystemFile {
    /// A text file of root's, mode 0644.
    pub fn text(path: impl Into<String>, text: impl Into<String>, because: Because) -> Self {
        Self::of(path, 0o644, Content::Text(text.into()), because)
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<String>, target: impl Into<String>, because: Because) -> Self {
        Self::of(path, 0o777, Content::Symlink(target.into()), because)
    }

    /// An empty directory of root's.
    pub fn directory(path: impl Into<String>, mode: u32, because: Because) -> Self {
        Self::of(path, mode, Content::Directory, because)
    }

    fn of(path: impl Into<String>, mode: u32, content: Content, because: Because) -> Self {
        Self {
            path: path.into(),
            mode: Some(mode),
            owner: ("root".to_owned(), "root".to_owned()),
            content,
            parts: Vec::new(),
            because,
        }
    }

    /// The same file with other permission bits.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The same file with another owner.
    #[must_use]
    pub fn with_owner(mut self, user: &str, group: &str) -> Self {
        self.owner = (user.to_owned(), group.to_owned());
        self
    }

    /// The same file with the parts its text is made of.
    #[must_use]
    pub fn with_parts(mut self, parts: Vec<Item<String>>) -> Self {
        self.parts = parts;
        self
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// This text.
    Text(String),
    /// The bytes (or the tree) at this path, relative to the manifest's directory.
    FromManifestDir(String),
    /// A symbolic link to this target.
    Symlink(String),
    /// A directory.
    Directory,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemUser {
    /// Login name; a group of the same name and number goes with it.
    pub name: UserName,
    /// Number, the same in every build: system accounts count from 800, people from 1000, in name order.
    pub uid: u32,
    /// Number of its own group.
    pub gid: u32,
    /// A system account cannot log in.
    pub system: bool,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// Further groups, sorted.
    pub groups: Vec<UserName>,
    /// Public SSH keys that may log in.
    pub ssh_keys: Vec<String>,
    /// A crypt(3) hash; `None` locks the password.
    pub password_hash: Option<String>,
    /// May become root with sudo.
    pub admin: bool,
    /// Why it exists.
    pub because: Because,
}

/// The state a unit is left in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// The unit with its type suffix.
    pub unit: UnitName,
    /// On, off or masked.
    pub state: Enablement,
    /// Why.
    pub because: Because,
}

/// Whether a unit starts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enablement {
    /// `systemctl enable`.
    Enabled,
    /// `systemctl disable`.
    Disabled,
    /// `systemctl mask`.
    Masked,
}

impl Enablement {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Enabled, Self::Disabled, Self::Masked];
}

impl fmt::Display for Enablement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Masked => "masked",
        })
    }
}

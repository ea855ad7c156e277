//! What a machine knows about itself: `/etc/kldload/node.json`.
//!
//! Written by the image builder, read on the machine by `kldload node init` (which makes what must not be in an image)
//! and by `kst` (which compares what is with what must be). It holds no secret: names, addresses and public keys only.
//! Field names are stable within one [`VERSION`]; a reader refuses another version and unknown fields.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The version this program writes and reads.
pub const VERSION: u32 = 1;

/// Where it lies on the machine.
pub const PATH: &str = "/etc/kldload/node.json";

/// The machine's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// [`VERSION`].
    pub version: u32,
    /// Host name.
    pub host_name: String,
    /// The pool.
    pub pool: String,
    /// The dataset of the boot environment the image was built with.
    pub boot_dataset: String,
    /// The EFI system partition.
    pub esp: NodeEsp,
    /// Family and name of the firewall table, `inet kldload`.
    pub firewall_table: String,
    /// The WireGuard interfaces.
    pub planes: Vec<NodePlane>,
    /// The services that must run, with where they listen.
    pub services: Vec<NodeService>,
    /// Every port a zone opens.
    pub open_ports: Vec<NodeOpenPort>,
    /// Every dataset of the image and of first boot that must be mounted, with where.
    pub mounts: Vec<NodeMount>,
    /// Datasets to make on the machine.
    pub encrypted: Vec<NodeEncrypted>,
    /// Secrets to make or to take over.
    pub secrets: Vec<NodeSecret>,
    /// Steps that run once.
    pub setup: Vec<NodeSetup>,
    /// How old snapshots may be.
    pub snapshots: Option<NodeSnapshots>,
    /// What runs around snapshots, whoever takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshot_hooks: Vec<NodeSnapshotHook>,
    /// Where datasets are replicated to.
    pub replication: Option<NodeReplication>,
    /// Proofs that the machine does its job.
    pub verify: Vec<NodeVerify>,
}

/// The EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeEsp {
    pub mount: String,
    pub partition_label: String,
}

/// A WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlane {
    /// `wg0`.
    pub interface: String,
    /// Own address with the network's prefix length.
    pub address: IpNet,
    /// UDP port.
    pub port: u16,
    /// The plane that carries it; `None` when the public interface does.
    pub carrier: Option<String>,
    /// Where its private key is kept once made; the public one lies beside it as `NAME.pub`.
    pub key_file: String,
    /// Who may talk on it.
    pub peers: Vec<NodePeer>,
}

/// A WireGuard peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodePeer {
    pub name: String,
    pub public_key: String,
    pub allowed_ips: Vec<IpNet>,
    pub endpoint: Option<String>,
    pub keepalive_seconds: Option<u16>,
}

/// A service that must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeService {
    /// The unit that runs the process.
    pub unit: String,
    /// Where it listens.
    pub listens: Vec<NodeListen>,
    /// Highest exposure (`systemd-analyze security`) that the manifest accepts, in tenths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_exposure_tenths: Option<u8>,
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeListen {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `lo`, a plane, or a public interface.
    pub interface: String,
    /// The address of the plane, or of loopback; `None` on a public interface.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A port that the firewall lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeOpenPort {
    pub interface: String,
    pub protocol: String,
    pub first: u16,
    pub last: u16,
}

/// A mounted dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeMount {
    pub dataset: String,
    pub path: String,
}

/// A dataset made at first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEncrypted {
    /// Full name.
    pub dataset: String,
    /// `None`: it inherits key and algorithm from an encrypted parent in this list.
    pub key: Option<NodeDatasetKey>,
    /// Properties besides encryption, as `zfs create -o` takes them.
    pub properties: Vec<(String, String)>,
    /// Owner of its root directory, `user:group`, and permission bits in octal.
    pub owner: Option<(String, String)>,
}

/// The key of an encrypted dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDatasetKey {
    /// `aes-256-gcm` or `aes-128-gcm`.
    pub algorithm: String,
    /// Where the key is kept, encrypted by systemd-creds.
    pub credential_file: String,
    /// The name inside the credential.
    pub credential: String,
    /// Where the key (32 bytes, `keyformat=raw`) lies while the machine runs; on a RAM disk.
    pub key_file: String,
    /// The unit that puts it there.
    pub unit: String,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSecret {
    /// Its name; also the name inside the credential.
    pub name: String,
    /// Where its value comes from.
    pub source: NodeSecretSource,
    /// Where it is kept, encrypted by systemd-creds.
    pub credential_file: String,
    /// The units that are started with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeSecretSource {
    /// Made on the machine: this many random bytes, in base64.
    Generate {
        /// 16–512.
        bytes: u16,
    },
    /// Given at first boot as this systemd credential.
    Supplied {
        /// `kldload.secret.NAME`.
        credential: String,
    },
}

/// A step that runs once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeSetup {
    pub unit: String,
    pub for_unit: String,
    pub done_file: String,
}

/// What sanoid must keep up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSnapshots {
    /// The datasets it snapshots.
    pub datasets: Vec<String>,
    /// A newest snapshot older than this means that something is wrong: twice the shortest interval.
    pub max_age_minutes: u32,
}

/// Replication to another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReplication {
    /// Account there.
    pub user: String,
    /// Name or address.
    pub host: String,
    /// Parent dataset there.
    pub target: String,
    /// The plane it travels over.
    pub plane: String,
    /// What is sent.
    pub datasets: Vec<String>,
    /// Account on this machine that may send them, and nothing else.
    pub account: String,
    /// Where its private SSH key is kept once made; the public one is `PATH.pub`.
    pub key_file: String,
    /// Where the other machine's host key is remembered.
    pub known_hosts: String,
    /// A file whose modification time is the last success.
    pub stamp_file: String,
    /// A last success older than this means that something is wrong: twice the schedule's interval.
    pub max_age_minutes: u32,
}

/// The units that run around a snapshot of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSnapshotHook {
    /// Full name.
    pub dataset: String,
    /// To be started before; when it fails, there is to be no snapshot, and `after` has been started for it.
    pub before: Option<String>,
    /// To be started after a `before` that did not fail.
    pub after: Option<String>,
}

/// A proof that the machine does its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeVerify {
    pub name: String,
    pub command: String,
    pub expect: Option<String>,
    pub timeout_seconds: u64,
}

/// The text of a node file is not one.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{PATH}`")]
pub struct NodeConfigError(#[from] serde_json::Error);

impl NodeConfig {
    /// Reads the text of [`PATH`].
    ///
    /// # Errors
    /// When it is not JSON of this shape and version.
    pub fn parse(text: &str) -> Result<Self, NodeConfigError> {
        let config: Self = serde_json::from_str(text)?;
        if config.version != VERSION {
            let message = format!("version {} is not {VERSION}", config.version);
            return Err(NodeConfigError(serde::de::Error::custom(message)));
        }
        Ok(config)
    }

    /// The text for [`PATH`].
    pub fn to_text(&self) -> String {
        let json =
            serde_json::to_string_pretty(self).expect("a node config has string keys and plain values only");
        json + "\n"
    }
}

//! Appliance → System: everything the machine must be, each item with the manifest line and the reason.
//!
//! [`render`] is a pure function. It is cut into layers, one file each in `layers/`, so that the folder listing shows the
//! product. Each layer first makes typed values (rules, directives, properties) with a reason, then text from them, in
//! the format of the tool that reads it. Distributions are data in `distros/`.
//!
//! Nothing here reads a clock, a file or the host: the same appliance gives the same system, byte for byte.

mod context;
mod distro;
mod draft;
mod explain;
mod ini_file;
mod layers;
pub mod node;
mod preset_page;
mod purpose;
mod release;
mod render;
mod system;
mod unit_file;

pub use context::IDENTITY_UNIT;
pub use distro::{
    AccountNames, DistroSpec, DpkgPaths, ModuleBuild, PackagedService, Paths, PreparedFile, RolePackages,
    SwitchedOff, UnitNames, UnknownDistro, find_distro, known as known_distros,
};
pub use explain::{ExplainRow, explain};
pub use layers::datasets::{MOUNT_CACHE, mount_cache_columns, mount_cache_path};
pub use layers::encryption::{KEYS as SEALED_KEYS, KEYS_IN_MEMORY, unlocking_files};
pub use layers::firewall::flow::{Broken, Flow};
pub use layers::firewall::verdict::{Outline, Packet, Ruleset, Sender, Verdict, Way};
pub use layers::program::PATH as PROGRAM_PATH;
pub use layers::recovery::UNIT as RECOVERY_UNIT;
pub use layers::secrets::{DIRECTORY as SECRETS, secret_file};
pub use layers::services::DONE as FIRST_STEPS_DONE;
pub use node::{
    NodeConfig, NodeConfigError, NodeDatasetKey, NodeEncrypted, NodeEsp, NodeListen, NodeMount, NodeOpenPort,
    NodePeer, NodePlane, NodeReplication, NodeSecret, NodeSecretSource, NodeService, NodeSetup,
    NodeSnapshotHook, NodeSnapshots, NodeVerify, PATH as NODE_CONFIG_PATH, VERSION as NODE_CONFIG_VERSION,
};
pub use preset_page::{PresetRow, preset_page, preset_rows};
pub use purpose::{Fit, Purpose};
pub use release::NotInRelease;
pub use render::{RenderError, render, render_core};
pub use system::{
    Because, Content, Created, Enablement, Item, Layer, MountOwner, System, SystemDataset, SystemFile,
    SystemUser, UnitState,
};

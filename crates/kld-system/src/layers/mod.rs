//! The layers: one file for each thing an appliance is made of.

pub(crate) mod boot;
pub(crate) mod containers;
pub(crate) mod datasets;
pub(crate) mod encryption;
pub(crate) mod files;
pub(crate) mod firewall;
pub(crate) mod hardening;
pub(crate) mod identity;
pub(crate) mod monitoring;
pub(crate) mod network;
pub(crate) mod presets;
pub(crate) mod program;
pub(crate) mod recovery;
pub(crate) mod replication;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod snapshot_hooks;
pub(crate) mod snapshots;
pub(crate) mod ssh;
pub(crate) mod users;
pub(crate) mod wireguard;

pub(crate) use identity::{node_config, node_file};

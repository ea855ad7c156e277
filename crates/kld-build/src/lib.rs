//! From a [`System`](kld_system::System) to a disk image.
//!
//! ```text
//! packages ──mmdebstrap──▶ zfs modules ─┐
//!                                       ├─▶ tree.tar ──index──▶ tree ──compose──▶ sealed tree ──▶ GPT + ESP + pool
//! packages ──mmdebstrap────────────────┘   (cached)              (in memory)         (audited)       (one file)
//! ```
//!
//! The slow parts are cached by the digest of what they are made from; everything after `tree.tar` is pure
//! and takes seconds. Nothing needs root, a loop device or a ZFS module.

mod accounts;
pub mod bootstrap;
mod build;
pub mod cache;
mod compose;
mod enablement;
mod image;
mod layers;
pub mod lock;
mod packages;
mod sbom;
mod seal;

pub use accounts::AccountError;
pub use build::{BuildError, BuildRequest, Built, Format, PHASES, build};
pub use cache::Cache;
pub use compose::ComposeError;
pub use image::{ESP_SIZE, ImageError};
pub use layers::LayerError;
pub use lock::Lock;
pub use seal::{AuditError, Finding};

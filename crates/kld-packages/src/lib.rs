//! Packages of a boot environment that does not run: changed there, and checked before it is ever started.
//!
//! * [`change`] is the work: it mounts a clone in a namespace of its own, lets the distribution's package manager work in it,
//!   and looks whether what came out can start. It is run by a process that nothing outlives ([`inside_cmd`]), so that
//!   whatever kills it leaves nothing mounted and nobody running.
//! * [`PackageManager`] is what differs between distributions; everything else is the same for all.
//! * [`Packages`] reads the database of a system that is mounted anywhere, and tells two of them apart.

mod apt;
mod checks;
mod database;
mod error;
mod initramfs;
mod inside;
mod manager;
mod name;
mod path_filters;
mod programs;
mod request;
mod room;
mod trial_units;
mod unit_verdicts;

pub use checks::Finding;
pub use database::{Package, PackageChange, Packages};
pub use error::PackageError;
pub use inside::{change, inside_cmd};
pub use manager::{PackageManager, Preview, manager_of, preview};
pub use name::{PackageName, PackageNameError};
pub use request::{Change, Report, Request, TrialFile};
pub use trial_units::{STUCK_TIMER, TRIAL_FILE, remove as remove_trial_units};

//! Boot environments: systems side by side in one pool, each a dataset with its own kernel and boot entry.
//!
//! * [`Looked`] is all that decides: datasets, snapshots, entries, boot partitions, what the loader was told.
//! * [`plan_destroy`], [`plan_rename`] and [`choose`] are pure: from what was looked at to a [`Plan`],
//!   or a refusal that names the thing. A plan is data; [`carry_out`] does it.
//! * [`create`], [`activate`] and [`import`] look, plan and do, because what they plan depends on what they have just done:
//!   the kernel is read from the snapshot that was just taken, and whether the loader will obey is seen afterwards.
//!
//! There is no journal. The order of the actions is such that what starts is always whole, and what an interruption leaves
//! can be told by looking ([`leftovers`]): a dataset that is marked, a snapshot taken for nobody, an entry without a
//! dataset, a kernel without an entry. The next command removes it.
//!
//! The caller holds the machine's lock; two of these at a time are not safe.
//!
//! [`Machine`] is a seam of its own and not the engine's `Host`: the engine makes an environment for each apply with this
//! crate, so this crate cannot use the engine; it also needs what `Host` has not, writes that FAT survives and the room on
//! a file system, and none of what makes `Host` large (owners, modes, links, append).

mod action;
mod activate;
mod clean;
mod create;
mod destroy;
mod diff;
mod entries;
mod equal;
mod error;
mod esp;
mod good;
mod kernel;
mod loader;
mod look;
mod machine;
mod mount;
mod name;
mod prune;
mod rename;
mod transfer;
mod trial;

pub use action::{Action, Freed, Plan, carry_out};
pub use activate::{Starts, activate, plan_activate};
pub use clean::{Leftovers, leftovers};
pub use create::{Origin, create, plan_create};
pub use destroy::{frees, plan_destroy};
pub use diff::{common_snapshot, file_changes, look_into};
pub use equal::{Unequal, unequal};
pub use error::{BootError, Protection};
pub use esp::{Entry, Esp};
pub use good::{claim, plan_good};
pub use kernel::{kernel_after, kernels};
pub use loader::Loader;
pub use look::{Environment, Good, Looked, Maker, Snapshot, Unfinished};
pub use machine::{Machine, MachineError, RealMachine};
pub use mount::{plan_mount, plan_umount};
pub use name::{BootEnvironmentName, NameError};
pub use prune::{Keep, Pruned, choose, outdated};
pub use rename::plan_rename;
pub use transfer::{STREAM_HEADER, StreamHeader, export, import, plan_export, plan_import};
pub use trial::{Trial, fail_trial, is_on_trial, pass_trial, plan_pass_trial, try_out};

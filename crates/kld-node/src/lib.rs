//! What runs on the machine itself: `kldload node init` and `kst`.
//!
//! * [`identity`] makes what an image must not hold (keys, numbers, names) and keeps it. Every start runs it; on a
//!   machine that has everything it changes nothing, and killed at any instant it finishes the next time.
//! * [`keys`] gives encrypted datasets new keys.
//! * [`secrets`] takes secrets from people.
//! * [`health`] looks at the machine and says whether all is well.
//!
//! All see the machine only through [`Machine`], so that their logic is tested on a fake one.

pub mod health;
pub mod identity;
pub mod keys;
pub mod machine;
pub mod secrets;

pub use health::{Health, Status};
pub use identity::{InitReport, init};
pub use machine::{Machine, RealMachine, plane_addresses};

//! What every command of kldload shows, and how it ends.
//!
//! Data goes to stdout, everything else (progress, warnings, errors) to stderr, so that `kldload … --json | jq`
//! works while a person still sees what happens. Output is complete without colour; `NO_COLOR` and pipes are
//! honoured. This crate knows nothing of kldload's domain: it prints what it is given.

mod confirm;
mod duration;
mod envelope;
mod error;
mod exit;
mod printer;
mod progress;
mod size;
mod table;

pub use duration::Elapsed;
pub use envelope::{ENVELOPE_VERSION, render_envelope};
pub use error::{Hint, Hinted, Hints, render_error};
pub use exit::ExitStatus;
pub use printer::{Captured, Printer, Verbosity};
pub use progress::{Phase, Phases};
pub use size::{ByteSize, SizeError};
pub use table::Table;

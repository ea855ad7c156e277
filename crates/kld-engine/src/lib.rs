//! Changes running machines: what a manifest wants is compared with what is, the difference is a [`Plan`], and a plan is
//! carried out as one transaction with a journal, or undone.
//!
//! * [`Wanted`] is the machine as the manifest describes it, with the content of every file.
//! * [`plan()`] looks at a [`Host`] and says what is to be done. A plan is data: it can be printed, kept, and leaves no
//!   choice to whoever carries it out.
//! * [`Engine`] carries plans out. Before each step it writes to its journal what it takes to go back. Killed at any
//!   instant, [`Engine::recover`] finishes going back.
//!
//! * [`undo()`] makes the plan that takes applies back which were done.
//! * [`Adopter`] makes datasets of directories that are there.
//! * [`Procedures`] carries out what is not a difference: the steps of an upgrade or of a recovery, and measures them.
//!
//! Each type of thing (`kinds/`: dataset, package, account, file, image, unit) is one file that knows how to look, compare,
//! change and go back; everything else is the same for all of them.

mod adopt;
mod destroy;
mod directory;
mod engine;
mod environment;
mod exposure;
mod firewall;
mod history;
mod host;
mod interruption;
mod journal;
mod kinds;
mod locked;
mod looking;
mod plan;
mod pools;
mod procedure;
mod reboot;
mod release;
mod secrets;
mod services;
mod undo;
mod wanted;

pub use adopt::{
    AdoptError, Adopter, Adoption, Comparison, Difference, Ground, Mended, Prospect, Return, Stage, Survey,
    User, Watch, Wish, users_of_dataset, users_of_device,
};
pub use directory::{Directory, DirectoryError, Made, Place};
pub use engine::{ApplyError, CLOCK, CONFIRM_TIMER, Engine, Outcome, Progress, Recovered, TakenBack};
pub use exposure::Exposure;
pub use history::{History, Record, Replaced, State, Undone};
pub use host::{Entry, Host, HostError, Node, RealHost};
pub use interruption::Interruption;
pub use journal::{Event, Journal};
pub use kinds::put_aside;
pub use locked::{Locked, LockedPackage, OffLock};
pub use plan::{Action, Because, Cause, Left, Plan, PlanError, Step, plan};
pub use procedure::{
    Answer, End, Hands, Interrupted, Objective, Procedure, ProcedureEnd, ProcedureError, ProcedureKind,
    ProcedureStep, Procedures, Report, Request, StepReport, StepState, Verdict,
};
pub use reboot::{AtStart, waits_for_reboot};
pub use release::Release;
pub use undo::{UndoError, undo};
pub use wanted::{Digests, Wanted, WantedError, WantedFile};

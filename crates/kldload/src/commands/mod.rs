//! One file per command (a folder for one with verbs): its arguments, its help and what it does; and `place`, which several
//! use.

pub(crate) mod adopt;
pub(crate) mod apply;
pub(crate) mod asked;
pub(crate) mod be;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod confirm;
pub(crate) mod df;
pub(crate) mod dir;
pub(crate) mod dr;
pub(crate) mod explain;
pub(crate) mod given;
pub(crate) mod history;
pub(crate) mod key;
pub(crate) mod lock;
pub(crate) mod man;
pub(crate) mod manifest;
pub(crate) mod node;
pub(crate) mod pkg;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod procedure;
pub(crate) mod proof;
pub(crate) mod recover;
pub(crate) mod run;
pub(crate) mod seconds;
pub(crate) mod secret;
pub(crate) mod session;
pub(crate) mod snap;
pub(crate) mod status;
pub(crate) mod undo;
pub(crate) mod upgrade;

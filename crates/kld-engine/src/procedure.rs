//! Upgrades and recoveries: the steps that a manifest describes, carried out one after the other.
//!
//! Nothing is undone here. A step that fails leads into its branch (`If failed: …`), and there the procedure ends; whoever
//! has mended the cause goes on with `--from`. What was begun and what has ended is on disk before the next thing happens,
//! so that a kill or a power cut leaves a record that names the step that was under way.
//!
//! ```text
//! /var/lib/kldload/procedures/000003/journal       what happened, line by line
//!                                    output/4      what step 4 has written
//!                                    report.json   both, for machines
//!                                    report.txt    the same for people
//! ```

mod record;
mod report;
mod run;
mod snapshots;

use kld_manifest::Appliance;
use kld_manifest::model::{self, StepAction, StepRole};
use serde::{Deserialize, Serialize};

use crate::host::HostError;

pub use record::ProcedureEnd;
pub use report::{Objective, Report, StepReport, StepState, Verdict};
pub use run::{Answer, End, Hands, Procedures, Request};

/// Which of a manifest's procedures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcedureKind {
    /// `upgrade_procedure`.
    Upgrade,
    /// `dr_procedure`.
    Dr,
}

impl ProcedureKind {
    /// As its command is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Dr => "dr",
        }
    }
}

/// A procedure as it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Procedure {
    /// Which.
    pub kind: ProcedureKind,
    /// The machine's name in the manifest.
    pub machine: String,
    /// The steps in order.
    pub steps: Vec<ProcedureStep>,
    /// How long the service may be gone, in seconds.
    pub rto: Option<u64>,
    /// How much work may be lost, in seconds.
    pub rpo: Option<u64>,
    /// The data whose age is measured: for each dataset its name, and its name on the machine that it is replicated to.
    pub data: Vec<Vec<String>>,
}

/// One step of a procedure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcedureStep {
    /// As a person reads it.
    pub text: String,
    /// What it is there for.
    pub role: StepRole,
    /// Who does what.
    pub action: StepAction,
    /// It has failed when it takes longer, in seconds.
    pub timeout: Option<u64>,
}

impl Procedure {
    /// The procedure of a manifest.
    pub fn new(appliance: &Appliance, kind: ProcedureKind) -> Self {
        let written = match kind {
            ProcedureKind::Upgrade => &appliance.upgrade_procedure,
            ProcedureKind::Dr => &appliance.dr_procedure,
        };
        let of_services: Vec<_> = appliance.services.iter().flat_map(|service| &service.datasets).collect();
        let mut data: Vec<Vec<String>> = Vec::new();
        for dataset in appliance.datasets.iter().map(|dataset| &dataset.name.value) {
            if of_services.is_empty() || of_services.iter().any(|name| name.value == *dataset) {
                let name = dataset.to_string();
                let leaf = name.rsplit('/').next().unwrap_or_default();
                let copy = appliance.replication.as_ref().map(|there| format!("{}/{leaf}", there.dataset));
                data.push([name.clone()].into_iter().chain(copy).collect());
            }
        }
        Self {
            kind,
            machine: appliance.name.value.to_string(),
            steps: written.steps.iter().map(ProcedureStep::new).collect(),
            rto: written.rto.as_ref().map(|rto| rto.value.as_secs()),
            rpo: written.rpo.as_ref().map(|rpo| rpo.value.as_secs()),
            data,
        }
    }
}

impl ProcedureStep {
    fn new(step: &model::Step) -> Self {
        Self {
            text: step.text.value.clone(),
            role: step.role,
            action: step.action.clone(),
            timeout: step.timeout.map(|timeout| timeout.as_secs()),
        }
    }
}

/// Why a procedure was not begun, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcedureError {
    /// What happens cannot be written down, so nothing more is done.
    #[error("cannot go on: the journal in `/var/lib/kldload` cannot be used")]
    Memory(#[from] HostError),
    /// The manifest describes no such procedure.
    #[error("the manifest has no `{}_procedure`", .0.name())]
    Empty(ProcedureKind),
    /// There is no such step.
    #[error("there is no step {from}: the `{}_procedure` has {steps}", kind.name())]
    NoStep {
        /// Which procedure.
        kind: ProcedureKind,
        /// The step that was asked for.
        from: usize,
        /// How many there are.
        steps: usize,
    },
    /// The last one has not ended, and nobody has said where to go on.
    #[error("{} {number} was interrupted {}", kind.name(), place(step))]
    Interrupted {
        /// Which procedure.
        kind: ProcedureKind,
        /// Its number.
        number: u32,
        /// The step that was under way, or the one that comes next.
        step: Interrupted,
        /// The step to go on with when the one that was under way is done.
        next: Option<usize>,
    },
}

/// Where a procedure was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// In this step.
    In(usize, String),
    /// Before this step.
    Before(usize),
}

fn place(step: &Interrupted) -> String {
    match step {
        Interrupted::In(number, text) => format!("in step {number} `{text}`"),
        Interrupted::Before(number) => format!("before step {number}"),
    }
}

impl ProcedureError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Memory(source) => source.hint(),
            Self::Empty(kind) => Some(format!(
                "write its steps: `{}_procedure:`, then `1. …` below; docs/manifest.md shows how",
                kind.name()
            )),
            Self::NoStep { kind, .. } => Some(format!("`kldload {} --dry-run` shows them", kind.name())),
            Self::Interrupted { kind, step: Interrupted::In(number, _), next, .. } => {
                let next =
                    next.map_or_else(String::new, |next| format!(" `--from {next}` goes on behind it,"));
                Some(format!(
                    "look whether it was done (its command may still run); `kldload {} --from {number}` does it \
                     again,{next} `--from 1` begins anew",
                    kind.name()
                ))
            }
            Self::Interrupted { kind, step: Interrupted::Before(number), .. } => {
                Some(format!("`kldload {} --from {number}` goes on, `--from 1` begins anew", kind.name()))
            }
        }
    }
}

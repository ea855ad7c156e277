//! What has happened and how long it took, against what was promised. Pure: events in, report out.

use kld_manifest::model::{StepAction, StepRole};
use serde::Serialize;

use super::record::{Event, ProcedureEnd};
use super::run::End;
use super::snapshots::Newest;
use super::{Interrupted, Procedure, ProcedureKind};

/// One procedure that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its number, from 1.
    pub number: u32,
    /// Which.
    pub procedure: ProcedureKind,
    /// The machine's name in the manifest.
    pub machine: String,
    /// Who asked for it.
    pub by: String,
    /// When it began, in milliseconds since 1970.
    pub began_at: u64,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// How it ended.
    pub end: ProcedureEnd,
    /// The earlier one that it went on with.
    pub continues: Option<u32>,
    /// When that one began: the clock of the recovery time.
    pub since: u64,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// How long the service was gone.
    pub rto: Objective,
    /// How much work was lost at most.
    pub rpo: Objective,
}

/// One step of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub number: usize,
    /// As a person reads it.
    pub text: String,
    /// What it is there for.
    pub role: StepRole,
    /// Who does what.
    pub action: StepAction,
    /// How it ended.
    pub state: StepState,
    /// How long it took, in milliseconds.
    pub millis: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The last of what it has written.
    pub output: String,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Before the step that the procedure was to go on from.
    Earlier,
    /// Not begun.
    Open,
    /// It was asked of a person who was not there.
    Waiting,
    /// Begun, and nobody knows how it ended.
    UnderWay,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// A person left it out.
    Skipped,
}

/// What was promised and what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objective {
    /// The target in seconds.
    pub target_seconds: Option<u64>,
    /// The measure in milliseconds.
    pub measured_millis: Option<u64>,
    /// The one against the other.
    pub verdict: Verdict,
    /// What was measured, or why nothing could be.
    pub basis: String,
}

/// Whether a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not, or nothing shows that it was.
    Missed,
    /// There is no target.
    NoTarget,
}

impl Objective {
    fn new(target: Option<u64>, measured: Result<(u64, String), String>) -> Self {
        let (measured_millis, basis) = match measured {
            Ok((millis, basis)) => (Some(millis), basis),
            Err(why) => (None, why),
        };
        let verdict = match (target, measured_millis) {
            (None, _) => Verdict::NoTarget,
            (Some(target), Some(millis)) if millis <= target.saturating_mul(1000) => Verdict::Met,
            (Some(_), _) => Verdict::Missed,
        };
        Self { target_seconds: target, measured_millis, verdict, basis }
    }
}

impl Report {
    /// Whether every step was done and every target met.
    pub fn is_well(&self) -> bool {
        let missed = |objective: &Objective| objective.verdict == Verdict::Missed;
        self.end == ProcedureEnd::Done && !missed(&self.rto) && !missed(&self.rpo)
    }

    /// The first step that has failed.
    pub fn failed(&self) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.state == StepState::Failed)
    }

    /// The step that waits for a person.
    pub fn waiting(&self) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.state == StepState::Waiting)
    }

    /// The step to go on with when this one is done: the next that is no branch.
    pub fn step_behind(&self, number: usize) -> Option<usize> {
        let work = |step: &&StepReport| step.number > number && step.role != StepRole::Branch;
        self.steps.iter().find(work).map(|step| step.number)
    }

    /// Where it was interrupted.
    pub(super) fn interrupted(&self) -> Interrupted {
        let named = |step: &StepReport| Interrupted::In(step.number, step.text.clone());
        let ended = |step: &&StepReport| {
            !matches!(step.state, StepState::Open | StepState::Waiting | StepState::Earlier)
        };
        match self.steps.iter().find(|step| step.state == StepState::UnderWay) {
            Some(step) => named(step),
            // A step that has failed leads into its branch, not to the next step.
            None => match (self.failed(), self.steps.iter().rev().find(ended)) {
                (Some(step), _) => named(step),
                (None, Some(last)) => match self.step_behind(last.number) {
                    Some(next) => Interrupted::Before(next),
                    None => named(last),
                },
                (None, None) => Interrupted::Before(
                    self.steps
                        .iter()
                        .find(|step| step.state == StepState::Open)
                        .map_or(1, |step| step.number),
                ),
            },
        }
    }

    /// `None` when the procedure never began.
    pub(super) fn of(number: u32, events: &[Event], outputs: Vec<String>) -> Option<Self> {
        let Some(Event::Started { at, by, procedure, from, continues, since, newest }) = events.first()
        else {
            return None;
        };
        let mut steps: Vec<StepReport> = procedure
            .steps
            .iter()
            .zip(outputs.into_iter().chain(std::iter::repeat(String::new())))
            .enumerate()
            .map(|(index, (step, output))| StepReport {
                number: index + 1,
                text: step.text.clone(),
                role: step.role,
                action: step.action.clone(),
                state: if index < *from { StepState::Earlier } else { StepState::Open },
                millis: None,
                reason: None,
                output,
            })
            .collect();
        let (mut end, mut ended_at, mut newest) = (ProcedureEnd::Interrupted, None, newest);
        let (mut begun_at, mut last_proof, mut last_step) = (*at, None, None);
        for event in &events[1..] {
            match event {
                Event::Started { .. } => {}
                Event::Begun { at, step } => {
                    begun_at = *at;
                    if let Some(step) = steps.get_mut(*step) {
                        step.state = StepState::UnderWay;
                    }
                }
                Event::Ended { at, step, end } => {
                    let Some(step) = steps.get_mut(*step) else { continue };
                    step.millis = Some(at.saturating_sub(begun_at));
                    step.state = match end {
                        End::Done => StepState::Done,
                        End::Failed(reason) => {
                            step.reason = Some(reason.clone());
                            StepState::Failed
                        }
                        End::Skipped => StepState::Skipped,
                    };
                    if *end == End::Done {
                        last_step = Some(*at);
                        if step.role == StepRole::Proof {
                            last_proof = Some((*at, step.number));
                        }
                    }
                }
                Event::Finished { at, end: how, newest: restored } => {
                    (end, ended_at) = (*how, Some(*at));
                    newest = restored;
                    for step in steps.iter_mut().filter(|step| step.state == StepState::UnderWay) {
                        step.state = StepState::Waiting;
                    }
                }
            }
        }
        let rto = recovery_time(procedure, end, *since, last_proof, last_step);
        let rpo = lost_work(*since, newest);
        Some(Self {
            number,
            procedure: procedure.kind,
            machine: procedure.machine.clone(),
            by: by.clone(),
            began_at: *at,
            ended_at,
            end,
            continues: *continues,
            since: *since,
            steps,
            rto: Objective::new(procedure.rto, rto),
            rpo: Objective::new(procedure.rpo, rpo),
        })
    }
}

fn recovery_time(
    procedure: &Procedure,
    end: ProcedureEnd,
    since: u64,
    last_proof: Option<(u64, usize)>,
    last_step: Option<u64>,
) -> Result<(u64, String), String> {
    if end != ProcedureEnd::Done {
        return Err("the procedure did not come to its end".to_owned());
    }
    let proves = procedure.steps.iter().any(|step| step.role == StepRole::Proof);
    match (last_proof, last_step) {
        (Some((at, number)), _) => {
            Ok((at.saturating_sub(since), format!("from the start until step {number} held")))
        }
        (None, _) if proves => Err("no `Verify:` has held".to_owned()),
        (None, Some(at)) => Ok((
            at.saturating_sub(since),
            "from the start to the last step; no step verifies anything".to_owned(),
        )),
        (None, None) => Err("nothing was done".to_owned()),
    }
}

/// The age of the oldest of the newest snapshots when it began.
fn lost_work(since: u64, newest: &[Newest]) -> Result<(u64, String), String> {
    if newest.is_empty() {
        return Err("the manifest has no dataset".to_owned());
    }
    let mut oldest: Option<(u64, &str)> = None;
    for Newest { dataset, snapshot } in newest {
        let Some((name, created)) = snapshot else {
            return Err(format!("`{dataset}` has no snapshot here"));
        };
        let age = since.saturating_sub(created.saturating_mul(1000));
        if oldest.is_none_or(|(known, _)| age > known) {
            oldest = Some((age, name));
        }
    }
    oldest.map(|(age, name)| (age, format!("age of `{name}` at the start"))).ok_or_else(String::new)
}

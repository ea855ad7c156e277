//! Carries a procedure out.

use std::time::Duration;

use kld_manifest::model::{StepAction, StepRole};
use serde::{Deserialize, Serialize};

use super::record::{Event, Output, ProcedureEnd, Record, numbers};
use super::snapshots::newest;
use super::{Interrupted, Procedure, ProcedureError, ProcedureKind, ProcedureStep, Report};
use crate::host::{Host, HostError};

/// How a step has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It is done.
    Done,
    /// It has failed, and this is why.
    Failed(String),
    /// A person left it out.
    Skipped,
}

/// What a person says of a step that was theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It could not be done.
    Failed,
    /// It is left out.
    Skip,
}

/// Whoever carries steps out: a shell and a terminal, or a test.
pub trait Hands {
    /// Milliseconds since 1970.
    fn now(&self) -> u64;

    /// Lets time pass.
    fn wait(&mut self, time: Duration);

    /// Runs a command by `/bin/sh -c`, at most so long; `line` takes each line that it writes, `shown` says whether the
    /// person sees it too.
    ///
    /// # Errors
    /// Why it has failed, in words.
    fn run(
        &mut self,
        command: &str,
        limit: Option<Duration>,
        shown: bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), String>;

    /// Asks a person to do something, and how it went; `None` when nobody is there.
    fn ask(&mut self, what: &str) -> Option<Answer>;

    /// A step begins.
    fn begins(&mut self, number: usize, of: usize, step: &ProcedureStep);

    /// A proof does not hold yet, and is tried again.
    fn again(&mut self, why: &str, left: Duration);

    /// A step has ended.
    fn ended(&mut self, number: usize, end: &End, took: Duration);

    /// A report for people.
    fn page(&self, report: &Report) -> String;
}

/// How a procedure is to be carried out.
#[derive(Debug, Clone)]
pub struct Request {
    /// The number of the first step, from 1; `None` means from the beginning, unless the last one was interrupted.
    pub from: Option<usize>,
    /// Who asks for it.
    pub by: String,
    /// How long proofs may take to hold.
    pub within: Duration,
}

/// The procedures of one machine. Whoever lets one run holds the machine's lock.
#[derive(Clone, Copy)]
pub struct Procedures<'a> {
    host: &'a dyn Host,
}

impl std::fmt::Debug for Procedures<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Procedures")
    }
}

/// A proof that does not hold is tried again after this time.
const PAUSE: Duration = Duration::from_secs(1);

impl<'a> Procedures<'a> {
    /// The procedures of a machine.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// Every procedure that was carried out, oldest first.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn reports(&self) -> Result<Vec<Report>, HostError> {
        let report = |number| Record { host: self.host, number }.report().transpose();
        numbers(self.host)?.into_iter().filter_map(report).collect()
    }

    /// Carries one out, and gives its report: what happened, and whether it was in time.
    ///
    /// # Errors
    /// When it was not begun, or what happens can no longer be written down.
    pub fn run(
        &self,
        procedure: &Procedure,
        request: &Request,
        hands: &mut dyn Hands,
    ) -> Result<Report, ProcedureError> {
        let last = self.last(procedure.kind)?;
        let unfinished = last.filter(|report| report.end != ProcedureEnd::Done);
        let from = self.first_step(procedure, request, unfinished.as_ref())?;
        let record = Record::begin(self.host)?;
        let at = hands.now();
        let earlier = unfinished.filter(|_| from > 0);
        let since = earlier.as_ref().map_or(at, |report| report.since);
        record.write(&Event::Started {
            at,
            by: request.by.clone(),
            procedure: procedure.clone(),
            from,
            continues: earlier.map(|report| report.number),
            since,
            newest: newest(self.host, &procedure.data, since / 1000),
        })?;
        let end = Run { procedure, request, record: &record, hands: &mut *hands }.all(from)?;
        let newest = newest(self.host, &procedure.data, since / 1000);
        record.write(&Event::Finished { at: hands.now(), end, newest })?;
        tell(&record, hands)
    }

    fn last(&self, kind: ProcedureKind) -> Result<Option<Report>, HostError> {
        Ok(self.reports()?.into_iter().rev().find(|report| report.procedure == kind))
    }

    /// From 0.
    fn first_step(
        &self,
        procedure: &Procedure,
        request: &Request,
        unfinished: Option<&Report>,
    ) -> Result<usize, ProcedureError> {
        let (kind, steps) = (procedure.kind, procedure.steps.len());
        if steps == 0 {
            return Err(ProcedureError::Empty(kind));
        }
        match (request.from, unfinished) {
            (Some(from), _) if (1..=steps).contains(&from) => Ok(from - 1),
            (Some(from), _) => Err(ProcedureError::NoStep { kind, from, steps }),
            (None, Some(report)) if report.end == ProcedureEnd::Interrupted => {
                let (number, step) = (report.number, report.interrupted());
                let next = match step {
                    Interrupted::In(number, _) => report.step_behind(number),
                    Interrupted::Before(_) => None,
                };
                Err(ProcedureError::Interrupted { kind, number, step, next })
            }
            (None, _) => Ok(0),
        }
    }
}

/// Writes the report of what has happened so far.
fn tell(record: &Record<'_>, hands: &dyn Hands) -> Result<Report, ProcedureError> {
    let report = record.report()?.expect("it has begun");
    record.tell(&report, hands.page(&report))?;
    Ok(report)
}

struct Run<'a> {
    procedure: &'a Procedure,
    request: &'a Request,
    record: &'a Record<'a>,
    hands: &'a mut dyn Hands,
}

impl Run<'_> {
    fn all(&mut self, from: usize) -> Result<ProcedureEnd, ProcedureError> {
        let is_branch = |index: usize| self.procedure.steps[index].role == StepRole::Branch;
        // Whoever goes on from a branch wants the branch.
        let (work, mut branch): (Vec<usize>, Option<usize>) = if is_branch(from) {
            (Vec::new(), Some(from))
        } else {
            ((from..self.procedure.steps.len()).filter(|index| !is_branch(*index)).collect(), None)
        };
        let branches: Vec<bool> = (0..self.procedure.steps.len()).map(is_branch).collect();
        let mut end = if branch.is_some() { ProcedureEnd::Failed } else { ProcedureEnd::Done };
        for index in work {
            match self.step(index)? {
                None => return Ok(ProcedureEnd::Stopped),
                Some(End::Done | End::Skipped) => {}
                Some(End::Failed(_)) => {
                    end = ProcedureEnd::Failed;
                    branch = (index..branches.len()).find(|index| branches[*index]);
                    break;
                }
            }
        }
        let mut next = branch;
        while let Some(index) = next.filter(|index| branches.get(*index) == Some(&true)) {
            match self.step(index)? {
                None => return Ok(ProcedureEnd::Stopped),
                Some(End::Failed(_)) => break,
                Some(End::Done | End::Skipped) => next = Some(index + 1),
            }
        }
        Ok(end)
    }

    /// One step; `None` when it needs a person, and nobody is there.
    fn step(&mut self, index: usize) -> Result<Option<End>, ProcedureError> {
        let step = &self.procedure.steps[index];
        let begun = self.hands.now();
        self.record.write(&Event::Begun { at: begun, step: index })?;
        self.hands.begins(index + 1, self.procedure.steps.len(), step);
        let end = match &step.action {
            StepAction::Ask(what) => match self.hands.ask(what) {
                None => return Ok(None),
                Some(Answer::Done) => End::Done,
                Some(Answer::Skip) => End::Skipped,
                Some(Answer::Failed) => End::Failed("said so by a person".to_owned()),
            },
            StepAction::Run(command) if step.role == StepRole::Proof => self.prove(index, command)?,
            StepAction::Run(command) => self.command(index, command)?,
        };
        let at = self.hands.now();
        self.record.write(&Event::Ended { at, step: index, end: end.clone() })?;
        self.hands.ended(index + 1, &end, Duration::from_millis(at.saturating_sub(begun)));
        // Before the next step: it may be the one that restarts the machine.
        tell(self.record, self.hands)?;
        Ok(Some(end))
    }

    fn command(&mut self, index: usize, command: &str) -> Result<End, ProcedureError> {
        let limit = self.procedure.steps[index].timeout.map(Duration::from_secs);
        let began = std::time::Instant::now();
        let mut output = Output::new(0);
        let mut unkept = None;
        let record = self.record;
        let done = self.hands.run(command, limit, true, &mut |line| {
            let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some(text) = output.line(line, now) {
                unkept = record.keep(index, &text).err().or(unkept.take());
            }
        });
        record.keep(index, &output.rest())?;
        if let Some(error) = unkept {
            return Err(error.into());
        }
        Ok(done.map_or_else(End::Failed, |()| End::Done))
    }

    /// Tries until it holds: services that have just been started need a moment.
    fn prove(&mut self, index: usize, command: &str) -> Result<End, ProcedureError> {
        let patience = self.procedure.steps[index].timeout.map_or(self.request.within, Duration::from_secs);
        let deadline =
            self.hands.now().saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        loop {
            let left = Duration::from_millis(deadline.saturating_sub(self.hands.now())).max(PAUSE);
            let mut output = Output::new(0);
            let done = self.hands.run(command, Some(left), false, &mut |line| {
                output.line(line, 0);
            });
            let left = Duration::from_millis(deadline.saturating_sub(self.hands.now()));
            match done {
                Err(why) if left > PAUSE => {
                    self.hands.again(&why, left);
                    self.hands.wait(PAUSE);
                }
                done => {
                    self.record.keep(index, &output.rest())?;
                    return Ok(done.map_or_else(End::Failed, |()| End::Done));
                }
            }
        }
    }
}

//! Carries plans out: journal, snapshot, steps, proof, commit; or back to where it was.

use serde_json::Value;

use kld_host::Cmd;
use serde::{Deserialize, Serialize};

use crate::environment::{self, Environments};
use crate::history::{History, Record, State, Store};
use crate::host::{Host, HostError};
use crate::journal::Event;
use crate::kinds;
use crate::plan::{Cause, Plan, Step};
use crate::services::{self, Tell};

/// Where an engine says what it does.
pub trait Progress {
    /// A boot environment of the machine as it is was made.
    fn environment(&mut self, name: &str);
    /// None could be made.
    fn no_environment(&mut self, why: &str);
    /// A step begins.
    fn step(&mut self, number: usize, of: usize, step: &Step);
    /// Something failed, and going back begins.
    fn back(&mut self, why: &str);
    /// A step is undone.
    fn undo(&mut self, step: &Step);
    /// The proofs of the manifest run.
    fn proving(&mut self);
}

/// How carrying out a plan has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The machine is as planned.
    Committed {
        /// The number of the apply.
        number: u32,
    },
    /// A step or a proof has failed, and the machine is as it was.
    RolledBack {
        /// The number of the apply.
        number: u32,
        /// What failed: the step's kind and name, or `verify`.
        what: String,
        /// Why, in the tool's own words.
        error: String,
    },
}

/// What [`Engine::recover`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The apply that had been interrupted, and is undone now.
    pub number: u32,
    /// How many steps were undone.
    pub steps: usize,
}

/// The machine is neither as planned nor as it was. The journal knows the way back: [`Engine::recover`] tries again.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The journal cannot be written, so nothing was begun.
    #[error("cannot begin: the journal in `/var/lib/kldload` cannot be written")]
    Journal(#[source] HostError),
    /// An earlier apply was interrupted, and must be undone first.
    #[error("apply {number} was interrupted")]
    Interrupted {
        /// Which.
        number: u32,
    },
    /// It was begun in another boot environment, whose files are not here.
    #[error("apply {number} was interrupted in the boot environment `{root}`, and this is another one")]
    Elsewhere {
        /// Which.
        number: u32,
        /// Its root.
        root: String,
    },
    /// The last apply waits to be confirmed.
    #[error("apply {number} is not confirmed yet")]
    Waits {
        /// Which.
        number: u32,
    },
    /// Nothing that was applied still holds.
    #[error("there is no apply to take back")]
    NothingToTakeBack,
    /// Going back has failed.
    #[error("cannot undo {what} of apply {number}")]
    Stuck {
        /// The apply.
        number: u32,
        /// The step.
        what: String,
        /// Why.
        #[source]
        source: HostError,
    },
}

impl ApplyError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Journal(source) => source.hint(),
            Self::Waits { .. } => Some("`kldload confirm` keeps it, `kldload undo` takes it back".to_owned()),
            Self::NothingToTakeBack => Some("`kldload history` lists what was applied".to_owned()),
            Self::Elsewhere { root, .. } => {
                let name = root.rsplit('/').next().unwrap_or(root);
                Some(format!(
                    "it is undone when that one starts: `kbe activate --once {name}`; or give it up: `kbe destroy {name}`"
                ))
            }
            Self::Interrupted { .. } => Some("`kldload recover` undoes it".to_owned()),
            Self::Stuck { .. } => Some(
                "mend what the error names, then `kldload recover` goes on; nothing is lost until then"
                    .to_owned(),
            ),
        }
    }
}

/// One step of the way back from an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Back {
    /// The kind of the thing.
    pub kind: String,
    /// The thing.
    pub name: String,
    /// What happens to it, in words.
    pub summary: String,
}

/// What [`Engine::take_back`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// The apply.
    pub number: u32,
    /// How many steps were undone.
    pub steps: usize,
    /// Packages that it has installed, and that stay.
    pub packages: Vec<String>,
    /// Files that somebody had changed since, and where they lie as they were then.
    pub kept: Vec<(String, String)>,
}

/// The unit that takes an apply back when nobody confirms it.
pub const CONFIRM_TIMER: &str = "kldload-unconfirmed.timer";

/// Snapshots of this many applies stay.
const SNAPSHOTS_KEPT: u32 = 10;

/// Whether going back takes packages away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packages {
    Go,
    Stay,
}

/// Taking back what was committed, and was interrupted, goes on as it began.
fn packages_of(store: &Store<'_>) -> Result<Packages, ApplyError> {
    let was_committed = store.was_committed().map_err(ApplyError::Journal)?;
    Ok(if was_committed { Packages::Stay } else { Packages::Go })
}

/// What is remembered of a restart: whether its unit was active.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WasActive {
    active: bool,
}

/// Carries plans out on one machine. Whoever uses it holds the machine's lock.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    host: &'a dyn Host,
    environments: Option<Environments<'a>>,
    starting: bool,
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl<'a> Engine<'a> {
    /// An engine for a machine.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host, environments: None, starting: false }
    }

    /// The same that makes a boot environment before an apply changes what a machine starts from.
    #[must_use]
    pub fn with_environments(mut self, machine: &'a dyn kld_boot::Machine) -> Self {
        self.environments = Some(Environments(machine));
        self
    }

    /// The same for a machine that is starting: services have not been started yet, so none is started again, and
    /// waiting for one would wait for ever.
    #[must_use]
    pub fn while_starting(mut self) -> Self {
        self.starting = true;
        self
    }

    /// Carries a plan out. `prove` runs the manifest's proofs and says what is wrong. When a step or a proof fails, all
    /// that was done is undone, newest first.
    ///
    /// # Errors
    /// When nothing could be begun, or going back has failed.
    pub fn apply(
        &self,
        plan: &Plan,
        by: &str,
        confirm_within: Option<u64>,
        prove: &dyn Fn() -> Result<(), String>,
        progress: &mut dyn Progress,
    ) -> Result<Outcome, ApplyError> {
        let history = History::new(self.host);
        let records = history.records().map_err(ApplyError::Journal)?;
        let in_state =
            |state| records.iter().find(|record| record.state == state).map(|record| record.number);
        if let Some(number) = in_state(State::Interrupted) {
            return Err(ApplyError::Interrupted { number });
        }
        if let Some(number) = in_state(State::Unconfirmed) {
            return Err(ApplyError::Waits { number });
        }
        let store = self.begin(&history, plan).map_err(ApplyError::Journal)?;
        let root = kinds::root_dataset(self.host).map_err(ApplyError::Journal)?;
        let (at, steps) = (self.host.now(), plan.all().count());
        let started = Event::Started { at, by: by.to_owned(), steps, root: root.clone() };
        store.write(&started).map_err(ApplyError::Journal)?;
        let number = store.number;
        if let Some(seconds) = confirm_within {
            store.write(&Event::Unconfirmed { seconds }).map_err(ApplyError::Journal)?;
        }
        let Err((step, what, error)) = self.carry_out(&store, plan, root, confirm_within, prove, progress)
        else {
            history.remember(number, plan).map_err(ApplyError::Journal)?;
            self.forget_environments();
            self.forget_snapshots(number);
            return Ok(Outcome::Committed { number });
        };
        if confirm_within.is_some() {
            // Nothing is left to confirm.
            let _ = self.stop_confirm_timer();
        }
        // What a tool had no room for it has taken away again; that is free once ZFS has written it.
        let _ = self.sync();
        // A journal that cannot take this line (a full disk) is read as interrupted, which means the same.
        let _ = store.write(&Event::Failed { step, error: error.clone() });
        progress.back(&error);
        self.go_back(&store, plan, progress, Packages::Go)?;
        Ok(Outcome::RolledBack { number, what, error })
    }

    /// Makes the directory of the next apply, on the dataset that remembers.
    fn begin<'h>(&self, history: &History<'h>, plan: &Plan) -> Result<Store<'h>, HostError> {
        for step in &plan.memory {
            kind_of(step)?.make(self.host, &history.store(0), &step.change)?;
        }
        history.begin(plan)
    }

    /// Takes back the last apply, though it is done: as it was before, but for packages, which stay and are named, because
    /// others may need them by now.
    ///
    /// # Errors
    /// When there is none, or going back fails.
    pub fn take_back(&self, why: &str, progress: &mut dyn Progress) -> Result<TakenBack, ApplyError> {
        let history = History::new(self.host);
        let last = history.last_committed().map_err(ApplyError::Journal)?;
        let Some((number, plan)) = last else { return Err(ApplyError::NothingToTakeBack) };
        let store = history.store(number);
        let packages = plan.steps.iter().filter(|step| step.kind == "package").map(|step| step.name.clone());
        let packages: Vec<String> = packages.collect();
        progress.back(why);
        let mut kept = Vec::new();
        for changed in history.changed_since(number).map_err(ApplyError::Journal)? {
            if changed.kind == "file"
                && let Some(at) = store.keep_aside(&changed.name).map_err(ApplyError::Journal)?
            {
                kept.push((changed.name, at));
            }
        }
        store.write(&Event::Failed { step: None, error: why.to_owned() }).map_err(ApplyError::Journal)?;
        let steps = self.go_back(&store, &plan, progress, Packages::Stay)?;
        history.remember_last().map_err(ApplyError::Journal)?;
        Ok(TakenBack { number, steps, packages, kept })
    }

    /// What [`Engine::take_back`] would do to take this apply back, in order.
    ///
    /// # Errors
    /// When its plan or its journal cannot be read.
    pub fn way_back(&self, number: u32) -> Result<Vec<Back>, HostError> {
        let history = History::new(self.host);
        let plan = history.plan(number)?;
        let steps: Vec<&Step> = plan.iter().flat_map(Plan::all).collect();
        let journal = history.store(number).journal()?;
        let begun: Vec<(&Step, &Value)> =
            journal.begun().filter_map(|(index, memory)| Some((*steps.get(index)?, memory))).collect();
        let back = |step: &Step, summary| Back { kind: step.kind.clone(), name: step.name.clone(), summary };
        let mut way = Vec::new();
        for (step, memory) in begun.iter().rev().filter(|(step, _)| as_tell(step).is_none()) {
            way.push(back(step, kind_of(step)?.way_back(&step.change, memory)?));
        }
        let told = begun.iter().filter(|(step, _)| as_tell(step).is_some());
        way.extend(told.map(|(step, _)| back(step, "is told".to_owned())));
        Ok(way)
    }

    /// Says that the last apply may stay. `false`: it does already.
    ///
    /// # Errors
    /// When its journal cannot be written.
    pub fn confirm(&self) -> Result<bool, ApplyError> {
        let history = History::new(self.host);
        let records = history.records().map_err(ApplyError::Journal)?;
        let Some(record) = records.iter().find(|record| record.state == State::Unconfirmed) else {
            return Ok(false);
        };
        history.store(record.number).write(&Event::Confirmed).map_err(ApplyError::Journal)?;
        self.stop_confirm_timer().map_err(ApplyError::Journal)?;
        Ok(true)
    }

    /// Stops the clock of [`confirm_timer_cmd`]; one that does not run is no error.
    fn stop_confirm_timer(&self) -> Result<(), HostError> {
        self.host.run(&Cmd::new("systemctl").args(["stop", CONFIRM_TIMER]).accept(5)).map(drop)
    }

    /// Undoes what was interrupted: by a kill, a power cut, or an undo that failed. Nothing to do is the usual case.
    ///
    /// # Errors
    /// When going back fails again.
    pub fn recover(&self, progress: &mut dyn Progress) -> Result<Option<Recovered>, ApplyError> {
        let history = History::new(self.host);
        if self.starting {
            self.claim();
        }
        let records = history.records().map_err(ApplyError::Journal)?;
        if self.starting
            && let Some(record) = records.iter().find(|record| record.state == State::Unconfirmed)
        {
            self.is_here(record)?;
            let TakenBack { number, steps, .. } = self.take_back("nobody has confirmed it", progress)?;
            return Ok(Some(Recovered { number, steps }));
        }
        for record in records.iter().filter(|record| record.state == State::Interrupted) {
            let number = record.number;
            let store = history.store(number);
            let is_here = self.is_here(record)?;
            let plan = history.plan(number).map_err(ApplyError::Journal)?;
            let Some(plan) = plan.filter(|_| is_here) else {
                store.write(&Event::RolledBack).map_err(ApplyError::Journal)?;
                continue;
            };
            let error = "interrupted".to_owned();
            progress.back(&error);
            store.write(&Event::Failed { step: None, error }).map_err(ApplyError::Journal)?;
            let steps = self.go_back(&store, &plan, progress, packages_of(&store)?)?;
            history.remember_last().map_err(ApplyError::Journal)?;
            return Ok(Some(Recovered { number, steps }));
        }
        history.remember_last().map_err(ApplyError::Journal)?;
        Ok(None)
    }

    /// Whether an apply was begun in this boot environment; `false`: in one that is gone, and nothing is left to undo but
    /// what the next plan will show.
    fn is_here(&self, record: &Record) -> Result<bool, ApplyError> {
        let Some(root) = &record.root else { return Ok(true) };
        let here = kinds::root_dataset(self.host).map_err(ApplyError::Journal)?;
        if here.as_ref() == Some(root) {
            return Ok(true);
        }
        let list = Cmd::new("zfs").args(["list", "-H", "-o", "name", root]).accept(1);
        match self.host.run(&list).map_err(ApplyError::Journal)?.code {
            0 => Err(ApplyError::Elsewhere { number: record.number, root: root.clone() }),
            _ => Ok(false),
        }
    }

    /// Destroys the snapshots of applies that are long past, which would fill the pool one day, and those of packages, which
    /// have come to stay. Those that are held or cloned stay, and a failure is none of the apply: the next one tries again.
    fn forget_snapshots(&self, last: u32) {
        let list = Cmd::new("zfs").args(["list", "-H", "-t", "snapshot", "-o", "name"]);
        for name in self.host.text(&list).unwrap_or_default().lines() {
            let Some((_, of)) = name.split_once("@kldload-apply-") else { continue };
            let number = of.get(..6).and_then(|digits| digits.parse::<u32>().ok());
            if of.len() > 6 || number.is_some_and(|number| number + SNAPSHOTS_KEPT <= last) {
                let _ = self.host.run(&Cmd::new("zfs").args(["destroy", name]));
            }
        }
    }

    /// Destroys the boot environments of applies but the newest. Those that must stay do, and a failure is none of the apply:
    /// the next one tries again.
    fn forget_environments(&self) {
        let _ = self.environments.map(Environments::remove_old);
    }

    /// When this start is from the environment of an apply, somebody has picked it: it is no longer ours. A start does not fail
    /// for it.
    fn claim(&self) {
        let Some(environments) = self.environments else { return };
        if let Ok(Some(root)) = kinds::root_dataset(self.host) {
            let _ = environments.claim(&root);
        }
    }

    /// Keeps the machine as it is for the boot menu. What keeps it from that is told, and no reason to stop.
    fn keep(
        &self,
        store: &Store<'_>,
        root: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<(), HostError> {
        let (Some(environments), Some(root)) = (self.environments, root) else { return Ok(()) };
        let name = environment::name_of(store.number);
        store.write(&Event::Environment { name: name.clone() })?;
        let snapshot = format!("{root}@{}", store.snapshot());
        match environments.make(&History::new(self.host), store.number, &snapshot) {
            Ok(()) => progress.environment(&name),
            Err(error) => {
                let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
                let why = chain(&error) + &hint;
                store.write(&Event::NoEnvironment { why: why.clone() })?;
                progress.no_environment(&why);
            }
        }
        Ok(())
    }

    fn carry_out(
        &self,
        store: &Store<'_>,
        plan: &Plan,
        root: Option<String>,
        confirm_within: Option<u64>,
        prove: &dyn Fn() -> Result<(), String>,
        progress: &mut dyn Progress,
    ) -> Result<(), (Option<usize>, String, String)> {
        let total = plan.all().count();
        let root = root.filter(|_| changes_root(plan));
        self.snapshot(store, plan, root.as_deref())
            .map_err(|error| (None, "the snapshot".to_owned(), chain(&error)))?;
        self.keep(store, root.as_deref(), progress)
            .map_err(|error| (None, "the boot environment".to_owned(), chain(&error)))?;
        for (number, step) in plan.all().enumerate() {
            progress.step(number + 1, total, step);
            // Before anything can cut off who must confirm it.
            if number == plan.steps.len()
                && let Some(seconds) = confirm_within
            {
                self.host
                    .run(&confirm_timer_cmd(seconds, store.number))
                    .map_err(|error| (Some(number), CONFIRM_TIMER.to_owned(), chain(&error)))?;
            }
            self.step(store, number, step)
                .map_err(|error| (Some(number), format!("{} {}", step.kind, step.name), chain(&error)))?;
        }
        progress.proving();
        prove().map_err(|error| (None, "verify".to_owned(), error))?;
        // Everything is on disk before the line that says so.
        let commit = || {
            self.sync()?;
            store.write(&Event::Committed)
        };
        commit().map_err(|error| (None, "the commit".to_owned(), chain(&error)))
    }

    fn step(&self, store: &Store<'_>, number: usize, step: &Step) -> Result<(), HostError> {
        if let Some(tell) = as_tell(step) {
            let memory = WasActive { active: services::is_active(self.host, &tell)? };
            store.write(&Event::Begun { step: number, memory: kinds::to_value(&memory) })?;
            services::make(self.host, &tell)?;
        } else {
            let kind = kind_of(step)?;
            let memory = kind.remember(self.host, store, &step.change)?;
            store.write(&Event::Begun { step: number, memory })?;
            kind.make(self.host, store, &step.change)?;
        }
        store.write(&Event::Done { step: number })
    }

    /// One moment to go back to, for all datasets that a plan changes: made in one transaction group.
    fn snapshot(&self, store: &Store<'_>, plan: &Plan, root: Option<&str>) -> Result<(), HostError> {
        let mut datasets: Vec<String> = plan
            .steps
            .iter()
            .filter(|step| kinds::is_there_already(step))
            .map(|step| step.name.clone())
            .collect();
        datasets.extend(root.map(str::to_owned));
        datasets.sort();
        datasets.dedup();
        if datasets.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = datasets.iter().map(|name| format!("{name}@{}", store.snapshot())).collect();
        self.host.run(&Cmd::new("zfs").arg("snapshot").args(&names))?;
        store.write(&Event::Snapshot { names })
    }

    /// Undoes every step that was begun, newest first; then units are as they were. What an earlier attempt has undone is
    /// undone once more: a power cut may have lost it, and undoing twice changes nothing.
    fn go_back(
        &self,
        store: &Store<'_>,
        plan: &Plan,
        progress: &mut dyn Progress,
        packages: Packages,
    ) -> Result<usize, ApplyError> {
        let number = store.number;
        let steps: Vec<&Step> = plan.all().collect();
        let journal = store.journal().map_err(ApplyError::Journal)?;
        let begun: Vec<(usize, &Value)> = journal.begun().filter(|(step, _)| *step < steps.len()).collect();
        let stuck = |step: &Step| {
            let what = format!("{} {}", step.kind, step.name);
            move |source| ApplyError::Stuck { number, what, source }
        };
        // Of an apply that failed or that nobody has confirmed everything goes back, rules that somebody had flushed to let himself
        // in among it. One that was done repaired something, and that stays repaired.
        let was_active = |step: &Step, memory: &Value| {
            let was: WasActive = serde_json::from_value(memory.clone()).unwrap_or(WasActive { active: true });
            was.active || packages == Packages::Stay && !journal.waits() && step.cause == Cause::Drift
        };
        let told = |(index, memory): &(usize, &Value)| {
            let tell = as_tell(steps[*index]).filter(|_| !self.starting)?;
            Some((*index, tell, was_active(steps[*index], memory)))
        };
        let told: Vec<(usize, Tell, bool)> = begun.iter().filter_map(told).collect();
        // What did not run before stops first, the newest first: its program, its files and its dataset are about to go.
        let (run, stop): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, _, was_active)| *was_active);
        for (index, tell, _) in stop.iter().rev() {
            progress.undo(steps[*index]);
            services::stop(self.host, tell).map_err(stuck(steps[*index]))?;
            store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
        }
        for (index, memory) in begun.iter().rev() {
            let step = steps[*index];
            let stays = step.kind == "package" && packages == Packages::Stay;
            if as_tell(step).is_none() && !stays {
                progress.undo(step);
                let kind = kind_of(step).map_err(stuck(step))?;
                kind.undo(self.host, store, &step.change, memory).map_err(stuck(step))?;
                store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
            }
        }
        // In the order in which they were told of the change: systemd first.
        for (index, tell, _) in &run {
            progress.undo(steps[*index]);
            services::bring_back(self.host, tell).map_err(stuck(steps[*index]))?;
            store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
        }
        if self.starting && !begun.is_empty() {
            self.tell_while_starting(&steps).map_err(ApplyError::Journal)?;
        }
        // It holds what is there again. After packages that stay it does not, and goes when there are newer ones.
        if let Some(environments) = self.environments.filter(|_| packages == Packages::Go)
            && journal.environment().is_some()
        {
            // One that cannot go now is gone before the next one is made.
            let _ = environments.remove(number);
        }
        self.sync().map_err(ApplyError::Journal)?;
        store.write(&Event::RolledBack).map_err(ApplyError::Journal)?;
        Ok(begun.len())
    }

    /// systemd and whoever is up already have read what is undone by now; nobody is waited for, because they may wait for us.
    fn tell_while_starting(&self, steps: &[&Step]) -> Result<(), HostError> {
        self.host.run(&Cmd::new("systemctl").arg("daemon-reload"))?;
        for tell in steps.iter().filter_map(|step| as_tell(step)) {
            if let Tell::Restart { unit } | Tell::Reload { unit } = tell {
                self.host.run(
                    &Cmd::new("systemctl").args(["--no-block", "try-reload-or-restart", &unit]).accept(5),
                )?;
            }
        }
        // What is switched on again was not when this start was worked out.
        self.host.run(&Cmd::new("systemctl").args(["start", "--no-block", "default.target"])).map(drop)
    }

    /// Waits until all that was written is on disk, in every dataset of the pools.
    fn sync(&self) -> Result<(), HostError> {
        self.host.run(&Cmd::new("zpool").arg("sync")).map(drop)
    }
}

/// Starts the clock: when it runs out, the apply is undone, whether it is still under way or done.
fn confirm_timer_cmd(seconds: u64, number: u32) -> Cmd {
    let unit = CONFIRM_TIMER.trim_end_matches(".timer");
    Cmd::new("systemd-run")
        .args(["--quiet", "--collect", &format!("--unit={unit}"), &format!("--on-active={seconds}s")])
        .args(["--timer-property=AccuracySec=1s", "/usr/bin/kldload", "undo", "--yes", "--unconfirmed"])
        .arg(number.to_string())
}

/// Whether a plan changes what the machine starts from.
fn changes_root(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| kind_of(step).is_ok_and(|kind| kind.is_on_root()))
}

fn kind_of(step: &Step) -> Result<&'static dyn kinds::AnyKind, HostError> {
    kinds::find(&step.kind).ok_or_else(|| {
        let reason = format!("unknown kind `{}`; was it written by another version?", step.kind);
        kld_host::ParseError { tool: "kldload's plan", reason }.into()
    })
}

fn as_tell(step: &Step) -> Option<Tell> {
    (step.kind == services::KIND).then(|| serde_json::from_value(step.change.clone()).ok())?
}

/// An error and its causes in one text.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

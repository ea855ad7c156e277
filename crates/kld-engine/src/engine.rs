//! Carries plans out: journal, snapshot, steps, proof, commit; or back to where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use kld_host::Cmd;
use kld_host::zfs::pool_of;
use kld_system::IDENTITY_UNIT;
use serde::{Deserialize, Serialize};

use crate::environment::{self, Environments};
use crate::history::{History, Record, State, Store};
use crate::host::{Host, HostError};
use crate::journal::Event;
use crate::kinds::{self, WayBack};
use crate::plan::{Cause, Plan, Step};
use crate::pools;
use crate::services::{self, Tell};
use crate::undo::Work;

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
    /// It was told to stop ([`Engine::unless`]), and the machine is as it was.
    Stopped {
        /// The number of the apply.
        number: u32,
        /// What it had not begun yet: as in [`Self::RolledBack`].
        before: String,
    },
}

/// Why a machine does not become what was planned.
enum Failure {
    /// Of a step, when it was one; what, and why.
    Failed(Option<usize>, String, String),
    /// Somebody wanted it to stop before this.
    Stopped(String),
}

/// What [`Engine::recover`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The apply or undo that had been interrupted, and is undone now.
    pub number: u32,
    /// Whether it was an undo: what it had taken back holds again.
    pub was_undo: bool,
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
    /// It cannot be confirmed before it has ended.
    #[error("apply {number} has not ended")]
    UnderWay {
        /// The number of the apply.
        number: u32,
    },
    /// The last apply waits to be confirmed.
    #[error("apply {number} is not confirmed yet")]
    Waits {
        /// Which.
        number: u32,
    },
    /// Everything that was done is confirmed.
    #[error("nothing waits to be confirmed")]
    NothingWaits,
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
            Self::UnderWay { .. } => Some(
                "say it once more when it has: the clock begins anew then; `kldload history` shows it, and `kldload recover` undoes one that was killed".to_owned(),
            ),
            Self::Waits { .. } => Some("`kldload confirm` keeps it, `kldload undo` takes it back".to_owned()),
            Self::NothingWaits => Some("`kldload history` lists what was applied".to_owned()),
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

/// What [`Engine::take_back`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// The apply or the undo.
    pub number: u32,
    /// Whether it was an undo: what it had taken back holds again.
    pub was_undo: bool,
    /// How many steps were undone.
    pub steps: usize,
    /// What it has brought and what stays, as the commands that remove it.
    pub left: Vec<String>,
}

/// Who takes back what nobody has confirmed.
pub const CLOCK: &str = "kldload";

/// The unit that takes an apply back when nobody confirms it.
pub const CONFIRM_TIMER: &str = "kldload-unconfirmed.timer";

/// Snapshots of this many applies stay.
const SNAPSHOTS_KEPT: u32 = 10;

/// Whether going back takes away what others may need by now: [`kinds::Kind::STAYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    Go,
    Stay,
}

/// Taking back what was committed, and was interrupted, goes on as it began.
fn shared_of(store: &Store<'_>) -> Result<Shared, ApplyError> {
    let was_committed = store.was_committed().map_err(ApplyError::Journal)?;
    Ok(if was_committed { Shared::Stay } else { Shared::Go })
}

/// What is remembered of a restart: whether its unit was active.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WasActive {
    pub(crate) active: bool,
}

/// Carries plans out on one machine. Whoever uses it holds the machine's lock.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    host: &'a dyn Host,
    environments: Option<Environments<'a>>,
    stop: Option<&'a AtomicBool>,
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
        Self { host, environments: None, stop: None, starting: false }
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

    /// The same that looks at this before each step of an apply, and goes back when it is set.
    #[must_use]
    pub fn unless(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Carries a plan out, that of [`crate::undo()`] as any other. `prove` runs the manifest's proofs and says what is wrong.
    /// When a step or a proof fails, all that was done is undone, newest first.
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
        let undoes = plan.undoes.clone();
        let started = Event::Started { at, by: by.to_owned(), steps, root: root.clone(), undoes };
        store.write(&started).map_err(ApplyError::Journal)?;
        let number = store.number;
        if let Some(seconds) = confirm_within {
            store.write(&Event::Unconfirmed { seconds }).map_err(ApplyError::Journal)?;
        }
        let Err(failure) = self.carry_out(&store, plan, root, confirm_within, prove, progress) else {
            match plan.undoes.is_empty() {
                true => history.remember(number, plan).map_err(ApplyError::Journal)?,
                false => history.remember_last().map_err(ApplyError::Journal)?,
            }
            self.forget_environments();
            self.forget_snapshots(&history, number);
            return Ok(Outcome::Committed { number });
        };
        if confirm_within.is_some() {
            // Nothing is left to confirm.
            let _ = self.stop_confirm_timer();
        }
        // What a tool had no room for it has taken away again; that is free once ZFS has written it.
        let _ = self.sync(plan);
        let (step, error, outcome) = match failure {
            Failure::Failed(step, what, error) => {
                (step, error.clone(), Outcome::RolledBack { number, what, error })
            }
            Failure::Stopped(before) => {
                (None, format!("told to stop before {before}"), Outcome::Stopped { number, before })
            }
        };
        // A journal that cannot take this line (a full disk) is read as interrupted, which means the same.
        let _ = store.write(&Event::Failed { step, error: error.clone() });
        progress.back(&error);
        self.go_back(&store, plan, progress, Shared::Go)?;
        Ok(outcome)
    }

    /// Makes the directory of the next apply, on the dataset that remembers.
    fn begin<'h>(&self, history: &History<'h>, plan: &Plan) -> Result<Store<'h>, HostError> {
        for step in &plan.memory {
            kind_of(step)?.make(self.host, &history.store(0), &step.change)?;
        }
        history.begin(plan)
    }

    /// Takes back what waits to be confirmed: as it was before, but for packages and images, which stay and are named, because
    /// others may need them by now. An undo goes forward again. What was confirmed, or never had to be, is taken back by the
    /// plan that [`crate::undo()`] makes.
    ///
    /// # Errors
    /// When nothing waits, or going back fails.
    pub fn take_back(
        &self,
        why: &str,
        by: &str,
        progress: &mut dyn Progress,
    ) -> Result<TakenBack, ApplyError> {
        let history = History::new(self.host);
        let records = history.records().map_err(ApplyError::Journal)?;
        let waiting = records.iter().find(|record| record.state == State::Unconfirmed);
        let Some(waiting) = waiting else { return Err(ApplyError::NothingWaits) };
        let number = waiting.number;
        let plan = history.plan(number).map_err(ApplyError::Journal)?.ok_or(ApplyError::NothingWaits)?;
        let store = history.store(number);
        if !self.is_here(waiting)? {
            store.write(&Event::RolledBack).map_err(ApplyError::Journal)?;
            history.remember_last().map_err(ApplyError::Journal)?;
            return Ok(TakenBack { number, was_undo: !plan.undoes.is_empty(), steps: 0, left: Vec::new() });
        }
        let left = left(&store, &plan).map_err(ApplyError::Journal)?;
        progress.back(why);
        let event = Event::TakenBack { at: self.host.now(), by: by.to_owned(), why: why.to_owned() };
        store.write(&event).map_err(ApplyError::Journal)?;
        // A person may have been faster than the clock.
        let _ = self.stop_confirm_timer();
        let steps = self.go_back(&store, &plan, progress, Shared::Stay)?;
        history.remember_last().map_err(ApplyError::Journal)?;
        Ok(TakenBack { number, was_undo: !plan.undoes.is_empty(), steps, left })
    }

    /// Says that the last apply may stay. `false`: it does already.
    ///
    /// # Errors
    /// When its journal cannot be written.
    pub fn confirm(&self) -> Result<bool, ApplyError> {
        let history = History::new(self.host);
        let records = history.records().map_err(ApplyError::Journal)?;
        let Some(record) = records.iter().find(|record| record.state == State::Unconfirmed) else {
            for Record { number, .. } in records.iter().filter(|record| record.state == State::Interrupted) {
                if history.store(*number).journal().map_err(ApplyError::Journal)?.waits() {
                    return Err(ApplyError::UnderWay { number: *number });
                }
            }
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

    /// Stops the clock, and what it has started: that waits for the lock that we have.
    fn stop_clock(&self) -> Result<(), HostError> {
        self.stop_confirm_timer()?;
        let service = format!("{}.service", CONFIRM_TIMER.trim_end_matches(".timer"));
        self.host.run(&Cmd::new("systemctl").args(["stop", &service]).accept(5)).map(drop)
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
        if self.starting && records.iter().any(|record| record.state == State::Unconfirmed) {
            let TakenBack { number, was_undo, steps, .. } =
                self.take_back("nobody has confirmed it", CLOCK, progress)?;
            return Ok(Some(Recovered { number, was_undo, steps }));
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
            if store.journal().map_err(ApplyError::Journal)?.waits() {
                let _ = self.stop_confirm_timer();
            }
            let error = "interrupted".to_owned();
            progress.back(&error);
            store.write(&Event::Failed { step: None, error }).map_err(ApplyError::Journal)?;
            let steps = self.go_back(&store, &plan, progress, shared_of(&store)?)?;
            history.remember_last().map_err(ApplyError::Journal)?;
            return Ok(Some(Recovered { number, was_undo: !plan.undoes.is_empty(), steps }));
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
    /// have come to stay. Those that are held or cloned stay, and a failure is none of the apply: the next one tries again. A pool
    /// may hold those of another machine, as a replica does, whose numbers say nothing here.
    fn forget_snapshots(&self, history: &History<'_>, last: u32) {
        let list = Cmd::new("zfs").args(["list", "-H", "-t", "snapshot", "-o", "name"]);
        for name in self.host.text(&list).unwrap_or_default().lines() {
            let Some((_, of)) = name.split_once("@kldload-apply-") else { continue };
            let Some(number) = of.get(..6).and_then(|digits| digits.parse().ok()) else { continue };
            let is_past = of.len() > 6 || number + SNAPSHOTS_KEPT <= last;
            if is_past && history.has_made(number, name).unwrap_or(false) {
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
    ) -> Result<(), Failure> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: HostError| Failure::Failed(None, what, chain(&error))
        };
        let total = plan.all().count();
        let root = root.filter(|_| changes_root(plan));
        self.snapshot(store, plan, root.as_deref()).map_err(failed("the snapshot"))?;
        self.keep(store, root.as_deref(), progress).map_err(failed("the boot environment"))?;
        // Before any of them is told: those that require another one stop with it for a moment.
        let tells: Vec<Tell> = plan.all().filter_map(as_tell).collect();
        let running = services::running(self.host, &tells).map_err(failed("what runs"))?;
        // Before anything can cut off who must confirm it.
        let clock_starts = plan.all().position(kinds::may_cut_off).unwrap_or(total).min(plan.steps.len());
        let start_clock = |number: usize| match confirm_within.filter(|_| number == clock_starts) {
            None => Ok(()),
            Some(seconds) => self
                .host
                .run(&confirm_timer_cmd(seconds, store.number))
                .map(drop)
                .map_err(|error| Failure::Failed(Some(number), CONFIRM_TIMER.to_owned(), chain(&error))),
        };
        for (number, step) in plan.all().enumerate() {
            let what = format!("{} {}", step.kind, step.name);
            self.is_wanted_still(&what)?;
            progress.step(number + 1, total, step);
            start_clock(number)?;
            self.step(store, plan, &running, number, step)
                .map_err(|error| Failure::Failed(Some(number), what, chain(&error)))?;
        }
        if clock_starts == total {
            start_clock(total)?;
        }
        progress.proving();
        let proven = prove();
        // What it was told meanwhile counts, whatever the proofs say: they may not have been waited for.
        self.is_wanted_still("the commit")?;
        proven.map_err(|error| Failure::Failed(None, "verify".to_owned(), error))?;
        // Everything is on disk before the line that says so. Who must confirm it is told now, and has the whole time.
        let commit = || {
            self.sync(plan)?;
            if let Some(seconds) = confirm_within {
                self.stop_clock()?;
                self.host.run(&confirm_timer_cmd(seconds, store.number))?;
            }
            store.write(&Event::Committed)
        };
        commit().map_err(failed("the commit"))
    }

    /// Whether nobody has told it to stop before this.
    fn is_wanted_still(&self, before: &str) -> Result<(), Failure> {
        match self.stop.is_some_and(|stop| stop.load(Ordering::SeqCst)) {
            true => Err(Failure::Stopped(before.to_owned())),
            false => Ok(()),
        }
    }

    fn step(
        &self,
        store: &Store<'_>,
        plan: &Plan,
        running: &BTreeSet<String>,
        number: usize,
        step: &Step,
    ) -> Result<(), HostError> {
        if let Some(tell) = as_tell(step) {
            let memory = WasActive { active: services::is_among(running, &tell) };
            store.write(&Event::Begun { step: number, memory: kinds::to_value(&memory) })?;
            services::make(self.host, &tell)?;
        } else {
            let work = Work::of(plan, step)?;
            let memory = work.remember(self.host, store)?;
            store.write(&Event::Begun { step: number, memory })?;
            work.make(self.host, store)?;
        }
        store.write(&Event::Done { step: number })
    }

    /// One moment to go back to, for all datasets that a plan changes or writes files into: made in one transaction group of
    /// each pool. Several pools have none in common, and the kernel refuses to be asked for one (EXDEV).
    fn snapshot(&self, store: &Store<'_>, plan: &Plan, root: Option<&str>) -> Result<(), HostError> {
        let files = plan.steps.iter().filter(|step| kinds::is_file(step)).map(|step| step.name.as_str());
        let mut datasets = pools::datasets_of(self.host, files)?;
        let changed = plan.steps.iter().filter(|step| kinds::is_there_already(step));
        datasets.extend(changed.map(|step| step.name.clone()));
        datasets.extend(root.map(str::to_owned));
        let mut pools: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for name in &datasets {
            pools.entry(pool_of(name)).or_default().push(format!("{name}@{}", store.snapshot()));
        }
        for names in pools.into_values() {
            self.host.run(&Cmd::new("zfs").arg("snapshot").args(&names))?;
            store.write(&Event::Snapshot { names })?;
        }
        Ok(())
    }

    /// Undoes every step that was begun, newest first; then units are as they were. What an earlier attempt has undone is
    /// undone once more: a power cut may have lost it, and undoing twice changes nothing.
    fn go_back(
        &self,
        store: &Store<'_>,
        plan: &Plan,
        progress: &mut dyn Progress,
        shared: Shared,
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
            was.active || shared == Shared::Stay && !journal.waits() && step.cause == Cause::Drift
        };
        let told = |(index, memory): &(usize, &Value)| {
            let tell = as_tell(steps[*index]).filter(|_| !self.starting)?;
            Some((*index, tell, was_active(steps[*index], memory)))
        };
        let told: Vec<(usize, Tell, bool)> = begun.iter().filter_map(told).collect();
        // What did not run before stops first, the newest first: its program, its files and its dataset are about to go.
        let (mut run, stop): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, _, was_active)| *was_active);
        for (index, tell, _) in stop.iter().rev() {
            progress.undo(steps[*index]);
            services::stop(self.host, tell).map_err(stuck(steps[*index]))?;
            store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
        }
        let mut is_born_again = false;
        for (index, memory) in begun.iter().rev() {
            let step = steps[*index];
            let stays = shared == Shared::Stay && kinds::find(&step.kind).is_some_and(|kind| kind.stays());
            if as_tell(step).is_none() && !stays {
                progress.undo(step);
                let work = Work::of(plan, step).map_err(stuck(step))?;
                if shared == Shared::Stay && work.is_changed(self.host, store, memory).map_err(stuck(step))? {
                    // Nobody is asked, and nothing is lost.
                    let memory = work.remember(self.host, store).map_err(stuck(step))?;
                    store.write(&Event::Kept { step: *index, memory }).map_err(ApplyError::Journal)?;
                }
                work.undo(self.host, store, memory).map_err(stuck(step))?;
                is_born_again |= work.ends_a_birth() && !self.starting;
                store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
            }
        }
        let node = Tell::Restart { unit: IDENTITY_UNIT.to_owned() };
        if is_born_again && !run.iter().any(|(_, tell, _)| *tell == node) {
            services::bring_back(self.host, &node).map_err(|source| ApplyError::Stuck {
                number,
                what: format!("service {IDENTITY_UNIT}"),
                source,
            })?;
        }
        run.sort_by_key(|(_, tell, _)| services::rank_back(tell));
        for (index, tell, _) in &run {
            progress.undo(steps[*index]);
            services::bring_back(self.host, tell).map_err(stuck(steps[*index]))?;
            store.write(&Event::Undone { step: *index }).map_err(ApplyError::Journal)?;
        }
        // The oldest has seen what was before all of them.
        let mut settings = kinds::Settings::new();
        for (index, memory) in begun.iter().rev() {
            settings.extend(kinds::settings_of(steps[*index], memory));
        }
        kinds::put_settings(self.host, &settings).map_err(|source| ApplyError::Stuck {
            number,
            what: "the kernel's settings".to_owned(),
            source,
        })?;
        if self.starting && !begun.is_empty() {
            self.tell_while_starting(&steps).map_err(ApplyError::Journal)?;
        }
        // It holds what is there again. After packages that stay it does not, and goes when there are newer ones.
        if let Some(environments) = self.environments.filter(|_| shared == Shared::Go)
            && journal.environment().is_some()
        {
            // One that cannot go now is gone before the next one is made.
            let _ = environments.remove(number);
        }
        self.sync(plan).map_err(ApplyError::Journal)?;
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

    /// Waits until all that a plan has written is on disk.
    fn sync(&self, plan: &Plan) -> Result<(), HostError> {
        let steps = plan.memory.iter().chain(plan.all()).filter(|step| kinds::is_dataset(step));
        pools::sync(self.host, steps.map(|step| step.name.as_str()), &[])
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

/// The commands that remove what stays of an apply.
fn left(store: &Store<'_>, plan: &Plan) -> Result<Vec<String>, HostError> {
    let steps: Vec<&Step> = plan.all().filter(|_| plan.undoes.is_empty()).collect();
    let mut left = Vec::new();
    for (index, memory) in store.journal()?.begun() {
        let Some(step) = steps.get(index).filter(|step| as_tell(step).is_none()) else { continue };
        if let WayBack::Stays(command) = kind_of(step)?.way_back(store, &step.change, memory)? {
            left.push(command);
        }
    }
    Ok(left)
}

/// Whether a plan changes what the machine starts from.
fn changes_root(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| kind_of(step).is_ok_and(|kind| kind.is_on_root()))
}

pub(crate) fn kind_of(step: &Step) -> Result<&'static dyn kinds::AnyKind, HostError> {
    kinds::find(&step.kind).ok_or_else(|| {
        let reason = format!("unknown kind `{}`; was it written by another version?", step.kind);
        kld_host::ParseError { tool: "kldload's plan", reason }.into()
    })
}

pub(crate) fn as_tell(step: &Step) -> Option<Tell> {
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

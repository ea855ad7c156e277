//! One change of the machine at a time, whatever makes it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kld_engine::{ApplyError, History, HostError, ProcedureKind, RealHost, Record, State};
use kld_host::{Lock, LockError};
use kld_ui::Hinted;

use super::procedure;

/// One at a time on a machine.
const LOCK: &str = "/run/kldload-apply.lock";

/// Whoever changes something has this, too, but for a procedure, whose steps take it one after the other: a step that outlives
/// its procedure is still at work.
const LOCK_WITHIN: &str = "/run/kldload-apply-within.lock";

/// Who only looks has ended by then.
const BRIEFLY: Duration = Duration::from_secs(10);

/// Nobody else changes the machine while it is there.
#[derive(Debug)]
pub(crate) struct Alone {
    machine: Option<Lock>,
    _within: Option<Lock>,
}

impl Alone {
    /// The same for one whose steps are commands like this.
    pub(crate) fn for_steps(self) -> Self {
        Self { machine: self.machine, _within: None }
    }
}

/// The machine's lock, now or never.
pub(crate) fn lock(purpose: &str) -> anyhow::Result<Alone> {
    let lock = take_lock(purpose)?;
    // Before anybody is asked anything: the clock that takes it back waits for the lock, and with it whoever is cut off.
    let records = History::new(&RealHost).records().context("cannot read what was applied before")?;
    match records.iter().find(|record| record.state == State::Unconfirmed) {
        Some(record) => Err(ApplyError::Waits { number: record.number }.into()),
        None => Ok(lock),
    }
}

/// The same also while an apply waits to be confirmed: for who ends that, and for who looks, or starts another system.
pub(crate) fn take_lock(purpose: &str) -> anyhow::Result<Alone> {
    must_be_root(purpose)?;
    Ok(try_both(Path::new(LOCK), Path::new(LOCK_WITHIN), purpose, is_our_procedure)?)
}

/// What was applied to this machine, and who is at work on it.
pub(crate) fn records(history: &History<'_>) -> Result<(Vec<Record>, Option<String>), HostError> {
    let at_work = || Lock::holder(Path::new(LOCK_WITHIN));
    // Asked twice, because it begins or ends while the records are read.
    let before = at_work();
    let mut records = history.records()?;
    let who = before.or_else(at_work);
    if who.is_some() {
        let under_way = records.iter_mut().filter(|record| record.state == State::Interrupted);
        under_way.for_each(|record| record.state = State::UnderWay);
    }
    Ok((records, who))
}

fn must_be_root(purpose: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Hinted::new("only root changes a machine", format!("`sudo {purpose} …`")).into())
}

fn try_both(
    machine: &Path,
    within: &Path,
    purpose: &str,
    is_ours: impl Fn(&str) -> bool,
) -> Result<Alone, LockError> {
    let machine = match Lock::try_acquire(machine, purpose) {
        Err(LockError::Held { holder, .. }) if is_ours(&holder) => None,
        done => Some(done?),
    };
    Ok(Alone { machine, _within: Some(Lock::try_acquire(within, purpose)?) })
}

/// For who confirms: what is at work may be the clock, which has looked already, and would take back what is said to stay. A
/// procedure has the other lock only, and waits for this.
pub(crate) fn lock_to_confirm() -> anyhow::Result<Alone> {
    const PURPOSE: &str = "kldload confirm";
    must_be_root(PURPOSE)?;
    Ok(wait_briefly(Path::new(LOCK_WITHIN), PURPOSE, BRIEFLY)?)
}

fn wait_briefly(within: &Path, purpose: &str, limit: Duration) -> Result<Alone, LockError> {
    let start = Instant::now();
    loop {
        match Lock::try_acquire(within, purpose) {
            Err(LockError::Held { .. }) if start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(100))
            }
            done => return Ok(Alone { machine: None, _within: Some(done?) }),
        }
    }
}

/// Whether the lock belongs to the `kldload upgrade` or `kldload dr` of which this is a step.
fn is_our_procedure(holder: &str) -> bool {
    std::env::var(procedure::VARIABLE)
        .is_ok_and(|process| holder.starts_with(&format!("process {process} (")))
}

/// The same for the clock that takes back what nobody confirms: it waits for what is at work, and not for a procedure, which may
/// wait itself for somebody who is cut off.
pub(crate) fn lock_for_the_clock() -> anyhow::Result<Alone> {
    Ok(wait_for_both(Path::new(LOCK), Path::new(LOCK_WITHIN))?)
}

fn wait_for_both(machine: &Path, within: &Path) -> Result<Alone, LockError> {
    const PURPOSE: &str = "kldload undo";
    let machine = loop {
        match Lock::try_acquire(machine, PURPOSE) {
            Err(LockError::Held { holder, .. }) if is_procedure(&holder) => break None,
            Err(LockError::Held { .. }) => std::thread::sleep(Duration::from_millis(500)),
            done => break Some(done?),
        }
    };
    Ok(Alone { machine, _within: Some(Lock::acquire(within, PURPOSE)?) })
}

fn is_procedure(holder: &str) -> bool {
    let is = |kind: ProcedureKind| holder.ends_with(&format!("(kldload {})", kind.name()));
    is(ProcedureKind::Upgrade) || is(ProcedureKind::Dr)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether somebody waits until this is over.
    fn waits_for<T>(machine: &Path, within: &Path, held: T) {
        std::thread::scope(|scope| {
            let clock = scope.spawn(|| wait_for_both(machine, within));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!clock.is_finished());
            drop(held);
            clock.join().expect("it does not panic").expect("it is its turn");
        });
    }

    #[test]
    fn a_confirmation_waits_for_who_is_at_work_and_says_who() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (machine, within) = (dir.path().join("lock"), dir.path().join("within"));
        let confirm = |limit| wait_briefly(&within, "kldload confirm", limit);
        let clock = wait_for_both(&machine, &within).expect("free");
        let error = confirm(Duration::from_millis(150)).expect_err("it is at work").to_string();
        assert!(error.ends_with("(kldload undo)"), "{error}");
        std::thread::scope(|scope| {
            let confirmed = scope.spawn(|| confirm(Duration::from_secs(60)));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!confirmed.is_finished());
            drop(clock);
            confirmed.join().expect("it does not panic").expect("it is its turn");
        });
        let procedure = try_both(&machine, &within, "kldload upgrade", |_| false).expect("free").for_steps();
        let confirming = confirm(Duration::ZERO).expect("a procedure waits for it");
        drop(procedure);
        waits_for(&machine, &within, confirming);
    }

    #[test]
    fn the_clock_waits_for_what_is_at_work_and_for_no_procedure() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (machine, within) = (dir.path().join("lock"), dir.path().join("within"));
        let take = |purpose: &str, is_ours: bool| try_both(&machine, &within, purpose, |_| is_ours);
        waits_for(&machine, &within, take("kldload apply", false).expect("free"));
        let procedure = take("kldload upgrade", false).expect("free").for_steps();
        waits_for(&machine, &within, take("kldload apply", true).expect("it is a step"));
        // A step that has outlived its procedure.
        let step = take("kldload apply", true).expect("it is a step");
        drop(procedure);
        let error = take("kldload recover", false).expect_err("it is at work").to_string();
        assert!(error.ends_with("(kldload apply)"), "{error}");
        waits_for(&machine, &within, step);
        take("kldload recover", false).expect("free");
    }
}

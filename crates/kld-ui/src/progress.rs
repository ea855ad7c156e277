//! Numbered phases of long work: which one runs, how far it is, how long it may still take.
//!
//! On a terminal each running phase has one live line. Off a terminal (CI, a log) a phase says one line when it
//! starts and one when it ends, and one every 30 s in between, so that a watcher knows it is alive and a log stays
//! short. The first phase that fails is named.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{ByteSize, Elapsed, Printer, Verbosity};

/// Time between two lines of a long phase off a terminal.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Time between two drawings of the live lines: a clock with tenths looks alive, a terminal over SSH keeps up.
const REDRAW: Duration = Duration::from_millis(200);

/// The phases of one command.
pub struct Phases {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

/// One running phase. May be shared between threads; dropped without [`Phase::finish`] it counts as failed.
pub struct Phase {
    shared: Arc<Shared>,
    number: usize,
    open: bool,
}

struct Shared {
    printer: Printer,
    total: usize,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    started: usize,
    running: Vec<Running>,
    stop: bool,
}

#[derive(Debug, Clone)]
struct Running {
    number: usize,
    name: String,
    unit: Unit,
    done: u64,
    total: u64,
    message: String,
    since: Duration,
    spoke: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Steps,
    Bytes,
}

impl fmt::Debug for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phases({} of {})", self.shared.state().started, self.shared.total)
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phase({}/{})", self.number, self.shared.total)
    }
}

impl Phases {
    /// `total` is how many phases there will be, shown as `[1/total]`.
    pub fn new(printer: &Printer, total: usize) -> Self {
        let origin = Instant::now();
        let mut phases = Self::with_clock(printer, total, Box::new(move || origin.elapsed()));
        let shared = Arc::clone(&phases.shared);
        // Without the thread there are no live lines and no heartbeats, and nothing else is lost.
        phases.ticker =
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || shared.tick()).ok();
        phases
    }

    fn with_clock(printer: &Printer, total: usize, clock: Box<dyn Fn() -> Duration + Send + Sync>) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self {
            shared: Arc::new(Shared { printer: printer.clone(), total, clock, state, wake }),
            ticker: None,
        }
    }

    /// Starts a phase that counts steps, or nothing.
    pub fn start(&self, name: &str) -> Phase {
        self.begin(name, Unit::Steps)
    }

    /// Starts a phase whose `done` and `total` are bytes.
    pub fn start_bytes(&self, name: &str) -> Phase {
        self.begin(name, Unit::Bytes)
    }

    fn begin(&self, name: &str, unit: Unit) -> Phase {
        let shared = &self.shared;
        let mut state = shared.state();
        state.started += 1;
        let (number, since) = (state.started, (shared.clock)());
        let (name, message) = (name.to_owned(), String::new());
        let running = Running { number, name, unit, done: 0, total: 0, message, since, spoke: since };
        if !shared.printer.has_live_lines() {
            shared.printer.note(&running.title(shared.total));
        }
        state.running.push(running);
        shared.draw(&state);
        Phase { shared: Arc::clone(shared), number, open: true }
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake.notify_all();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        self.shared.printer.set_live(Vec::new());
    }
}

impl Phase {
    /// How far it is; a `total` of 0 means that nobody knows yet.
    pub fn set(&self, done: u64, total: u64) {
        self.update(|running| (running.done, running.total) = (done, total));
    }

    /// What it is doing now, in a few words; replaces the message before.
    pub fn message(&self, message: &str) {
        self.update(|running| message.clone_into(&mut running.message));
    }

    /// It is done.
    pub fn finish(self) {
        self.finish_with("");
    }

    /// It is done, and this is worth saying: `from cache`, `412 packages`.
    pub fn finish_with(mut self, summary: &str) {
        self.close(|running, now, total| running.ended(now, total, summary));
    }

    /// It failed. The error itself is shown by whoever ends the command.
    pub fn fail(mut self) {
        self.close(Running::failed);
    }

    fn update(&self, change: impl FnOnce(&mut Running)) {
        if let Some(running) =
            self.shared.state().running.iter_mut().find(|running| running.number == self.number)
        {
            change(running);
        }
    }

    fn close(&mut self, render: impl FnOnce(&Running, Duration, usize) -> String) {
        self.open = false;
        let mut state = self.shared.state();
        if let Some(index) = state.running.iter().position(|running| running.number == self.number) {
            let running = state.running.remove(index);
            self.shared.draw(&state);
            self.shared.printer.note(&render(&running, (self.shared.clock)(), self.shared.total));
        }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if self.open {
            self.close(Running::failed);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut state = self.state();
        while !state.stop {
            state = self.wake.wait_timeout(state, REDRAW).unwrap_or_else(PoisonError::into_inner).0;
            if self.printer.has_live_lines() {
                self.draw(&state);
            } else {
                self.beat(&mut state);
            }
        }
    }

    /// Always called with the state locked, so that no stale line is drawn after a phase has ended.
    fn draw(&self, state: &State) {
        if self.printer.verbosity() == Verbosity::Quiet || !self.printer.has_live_lines() {
            return;
        }
        let now = (self.clock)();
        self.printer.set_live(state.running.iter().map(|running| running.live(now, self.total)).collect());
    }

    fn beat(&self, state: &mut State) {
        let now = (self.clock)();
        for running in &mut state.running {
            if now.saturating_sub(running.spoke) >= HEARTBEAT {
                running.spoke = now;
                self.printer.note(&running.live(now, self.total));
            }
        }
    }
}

impl Running {
    fn title(&self, total: usize) -> String {
        format!("[{}/{total}] {}", self.number, self.name)
    }

    fn live(&self, now: Duration, phases: usize) -> String {
        let elapsed = now.saturating_sub(self.since);
        let mut line = format!("{}: {}", self.title(phases), Elapsed(elapsed));
        if self.done > 0 || self.total > 0 {
            line.push_str(&format!(", {}", self.amount(self.done)));
        }
        if self.total > 0 {
            let percent = u128::from(self.done.min(self.total)) * 100 / u128::from(self.total);
            line.push_str(&format!(" of {} ({percent}%)", self.amount(self.total)));
        }
        if let Some(rate) = self.rate(elapsed) {
            if matches!(self.unit, Unit::Bytes) {
                line.push_str(&format!(", {}/s", ByteSize(rate as u64)));
            }
            if self.total > self.done {
                let left = Duration::from_secs_f64(((self.total - self.done) as f64 / rate).min(1e9));
                line.push_str(&format!(", {} left", Elapsed(left)));
            }
        }
        if !self.message.is_empty() {
            line.push_str(&format!(": {}", self.message));
        }
        line
    }

    fn ended(&self, now: Duration, phases: usize, summary: &str) -> String {
        let elapsed = now.saturating_sub(self.since);
        let mut line = format!("{}: done in {}", self.title(phases), Elapsed(elapsed));
        if self.done > 0 {
            line.push_str(&format!(", {}", self.amount(self.done)));
            if let (Unit::Bytes, Some(rate)) = (self.unit, self.rate(elapsed)) {
                line.push_str(&format!(" at {}/s", ByteSize(rate as u64)));
            }
        }
        if !summary.is_empty() {
            line.push_str(&format!(", {summary}"));
        }
        line
    }

    fn failed(&self, now: Duration, phases: usize) -> String {
        let elapsed = Elapsed(now.saturating_sub(self.since));
        let doing = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("{}: \x1b[1;31mfailed\x1b[0m after {elapsed}{doing}", self.title(phases))
    }

    fn amount(&self, amount: u64) -> String {
        match self.unit {
            Unit::Steps => amount.to_string(),
            Unit::Bytes => ByteSize(amount).to_string(),
        }
    }

    /// Per second since the start; none in the first second, when it would only be noise.
    fn rate(&self, elapsed: Duration) -> Option<f64> {
        (elapsed.as_secs() >= 1 && self.done > 0).then(|| self.done as f64 / elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn clocked(printer: &Printer, total: usize) -> (Phases, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&seconds);
        let clock = Box::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        (Phases::with_clock(printer, total, clock), seconds)
    }

    #[test]
    fn a_log_gets_start_heartbeat_and_end() {
        let (printer, captured) = Printer::captured();
        let (phases, seconds) = clocked(&printer, 4);
        let beat = || phases.shared.beat(&mut phases.shared.state());

        let phase = phases.start("root tree");
        phase.message("unpacking `libc6`");
        seconds.store(29, Ordering::Relaxed);
        beat();
        seconds.store(31, Ordering::Relaxed);
        beat();
        beat();
        phase.finish_with("212 packages");

        let phase = phases.start_bytes("pool");
        phase.set(1 << 30, 4 << 30);
        seconds.store(71, Ordering::Relaxed);
        beat();
        phase.set(4 << 30, 4 << 30);
        phase.finish();

        phases.start("cache").finish_with("from cache");
        let phase = phases.start("boot");
        phase.message("waiting for the control channel");
        drop(phase);
        expect![[r#"
            [1/4] root tree
            [1/4] root tree: 31s: unpacking `libc6`
            [1/4] root tree: done in 31s, 212 packages
            [2/4] pool
            [2/4] pool: 40s, 1G of 4G (25%), 25.6M/s, 2m 00s left
            [2/4] pool: done in 40s, 4G at 102M/s
            [3/4] cache
            [3/4] cache: done in 0.0s, from cache
            [4/4] boot
            [4/4] boot: failed after 0.0s: waiting for the control channel
        "#]]
        .assert_eq(&captured.stderr());
        assert_eq!(captured.stdout(), "");
    }

    #[test]
    fn a_terminal_gets_live_lines_and_ends() {
        let (printer, captured) = Printer::captured_terminal();
        let (phases, seconds) = clocked(&printer, 2);
        let one = phases.start("one");
        let two = phases.start("two");
        seconds.store(2, Ordering::Relaxed);
        one.set(1, 3);
        phases.shared.draw(&phases.shared.state());
        one.finish();
        two.fail();
        drop(phases);
        expect![[r#"
            <cr>[1/2] one: 0.0s
            <cr><up>[1/2] one: 0.0s
            [2/2] two: 0.0s
            <cr><up><up>[1/2] one: 2.0s, 1 of 3 (33%), 4.0s left
            [2/2] two: 2.0s
            <cr><up><up>[2/2] two: 2.0s
            <cr><up>[1/2] one: done in 2.0s, 1
            [2/2] two: 2.0s
            <cr><up>[2/2] two: failed after 2.0s
            <cr>"#]]
        .assert_eq(&captured.stderr().replace('\r', "<cr>").replace("\x1b[1A\x1b[2K", "<up>"));
    }

    #[test]
    fn quiet_is_quiet_and_handles_cross_threads() {
        let (printer, captured) = Printer::captured();
        let phases = Phases::new(&printer.with_verbosity(Verbosity::Quiet), 1);
        let phase = phases.start("compress");
        std::thread::scope(|scope| {
            for done in 0..4 {
                let phase = &phase;
                scope.spawn(move || phase.set(done, 4));
            }
        });
        phase.finish();
        drop(phases);
        assert_eq!(captured.stderr(), "");
    }
}

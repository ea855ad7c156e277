//! `kst`: is all well with this machine?
//!
//! Each probe looks at one thing, in its own thread and with its own deadline: one that hangs on a dead disk is
//! reported as such and keeps nothing else from being reported. The worst result decides. On a machine without a
//! node file (profile `core`, or any machine with ZFS) the probes look at what is there.

mod boot;
mod certificates;
mod clock;
mod disks;
mod firewall;
mod host_id;
mod keys;
mod pool;
mod prometheus;
mod replication;
mod sandboxes;
mod scrub;
mod services;
mod snapshots;
mod sockets;
mod verify;
mod wireguard;

#[cfg(test)]
mod tests;

pub use prometheus::render_prometheus;

use crate::machine::{Machine, MachineError};
use kld_host::zpool::{self, Imported};
use kld_host::{ExecError, systemd};
use kld_system::node::NodeConfig;
use kld_ui::Table;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a probe may take unless its caller says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Seconds by which what is dated ahead of the clock is no matter: clocks are set while they run, and those of two machines
/// differ. What lies further ahead was dated by a clock that was wrong, and would be new for ever.
const AHEAD: u64 = 300;

/// What a probe found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it must be.
    Ok,
    /// Nothing to look at, or something worth knowing; not a failure.
    Info,
    /// Works, and will not for ever.
    Warn,
    /// The probe did not answer in time.
    Timeout,
    /// Does not work.
    Fail,
}

impl Status {
    /// As it is written in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Timeout => "timeout",
            Self::Fail => "fail",
        }
    }
}

/// The result of one probe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    /// `pool`, `services`, `verify: app answers` …
    pub name: String,
    /// What it found.
    pub status: Status,
    /// In one line.
    pub summary: String,
    /// The command that mends it or shows more.
    pub command: Option<String>,
    /// What the status is the status of, one by one, where a probe looks at several things: `app.service`, `tank`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// How long it took to find out.
    pub milliseconds: u64,
    /// Numbers for a monitoring system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// One number of a probe, in Prometheus' terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// Which family it belongs to.
    pub family: Family,
    /// The value of the family's label.
    pub label: String,
    /// The number.
    pub value: f64,
}

/// The families of numbers that probes know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "`prometheus.rs` documents each for its users")]
pub enum Family {
    PoolOnline,
    PoolCapacity,
    PoolErrors,
    ScrubAge,
    ServiceUp,
    SnapshotAge,
    ReplicationSuccess,
    ReplicationLag,
    PeerHandshakeAge,
}

impl Probe {
    /// What was found, in one line.
    pub fn new(name: impl Into<String>, status: Status, summary: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status,
            summary: summary.into(),
            command: None,
            subjects: Vec::new(),
            milliseconds: 0,
            metrics: Vec::new(),
        }
    }

    /// The command that mends it or shows more.
    #[must_use]
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// What the status is the status of.
    #[must_use]
    pub fn with_subjects<T: Into<String>>(mut self, subjects: impl IntoIterator<Item = T>) -> Self {
        self.subjects = subjects.into_iter().map(Into::into).collect();
        self
    }

    /// Each thing that does not work, so that what has become bad is told from what was: `services: app.service`. The probe's
    /// name alone when it looks at one thing, or could not look.
    pub fn troubles(&self) -> Vec<String> {
        match &self.subjects[..] {
            _ if self.status < Status::Timeout => Vec::new(),
            [] => vec![self.name.clone()],
            subjects => subjects.iter().map(|subject| format!("{}: {subject}", self.name)).collect(),
        }
    }

    fn with_metric(mut self, family: Family, label: impl Into<String>, value: f64) -> Self {
        self.metrics.push(Metric { family, label: label.into(), value });
        self
    }

    /// A probe whose tool did not answer: in the tool's own words, when it has any.
    fn unanswered(name: &str, error: &MachineError) -> Self {
        // A person who asks the same sees more of it.
        let again = || error.exec().and_then(ExecError::command).map(str::to_owned);
        if let Some(ExecError::Failed { command, stderr, .. }) = error.exec()
            && let Some(line) = stderr.lines().map(str::trim).rfind(|line| !line.is_empty())
        {
            return Self::new(name, Status::Fail, line).with_command(command);
        }
        let sources = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        let text = sources.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let probe = Self::new(name, Status::Fail, text.lines().next().unwrap_or_default());
        match error.hint().or_else(again) {
            Some(command) => probe.with_command(command),
            None => probe,
        }
    }
}

/// What all probes found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// The worst of the probes.
    pub status: Status,
    /// In the order in which they are shown.
    pub probes: Vec<Probe>,
}

impl Health {
    fn new(probes: Vec<Probe>) -> Self {
        let status = probes.iter().map(|probe| probe.status).max().unwrap_or(Status::Info);
        Self { status, probes }
    }

    /// Whether nothing needs a person: `kst` ends with 0 then, and only then.
    pub fn is_well(&self) -> bool {
        self.status <= Status::Info
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new().left("PROBE").left("STATUS").left("SUMMARY");
        for probe in &self.probes {
            table.row([&probe.name, probe.status.as_str(), &probe.summary]);
        }
        write!(f, "{table}")?;
        for probe in self.probes.iter().filter(|probe| probe.status > Status::Info) {
            if let Some(command) = &probe.command {
                writeln!(f, "{}: {command}", probe.name)?;
            }
        }
        Ok(())
    }
}

/// What a probe sees. `config` is `None` on a machine without a node file.
struct View {
    machine: Arc<dyn Machine>,
    config: Option<NodeConfig>,
}

impl View {
    /// Every pool that is imported, the node's own first. The kernel is asked, without a process: `zpool` would wait for a pool
    /// that is suspended.
    fn pools(&self) -> Result<Vec<Imported>, MachineError> {
        let names = self.machine.list(Path::new(zpool::KSTAT))?;
        let mut pools =
            zpool::imported_of(names, |name| self.machine.read(Path::new(&zpool::state_file(name))))?;
        pools.sort_by_key(|pool| self.own_pool() != Some(&pool.name));
        Ok(pools)
    }

    /// What a probe of units says where there are none. A machine of a manifest must have them.
    fn without_units(&self, name: &str) -> Option<Vec<Probe>> {
        let has_units = self.config.is_some() || self.machine.has(systemd::RUNS);
        (!has_units).then(|| vec![Probe::new(name, Status::Info, "not asked: systemd does not run here")])
    }

    /// Seconds since the kernel started (proc_uptime(5)).
    fn uptime(&self) -> Option<u64> {
        let text = self.machine.read_text("/proc/uptime").ok()??;
        text.split('.').next()?.parse().ok()
    }

    fn own_pool(&self) -> Option<&str> {
        self.config.as_ref().map(|config| config.pool.as_str())
    }
}

type Look = Box<dyn FnOnce(&View) -> Vec<Probe> + Send>;

/// One thing to look at.
struct Task {
    name: String,
    /// The command that shows what it looks at, for a probe that cannot say more: a person sees where that stops.
    shows: String,
    deadline: Duration,
    look: Look,
}

impl Task {
    fn new(
        name: &str,
        shows: &str,
        deadline: Duration,
        look: impl FnOnce(&View) -> Vec<Probe> + Send + 'static,
    ) -> Self {
        Self { name: name.to_owned(), shows: shows.to_owned(), deadline, look: Box::new(look) }
    }

    /// One that nobody else can do, and what it looks at. That somebody may not look says nothing about the machine.
    fn for_root(self, sees: &'static str) -> Self {
        let (name, look) = (self.name.clone(), self.look);
        let look: Look = Box::new(move |view| match view.machine.is_root() {
            true => look(view),
            false => vec![Probe::new(name, Status::Info, format!("only root sees {sees}"))],
        });
        Self { look, ..self }
    }
}

/// A question to root that the caller answers, beside the probes and with their deadline.
pub struct Question {
    /// The probe's name.
    pub name: &'static str,
    /// What it looks at, which only root sees.
    pub sees: &'static str,
    /// The command that shows it.
    pub shows: &'static str,
    /// Looks; root is asking.
    pub look: Box<dyn FnOnce() -> Probe + Send>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Runs every probe at the same time. Each has `deadline`, except the manifest's own proofs, which bring theirs.
pub fn check(
    machine: Arc<dyn Machine>,
    config: Option<NodeConfig>,
    deadline: Duration,
    more: Vec<Question>,
) -> Health {
    check_some(machine, config, deadline, more, |_| true)
}

/// As [`check`], only the probes whose names `matters` says.
pub fn check_some(
    machine: Arc<dyn Machine>,
    config: Option<NodeConfig>,
    deadline: Duration,
    more: Vec<Question>,
    matters: impl Fn(&str) -> bool,
) -> Health {
    let mut tasks = vec![
        Task::new("boot", "systemctl is-system-running", deadline, boot::probe),
        Task::new("pool", "zpool status", deadline, pool::probe),
        Task::new("scrub", "zpool status", deadline, scrub::probe),
        Task::new("disks", "smartctl --scan", deadline, move |view| disks::probe(view, deadline)),
        Task::new("keys", "zfs get keystatus", deadline, keys::probe),
        Task::new("services", "systemctl --failed", deadline, services::probe),
        Task::new("sandboxes", "systemd-analyze security", deadline, sandboxes::probe),
        Task::new("snapshots", snapshots::SHOW, deadline, snapshots::probe),
        Task::new("replication", replication::SHOW, deadline, replication::probe),
        Task::new("wireguard", "wg show", deadline, wireguard::probe).for_root("the planes"),
        Task::new("firewall", "nft list ruleset", deadline, firewall::probe).for_root("the firewall"),
        Task::new("sockets", sockets::SHOW, deadline, sockets::probe),
        Task::new("clock", clock::SHOW, deadline, clock::probe),
        Task::new("certificates", certificates::SHOW, deadline, certificates::probe)
            .for_root("the certificates"),
        Task::new("host-id", host_id::MEND, deadline, host_id::probe),
    ];
    tasks.extend(more.into_iter().map(|Question { name, sees, shows, look }| {
        Task::new(name, shows, deadline, |_| vec![look()]).for_root(sees)
    }));
    for wanted in config.iter().flat_map(|config| config.verify.iter().cloned()) {
        // The command has its own limit; the probe's is a little later, for the report of it.
        let limit = Duration::from_secs(wanted.timeout_seconds.max(1)) + Duration::from_secs(2);
        let name = format!("verify: {}", wanted.name);
        tasks.push(Task::new(&name, &wanted.command.clone(), limit, move |view| {
            vec![verify::probe(view, &wanted)]
        }));
    }
    tasks.retain(|task| matters(&task.name));
    Health::new(run_tasks(Arc::new(View { machine, config }), tasks))
}

/// Starts all, then collects in order. A thread that hangs is left behind: it ends with the process.
fn run_tasks(view: Arc<View>, tasks: Vec<Task>) -> Vec<Probe> {
    let start = Instant::now();
    let running: Vec<_> = tasks
        .into_iter()
        .map(|Task { name, shows, deadline, look }| {
            let (sender, receiver) = channel();
            let view = Arc::clone(&view);
            let thread = std::thread::Builder::new().name(name.clone());
            let started = thread.spawn(move || {
                let mut probes = look(&view);
                let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                probes.iter_mut().for_each(|probe| probe.milliseconds = took);
                // Nobody receives any more after the deadline; then the answer is of no use.
                drop(sender.send(probes));
            });
            (name, shows, deadline, receiver, started.is_ok())
        })
        .collect();
    running
        .into_iter()
        .flat_map(|(name, shows, deadline, receiver, started)| {
            let left = deadline.saturating_sub(start.elapsed());
            let mut probes = match receiver.recv_timeout(left) {
                Ok(probes) => probes,
                Err(RecvTimeoutError::Timeout) => {
                    vec![Probe::new(name, Status::Timeout, format!("no answer within {deadline:?}"))]
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let summary = if started { "the probe itself failed" } else { "could not be started" };
                    vec![Probe::new(name, Status::Fail, summary)]
                }
            };
            for probe in probes.iter_mut().filter(|probe| probe.status > Status::Info) {
                probe.command.get_or_insert_with(|| shows.clone());
            }
            probes
        })
        .collect()
}

/// Seconds as people say them: `45 s`, `12 min`, `7 h`, `9 days`.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

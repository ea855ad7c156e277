//! Running processes: waiting with a deadline, ending whole process groups.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// A long-lived process and everything it started. Dropping it kills them.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    command: String,
    ended: Option<ExitStatus>,
}

impl Child {
    pub(super) fn new(inner: std::process::Child, command: String) -> Self {
        Self { inner, command, ended: None }
    }

    pub(super) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.inner.stdin.take()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// The command as one would type it.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Waits until it ends, at most `limit`; `None` means that it still runs. A zero limit only looks.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() && exits_before(&self.inner, Some(Instant::now() + limit))? {
            kill_group(&self.inner);
            self.ended = Some(self.inner.wait()?);
        }
        Ok(self.ended)
    }

    /// Kills the process and all it started, and waits for its end.
    ///
    /// # Errors
    /// When the system cannot tell how it ended.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        kill_group(&self.inner);
        let status = self.inner.wait()?;
        self.ended = Some(status);
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// How often somebody looks whether a process is still wanted.
const LOOKS: Duration = Duration::from_millis(100);

/// Waits for the end, the deadline, or until `stop` says that it is not wanted any more; `None` when it has not ended by itself,
/// and then it was killed.
pub(super) fn wait_until(
    process: &mut std::process::Child,
    deadline: Option<Instant>,
    stop: Option<&AtomicBool>,
    own_group: bool,
) -> io::Result<Option<ExitStatus>> {
    let ended = loop {
        let look = stop.map(|_| Instant::now() + LOOKS);
        if exits_before(process, [deadline, look].into_iter().flatten().min())? {
            break true;
        }
        let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_late || stop.is_some_and(|stop| stop.load(Ordering::SeqCst)) {
            break false;
        }
    };
    if own_group {
        // Also after a normal end: whoever was left behind would hold the pipes open for ever. Its leader is not
        // reaped yet, so the group's number cannot belong to anyone else.
        kill_group(process);
    }
    let status = process.wait()?;
    Ok(ended.then_some(status))
}

fn exits_before(process: &std::process::Child, deadline: Option<Instant>) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty())?;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn kill_group(process: &std::process::Child) {
    // An error means that nobody is left in the group.
    let _ = kill_process_group(Pid::from_child(process), Signal::KILL);
}

/// Starts a process from a thread that lives as long as this process.
///
/// A death signal (`prctl(2)`, `PR_SET_PDEATHSIG`) is sent when the *thread* that started the child ends, so a child
/// started by a short-lived worker would die with the worker.
pub(super) fn spawn_tied(mut command: Command) -> io::Result<std::process::Child> {
    type Request = (Command, mpsc::Sender<io::Result<std::process::Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();

    command.process_group(0);
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, received) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply) in received {
                let _ = reply.send(command.spawn());
            }
        });
        requests
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send((command, reply)).map_err(|_| gone(mpsc::RecvError))?;
    answer.recv().map_err(gone)?
}

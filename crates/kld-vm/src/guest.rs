//! A running guest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_host::{Child, atomic_write};
use serde_json::json;

use crate::boot_log::strip_escapes;
use crate::control::{Control, Output};
use crate::vm::Work;
use crate::{Accel, Boot, Firmware, Probe, Qmp, Vm, VmError, overlay_cmd, parse_boot_line};

/// QEMU opens its sockets within a second, also on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A script that says nothing of its time.
const SCRIPT_LIMIT: Duration = Duration::from_secs(120);
/// A poll that is short for a person and long for a processor.
const TICK: Duration = Duration::from_millis(100);
/// Saving and restoring take about a second per GiB of memory in use.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(300);
/// The ends of a boot (`systemctl(1)`, `is-system-running`); `initializing`, `unknown` and the like are none.
const VERDICTS: [&str; 4] = ["running", "degraded", "maintenance", "stopping"];
/// States of a machine that does not go on by itself (QEMU's RunState).
const DEAD: [&str; 3] = ["internal-error", "io-error", "guest-panicked"];
/// How much of the console an error shows, in bytes.
const CONSOLE_TAIL: u64 = 4096;

/// A running machine. Dropping it ends it at once, as a power cut would.
#[derive(Debug)]
pub struct Guest {
    // Dropped before the folder it writes to.
    child: Mutex<Child>,
    qmp: Mutex<Qmp>,
    control: Mutex<Control>,
    accel: Probe,
    snapshot_nodes: Vec<String>,
    saved: Mutex<BTreeSet<String>>,
    work: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Vm {
    /// Starts it. It boots from here on: see [`Guest::wait_control`].
    ///
    /// # Errors
    /// When QEMU or the firmware is missing, a file cannot be made, or QEMU refuses.
    pub fn start(&self) -> Result<Guest, VmError> {
        let accel = match self.accel {
            Some(accel) => Probe { accel, reason: (accel == Accel::Tcg).then(|| "as asked".to_owned()) },
            None => Accel::probe()?,
        };
        let (folder, temporary) = self.make_work_folder()?;
        let work = Work(&folder);
        // What a killed guest has left would be taken for this one's.
        for stale in [work.qmp(), work.control(), work.console_socket()] {
            let _ = fs::remove_file(stale);
        }
        let firmware = if self.boot == Boot::Uefi { Some(Firmware::find()?) } else { None };
        if let Some(Firmware { vars, .. }) = &firmware {
            fs::copy(vars, work.vars()).map_err(file_error("copy", vars))?;
        }
        for (index, disk) in self.disks.iter().enumerate().filter(|(_, disk)| disk.overlay) {
            let base =
                fs::canonicalize(&disk.image).map_err(file_error("open the disk image", &disk.image))?;
            overlay_cmd(&base, disk.format, &disk.written(&folder, index).0).run()?;
        }
        for (number, credential) in (0..).zip(&self.credentials) {
            let path = work.smbios(number.into());
            // The mode matters: credentials may be keys.
            atomic_write(&path, &credential.to_smbios(number), 0o600)
                .map_err(|error| file_error("write", &path)(io::Error::new(error.kind(), error)))?;
        }

        let mut child = self.command(&work, accel.accel, firmware.as_ref()).spawn()?;
        let deadline = Instant::now() + START_LIMIT;
        let ended = |child: &mut Child| child.wait(TICK).is_ok_and(|status| status.is_some());
        // The control socket is the last that QEMU opens.
        while !(work.qmp().exists() && work.control().exists()) {
            let (waiting_for, console) = ("QEMU's sockets".to_owned(), String::new());
            if ended(&mut child) {
                let log = fs::read_to_string(work.log()).unwrap_or_default();
                return Err(VmError::Ended { waiting_for, log, console });
            }
            if Instant::now() > deadline {
                return Err(VmError::Deadline { waiting_for, limit: START_LIMIT, console });
            }
        }
        let mut qmp = match Qmp::connect(&work.qmp()) {
            Ok(qmp) => qmp,
            // What QEMU itself says is worth more than the broken socket.
            Err(_) if ended(&mut child) => {
                let log = fs::read_to_string(work.log()).unwrap_or_default();
                return Err(VmError::Ended { waiting_for: "QEMU".to_owned(), log, console: String::new() });
            }
            Err(error) => return Err(error.into()),
        };
        qmp.forget_events()?;
        let control = Control::connect(&work.control()).map_err(file_error("connect to", &work.control()))?;
        Ok(Guest {
            child: Mutex::new(child),
            qmp: Mutex::new(qmp),
            control: Mutex::new(control),
            accel,
            snapshot_nodes: self.snapshot_nodes(),
            saved: Mutex::default(),
            work: folder,
            _temporary: temporary,
        })
    }

    fn make_work_folder(&self) -> Result<(PathBuf, Option<tempfile::TempDir>), VmError> {
        if let Some(folder) = &self.work {
            fs::create_dir_all(folder).map_err(file_error("create", folder))?;
            return Ok((folder.clone(), None));
        }
        let temporary = tempfile::Builder::new().prefix("kldload-vm-").tempdir();
        let temporary = temporary.map_err(file_error("create a folder in", &std::env::temp_dir()))?;
        Ok((temporary.path().to_owned(), Some(temporary)))
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VmError {
    let path = path.to_owned();
    move |source| VmError::File { action, path, source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// How its instructions are executed, and why so.
    pub fn accel(&self) -> &Probe {
        &self.accel
    }

    /// Where its sockets, overlays and logs are.
    pub fn work_folder(&self) -> &Path {
        &self.work
    }

    /// Whether QEMU is still there: a guest that powers itself off ends it.
    pub fn is_running(&self) -> bool {
        lock(&self.child).wait(Duration::ZERO).is_ok_and(|status| status.is_none())
    }

    /// Process id of QEMU.
    pub fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Does something with QEMU's own control connection.
    pub fn with_qmp<T>(&self, with: impl FnOnce(&mut Qmp) -> T) -> T {
        with(&mut lock(&self.qmp))
    }

    /// Everything the guest has written to its serial console, without escape sequences.
    pub fn console(&self) -> String {
        let text = fs::read(Work(&self.work).console()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(strip_escapes).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the guest answers on the control channel, which is early in its boot. `progress` is called with
    /// each step that the console shows.
    ///
    /// # Errors
    /// When the guest ends, or does not answer in time; the error shows the end of the console.
    pub fn wait_control(&self, limit: Duration, mut progress: impl FnMut(&str)) -> Result<(), VmError> {
        let mut console = Follow::default();
        let mut control = lock(&self.control);
        let deadline = Instant::now() + limit;
        loop {
            let is_there = control.is_there(Instant::now() + TICK);
            self.report(&mut console, &mut progress);
            match is_there {
                Ok(true) => return Ok(()),
                Ok(false) => self.check(deadline, limit, "its control channel")?,
                Err(source) => return Err(self.control_error(source)),
            }
        }
    }

    /// Waits until systemd has started everything, and gives its verdict: `running`, or `degraded` when a unit
    /// has failed. Call [`Guest::wait_control`] first.
    ///
    /// # Errors
    /// As [`Guest::wait_control`].
    pub fn wait_system(&self, limit: Duration, mut progress: impl FnMut(&str)) -> Result<String, VmError> {
        let mut console = Follow::default();
        let mut control = lock(&self.control);
        let deadline = Instant::now() + limit;
        let ask = |control: &mut Control| {
            let nonce = control.send("systemctl is-system-running --wait", limit);
            nonce.map_err(|source| self.control_error(source))
        };
        let mut nonce = ask(&mut control)?;
        loop {
            let answer = control.wait(&nonce, Instant::now() + TICK);
            self.report(&mut console, &mut progress);
            match answer {
                // Ended by its own clock, which may be before ours.
                Ok(Some(output)) if output.status == 124 => {
                    self.check(Instant::now(), limit, "the end of its boot")?;
                }
                Ok(Some(output)) if VERDICTS.contains(&output.text().as_str()) => return Ok(output.text()),
                // systemctl was killed, or systemd does not answer, as in a guest that goes down.
                Ok(Some(_)) => {
                    self.check(deadline, limit, "the end of its boot")?;
                    std::thread::sleep(TICK);
                    nonce = ask(&mut control)?;
                }
                Ok(None) => self.check(deadline, limit, "the end of its boot")?,
                Err(source) => return Err(self.control_error(source)),
            }
        }
    }

    /// Runs a bash script as root in the guest, for at most two minutes.
    ///
    /// # Errors
    /// When the guest does not answer. A script that fails is an answer.
    pub fn run(&self, script: &str) -> Result<Output, VmError> {
        self.run_for(script, SCRIPT_LIMIT)
    }

    /// Runs a bash script as root in the guest, for at most `limit`; then it is ended with status 124.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_for(&self, script: &str, limit: Duration) -> Result<Output, VmError> {
        let answer = lock(&self.control).run(script, limit);
        answer
            .map_err(|source| self.control_error(source))?
            .ok_or_else(|| self.deadline(&format!("the end of `{}`", first_line(script)), limit))
    }

    /// Runs a script that must succeed, and gives its stdout, trimmed.
    ///
    /// # Errors
    /// As [`Guest::run`], or the script fails.
    pub fn run_ok(&self, script: &str) -> Result<String, VmError> {
        let output = self.run(script)?;
        if output.is_ok() {
            return Ok(output.text());
        }
        let (script, stderr) = (first_line(script), output.error_text());
        Err(VmError::Script { script, status: output.status, stderr })
    }

    /// Writes a file in the guest, with permission bits in octal: `0o755`.
    ///
    /// # Errors
    /// As [`Guest::run_ok`].
    pub fn write_file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), VmError> {
        let quoted = format!("'{}'", path.replace('\'', r"'\''"));
        let content = STANDARD.encode(bytes);
        let script =
            format!("umask 077 && base64 -d <<'.' >{quoted} && chmod {mode:o} {quoted}\n{content}\n.\n");
        self.run_ok(&script).map(drop)
    }

    /// Saves memory, processors and disks under a name, inside the guest's qcow2 overlays.
    ///
    /// # Errors
    /// When no disk can hold it ([`crate::Disk::overlay`]), or QEMU refuses.
    pub fn save(&self, name: &str) -> Result<(), VmError> {
        self.snapshot("snapshot-save", name)?;
        lock(&self.saved).insert(name.to_owned());
        Ok(())
    }

    /// Goes back to a saved state: a booted machine again, in less than a second. Its clock is behind.
    ///
    /// # Errors
    /// [`VmError::NoState`], or QEMU refuses.
    pub fn restore(&self, name: &str) -> Result<(), VmError> {
        // QEMU stops the guest before it looks, and leaves it stopped when it finds nothing.
        if !lock(&self.saved).contains(name) {
            return Err(VmError::NoState { name: name.to_owned() });
        }
        self.snapshot("snapshot-load", name)
    }

    fn snapshot(&self, command: &str, name: &str) -> Result<(), VmError> {
        // No script runs in between, so no answer is lost.
        let _control = lock(&self.control);
        let vmstate = self.snapshot_nodes.first().map_or("", String::as_str);
        let arguments = json!({ "tag": name, "vmstate": vmstate, "devices": self.snapshot_nodes });
        Ok(lock(&self.qmp).run_job(command, arguments, SNAPSHOT_LIMIT)?)
    }

    /// Restarts the guest in order and waits until it answers again.
    ///
    /// # Errors
    /// As [`Guest::wait_control`].
    pub fn reboot(&self, limit: Duration, progress: impl FnMut(&str)) -> Result<(), VmError> {
        self.with_qmp(Qmp::forget_events)?;
        // The reply may be lost: systemd ends the control channel's service like any other.
        let sent = lock(&self.control).send("systemctl --no-block reboot", SCRIPT_LIMIT);
        sent.map_err(|source| self.control_error(source))?;
        let reset = self.with_qmp(|qmp| qmp.wait_event("RESET", Instant::now() + limit))?;
        if reset.is_none() {
            return Err(self.deadline("a restart", limit));
        }
        self.wait_control(limit, progress)
    }

    /// Asks systemd to power off, presses the power button too, and waits for the end; kills it when that takes
    /// longer than `limit`.
    ///
    /// # Errors
    /// [`VmError::Deadline`] when it had to be killed.
    pub fn shutdown(self, limit: Duration) -> Result<(), VmError> {
        // The button needs a logind that listens, the channel needs systemd 256: one of them is there.
        let _ = lock(&self.control).send("systemctl --no-block poweroff", SCRIPT_LIMIT);
        self.with_qmp(|qmp| qmp.execute("system_powerdown", json!({})))?;
        let ended = lock(&self.child).wait(limit).map_err(file_error("wait for", Path::new("QEMU")))?;
        if ended.is_none() { Err(self.deadline("its power-off", limit)) } else { Ok(()) }
    }

    /// Ends it as a power cut does.
    pub fn cut_power(self) {
        drop(self);
    }

    fn report(&self, console: &mut Follow, progress: &mut impl FnMut(&str)) {
        for line in console.lines(&Work(&self.work).console()) {
            if let Some(step) = parse_boot_line(&line) {
                progress(&step);
            }
        }
    }

    /// Fails when the guest has ended or the deadline is over.
    fn check(&self, deadline: Instant, limit: Duration, waiting_for: &str) -> Result<(), VmError> {
        if self.ends_within(Duration::ZERO) {
            return Err(self.ended(waiting_for));
        }
        if let Some(stopped) = self.stopped(waiting_for) {
            return Err(stopped);
        }
        if Instant::now() >= deadline { Err(self.deadline(waiting_for, limit)) } else { Ok(()) }
    }

    fn deadline(&self, waiting_for: &str, limit: Duration) -> VmError {
        self.stopped(waiting_for).unwrap_or_else(|| VmError::Deadline {
            waiting_for: waiting_for.to_owned(),
            limit,
            console: self.console_tail(),
        })
    }

    /// Whether its processors stand still for good, which no deadline mends.
    fn stopped(&self, waiting_for: &str) -> Option<VmError> {
        let status = lock(&self.qmp).status().ok().filter(|status| DEAD.contains(&status.as_str()))?;
        let log = fs::read_to_string(Work(&self.work).log()).unwrap_or_default();
        Some(VmError::Stopped {
            status,
            waiting_for: waiting_for.to_owned(),
            reason: first_line(&log),
            console: self.console_tail(),
        })
    }

    fn ends_within(&self, limit: Duration) -> bool {
        lock(&self.child).wait(limit).is_ok_and(|status| status.is_some())
    }

    fn ended(&self, waiting_for: &str) -> VmError {
        let log = fs::read_to_string(Work(&self.work).log()).unwrap_or_default();
        VmError::Ended { waiting_for: waiting_for.to_owned(), log, console: self.console_tail() }
    }

    fn control_error(&self, source: io::Error) -> VmError {
        // The sockets of a QEMU that ends are closed a moment before it is gone.
        if self.ends_within(Duration::from_secs(2)) {
            return self.ended("an answer");
        }
        VmError::Control { source, console: self.console_tail() }
    }

    fn console_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(Work(&self.work).console())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).lines().map(strip_escapes).collect::<Vec<_>>().join("\n"))
        };
        read().unwrap_or_default()
    }
}

fn first_line(script: &str) -> String {
    script.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// New whole lines of a growing file.
#[derive(Debug, Default)]
struct Follow {
    read: u64,
}

impl Follow {
    fn lines(&mut self, path: &Path) -> Vec<String> {
        let new = || -> io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(self.read))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = new().unwrap_or_default();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        String::from_utf8_lossy(&bytes[..whole]).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_whole_lines_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("console.log");
        let mut follow = Follow::default();
        assert_eq!(follow.lines(&path), [""; 0]);
        fs::write(&path, "one\ntw").expect("writable");
        assert_eq!(follow.lines(&path), ["one"]);
        fs::write(&path, "one\ntwo\n").expect("writable");
        assert_eq!(follow.lines(&path), ["two"]);
        assert_eq!(follow.lines(&path), [""; 0]);
    }

    #[test]
    fn a_script_is_named_by_its_first_line() {
        assert_eq!(first_line("\n  zpool status\nexit 1\n"), "zpool status");
        assert_eq!(first_line(""), "");
    }
}

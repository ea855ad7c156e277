//! How the guest's instructions are executed.
//!
//! `/dev/kvm` proves nothing: inside a cloud machine it may be there and fail with the first guest, or with the first
//! guest that does more than a BIOS. So the probe starts one with the firmware that guests have, two processors and no
//! disk, and waits until the firmware has looked for something to boot.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kld_host::{Cmd, ExecError};

use crate::Firmware;

/// What OVMF writes to the serial console once it has initialised everything and looks for something to boot.
const FIRMWARE_DONE: &str = "BdsDxe";
/// How QEMU's report begins when the kernel gives a guest up; the guest is stopped from then on.
const GIVEN_UP: &str = "KVM internal error";
/// A working KVM needs a second or two, emulation five.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// Translated by QEMU: works everywhere, and boots about five times slower.
    Tcg,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What to use.
    pub accel: Accel,
    /// Why it is not KVM.
    pub reason: Option<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            None => write!(f, "{}", self.accel),
            Some(reason) => write!(f, "{} ({reason})", self.accel),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "software emulation",
        })
    }
}

impl Accel {
    /// Finds out what works here, once per process.
    ///
    /// # Errors
    /// When QEMU is not installed. The next call tries again.
    pub fn probe() -> Result<Probe, ExecError> {
        static FOUND: OnceLock<Probe> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let reason = try_kvm()?;
        let accel = if reason.is_none() { Self::Kvm } else { Self::Tcg };
        Ok(FOUND.get_or_init(|| Probe { accel, reason }).clone())
    }

    /// The arguments for QEMU. `tb-size` is MiB of translated code: the default evicts what a whole boot needs.
    pub(crate) fn args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"],
        }
    }
}

fn probe_cmd(folder: &Path, firmware: &Firmware) -> Cmd {
    let escape = |path: &Path| path.display().to_string().replace(',', ",,");
    let code = format!("if=pflash,format=raw,readonly=on,file={}", escape(&firmware.code));
    let vars = format!("if=pflash,format=raw,snapshot=on,file={}", escape(&firmware.vars));
    Cmd::new("qemu-system-x86_64")
        .args(["-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35"])
        .args(["-m", "128", "-smp", "2"])
        .args(Accel::Kvm.args())
        .args(["-drive", &code, "-drive", &vars])
        .args(["-serial", &format!("file:{}", escape(&folder.join("console")))])
        .log_file(folder.join("log"))
}

/// Why KVM does not work; `None` when it does.
fn try_kvm() -> Result<Option<String>, ExecError> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Some("this machine has no /dev/kvm".to_owned()));
    }
    // Who has no firmware boots kernels directly, and finds out then.
    let Ok(firmware) = Firmware::find() else {
        return Ok(Some("KVM is not tried without UEFI firmware".to_owned()));
    };
    let Ok(folder) = tempfile::tempdir() else {
        return Ok(Some("no temporary folder to try KVM in".to_owned()));
    };
    let mut child = probe_cmd(folder.path(), &firmware).spawn()?;
    let start = Instant::now();
    let read = |name: &str| {
        String::from_utf8_lossy(&fs::read(folder.path().join(name)).unwrap_or_default()).into_owned()
    };
    loop {
        let ended = child.wait(Duration::from_millis(20)).is_ok_and(|status| status.is_some());
        if read("console").contains(FIRMWARE_DONE) {
            return Ok(None);
        }
        let log = read("log");
        if ended || log.contains(GIVEN_UP) {
            return Ok(Some(explain(&log)));
        }
        if start.elapsed() > PROBE_LIMIT {
            return Ok(Some(format!("KVM started no guest within {} s", PROBE_LIMIT.as_secs())));
        }
    }
}

fn explain(log: &str) -> String {
    // The first line is the reason; what follows are registers and stack traces.
    let line =
        log.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("QEMU ended without a word");
    format!("KVM does not work: {}", line.trim_start_matches("qemu-system-x86_64: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_it_is_slow() {
        let log = "\nqemu-system-x86_64: error: failed to set MSR 0x345 to 0x2000\nqemu: abort\n";
        let reason = Some(explain(log));
        assert_eq!(
            Probe { accel: Accel::Tcg, reason }.to_string(),
            "software emulation (KVM does not work: error: failed to set MSR 0x345 to 0x2000)"
        );
        let given_up =
            "KVM internal error. Suberror: 1\nextra data[0]: 0x1\nemulation failure\nEAX=00000000\n";
        assert_eq!(explain(given_up), "KVM does not work: KVM internal error. Suberror: 1");
        assert_eq!(Probe { accel: Accel::Kvm, reason: None }.to_string(), "KVM");
    }
}

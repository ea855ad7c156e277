//! Whether the disks say of themselves that they are well (SMART), as smartctl 7 reads it.

use super::{DEADLINE, Probe, Status, View};
use crate::machine::{Machine, MachineError};
use kld_host::{Cmd, ExecError, ParseError};
use serde::Deserialize;
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const TOOL: &str = "smartctl";
/// ACS-3 and all who make disks: sectors given up, sectors that could not be read and wait, and could never be read.
const ATTRIBUTES: [(u16, &str); 3] =
    [(5, "reallocated sectors"), (197, "pending sectors"), (198, "uncorrectable sectors")];
/// NVMe: 100 is what the maker has promised to last.
const WORN: u64 = 90;

#[derive(Deserialize)]
struct Scan {
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The parts of `smartctl --json` that matter; which are there depends on the disk.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    smart_status: Option<Verdict>,
    ata_smart_attributes: Table,
    nvme_smart_health_information_log: Nvme,
}

#[derive(Deserialize)]
struct Verdict {
    passed: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    table: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    id: u16,
    raw: Raw,
}

#[derive(Deserialize)]
struct Raw {
    value: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Nvme {
    critical_warning: u64,
    percentage_used: u64,
    media_errors: u64,
}

/// `deadline` is the probe's own.
pub(super) fn probe(view: &View, deadline: Duration) -> Vec<Probe> {
    // What has answered must be told before nobody listens any more.
    let end = Instant::now() + deadline.saturating_sub(Duration::from_secs(1).min(deadline / 5));
    let scan = Cmd::new(TOOL).args(["--json", "--scan"]).timeout(DEADLINE);
    // Not every machine has it, and none in a hypervisor needs it.
    let Ok(text) = view.machine.run_text(scan) else {
        return vec![Probe::new("disks", Status::Info, "not asked: smartmontools is not installed")];
    };
    let devices = match parse::<Scan>(&text) {
        Ok(scan) => scan.devices,
        Err(error) => return vec![Probe::unanswered("disks", &error.into())],
    };
    let mut found = ask_all(view, devices, deadline, end);
    found.sort_by_key(|(status, ..)| Reverse(*status));
    let worst = found.first().map_or(Status::Info, |(status, ..)| *status);
    let said = found.iter().filter(|(status, ..)| *status != Status::Ok);
    let said: Vec<String> = said.map(|(_, words, name)| format!("{name} {words}")).collect();
    let summary = match (found.len(), &said[..]) {
        (0, _) => "none that knows how it is".to_owned(),
        (all, []) => format!("{all} of {all} say that they are well"),
        _ => said.join(", "),
    };
    // One that does not answer is a trouble of its own beside one that fails.
    let is_bad = |status: Status| status > Status::Info && status >= worst.min(Status::Timeout);
    let bad: Vec<&str> =
        found.iter().filter(|(status, ..)| is_bad(*status)).map(|(.., name)| name.as_str()).collect();
    let probe = Probe::new("disks", worst, summary);
    vec![match bad.first() {
        Some(name) => probe.with_command(format!("{TOOL} -x {name}")).with_subjects(bad),
        None => probe,
    }]
}

/// What each says, in the order of the scan. Each is asked in a thread of its own: one that hangs keeps no other from being
/// heard. Its thread is left behind, and ends with the process.
fn ask_all(
    view: &View,
    devices: Vec<Device>,
    limit: Duration,
    end: Instant,
) -> Vec<(Status, String, String)> {
    let hangs = |device: &Device| (Status::Timeout, "does not answer".to_owned(), device.name.clone());
    let mut found: Vec<_> = devices.iter().map(hangs).collect();
    let (sender, receiver) = channel();
    for (index, device) in devices.into_iter().enumerate() {
        let (machine, sender) = (Arc::clone(&view.machine), sender.clone());
        let thread = std::thread::Builder::new().name(device.name.clone());
        let started = thread.spawn(move || {
            let said = ask(&*machine, &device, limit);
            // Nobody receives any more after the end; then the answer is of no use.
            drop(sender.send((index, said)));
        });
        if started.is_err() {
            found[index].1 = "could not be asked".to_owned();
        }
    }
    drop(sender);
    while let Ok((index, said)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let (status, words) = match said {
            Ok(report) if report.smart_status.is_some() => judge(&report),
            Err(error) if matches!(error.exec(), Some(ExecError::TimedOut { .. })) => continue,
            // It sleeps, and is not woken for this, or smartctl may not open it.
            _ => (Status::Info, "does not say".to_owned()),
        };
        (found[index].0, found[index].1) = (status, words);
    }
    found
}

fn ask(machine: &dyn Machine, device: &Device, limit: Duration) -> Result<Report, MachineError> {
    let ask = Cmd::new(TOOL).args(["--json", "--health", "--attributes", "--nocheck=standby", "--device"]);
    let ask = ask.args([&device.kind, "--", &device.name]).timeout(limit);
    // Its exit code is a set of bits that say what the text says, too (smartctl(8), EXIT STATUS).
    let ask = (1..=255).fold(ask, Cmd::accept);
    Ok(parse(&machine.run_text(ask)?)?)
}

fn judge(report: &Report) -> (Status, String) {
    let nvme = &report.nvme_smart_health_information_log;
    let fails = report.smart_status.as_ref().is_some_and(|verdict| !verdict.passed);
    if fails || nvme.critical_warning != 0 {
        return (Status::Fail, "says that it fails".to_owned());
    }
    let raw =
        |id| report.ata_smart_attributes.table.iter().find(|of| of.id == id).map_or(0, |of| of.raw.value);
    let counts = ATTRIBUTES.iter().map(|(id, words)| (raw(*id), *words));
    let counts = counts.chain([(nvme.media_errors, "media errors")]).filter(|(count, _)| *count > 0);
    let mut said: Vec<String> = counts.map(|(count, words)| format!("{count} {words}")).collect();
    if nvme.percentage_used >= WORN {
        said.push(format!("{}% of its life used", nvme.percentage_used));
    }
    match &said[..] {
        [] => (Status::Ok, String::new()),
        _ => (Status::Warn, format!("has {}", said.join(" and "))),
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    serde_json::from_str(text).map_err(|error| ParseError { tool: TOOL, reason: error.to_string() })
}

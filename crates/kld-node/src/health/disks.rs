//! Whether the disks say of themselves that they are well (SMART), as smartctl 7 reads it.

use super::{DEADLINE, Probe, Status, View};
use kld_host::{Cmd, ParseError};
use serde::Deserialize;

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

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let scan = Cmd::new(TOOL).args(["--json", "--scan"]).timeout(DEADLINE);
    // Not every machine has it, and none in a hypervisor needs it.
    let Ok(text) = view.machine.run_text(scan) else {
        return vec![Probe::new("disks", Status::Info, "not asked: smartmontools is not installed")];
    };
    let devices = match parse::<Scan>(&text) {
        Ok(scan) => scan.devices,
        Err(error) => return vec![Probe::unanswered("disks", &error.into())],
    };
    let mut found: Vec<(Status, String, &str)> = Vec::new();
    for device in &devices {
        let (status, words) = match ask(view, device) {
            Some(report) => judge(&report),
            None => (Status::Info, "does not say".to_owned()),
        };
        found.push((status, words, &device.name));
    }
    let worst = found.iter().map(|(status, ..)| *status).max().unwrap_or(Status::Info);
    let said = found.iter().filter(|(status, ..)| *status != Status::Ok);
    let said: Vec<String> = said.map(|(_, words, name)| format!("{name} {words}")).collect();
    let summary = match (devices.len(), &said[..]) {
        (0, _) => "none that knows how it is".to_owned(),
        (all, []) => format!("{all} of {all} say that they are well"),
        _ => said.join(", "),
    };
    let bad = found
        .iter()
        .filter(|(status, ..)| *status == worst && worst > Status::Info)
        .map(|(_, _, name)| *name);
    let probe = Probe::new("disks", worst, summary).with_subjects(bad);
    vec![match found.iter().find(|(status, ..)| *status == worst) {
        Some((_, _, name)) if worst > Status::Info => probe.with_command(format!("{TOOL} -x {name}")),
        _ => probe,
    }]
}

/// What one says; `None` of a disk that sleeps, and is not woken for this, or that smartctl may not open.
fn ask(view: &View, device: &Device) -> Option<Report> {
    let ask = Cmd::new(TOOL).args(["--json", "--health", "--attributes", "--nocheck=standby", "--device"]);
    let ask = ask.args([&device.kind, "--", &device.name]).timeout(DEADLINE);
    // Its exit code is a set of bits that say what the text says, too (smartctl(8), EXIT STATUS).
    let ask = (1..=255).fold(ask, Cmd::accept);
    let report: Report = parse(&view.machine.run_text(ask).ok()?).ok()?;
    report.smart_status.is_some().then_some(report)
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

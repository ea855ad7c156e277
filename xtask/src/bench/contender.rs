//! Runs programs in turns and measures each: time, processor time, memory, output.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};

use super::table::median;

/// A program to be measured.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) cmd: Cmd,
    /// What it makes: removed after each run, so that no run pays for writing back what another one made.
    pub(super) output: Option<PathBuf>,
}

/// Medians over the runs of one contender, the most for memory.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) seconds: f64,
    /// Of all its processes, user and system.
    pub(super) cpu_seconds: f64,
    /// Resident memory of all its processes.
    pub(super) peak_kib: u64,
    /// What the output takes on disk.
    pub(super) bytes: u64,
}

/// Measures all of them, one run of each after the other: what else the machine does disturbs all alike.
pub(super) fn measure(
    printer: &Printer,
    contenders: &[Contender],
    runs: usize,
) -> anyhow::Result<Vec<Measured>> {
    let runs = runs.max(1);
    let phases = Phases::new(printer, runs);
    let mut samples: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        let phase = phases.start(&format!("run {} of {runs}", run + 1));
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            phase.message(&contender.name);
            samples.push(once(contender)?);
        }
        phase.finish();
    }
    Ok(samples.iter().map(|samples| summary(samples)).collect())
}

fn summary(samples: &[Measured]) -> Measured {
    let median = |of: fn(&Measured) -> f64| median(samples.iter().map(of));
    Measured {
        name: samples[0].name.clone(),
        seconds: median(|sample| sample.seconds),
        cpu_seconds: median(|sample| sample.cpu_seconds),
        peak_kib: samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0),
        bytes: samples[0].bytes,
    }
}

fn once(contender: &Contender) -> anyhow::Result<Measured> {
    if let Some(output) = &contender.output {
        let _ = fs::remove_file(output);
    }
    let mut peak_kib = 0;
    let cpu_before = cpu_of_children();
    let start = Instant::now();
    let mut child = contender.cmd.spawn()?;
    let status = loop {
        peak_kib = peak_kib.max(peak_of(child.id()));
        if let Some(status) = child.wait(Duration::from_millis(5))? {
            break status;
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = cpu_of_children() - cpu_before;
    if !status.success() {
        bail!("`{}` failed with {status}", child.command());
    }
    let mut bytes = 0;
    if let Some(output) = &contender.output {
        let meta = fs::metadata(output).with_context(|| format!("no output of `{}`", contender.name))?;
        bytes = meta.blocks() * 512;
        fs::remove_file(output)?;
    }
    Ok(Measured { name: contender.name.clone(), seconds, cpu_seconds, peak_kib, bytes })
}

/// `VmHWM` of a process and of those it started, in KiB; 0 when it has just ended.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let own: u64 = line.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(peak_of).sum::<u64>()
}

/// Processor time of all processes that have ended below this one, in seconds, to 10 ms.
fn cpu_of_children() -> f64 {
    /// `USER_HZ`, the same on every Linux of this architecture.
    const TICKS: f64 = 100.0;
    /// Where `cutime` and `cstime` stand after the name, which may hold spaces.
    const AFTER_NAME: usize = 13;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_ascii_whitespace().skip(AFTER_NAME).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

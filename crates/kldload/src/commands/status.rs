//! `kldload status`, also called `kst`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kld_engine::{History, HostError, RealHost, State};
use kld_host::atomic_write;
use kld_node::RealMachine;
use kld_node::health::{Probe, Question, Status, check, render_prometheus};
use kld_system::{NODE_CONFIG_PATH, NodeConfig};
use kld_ui::{ExitStatus, Printer};

use super::history::utc;

/// Say whether all is well: pool, services, snapshots, mesh, firewall, and the manifest's own proofs
///
/// Exits with 0 only when all is well. Every probe has a deadline, so that a machine with a hung pool still answers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kst\n  kst --json | jq '.items[] | select(.status != \"ok\")'\n  kldload status --prometheus --output /var/lib/prometheus/node-exporter/kldload.prom"
)]
pub(crate) struct Args {
    /// Print JSON on standard output
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Print Prometheus' text format
    #[arg(long)]
    prometheus: bool,
    /// Write the metrics to this file, whole or not at all
    #[arg(long, requires = "prometheus", value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long each probe may take, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    timeout: u64,
}

/// Looks.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let config = read_config()?;
    let changes = Question { name: CHANGES, look: Box::new(changes) };
    let health = check(Arc::new(RealMachine), config, Duration::from_secs(args.timeout), vec![changes]);
    let status = if health.is_well() { ExitStatus::Done } else { ExitStatus::Failed };
    if args.prometheus {
        let text = render_prometheus(&health);
        match &args.output {
            Some(path) => atomic_write(path, text.as_bytes(), 0o644)?,
            None => printer.data(&text)?,
        }
        // Metrics tell what is wrong by themselves: the timer that writes them has not failed.
        return Ok(ExitStatus::Done);
    }
    if args.json {
        printer.envelope("health", &health.probes)?;
    } else {
        printer.data(&health.to_string())?;
    }
    Ok(status)
}

/// What this machine should be; `None` on a machine that no manifest made.
pub(crate) fn read_config() -> anyhow::Result<Option<NodeConfig>> {
    match std::fs::read_to_string(NODE_CONFIG_PATH) {
        Ok(text) => Ok(Some(
            NodeConfig::parse(&text).with_context(|| format!("cannot understand `{NODE_CONFIG_PATH}`"))?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{NODE_CONFIG_PATH}`")),
    }
}

const CHANGES: &str = "changes";

/// The last apply, and whether somebody has changed something since.
fn changes() -> Probe {
    if !rustix::process::geteuid().is_root() {
        return Probe::new(CHANGES, Status::Info, "only root sees what was applied");
    }
    look_at_changes().unwrap_or_else(|error| {
        Probe::new(CHANGES, Status::Fail, error.to_string()).with_command("kldload history")
    })
}

fn look_at_changes() -> Result<Probe, HostError> {
    let history = History::new(&RealHost);
    let records = history.records()?;
    let in_state = |state| records.iter().find(|record| record.state == state);
    if let Some(record) = in_state(State::Interrupted) {
        let summary = format!("apply {} was interrupted", record.number);
        return Ok(Probe::new(CHANGES, Status::Fail, summary).with_command("kldload recover"));
    }
    if let Some(record) = in_state(State::Unconfirmed) {
        let summary = format!("apply {} waits to be confirmed", record.number);
        return Ok(Probe::new(CHANGES, Status::Warn, summary).with_command("kldload confirm"));
    }
    let Some(last) = records.iter().rev().find(|record| record.state == State::Committed) else {
        return Ok(Probe::new(CHANGES, Status::Info, "nothing was applied since it was made"));
    };
    let applied = format!("apply {} by {}, {}", last.number, last.by, utc(last.at));
    let drift: Vec<String> = history.drift()?.into_iter().map(|(_, name)| name).collect();
    Ok(match &drift[..] {
        [] => Probe::new(CHANGES, Status::Ok, applied),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Probe::new(CHANGES, Status::Warn, format!("{applied}; changed by hand since: {first}{more}"))
                .with_command(
                    "`kldload plan` and the manifest show the difference, `kldload apply` puts it back",
                )
        }
    })
}

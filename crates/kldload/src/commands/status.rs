//! `kldload status`, also called `kst`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kld_host::atomic_write;
use kld_node::RealMachine;
use kld_node::health::{check, render_prometheus};
use kld_system::{NODE_CONFIG_PATH, NodeConfig};
use kld_ui::{ExitStatus, Printer};

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
    let health = check(Arc::new(RealMachine), config, Duration::from_secs(args.timeout));
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

//! `kldload status`, also called `kst`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kld_engine::{Adopter, Adoption, History, HostError, RealHost, Stage, State};
use kld_host::atomic_write;
use kld_node::RealMachine;
use kld_node::health::{Health, Probe, Question, Status, check, render_prometheus};
use kld_system::{NODE_CONFIG_PATH, NodeConfig};
use kld_ui::{ExitStatus, Printer};

use super::lock::records;
use super::{be, history::utc, seconds::seconds};

/// Say whether all is well, and which command mends what is not
///
/// Pool, disks, services, snapshots, mesh, firewall, boot environments, clock, certificates, what was changed by hand, and the
/// manifest's own proofs. Exits with 0 only when all is well. Every probe has a deadline, so that a machine with a hung pool
/// still answers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kst\n  kst --watch\n  kst --json | jq '.items[] | select(.status != \"ok\")'\n  kldload status --prometheus --output /var/lib/prometheus/node-exporter/kldload.prom"
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
    /// Look again every 5 seconds, or as often as this says, until Ctrl-C
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "5",
        value_parser = seconds,
        conflicts_with = "prometheus"
    )]
    watch: Option<u64>,
    /// How long each probe may take
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = seconds)]
    timeout: u64,
}

/// Where to a terminal is taken before it is written anew: the upper left corner, and nothing below it (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";
/// A probe that hangs leaves its thread behind: one that goes on hanging is asked less often.
const AFTER_A_TIMEOUT: Duration = Duration::from_secs(60);

/// Looks, once or until it is told to end.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let Some(every) = args.watch else { return look(printer, args).map(|(_, status)| status) };
    loop {
        if !args.json && std::io::stdout().is_terminal() {
            printer.data(CLEAR)?;
        }
        let (hangs, _) = look(printer, args)?;
        let pause = Duration::from_secs(every);
        std::thread::sleep(if hangs { pause.max(AFTER_A_TIMEOUT) } else { pause });
    }
}

/// All that is known of this machine; each probe has `deadline`.
pub(crate) fn health(deadline: Duration) -> anyhow::Result<Health> {
    let questions = vec![
        Question { name: CHANGES, sees: "what was applied", shows: HISTORY, look: Box::new(changes) },
        Question {
            name: be::PROBE,
            sees: "the boot partition",
            shows: "kbe list",
            look: Box::new(be::probe),
        },
    ];
    Ok(check(Arc::new(RealMachine), read_config()?, deadline, questions))
}

/// Looks once, shows it, and says whether a probe did not answer.
fn look(printer: &Printer, args: &Args) -> anyhow::Result<(bool, ExitStatus)> {
    let health = health(Duration::from_secs(args.timeout))?;
    let hangs = health.probes.iter().any(|probe| probe.status == Status::Timeout);
    let status = if health.is_well() { ExitStatus::Done } else { ExitStatus::Failed };
    if args.prometheus {
        let text = render_prometheus(&health);
        match &args.output {
            Some(path) => atomic_write(path, text.as_bytes(), 0o644)?,
            None => printer.data(&text)?,
        }
        // Metrics tell what is wrong by themselves: the timer that writes them has not failed.
        return Ok((hangs, ExitStatus::Done));
    }
    if args.json {
        printer.envelope("health", &health.probes)?;
    } else {
        printer.data(&health.to_string())?;
    }
    Ok((hangs, status))
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
const HISTORY: &str = "kldload history";

/// The last apply, and whether somebody has changed something since.
fn changes() -> Probe {
    look_at_changes()
        .unwrap_or_else(|error| Probe::new(CHANGES, Status::Fail, error.to_string()).with_command(HISTORY))
}

fn look_at_changes() -> Result<Probe, HostError> {
    let history = History::new(&RealHost);
    let (records, at_work) = records(&history)?;
    let in_state = |state| records.iter().find(|record| record.state == state);
    if let Some(record) = in_state(State::Interrupted) {
        let summary = format!("{} was interrupted", record.name());
        return Ok(Probe::new(CHANGES, Status::Fail, summary).with_command("kldload recover"));
    }
    if let Some((record, who)) = in_state(State::UnderWay).zip(at_work.as_ref()) {
        let summary = format!("{} is under way: {who}", record.name());
        return Ok(Probe::new(CHANGES, Status::Info, summary));
    }
    let adoptions = Adopter::new(&RealHost).all()?;
    if let Some(probe) = interrupted(&adoptions, at_work.as_deref()) {
        return Ok(probe);
    }
    if let Some(record) = in_state(State::Unconfirmed) {
        let summary = format!("{} waits to be confirmed", record.name());
        return Ok(Probe::new(CHANGES, Status::Warn, summary).with_command("kldload confirm"));
    }
    let waiting = waiting(&adoptions);
    let Some(last) = records.iter().rev().find(|record| record.holds()) else {
        let summary = waiting.unwrap_or_else(|| "nothing was applied since it was made".to_owned());
        return Ok(Probe::new(CHANGES, Status::Info, summary));
    };
    let applied = format!("apply {} by {}, {}", last.number, last.by, utc(last.at));
    let drift: Vec<String> = history.drift()?.into_iter().map(|(_, name)| name).collect();
    Ok(match &drift[..] {
        [] => match waiting {
            None => Probe::new(CHANGES, Status::Ok, applied),
            Some(waiting) => Probe::new(CHANGES, Status::Info, format!("{applied}; {waiting}")),
        },
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Probe::new(CHANGES, Status::Warn, format!("{applied}; changed by hand since: {first}{more}"))
                .with_command(
                    "`kldload plan` and the manifest show the difference, `kldload apply` puts it back",
                )
        }
    })
}

/// A directory that is neither here nor there, whose services may be down, or that is removed by half.
fn interrupted(adoptions: &[(Adoption, Stage)], at_work: Option<&str>) -> Option<Probe> {
    let in_stage = |stage| adoptions.iter().find(|(_, of)| *of == stage).map(|(adoption, _)| adoption);
    if let (Some(who), Some(adoption)) =
        (at_work, in_stage(Stage::Interrupted).or_else(|| in_stage(Stage::Freeing)))
    {
        let summary = format!("the adoption of {} is under way: {who}", adoption.path);
        return Some(Probe::new(CHANGES, Status::Info, summary));
    }
    if let Some(Adoption { path, .. }) = in_stage(Stage::Interrupted) {
        let summary = format!("the adoption of {path} was interrupted");
        return Some(Probe::new(CHANGES, Status::Fail, summary).with_command("kldload recover"));
    }
    in_stage(Stage::Freeing).map(|Adoption { path, aside, .. }| {
        Probe::new(CHANGES, Status::Warn, format!("the removal of {aside} was interrupted"))
            .with_command(format!("kldload adopt --confirm {path}"))
    })
}

/// Directories that are kept until somebody says that they may go. They only take room.
fn waiting(adoptions: &[(Adoption, Stage)]) -> Option<String> {
    let mut kept = adoptions.iter().filter(|(_, stage)| *stage == Stage::Unconfirmed);
    let (Adoption { path, .. }, _) = kept.next()?;
    let more = match kept.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("the adoption of {path}{more} waits for `kldload adopt --confirm`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adoptions_that_wait_are_told_and_those_that_were_interrupted_are_wrong() {
        let said_while = |at_work: Option<&str>, stages: &[Stage]| {
            let all = stages.iter().zip(1..).map(|(stage, number)| {
                let adoption = Adoption {
                    number,
                    at: 0,
                    by: "root".to_owned(),
                    path: format!("/srv/a{number}"),
                    dataset: format!("rpool/srv/a{number}"),
                    properties: Vec::new(),
                    aside: format!("/srv/.a{number}.before-adopt-{number:06}"),
                    directory: 7,
                };
                (adoption, *stage)
            });
            let all: Vec<(Adoption, Stage)> = all.collect();
            let wrong = interrupted(&all, at_work).map(|probe| (probe.status, probe.summary));
            wrong.or_else(|| waiting(&all).map(|summary| (Status::Info, summary)))
        };
        let said = |stages: &[Stage]| said_while(None, stages);
        let adoption = |status, text: &str| Some((status, format!("the adoption of {text}")));
        let waits = "waits for `kldload adopt --confirm`";
        assert_eq!(said(&[Stage::Confirmed, Stage::TakenBack]), None);
        assert_eq!(said(&[Stage::Unconfirmed]), adoption(Status::Info, &format!("/srv/a1 {waits}")));
        let two = said(&[Stage::TakenBack, Stage::Unconfirmed, Stage::Unconfirmed]);
        assert_eq!(two, adoption(Status::Info, &format!("/srv/a2 and 1 more {waits}")));
        let wrong = said(&[Stage::Unconfirmed, Stage::Interrupted]);
        assert_eq!(wrong, adoption(Status::Fail, "/srv/a2 was interrupted"));
        let busy = Some("process 7 (kldload adopt)");
        for stage in [Stage::Interrupted, Stage::Freeing] {
            let under_way = adoption(Status::Info, "/srv/a1 is under way: process 7 (kldload adopt)");
            assert_eq!(said_while(busy, &[stage]), under_way);
        }
        assert_eq!(said_while(busy, &[Stage::Unconfirmed]), said(&[Stage::Unconfirmed]));
        let half = said(&[Stage::Freeing]).map(|(status, _)| status);
        assert_eq!(half, Some(Status::Warn));
    }
}

//! `kbe prune`.

use kld_boot::{
    Action, Keep, Looked, Plan, RealMachine, carry_out, choose, leftovers, plan_destroy, unequal,
};
use kld_ui::{ByteSize, ExitStatus, Printer};
use serde::Serialize;

use super::change::Shown;
use crate::commands::asked::asked;
use crate::commands::lock::lock;

/// Destroy the oldest boot environments, and what interrupted commands have left
///
/// Never the one that runs, the one that starts next, the last one that was well, or one without a boot entry. Without
/// --keep and --free, only what interrupted commands have left goes. A boot partition that lacks an environment, because it
/// was replaced or away, is given it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe prune\n  kbe prune --keep 5\n  kbe prune --free 10G --dry-run")]
pub(crate) struct Args {
    /// Keep this many, the newest
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Go on until this much is free in the pool
    #[arg(long, value_name = "SIZE", conflicts_with = "keep")]
    free: Option<ByteSize>,
    #[command(flatten)]
    shown: Shown,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What goes, as `--json` has it.
#[derive(Debug, Serialize)]
struct Goes<'a> {
    environment: Option<&'a str>,
    /// What an interrupted command has left.
    leftover: Option<&'a str>,
    /// Bytes, at least.
    frees: u64,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe prune")?;
    let looked = Looked::before_change(&RealMachine)?;
    let (left, unequal) = (leftovers(&looked), unequal(&looked));
    let keep = args.keep.map(Keep::Newest).or_else(|| args.free.map(|size| Keep::Free(size.0)));
    let chosen = keep.map(|keep| choose(&looked, keep)).unwrap_or_default();
    if left.actions.is_empty() && unequal.actions.is_empty() && chosen.is_empty() {
        printer.note("nothing to destroy");
    } else {
        if args.shown.output.json {
            let said = left.said.iter().chain(&unequal.mended);
            let left = said.map(|said| Goes { environment: None, leftover: Some(said), frees: 0 });
            let names = chosen.iter().map(|of| Goes {
                environment: Some(&of.name),
                leftover: None,
                frees: of.frees.bytes,
            });
            printer.envelope("prune", &left.chain(names).collect::<Vec<_>>())?;
        } else {
            let lines = left.said.iter().map(|said| format!("  remove: {said}"));
            let lines = lines.chain(unequal.mended.iter().map(|said| format!("  mend: {said}")));
            let names = chosen.iter().map(|of| format!("  destroy `{}`, {} will be free", of.name, of.frees));
            printer.data(&lines.chain(names).collect::<Vec<_>>().join("\n"))?;
        }
        if args.shown.dry_run {
            return Ok(ExitStatus::Pending);
        }
        if !chosen.is_empty() {
            asked(printer, "destroy them?", args.yes)?;
        }
        let mut said = |action: &Action| printer.detail(&action.to_string());
        let actions = left.actions.into_iter().chain(unequal.actions).collect();
        carry_out(&RealMachine, &Plan { actions, ..Plan::default() }, &mut said)?;
        for environment in &chosen {
            // What one shares with the next changes with each that goes.
            let plan = plan_destroy(&Looked::before_change(&RealMachine)?, &environment.name)?;
            carry_out(&RealMachine, &plan, &mut said)?;
        }
        printer.note(&match chosen.len() {
            0 if left.said.is_empty() => "every boot partition starts every environment".to_owned(),
            0 => "what interrupted commands have left is gone".to_owned(),
            1 => "1 environment is gone".to_owned(),
            many => format!("{many} environments are gone"),
        });
    }
    let available = Looked::before_change(&RealMachine)?.available;
    if let Some(wanted) = args.free.filter(|wanted| wanted.0 > available) {
        printer.warning(&format!("{} are free, not {wanted}: what is left must stay", ByteSize(available)));
        return Ok(ExitStatus::Failed);
    }
    Ok(ExitStatus::Done)
}

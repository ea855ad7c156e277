//! `kbe export`.

use std::io::IsTerminal as _;

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{BootError, MachineError, RealMachine, export, plan_export};
use kld_ui::{ExitStatus, Hinted, Printer};

use crate::candidates;
use crate::commands::lock::take_lock;

/// Write a boot environment to standard output, for `kbe import` on this machine or another
///
/// It is a stream of `zfs send` of one snapshot, which is gone afterwards. It holds the whole system and whatever secrets lie in its /etc:
/// keep it like the disk itself.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe export debian > debian.zfs\n  kbe export debian | ssh other tee debian.zfs > /dev/null\n  kbe export --dry-run debian"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    /// Only show what would be done; exits with 3
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if !args.dry_run && std::io::stdout().is_terminal() {
        let hint = format!("name a file: `kbe export {} > FILE`", args.name);
        return Err(Hinted::new("a stream is nothing for a terminal", hint).into());
    }
    let _lock = take_lock("kbe export")?;
    if args.dry_run {
        printer.data(&plan_export(&RealMachine, &args.name)?.to_string())?;
        return Ok(ExitStatus::Pending);
    }
    let send = |cmd: &kld_host::Cmd| -> Result<(), BootError> {
        Ok(cmd.run_attached().map_err(MachineError::from)?)
    };
    export(&RealMachine, &args.name, send)?;
    printer.note(&format!("`{}` is written", args.name));
    Ok(ExitStatus::Done)
}

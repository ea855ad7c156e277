//! `kbe export`.

use std::io::IsTerminal as _;

use kld_boot::{BootError, MachineError, RealMachine, export};
use kld_ui::{ExitStatus, Hinted, Printer};

use crate::commands::apply::take_lock;

/// Write a boot environment to standard output, for `kbe import` on this machine or another
///
/// It is a stream of `zfs send` of one snapshot, which is gone afterwards. It holds the whole system and whatever secrets lie in its /etc:
/// keep it like the disk itself.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe export debian > debian.zfs\n  kbe export debian | ssh other tee debian.zfs > /dev/null"
)]
pub(crate) struct Args {
    /// Its name
    name: String,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if std::io::stdout().is_terminal() {
        let hint = format!("name a file: `kbe export {} > FILE`", args.name);
        return Err(Hinted::new("a stream is nothing for a terminal", hint).into());
    }
    let _lock = take_lock("kbe export")?;
    let send = |cmd: &kld_host::Cmd| -> Result<(), BootError> {
        Ok(cmd.run_attached().map_err(MachineError::from)?)
    };
    export(&RealMachine, &args.name, send)?;
    printer.note(&format!("`{}` is written", args.name));
    Ok(ExitStatus::Done)
}

//! `kldload node`: what the machine's own units call.

use std::path::PathBuf;

use kld_node::{RealMachine, init};
use kld_ui::{ExitStatus, Hinted, Printer};

use super::status::read_config;

/// What the machine's own units call; not needed by people
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make every identity that is missing: keys, host id, GUIDs, secrets; grow the pool to its disk
    ///
    /// Changes nothing on a machine that has everything. Run at every boot by kldload-identity.service.
    Init {
        /// Print JSON on standard output
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let Verb::Init { json } = args.verb;
    let Some(config) = read_config()? else {
        let hint = "`kldload build` makes machines that have one";
        return Err(Hinted::new("this machine has no /etc/kldload/node.json", hint).into());
    };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let report = init(&RealMachine, &config, credentials.as_deref(), |step| {
        if !json {
            printer.note(&step.to_string());
        }
    });
    if json {
        printer.envelope("identity", &report.steps)?;
    }
    Ok(if report.is_complete() { ExitStatus::Done } else { ExitStatus::Failed })
}

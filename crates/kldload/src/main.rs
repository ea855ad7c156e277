//! kldload: one manifest in, one machine out.
//!
//! One binary with several names: called as `kst` it is `kldload status` (`names.rs`).

mod candidates;
mod commands;
mod digests;
mod hints;
mod lock_file;
mod manifest;
mod names;
mod signals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kld_ui::{ExitStatus, Printer, Verbosity};

/// One manifest in, one machine out: a Linux whose root is ZFS, whose network is a WireGuard mesh,
/// whose services are sandboxed, snapshotted and watched from first boot
#[derive(Debug, Parser)]
#[command(name = "kldload", version, arg_required_else_help = true, max_term_width = 100)]
struct Args {
    /// Say more
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Say only what went wrong
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(commands::check::Args),
    Explain(commands::explain::Args),
    Build(commands::build::Args),
    Run(commands::run::Args),
    Plan(commands::plan::Args),
    Apply(commands::apply::Args),
    Confirm(commands::confirm::Args),
    Undo(commands::undo::Args),
    Adopt(commands::adopt::Args),
    Recover(commands::recover::Args),
    Key(commands::key::Args),
    Secret(commands::secret::Args),
    History(commands::history::Args),
    Upgrade(commands::upgrade::Args),
    Dr(commands::dr::Args),
    Snap(commands::snap::Args),
    Status(commands::status::Args),
    Be(commands::be::Args),
    Df(commands::df::Args),
    Dir(commands::dir::Args),
    Pkg(commands::pkg::Args),
    Pool(commands::pool::Args),
    Node(commands::node::Args),
    Manifest(commands::manifest::Args),
    Completion(commands::completion::Args),
    Man(commands::man::Args),
}

fn main() -> ExitCode {
    match commands::completion::answer() {
        Ok(false) => {}
        Ok(true) => return ExitStatus::Done.into(),
        Err(_) => return ExitStatus::Failed.into(),
    }
    let args = Args::parse_from(names::expand(std::env::args_os().collect()));
    let verbosity = match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Default,
    };
    let printer = Printer::new(verbosity, false);
    let done = match args.command {
        Command::Check(args) => commands::check::run(&printer, &args),
        Command::Explain(args) => commands::explain::run(&printer, &args),
        Command::Build(args) => commands::build::run(&printer, &args),
        Command::Run(args) => commands::run::run(&printer, &args),
        Command::Plan(args) => commands::plan::run(&printer, &args),
        Command::Apply(args) => commands::apply::run(&printer, &args),
        Command::Confirm(args) => commands::confirm::run(&printer, &args),
        Command::Undo(args) => commands::undo::run(&printer, &args),
        Command::Adopt(args) => commands::adopt::run(&printer, &args),
        Command::Recover(args) => commands::recover::run(&printer, &args),
        Command::Key(args) => commands::key::run(&printer, &args),
        Command::Secret(args) => commands::secret::run(&printer, &args),
        Command::History(args) => commands::history::run(&printer, &args),
        Command::Upgrade(args) => commands::upgrade::run(&printer, &args),
        Command::Dr(args) => commands::dr::run(&printer, &args),
        Command::Snap(args) => commands::snap::run(&printer, &args),
        Command::Status(args) => commands::status::run(&printer, &args),
        Command::Be(args) => commands::be::run(&printer, &args),
        Command::Df(args) => commands::df::run(&printer, &args),
        Command::Dir(args) => commands::dir::run(&printer, &args),
        Command::Pkg(args) => commands::pkg::run(&printer, &args),
        Command::Pool(args) => commands::pool::run(&printer, &args),
        Command::Node(args) => commands::node::run(&printer, &args),
        Command::Manifest(args) => commands::manifest::run(&printer, &args),
        Command::Completion(args) => commands::completion::run(&printer, &args),
        Command::Man(args) => commands::man::run(&printer, &args),
    };
    match done {
        Ok(status) => status.into(),
        // The reader of a pipe that has seen enough is no failure.
        Err(error) if is_broken_pipe(&error) => ExitStatus::Done.into(),
        Err(error) => {
            printer.error(&*error, &hints::all());
            ExitStatus::Failed.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_described() {
        use clap::CommandFactory as _;
        let command = Args::command();
        examples_fit(&command);
        command.debug_assert();
    }

    /// A line that is folded on a terminal of 100 columns cannot be copied into a shell.
    fn examples_fit(command: &clap::Command) {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in examples.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
        }
        command.get_subcommands().for_each(examples_fit);
    }
}

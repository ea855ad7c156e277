//! Chores of the workspace: `cargo xtask <verb>`.

mod bench;
mod checks;
mod demo;
mod fuzz;
mod generate;
mod kernels;
mod setup;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the kldload workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build recipes/webapp, boot it and prove that it works
    Demo(demo::Args),
    /// Run every test, the ones in virtual machines included
    Test(test::Args),
    /// Everything a change must pass: format, lints, docs, licences, generated files, tests
    Ci,
    /// Measure side by side with other tools
    Bench(bench::Args),
    /// Give the parsers bytes that nobody would write
    Fuzz(fuzz::Args),
    /// Check the rules of the workspace that no other tool checks
    Tidy,
    /// Write the generated files again: reference, schema
    Gen {
        /// Only say whether they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Install what the other verbs need on this machine
    Setup {
        /// Only say what would be installed
        #[arg(long)]
        dry_run: bool,
    },
}

fn main() -> ExitCode {
    let printer = kld_ui::Printer::new(kld_ui::Verbosity::Default, false);
    let root = root();
    let done = match Args::parse().verb {
        Verb::Demo(args) => demo::run(&printer, &root, &args),
        Verb::Test(args) => test::run(&printer, &root, &args),
        Verb::Ci => checks::ci(&printer, &root),
        Verb::Bench(args) => bench::run(&printer, &root, &args),
        Verb::Fuzz(args) => fuzz::run(&printer, &root, &args),
        Verb::Tidy => checks::tidy(&printer, &root),
        Verb::Gen { check } => generate::run(&printer, &root, check),
        Verb::Setup { dry_run } => setup::run(&printer, dry_run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&*error, &kld_ui::Hints::new().on(kld_host::ExecError::hint));
            ExitCode::FAILURE
        }
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

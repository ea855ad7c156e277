//! `cargo xtask test`: all tests, as continuous integration runs them.

use std::path::Path;

use anyhow::Context as _;
use kld_build::Cache;
use kld_host::Cmd;
use kld_ui::{Phases, Printer};

use crate::{checks, generate, setup, tools};

/// What to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests that boot virtual machines, and say so
    #[arg(long)]
    no_vm: bool,
    /// Arguments for `cargo test`, such as a filter
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Prepares the machine, then runs everything.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    printer.note(
        "cargo xtask test: installs what is missing (see `cargo xtask setup --dry-run`), then runs all tests",
    );
    setup::run(printer, false)?;
    checks::tidy(printer, root)?;
    generate::run(printer, root, true)?;
    let cache = Cache::open(&Cache::default_root())?;
    let tools = tools::ensure(&cache, &Phases::new(printer, 1))?;

    let cargo = |words: &[&str]| {
        inherit(Cmd::new("cargo").cwd(root).args(words))
            .env("KLD_TOOLS_ROOT", &tools.root)
            .env("KLD_ZDB", &tools.zdb)
    };
    // One profile for everything: tests write and boot real images, and demo and tests share what is compiled.
    let mut fast = vec!["test", "--release", "--workspace", "--"];
    fast.extend(args.rest.iter().map(String::as_str));
    cargo(&fast).run_attached().context("tests failed")?;
    if args.no_vm {
        printer.warning("the tests in virtual machines were left out (--no-vm)");
        return Ok(());
    }
    if args.rest.is_empty() {
        // One after the other: two cores do not make two emulated machines faster.
        let vm = [
            "test",
            "--release",
            "--package",
            "kldload",
            "--features",
            "vm",
            "--test",
            "vm",
            "--",
            "--test-threads=1",
        ];
        cargo(&vm).run_attached().context("tests in virtual machines failed")?;
    }
    Ok(())
}

/// Passes on what cargo itself needs: where its toolchain and caches are.
pub(crate) fn inherit(cmd: Cmd) -> Cmd {
    ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "XDG_CACHE_HOME", "CI", "TERM"]
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .fold(cmd, |cmd, (name, value)| cmd.env(name, value))
}

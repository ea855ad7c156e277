//! `cargo xtask demo`: the main job, on this machine, from nothing.

use std::path::Path;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_ui::Printer;

use crate::setup;
use crate::test::{inherit, kldload};

/// What to do with the machine once it works.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the virtual machine running until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Installs what is missing, builds kldload, builds the recipe, boots it and proves it.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    printer.note("cargo xtask demo: builds recipes/webapp into a disk image, boots it in QEMU and proves that it works");
    setup::run(printer, false)?;
    let build = inherit(Cmd::new("cargo").cwd(root).args(["build", "--release", "--package", "kldload"]));
    printer.note("compiling kldload");
    build.run_attached().context("cannot compile kldload")?;

    let mut run =
        inherit(Cmd::new(kldload(root)).cwd(root).args(["run", "recipes/webapp/appliance.manifest"]));
    if !args.keep {
        run = run.arg("--once");
    }
    run.run_attached().context("the demo failed")
}

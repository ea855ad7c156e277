//! `cargo xtask test`: all tests, as continuous integration runs them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use kld_build::Cache;
use kld_host::Cmd;
use kld_ui::{Phases, Printer};

use crate::{checks, generate, kernels, setup, tools};

/// What to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests that boot virtual machines, and say so
    #[arg(long)]
    no_vm: bool,
    /// Also what takes hours: pools in kernels of other OpenZFS releases, a kill and a power cut after each step of an
    /// apply, stock Debian that becomes a recipe, adoptions and `kbe`
    #[arg(long, conflicts_with = "no_vm")]
    long: bool,
    /// Arguments for `cargo test`, such as a filter
    #[arg(last = true)]
    rest: Vec<String>,
}

const LEFT_OUT: &str = "left out (--long): kernels of other OpenZFS releases, a crash after each step of an apply, \
    stock Debian, adoptions, kbe, upgrades";

/// What the tests in virtual machines boot: arguments of `kldload build`.
const IMAGES: [&[&str]; 3] = [
    &["--distro", "debian", "--profile", "core"],
    &["recipes/webapp/appliance.manifest"],
    &["crates/kldload/tests/vm/vault/appliance.manifest"],
];

/// Prepares the machine, then runs everything. What waits for downloads and for packages' scripts goes on beside what
/// needs the processor.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    printer.note(
        "cargo xtask test: installs what is missing (see `cargo xtask setup --dry-run`), then runs all tests",
    );
    setup::run(printer, false)?;
    checks::tidy(printer, root)?;
    generate::run(printer, root, true)?;
    let with_vm = !args.no_vm && args.rest.is_empty();

    let cache = Cache::open(&Cache::default_root())?;
    let tools = std::thread::scope(|scope| {
        let tools = scope.spawn(|| tools::ensure(&cache, &Phases::new(printer, 1)));
        // One profile for everything: tests write and boot real images, and demo and tests share what is compiled.
        // The program itself, too, which builds the images: its own tests run it.
        let compiled = cargo(root, &["test", "--release", "--workspace", "--no-run"])
            .context("cannot compile the tests");
        let tools = tools.join().map_err(|_| anyhow!("preparing the tools panicked"))??;
        compiled.map(|()| tools)
    })?;
    let kernels = if args.long { kernels::ensure(printer, &cache)? } else { String::new() };
    let check = |words: &[&str]| {
        inherit(Cmd::new("cargo").cwd(root).args(words))
            .env("KLD_TOOLS_ROOT", &tools.root)
            .env("KLD_ZDB", &tools.zdb)
            .env("KLD_OTHER_ZDB", &tools.other_zdb)
            .env("KLD_OTHER_KERNELS", &kernels)
            .run_attached()
    };
    let mut fast = vec!["test", "--release", "--workspace", "--"];
    fast.extend(args.rest.iter().map(String::as_str));
    std::thread::scope(|scope| {
        let images = with_vm.then(|| scope.spawn(|| build_images(printer, root)));
        let tested = check(&fast).context("tests failed");
        let built = images.map_or(Ok(()), |images| {
            images.join().unwrap_or_else(|_| bail!("building the images of the tests panicked"))
        });
        tested.and(built)
    })?;
    if args.no_vm {
        printer.warning("the tests in virtual machines were left out (--no-vm)");
    }
    if with_vm {
        // A thread for every test: which of them work at a time is decided in `tests/vm/turn.rs`.
        let vm = ["test", "--release", "--workspace", "--test", "vm", "--", "--test-threads=64"];
        let left_out: &[&str] = if args.long { &[] } else { &["--skip", "long::"] };
        check(&[&vm[..], left_out].concat()).context("tests in virtual machines failed")?;
        if !args.long {
            printer.warning(LEFT_OUT);
        }
    }
    Ok(())
}

fn cargo(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    Ok(inherit(Cmd::new("cargo").cwd(root).args(words)).run_attached()?)
}

/// Builds each image once, so that the cache has what takes long: compiled modules and root trees.
fn build_images(printer: &Printer, root: &Path) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let phases = Phases::new(printer, IMAGES.len());
    for image in IMAGES {
        let phase = phases.start(&format!("kldload build {}", image.join(" ")));
        inherit(Cmd::new(kldload(root)).cwd(root).args(["build", "--quiet"]).args(image))
            .args(["--size", "6G", "--output"])
            .arg(scratch.path().join("image"))
            .run()
            .with_context(|| format!("cannot build the image of `{}`", image.join(" ")))?;
        phase.finish();
    }
    Ok(())
}

/// The program that `cargo build --release` leaves.
pub(crate) fn kldload(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("x86_64-unknown-linux-gnu/release/kldload")
}

/// Passes on what cargo itself needs: where its toolchain and caches are.
pub(crate) fn inherit(cmd: Cmd) -> Cmd {
    ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "XDG_CACHE_HOME", "CI", "TERM"]
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .fold(cmd, |cmd, (name, value)| cmd.env(name, value))
}

//! `cargo xtask fuzz`: bytes that nobody would write, for the parsers of manifests, pools and tars.
//!
//! libFuzzer is linked to the targets in `crates/*/fuzz` with the flags that cargo-fuzz gives, less the address
//! sanitizer: there is no unsafe code to watch. So the stable toolchain is enough, and nothing else is installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phase, Phases, Printer};

use crate::test::inherit;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Targets; all of them when none is named
    targets: Vec<String>,
    /// Seconds that each one runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Coverage for libFuzzer, and every check that a release leaves out.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks --cfg fuzzing";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Seconds that one input may take, and MiB of memory.
const INPUT_LIMIT: u32 = 25;
const MEMORY_LIMIT: u32 = 2048;

/// A program that takes any bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    /// The folder of its package.
    home: PathBuf,
    name: String,
}

/// Compiles the targets and runs them one after the other.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    let known = targets(root)?;
    let is_known = |name: &&String| known.iter().any(|target| target.name == **name);
    if let Some(unknown) = args.targets.iter().find(|name| !is_known(name)) {
        let names: Vec<&str> = known.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target `{unknown}`, but {}", names.join(", "));
    }
    let is_chosen = |target: &Target| args.targets.is_empty() || args.targets.contains(&target.name);
    let chosen: Vec<Target> = known.into_iter().filter(is_chosen).collect();
    printer.note(&format!("cargo xtask fuzz: {} targets, {} s each", chosen.len(), args.seconds));
    let built = root.join("target/fuzz");
    let homes: BTreeSet<&Path> = chosen.iter().map(|target| target.home.as_path()).collect();
    for home in homes {
        inherit(Cmd::new("cargo").cwd(home).args(["build", "--release", "--locked", "--target", TRIPLE]))
            .env("CARGO_TARGET_DIR", &built)
            .env("RUSTFLAGS", FLAGS)
            .run_attached()
            .context("cannot compile the targets")?;
    }
    let phases = Phases::new(printer, chosen.len());
    for target in &chosen {
        let phase = phases.start(&target.name);
        let executed = fuzz(root, target, &built.join(TRIPLE).join("release"), args.seconds, &phase)?;
        phase.finish_with(&format!("{executed} inputs"));
    }
    Ok(())
}

/// Runs one target; gives the number of inputs it took.
fn fuzz(
    root: &Path,
    target: &Target,
    programs: &Path,
    seconds: u64,
    phase: &Phase,
) -> anyhow::Result<String> {
    let Target { home, name } = target;
    let corpus = home.join("corpus").join(name);
    // What is found first goes where it is in nobody's way.
    let found = root.join("target/fuzz-corpus").join(name);
    let artifacts = home.join("artifacts").join(name);
    for folder in [&corpus, &found, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    let packed = home.join("corpus").join(format!("{name}.tar.zst"));
    if packed.exists() {
        let unpack =
            Cmd::new("tar").args(["--zstd", "--skip-old-files", "-xf"]).arg(&packed).arg("-C").arg(&found);
        unpack.run().with_context(|| format!("cannot unpack `{}`", packed.display()))?;
    }
    let mut executed = String::new();
    let ended = Cmd::new(programs.join(name))
        .arg(format!("-max_total_time={seconds}"))
        .args([format!("-timeout={INPUT_LIMIT}"), format!("-rss_limit_mb={MEMORY_LIMIT}")])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args([&found, &corpus])
        .timeout(Duration::from_secs(seconds + 600))
        .stream(|line| {
            let text = line.text();
            if let Some(count) = text.strip_prefix("stat::number_of_executed_units:") {
                executed = count.trim().to_owned();
            } else if text.starts_with('#') {
                phase.message(text);
            }
        });
    ended.with_context(|| {
        let (from, to) = (artifacts.display(), corpus.display());
        format!("`{name}` failed: mend it, and move the input from `{from}` to `{to}`")
    })?;
    Ok(executed)
}

/// All targets of all crates, in order.
fn targets(root: &Path) -> anyhow::Result<Vec<Target>> {
    let list = |folder: &Path| -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let read = || -> std::io::Result<Vec<Target>> {
        let mut targets = Vec::new();
        for home in list(&root.join("crates"))?.into_iter().map(|package| package.join("fuzz")) {
            if home.is_dir() {
                let files = list(&home.join("fuzz_targets"))?;
                let names = files.iter().filter_map(|file| file.file_stem()?.to_str());
                targets.extend(names.map(|name| Target { home: home.clone(), name: name.to_owned() }));
            }
        }
        targets.sort();
        Ok(targets)
    };
    read().context("cannot list the targets in `crates/*/fuzz/fuzz_targets`")
}

//! `cargo xtask bench`: side by side with the peers, on the same input, in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kld_build::Cache;
use kld_host::Cmd;
use kld_ui::{ByteSize, Phases, Printer, Table};

use crate::setup;
use crate::test::inherit;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// Runs of each; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A directory to take as input, instead of the newest root tree in the cache
    #[arg(long)]
    tree: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// Writing a root tree into an image: our pool and every other image format
    Image,
    /// Building recipes/webapp again after one application file was touched
    Rebuild,
}

/// One way of making an image.
struct Contender {
    name: &'static str,
    cmd: Cmd,
    output: PathBuf,
}

struct Measured {
    name: &'static str,
    seconds: f64,
    peak_kib: u64,
    bytes: u64,
}

/// Measures.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    setup::run(printer, false)?;
    match args.what {
        What::Image => image(printer, root, args),
        What::Rebuild => rebuild(printer, root, args),
    }
}

fn target(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("x86_64-unknown-linux-gnu/release")
}

fn image(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    inherit(Cmd::new("cargo").cwd(root).args([
        "build",
        "--release",
        "--package",
        "kld-pool",
        "--example",
        "mkpool",
    ]))
    .run_attached()?;
    let cache = Cache::default_root();
    let scratch = cache.join("bench");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make `{}`", scratch.display()))?;
    let tree = match &args.tree {
        Some(tree) => tree.clone(),
        None => extract_newest(&cache, &scratch)?,
    };
    let out = |name: &str| scratch.join(name);
    let mkpool = |name, compression: &str| {
        let output = out(name);
        let cmd = Cmd::new(target(root).join("examples/mkpool"))
            .args(["--size", "4096", "--name", "bench", "--compression", compression, "--output"])
            .arg(&output)
            .arg(format!("bench/root={}", tree.display()));
        Contender { name, cmd, output }
    };
    let other = |name, program: &str, args: &[&str], output: &str| {
        let output = out(output);
        let cmd = args.iter().fold(Cmd::new(program), |cmd, arg| match *arg {
            "OUT" => cmd.arg(&output),
            "TREE" => cmd.arg(&tree),
            arg => cmd.arg(arg),
        });
        Contender { name, cmd, output }
    };
    let pipeline = "tar -C \"$1\" -cf - . | zstd -q -3 -T0 -o \"$2\"";
    let contenders = [
        mkpool("pool lz4", "lz4"),
        mkpool("pool zstd-3", "zstd-3"),
        other("mke2fs -d", "mke2fs", &["-q", "-t", "ext4", "-d", "TREE", "OUT", "2G"], "ext4"),
        other(
            "mksquashfs lz4",
            "mksquashfs",
            &["TREE", "OUT", "-comp", "lz4", "-noappend", "-quiet", "-no-progress"],
            "sq-lz4",
        ),
        other(
            "mksquashfs zstd-3",
            "mksquashfs",
            &[
                "TREE",
                "OUT",
                "-comp",
                "zstd",
                "-Xcompression-level",
                "3",
                "-noappend",
                "-quiet",
                "-no-progress",
            ],
            "sq-zstd",
        ),
        other("mkfs.erofs lz4", "mkfs.erofs", &["--quiet", "-zlz4", "OUT", "TREE"], "erofs"),
        other("tar | zstd -3", "sh", &["-c", pipeline, "sh", "TREE", "OUT"], "tar.zst"),
    ];
    // Read everything once: the page cache is the same for all.
    Cmd::new("tar").args(["-cf", "/dev/null", "-C"]).arg(&tree).arg(".").run()?;
    let phases = Phases::new(printer, contenders.len());
    let mut results = Vec::new();
    for contender in &contenders {
        let phase = phases.start(contender.name);
        results.push(measure(contender, args.runs)?);
        phase.finish();
    }
    drop(phases);
    let fastest = results.iter().map(|r| r.seconds).fold(f64::INFINITY, f64::min);
    let mut table =
        Table::new().left("WRITER").right("SECONDS").right("RATIO").right("PEAK MEMORY").right("OUTPUT");
    for r in &results {
        table.row([
            r.name.to_owned(),
            format!("{:.2}", r.seconds),
            format!("{:.2}", r.seconds / fastest),
            ByteSize(r.peak_kib << 10).to_string(),
            ByteSize(r.bytes).to_string(),
        ]);
    }
    printer.data(&table.to_string())?;
    fs::remove_dir_all(&scratch).context("cannot remove the scratch directory")?;
    Ok(())
}

/// The newest root tree in the cache as a directory.
fn extract_newest(cache: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let newest = fs::read_dir(cache.join("trees"))
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let tar = entry.ok()?.path().join("tree.tar");
            Some((fs::metadata(&tar).ok()?.modified().ok()?, tar))
        })
        .max();
    let Some((_, tar)) = newest else {
        bail!("there is no root tree in the cache; run `cargo xtask demo` first, or give `--tree`")
    };
    let dir = scratch.join("tree");
    fs::create_dir(&dir)?;
    Cmd::new("tar").args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(&tar).arg("-C").arg(&dir).run()?;
    Ok(dir)
}

fn measure(contender: &Contender, runs: usize) -> anyhow::Result<Measured> {
    let mut seconds = Vec::new();
    let mut peak_kib = 0;
    for _ in 0..runs.max(1) {
        let _ = fs::remove_file(&contender.output);
        let start = Instant::now();
        let mut child = contender.cmd.spawn()?;
        let status = loop {
            peak_kib = peak_kib.max(peak_of(child.id()));
            if let Some(status) = child.wait(Duration::from_millis(5))? {
                break status;
            }
        };
        seconds.push(start.elapsed().as_secs_f64());
        if !status.success() {
            bail!("`{}` failed with {status}", child.command());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let meta = fs::metadata(&contender.output)?;
    let bytes = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    Ok(Measured { name: contender.name, seconds: seconds[seconds.len() / 2], peak_kib, bytes })
}

/// `VmHWM` of a process, in KiB; 0 when it has just ended.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn rebuild(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    inherit(Cmd::new("cargo").cwd(root).args(["build", "--release", "--package", "kldload"]))
        .run_attached()?;
    let scratch = Cache::default_root().join("bench");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    Cmd::new("cp").arg("-r").arg(root.join("recipes/webapp")).arg(&scratch).run()?;
    let build = || {
        Cmd::new(target(root).join("kldload"))
            .args(["build", "--quiet", "--output"])
            .arg(scratch.join("webapp.img"))
            .arg(scratch.join("webapp/appliance.manifest"))
    };
    inherit(build()).run().context("the first build failed")?;
    let mut seconds = Vec::new();
    for run in 0..args.runs.max(1) {
        let app = scratch.join("webapp/app.py");
        let text = fs::read_to_string(&app)? + &format!("# run {run}\n");
        fs::write(&app, text)?;
        let start = Instant::now();
        inherit(build()).run().context("the build failed")?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let mut table = Table::new().left("WHAT").right("SECONDS");
    table.row([
        "rebuild after one application file changed".to_owned(),
        format!("{:.2}", seconds[seconds.len() / 2]),
    ]);
    printer.data(&table.to_string())?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

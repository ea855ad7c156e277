//! `cargo xtask bench`: side by side with the peers, on the same input, in one run.

mod apply;
mod contender;
mod daily;
mod image;
mod in_machine;
mod peers;
mod pool;
mod rebuild;
mod table;
mod vm;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kld_build::Cache;
use kld_host::folder::present;
use kld_host::{Cmd, Lock};
use kld_ui::{ByteSize, Printer};

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
    /// Copy the input until there is this much of it, such as `4G`
    #[arg(long)]
    size: Option<ByteSize>,
    /// With `pool`: also make the same pool with `zpool create` and `tar` in a virtual machine. With `apply`: also plan in
    /// machines, beside the tools that a plan asks, and Ansible
    #[arg(long)]
    vm: bool,
    /// With `daily`: how many datasets are snapshotted, and how many snapshots pruned
    #[arg(long, default_value_t = 300)]
    scale: usize,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// Writing a root tree into an image: our pool and every other image format
    Image,
    /// The same, and besides: cores, the ceiling of this machine, reading and verifying
    Pool,
    /// Building recipes/webapp again after one application file was touched
    Rebuild,
    /// A plan with nothing to do, for a hundred to ten thousand things
    Apply,
    /// ksnap, kdf and their peers in a machine; what starting costs
    Daily,
}

/// Measures.
pub(crate) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    setup::run(printer, false)?;
    // Two at a time would measure each other.
    let cache = Cache::open(&Cache::default_root())?;
    let _lock = Lock::try_acquire(&cache.root().join("bench.lock"), "cargo xtask bench")?;
    match args.what {
        What::Image => image::run(printer, root, args),
        What::Pool => pool::run(printer, root, args),
        What::Rebuild => rebuild::run(printer, root, args.runs),
        What::Apply => apply::run(printer, root, args),
        What::Daily => daily::run(printer, root, args),
    }?;
    for folder in [on_disk(), in_memory()] {
        let removed = present(fs::remove_dir_all(&folder));
        removed.with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    Ok(())
}

/// Compiles parts of the workspace as they are released; gives the folder they are in.
fn compile(root: &Path, args: &[&str]) -> anyhow::Result<PathBuf> {
    inherit(Cmd::new("cargo").cwd(root).args(["build", "--release"]).args(args)).run_attached()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("x86_64-unknown-linux-gnu/release"))
}

fn on_disk() -> PathBuf {
    Cache::default_root().join("bench")
}

fn in_memory() -> PathBuf {
    PathBuf::from(format!("/dev/shm/kldload-bench-{}", rustix::process::getuid().as_raw()))
}

/// An empty folder for what is measured.
fn scratch() -> anyhow::Result<PathBuf> {
    emptied(on_disk())
}

/// The same in memory, where nobody waits for a disk.
fn memory() -> anyhow::Result<PathBuf> {
    emptied(in_memory())
}

/// What a run that was ended has left there goes first.
fn emptied(folder: PathBuf) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    Ok(folder)
}

/// The tree to take as input, all of it in the page cache.
fn tree(args: &Args, scratch: &Path) -> anyhow::Result<PathBuf> {
    let tree = match &args.tree {
        Some(tree) => fs::canonicalize(tree).with_context(|| format!("cannot find `{}`", tree.display()))?,
        None => {
            let dir = scratch.join("tree");
            fs::create_dir(&dir)?;
            let tar = newest_tar()?;
            Cmd::new("tar")
                .args(["--xattrs", "--xattrs-include=*", "-xpf"])
                .arg(tar)
                .arg("-C")
                .arg(&dir)
                .run()?;
            dir
        }
    };
    let tree = match args.size {
        Some(size) => copies(&tree, scratch, size)?,
        None => tree,
    };
    // GNU tar reads no content when it sees that it writes to `/dev/null`.
    Cmd::new("sh").args(["-c", "tar -C \"$1\" -cf - . | cat > /dev/null", "sh"]).arg(&tree).run()?;
    Ok(tree)
}

/// A folder of copies of the tree.
fn copies(tree: &Path, scratch: &Path, size: ByteSize) -> anyhow::Result<PathBuf> {
    let large = scratch.join("copies");
    fs::create_dir(&large)?;
    let one = image::size_of(tree)?.max(1);
    for number in 0..size.0.div_ceil(one) {
        Cmd::new("cp").args(["-a", "--reflink=never"]).arg(tree).arg(large.join(number.to_string())).run()?;
    }
    Ok(large)
}

/// The newest root tree in the cache.
fn newest_tar() -> anyhow::Result<PathBuf> {
    let newest = fs::read_dir(Cache::default_root().join("trees"))
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let tar = entry.ok()?.path().join("tree.tar");
            Some((fs::metadata(&tar).ok()?.modified().ok()?, tar))
        })
        .max();
    match newest {
        Some((_, tar)) => Ok(tar),
        None => bail!("there is no root tree in the cache; run `cargo xtask demo` first, or give `--tree`"),
    }
}

//! `kldload pool write`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use kld_host::AtomicFile;
use kld_pool::read::{OpenError, Pool};
use kld_pool::tree::Tree;
use kld_pool::{Content, DatasetSpec, PoolSpec, SnapshotSpec, VdevType, WriteAt, write_pool};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer};
use sha2::{Digest as _, Sha256};

use super::Bar;

/// Write a pool into an image file, or into the files of a mirror
///
/// The image appears whole or not at all. With `--seed` and SOURCE_DATE_EPOCH the same content gives the same bytes; pools
/// with the same seed must never meet on one machine.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool write --name tank --size 20G --output tank.img --dataset home=/home,compression=zstd-3\n  kldload pool write --name tank --size 20G --output a.img,b.img --dataset data=/srv/data,recordsize=1M --snapshot first\n  kldload pool write --name rpool --size 8G --output root.img --dataset ROOT/debian=debian.tar,mountpoint=/,canmount=noauto --bootfs ROOT/debian"
)]
pub(crate) struct Args {
    /// Image file; several, separated by commas, are a mirror
    #[arg(long, short, value_name = "FILE[,FILE…]", value_delimiter = ',', required = true)]
    output: Vec<PathBuf>,
    /// Size of the pool, of each side of a mirror: the size of the disk it will live on
    #[arg(long)]
    size: ByteSize,
    /// Name of the pool
    #[arg(long, value_name = "POOL")]
    name: String,
    /// A dataset below the pool, its content (a directory or an uncompressed tar file) and its properties
    #[arg(long, value_name = "NAME[=DIR_OR_TAR][,PROPERTY=VALUE…]")]
    dataset: Vec<String>,
    /// Properties of the pool's own dataset, which the others inherit
    #[arg(long, short = 'O', value_name = "PROPERTY=VALUE")]
    root_property: Vec<String>,
    /// log2 of the smallest write, 9 to 16
    #[arg(long, default_value_t = 12)]
    ashift: u8,
    /// The releases or loaders that must understand the pool, as in zpool-features(7)
    #[arg(long, value_name = "SET")]
    compatibility: Option<String>,
    /// The dataset to boot from
    #[arg(long, value_name = "NAME")]
    bootfs: Option<String>,
    /// Take a snapshot of every dataset with content
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// GUIDs are made from this text; by default they are random
    #[arg(long)]
    seed: Option<String>,
    /// The pool will be used as files, not on disks
    #[arg(long)]
    file: bool,
    /// Replace files that hold a pool
    #[arg(long)]
    force: bool,
    /// Threads that read and compress; 0 is one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    for path in &args.output {
        refuse_to_lose(path, args.force)?;
    }
    let phases = Phases::new(printer, 2);
    let phase = phases.start("look at the content");
    let spec = spec(args)?;
    phase.finish();

    let bar = Bar(phases.start_bytes("write the pool"));
    let mut files: Vec<AtomicFile> =
        args.output.iter().map(|path| AtomicFile::create(path, 0o600)).collect::<Result<_, _>>()?;
    for file in &mut files {
        file.file().set_len(spec.vdevs[0].size).context("cannot size the image")?;
    }
    let summary = {
        let outs: Vec<&dyn WriteAt> = files.iter_mut().map(|file| &*file.file() as &dyn WriteAt).collect();
        write_pool(&spec, &outs, &bar).with_context(|| format!("cannot write pool `{}`", spec.name))?
    };
    bar.0.finish();
    for file in files {
        file.commit()?;
    }
    let logical = summary.datasets.iter().map(|dataset| dataset.logical).sum();
    printer.note(&format!(
        "{}: pool {} with {} datasets, {} of files in {}, guid {}",
        args.output.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(","),
        spec.name,
        summary.datasets.len(),
        ByteSize(logical),
        ByteSize(summary.allocated),
        summary.guid
    ));
    Ok(ExitStatus::Done)
}

/// A pool is not written over, and a device not at all: what is not written must read as zeros.
fn refuse_to_lose(path: &Path, force: bool) -> anyhow::Result<()> {
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    if !meta.is_file() {
        let hint = "write an image file, then copy it: `dd if=IMAGE of=DEVICE bs=4M conv=fsync`";
        return Err(Hinted::new(format!("`{}` is not a regular file", path.display()), hint).into());
    }
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    if force || matches!(Pool::open(&[&file]), Err(OpenError::NoLabel | OpenError::Device { .. })) {
        return Ok(());
    }
    Err(Hinted::new(format!("`{}` holds a pool", path.display()), "`--force` replaces it").into())
}

fn spec(args: &Args) -> anyhow::Result<PoolSpec> {
    let name = args.name.parse().with_context(|| format!("`{}` cannot be the name of a pool", args.name))?;
    let mut spec = PoolSpec::new(name, args.size.0, seed(args)?);
    spec.ashift = args.ashift;
    spec.threads = args.threads;
    spec.created = created()?;
    if let Some(set) = &args.compatibility {
        spec.properties.set("compatibility", set)?;
    }
    if args.file {
        spec.vdev_type = VdevType::File;
        let path = |path: &PathBuf| Ok(std::path::absolute(path)?.to_string_lossy().into_owned());
        spec.vdevs[0].paths = args.output.iter().map(path).collect::<std::io::Result<_>>()?;
    } else if args.output.len() > 1 {
        spec.vdevs[0].paths =
            (1..=args.output.len()).map(|n| format!("/dev/disk/by-partlabel/{}-{n}", args.name)).collect();
    }
    let mut root = DatasetSpec::new(spec.name.root_dataset());
    for property in &args.root_property {
        set(&mut root, property)?;
    }
    spec.datasets.push(root);
    for text in &args.dataset {
        spec.datasets.push(dataset(args, text)?);
    }
    if let Some(bootfs) = &args.bootfs {
        spec.bootfs = Some(below(&args.name, bootfs)?);
    }
    Ok(spec)
}

/// `NAME[=DIR_OR_TAR][,PROPERTY=VALUE…]`.
fn dataset(args: &Args, text: &str) -> anyhow::Result<DatasetSpec> {
    let mut words = text.split(',');
    let first = words.next().unwrap_or_default();
    let (name, source) = first.split_once('=').map_or((first, None), |(name, source)| (name, Some(source)));
    let mut dataset = DatasetSpec::new(below(&args.name, name)?);
    for property in words {
        set(&mut dataset, property)?;
    }
    if let Some(source) = source {
        let tree = if Path::new(source).is_dir() {
            Tree::from_dir(source).with_context(|| format!("cannot read `{source}`"))?
        } else {
            Tree::from_tar(source).with_context(|| format!("cannot read `{source}`"))?
        };
        dataset.content = Content::Files(tree);
        dataset.snapshots.extend(args.snapshot.clone().map(SnapshotSpec::from));
    }
    Ok(dataset)
}

fn below(pool: &str, name: &str) -> anyhow::Result<kld_pool::DatasetName> {
    let full = format!("{pool}/{name}");
    full.parse().with_context(|| format!("`{full}` cannot be the name of a dataset"))
}

fn set(dataset: &mut DatasetSpec, property: &str) -> anyhow::Result<()> {
    let Some((name, value)) = property.split_once('=') else {
        bail!("`{property}` is not `property=value`");
    };
    dataset
        .properties
        .set(name, value)
        .with_context(|| format!("cannot set a property of `{}`", dataset.name))
}

fn seed(args: &Args) -> anyhow::Result<[u8; 32]> {
    use std::io::Read as _;
    if let Some(text) = &args.seed {
        return Ok(Sha256::digest(text.as_bytes()).into());
    }
    let mut seed = [0; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed));
    random.context("cannot read `/dev/urandom`")?;
    Ok(seed)
}

/// Seconds since 1970: SOURCE_DATE_EPOCH, else now.
fn created() -> anyhow::Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().context("cannot read SOURCE_DATE_EPOCH: it must be seconds since 1970"),
        Err(_) => Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())),
    }
}

//! `kldload build`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_build::bootstrap::Source;
use kld_build::{BuildRequest, Built, Cache};
use kld_manifest::model::{Distro, DistroFamily, Profile};
use kld_system::{DistroSpec, System, find_distro, render_core};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer, Table};
use serde::Serialize;

use crate::lock_file;
use crate::manifest::ManifestFile;

/// Build a disk image whose root is ZFS
///
/// From a manifest: the whole appliance. Without one: the plain distribution with ZFS as root and nothing of
/// kldload in it (`--distro debian --profile core`). Needs no root, no ZFS module and no loop device.
/// Packages, the root tree and the compiled ZFS module are cached in ~/.cache/kldload.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload build recipes/webapp/appliance.manifest --output webapp.img\n  kldload build --distro debian --profile core --output debian.qcow2 --format qcow2\n  kldload build appliance.manifest --output app.img --size 20G --lock app.img.lock"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) what: What,
    /// Where the image goes; `.lock` and `.spdx.json` are written beside it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// How the disk is stored
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    /// Print what was built as JSON
    #[arg(long)]
    json: bool,
    /// Say what would be built and from what, and build nothing
    #[arg(long)]
    dry_run: bool,
}

/// What to build: shared with `kldload run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct What {
    /// The manifest
    pub(crate) manifest: Option<PathBuf>,
    /// Without a manifest: the distribution, such as `debian` or `debian-13`
    #[arg(long, conflicts_with = "manifest", required_unless_present = "manifest")]
    distro: Option<String>,
    /// Without a manifest: how much of kldload goes in
    #[arg(long, value_enum, conflicts_with = "manifest")]
    profile: Option<CoreProfile>,
    #[command(flatten)]
    pub(crate) how: How,
}

/// Options of every build.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Size of the disk; at first boot the pool grows to the disk it finds
    #[arg(long, default_value = "8G", value_name = "SIZE")]
    size: ByteSize,
    /// Mirror to take packages from (a URL or a one-line apt entry); may be repeated
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,
    /// Keyring that the archive must be signed with, instead of the distribution's
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Use exactly the versions of this lock file; without it, of MANIFEST.lock when it lies beside the manifest
    #[arg(long, value_name = "FILE", conflicts_with = "update")]
    lock: Option<PathBuf>,
    /// Take the newest packages instead of the ones in the cache or in MANIFEST.lock
    #[arg(long)]
    update: bool,
    /// Where finished pieces are kept
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Threads that compress
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CoreProfile {
    /// The stock distribution with ZFS as root; nothing of kldload
    Core,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The bytes of the disk, sparse
    Raw,
    /// QEMU's format
    Qcow2,
}

#[derive(Debug, Serialize)]
struct Report {
    image: PathBuf,
    lock: PathBuf,
    sbom: PathBuf,
    packages: usize,
    tree_bytes: u64,
    pool_guid: String,
}

/// A machine to build, and the directory its files are relative to.
pub(crate) struct Target {
    pub(crate) system: System,
    pub(crate) dir: PathBuf,
    /// The lock file that lies beside the manifest.
    pub(crate) lock: Option<PathBuf>,
}

impl How {
    /// Where finished pieces are kept.
    pub(crate) fn cache_root(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(Cache::default_root)
    }
}

impl What {
    /// A manifest, to be built like this.
    pub(crate) fn of_manifest(manifest: PathBuf, how: How) -> Self {
        Self { manifest: Some(manifest), distro: None, profile: None, how }
    }

    /// Reads the manifest, or picks the plain distribution.
    pub(crate) fn target(&self, printer: &Printer) -> anyhow::Result<Target> {
        if let Some(path) = &self.manifest {
            let file = ManifestFile::read(path)?;
            let system = file.system(printer)?;
            return Ok(Target { system, dir: file.dir, lock: lock_file::beside(path) });
        }
        let wanted = self.distro.as_deref().unwrap_or_default();
        if self.profile.is_none() {
            let hint = "add `--profile core`, or write a manifest for more";
            return Err(Hinted::new("without a manifest only the profile `core` can be built", hint).into());
        }
        let (family, release) =
            wanted.split_once('-').map_or((wanted, None), |(f, r)| (f, Some(r.to_owned())));
        let family = match family {
            "debian" => DistroFamily::Debian,
            "ubuntu" => DistroFamily::Ubuntu,
            _ => {
                let known: Vec<String> = kld_system::known_distros().iter().map(DistroSpec::label).collect();
                let hint = format!("write one of: {}", known.join(", "));
                return Err(Hinted::new(format!("there is no distribution `{wanted}`"), hint).into());
            }
        };
        let distro = find_distro(&Distro { family, release })?;
        let pool = "rpool".parse().context("the default pool name")?;
        Ok(Target { system: render_core(&distro, &pool), dir: PathBuf::from("."), lock: None })
    }
}

/// Builds it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let target = args.what.target(printer)?;
    if args.dry_run {
        return dry_run(printer, args, &target);
    }
    let built = build(printer, &args.what.how, &target, &args.output, args.format)?;
    if args.json {
        let report = Report {
            image: built.image.clone(),
            lock: built.lock_file.clone(),
            sbom: built.sbom.clone(),
            packages: built.lock.packages.len(),
            tree_bytes: built.tree_bytes,
            pool_guid: built.pool.guid.to_string(),
        };
        printer.envelope("image", &[report])?;
    } else {
        show(printer, &built);
    }
    Ok(ExitStatus::Done)
}

/// Builds an image of a target; shared with `kldload run`.
pub(crate) fn build(
    printer: &Printer,
    how: &How,
    target: &Target,
    output: &Path,
    format: Format,
) -> anyhow::Result<Built> {
    let beside = target.lock.as_ref().filter(|_| !how.update);
    let lock = lock_file::of(printer, how.lock.as_ref().or(beside), &target.system)?.map(|(_, lock)| lock);
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let cache = Cache::open(&how.cache_root())?;
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            Some(text.parse().context("cannot read SOURCE_DATE_EPOCH: it must be seconds since 1970")?)
        }
        Err(_) => None,
    };
    let request = BuildRequest {
        system: &target.system,
        manifest_dir: &target.dir,
        output,
        format: match format {
            Format::Raw => kld_build::Format::Raw,
            Format::Qcow2 => kld_build::Format::Qcow2,
        },
        size: how.size.0,
        source: Source { mirrors: how.mirror.clone(), keyring: how.keyring.clone() },
        lock: lock.as_ref(),
        update: how.update,
        program: (target.system.profile != Profile::Core).then_some(program.as_path()),
        epoch,
        threads: how.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let phases = Phases::new(printer, kld_build::PHASES);
    let built = kld_build::build(&request, &cache, &phases)
        .with_context(|| format!("cannot build `{}`", output.display()))?;
    match cache.prune(CACHE_LIFE) {
        Ok(0) => {}
        Ok(removed) => printer.note(&format!("removed {removed} entries of the cache, unused for 30 days")),
        // The image is there; a cache that grows is for another day.
        Err(error) => printer.warning(&format!("cannot tidy the cache: {error}")),
    }
    Ok(built)
}

/// A root tree is 700 MB: what nobody has used for this long is downloaded again.
const CACHE_LIFE: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

fn show(printer: &Printer, built: &Built) {
    printer.note(&format!(
        "{}: {} packages, {} of files, pool {}",
        built.image.display(),
        built.lock.packages.len(),
        ByteSize(built.tree_bytes),
        built.pool.guid,
    ));
    printer.note(&format!("{}\n{}", built.lock_file.display(), built.sbom.display()));
}

fn dry_run(printer: &Printer, args: &Args, target: &Target) -> anyhow::Result<ExitStatus> {
    let system = &target.system;
    let mut table = Table::new().left("WHAT").left("VALUE");
    table.row(["image".to_owned(), args.output.display().to_string()]);
    table.row(["disk".to_owned(), args.what.how.size.to_string()]);
    table.row(["distribution".to_owned(), system.distro.name.clone()]);
    table.row(["boot environment".to_owned(), system.boot_dataset.to_string()]);
    table.row(["datasets".to_owned(), system.datasets.len().to_string()]);
    table.row(["packages asked for".to_owned(), system.packages.len().to_string()]);
    table.row(["files".to_owned(), system.files.len().to_string()]);
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

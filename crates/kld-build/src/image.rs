//! The disk: partition tables, the EFI system partition and the pool, written into one sparse file.

use std::io;

use kld_disk::boot_entry::{BootEntry, BootFile, LoaderConf};
use kld_disk::{DiskLayout, EspFile, EspSpec, write_esp};
use kld_host::AtomicFile;
use kld_pool::tree::Tree;
use kld_pool::{Content, DatasetSpec, PoolSpec, Progress, Properties, Region, Summary, write_pool};
use kld_system::{Created, System};
use kld_ui::{Phase, Phases};
use sha2::{Digest, Sha256};

/// Bytes of the EFI system partition: room for several kernels with their initramfs.
pub const ESP_SIZE: u64 = 512 << 20;
/// Seconds that the boot menu waits: long enough to press a key, short enough for a reboot at 2 am.
const MENU_TIMEOUT: u32 = 3;
/// Name of the snapshot that every dataset of a new image has.
const INSTALL_SNAPSHOT: &str = "install";
/// systemd-boot, where Debian's package puts it.
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Why the disk cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The size does not work out.
    #[error(transparent)]
    Layout(#[from] kld_disk::LayoutError),
    /// The EFI system partition.
    #[error("cannot write the EFI system partition")]
    Esp(#[source] kld_disk::esp::EspError),
    /// The pool.
    #[error("cannot write the pool")]
    Pool(#[source] kld_pool::WriteError),
    /// A property that the layers rendered and the pool writer does not take.
    #[error("cannot set a property of `{dataset}`")]
    Property {
        /// The dataset.
        dataset: String,
        /// Which property, and why.
        #[source]
        source: kld_pool::PropertyError,
    },
    /// A name that the layers rendered and the pool writer does not take.
    #[error("cannot name `{0}`")]
    Name(String, #[source] kld_pool::NameError),
    /// A boot file that the tree must have.
    #[error("cannot read `{path}` in the tree")]
    BootFile {
        /// Where it should be.
        path: String,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// The image file itself.
    #[error("cannot {doing} the image")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let causes = std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |e| e.source());
        if causes
            .filter_map(|e| e.downcast_ref::<io::Error>())
            .any(|e| e.kind() == io::ErrorKind::StorageFull)
        {
            return Some("make room, or choose another place with `--output`".to_owned());
        }
        match self {
            Self::Layout(error) => error.hint(),
            Self::Esp(error) => error.hint(),
            Self::Pool(error) => error.hint(),
            _ => None,
        }
    }
}

/// What decides the disk besides the tree and the system.
#[derive(Debug, Clone)]
pub(crate) struct DiskInputs<'a> {
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Release of the kernel that boots.
    pub(crate) kernel: &'a str,
    /// Time of the image, seconds since 1970.
    pub(crate) epoch: u64,
    /// What the identifiers of this image derive from.
    pub(crate) seed: [u8; 32],
    /// Threads that compress; decides no byte.
    pub(crate) threads: usize,
}

/// Writes the whole disk into `out`, which must be empty.
///
/// # Errors
/// See [`ImageError`]; `out` is then half-written and must be dropped.
pub(crate) fn write_disk(
    mut tree: Tree,
    system: &System,
    inputs: &DiskInputs<'_>,
    out: &mut AtomicFile,
    phases: &Phases,
) -> Result<Summary, ImageError> {
    let file_error = |doing| move |source| ImageError::File { doing, source };
    let pool_name = system.pool.as_str();
    let layout = DiskLayout::plan(inputs.size, ESP_SIZE, pool_name, &inputs.seed)?;
    let boot = BootFiles::read(&tree, inputs.kernel)?;
    let spec = pool_spec(&mut tree, system, inputs, layout.pool().len)?;

    let file = out.file();
    file.set_len(inputs.size).map_err(file_error("size"))?;
    let phase = phases.start_bytes("write the pool");
    let region = Region { file, start: layout.pool().start, len: layout.pool().len };
    let summary = write_pool(&spec, &[&region], &Shown(&phase)).map_err(ImageError::Pool)?;
    phase.finish();

    let phase = phases.start("write the boot partition");
    layout.write_tables(file).map_err(file_error("write the tables of"))?;
    let volume_id = u32::from_le_bytes([inputs.seed[0], inputs.seed[1], inputs.seed[2], inputs.seed[3]]);
    let esp =
        EspSpec { size: layout.esp().len, label: "KLDLOAD-ESP".to_owned(), volume_id, epoch: inputs.epoch };
    let entries = boot.render(system, inputs.kernel);
    write_esp(&mut layout.esp().section(file, "the pool"), &esp, boot.files(&entries))
        .map_err(ImageError::Esp)?;
    phase.finish();
    Ok(summary)
}

/// Shows the pool writer's progress.
struct Shown<'a>(&'a Phase);

impl Progress for Shown<'_> {
    fn bytes(&self, done: u64, total: u64) {
        self.0.set(done, total);
    }
}

/// Cuts the tree at the mount points and describes the pool. Deepest mount points are cut first, so that a
/// dataset mounted below another is not inside it.
fn pool_spec(
    tree: &mut Tree,
    system: &System,
    inputs: &DiskInputs<'_>,
    size: u64,
) -> Result<PoolSpec, ImageError> {
    let mut cuts: Vec<(&str, &str)> = system
        .datasets
        .iter()
        .filter(|d| matches!(d.created, Created::InImage))
        .filter_map(|d| Some((d.mounted_at()?, d.name.as_str())))
        .filter(|(path, _)| *path != "/")
        .collect();
    cuts.sort_by_key(|(path, _)| std::cmp::Reverse(path.matches('/').count()));
    let mut trees: std::collections::BTreeMap<&str, Tree> =
        cuts.into_iter().map(|(path, name)| (name, tree.split_off(path).unwrap_or_default())).collect();
    trees.insert(system.boot_dataset.as_str(), std::mem::take(tree));

    let mut datasets = Vec::with_capacity(system.datasets.len());
    for dataset in system.datasets.iter().filter(|d| matches!(d.created, Created::InImage)) {
        let mut properties = Properties::default();
        for property in &dataset.properties {
            let (name, value) = &property.value;
            properties
                .set(name, value)
                .map_err(|source| ImageError::Property { dataset: dataset.name.to_string(), source })?;
        }
        let tree = trees.remove(dataset.name.as_str());
        let snapshots = if tree.is_some() { vec![INSTALL_SNAPSHOT.into()] } else { vec![] };
        let content = tree.map_or(Content::Empty, Content::Files);
        let name = name(dataset.name.as_str())?;
        datasets.push(DatasetSpec { properties, content, snapshots, ..DatasetSpec::new(name) });
    }
    let pool: kld_pool::PoolName =
        system.pool.as_str().parse().map_err(|e| ImageError::Name(system.pool.to_string(), e))?;
    let mut spec = PoolSpec::new(pool, size, inputs.seed);
    spec.created = inputs.epoch;
    spec.datasets = datasets;
    spec.bootfs = Some(name(system.boot_dataset.as_str())?);
    spec.threads = inputs.threads;
    for (property, value) in [("autotrim", "on"), ("compatibility", &system.distro.zfs_compatibility)] {
        spec.properties
            .set(property, value)
            .map_err(|source| ImageError::Property { dataset: system.pool.to_string(), source })?;
    }
    Ok(spec)
}

fn name(text: &str) -> Result<kld_pool::DatasetName, ImageError> {
    text.parse().map_err(|e| ImageError::Name(text.to_owned(), e))
}

/// What the firmware and the boot loader need.
struct BootFiles {
    loader: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    kernel_path: String,
    initrd_path: String,
}

impl BootFiles {
    fn read(tree: &Tree, kernel: &str) -> Result<Self, ImageError> {
        let read = |path: String| tree.read(&path).map_err(|source| ImageError::BootFile { path, source });
        let (kernel, initrd) =
            (read(format!("/boot/vmlinuz-{kernel}"))?, read(format!("/boot/initrd.img-{kernel}"))?);
        Ok(Self {
            loader: read(SYSTEMD_BOOT.to_owned())?,
            kernel_path: BootFile::Linux.path(&Sha256::digest(&kernel).into()),
            initrd_path: BootFile::Initrd.path(&Sha256::digest(&initrd).into()),
            kernel,
            initrd,
        })
    }

    /// `loader.conf` and the entry of the boot environment, with the entry's path.
    fn render(&self, system: &System, kernel: &str) -> [(String, String); 2] {
        let environment = system.boot_dataset.as_str().rsplit('/').next().unwrap_or_default();
        let file = format!("{environment}.conf");
        let options: Vec<&str> = system.kernel_args.iter().map(|arg| arg.value.as_str()).collect();
        let entry = BootEntry::from_fields([
            ("title", system.distro.name.as_str()),
            ("version", kernel),
            ("sort-key", environment),
            ("linux", &self.kernel_path),
            ("initrd", &self.initrd_path),
            ("options", &options.join(" ")),
        ]);
        let conf = LoaderConf { timeout: MENU_TIMEOUT, default: file.clone(), editor: false };
        [
            ("/loader/loader.conf".to_owned(), conf.to_string()),
            (format!("/loader/entries/{file}"), entry.to_string()),
        ]
    }

    fn files<'a>(&'a self, texts: &'a [(String, String)]) -> Vec<EspFile<'a>> {
        let mut files = vec![
            EspFile::from_bytes("/EFI/BOOT/BOOTX64.EFI", &self.loader),
            EspFile::from_bytes("/EFI/systemd/systemd-bootx64.efi", &self.loader),
            EspFile::from_bytes(&self.kernel_path, &self.kernel),
            EspFile::from_bytes(&self.initrd_path, &self.initrd),
        ];
        files.extend(texts.iter().map(|(path, text)| EspFile::from_bytes(path, text.as_bytes())));
        files
    }
}

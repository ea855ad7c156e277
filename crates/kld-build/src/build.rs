//! The whole build, in phases.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_disk::esp::civil_from_days;
use kld_host::{AtomicFile, Cmd, ExecError, atomic_write};
use kld_pool::Summary;
use kld_pool::tree::{Timestamp, Tree};
use kld_system::System;
use kld_ui::Phases;
use sha2::{Digest, Sha256};

use crate::bootstrap::Source;
use crate::cache::Cache;
use crate::compose::{Additions, ComposeError, compose};
use crate::image::{DiskInputs, ImageError, write_disk};
use crate::layers::{LayerError, LayerInputs, ensure_layers};
use crate::lock::Lock;
use crate::sbom::render_spdx;
use crate::seal::{AuditError, audit};

/// How the disk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk; sparse.
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest<'a> {
    /// The machine.
    pub system: &'a System,
    /// The directory of the manifest; sources of files are below it.
    pub manifest_dir: &'a Path,
    /// Where the image goes.
    pub output: &'a Path,
    /// How it is stored.
    pub format: Format,
    /// Bytes of the disk.
    pub size: u64,
    /// Where packages come from.
    pub source: Source,
    /// Versions to use.
    pub lock: Option<&'a Lock>,
    /// Resolve packages again.
    pub update: bool,
    /// The program that goes into the image; a statically linked executable.
    pub program: Option<&'a Path>,
    /// `SOURCE_DATE_EPOCH`, when set.
    pub epoch: Option<u64>,
    /// Threads; decides no byte.
    pub threads: usize,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image.
    pub image: PathBuf,
    /// Its lock file.
    pub lock_file: PathBuf,
    /// Its bill of materials.
    pub sbom: PathBuf,
    /// What is in it.
    pub lock: Lock,
    /// Sum of the file sizes of the tree, bytes.
    pub tree_bytes: u64,
    /// What the pool holds.
    pub pool: Summary,
}

/// Number of phases that [`build`] starts.
pub const PHASES: usize = 5;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The tree of a layer cannot be read.
    #[error("cannot read the root tree")]
    Tree(#[source] kld_pool::tree::TarError),
    /// The tree cannot be composed.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The tree is not clean.
    #[error("refusing to build an image that gives something away")]
    Audit(#[source] AuditError),
    /// The disk.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The output.
    #[error("cannot write the output")]
    Output(#[source] kld_host::WriteError),
    /// The conversion.
    #[error("cannot convert the image")]
    Convert(#[source] ExecError),
    /// The program would not start in the image.
    #[error("`{}` cannot go into an image: it is not a statically linked x86-64 executable", .0.display())]
    Program(PathBuf),
}

impl BuildError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layer(error) => error.hint(),
            Self::Compose(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::Convert(error) => error.hint(),
            Self::Program(_) => {
                Some("build kldload with its own `.cargo/config.toml`: `cargo build --release`".to_owned())
            }
            _ => None,
        }
    }
}

/// Builds the image, its lock file and its bill of materials. The output appears whole or not at all.
///
/// # Errors
/// See [`BuildError`].
pub fn build(request: &BuildRequest<'_>, cache: &Cache, phases: &Phases) -> Result<Built, BuildError> {
    let system = request.system;
    if let Some(program) = request.program.filter(|path| !is_static(path)) {
        return Err(BuildError::Program(program.to_owned()));
    }
    // Before the long work: an output that cannot be written must not cost ten minutes.
    let mut out = AtomicFile::output(request.output, 0o644).map_err(BuildError::Output)?;
    let epoch = request.epoch.unwrap_or(system.distro.epoch);
    let asked = system.packages.iter().map(|p| p.value.to_string());
    let packages: Vec<String> = asked.chain(system.distro.packages.loader.iter().cloned()).collect();
    let inputs = LayerInputs {
        distro: &system.distro,
        packages: &packages,
        source: &request.source,
        lock: request.lock,
        update: request.update,
        epoch,
    };
    let layers = ensure_layers(cache, &inputs, phases)?;

    let phase = phases.start("compose the machine");
    let mut tree = Tree::from_tar(&layers.tree).map_err(BuildError::Tree)?;
    let epoch_time = Timestamp { sec: i64::try_from(epoch).unwrap_or(i64::MAX), nsec: 0 };
    let additions =
        Additions { manifest_dir: request.manifest_dir, program: request.program, epoch: epoch_time };
    compose(&mut tree, system, &additions)?;
    let hashes: Vec<&str> = system.users.iter().filter_map(|user| user.password_hash.as_deref()).collect();
    audit(&tree, &layers.lock, &hashes).map_err(BuildError::Audit)?;
    let tree_bytes = tree.apparent_size();
    phase.finish_with(&format!("{} files, {}", tree.len(), kld_ui::ByteSize(tree_bytes)));

    let disk = DiskInputs {
        size: request.size,
        kernel: &layers.lock.kernel,
        epoch,
        seed: seed(system, &layers.lock),
        threads: request.threads,
    };
    let pool = write_disk(tree, system, &disk, &mut out, phases)?;
    match request.format {
        Format::Raw => out.commit().map_err(BuildError::Output)?,
        Format::Qcow2 => convert(&out)?,
    }

    let name = system.host_name.as_ref().map_or_else(|| system.distro.id.clone(), ToString::to_string);
    let (lock_file, sbom) = (beside(request.output, "lock"), beside(request.output, "spdx.json"));
    let spdx = render_spdx(&name, &rfc3339(epoch), &layers.lock);
    let spdx = serde_json::to_string_pretty(&spdx).unwrap_or_default() + "\n";
    atomic_write(&lock_file, layers.lock.render().as_bytes(), 0o644).map_err(BuildError::Output)?;
    atomic_write(&sbom, spdx.as_bytes(), 0o644).map_err(BuildError::Output)?;
    Ok(Built { image: request.output.to_owned(), lock_file, sbom, lock: layers.lock, tree_bytes, pool })
}

/// The identifiers of an image follow from what it is made of: the same machine, the same identifiers. Each
/// machine that boots from it makes its own at first boot.
fn seed(system: &System, lock: &Lock) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(lock.render());
    hash.update(format!("{system:?}"));
    hash.finalize().into()
}

fn convert(raw: &AtomicFile) -> Result<(), BuildError> {
    let output = raw.target();
    let converted = beside(output, "qcow2.partial");
    let done = Cmd::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1"])
        .arg(raw.partial_path())
        .arg(&converted)
        .timeout(Duration::from_secs(3600))
        .run()
        .map_err(BuildError::Convert)
        .and_then(|()| {
            let sync = std::fs::File::open(&converted).and_then(|file| file.sync_all());
            let put = sync.and_then(|()| std::fs::rename(&converted, output));
            put.map_err(|source| BuildError::Image(ImageError::File { doing: "finish", source }))
        });
    if done.is_err() {
        let _ = std::fs::remove_file(&converted);
    }
    done
}

/// `webapp.img` → `webapp.img.lock`.
fn beside(output: &Path, extension: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    output.with_file_name(name)
}

/// An ELF executable for x86-64 without a program interpreter (elf(5)).
fn is_static(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let Ok(bytes) = std::fs::read(path) else { return false };
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let check = || {
        let is_elf = bytes.get(..5)? == b"\x7fELF\x02" && u16_at(18)? == 62;
        let (start, size, count) = (usize::try_from(u64_at(32)?).ok()?, u16_at(54)?, u16_at(56)?);
        let types = (0..count).map(|n| u32_at(start + usize::from(n) * usize::from(size)));
        Some(is_elf && types.collect::<Option<Vec<_>>>()?.iter().all(|kind| *kind != PT_INTERP))
    };
    check().unwrap_or(false)
}

/// Seconds since 1970 as `2026-01-01T00:00:00Z`.
fn rfc3339(epoch: u64) -> String {
    let (year, month, day) = civil_from_days(epoch / 86400);
    let seconds = epoch % 86400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(epoch), text);
        }
    }

    #[test]
    fn companions_lie_beside_the_image() {
        assert_eq!(beside(Path::new("out/webapp.img"), "lock"), Path::new("out/webapp.img.lock"));
    }

    #[test]
    fn only_static_executables_are_static() {
        assert!(!is_static(Path::new("/nonexistent")));
        assert!(!is_static(Path::new("/etc/passwd")));
        let this = std::env::current_exe().expect("this test runs from a file");
        assert!(is_static(&this), "the workspace links statically: .cargo/config.toml");
        assert!(!is_static(Path::new("/bin/sh")), "the host's shell is dynamic");
    }
}

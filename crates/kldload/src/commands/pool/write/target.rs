//! Where a pool goes: image files that appear whole or not at all, or devices.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kld_host::AtomicFile;
use kld_pool::read::{OpenError, Pool};
use kld_pool::{ReadAt as _, WriteAt};
use kld_ui::{ByteSize, Hinted};

/// Labels and boot area before the pool's data, and more than the labels behind it: what any reader of disks looks at to find
/// out what is on one.
const FRONT: u64 = 4 << 20;
const BACK: u64 = 1 << 20;

/// An output.
#[derive(Debug)]
pub(super) enum Target {
    /// A file beside the one it will be.
    File(AtomicFile),
    /// A device, as it is.
    Device { file: File, path: PathBuf, size: u64 },
}

impl Target {
    /// Opens an output; refuses to lose what is there, unless `force` says so.
    pub(super) fn open(path: &Path, force: bool) -> anyhow::Result<Target> {
        let cannot_open = || format!("cannot open `{}`", path.display());
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(cannot_open),
            Ok(meta) if meta.file_type().is_block_device() => return Target::device(path, force),
            Ok(meta) if !meta.is_file() => {
                let hint = "name an image file or a block device";
                return Err(
                    Hinted::new(format!("`{}` is neither a file nor a disk", path.display()), hint).into()
                );
            }
            Ok(_) => {
                let file = File::open(path).with_context(cannot_open)?;
                if !force && holds_pool(&file) {
                    let message = format!("`{}` holds a pool", path.display());
                    return Err(Hinted::new(message, "`--force` replaces it").into());
                }
            }
        }
        Ok(Target::File(AtomicFile::output(path, 0o600)?))
    }

    fn device(path: &Path, force: bool) -> anyhow::Result<Target> {
        // For a device this means that nobody else uses it: no mounted file system, no imported pool.
        const EXCLUSIVE: i32 = rustix::fs::OFlags::EXCL.bits().cast_signed();
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(EXCLUSIVE)
            .open(path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        let size = file.size().with_context(|| format!("cannot read `{}`", path.display()))?;
        if !force && !is_blank(&file, size).with_context(|| format!("cannot read `{}`", path.display()))? {
            let what = if holds_pool(&file) { "holds a pool" } else { "is not empty" };
            let hint = "`--force` writes over it; everything on it is lost";
            return Err(Hinted::new(format!("`{}` {what}", path.display()), hint).into());
        }
        Ok(Target::Device { file, path: path.to_owned(), size })
    }

    /// What the device holds.
    pub(super) fn device_size(&self) -> Option<u64> {
        match self {
            Target::File(_) => None,
            Target::Device { size, .. } => Some(*size),
        }
    }

    /// Makes it ready for a pool of `size` bytes. From here on a device is no longer what it was.
    pub(super) fn prepare(&mut self, size: u64) -> anyhow::Result<()> {
        match self {
            Target::File(file) => file.file().set_len(size).context("cannot size the image"),
            Target::Device { path, size: device, .. } if *device < size => {
                bail!("`{}` has {}, less than {}", path.display(), ByteSize(*device), ByteSize(size))
            }
            Target::Device { file, path, size } => {
                clear(file, *size).with_context(|| format!("cannot write `{}`", path.display()))
            }
        }
    }

    /// Where to write.
    pub(super) fn out(&mut self) -> &dyn WriteAt {
        match self {
            Target::File(file) => &*file.file(),
            Target::Device { file, .. } => &*file,
        }
    }

    /// Puts it in place.
    pub(super) fn commit(self) -> anyhow::Result<()> {
        match self {
            Target::File(file) => Ok(file.commit()?),
            Target::Device { file, path, .. } => {
                file.sync_all().with_context(|| format!("cannot write `{}`", path.display()))
            }
        }
    }
}

fn holds_pool(file: &File) -> bool {
    !matches!(Pool::open(&[file]), Err(OpenError::NoLabel | OpenError::Device { .. }))
}

/// Both ends of a device: where partition tables, file systems and labels say what they are.
fn ends(size: u64) -> [std::ops::Range<u64>; 2] {
    [0..FRONT.min(size), size.saturating_sub(BACK)..size]
}

fn is_blank(file: &File, size: u64) -> io::Result<bool> {
    for end in ends(size) {
        let mut bytes = vec![0; (end.end - end.start) as usize];
        file.read_exact_at(&mut bytes, end.start)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes both ends read as zeros. What lies between may stay: nothing of a pool is read that was not written.
fn clear(file: &File, size: u64) -> io::Result<()> {
    for end in ends(size) {
        let zeros = vec![0; (end.end - end.start) as usize];
        WriteAt::write_all_at(file, &zeros, end.start)?;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use kld_pool::tree::Tree;
    use kld_pool::verify::verify;
    use kld_pool::{DatasetSpec, PoolSpec, write_pool};

    use super::*;

    #[test]
    fn a_pool_on_a_used_device_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), [3; 500_000]).unwrap();
        let mut spec = PoolSpec::new("tank".parse().unwrap(), 64 << 20, [1; 32]);
        let mut root = DatasetSpec::new("tank/home".parse().unwrap());
        root.content = Tree::from_dir(dir.path()).unwrap().into();
        spec.datasets.push(root);
        // An older pool, younger by its transaction groups, on a device that is a little larger; and garbage.
        let size = (64 << 20) + 200_000;
        let path = dir.path().join("device");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        WriteAt::write_all_at(&file, &vec![0xa5; size as usize], 0).unwrap();
        let mut older = PoolSpec::new("older".parse().unwrap(), size, [2; 32]);
        let mut many = DatasetSpec::new("older/a".parse().unwrap());
        many.snapshots = (0..20).map(|n| format!("s{n}").into()).collect();
        older.datasets.push(many);
        write_pool(&older, &[&file], &()).unwrap();
        assert!(holds_pool(&file) && !is_blank(&file, size).unwrap());

        clear(&file, size).unwrap();
        assert!(!holds_pool(&file) && is_blank(&file, size).unwrap());
        write_pool(&spec, &[&file], &()).unwrap();
        let pool = Pool::open(&[&file]).unwrap();
        assert_eq!(pool.name(), "tank");
        let report = verify(&pool, &());
        assert!(report.is_clean(), "{:?}", report.findings);
    }
}

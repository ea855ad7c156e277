//! Finds the pool on images and disks.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_disk::Guid;
use kld_disk::gpt::read_partitions;
use kld_pool::read::{OpenError, Pool};
use kld_pool::{ReadAt as _, Region};
use kld_ui::Hinted;

/// Images that lie open, with what may be a pool on each.
pub(super) struct Image {
    names: String,
    files: Vec<(File, Vec<(u64, u64)>)>,
}

impl Image {
    /// Opens the files of `FILE[,FILE…]` for reading.
    pub(super) fn open(image: &str) -> anyhow::Result<Image> {
        let paths: Vec<PathBuf> = image.split(',').map(PathBuf::from).collect();
        let files = paths.iter().map(|path| open_one(path)).collect::<anyhow::Result<_>>()?;
        Ok(Image { names: image.to_owned(), files })
    }

    /// Does something with the pool.
    pub(super) fn with_pool<T>(
        &self,
        with: impl FnOnce(&Pool<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let regions: Vec<Vec<Region<'_>>> =
            self.files.iter().map(|(file, places)| regions(file, places)).collect();
        // The first place of each file that holds a label; the file itself when none does, for the error's sake.
        let devices: Vec<&dyn kld_pool::ReadAt> = regions
            .iter()
            .flat_map(|places| places.iter().find(|region| has_label(region)).or(places.last()))
            .map(|region| region as &dyn kld_pool::ReadAt)
            .collect();
        let pool = Pool::open(&devices).map_err(|error| match error {
            OpenError::NoLabel => {
                let hint = "give an image or a device with a ZFS pool; qcow2 must be made raw first: `qemu-img convert -O raw`";
                anyhow::Error::from(Hinted::new(format!("no pool is on `{}`", self.names), hint))
            }
            error => anyhow::Error::from(error).context(format!("cannot open the pool on `{}`", self.names)),
        })?;
        with(&pool)
    }
}

/// A file, and the places on it where a pool may begin: ZFS partitions, the other partitions, the whole file.
fn open_one(path: &Path) -> anyhow::Result<(File, Vec<(u64, u64)>)> {
    let mut file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let cannot_read = || format!("cannot read `{}`", path.display());
    let mut found = read_partitions(&mut file).with_context(cannot_read)?.unwrap_or_default();
    found.sort_by_key(|partition| (partition.kind != Guid::ZFS, partition.number));
    let mut places: Vec<(u64, u64)> =
        found.iter().map(|partition| (partition.start, partition.len)).collect();
    places.push((0, file.size().with_context(cannot_read)?));
    Ok((file, places))
}

fn regions<'a>(file: &'a File, places: &[(u64, u64)]) -> Vec<Region<'a>> {
    places.iter().map(|(start, len)| Region { file, start: *start, len: *len }).collect()
}

fn has_label(region: &Region<'_>) -> bool {
    !matches!(
        Pool::open(&[region as &dyn kld_pool::ReadAt]),
        Err(OpenError::NoLabel | OpenError::Device { .. })
    )
}

//! The lock file that a manifest's packages are pinned to: `MANIFEST.lock` beside it, as `IMAGE.lock` lies beside an image.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_build::Lock;
use kld_engine::{Locked, LockedPackage};
use kld_system::System;
use kld_ui::{Hinted, Printer};

/// The one beside a manifest, when there is one.
pub(crate) fn beside(manifest: &Path) -> Option<PathBuf> {
    let mut path = manifest.as_os_str().to_owned();
    path.push(".lock");
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// Reads it, and says so. It must be of the machine's distribution.
pub(crate) fn of(
    printer: &Printer,
    path: Option<&PathBuf>,
    system: &System,
) -> anyhow::Result<Option<(PathBuf, Lock)>> {
    let Some(path) = path else { return Ok(None) };
    let name = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the lock file `{name}`"))?;
    let lock = Lock::parse(&text).with_context(|| format!("cannot use the lock file `{name}`"))?;
    let wanted = format!("{}-{}", system.distro.id, system.distro.release);
    if lock.distro != wanted {
        let what = format!("the lock file `{name}` is of {}, and the manifest is for {wanted}", lock.distro);
        return Err(Hinted::new(what, "`kldload build --update` writes another beside its image").into());
    }
    printer.note(&format!("packages are pinned to `{name}`"));
    Ok(Some((path.clone(), lock)))
}

/// What the engine needs of it.
pub(crate) fn locked(path: &Path, lock: Lock) -> Locked {
    let packages = lock
        .packages
        .into_iter()
        .map(|package| (package.name, LockedPackage { version: package.version, sha256: package.sha256 }));
    Locked { file: path.display().to_string(), packages: packages.collect() }
}

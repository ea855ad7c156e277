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
    let wanted = system.distro.label();
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

#[cfg(test)]
mod tests {
    use super::*;
    use kld_manifest::model::{Distro, DistroFamily};
    use kld_system::{find_distro, render_core};
    use kld_ui::Verbosity;

    #[test]
    fn it_has_the_manifests_name_and_its_distribution() {
        let dir = tempfile::tempdir().expect("writable");
        let manifest = dir.path().join("appliance.manifest");
        assert_eq!(beside(&manifest), None);
        let path = dir.path().join("appliance.manifest.lock");
        let distro =
            find_distro(&Distro { family: DistroFamily::Debian, release: None }).expect("it is known");
        let system = render_core(&distro, &"rpool".parse().expect("a name"));
        let read = |distro: &str| {
            let lock = Lock::from_list(distro, "6.12", "curl\tamd64\t8.2-1\t\n").expect("a list");
            std::fs::write(&path, lock.render()).expect("written");
            of(&Printer::new(Verbosity::Quiet, false), beside(&manifest).as_ref(), &system)
        };
        let error = read("debian-12").expect_err("another release").to_string();
        assert!(error.contains("is of debian-12, and the manifest is for debian-13"), "{error}");
        let (found, lock) = read("debian-13").expect("good").expect("it is there");
        assert_eq!(found, path);
        let locked = locked(&found, lock);
        assert_eq!(locked.packages["curl"], LockedPackage { version: "8.2-1".to_owned(), sha256: None });
    }
}

//! The final tree: the distribution's tree plus what the [`System`] asks for, sealed.
//!
//! All of it happens in memory on the index of the tree; file data stays where it is until the pool is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kld_pool::tree::{Data, Kind, Meta, SourceFile, Timestamp, Tree};
use kld_system::{Content, Enablement, System, SystemFile};

use crate::accounts::{AccountError, Accounts};
use crate::enablement::{LINK_DIR, UNIT_DIRS, definition_of, parse_install};
use crate::seal::{AuditError, absolute, seal};

/// Why the tree cannot be composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Accounts do not fit.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Something would give a secret or an identity away.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A file of the manifest cannot be read.
    #[error("cannot read `{}` for `{path}`", source_path.display())]
    Source {
        /// Where it would go.
        path: String,
        /// The file beside the manifest.
        source_path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the manifest leads out of the manifest's directory.
    #[error("`{source_path}` for `{path}` leads out of the manifest's directory")]
    Outside {
        /// Where it would go.
        path: String,
        /// As written.
        source_path: String,
    },
    /// A file of the manifest cannot be scanned.
    #[error("cannot read the directory `{}` for `{path}`", source_path.display())]
    Scan {
        /// Where it would go.
        path: String,
        /// The directory beside the manifest.
        source_path: PathBuf,
        /// Why.
        #[source]
        source: kld_pool::tree::ScanError,
    },
    /// A file cannot be put where it should go.
    #[error("cannot put `{path}` into the tree")]
    Insert {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: kld_pool::tree::InsertError,
    },
    /// A unit that should be enabled is not in the tree.
    #[error("cannot enable `{unit}`: no package and no file of the manifest brings it")]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// A file that every tree of the distribution has.
    #[error("cannot read `{path}` in the tree")]
    Tree {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ComposeError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoUnit { unit } => Some(format!(
                "add the package that has `{unit}` to `packages:`, or give the service a `command:`"
            )),
            Self::Outside { .. } => {
                Some("put the file beside the manifest; links may not lead elsewhere".to_owned())
            }
            Self::Account(AccountError::Taken { .. }) => Some("choose another name in `users:`".to_owned()),
            Self::Account(_) => Some("add it to `users:`, or install the package that makes it".to_owned()),
            _ => None,
        }
    }
}

/// What goes into the tree besides the distribution and the system.
#[derive(Debug, Clone)]
pub(crate) struct Additions<'a> {
    /// The directory that relative sources of the manifest belong to.
    pub(crate) manifest_dir: &'a Path,
    /// The program itself, put into every profile but core; `None` for core.
    pub(crate) program: Option<&'a Path>,
    /// No file is newer than this.
    pub(crate) epoch: Timestamp,
}

/// Where the program goes.
const PROGRAM: &str = "/usr/bin/kldload";
/// Names the program answers to.
const PROGRAM_LINKS: [&str; 2] = ["/usr/bin/kbe", "/usr/bin/kst"];

/// Applies the system to the distribution's tree.
///
/// # Errors
/// Something does not fit; the tree is then of no further use.
pub(crate) fn compose(tree: &mut Tree, system: &System, add: &Additions<'_>) -> Result<(), ComposeError> {
    seal(tree);
    let mut place = Place { tree, epoch: add.epoch };
    let accounts = place.accounts(system)?;
    place.bytes("/etc/machine-id", b"", 0o444)?;
    if let Some(name) = &system.host_name {
        place.bytes("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
    }
    for dataset in &system.datasets {
        let Some(path) = dataset.mounted_at().filter(|path| *path != "/") else { continue };
        let (uid, gid, mode) = match &dataset.owner {
            Some(owner) => {
                (accounts.uid(owner.user.as_str())?, accounts.gid(owner.group.as_str())?, Some(owner.mode))
            }
            None => (0, 0, None),
        };
        place.directory(path, uid, gid, mode)?;
    }
    for user in system.users.iter().filter(|user| !user.system) {
        place.directory(&user.home, user.uid, user.gid, Some(0o700))?;
        if !user.ssh_keys.is_empty() {
            let ssh = format!("{}/.ssh", user.home);
            place.directory(&ssh, user.uid, user.gid, Some(0o700))?;
            let keys = user.ssh_keys.iter().fold(String::new(), |all, key| all + key + "\n");
            place.file(
                &format!("{ssh}/authorized_keys"),
                Data::bytes(keys.into_bytes()),
                0o600,
                user.uid,
                user.gid,
            )?;
        }
    }
    for file in &system.files {
        place.system_file(file, &accounts, add.manifest_dir)?;
    }
    if let Some(program) = add.program {
        let data = open_data(program).map_err(|source| ComposeError::Source {
            path: PROGRAM.to_owned(),
            source_path: program.to_owned(),
            source,
        })?;
        place.file(PROGRAM, data, 0o755, 0, 0)?;
        for link in PROGRAM_LINKS {
            place.symlink(link, "kldload")?;
        }
    }
    // Switched off after everything is switched on: `Also=` of one unit switches others on.
    let mut units: Vec<_> = system.units.iter().collect();
    units.sort_by_key(|unit| unit.state != Enablement::Enabled);
    for unit in units {
        let name = unit.unit.as_str();
        match unit.state {
            Enablement::Enabled => place.enable(name)?,
            Enablement::Disabled => place.disable(name),
            Enablement::Masked => place.symlink(&format!("{LINK_DIR}/{name}"), "/dev/null")?,
        }
    }
    place.tree.clamp_mtimes(add.epoch);
    Ok(())
}

/// A tree that things are put into.
struct Place<'a> {
    tree: &'a mut Tree,
    epoch: Timestamp,
}

impl Place<'_> {
    fn accounts(&mut self, system: &System) -> Result<Accounts, ComposeError> {
        let read = |path: &'static str| {
            self.tree
                .read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|source| ComposeError::Tree { path, source })
        };
        let mut accounts = Accounts {
            passwd: read("/etc/passwd")?,
            shadow: read("/etc/shadow")?,
            group: read("/etc/group")?,
            gshadow: read("/etc/gshadow")?,
        };
        accounts.forget_dates();
        accounts.lock_root();
        accounts.add(&system.users)?;
        let shadow_group = accounts.gid("shadow").unwrap_or(0);
        for (path, text, mode, gid) in [
            ("/etc/passwd", &accounts.passwd, 0o644, 0),
            ("/etc/group", &accounts.group, 0o644, 0),
            ("/etc/shadow", &accounts.shadow, 0o640, shadow_group),
            ("/etc/gshadow", &accounts.gshadow, 0o640, shadow_group),
        ] {
            self.file(path, Data::bytes(text.clone().into_bytes()), mode, 0, gid)?;
        }
        Ok(accounts)
    }

    fn meta(&self, mode: u32, uid: u32, gid: u32) -> Meta {
        Meta { mode, uid, gid, mtime: self.epoch, xattrs: BTreeMap::new() }
    }

    fn insert(&mut self, path: &str, meta: Meta, kind: Kind) -> Result<(), ComposeError> {
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str).filter(|p| *p != "/") {
            let dir = self.meta(0o755, 0, 0);
            self.tree
                .ensure_dir(parent, dir)
                .map_err(|source| ComposeError::Insert { path: parent.to_owned(), source })?;
        }
        self.tree
            .insert(path, meta, kind)
            .map_err(|source| ComposeError::Insert { path: path.to_owned(), source })?;
        Ok(())
    }

    fn bytes(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<(), ComposeError> {
        self.file(path, Data::bytes(bytes.to_vec()), mode, 0, 0)
    }

    fn file(&mut self, path: &str, data: Data, mode: u32, uid: u32, gid: u32) -> Result<(), ComposeError> {
        let meta = self.meta(mode, uid, gid);
        self.insert(path, meta, Kind::File(data))
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<(), ComposeError> {
        let meta = self.meta(0o777, 0, 0);
        self.insert(path, meta, Kind::Symlink(target.as_bytes().to_vec()))
    }

    /// Makes a directory, or gives an existing one an owner when `mode` says that there is one to give.
    fn directory(&mut self, path: &str, uid: u32, gid: u32, mode: Option<u32>) -> Result<(), ComposeError> {
        let fail = |source| ComposeError::Insert { path: path.to_owned(), source };
        let meta = self.meta(mode.unwrap_or(0o755), uid, gid);
        self.tree.ensure_dir(path, self.meta(0o755, 0, 0)).map_err(fail)?;
        if mode.is_some()
            && let Some(existing) = self.tree.meta_mut(path)
        {
            *existing = meta;
        }
        Ok(())
    }

    fn system_file(
        &mut self,
        file: &SystemFile,
        accounts: &Accounts,
        manifest_dir: &Path,
    ) -> Result<(), ComposeError> {
        let (uid, gid) = (accounts.uid(&file.owner.0)?, accounts.gid(&file.owner.1)?);
        match &file.content {
            Content::Text(text) => self.file(
                &file.path,
                Data::bytes(text.clone().into_bytes()),
                file.mode.unwrap_or(0o644),
                uid,
                gid,
            ),
            Content::Symlink(target) => self.symlink(&file.path, target),
            Content::Directory => self.directory(&file.path, uid, gid, Some(file.mode.unwrap_or(0o755))),
            Content::FromManifestDir(relative) => {
                let source = resolve(manifest_dir, relative, &file.path)?;
                if source.is_dir() {
                    self.copy_dir(&source, file, uid, gid)
                } else {
                    let fail = |e| ComposeError::Source {
                        path: file.path.clone(),
                        source_path: source.clone(),
                        source: e,
                    };
                    let mode = match file.mode {
                        Some(mode) => mode,
                        None => default_mode(&std::fs::metadata(&source).map_err(fail)?),
                    };
                    let data = open_data(&source).map_err(fail)?;
                    self.file(&file.path, data, mode, uid, gid)
                }
            }
        }
    }

    /// Copies a directory: everything belongs to the file's owner, and modes do not follow anybody's umask.
    fn copy_dir(&mut self, source: &Path, file: &SystemFile, uid: u32, gid: u32) -> Result<(), ComposeError> {
        let scanned = Tree::from_dir(source).map_err(|e| ComposeError::Scan {
            path: file.path.clone(),
            source_path: source.to_owned(),
            source: e,
        })?;
        self.directory(&file.path, uid, gid, Some(file.mode.unwrap_or(0o755)))?;
        let nodes: Vec<_> = scanned
            .walk()
            .map(|(path, node)| (path.to_vec(), node.meta().mode, node.kind().clone()))
            .collect();
        for (path, mode, kind) in nodes {
            let path = format!("{}{}", file.path, absolute(&path));
            match kind {
                Kind::Directory if path.ends_with('/') => {}
                Kind::Directory => self.directory(&path, uid, gid, Some(0o755))?,
                kind => {
                    let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
                    let meta = self.meta(mode, uid, gid);
                    self.insert(&path, meta, kind)?;
                }
            }
        }
        Ok(())
    }

    fn enable(&mut self, unit: &str) -> Result<(), ComposeError> {
        let mut waiting = vec![unit.to_owned()];
        let mut done = BTreeSet::new();
        while let Some(unit) = waiting.pop() {
            if !done.insert(unit.clone()) {
                continue;
            }
            let (path, text) =
                self.unit_file(&unit).ok_or_else(|| ComposeError::NoUnit { unit: unit.clone() })?;
            let install = parse_install(&unit, &text);
            for link in &install.links {
                // A link of that name may be the administrator's file or a mask: those win.
                if self.tree.get(format!("{LINK_DIR}/{link}")).is_none() {
                    self.symlink(&format!("{LINK_DIR}/{link}"), &path)?;
                }
            }
            waiting.extend(install.also);
        }
        Ok(())
    }

    fn disable(&mut self, unit: &str) {
        let prefix = format!("{LINK_DIR}/");
        let links: Vec<String> = self
            .tree
            .walk()
            .filter(|(_, node)| matches!(node.kind(), Kind::Symlink(_)))
            .map(|(path, _)| absolute(&path))
            .filter(|path| path.starts_with(&prefix) && path.rsplit('/').next() == Some(unit))
            .collect();
        for link in links {
            self.tree.remove(&link);
        }
    }

    /// Path and text of the file that defines a unit.
    fn unit_file(&self, unit: &str) -> Option<(String, String)> {
        let names = [unit.to_owned(), definition_of(unit)];
        UNIT_DIRS.iter().flat_map(|dir| names.iter().map(move |name| format!("{dir}/{name}"))).find_map(
            |path| {
                let bytes = self.tree.read(&path).ok()?;
                Some((path, String::from_utf8_lossy(&bytes).into_owned()))
            },
        )
    }
}

/// The content of a file of the host, by reference: it is read when the pool is written.
fn open_data(path: &Path) -> std::io::Result<Data> {
    let file = SourceFile::open(path)?;
    let len = std::fs::metadata(path)?.len();
    Ok(Data::Slice { file: Arc::new(file), offset: 0, len })
}

fn default_mode(metadata: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 }
}

/// The real path of a source, which must lie below the manifest's directory even when links are followed.
fn resolve(manifest_dir: &Path, relative: &str, path: &str) -> Result<PathBuf, ComposeError> {
    let joined = manifest_dir.join(relative);
    let real = |p: &Path| {
        p.canonicalize().map_err(|source| ComposeError::Source {
            path: path.to_owned(),
            source_path: p.to_owned(),
            source,
        })
    };
    let (base, target) = (real(manifest_dir)?, real(&joined)?);
    if target.starts_with(&base) {
        Ok(target)
    } else {
        Err(ComposeError::Outside { path: path.to_owned(), source_path: relative.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stay_below_the_manifest_even_through_links() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let manifest_dir = dir.path().join("recipe");
        std::fs::create_dir_all(manifest_dir.join("files")).expect("writable");
        std::fs::write(manifest_dir.join("files/app.py"), "x").expect("writable");
        std::fs::write(dir.path().join("secret"), "x").expect("writable");
        std::os::unix::fs::symlink("../secret", manifest_dir.join("leak")).expect("writable");
        let resolve = |relative| resolve(&manifest_dir, relative, "/srv/x");
        assert!(resolve("files/app.py").expect("it is there").ends_with("recipe/files/app.py"));
        assert!(matches!(resolve("leak"), Err(ComposeError::Outside { .. })));
        assert!(matches!(resolve("../secret"), Err(ComposeError::Outside { .. })));
        assert!(matches!(resolve("missing"), Err(ComposeError::Source { .. })));
    }
}

//! What a manifest wants of a machine, with the content of every file.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kld_manifest::Appliance;
use kld_system::{Content, System, SystemFile};
use sha2::{Digest as _, Sha256};

use crate::host::Node;
use crate::kinds::hex;
use crate::locked::Locked;
use crate::plan::Because;

/// The machine as the manifest describes it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Everything but the content of files that lie beside the manifest.
    pub system: System,
    /// Every file by path.
    pub files: BTreeMap<String, WantedFile>,
    /// What the manifest is known by.
    pub digests: Digests,
    /// The versions that packages must have; `None`: whatever the archive offers.
    pub lock: Option<Locked>,
}

/// What a manifest is known by, each a SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    /// Of its text.
    pub text: String,
    /// Of what it says, however it is written: [`kld_manifest::Appliance::normal_form`].
    pub meaning: String,
}

impl Digests {
    /// The digests of a manifest.
    pub fn of(text: &str, appliance: &Appliance) -> Self {
        let sum = |text: &str| hex(&Sha256::digest(text.as_bytes()));
        Self { text: sum(text), meaning: sum(&appliance.normal_form()) }
    }
}

/// A file, link or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// What it is.
    pub node: Node,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group, by name.
    pub owner: (String, String),
    /// Why it exists.
    pub because: Because,
}

/// Why the files of a manifest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// A file beside the manifest.
    #[error("cannot read `{}` for `{path}`", from.display())]
    Read {
        /// Where it would go.
        path: String,
        /// The file beside the manifest.
        from: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the manifest leads out of the manifest's directory.
    #[error("`{from}` for `{path}` leads out of the manifest's directory")]
    Outside {
        /// Where it would go.
        path: String,
        /// As written.
        from: String,
    },
}

impl WantedError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Outside { .. } => {
                Some("put the file beside the manifest; links may not lead elsewhere".to_owned())
            }
            Self::Read { .. } => None,
        }
    }
}

impl Wanted {
    /// Reads the files of a system; relative ones lie in `manifest_dir`.
    ///
    /// # Errors
    /// When one cannot be read, or lies elsewhere.
    pub fn new(system: System, manifest_dir: &Path, digests: Digests) -> Result<Self, WantedError> {
        let mut files = BTreeMap::new();
        let base = OnceCell::new();
        for file in &system.files {
            add_file(file, manifest_dir, &base, &mut files)?;
        }
        // The root of a file system belongs to whom the manifest says, once the account is there.
        for dataset in &system.datasets {
            if let (Some(path), Some(owner)) = (dataset.mounted_at(), &dataset.owner) {
                let owner_names = (owner.user.to_string(), owner.group.to_string());
                let because = (&dataset.because).into();
                let root =
                    WantedFile { node: Node::Directory, mode: owner.mode, owner: owner_names, because };
                files.insert(path.to_owned(), root);
            }
        }
        for user in system.users.iter().filter(|user| !user.system && !user.ssh_keys.is_empty()) {
            let keys = user.ssh_keys.iter().fold(String::new(), |all, key| all + key + "\n");
            let ssh = format!("{}/.ssh", user.home);
            let own = |node, mode| WantedFile {
                node,
                mode,
                owner: (user.name.to_string(), user.name.to_string()),
                because: (&user.because).into(),
            };
            files.insert(format!("{ssh}/authorized_keys"), own(Node::File(keys.into_bytes()), 0o600));
            files.insert(ssh, own(Node::Directory, 0o700));
        }
        Ok(Self { system, files, digests, lock: None })
    }

    /// The same with the versions of a lock file.
    #[must_use]
    pub fn locked(self, lock: Option<Locked>) -> Self {
        Self { lock, ..self }
    }

    /// The units that the machine exists for.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let services = self.system.node.iter().flat_map(|node| &node.services);
        services.map(|service| service.unit.as_str())
    }
}

fn add_file(
    file: &SystemFile,
    manifest_dir: &Path,
    base: &OnceCell<PathBuf>,
    files: &mut BTreeMap<String, WantedFile>,
) -> Result<(), WantedError> {
    let wanted =
        |node, mode| WantedFile { node, mode, owner: file.owner.clone(), because: (&file.because).into() };
    let relative = match &file.content {
        Content::Text(text) => {
            let node = Node::File(text.clone().into_bytes());
            files.insert(file.path.clone(), wanted(node, file.mode.unwrap_or(0o644)));
            return Ok(());
        }
        Content::Symlink(target) => {
            files.insert(file.path.clone(), wanted(Node::Link(target.clone()), 0o777));
            return Ok(());
        }
        Content::Directory => {
            files.insert(file.path.clone(), wanted(Node::Directory, file.mode.unwrap_or(0o755)));
            return Ok(());
        }
        Content::FromManifestDir(relative) => relative,
    };
    let fail = |from: &Path| {
        let (path, from) = (file.path.clone(), from.to_owned());
        move |source| WantedError::Read { path, from, source }
    };
    let joined = manifest_dir.join(relative);
    // Found out once, and only for a manifest that has files beside it.
    let base = match base.get() {
        Some(base) => base,
        None => {
            let found = manifest_dir.canonicalize().map_err(fail(manifest_dir))?;
            base.get_or_init(|| found)
        }
    };
    let real = joined.canonicalize().map_err(fail(&joined))?;
    if !real.starts_with(base) {
        return Err(WantedError::Outside { path: file.path.clone(), from: relative.clone() });
    }
    let mut open = vec![(real, file.path.clone(), file.mode)];
    while let Some((from, path, mode)) = open.pop() {
        let meta = fs::symlink_metadata(&from).map_err(fail(&from))?;
        let node = if meta.is_dir() {
            for entry in fs::read_dir(&from).map_err(fail(&from))? {
                let entry = entry.map_err(fail(&from))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                open.push((entry.path(), format!("{path}/{name}"), None));
            }
            Node::Directory
        } else if meta.is_symlink() {
            let target = fs::read_link(&from).map_err(fail(&from))?;
            Node::Link(target.to_string_lossy().into_owned())
        } else {
            Node::File(fs::read(&from).map_err(fail(&from))?)
        };
        // Modes do not follow anybody's umask: what may be run, and what may not.
        let may_run = meta.is_dir() || std::os::unix::fs::MetadataExt::mode(&meta) & 0o111 != 0;
        let mode = mode.unwrap_or(if may_run { 0o755 } else { 0o644 });
        files.insert(path, wanted(node, mode));
    }
    Ok(())
}

//! Root trees, made by the distribution's own tools.
//!
//! One back end so far: [mmdebstrap](https://gitlab.mister-muffin.de/josch/mmdebstrap) for the Debian family.
//! It checks the archive's signatures, works in a user namespace when not root, and writes a tar file, so that
//! owners, devices and capabilities survive whoever runs it.

mod mmdebstrap;

use std::path::{Path, PathBuf};

use kld_host::ExecError;
use kld_system::DistroSpec;

pub use mmdebstrap::{
    module_layer_cmd, module_layer_files, root_tree_cmd, root_tree_files, with_keyring, with_package_cache,
};

use crate::lock::Lock;

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Mirrors as given with `--mirror`: URLs or one-line apt entries. Empty: the tool's own default.
    pub mirrors: Vec<String>,
    /// A keyring that replaces the distribution's.
    pub keyring: Option<PathBuf>,
}

impl Source {
    /// The keyring that the archive must be signed with.
    pub fn keyring<'a>(&'a self, distro: &'a DistroSpec) -> &'a Path {
        self.keyring.as_deref().unwrap_or(Path::new(&distro.keyring))
    }
}

/// The throw-away layer that compiles the ZFS modules.
#[derive(Debug, Clone)]
pub struct ModuleLayer<'a> {
    /// The distribution.
    pub distro: &'a DistroSpec,
    /// Where packages come from.
    pub source: &'a Source,
    /// Versions to use, when a build is repeated.
    pub lock: Option<&'a Lock>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: u64,
}

/// A root tree.
#[derive(Debug, Clone)]
pub struct RootTree<'a> {
    /// The distribution.
    pub distro: &'a DistroSpec,
    /// Where packages come from.
    pub source: &'a Source,
    /// The directory that [`module_layer_cmd`] filled.
    pub modules: &'a Path,
    /// Release of the kernel the modules fit.
    pub kernel: &'a str,
    /// Packages asked for, besides the kernel and its modules.
    pub packages: &'a [String],
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: u64,
}

/// Why a root tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The tool failed.
    #[error("cannot {doing}")]
    Tool {
        /// What was being made or fetched.
        doing: String,
        /// The tool's own words.
        #[source]
        source: ExecError,
    },
    /// A file beside the tree cannot be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A package that was installed is not the one that the archive has signed.
    #[error("package `{0}` is not what the archive has signed")]
    Package(String),
}

impl BootstrapError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let source = match self {
            Self::Tool { source, .. } => source,
            Self::Package(_) => return Some("remove `packages/` from the cache and build again".to_owned()),
            Self::File { .. } => return None,
        };
        if let Some(hint) = source.hint() {
            return Some(hint);
        }
        let said = source.stderr()?;
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if says(&[
            "is not signed",
            "NO_PUBKEY",
            "signatures were invalid",
            "signatures couldn't be verified",
            "not available",
        ]) && said.contains("InRelease")
        {
            Some("the archive is not signed by a key that is trusted; give the right one with `--keyring FILE`".to_owned())
        } else if says(&[
            "Temporary failure resolving",
            "Could not connect",
            "Could not resolve",
            "Connection failed",
            "Unable to connect",
        ]) {
            Some("check the network, or name a mirror that answers with `--mirror URL`".to_owned())
        } else if says(&["No space left on device"]) {
            Some("make room in the cache and in /tmp, or set TMPDIR to a larger disk".to_owned())
        } else if says(&["Unable to locate package", "has no installation candidate"]) {
            Some(
                "check the spelling in `packages:`; `apt-cache policy NAME` says what the distribution has"
                    .to_owned(),
            )
        } else if said.contains("Version '") && said.contains("was not found") {
            Some("the mirror no longer has a version of the lock file; name a snapshot mirror with `--mirror`, or build with `--update`".to_owned())
        } else if says(&["newuidmap", "subuid", "unshare", "user namespace"]) {
            Some("building without root needs user namespaces: `apt install uidmap` and a line for you in /etc/subuid and /etc/subgid".to_owned())
        } else {
            None
        }
    }
}

/// apt_preferences(5) that make apt choose the versions of a lock file. What is asked for stays the same, so that a
/// repeated build also agrees on which packages were asked for and which came along.
fn pins<'a>(versions: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    // Above 1000: even when that means an older version than the archive's newest.
    versions
        .map(|(name, version)| format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"))
        .collect()
}

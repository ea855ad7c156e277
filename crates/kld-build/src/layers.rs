//! The two cached layers of a build: the compiled ZFS modules and the distribution's root tree.

use std::fs;
use std::path::{Path, PathBuf};

use kld_host::{Cmd, Line};
use kld_system::DistroSpec;
use kld_ui::Phases;

use crate::bootstrap::{
    BootstrapError, ModuleLayer, RootTree, Source, module_layer_cmd, recipes, root_tree_cmd,
};
use crate::cache::{Cache, CacheError, EnsureError, Key, KeyBuilder};
use crate::lock::Lock;

/// Changes when entries of the cache are laid out in another way.
const FORMAT: u32 = 1;

/// What decides the layers.
#[derive(Debug, Clone)]
pub(crate) struct LayerInputs<'a> {
    /// The distribution.
    pub(crate) distro: &'a DistroSpec,
    /// Packages asked for.
    pub(crate) packages: &'a [String],
    /// Where packages come from.
    pub(crate) source: &'a Source,
    /// Versions to use, when a build is repeated.
    pub(crate) lock: Option<&'a Lock>,
    /// Resolve and fetch again, even when the cache has these layers.
    pub(crate) update: bool,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: u64,
}

/// The finished root tree.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// An uncompressed tar file.
    pub(crate) tree: PathBuf,
    /// What is installed in it.
    pub(crate) lock: Lock,
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Making it failed, or the cache did.
    #[error(transparent)]
    Ensure(#[from] EnsureError<BootstrapError>),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Its list of packages is not understood.
    #[error("cannot read the package list of the root tree")]
    List(#[source] crate::lock::LockError),
    /// A file of an entry cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The repeated build did not give what the lock file says.
    #[error("the root tree differs from the lock file: {0}")]
    Drift(String),
}

impl LayerError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ensure(EnsureError::Make(error)) => error.hint(),
            Self::Drift(_) => Some(
                "the mirror has moved on; name a snapshot mirror with `--mirror`, or build with `--update`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Makes both layers, or finds them.
///
/// # Errors
/// See [`LayerError`].
pub(crate) fn ensure_layers(
    cache: &Cache,
    inputs: &LayerInputs<'_>,
    phases: &Phases,
) -> Result<Layers, LayerError> {
    let module_key = module_key(inputs);
    let modules =
        layer(cache, phases, "modules", "compile the ZFS modules", &module_key, inputs.update, |out| {
            let layer = ModuleLayer {
                distro: inputs.distro,
                source: inputs.source,
                lock: inputs.lock,
                epoch: inputs.epoch,
            };
            module_layer_cmd(&layer, out)
        })?;
    let kernel = read(&modules.join("kernel"))?.trim().to_owned();
    let tree_key = tree_key(inputs, &module_key, &kernel);
    let entry = layer(cache, phases, "trees", "install the distribution", &tree_key, inputs.update, |out| {
        let tree = RootTree {
            distro: inputs.distro,
            source: inputs.source,
            modules: &modules,
            kernel: &kernel,
            packages: inputs.packages,
            lock: inputs.lock,
            epoch: inputs.epoch,
        };
        root_tree_cmd(&tree, out)
    })?;
    let distro_id = format!("{}-{}", inputs.distro.id, inputs.distro.release);
    let lock =
        Lock::from_list(&distro_id, &kernel, &read(&entry.join("packages"))?).map_err(LayerError::List)?;
    if let Some(wanted) = inputs.lock {
        compare(wanted, &lock)?;
    }
    Ok(Layers { tree: entry.join("tree.tar"), lock })
}

/// One layer: found, or made with the tool's words shown as progress.
fn layer(
    cache: &Cache,
    phases: &Phases,
    kind: &str,
    title: &str,
    key: &Key,
    update: bool,
    command: impl FnOnce(&Path) -> Result<Cmd, BootstrapError>,
) -> Result<PathBuf, LayerError> {
    let phase = phases.start(title);
    if update {
        cache.forget(kind, key)?;
    }
    if let Some(found) = cache.get(kind, key) {
        phase.finish_with("from the cache");
        return Ok(found);
    }
    let made = cache.ensure(kind, key, |out| {
        command(out)?
            .stream(|line| {
                if let Line::Stderr(text) | Line::Stdout(text) = line
                    && let Some(message) = progress_of(text)
                {
                    phase.message(message);
                }
            })
            .map_err(|source| BootstrapError::Tool { doing: title.to_owned(), source })
    })?;
    phase.finish();
    Ok(made)
}

/// The part of a line of mmdebstrap, apt, dpkg or dkms that says what is going on.
fn progress_of(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = line.strip_prefix("I: ").unwrap_or(line);
    [
        "downloading",
        "installing",
        "extracting",
        "creating",
        "Unpacking",
        "Setting up",
        "Building module",
        "running apt-get update",
    ]
    .iter()
    .any(|word| line.starts_with(word))
    .then(|| line.trim_end_matches("..."))
}

fn module_key(inputs: &LayerInputs<'_>) -> Key {
    let distro = inputs.distro;
    let key = KeyBuilder::new("modules", FORMAT)
        .parts(recipes().iter())
        .part(&distro.suite)
        .parts(distro.components.iter())
        .part(&distro.kernel_package)
        .parts(distro.module_build.packages.iter());
    with_source(key, inputs).finish()
}

fn tree_key(inputs: &LayerInputs<'_>, modules: &Key, kernel: &str) -> Key {
    let distro = inputs.distro;
    let key = KeyBuilder::new("trees", FORMAT)
        .parts(recipes().iter())
        .part(&distro.suite)
        .parts(distro.components.iter())
        .parts(distro.dpkg.exclude.iter())
        .parts(distro.dpkg.include.iter())
        .parts(distro.prepared.iter().map(|p| format!("{}\0{}", p.path, p.text)))
        .parts(inputs.packages.iter())
        .part(modules.as_str())
        .part(kernel);
    with_source(key, inputs).finish()
}

fn with_source(key: KeyBuilder, inputs: &LayerInputs<'_>) -> KeyBuilder {
    key.parts(inputs.source.mirrors.iter())
        .part(inputs.source.keyring.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default())
        .part(inputs.lock.map(Lock::render).unwrap_or_default())
        .part(inputs.epoch.to_string())
}

/// A repeated build must give exactly what the lock file lists.
fn compare(wanted: &Lock, got: &Lock) -> Result<(), LayerError> {
    let drift = |text: String| Err(LayerError::Drift(text));
    for package in &wanted.packages {
        match got.packages.iter().find(|p| p.name == package.name && p.architecture == package.architecture) {
            None => return drift(format!("`{}` is not installed", package.name)),
            Some(p) if p.version != package.version => {
                return drift(format!(
                    "`{}` has version {} instead of {}",
                    p.name, p.version, package.version
                ));
            }
            Some(p) if p.sha256.is_some() && package.sha256.is_some() && p.sha256 != package.sha256 => {
                return drift(format!("`{}` {} has another digest", p.name, p.version));
            }
            Some(_) => {}
        }
    }
    match got.packages.iter().find(|p| !wanted.packages.iter().any(|w| w.name == p.name)) {
        Some(extra) => drift(format!("`{}` is installed and not listed", extra.name)),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, LayerError> {
    fs::read_to_string(path).map_err(|source| LayerError::Read { path: path.to_owned(), source })
}

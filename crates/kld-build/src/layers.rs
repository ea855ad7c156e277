//! The two cached layers of a build: the compiled ZFS modules and the distribution's root tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_host::{Cmd, Line};
use kld_system::DistroSpec;
use kld_ui::Phases;

use crate::bootstrap::{
    BootstrapError, ModuleLayer, RootTree, Source, module_layer_cmd, module_layer_files, root_tree_cmd,
    root_tree_files, with_keyring, with_package_cache,
};
use crate::cache::{Cache, CacheError, EnsureError, Key, KeyBuilder};
use crate::lock::Lock;
use crate::packages::{self, Packages};

/// Changes when entries of the cache are laid out in another way.
const FORMAT: u32 = 1;
/// A package that no tree has used for this long is downloaded again when one does.
const PACKAGE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

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
    let modules = ensure_modules(cache, inputs, phases)?;
    let kernel = read(&modules.join("kernel"))?.trim().to_owned();
    let tree = |modules| RootTree {
        distro: inputs.distro,
        source: inputs.source,
        modules,
        kernel: &kernel,
        packages: inputs.packages,
        epoch: inputs.epoch,
    };
    let recipe = Recipe {
        kind: "trees",
        title: "install the distribution",
        files: root_tree_files(inputs.distro, inputs.lock),
        command: Box::new(|out: &Path| root_tree_cmd(&tree(&modules), out)),
        // The name of the directory is the key of the modules in it.
        made_from: modules.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let entry = recipe.ensure(cache, inputs, phases)?;
    let lock = Lock::from_list(&inputs.distro.label(), &kernel, &read(&entry.join("packages"))?)
        .map_err(LayerError::List)?;
    if let Some(wanted) = inputs.lock {
        compare(wanted, &lock)?;
    }
    Ok(Layers { tree: entry.join("tree.tar"), lock })
}

/// The compiled modules. A repeated build takes the ones that are there when they are the ones of its lock file.
fn ensure_modules(cache: &Cache, inputs: &LayerInputs<'_>, phases: &Phases) -> Result<PathBuf, LayerError> {
    let recipe = |lock| {
        let layer = ModuleLayer { distro: inputs.distro, source: inputs.source, lock, epoch: inputs.epoch };
        Recipe {
            kind: "modules",
            title: "compile the ZFS modules",
            files: module_layer_files(lock),
            command: Box::new(move |out: &Path| module_layer_cmd(&layer, out)),
            made_from: String::new(),
        }
    };
    let newest = recipe(None);
    if let Some(locked) = inputs.lock {
        let wanted = locked.zfs_modules().and_then(|modules| modules.sha256.as_deref());
        let found = cache.get("modules", &newest.key(cache, inputs));
        let index = found.as_ref().and_then(|entry| fs::read_to_string(entry.join("Packages")).ok());
        let has =
            |sum: &str| index.is_some_and(|text| text.lines().any(|line| line == format!("SHA256: {sum}")));
        if !wanted.is_some_and(has) {
            return recipe(Some(locked)).ensure(cache, inputs, phases);
        }
    }
    newest.ensure(cache, inputs, phases)
}

/// How one layer is made.
struct Recipe<'a> {
    /// The directory in the cache.
    kind: &'a str,
    /// For people.
    title: &'a str,
    /// Files that the command takes from its directory.
    files: Vec<(String, String)>,
    /// The command, for the directory it fills.
    command: Box<dyn Fn(&Path) -> Cmd + 'a>,
    /// The entry of the cache it is made from.
    made_from: String,
}

impl Recipe<'_> {
    /// The layer: found, or made with the tool's words shown as progress.
    fn ensure(
        &self,
        cache: &Cache,
        inputs: &LayerInputs<'_>,
        phases: &Phases,
    ) -> Result<PathBuf, LayerError> {
        let phase = phases.start(self.title);
        let key = self.key(cache, inputs);
        if inputs.update {
            cache.forget(self.kind, &key)?;
        }
        if let Some(found) = cache.get(self.kind, &key) {
            phase.finish_with("from the cache");
            return Ok(found);
        }
        let made = cache.ensure(self.kind, &key, |out| {
            for (name, content) in &self.files {
                let path = out.join(name);
                fs::write(&path, content).map_err(|source| BootstrapError::File {
                    doing: "write",
                    path,
                    source,
                })?;
            }
            let packages = Packages::of(cache.root());
            let debs = out.join("debs");
            let on_debs = |doing| {
                let path = debs.clone();
                move |source| BootstrapError::File { doing, path, source }
            };
            packages.lend(&debs).map_err(on_debs("put kept packages into"))?;
            let cmd = with_keyring((self.command)(out), inputs.source.keyring(inputs.distro));
            with_package_cache(cmd, &debs)
                .stream(|line| {
                    if let Line::Stderr(text) | Line::Stdout(text) = line
                        && let Some(message) = progress_of(text)
                    {
                        phase.message(message);
                    }
                })
                .map_err(|source| BootstrapError::Tool { doing: self.title.to_owned(), source })?;
            let digests = packages.keep(&debs).map_err(on_debs("keep the packages of"))?;
            if let Some(lock) = fs::read_to_string(out.join("packages"))
                .ok()
                .and_then(|list| Lock::from_list(&inputs.distro.id, "", &list).ok())
            {
                packages::check(&lock, &digests).map_err(BootstrapError::Package)?;
                packages.used(&lock, PACKAGE_LIFE).map_err(on_debs("tidy the packages kept with"))?;
            }
            fs::remove_dir_all(&debs).map_err(on_debs("remove"))
        })?;
        phase.finish();
        Ok(made)
    }

    /// The exact command and everything it reads: the same command on the same input is the same layer. The
    /// cache's own place is not part of it.
    fn key(&self, cache: &Cache, inputs: &LayerInputs<'_>) -> Key {
        let command = (self.command)(Path::new("/out")).to_string();
        KeyBuilder::new(self.kind, FORMAT)
            .part(command.replace(&cache.root().display().to_string(), "/cache"))
            .parts(self.files.iter().map(|(name, content)| format!("{name}\0{content}")))
            .part(&self.made_from)
            .part(inputs.source.keyring.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default())
            .finish()
    }
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

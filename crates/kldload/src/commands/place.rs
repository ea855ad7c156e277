//! Which dataset a word of the command line stands for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_host::folder;
use kld_host::mounts::{self, Mount};
use kld_host::zpool::{self, Imported, imported};
use kld_ui::{ExitStatus, Hinted, Printer};

/// Where a path lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dataset: String,
    /// Its way in the dataset.
    pub(crate) within: PathBuf,
    /// Where all of the dataset is seen, `.zfs` too; a bind mount may show but a part.
    pub(crate) root: Option<PathBuf>,
}

/// The datasets that a command is about.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// None: everything there is.
    pub(crate) datasets: Vec<String>,
    /// Pools that nobody named and that would not answer.
    silent: Vec<Imported>,
}

impl Chosen {
    /// Those that the words stand for. Without words all pools, less those that would not answer.
    pub(crate) fn of(words: &[String]) -> anyhow::Result<Self> {
        if !words.is_empty() {
            let datasets = words.iter().map(|word| dataset(word)).collect::<Result<_, _>>()?;
            return Ok(Self { datasets, silent: Vec::new() });
        }
        let (well, silent): (Vec<_>, Vec<_>) = imported()?.into_iter().partition(Imported::answers);
        // ZFS itself would ask the silent ones, too.
        let datasets =
            if silent.is_empty() { Vec::new() } else { well.into_iter().map(|pool| pool.name).collect() };
        Ok(Self { datasets, silent })
    }

    /// Whether no pool can be asked.
    pub(crate) fn is_nothing(&self) -> bool {
        self.datasets.is_empty() && !self.silent.is_empty()
    }

    /// Warns of the pools that were not asked; the answer is not whole then.
    pub(crate) fn end(&self, printer: &Printer) -> ExitStatus {
        for Imported { name, state } in &self.silent {
            printer
                .warning(&format!("the pool `{name}` is {state} and was not asked: `zpool status {name}`"));
        }
        if self.silent.is_empty() { ExitStatus::Done } else { ExitStatus::Failed }
    }
}

/// That a pool can be asked: a command that asks one that is suspended hangs.
pub(crate) fn answering(pool: &Imported) -> anyhow::Result<()> {
    if pool.answers() {
        return Ok(());
    }
    let message = format!("the pool `{}` is {}, and would not answer", pool.name, pool.state);
    Err(Hinted::new(message, pool.hint()).into())
}

/// That the pool of a dataset can be asked.
pub(crate) fn can_be_asked(dataset: &str) -> anyhow::Result<()> {
    let pool = dataset.split('/').next().unwrap_or_default();
    let state = folder::present(fs::read(zpool::state_file(pool)))?;
    state.map_or(Ok(()), |state| answering(&Imported::new(pool, &state)))
}

/// The dataset that a word stands for: itself, or the one that a path (`/…`, `./…`) lies on. Its pool answers.
pub(crate) fn dataset(word: &str) -> anyhow::Result<String> {
    if word.starts_with('/')
        || word == "."
        || word == ".."
        || word.starts_with("./")
        || word.starts_with("../")
    {
        return Ok(place(Path::new(word))?.dataset);
    }
    if let Some((dataset, _)) = word.split_once('@') {
        let hint = format!("write the dataset and the name apart: `{dataset} …`");
        return Err(Hinted::new(format!("`{word}` is a snapshot, and a dataset is wanted"), hint).into());
    }
    can_be_asked(word)?;
    Ok(word.to_owned())
}

/// The dataset on which a path lies, when it is one. The path is not looked at: whoever looks at a directory of a suspended pool
/// waits with it.
pub(crate) fn dataset_above(path: &str) -> anyhow::Result<Option<String>> {
    Ok(above(&fs::read_to_string("/proc/self/mountinfo")?, path))
}

fn above(mountinfo: &str, path: &str) -> Option<String> {
    lies(&mounts::parse(mountinfo), path).map(|place| place.dataset)
}

fn lies(mounts: &[Mount], path: &str) -> Option<Place> {
    let mount = mounts::above(mounts, path).filter(|mount| mount.kind == "zfs")?;
    let below = path.strip_prefix(mount.point.trim_end_matches('/')).unwrap_or_default();
    let within = format!("{}{below}", mount.root.trim_end_matches('/'));
    let is_whole = |of: &Mount| of.device == mount.device && of.root == "/";
    let is_seen = |of: &&Mount| mounts::above(mounts, &of.point).is_some_and(is_whole);
    let root = [mount].into_iter().chain(mounts).filter(|of| is_whole(of)).find(is_seen);
    Some(Place {
        dataset: mount.source.clone(),
        within: within.trim_start_matches('/').into(),
        root: root.map(|mount| mount.point.clone().into()),
    })
}

/// Where something that is there lies. Its pool answers.
pub(crate) fn place(path: &Path) -> anyhow::Result<Place> {
    if let Some(dataset) = dataset_above(&std::path::absolute(path)?.to_string_lossy())? {
        can_be_asked(&dataset)?;
    }
    let path = path.canonicalize().with_context(|| format!("cannot look at `{}`", path.display()))?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let Some(place) = lies(&mounts::parse(&mountinfo), &path.to_string_lossy()) else {
        let hint = "`zfs list` names the datasets";
        return Err(Hinted::new(format!("`{}` does not lie on ZFS", path.display()), hint).into());
    };
    can_be_asked(&place.dataset)?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_above_a_path_is_the_one_that_is_seen() {
        let mounts = "22 1 0:23 / / rw - zfs rpool/ROOT/debian rw\n40 22 0:40 / /srv rw - zfs rpool/srv rw\n\
                      41 40 0:41 / /srv rw - zfs tank/srv rw\n42 22 0:42 / /run rw - tmpfs tmpfs rw\n";
        assert_eq!(above(mounts, "/srv/app/x").as_deref(), Some("tank/srv"));
        assert_eq!(above(mounts, "/srvx").as_deref(), Some("rpool/ROOT/debian"));
        assert_eq!(above(mounts, "/run/x"), None);
    }

    #[test]
    fn a_bind_mount_shows_a_part_and_the_rest_is_elsewhere() {
        let place = |mounts: &str, path: &str| {
            let place = lies(&mounts::parse(mounts), path).expect("on ZFS");
            let root = place.root.map(|root| root.display().to_string());
            (place.dataset, place.within.display().to_string(), root.unwrap_or_default())
        };
        let said = |dataset: &str, within: &str, root: &str| (dataset.into(), within.into(), root.into());
        let whole = "22 1 0:23 / / rw - zfs rpool/ROOT/debian rw\n40 22 0:40 / /srv rw - zfs rpool/srv rw\n";
        let bind = "41 22 0:40 /www /export rw - zfs rpool/srv rw\n";
        let (both, hidden) = (format!("{whole}{bind}"), "42 22 0:42 / /srv rw - tmpfs tmpfs rw\n");
        assert_eq!(place(&both, "/srv/a/b"), said("rpool/srv", "a/b", "/srv"));
        assert_eq!(place(&both, "/export/b"), said("rpool/srv", "www/b", "/srv"));
        assert_eq!(place(&both, "/etc"), said("rpool/ROOT/debian", "etc", "/"));
        assert_eq!(place(&both, "/"), said("rpool/ROOT/debian", "", "/"));
        assert_eq!(place(&format!("{both}{hidden}"), "/export"), said("rpool/srv", "www", ""));
    }

    #[test]
    fn a_pool_that_would_not_answer_is_named() {
        assert!(answering(&Imported::new("t", b"DEGRADED\n")).is_ok());
        let error = answering(&Imported::new("tank", b"SUSPENDED\n")).expect_err("it hangs").to_string();
        assert_eq!(error, "the pool `tank` is SUSPENDED, and would not answer");
    }

    #[test]
    fn words_are_datasets_and_no_snapshots() {
        assert_eq!(dataset("tank/a b").expect("a name"), "tank/a b");
        assert!(dataset("tank/a@x").is_err() && dataset("./nothing-of-this-name").is_err());
    }
}

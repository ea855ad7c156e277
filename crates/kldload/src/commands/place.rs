//! Which dataset a word of the command line stands for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kld_host::mounts;
use kld_host::zpool::{self, Imported, imported};
use kld_host::{Cmd, folder};
use kld_ui::{ExitStatus, Hinted, Printer};

/// Where a path lies.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dataset: String,
    pub(crate) mounted_at: String,
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
    let mounts = mounts::parse(mountinfo);
    mounts::above(&mounts, path).filter(|mount| mount.kind == "zfs").map(|mount| mount.source.clone())
}

/// Where something that is there lies. Its pool answers.
pub(crate) fn place(path: &Path) -> anyhow::Result<Place> {
    if let Some(dataset) = dataset_above(&std::path::absolute(path)?.to_string_lossy())? {
        can_be_asked(&dataset)?;
    }
    let path = path.canonicalize().with_context(|| format!("cannot look at `{}`", path.display()))?;
    let cmd = Cmd::new("findmnt").args(["-J", "-o", "FSTYPE,SOURCE,TARGET", "-T"]).arg(&path);
    let text = cmd.timeout(Duration::from_secs(10)).stdout_string()?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("cannot understand `findmnt`")?;
    let field = |name: &str| answer["filesystems"][0][name].as_str().unwrap_or_default().to_owned();
    if field("fstype") != "zfs" {
        let hint = "`zfs list` names the datasets";
        return Err(Hinted::new(format!("`{}` does not lie on ZFS", path.display()), hint).into());
    }
    // `rpool/srv[/dir]` is what a bind mount says.
    let source = field("source");
    let dataset = source.split_once('[').map_or(source.as_str(), |(dataset, _)| dataset).to_owned();
    can_be_asked(&dataset)?;
    Ok(Place { dataset, mounted_at: field("target") })
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

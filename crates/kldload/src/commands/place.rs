//! Which dataset a word of the command line stands for.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_ui::Hinted;

/// Where a path lies.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dataset: String,
    pub(crate) mounted_at: String,
}

/// The dataset that a word stands for: itself, or the one that a path (`/…`, `./…`) lies on.
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
    Ok(word.to_owned())
}

/// Where something that is there lies.
pub(crate) fn place(path: &Path) -> anyhow::Result<Place> {
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
    Ok(Place { dataset, mounted_at: field("target") })
}

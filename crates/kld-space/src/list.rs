//! Datasets and their snapshots, from one `zfs list`.

use std::time::Duration;

use kld_host::{Cmd, ParseError};
use serde::Serialize;

/// Tens of thousands of snapshots on slow disks take their time.
const DEADLINE: Duration = Duration::from_secs(600);
const COLUMNS: &str = "name,type,used,available,referenced,logicalused,logicalreferenced,compressratio,usedbysnapshots,\
    usedbydataset,usedbychildren,usedbyrefreservation,reservation,refreservation,quota,refquota,creation,origin,clones";

/// What a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It holds files.
    Filesystem,
    /// It is a disk.
    Volume,
}

/// A snapshot, as far as space goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// What stands behind the `@`.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes that it refers to.
    pub referenced: u64,
    /// Datasets that were cloned from it, and keep it from going.
    pub clones: Vec<String>,
}

/// A file system or a volume. Sizes are bytes; a limit of `None` is no limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are those of zfsprops(7)")]
pub struct Dataset {
    pub name: String,
    pub kind: Kind,
    pub used: u64,
    pub available: u64,
    pub referenced: u64,
    pub logicalused: u64,
    pub logicalreferenced: u64,
    pub compressratio: f64,
    pub usedbysnapshots: u64,
    pub usedbydataset: u64,
    pub usedbychildren: u64,
    pub usedbyrefreservation: u64,
    pub reservation: Option<u64>,
    pub refreservation: Option<u64>,
    pub quota: Option<u64>,
    pub refquota: Option<u64>,
    /// The snapshot that it was cloned from.
    pub origin: Option<String>,
    /// Oldest first.
    #[serde(skip)]
    pub snapshots: Vec<Snapshot>,
}

/// What has come since the oldest snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// That snapshot.
    pub since: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How many bytes more the dataset refers to now, or fewer.
    pub bytes: i64,
}

impl Dataset {
    /// How it has grown; `None` without a snapshot.
    pub fn growth(&self) -> Option<Growth> {
        // Of several in one second the first is the oldest.
        let oldest = self.snapshots.iter().min_by_key(|snapshot| snapshot.created)?;
        let bytes = i128::from(self.referenced) - i128::from(oldest.referenced);
        let bytes = i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX });
        Some(Growth { since: oldest.name.clone(), created: oldest.created, bytes })
    }

    /// What this dataset adds to its parent's `used`: what it uses, or what is kept for it when that is more.
    pub fn claims(&self) -> u64 {
        self.used.max(self.reservation.unwrap_or(0))
    }
}

/// These datasets and all below them, with their snapshots; all of the machine when there is none. Names that begin with
/// `-` cannot be those of pools, and so of datasets.
pub fn list_cmd(datasets: &[String]) -> Cmd {
    Cmd::new("zfs")
        .args(["list", "-Hp", "-r", "-t", "filesystem,volume,snapshot", "-o", COLUMNS])
        .args(datasets)
        .timeout(DEADLINE)
}

/// Reads the output of [`list_cmd`]: each dataset once, in the order of the text.
///
/// # Errors
/// When a line has other columns, or a snapshot comes without its dataset.
pub fn parse_list(text: &str) -> Result<Vec<Dataset>, ParseError> {
    let error = |line: &str| ParseError {
        tool: "zfs list",
        reason: format!("the columns of a dataset expected in `{line}`"),
    };
    let mut datasets: Vec<Dataset> = Vec::new();
    for line in text.lines() {
        let row = Row::parse(line).ok_or_else(|| error(line))?;
        match row {
            Row::Dataset(dataset) => datasets.push(*dataset),
            Row::Snapshot(of, snapshot) => {
                // `zfs list` has the snapshots of a dataset behind it, oldest first.
                let dataset = datasets.last_mut().filter(|dataset| dataset.name == of);
                dataset.ok_or_else(|| error(line))?.snapshots.push(snapshot);
            }
        }
    }
    Ok(datasets)
}

enum Row<'a> {
    Dataset(Box<Dataset>),
    Snapshot(&'a str, Snapshot),
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut columns = line.split('\t');
        let mut text = || columns.next();
        // A property that does not apply is `-`.
        let number = |text: &str| match text {
            "-" | "none" => Some(0),
            value => value.parse::<u64>().ok(),
        };
        let (name, kind) = (text()?, text()?);
        let (used, available, referenced) = (number(text()?)?, number(text()?)?, number(text()?)?);
        let (logicalused, logicalreferenced) = (number(text()?)?, number(text()?)?);
        let compressratio = text()?.trim_end_matches('x').parse().ok()?;
        let mut number = || number(text()?);
        let (usedbysnapshots, usedbydataset) = (number()?, number()?);
        let (usedbychildren, usedbyrefreservation) = (number()?, number()?);
        let mut limit = || number().map(|value| Some(value).filter(|value| *value > 0));
        let (reservation, refreservation, quota, refquota) = (limit()?, limit()?, limit()?, limit()?);
        let created = number()?;
        let said = |text: &'a str| Some(text).filter(|text| !matches!(*text, "" | "-"));
        let (origin, clones) = (said(columns.next()?), said(columns.next()?));
        if columns.next().is_some() {
            return None;
        }
        if kind == "snapshot" {
            let (dataset, name) = name.split_once('@')?;
            let clones = clones.into_iter().flat_map(|clones| clones.split(',')).map(str::to_owned).collect();
            let snapshot = Snapshot { name: name.to_owned(), created, referenced, clones };
            return Some(Self::Snapshot(dataset, snapshot));
        }
        let kind = match kind {
            "filesystem" => Kind::Filesystem,
            "volume" => Kind::Volume,
            _ => return None,
        };
        Some(Self::Dataset(Box::new(Dataset {
            name: name.to_owned(),
            kind,
            used,
            available,
            referenced,
            logicalused,
            logicalreferenced,
            compressratio,
            usedbysnapshots,
            usedbydataset,
            usedbychildren,
            usedbyrefreservation,
            reservation,
            refreservation,
            quota,
            refquota,
            origin: origin.map(str::to_owned),
            snapshots: Vec::new(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_command_asks_for_everything() {
        expect![[r#"zfs list -Hp -r -t filesystem,volume,snapshot -o name,type,used,available,referenced,logicalused,logicalreferenced,compressratio,usedbysnapshots,usedbydataset,usedbychildren,usedbyrefreservation,reservation,refreservation,quota,refquota,creation,origin,clones 'tank/a b' rpool"#]]
            .assert_eq(&list_cmd(&["tank/a b".to_owned(), "rpool".to_owned()]).to_string());
    }

    #[test]
    fn reads_datasets_volumes_and_snapshots() {
        let text = "t/a b\tfilesystem\t900\t5000\t300\t1800\t600\t2.00\t200\t300\t400\t0\t0\t0\t1000\tnone\t50\t-\t-\n\
                    t/a b@one:1\tsnapshot\t90\t-\t100\t-\t200\t2.00\t-\t-\t-\t-\t-\t-\t-\t-\t60\t-\tt/c,t/d\n\
                    t/a b@two\tsnapshot\t90\t-\t350\t-\t700\t2.00\t-\t-\t-\t-\t-\t-\t-\t-\t70\t-\t\n\
                    t/vol\tvolume\t64\t5000\t64\t64\t64\t1.00\t0\t32\t0\t32\t0\t64\t-\t-\t51\tt/a b@one:1\t-\n";
        let found = parse_list(text).expect("good");
        let [dataset, volume] = &found[..] else { panic!("{found:?}") };
        assert_eq!((dataset.quota, dataset.refquota, dataset.snapshots.len()), (Some(1000), None, 2));
        assert_eq!(dataset.snapshots[0].clones, ["t/c", "t/d"]);
        let growth = Growth { since: "one:1".to_owned(), created: 60, bytes: 200 };
        assert_eq!((dataset.growth(), volume.growth()), (Some(growth), None));
        assert_eq!((volume.kind, volume.origin.as_deref()), (Kind::Volume, Some("t/a b@one:1")));
        for bad in
            ["t", "t/a@x\tsnapshot", &text.lines().nth(1).expect("there is one").replace("t/a b", "t/b")]
        {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }
}

//! Snapshots as `zfs list` knows them, and the commands that make them and go back.

use std::time::Duration;

use kld_host::{Cmd, Output, ParseError};
use serde::Serialize;

use crate::name::short_of;

/// Thousands of snapshots on a busy pool take their time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);
const COLUMNS: &str = "name,creation,createtxg,used,referenced,written,userrefs,clones";

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its dataset.
    pub dataset: String,
    /// What stands behind the `@`.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The transaction group: the order in which snapshots were made.
    pub txg: u64,
    /// Bytes that only this snapshot holds.
    pub used: u64,
    /// Bytes that it refers to.
    pub referenced: u64,
    /// Bytes that were written between the snapshot before it and this one.
    pub written: u64,
    /// How many hold it.
    pub holds: u64,
    /// Datasets that were cloned from it.
    pub clones: Vec<String>,
}

impl Snapshot {
    /// `tank/db@pre-20261127-041300`.
    pub fn full(&self) -> String {
        format!("{}@{}", self.dataset, self.name)
    }

    /// `pre`, when it is one of ours.
    pub fn short(&self) -> Option<&str> {
        short_of(&self.name)
    }
}

/// The snapshots of these datasets, and of all below when `recursive`.
pub fn list_cmd(datasets: &[String], recursive: bool) -> Cmd {
    list(datasets, recursive, COLUMNS)
}

/// These snapshots, by their full names. Its output is read with [`parse_these`].
pub fn list_these_cmd(full_names: &[String]) -> Cmd {
    let list = Cmd::new("zfs").args(["list", "-Hp", "-t", "snapshot", "-o", COLUMNS]).args(full_names);
    // It says so of each that is not there, and lists the others.
    list.accept(1).timeout(DEADLINE)
}

/// Reads the output of [`list_these_cmd`]. Those that are gone are left out.
///
/// # Errors
/// When a line has other columns, or ZFS says something else than that one is gone.
pub fn parse_these(output: &Output) -> Result<Vec<Snapshot>, ParseError> {
    match output.stderr.lines().find(|line| !is_gone(line)) {
        Some(line) if output.code != 0 => Err(ParseError { tool: "zfs list", reason: line.to_owned() }),
        _ => parse_list(&String::from_utf8_lossy(&output.stdout)),
    }
}

/// Whether ZFS says in this line that what was named is not there.
pub fn is_gone(line: &str) -> bool {
    line.ends_with(" does not exist") || line.starts_with("could not find any snapshots to destroy")
}

/// As [`list_cmd`], but for names and the order alone, which ZFS since 2.2 knows without opening any of them: four times as fast.
/// Its output is read with [`parse_names`].
pub fn names_cmd(datasets: &[String], recursive: bool) -> Cmd {
    list(datasets, recursive, "name,createtxg")
}

fn list(datasets: &[String], recursive: bool, columns: &str) -> Cmd {
    let depth: &[&str] = if recursive { &["-r"] } else { &["-d", "1"] };
    Cmd::new("zfs")
        .args(["list", "-Hp", "-t", "snapshot"])
        .args(depth)
        .args(["-o", columns, "-s", "createtxg"])
        .args(datasets)
        .timeout(DEADLINE)
}

/// Reads the output of [`names_cmd`]. What was not asked is zero: sizes, times, holds and clones.
///
/// # Errors
/// When a line has other columns.
pub fn parse_names(text: &str) -> Result<Vec<Snapshot>, ParseError> {
    let one = |line: &str| {
        let error = || ParseError {
            tool: "zfs list",
            reason: format!("the name of a snapshot and a number expected in `{line}`"),
        };
        let (full, txg) = line.split_once('\t').ok_or_else(error)?;
        let (dataset, name) = full.split_once('@').ok_or_else(error)?;
        Ok(Snapshot {
            dataset: dataset.to_owned(),
            name: name.to_owned(),
            created: 0,
            txg: txg.trim().parse().map_err(|_| error())?,
            used: 0,
            referenced: 0,
            written: 0,
            holds: 0,
            clones: Vec::new(),
        })
    };
    text.lines().map(one).collect()
}

/// Reads the output of [`list_cmd`].
///
/// # Errors
/// When a line has other columns.
pub fn parse_list(text: &str) -> Result<Vec<Snapshot>, ParseError> {
    text.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Snapshot, ParseError> {
    let error = || ParseError {
        tool: "zfs list",
        reason: format!("eight columns of a snapshot expected in `{line}`"),
    };
    let columns: Vec<&str> = line.split('\t').collect();
    let [name, created, txg, used, referenced, written, holds, clones] = columns[..] else {
        return Err(error());
    };
    let number = |text: &str| if text == "-" { Ok(0) } else { text.parse::<u64>().map_err(|_| error()) };
    let (dataset, name) = name.split_once('@').ok_or_else(error)?;
    Ok(Snapshot {
        dataset: dataset.to_owned(),
        name: name.to_owned(),
        created: number(created)?,
        txg: number(txg)?,
        used: number(used)?,
        referenced: number(referenced)?,
        written: number(written)?,
        holds: number(holds)?,
        clones: clones.split(',').filter(|clone| !matches!(*clone, "" | "-")).map(str::to_owned).collect(),
    })
}

/// Makes all of these in one transaction group: either all of them exist, from one moment on, or none.
pub fn snapshot_cmd(full_names: &[String], recursive: bool) -> Cmd {
    let recursive: &[&str] = if recursive { &["-r"] } else { &[] };
    Cmd::new("zfs").arg("snapshot").args(recursive).args(full_names).timeout(DEADLINE)
}

/// Goes back; `destroying` takes newer snapshots with it.
pub fn rollback_cmd(full_name: &str, destroying: bool) -> Cmd {
    let newer: &[&str] = if destroying { &["-r"] } else { &[] };
    Cmd::new("zfs").arg("rollback").args(newer).arg(full_name).timeout(DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destroy::{destroy_cmd, destroy_together_cmd};
    use expect_test::expect;

    #[test]
    fn commands_are_what_an_admin_would_type() {
        let names = ["tank/a b@-x-20261127-041300".to_owned(), "tank/c@x".to_owned()];
        let commands = [
            list_cmd(&["tank/a b".to_owned()], false),
            list_cmd(&["tank".to_owned()], true),
            names_cmd(&["tank".to_owned()], true),
            list_these_cmd(&names),
            snapshot_cmd(&names, false),
            snapshot_cmd(&names[1..], true),
            rollback_cmd("tank/c@x", false),
            rollback_cmd("tank/c@x", true),
            destroy_together_cmd(
                "tank",
                &parse_list("tank/a b@s0\t0\t1\t0\t0\t0\t0\t\ntank/c@s1\t0\t2\t0\t0\t0\t0\t\n")
                    .expect("good"),
            ),
            destroy_cmd("tank/a", &["s0".to_owned(), "s1".to_owned()]),
        ];
        let text: Vec<String> = commands.iter().map(ToString::to_string).collect();
        expect![[r#"
            zfs list -Hp -t snapshot -d 1 -o name,creation,createtxg,used,referenced,written,userrefs,clones -s createtxg 'tank/a b'
            zfs list -Hp -t snapshot -r -o name,creation,createtxg,used,referenced,written,userrefs,clones -s createtxg tank
            zfs list -Hp -t snapshot -r -o name,createtxg -s createtxg tank
            zfs list -Hp -t snapshot -o name,creation,createtxg,used,referenced,written,userrefs,clones 'tank/a b@-x-20261127-041300' tank/c@x
            zfs snapshot 'tank/a b@-x-20261127-041300' tank/c@x
            zfs snapshot -r tank/c@x
            zfs rollback tank/c@x
            zfs rollback -r tank/c@x
            zfs program -j tank - 'tank/a b@s0' tank/c@s1
            zfs destroy -vp tank/a@s0,s1"#]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn reads_lists() {
        let text = "t/a b@pre-20261127-041300\t1795752780\t77\t4096\t8192\t512\t1\tt/x,t/y\nt/a b@z\t5\t8\t0\t0\t0\t0\t\n";
        let snapshots = parse_list(text).expect("good");
        assert_eq!((snapshots[0].dataset.as_str(), snapshots[0].short()), ("t/a b", Some("pre")));
        assert_eq!((snapshots[0].holds, snapshots[0].clones.len(), snapshots[1].clones.len()), (1, 2, 0));
        assert_eq!(snapshots[1].full(), "t/a b@z");
        let names = parse_names("t/a b@pre-20261127-041300\t77\nt/a b@z\t8\n").expect("good");
        assert_eq!((names[0].full(), names[0].txg), (snapshots[0].full(), 77));
        assert!(parse_names("t/a\t1\n").is_err() && parse_names("t/a@b\n").is_err());
        assert!(parse_list("t/a\t1\n").is_err() && parse_list("t/a\t1\t2\t3\t4\t5\t6\t7\n").is_err());
    }
}

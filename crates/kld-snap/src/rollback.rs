//! What going back to a snapshot takes away, and what stands in its way.

use kld_host::mounts::Mount;
use serde::Serialize;

use crate::bookmark::Bookmark;
use crate::snapshot::Snapshot;

/// Going back to one snapshot of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollback {
    /// Where to.
    pub to: Snapshot,
    /// Snapshots that are newer and go with it, oldest first.
    pub newer: Vec<Snapshot>,
    /// Bookmarks of newer snapshots, which go with it, oldest first: replication cannot go on from them any more.
    pub newer_bookmarks: Vec<Bookmark>,
    /// What must be gone before.
    pub blockers: Vec<Blocker>,
}

/// What keeps a newer snapshot from going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocker {
    /// A dataset was cloned from it.
    Clone {
        /// The snapshot.
        snapshot: String,
        /// The clone.
        dataset: String,
    },
    /// Somebody holds it.
    Held {
        /// The snapshot.
        snapshot: String,
    },
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clone { snapshot, dataset } => write!(f, "`{dataset}` is a clone of `{snapshot}`"),
            Self::Held { snapshot } => write!(f, "`{snapshot}` is held"),
        }
    }
}

/// A system does not go back in its place: nothing may change under the one that runs, and the kernels of the others lie
/// beside them, where no snapshot brings them back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot go back to `{snapshot}`: `{dataset}` is a system")]
pub struct IsSystem {
    dataset: String,
    snapshot: String,
}

impl IsSystem {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let Self { snapshot, .. } = self;
        Some(format!(
            "`kbe create NAME --from {snapshot}` makes one as it was, `kbe activate NAME` starts it"
        ))
    }
}

/// That the dataset of this snapshot is no system: neither is it to be mounted on `/`, nor is it.
///
/// # Errors
/// When it is one.
pub fn is_no_system(to: &Snapshot, mountpoint: &str, mounts: &[Mount]) -> Result<(), IsSystem> {
    let runs =
        mounts.iter().any(|mount| mount.point == "/" && mount.kind == "zfs" && mount.source == to.dataset);
    if runs || mountpoint == "/" {
        return Err(IsSystem { dataset: to.dataset.clone(), snapshot: to.full() });
    }
    Ok(())
}

/// Plans it. `snapshots` and `bookmarks` are all of the dataset's.
pub fn rollback(snapshots: &[Snapshot], bookmarks: &[Bookmark], to: &Snapshot) -> Rollback {
    let is_newer = |snapshot: &&Snapshot| snapshot.dataset == to.dataset && snapshot.txg > to.txg;
    let mut newer: Vec<Snapshot> = snapshots.iter().filter(is_newer).cloned().collect();
    newer.sort_by_key(|snapshot| snapshot.txg);
    let is_newer = |bookmark: &&Bookmark| bookmark.dataset == to.dataset && bookmark.txg > to.txg;
    let mut newer_bookmarks: Vec<Bookmark> = bookmarks.iter().filter(is_newer).cloned().collect();
    newer_bookmarks.sort_by_key(|bookmark| bookmark.txg);
    let blockers = newer.iter().flat_map(|snapshot| {
        let clones = snapshot.clones.iter();
        let clones =
            clones.map(|dataset| Blocker::Clone { snapshot: snapshot.full(), dataset: dataset.clone() });
        clones.chain((snapshot.holds > 0).then(|| Blocker::Held { snapshot: snapshot.full() }))
    });
    Rollback { to: to.clone(), blockers: blockers.collect(), newer, newer_bookmarks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bookmark::parse_bookmarks;
    use crate::snapshot::parse_list;

    #[test]
    fn newer_snapshots_go_unless_something_needs_them() {
        let text = "t/a@one\t1\t10\t0\t0\t0\t1\tt/old\nt/a@two\t2\t20\t0\t0\t0\t0\t\nt/a@three\t3\t30\t0\t0\t0\t2\tt/x,t/y\nt/b@four\t4\t40\t0\t0\t0\t1\t\n";
        let all = parse_list(text).expect("good");
        let plan = rollback(&all, &[], &all[0]);
        assert_eq!(plan.newer.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["two", "three"]);
        let said: Vec<String> = plan.blockers.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["`t/x` is a clone of `t/a@three`", "`t/y` is a clone of `t/a@three`", "`t/a@three` is held"]
        );
        assert!(rollback(&all, &[], &all[2]).newer.is_empty());
    }

    #[test]
    fn newer_bookmarks_go_though_no_snapshot_does() {
        let all = parse_list("t/a@one\t1\t10\t0\t0\t0\t0\t\n").expect("good");
        // The second is of the snapshot itself.
        let bookmarks = "t/a#late\t3\t30\nt/a#one\t1\t10\nt/a#next\t2\t11\nt/b#other\t4\t40\nt/a#old\t0\t9\n";
        let plan = rollback(&all, &parse_bookmarks(bookmarks).expect("good"), &all[0]);
        assert!(plan.newer.is_empty() && plan.blockers.is_empty());
        let names: Vec<&str> = plan.newer_bookmarks.iter().map(|bookmark| bookmark.name.as_str()).collect();
        assert_eq!(names, ["next", "late"]);
    }

    #[test]
    fn systems_do_not_go_back_in_their_place() {
        let mounts =
            kld_host::mounts::parse("22 1 0:23 / / rw - zfs t/old rw\n40 22 0:40 / /srv rw - zfs t/a rw\n");
        let at = |dataset: &str| Snapshot {
            dataset: dataset.to_owned(),
            ..parse_list("t/a@one\t1\t10\t0\t0\t0\t0\t\n").expect("good").remove(0)
        };
        assert_eq!(is_no_system(&at("t/a"), "/srv", &mounts), Ok(()));
        // One that does not run, and one that `mount` has mounted.
        let error = is_no_system(&at("t/a"), "/", &mounts).expect_err("a system");
        assert_eq!(error.to_string(), "cannot go back to `t/a@one`: `t/a` is a system");
        assert!(error.hint().is_some_and(|hint| hint.contains("`kbe create NAME --from t/a@one`")));
        assert!(is_no_system(&at("t/old"), "legacy", &mounts).is_err());
    }
}

//! Space by dataset: what each takes itself, with its snapshots and with everything below it.

use crate::format::blkptr::BlockPointer;
use crate::write::error::WriteError;
use crate::write::fs::Version;
use crate::write::plan::Planned;
use crate::write::space::{Deflation, Space};

/// Space of a directory and everything below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) used: u64,
    pub(crate) compressed: u64,
    pub(crate) uncompressed: u64,
    pub(crate) quota: u64,
    pub(crate) reserved: u64,
    pub(crate) head: u64,
    pub(crate) snapshots: u64,
    pub(crate) child: u64,
    pub(crate) child_reserved: u64,
    pub(crate) head_reserved: u64,
}

/// What a dataset takes with its snapshots. What a clone has from its origin is charged to the origin's dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Bytes that its head refers to.
    pub(crate) referenced: u64,
    /// What its head has of its own.
    pub(crate) head: Space,
    /// What only snapshots still hold.
    pub(crate) snapshots: Space,
    /// Bytes that the head holds and no snapshot.
    pub(crate) unique: u64,
}

impl Own {
    /// `origin` is what a clone descends from, and the transaction group of that snapshot.
    pub(crate) fn of(
        planned: &Planned,
        versions: &[Version],
        origin: Option<(&Version, u64)>,
        deflation: &Deflation,
    ) -> Own {
        let after = origin.map_or(0, |(_, txg)| txg);
        let dead = || versions.iter().flat_map(|version| &version.dead);
        let head = planned.states.last().map_or(0, |state| *state);
        let space = versions[head].space;
        let is_head_alone = planned.states.iter().filter(|state| **state == head).count() == 1;
        let before = match head.checked_sub(1) {
            Some(before) => Some(&versions[before]),
            None => origin.map(|(version, _)| version),
        };
        let born = space.referenced + total(&versions[head].dead, deflation).referenced
            - before.map_or(0, |before| before.space.referenced);
        // Of the origin's blocks the head has those that no version let go of.
        let inherited = origin.map_or(Space::default(), |(version, _)| {
            version.space - total(dead().filter(|pointer| pointer.birth() <= after), deflation)
        });
        Own {
            referenced: space.referenced,
            head: space - inherited,
            snapshots: total(dead().filter(|pointer| pointer.birth() > after), deflation),
            unique: if is_head_alone { born } else { 0 },
        }
    }
}

/// What the blocks behind pointers take together.
pub(crate) fn total<'p>(
    pointers: impl IntoIterator<Item = &'p BlockPointer>,
    deflation: &Deflation,
) -> Space {
    pointers
        .into_iter()
        .map(|pointer| Space::of(pointer, deflation))
        .fold(Space::default(), |sum, space| sum + space)
}

/// Space of each dataset of the plan with everything below it. The pool's own objects, `mos`, count as a child of the root.
///
/// A reservation makes a dataset count in its parent with at least what it reserves.
pub(crate) fn totals(plan: &[Planned], own: &[Own], mos: Space) -> Vec<Totals> {
    let mut totals: Vec<Totals> = plan
        .iter()
        .zip(own)
        .map(|(planned, own)| {
            // What a snapshot also holds is not unique to the head: it would have to be kept twice.
            let head_reserved = planned.bytes("refreservation").unwrap_or(0).saturating_sub(own.unique);
            let all = own.head + own.snapshots;
            Totals {
                used: all.referenced + head_reserved,
                compressed: all.compressed,
                uncompressed: all.uncompressed,
                quota: planned.bytes("quota").unwrap_or(0),
                reserved: planned.bytes("reservation").unwrap_or(0),
                head: own.head.referenced,
                snapshots: own.snapshots.referenced,
                head_reserved,
                ..Totals::default()
            }
        })
        .collect();
    if let Some(root) = totals.first_mut() {
        root.used += mos.referenced;
        root.compressed += mos.compressed;
        root.uncompressed += mos.uncompressed;
        root.child += mos.referenced;
    }
    // Children come after their parents.
    for i in (1..plan.len()).rev() {
        let child = totals[i];
        if let Some(parent) = plan[i].parent {
            let parent = &mut totals[parent];
            parent.used += child.used.max(child.reserved);
            parent.compressed += child.compressed;
            parent.uncompressed += child.uncompressed;
            parent.child += child.used;
            parent.child_reserved += child.reserved.saturating_sub(child.used);
        }
    }
    totals
}

/// Fails when a dataset uses more than it may.
pub(crate) fn check_quotas(plan: &[Planned], own: &[Own], totals: &[Totals]) -> Result<(), WriteError> {
    for ((planned, own), totals) in plan.iter().zip(own).zip(totals) {
        for (property, used) in [("quota", totals.used), ("refquota", own.referenced)] {
            if let Some(limit) = planned.bytes(property)
                && used > limit
            {
                return Err(WriteError::OverQuota {
                    dataset: planned.name.to_string(),
                    property,
                    limit,
                    used,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DatasetSpec, PoolSpec};
    use crate::write::plan::plan;

    #[test]
    fn reservations_count_in_the_parent() {
        let mut spec = PoolSpec::new("p".parse().unwrap(), 1 << 30, [0; 32]);
        for (name, properties) in [
            ("p/a", &[("reservation", "1000"), ("quota", "3000")][..]),
            ("p/b", &[("refreservation", "500")]),
            ("p/c", &[("refreservation", "500")]),
        ] {
            let mut dataset = DatasetSpec::new(name.parse().unwrap());
            properties.iter().for_each(|(name, value)| dataset.properties.set(name, value).unwrap());
            spec.datasets.push(dataset);
        }
        spec.datasets[2].snapshots.push("s".into());
        let plan = plan(&spec).unwrap();
        let own = |referenced| {
            let head = Space { referenced, compressed: 1, uncompressed: 2 };
            let mut own = [Own { referenced, head, unique: referenced, ..Own::default() }; 4];
            own[3].unique = 0;
            own
        };
        let large = own(5000);
        let own = own(100);
        let totals = totals(&plan, &own, Space { referenced: 7, compressed: 0, uncompressed: 0 });
        assert_eq!(
            totals.iter().map(|t| t.used).collect::<Vec<_>>(),
            [100 + 7 + 1000 + 500 + 600, 100, 500, 600]
        );
        let root = totals[0];
        assert_eq!(
            (root.head, root.child, root.child_reserved, root.head_reserved),
            (100, 7 + 100 + 500 + 600, 900, 0)
        );
        assert_eq!((totals[1].quota, totals[1].reserved), (3000, 1000));
        assert_eq!((totals[2].head_reserved, totals[3].head_reserved), (400, 500));
        assert!(check_quotas(&plan, &own, &totals).is_ok());
        let error = check_quotas(&plan, &large, &super::totals(&plan, &large, Space::default())).unwrap_err();
        assert_eq!(error.to_string(), "`quota` of `p/a` is 3000 bytes, less than the 5000 bytes it uses");
    }
}

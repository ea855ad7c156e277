//! Clones: which snapshot a dataset descends from, what it takes over from there, and in which order to write them all.

use std::collections::BTreeMap;

use crate::name::DatasetName;
use crate::spec::{Content, DatasetSpec};
use crate::write::error::WriteError;
use crate::write::fs::Version;
use crate::write::plan::{Planned, states};
use crate::write::txg;

/// A snapshot that has a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// Its dataset's place in the plan.
    pub(crate) dataset: usize,
    /// Its place among that dataset's snapshots.
    pub(crate) snapshot: usize,
}

/// Gives clones their origins, and all that follows from them.
pub(crate) fn resolve<'a>(
    plan: &mut [Planned<'a>],
    given: &BTreeMap<&DatasetName, &'a DatasetSpec>,
) -> Result<(), WriteError> {
    for at in 0..plan.len() {
        let Some(wanted) = given.get(&plan[at].name).and_then(|dataset| dataset.origin.as_ref()) else {
            continue;
        };
        let found = plan.iter().enumerate().find(|(_, planned)| planned.name == *wanted.dataset());
        let found = found.and_then(|(dataset, planned)| {
            let snapshot =
                planned.snapshots.iter().position(|snapshot| snapshot.name == wanted.snapshot())?;
            Some(Origin { dataset, snapshot })
        });
        plan[at].origin = Some(found.ok_or_else(|| WriteError::NoSnapshot {
            what: plan[at].name.to_string(),
            snapshot: wanted.to_string(),
        })?);
    }
    if let Some(at) = (0..plan.len()).find(|at| line(plan, *at).skip(1).any(|origin| origin == *at)) {
        return Err(WriteError::CircularOrigin(plan[at].name.to_string()));
    }
    for at in writing_order(plan) {
        let (Some(origin), Some(dataset)) = (plan[at].origin, given.get(&plan[at].name)) else { continue };
        let (versions, states) = states(dataset, content(plan, &plan[at]));
        let first_txg = plan[origin.dataset].state_txg(origin.snapshot) + txg::CLONE_AFTER;
        let clone = &mut plan[at];
        (clone.versions, clone.states, clone.first_txg) = (versions, states, first_txg);
    }
    // Of all that descends from one dataset each version may share with the others.
    let mut written: BTreeMap<usize, usize> = BTreeMap::new();
    let eldest = |plan: &[Planned], at| line(plan, at).last().unwrap_or(at);
    for at in 0..plan.len() {
        let own = plan[at].versions.len() - usize::from(starts_as_origin(plan, &plan[at]));
        *written.entry(eldest(plan, at)).or_default() += own;
    }
    for at in 0..plan.len() {
        plan[at].remembers = written[&eldest(plan, at)] > 1;
    }
    Ok(())
}

/// A dataset, the dataset of its origin, and so on.
fn line(plan: &[Planned], at: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(at), |at| plan[*at].origin.map(|origin| origin.dataset))
        // One more than there are is enough to notice a circle.
        .take(plan.len() + 1)
}

/// Places in the plan so that origins come before their clones; otherwise as in the plan.
pub(crate) fn writing_order(plan: &[Planned]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|at| line(plan, *at).count());
    order
}

/// What the origin of a clone holds.
pub(crate) fn content<'a>(plan: &[Planned<'a>], clone: &Planned<'a>) -> Option<&'a Content> {
    let origin = clone.origin?;
    let dataset = &plan[origin.dataset];
    Some(dataset.versions[dataset.states[origin.snapshot]])
}

/// Whether the oldest version of a dataset is that of its origin, which is in the pool already.
pub(crate) fn starts_as_origin(plan: &[Planned], planned: &Planned) -> bool {
    content(plan, planned).is_some_and(|content| std::ptr::eq(content, planned.versions[0]))
}

/// The clones of a snapshot: their places in the plan.
pub(crate) fn clones(plan: &[Planned], of: Origin) -> Vec<usize> {
    (0..plan.len()).filter(|at| plan[*at].origin == Some(of)).collect()
}

/// The version that a clone starts from, and the transaction group of that snapshot; `contents` are the versions of each
/// dataset of the plan.
pub(crate) fn base<'c>(
    plan: &[Planned],
    contents: &'c [Vec<Version>],
    clone: &Planned,
) -> Option<(&'c Version, u64)> {
    let Origin { dataset, snapshot } = clone.origin?;
    let version = plan[dataset].states[snapshot];
    Some((&contents[dataset][version], plan[dataset].state_txg(snapshot)))
}

/// Transaction group of the snapshot before a state of a dataset.
pub(crate) fn previous_txg(plan: &[Planned], planned: &Planned, state: usize) -> u64 {
    match (state.checked_sub(1), planned.origin) {
        (Some(before), _) => planned.state_txg(before),
        (None, Some(Origin { dataset, snapshot })) => plan[dataset].state_txg(snapshot),
        (None, None) => txg::ORIGIN,
    }
}

/// The keys of the deadlist of a state: the transaction groups of all older snapshots but the newest of them (OpenZFS adds
/// a key when the next one is taken), also of those that a clone shares with its origin.
pub(crate) fn deadlist_keys(plan: &[Planned], planned: &Planned, state: usize) -> Vec<u64> {
    let mut keys = match planned.origin {
        None => vec![0],
        Some(Origin { dataset, snapshot }) => deadlist_keys(plan, &plan[dataset], snapshot + 1),
    };
    keys.extend((0..state).map(|state| previous_txg(plan, planned, state)));
    keys
}

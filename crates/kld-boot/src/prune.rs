//! Which environments go when there are too many, or too little room.

use crate::action::Freed;
use crate::destroy::plan_destroy;
use crate::look::{Environment, Looked, Maker};

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many environments, the newest.
    Newest(usize),
    /// So many free bytes in the pool.
    Free(u64),
}

/// An environment that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Its name.
    pub name: String,
    /// What comes free with it.
    pub frees: Freed,
}

/// The environments that go, oldest first. Never one that must stay, one without a boot entry (nobody knows what it is
/// for), or one that cannot be destroyed.
pub fn choose(looked: &Looked, keep: Keep) -> Vec<Pruned> {
    let (mut left, mut free) = (looked.environments.len(), looked.available);
    let mut chosen = Vec::new();
    for environment in oldest_first(looked) {
        let is_enough = match keep {
            Keep::Newest(count) => left <= count,
            Keep::Free(bytes) => free >= bytes,
        };
        if is_enough {
            break;
        }
        if let Some(pruned) = may_go(looked, environment) {
            left -= 1;
            free = free.saturating_add(pruned.frees.bytes);
            chosen.push(pruned);
        }
    }
    chosen
}

/// The environments that applies have made but for the newest `keep`, oldest first. Never those of persons, and none that
/// [`choose`] would leave.
pub fn outdated(looked: &Looked, keep: usize) -> Vec<Pruned> {
    let made: Vec<_> = oldest_first(looked).into_iter().filter(|of| of.maker == Maker::Apply).collect();
    let old = &made[..made.len().saturating_sub(keep)];
    old.iter().filter_map(|environment| may_go(looked, environment)).collect()
}

fn oldest_first(looked: &Looked) -> Vec<&Environment> {
    let mut oldest: Vec<_> = looked.environments.iter().collect();
    oldest.sort_by_key(|environment| (environment.created, &environment.dataset));
    oldest
}

fn may_go(looked: &Looked, environment: &Environment) -> Option<Pruned> {
    if environment.unfinished.is_some() || looked.entry(&environment.dataset).is_none() {
        return None;
    }
    let plan = plan_destroy(looked, environment.name()).ok()?;
    Some(Pruned { name: environment.name().to_owned(), frees: plan.frees })
}

//! Which environments go when there are too many, or too little room.

use crate::action::Freed;
use crate::destroy::plan_destroy;
use crate::look::Looked;

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
    let mut oldest: Vec<_> = looked.environments.iter().collect();
    oldest.sort_by_key(|environment| (environment.created, &environment.dataset));
    let mut chosen = Vec::new();
    for environment in oldest {
        let is_enough = match keep {
            Keep::Newest(count) => left <= count,
            Keep::Free(bytes) => free >= bytes,
        };
        if is_enough {
            break;
        }
        if environment.unfinished.is_some() || looked.entry(&environment.dataset).is_none() {
            continue;
        }
        if let Ok(plan) = plan_destroy(looked, environment.name()) {
            left -= 1;
            free = free.saturating_add(plan.frees.bytes);
            chosen.push(Pruned { name: environment.name().to_owned(), frees: plan.frees });
        }
    }
    chosen
}

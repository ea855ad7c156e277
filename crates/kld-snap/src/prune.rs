//! Which snapshots a policy keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use kld_disk::esp::civil_from_days;
use serde::Serialize;

use crate::name::stamped;
use crate::snapshot::Snapshot;

/// How many are kept: the newest `last`, and the newest of each of the newest so many hours, days, … that have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Keep {
    pub last: usize,
    pub hourly: usize,
    pub daily: usize,
    pub weekly: usize,
    pub monthly: usize,
    pub yearly: usize,
}

/// A policy that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not what can be kept: {reason}")]
pub struct KeepError {
    text: String,
    reason: String,
}

impl KeepError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        Some("for example `--keep last=5,daily=7,monthly=12`; each counts from the newest".to_owned())
    }
}

impl FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        let error = |reason: String| KeepError { text: text.to_owned(), reason };
        let (mut keep, mut seen) = (Self::default(), BTreeSet::new());
        for part in text.split(',') {
            let (name, count) = part.split_once('=').unwrap_or(("last", part));
            let (name, count) = (name.trim(), count.trim());
            let number = count.parse().map_err(|_| error(format!("`{count}` is not a number")))?;
            let place = match name {
                "last" => &mut keep.last,
                "hourly" => &mut keep.hourly,
                "daily" => &mut keep.daily,
                "weekly" => &mut keep.weekly,
                "monthly" => &mut keep.monthly,
                "yearly" => &mut keep.yearly,
                _ => {
                    return Err(error(format!(
                        "`{name}` is not one of last, hourly, daily, weekly, monthly, yearly"
                    )));
                }
            };
            *place = number;
            if !seen.insert(name) {
                return Err(error(format!("`{name}` is said twice")));
            }
        }
        if keep == Self::default() {
            return Err(error("it keeps nothing".to_owned()));
        }
        Ok(keep)
    }
}

/// Why a snapshot stays that the policy does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spared {
    /// Somebody holds it.
    Held,
    /// A dataset was cloned from it.
    Cloned,
}

/// Why a snapshot cannot go; `None` when it can.
pub fn spared(snapshot: &Snapshot) -> Option<Spared> {
    match snapshot {
        Snapshot { holds: 1.., .. } => Some(Spared::Held),
        Snapshot { clones, .. } if !clones.is_empty() => Some(Spared::Cloned),
        _ => None,
    }
}

/// What a policy makes of the snapshots of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Those that stay, oldest first.
    pub kept: Vec<Snapshot>,
    /// Those that go, oldest first.
    pub gone: Vec<Snapshot>,
    /// Those that would go, and cannot.
    pub spared: Vec<(Snapshot, Spared)>,
}

/// Decides, by the times in their names, which are what people see. Each series (short name) of each dataset counts by itself;
/// snapshots that are not ours are not looked at.
pub fn prune(snapshots: &[Snapshot], keep: Keep) -> Pruned {
    let mut series: BTreeMap<(&str, &str), Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        if let Some(short) = snapshot.short() {
            series.entry((&snapshot.dataset, short)).or_default().push(snapshot);
        }
    }
    let mut pruned = Pruned::default();
    for mut one in series.into_values() {
        one.sort_by_key(|snapshot| snapshot.txg);
        let kept = kept(&one, keep);
        for (snapshot, kept) in one.into_iter().zip(kept) {
            let snapshot = snapshot.clone();
            match (kept, spared(&snapshot)) {
                (true, _) => pruned.kept.push(snapshot),
                (false, Some(why)) => pruned.spared.push((snapshot, why)),
                (false, None) => pruned.gone.push(snapshot),
            }
        }
    }
    pruned
}

/// The period that a second lies in, counted from 1970.
type Period = fn(u64) -> u64;

/// Of one series in order, oldest first: which ones stay.
fn kept(series: &[&Snapshot], keep: Keep) -> Vec<bool> {
    let mut kept = vec![false; series.len()];
    let last = series.len().saturating_sub(keep.last);
    kept[last..].fill(true);
    let periods: [(usize, Period); 5] = [
        (keep.hourly, |at| at / 3600),
        (keep.daily, |at| at / 86_400),
        // 1970 began on a Thursday; weeks begin on Monday.
        (keep.weekly, |at| (at / 86_400 + 3) / 7),
        (keep.monthly, |at| {
            let (year, month, _) = civil_from_days(at / 86_400);
            year * 12 + month
        }),
        (keep.yearly, |at| civil_from_days(at / 86_400).0),
    ];
    for (count, period) in periods {
        let mut seen = BTreeSet::new();
        for (snapshot, kept) in series.iter().zip(&mut kept).rev() {
            if seen.len() == count {
                break;
            }
            if seen.insert(period(stamped(&snapshot.name).unwrap_or(snapshot.created))) {
                *kept = true;
            }
        }
    }
    kept
}

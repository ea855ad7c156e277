//! The way back from what was done, as a plan like any other: shown before, carried out with a journal of its own, and itself
//! undone when it fails or when nobody confirms it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::{WasActive, as_tell, kind_of};
use crate::history::{History, Record, Store};
use crate::host::{Host, HostError};
use crate::kinds::{self, AnyKind, Settings, WayBack};
use crate::plan::{Because, Cause, Left, Plan, Step};
use crate::services;

/// Why there is no way back. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// Nothing that was applied still holds.
    #[error("there is no apply to take back")]
    Nothing,
    /// That one does not.
    #[error("apply {number} does not hold: it was taken back, or there was none")]
    DoesNotHold {
        /// Which.
        number: u32,
    },
    /// The machine or the history could not be looked at.
    #[error("cannot look for the way back")]
    Look(#[from] HostError),
}

impl UndoError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing | Self::DoesNotHold { .. } => {
                Some("`kldload history` lists what was applied".to_owned())
            }
            Self::Look(source) => source.hint(),
        }
    }
}

/// A change of an earlier apply that is taken back, as a plan keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inverse {
    /// The apply.
    of: u32,
    /// The change.
    change: Value,
    /// What it takes to go back from it.
    memory: Value,
}

/// What a step does: the change that it names, or the way back from that of an earlier apply.
pub(crate) struct Work<'s> {
    kind: &'static dyn AnyKind,
    direction: Direction<'s>,
}

enum Direction<'s> {
    Forward(&'s Value),
    Back(Inverse),
}

impl<'s> Work<'s> {
    pub(crate) fn of(plan: &Plan, step: &'s Step) -> Result<Self, HostError> {
        let direction = match plan.undoes.is_empty() {
            true => Direction::Forward(&step.change),
            false => Direction::Back(kinds::from_value(&step.change)?),
        };
        Ok(Self { kind: kind_of(step)?, direction })
    }

    /// What it takes to undo it.
    pub(crate) fn remember(&self, host: &dyn Host, store: &Store<'_>) -> Result<Value, HostError> {
        match &self.direction {
            Direction::Forward(change) => self.kind.remember(host, store, change),
            Direction::Back(inverse) => self.kind.remember_back(host, store, &inverse.change),
        }
    }

    pub(crate) fn make(&self, host: &dyn Host, store: &Store<'_>) -> Result<(), HostError> {
        match &self.direction {
            Direction::Forward(change) => self.kind.make(host, store, change),
            Direction::Back(Inverse { of, change, memory }) => {
                self.kind.undo(host, &History::new(host).store(*of), change, memory)
            }
        }
    }

    pub(crate) fn undo(&self, host: &dyn Host, store: &Store<'_>, memory: &Value) -> Result<(), HostError> {
        match &self.direction {
            Direction::Forward(change) => self.kind.undo(host, store, change, memory),
            Direction::Back(Inverse { of, change, .. }) => {
                self.kind.redo(host, store, &History::new(host).store(*of), change, memory)
            }
        }
    }

    /// Whether it takes back that the node has made a dataset. Going forward again, the node has to be told.
    pub(crate) fn ends_a_birth(&self) -> bool {
        match &self.direction {
            Direction::Forward(_) => false,
            Direction::Back(inverse) => kinds::is_birth(self.kind.name(), &inverse.change),
        }
    }

    /// Whether somebody has changed what it has made.
    pub(crate) fn is_changed(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        memory: &Value,
    ) -> Result<bool, HostError> {
        match &self.direction {
            Direction::Forward(change) => Ok(self.kind.changed(host, store, change, memory)?.is_some()),
            // As before it, and as the apply had left it, are what nobody minds in this direction, too.
            Direction::Back(Inverse { of, change, memory }) => {
                let store = History::new(host).store(*of);
                Ok(self.kind.changed(host, &store, change, memory)?.is_some())
            }
        }
    }
}

/// The plan that takes back the last apply that holds, or `down_to` and all after it, the newest first. A step of
/// [`Cause::Drift`] is about something that somebody has changed since; its notes say how.
///
/// # Errors
/// When there is nothing to take back, or the machine cannot be looked at.
pub fn undo(host: &dyn Host, down_to: Option<u32>) -> Result<Plan, UndoError> {
    let history = History::new(host);
    let records = history.records()?;
    let held: Vec<&Record> = records.iter().rev().filter(|record| record.holds()).collect();
    let last = held.first().ok_or(UndoError::Nothing)?;
    let down_to = down_to.unwrap_or(last.number);
    let end = held.iter().position(|record| record.number == down_to);
    let (taken, stay) = held.split_at(end.ok_or(UndoError::DoesNotHold { number: down_to })? + 1);
    let before = stay.first().map(|record| history.plan(record.number)).transpose()?.flatten();
    let before = before.unwrap_or_default();

    let mut plan = Plan {
        manifest: before.manifest,
        meaning: before.meaning,
        undoes: taken.iter().map(|record| record.number).collect(),
        items: before.items,
        ..Plan::default()
    };
    let (mut told, mut settings) = (Vec::new(), Settings::new());
    // What a newer apply has changed once more is what that one has left.
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for record in taken {
        let store = history.store(record.number);
        let Some(was) = history.plan(record.number)? else { continue };
        plan.machine.clone_from(&was.machine);
        let steps: Vec<&Step> = was.all().collect();
        let journal = store.journal()?;
        let begun: Vec<(&Step, &Value)> =
            journal.begun().filter_map(|(index, memory)| Some((*steps.get(index)?, memory))).collect();
        for (step, memory) in begun.iter().rev() {
            settings.extend(kinds::settings_of(step, memory));
            if as_tell(step).is_some() {
                continue;
            }
            let kind = kind_of(step)?;
            let items = kind.items_of(step)?.into_iter().map(|item| (step.kind.clone(), item));
            let is_newest = items.filter(|item| !seen.insert(item.clone())).count() == 0;
            match kind.way_back(&store, &step.change, memory)? {
                WayBack::Nothing => {}
                WayBack::Stays(remove_with) => {
                    plan.left.push(Left { kind: step.kind.clone(), name: step.name.clone(), remove_with })
                }
                WayBack::Goes(action, summary) => {
                    let changed =
                        if is_newest { kind.changed(host, &store, &step.change, memory)? } else { None };
                    plan.steps.push(Step {
                        kind: step.kind.clone(),
                        name: step.name.clone(),
                        action,
                        cause: if changed.is_some() { Cause::Drift } else { Cause::Wish },
                        summary,
                        interrupts: None,
                        notes: changed.into_iter().collect(),
                        because: Because {
                            layer: step.because.layer.clone(),
                            line: None,
                            reason: format!("apply {} is taken back", record.number),
                        },
                        change: kinds::to_value(&Inverse {
                            of: record.number,
                            change: step.change.clone(),
                            memory: (*memory).clone(),
                        }),
                    });
                }
            }
        }
        for (step, memory) in begun {
            let Some(tell) = as_tell(step) else { continue };
            let WasActive { active } = kinds::from_value(memory)?;
            // What an apply has repaired stays repaired.
            told.push((tell, active || step.cause == Cause::Drift, step.because.reason.clone()));
        }
    }
    let told = services::back(host, &told, settings);
    plan.steps.splice(0..0, told.stops);
    plan.restarts = told.restarts;
    Ok(plan)
}

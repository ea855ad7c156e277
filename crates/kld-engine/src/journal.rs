//! What was done, line by line: JSON, each line on disk before the next thing happens.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::State;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The plan is on disk, and begins.
    Started {
        /// Seconds since 1970.
        at: u64,
        /// Who asked for it.
        by: String,
        /// How many steps the plan has.
        steps: usize,
        /// The dataset that `/` is on: files can only be put back where they were taken from.
        #[serde(default)]
        root: Option<String>,
        /// The applies that its plan takes back, the newest first; none when it is an apply itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        undoes: Vec<u32>,
    },
    /// These snapshots exist from one moment on.
    Snapshot {
        /// Full names.
        names: Vec<String>,
    },
    /// A boot environment of the machine as it is will be made.
    Environment {
        /// Its name.
        name: String,
    },
    /// It could not be made.
    NoEnvironment {
        /// Why not, in words.
        why: String,
    },
    /// A step begins; `memory` is what it takes to go back.
    Begun {
        /// Its number in the plan, from 0; restarts count on.
        step: usize,
        /// The kind's own data.
        memory: Value,
    },
    /// A step is done.
    Done {
        /// Its number.
        step: usize,
    },
    /// Something failed: from here on everything is undone.
    Failed {
        /// The step, or `None` when it was a proof of the manifest, or an interruption.
        step: Option<usize>,
        /// Why, in words.
        error: String,
    },
    /// Somebody, or the clock, takes back what waits to be confirmed: from here on everything is undone.
    TakenBack {
        /// Seconds since 1970.
        at: u64,
        /// Who asked for it.
        by: String,
        /// Why, in words.
        why: String,
    },
    /// A step that was committed is about to be undone, and somebody has changed what it made: what is there now.
    Kept {
        /// Its number.
        step: usize,
        /// The kind's own data, as in [`Event::Begun`].
        memory: Value,
    },
    /// A step is undone.
    Undone {
        /// Its number.
        step: usize,
    },
    /// Unless somebody confirms it, all of it is undone this many seconds from now, and at the next start.
    Unconfirmed {
        /// How long.
        seconds: u64,
    },
    /// Somebody has confirmed it.
    Confirmed,
    /// All steps are done and proven: the machine is as planned.
    Committed,
    /// All steps are undone: the machine is as it was.
    RolledBack,
}

/// The line of an event, in this journal or that of another kind of work.
pub(crate) fn to_line<T: Serialize>(event: &T) -> String {
    // The newline before it ends what a power cut has left unfinished.
    format!("\n{}\n", serde_json::to_string(event).expect("events are plain data"))
}

/// The events of a journal. A line that a power cut left unfinished was never written: nothing was done on its account.
pub(crate) fn from_lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A journal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Journal {
    /// The events, in order.
    pub events: Vec<Event>,
}

impl Journal {
    /// Reads a journal, but for a line that was left unfinished.
    pub fn parse(text: &str) -> Self {
        Self { events: from_lines(text) }
    }

    /// How it ended.
    pub fn state(&self) -> State {
        let ends = |event: &&Event| {
            matches!(
                event,
                Event::Committed | Event::RolledBack | Event::Failed { .. } | Event::TakenBack { .. }
            )
        };
        match self.events.iter().rev().find(ends) {
            Some(Event::Committed) if self.waits() => State::Unconfirmed,
            Some(Event::Committed) => State::Committed,
            Some(Event::RolledBack) => State::Undone,
            _ => State::Interrupted,
        }
    }

    /// Whether somebody must confirm it and has not.
    pub(crate) fn waits(&self) -> bool {
        let told = |event: &&Event| matches!(event, Event::Unconfirmed { .. } | Event::Confirmed);
        matches!(self.events.iter().rev().find(told), Some(Event::Unconfirmed { .. }))
    }

    /// The boot environment of the machine as it was before, or why there is none; `None` when none was to be made.
    pub fn environment(&self) -> Option<Result<&str, &str>> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Environment { name } => Some(Ok(name.as_str())),
            Event::NoEnvironment { why } => Some(Err(why.as_str())),
            _ => None,
        })
    }

    /// Steps that were begun, in order, with what it takes to go back.
    pub fn begun(&self) -> impl DoubleEndedIterator<Item = (usize, &Value)> {
        self.events.iter().filter_map(|event| match event {
            Event::Begun { step, memory } => Some((*step, memory)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_power_cut_left_unfinished_was_never_done() {
        let begun = Event::Begun { step: 0, memory: json!({"old": 1}) };
        let started =
            Event::Started { at: 1, by: "root".to_owned(), steps: 2, root: None, undoes: Vec::new() };
        let mut text = to_line(&started) + &to_line(&begun) + r#"{"event":"done","st"#;
        let journal = Journal::parse(&text);
        assert_eq!(journal.events, [started.clone(), begun.clone()]);
        assert_eq!(journal.state(), State::Interrupted);
        assert_eq!(journal.begun().collect::<Vec<_>>(), [(0, &json!({"old": 1}))]);
        assert_eq!(Journal::parse("").state(), State::Interrupted);
        // And the next line stands on its own.
        text += &to_line(&Event::RolledBack);
        let journal = Journal::parse(&text);
        assert_eq!(journal.events, [started, begun, Event::RolledBack]);
        assert_eq!(journal.state(), State::Undone);
    }

    #[test]
    fn what_nobody_has_confirmed_is_not_committed() {
        let mut journal = Journal { events: vec![Event::Unconfirmed { seconds: 60 }, Event::Committed] };
        assert_eq!(journal.state(), State::Unconfirmed);
        journal.events.push(Event::Confirmed);
        assert_eq!(journal.state(), State::Committed);
        let (by, why) = ("root".to_owned(), "taken back".to_owned());
        journal.events.push(Event::TakenBack { at: 2, by, why });
        assert_eq!(journal.state(), State::Interrupted);
        journal.events.push(Event::RolledBack);
        assert_eq!(journal.state(), State::Undone);
    }
}

//! What was adopted: one directory for each time, beside those of applies.
//!
//! ```text
//! /var/lib/kldload/adoptions/000003/adoption.json   what was asked for
//!                                   journal         what was done, line by line
//! ```

use serde::{Deserialize, Serialize};

use super::Ground;
use crate::history::{MEMORY, SECRET_DIRECTORY, SECRET_FILE, own, parse};
use crate::host::{HostError, Node};
use crate::journal::{from_lines, to_line};

/// A directory that becomes a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// Its number, from 1.
    pub number: u32,
    /// Seconds since 1970.
    pub at: u64,
    /// Who asked for it.
    pub by: String,
    /// The directory.
    pub path: String,
    /// The dataset.
    pub dataset: String,
    /// Properties that it was made with.
    pub properties: Vec<(String, String)>,
    /// Where the directory itself is kept until that is confirmed to be needless.
    pub aside: String,
    /// The number of the directory in its file system, which tells where it is.
    pub directory: u64,
}

/// How far an adoption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Neither here nor there: `kldload recover` mends that.
    Interrupted,
    /// The dataset is in place, the old directory is kept.
    Unconfirmed,
    /// The old directory is being removed.
    Freeing,
    /// The dataset is in place, the old directory is gone.
    Confirmed,
    /// The directory is in place.
    TakenBack,
}

/// One line of its journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    /// The description is on disk.
    Started,
    /// These units are being stopped, and are to be started in the end.
    Stopped { units: Vec<String> },
    /// The copy is the directory; these are the stamps of both.
    Compared { old: String, new: String },
    /// They begin to change places.
    Swapping,
    /// The dataset is in place.
    Adopted,
    /// It must go back.
    Failed { error: String },
    /// Somebody wants the directory back.
    TakingBack,
    /// The directory is in place.
    TakenBack,
    /// The old directory is being removed.
    Freeing,
    /// The old directory is gone.
    Confirmed,
}

/// The directory of one adoption.
#[derive(Clone)]
pub(super) struct Store<'a> {
    ground: &'a dyn Ground,
    pub(super) adoption: Adoption,
}

fn folder(number: u32) -> String {
    format!("{MEMORY}/adoptions/{number:06}")
}

/// Every adoption, oldest first. One whose description was not written never began.
pub(super) fn all(ground: &dyn Ground) -> Result<Vec<Store<'_>>, HostError> {
    each(ground)?.into_iter().collect()
}

/// The same, when one that cannot be read is to keep nobody from the others.
pub(super) fn each(ground: &dyn Ground) -> Result<Vec<Result<Store<'_>, HostError>>, HostError> {
    let read = |number| {
        let text = crate::host::read(ground, &format!("{}/adoption.json", folder(number)))?;
        text.map(|text| Ok(Store { ground, adoption: parse("adoption.json", &text)? })).transpose()
    };
    Ok(numbers(ground)?.into_iter().filter_map(|number| read(number).transpose()).collect())
}

fn numbers(ground: &dyn Ground) -> Result<Vec<u32>, HostError> {
    let names = ground.list(&format!("{MEMORY}/adoptions"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The number of the next one.
pub(super) fn next(ground: &dyn Ground) -> Result<u32, HostError> {
    Ok(numbers(ground)?.last().map_or(1, |last| last + 1))
}

/// Writes the description of a new one.
pub(super) fn begin(ground: &dyn Ground, adoption: Adoption) -> Result<Store<'_>, HostError> {
    let folder = folder(adoption.number);
    ground.put(&format!("{MEMORY}/adoptions"), &own(Node::Directory, SECRET_DIRECTORY))?;
    ground.put(&folder, &own(Node::Directory, SECRET_DIRECTORY))?;
    let text = serde_json::to_string_pretty(&adoption).expect("descriptions are plain data") + "\n";
    ground.put(&format!("{folder}/adoption.json"), &own(Node::File(text.into_bytes()), SECRET_FILE))?;
    let store = Store { ground, adoption };
    store.write(&Event::Started)?;
    Ok(store)
}

impl Store<'_> {
    /// Adds an event; it is on disk when this returns.
    pub(super) fn write(&self, event: &Event) -> Result<(), HostError> {
        self.ground.append(&format!("{}/journal", folder(self.adoption.number)), to_line(event).as_bytes())
    }

    pub(super) fn events(&self) -> Result<Vec<Event>, HostError> {
        let text = crate::host::read(self.ground, &format!("{}/journal", folder(self.adoption.number)))?;
        Ok(from_lines(&text.unwrap_or_default()))
    }

    pub(super) fn stage(&self) -> Result<Stage, HostError> {
        Ok(stage(&self.events()?))
    }
}

fn stage(events: &[Event]) -> Stage {
    let told = events.iter().rev().find_map(|event| match event {
        Event::Confirmed => Some(Stage::Confirmed),
        Event::TakenBack => Some(Stage::TakenBack),
        Event::Freeing => Some(Stage::Freeing),
        Event::Adopted => Some(Stage::Unconfirmed),
        Event::TakingBack | Event::Failed { .. } => Some(Stage::Interrupted),
        Event::Started | Event::Stopped { .. } | Event::Compared { .. } | Event::Swapping => None,
    });
    told.unwrap_or(Stage::Interrupted)
}

/// What a journal says besides.
pub(super) trait Told {
    /// The stamps of directory and copy when they were the same.
    fn stamps(&self) -> Option<(&str, &str)>;
    /// Units to be started in the end.
    fn stopped(&self) -> Vec<String>;
    /// Whether they have begun to change places.
    fn began_to_swap(&self) -> bool;
    /// Whether it was found that it must go back.
    fn has_failed(&self) -> bool;
}

impl Told for [Event] {
    fn stamps(&self) -> Option<(&str, &str)> {
        self.iter().rev().find_map(|event| match event {
            Event::Compared { old, new } => Some((old.as_str(), new.as_str())),
            _ => None,
        })
    }

    fn stopped(&self) -> Vec<String> {
        let units = self.iter().rev().find_map(|event| match event {
            Event::Stopped { units } => Some(units.clone()),
            _ => None,
        });
        units.unwrap_or_default()
    }

    fn began_to_swap(&self) -> bool {
        self.contains(&Event::Swapping)
    }

    fn has_failed(&self) -> bool {
        self.iter().any(|event| matches!(event, Event::Failed { .. }))
    }
}

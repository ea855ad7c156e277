//! What was done to a machine: one directory for each time a plan was carried out.
//!
//! ```text
//! /var/lib/kldload/            a dataset of its own, outside every boot environment
//!   applied.json               digests of what was wanted last
//!   applies/000012/plan.json   the plan
//!                  journal     what was done, line by line, each on disk before the next thing happens
//!                  kept/       content of files that were replaced, by SHA-256
//!   procedures/000003/         one upgrade or recovery, see `procedure.rs`
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::{Entry, Host, HostError, KeptEntry, KeptNode, Node};
use crate::journal::{Event, Journal, to_line};
use crate::kinds::{self, hex};
use crate::plan::{self, Plan};
use crate::secrets::Secrets;
use sha2::{Digest as _, Sha256};

/// Where kldload remembers.
pub(crate) const MEMORY: &str = "/var/lib/kldload";

/// How an apply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The machine is as planned.
    Committed,
    /// The machine is as planned, and goes back unless somebody confirms it.
    Unconfirmed,
    /// The machine is as it was before.
    Undone,
    /// It was interrupted: neither.
    Interrupted,
    /// The same in its journal, while whoever has the machine's lock is still at work: the history does not know locks.
    UnderWay,
}

/// One time that a plan was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its number, from 1.
    pub number: u32,
    /// Seconds since 1970.
    pub at: u64,
    /// Who asked for it.
    pub by: String,
    /// How it ended.
    pub state: State,
    /// How many steps its plan has.
    pub steps: usize,
    /// The boot environment that it has changed, when `/` is one.
    pub root: Option<String>,
    /// The boot environment that was made of the machine as it was before; a person may have destroyed it since.
    pub environment: Option<String>,
    /// Why none could be made.
    pub no_environment: Option<String>,
    /// Why it was undone.
    pub failure: Option<String>,
    /// The applies that it has taken back, the newest first; none when it is an apply itself.
    pub undoes: Vec<u32>,
    /// Who has taken it back, though it was done.
    pub undone: Option<Undone>,
}

/// That what was done was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Seconds since 1970.
    pub at: u64,
    /// Who asked for it.
    pub by: String,
    /// The undo that did it; `None` when it was not confirmed yet, and went back by itself.
    pub number: Option<u32>,
}

impl Record {
    /// Whether the machine is as this apply has planned, unless somebody has changed it by hand. An undo holds nothing.
    pub fn holds(&self) -> bool {
        self.undoes.is_empty() && self.is_done()
    }

    fn is_done(&self) -> bool {
        matches!(self.state, State::Committed | State::Unconfirmed)
    }

    /// What it is called: `apply 3`, or `undo 4`.
    pub fn name(&self) -> String {
        let word = if self.undoes.is_empty() { "apply" } else { "undo" };
        format!("{word} {}", self.number)
    }

    /// The dataset of [`Self::environment`]: beside the root that was changed.
    pub fn environment_dataset(&self) -> Option<String> {
        let (above, _) = self.root.as_deref()?.rsplit_once('/')?;
        Some(format!("{above}/{}", self.environment.as_deref()?))
    }
}

/// A manifest that was applied, and that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// When it was applied last.
    pub was: Record,
    /// The first apply after that one that holds.
    pub next: u32,
    /// The last apply.
    pub by: Record,
}

/// Everything that was done.
#[derive(Clone, Copy)]
pub struct History<'a> {
    host: &'a dyn Host,
}

impl std::fmt::Debug for History<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("History")
    }
}

/// The directory of one apply.
#[derive(Clone)]
pub(crate) struct Store<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) number: u32,
    /// What its steps need and nobody may read; only while they are made.
    pub(crate) secrets: Secrets,
}

/// `applied.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    number: u32,
    manifest: String,
    items: BTreeMap<String, String>,
}

/// Mode of what only root reads.
pub(crate) const SECRET_FILE: u32 = 0o600;
/// The same for directories.
pub(crate) const SECRET_DIRECTORY: u32 = 0o700;

/// A file or directory of root's.
pub(crate) fn own(node: Node, mode: u32) -> Entry {
    Entry { node, mode, uid: 0, gid: 0 }
}

/// Where a snapshot lies, and its own name: the dataset above that of the snapshot. A dataset that is put aside, or promoted, keeps
/// its snapshots and that place under another name.
fn place_of(name: &str) -> Option<(&str, &str)> {
    let (dataset, of) = name.split_once('@')?;
    Some((dataset.rsplit_once('/').map_or("", |(above, _)| above), of))
}

impl<'a> History<'a> {
    /// The history of a machine.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// What was wanted last: [`Plan::items`] of the last plan that was committed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn applied(&self) -> Result<BTreeMap<String, String>, HostError> {
        let Some(text) = self.host.read(&format!("{MEMORY}/applied.json"))? else {
            return Ok(BTreeMap::new());
        };
        let applied: Applied = parse("applied.json", &text)?;
        Ok(applied.items)
    }

    /// What somebody has changed by hand since the last apply: kinds and names.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn drift(&self) -> Result<Vec<(String, String)>, HostError> {
        let applied = self.applied()?;
        let mut drift = Vec::new();
        for kind in kinds::ALL {
            let prefix = plan::key(kind.name(), "");
            let items = applied
                .iter()
                .filter_map(|(name, digest)| Some((name.strip_prefix(&prefix)?, digest.as_str())));
            let items: Vec<(&str, &str)> = items.collect();
            if !items.is_empty() {
                let drifted = kind.drifted(self.host, &items)?;
                drift.extend(drifted.into_iter().map(|name| (kind.name().to_owned(), name)));
            }
        }
        Ok(drift)
    }

    /// Every apply, oldest first.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, HostError> {
        let records = self.numbers()?.into_iter().filter_map(|number| self.own_record(number).transpose());
        let mut records: Vec<Record> = records.collect::<Result<_, _>>()?;
        // The commit of the undo is the moment at which the apply no longer holds.
        let undos: Vec<Record> =
            records.iter().filter(|of| !of.undoes.is_empty() && of.is_done()).cloned().collect();
        for undo in &undos {
            for record in records.iter_mut().filter(|record| undo.undoes.contains(&record.number)) {
                record.state = State::Undone;
                record.undone = Some(Undone { at: undo.at, by: undo.by.clone(), number: Some(undo.number) });
            }
        }
        Ok(records)
    }

    /// Whether an apply of this machine has made a snapshot, as its journal says. Another machine may have one of that number, too.
    pub(crate) fn has_made(&self, number: u32, snapshot: &str) -> Result<bool, HostError> {
        let store = self.store(number);
        let is_it = |name: &str| place_of(name) == place_of(snapshot);
        Ok(store.journal()?.events.iter().any(|event| match event {
            Event::Snapshot { names } => names.iter().any(|name| is_it(name)),
            Event::Started { root: Some(root), .. } => {
                let of_packages = |end| is_it(&format!("{root}@{}{end}", store.snapshot()));
                ["-packages", "-undo"].into_iter().any(of_packages)
            }
            _ => false,
        }))
    }

    /// One apply; `None` when its journal never began.
    ///
    /// # Errors
    /// When its journal cannot be read.
    pub fn record(&self, number: u32) -> Result<Option<Record>, HostError> {
        Ok(self.records()?.into_iter().find(|record| record.number == number))
    }

    /// What its own journal says of it.
    fn own_record(&self, number: u32) -> Result<Option<Record>, HostError> {
        let store = self.store(number);
        let journal = store.journal()?;
        let Some(Event::Started { at, by, steps, root, undoes }) = journal.events.first() else {
            return Ok(None);
        };
        let failure = journal.events.iter().find_map(|event| match event {
            Event::Failed { error, .. } => Some(error.clone()),
            Event::TakenBack { why, .. } => Some(why.clone()),
            _ => None,
        });
        let undone = journal.events.iter().find_map(|event| match event {
            Event::TakenBack { at, by, .. } => Some(Undone { at: *at, by: by.clone(), number: None }),
            _ => None,
        });
        let state = journal.state();
        let environment = journal.environment();
        Ok(Some(Record {
            number,
            at: *at,
            by: by.clone(),
            state,
            steps: *steps,
            root: root.clone(),
            environment: environment.and_then(Result::ok).map(str::to_owned),
            no_environment: environment.and_then(Result::err).map(str::to_owned),
            failure,
            undoes: undoes.clone(),
            undone,
        }))
    }

    /// What was changed by hand and replaced when something was taken back: paths, and where the content is kept.
    ///
    /// # Errors
    /// When the plan or the journal cannot be read.
    pub fn kept(&self, number: u32) -> Result<Vec<(String, String)>, HostError> {
        let store = self.store(number);
        let plan = self.plan(number)?;
        let steps: Vec<&plan::Step> = plan.iter().flat_map(Plan::all).collect();
        let is_undo = plan.as_ref().is_some_and(|plan| !plan.undoes.is_empty());
        let mut kept = Vec::new();
        for event in store.journal()?.events {
            let (step, memory, is_by_hand) = match event {
                Event::Kept { step, memory } => (step, memory, true),
                Event::Begun { step, memory } => (step, memory, false),
                _ => continue,
            };
            // An undo has looked before it began.
            let is_known = |step: &&&plan::Step| is_by_hand || is_undo && step.cause == plan::Cause::Drift;
            let Some(step) = steps.get(step).filter(is_known) else { continue };
            if let Some(sum) = kinds::kept_content(step, &memory) {
                kept.push((step.name.clone(), store.path(&format!("kept/{sum}"))));
            }
        }
        kept.dedup();
        Ok(kept)
    }

    /// When the manifest of this plan, or one that says the same, was applied, and one that says something else has been since.
    ///
    /// # Errors
    /// When what was applied cannot be read.
    pub fn replaced(&self, of: &Plan) -> Result<Option<Replaced>, HostError> {
        let mut after: Vec<Record> = Vec::new();
        for record in self.records()?.into_iter().filter(Record::holds).rev() {
            if self.plan(record.number)?.is_some_and(|plan| plan.is_of_the_same_manifest(of)) {
                return Ok(after.last().zip(after.first()).map(|(next, last)| Replaced {
                    was: record,
                    next: next.number,
                    by: last.clone(),
                }));
            }
            after.push(record);
        }
        Ok(None)
    }

    /// The plan of one apply.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn plan(&self, number: u32) -> Result<Option<Plan>, HostError> {
        let text = self.host.read(&self.store(number).path("plan.json"))?;
        text.map(|text| parse("plan.json", &text)).transpose()
    }

    /// The number that the next apply will have.
    ///
    /// # Errors
    /// When what there is cannot be listed.
    pub fn next_number(&self) -> Result<u32, HostError> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    fn numbers(&self) -> Result<Vec<u32>, HostError> {
        let names = self.host.list(&format!("{MEMORY}/applies"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(crate) fn store(&self, number: u32) -> Store<'a> {
        Store { host: self.host, number, secrets: Secrets::default() }
    }

    /// Makes the directory of the next apply, with its plan.
    pub(crate) fn begin(&self, plan: &Plan) -> Result<Store<'a>, HostError> {
        let number = self.next_number()?;
        let store = Store { secrets: plan.secrets.clone(), ..self.store(number) };
        self.host.put(&format!("{MEMORY}/applies"), &own(Node::Directory, SECRET_DIRECTORY))?;
        self.host.put(&store.path(""), &own(Node::Directory, SECRET_DIRECTORY))?;
        self.host.put(&store.path("kept"), &own(Node::Directory, SECRET_DIRECTORY))?;
        let text = serde_json::to_string_pretty(plan).expect("plans are plain data") + "\n";
        self.host.put(&store.path("plan.json"), &own(Node::File(text.into_bytes()), SECRET_FILE))?;
        Ok(store)
    }

    /// The last apply that holds, and its plan.
    pub(crate) fn last_committed(&self) -> Result<Option<(u32, Plan)>, HostError> {
        let records = self.records()?;
        let Some(last) = records.iter().rev().find(|record| record.holds()) else { return Ok(None) };
        Ok(self.plan(last.number)?.map(|plan| (last.number, plan)))
    }

    /// Remembers what the last apply that holds has wanted; after one was taken back, that is the one before it.
    pub(crate) fn remember_last(&self) -> Result<(), HostError> {
        match self.last_committed()? {
            Some((number, plan)) if self.applied()? != plan.items => self.remember(number, &plan),
            None if !self.applied()?.is_empty() => self.host.remove(&format!("{MEMORY}/applied.json")),
            _ => Ok(()),
        }
    }

    /// Remembers what was wanted.
    pub(crate) fn remember(&self, number: u32, plan: &Plan) -> Result<(), HostError> {
        let applied = Applied { number, manifest: plan.manifest.clone(), items: plan.items.clone() };
        let text = serde_json::to_string_pretty(&applied).expect("digests are plain data") + "\n";
        self.host.put(&format!("{MEMORY}/applied.json"), &own(Node::File(text.into_bytes()), SECRET_FILE))
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(name: &'static str, text: &str) -> Result<T, HostError> {
    serde_json::from_str(text)
        .map_err(|error| kld_host::ParseError { tool: name, reason: error.to_string() }.into())
}

impl Store<'_> {
    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> String {
        let directory = format!("{MEMORY}/applies/{:06}", self.number);
        if name.is_empty() { directory } else { format!("{directory}/{name}") }
    }

    /// The name of its snapshots.
    pub(crate) fn snapshot(&self) -> String {
        format!("kldload-apply-{:06}", self.number)
    }

    pub(crate) fn journal(&self) -> Result<Journal, HostError> {
        Ok(Journal::parse(&self.host.read(&self.path("journal"))?.unwrap_or_default()))
    }

    /// Whether its apply was proven good once: what is taken back now has been lived with since.
    pub(crate) fn was_committed(&self) -> Result<bool, HostError> {
        Ok(self.journal()?.events.contains(&Event::Committed))
    }

    /// Adds an event; it is on disk when this returns.
    pub(crate) fn write(&self, event: &Event) -> Result<(), HostError> {
        self.host.append(&self.path("journal"), to_line(event).as_bytes())
    }

    /// Keeps what is at a path.
    pub(crate) fn keep(&self, path: &str) -> Result<Option<KeptEntry>, HostError> {
        let Some(Entry { node, mode, uid, gid }) = self.host.entry(path)? else { return Ok(None) };
        let node = match node {
            Node::File(bytes) => {
                let sum = hex(&Sha256::digest(&bytes));
                self.host.put(&self.path(&format!("kept/{sum}")), &own(Node::File(bytes), SECRET_FILE))?;
                KeptNode::File(sum)
            }
            Node::Link(target) => KeptNode::Link(target),
            Node::Directory => KeptNode::Directory,
            Node::Other => {
                return Err(HostError::InTheWay { path: path.to_owned(), what: "a device or socket" });
            }
        };
        Ok(Some(KeptEntry { node, mode, uid, gid }))
    }

    /// The text of a file that was kept.
    pub(crate) fn text_of(&self, path: &str, kept: &KeptEntry) -> Result<String, HostError> {
        match self.node_of(path, &kept.node)? {
            Node::File(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Ok(String::new()),
        }
    }

    fn node_of(&self, path: &str, kept: &KeptNode) -> Result<Node, HostError> {
        Ok(match kept {
            KeptNode::File(sum) => match self.host.entry(&self.path(&format!("kept/{sum}")))? {
                Some(Entry { node, .. }) => node,
                None => {
                    let reason = format!("the content {sum} of `{path}` is not kept");
                    return Err(kld_host::ParseError { tool: "kldload's journal", reason }.into());
                }
            },
            KeptNode::Link(target) => Node::Link(target.clone()),
            KeptNode::Directory => Node::Directory,
        })
    }

    /// What was kept.
    pub(crate) fn entry_of(&self, path: &str, kept: &KeptEntry) -> Result<Entry, HostError> {
        let node = self.node_of(path, &kept.node)?;
        Ok(Entry { node, mode: kept.mode, uid: kept.uid, gid: kept.gid })
    }

    /// Puts back what was kept, or removes what was not there.
    pub(crate) fn put_back(&self, path: &str, kept: Option<&KeptEntry>) -> Result<(), HostError> {
        let Some(kept) = kept else { return self.host.remove(path) };
        let entry = self.entry_of(path, kept)?;
        if self.host.entry(path)?.as_ref() == Some(&entry) {
            return Ok(());
        }
        self.host.put(path, &entry)
    }
}

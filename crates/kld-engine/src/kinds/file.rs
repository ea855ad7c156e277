//! Files, links and directories that are not a package's own.
//!
//! A file that leaves the manifest is removed when it is as kldload put it there; one that was changed since stays, and so does what
//! unlocks a dataset.

mod lines;
mod mount_cache;
mod settings;

pub(crate) use settings::{Settings, put_back as put_settings, shown as shown_settings};

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_host::Cmd;
use kld_system::{FIRST_STEPS_DONE, SEALED_KEYS};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Found, Kind, Refusal, WayBack, account, dataset, from_value, hex, to_value};
use crate::history::Store;
use crate::host::{Entry, Host, HostError, KeptEntry, KeptNode, Node};
use crate::plan::{Action, Because, Cause, Left, Step, key};
use crate::wanted::{Wanted, WantedFile};

pub(super) struct File;

/// Where only kldload's services put files.
const OWN: &str = "/etc/kldload/";
/// Where interfaces are described: systemd.netdev(5).
const NETWORK: &str = "/etc/systemd/network/";

/// What is to be at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Change {
    /// This.
    Put { path: String, node: NewNode, mode: u32, owner: (String, String) },
    /// Nothing.
    Remove { path: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NewNode {
    /// Content in base64.
    File(String),
    Link(String),
    Directory,
}

impl NewNode {
    fn node(&self) -> Node {
        match self {
            Self::File(text) => Node::File(STANDARD.decode(text).unwrap_or_default()),
            Self::Link(target) => Node::Link(target.clone()),
            Self::Directory => Node::Directory,
        }
    }
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Put { path, .. } | Self::Remove { path } => path,
        }
    }
}

/// What was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// `None`: nothing.
    entry: Option<KeptEntry>,
    /// Directories above it that were not there either, the highest first.
    missing: Vec<String>,
    /// What the kernel had been told of what the file is about.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    settings: Settings,
}

/// Whether a step is for a file or a directory, whose path is its name.
pub(crate) fn is_file(step: &Step) -> bool {
    step.kind == File::NAME
}

/// What the kernel had been told when a step of any kind began.
pub(crate) fn settings_of(step: &Step, memory: &serde_json::Value) -> Settings {
    let memory = (step.kind == File::NAME).then(|| from_value::<Memory>(memory).ok());
    memory.flatten().map(|memory| memory.settings).unwrap_or_default()
}

/// The digest of a file's content that a step has remembered.
pub(crate) fn kept_content(step: &Step, memory: &serde_json::Value) -> Option<String> {
    let memory = (step.kind == File::NAME).then(|| from_value::<Memory>(memory).ok());
    match memory??.entry?.node {
        KeptNode::File(sum) => Some(sum),
        KeptNode::Link(_) | KeptNode::Directory => None,
    }
}

impl Kind for File {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "file";

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let look = |error| Refusal::Look("a file", error);
        let accounts = account::look(host).map_err(|error| Refusal::Look("the accounts", error))?;
        let mut found = Found::default();
        for (path, file) in &wanted.files {
            found.items.insert(path.clone(), digest_of(&file.node, file.mode));
            // The root of a dataset that the node makes is not there yet, and belongs to whom it should from the first.
            if earlier.iter().any(|step| dataset::is_born_at(step, path)) {
                continue;
            }
            let there = host.entry(path).map_err(look)?;
            let file = mount_cache::shared(path, file, there.as_ref());
            found.steps.extend(compare_one(&accounts, path, &file, there)?);
        }
        let unlocks = dataset::still_unlock(host, wanted, before).map_err(look)?;
        // The deepest first: directories empty themselves.
        for gone in super::gone(Self::NAME, before, &found.items).rev() {
            let Some(there) = host.entry(gone).map_err(look)? else { continue };
            // A directory may be somebody else's by now, and harms nobody.
            if there.node == Node::Directory {
                continue;
            }
            if let Some(dataset) = unlocks.get(gone) {
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!("rm {gone}   # it unlocks {dataset}: once that is destroyed"),
                });
                continue;
            }
            if digest_of(&there.node, there.mode) != before[&key(Self::NAME, gone)] {
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!("rm {gone}   # it was changed since kldload put it there"),
                });
                continue;
            }
            found.steps.push(Step {
                kind: Self::NAME.to_owned(),
                name: gone.to_owned(),
                action: Action::Remove,
                cause: Cause::Wish,
                summary: "no longer in the manifest".to_owned(),
                interrupts: None,
                notes: Vec::new(),
                because: Because {
                    layer: "files".to_owned(),
                    line: None,
                    reason: "the manifest no longer makes it".to_owned(),
                },
                change: to_value(&Change::Remove { path: gone.to_owned() }),
            });
        }
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, store: &Store<'_>, change: &Change) -> Result<Memory, HostError> {
        let path = change.path();
        let settings = match (settings::is_file(path), change) {
            (false, _) => Settings::new(),
            (true, Change::Remove { .. }) => settings::look(host, path, "")?,
            (true, Change::Put { node, .. }) => match node.node() {
                Node::File(text) => settings::look(host, path, &String::from_utf8_lossy(&text))?,
                _ => settings::look(host, path, "")?,
            },
        };
        Ok(Memory { entry: store.keep(path)?, missing: missing_above(host, path)?, settings })
    }

    fn make(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        match change {
            Change::Put { path, node, mode, owner } => {
                let (uid, gid) = account::look(host)?.ids(&owner.0, &owner.1)?;
                host.put(path, &Entry { node: node.node(), mode: *mode, uid, gid })
            }
            Change::Remove { path } => remove(host, path),
        }
    }

    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        match (change, &memory.entry) {
            (Change::Put { path, node: NewNode::File(made), .. }, Some(kept))
                if mount_cache::is_one(path) =>
            {
                let made = STANDARD.decode(made).unwrap_or_default();
                let now = host.read(path)?.unwrap_or_default();
                let before = store.text_of(path, kept)?;
                let text = mount_cache::back(&before, &String::from_utf8_lossy(&made), &now);
                let KeptEntry { mode, uid, gid, .. } = *kept;
                let entry = Entry { node: Node::File(text.into_bytes()), mode, uid, gid };
                if host.entry(path)?.as_ref() != Some(&entry) {
                    host.put(path, &entry)?;
                }
            }
            (Change::Put { path, node: NewNode::Directory, .. }, None) => {
                remove_made(host, path, store.was_committed()?)?;
            }
            (Change::Put { path, .. }, None) => remove(host, path)?,
            (_, kept) => store.put_back(change.path(), kept.as_ref())?,
        }
        memory.missing.iter().rev().try_for_each(|path| remove_if_empty(host, path))
    }

    fn way_back(&self, store: &Store<'_>, change: &Change, memory: &Memory) -> Result<WayBack, HostError> {
        let path = change.path();
        let before = memory.entry.as_ref().map(|kept| store.entry_of(path, kept)).transpose()?;
        Ok(match (change, before) {
            (Change::Put { node: NewNode::Directory, .. }, None) => {
                WayBack::Goes(Action::Remove, "goes, unless something is in it".to_owned())
            }
            (Change::Put { .. }, None) => WayBack::Goes(Action::Remove, "goes".to_owned()),
            (Change::Remove { .. }, None) => WayBack::Nothing,
            (Change::Remove { .. }, Some(before)) => {
                WayBack::Goes(Action::Add, format!("comes back, {}", describe_new(&before.node)))
            }
            (Change::Put { node, mode, .. }, Some(before)) => {
                let words = differences(&node.node(), *mode, &before);
                WayBack::Goes(Action::Change, words.unwrap_or_else(|| "owner as it was".to_owned()))
            }
        })
    }

    fn changed(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<Option<String>, HostError> {
        let path = change.path();
        if mount_cache::is_one(path) {
            return Ok(None);
        }
        let before = memory.entry.as_ref().map(|kept| store.entry_of(path, kept)).transpose()?;
        let now = host.entry(path)?;
        if now == before {
            return Ok(None);
        }
        Ok(match (change, now) {
            (Change::Put { .. }, None) => Some("somebody has removed it since".to_owned()),
            (Change::Put { node, mode, owner, .. }, Some(now)) => {
                let ids = account::look(host)?.ids(&owner.0, &owner.1).ok();
                let is_link = matches!(now.node, Node::Link(_));
                let moved = ids.is_some_and(|ids| ids != (now.uid, now.gid)) && !is_link;
                let words = differences(&node.node(), *mode, &now);
                words
                    .or_else(|| moved.then(|| "another owner".to_owned()))
                    .map(|words| format!("{words} by hand since"))
            }
            (Change::Remove { .. }, Some(now)) => Some(format!("{} by hand since", describe_new(&now.node))),
            (Change::Remove { .. }, None) => None,
        })
    }

    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        _of: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        match &memory.entry {
            None => remove(host, change.path()),
            kept => store.put_back(change.path(), kept.as_ref()),
        }
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let mut drifted = Vec::new();
        for (path, digest) in items.iter().filter(|(path, _)| !mount_cache::is_one(path)) {
            let there = host.entry(path)?;
            if there.is_none_or(|there| digest_of(&there.node, there.mode) != *digest) {
                drifted.push((*path).to_owned());
            }
        }
        Ok(drifted)
    }
}

/// Directories above a path that are not there, the highest first.
pub(super) fn missing_above(host: &dyn Host, path: &str) -> Result<Vec<String>, HostError> {
    let mut missing = Vec::new();
    for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
        if host.entry(&path[..end])?.is_none() {
            missing.push(path[..end].to_owned());
        }
    }
    Ok(missing)
}

/// Removes a directory that an apply has made. What its services have put there since, keys that peers know among it, stays;
/// when the apply came to nothing, nobody knows them, and they go. What a dataset was made with is never among it.
fn remove_made(host: &dyn Host, path: &str, was_committed: bool) -> Result<(), HostError> {
    // What first steps made goes, or is put aside, with the datasets of the same apply.
    let is_mark = Path::new(path).parent() == Some(Path::new(FIRST_STEPS_DONE));
    if is_mark || !was_committed && path.starts_with(OWN) && path != SEALED_KEYS {
        for name in host.list(path)? {
            let inner = format!("{path}/{name}");
            if host.entry(&inner)?.is_some_and(|entry| matches!(entry.node, Node::File(_) | Node::Link(_))) {
                host.remove(&inner)?;
            }
        }
    }
    remove_if_empty(host, path)
}

/// Whether a step is about a file that describes an interface, which may go with it.
pub(super) fn describes_an_interface(step: &Step) -> bool {
    step.kind == File::NAME && is_interface(&step.name)
}

fn is_interface(path: &str) -> bool {
    path.starts_with(NETWORK) && path.ends_with(".netdev")
}

/// Removes a file, and the network interface that it described: systemd-networkd makes interfaces and forgets them.
fn remove(host: &dyn Host, path: &str) -> Result<(), HostError> {
    let interface = match is_interface(path) {
        true => host
            .read(path)?
            .and_then(|text| Some(text.lines().find_map(|l| l.strip_prefix("Name="))?.to_owned())),
        false => None,
    };
    if let Some(interface) = interface {
        // One that is not there is as good as removed.
        host.run(&Cmd::new("networkctl").args(["delete", &interface]).accept(1))?;
    }
    host.remove(path)
}

/// A directory that somebody else has put files into stays, and so does one that a dataset is mounted on.
pub(super) fn remove_if_empty(host: &dyn Host, path: &str) -> Result<(), HostError> {
    use std::io::ErrorKind::{DirectoryNotEmpty, ResourceBusy};
    match host.remove(path) {
        Err(HostError::File { source, .. }) if matches!(source.kind(), DirectoryNotEmpty | ResourceBusy) => {
            Ok(())
        }
        other => other,
    }
}

/// What a file is, without its owner, whose number may change.
fn digest_of(node: &Node, mode: u32) -> String {
    let (letter, bytes): (char, &[u8]) = match node {
        Node::File(bytes) => ('f', bytes),
        Node::Link(target) => ('l', target.as_bytes()),
        Node::Directory => ('d', b""),
        Node::Other => ('o', b""),
    };
    let mode = if letter == 'l' { 0 } else { mode };
    format!("{letter}{mode:o} {}", hex(&Sha256::digest(bytes)))
}

fn compare_one(
    accounts: &account::Seen,
    path: &str,
    file: &WantedFile,
    there: Option<Entry>,
) -> Result<Option<Step>, Refusal> {
    let refuse = |what: &str, wanted: &str| Refusal::Refused {
        name: path.to_owned(),
        reason: format!("it is {what}, and the manifest makes {wanted} of it"),
        hint: format!("move it away: `mv {path} {path}.old`"),
    };
    // An account that does not exist yet is made, or comes with a package, before the file.
    let owner = accounts.ids(&file.owner.0, &file.owner.1).ok();
    let (action, summary) = match &there {
        None => (Action::Add, describe_new(&file.node)),
        Some(Entry { node: Node::Other, .. }) => return Err(refuse("a device or a socket", "a file")),
        Some(Entry { node: Node::Directory, .. }) if file.node != Node::Directory => {
            return Err(refuse("a directory", "a file"));
        }
        Some(Entry { node: Node::File(_) | Node::Link(_), .. }) if file.node == Node::Directory => {
            return Err(refuse("a file", "a directory"));
        }
        Some(entry) => {
            let mut changes = Vec::new();
            if entry.node != file.node {
                changes.push(describe_change(&entry.node, &file.node));
            }
            let is_link = matches!(file.node, Node::Link(_));
            if entry.mode != file.mode && !is_link {
                changes.push(format!("mode {:04o} → {:04o}", entry.mode, file.mode));
            }
            if owner != Some((entry.uid, entry.gid)) && !is_link {
                changes.push(format!("owner → {}:{}", file.owner.0, file.owner.1));
            }
            if changes.is_empty() {
                return Ok(None);
            }
            (Action::Change, changes.join(", "))
        }
    };
    let notes = there.map(|there| lines::shown(&there, &file.node, file.mode)).unwrap_or_default();
    let node = match &file.node {
        Node::File(bytes) => NewNode::File(STANDARD.encode(bytes)),
        Node::Link(target) => NewNode::Link(target.clone()),
        Node::Directory | Node::Other => NewNode::Directory,
    };
    let change = Change::Put { path: path.to_owned(), node, mode: file.mode, owner: file.owner.clone() };
    Ok(Some(Step {
        kind: File::NAME.to_owned(),
        name: path.to_owned(),
        action,
        cause: Cause::Wish,
        summary,
        interrupts: None,
        notes,
        because: file.because.clone(),
        change: to_value(&change),
    }))
}

fn describe_new(node: &Node) -> String {
    match node {
        Node::File(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{} lines", text.lines().count()),
            Err(_) => format!("{} bytes", bytes.len()),
        },
        Node::Link(target) => format!("link to {target}"),
        Node::Directory | Node::Other => "directory".to_owned(),
    }
}

fn describe_change(old: &Node, new: &Node) -> String {
    match (old, new) {
        (Node::File(old), Node::File(new)) => match (std::str::from_utf8(old), std::str::from_utf8(new)) {
            (Ok(old), Ok(new)) => {
                let (removed, added) = lines::differing(old, new);
                format!("+{} −{} lines", added.len(), removed.len())
            }
            _ => format!("{} bytes → {}", old.len(), new.len()),
        },
        (Node::Link(old), Node::Link(new)) => format!("link to {old} → {new}"),
        (_, Node::Link(target)) => format!("becomes a link to {target}"),
        _ => "becomes a file".to_owned(),
    }
}

/// What has to change for one to become the other, in words.
fn differences(old: &Node, mode: u32, new: &Entry) -> Option<String> {
    let mut changes = Vec::new();
    if *old != new.node {
        changes.push(describe_change(old, &new.node));
    }
    if mode != new.mode && !matches!(new.node, Node::Link(_)) {
        changes.push(format!("mode {mode:04o} → {:04o}", new.mode));
    }
    (!changes.is_empty()).then(|| changes.join(", "))
}

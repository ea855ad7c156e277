//! What there is on this machine that a word of the command line can name, for shells that complete it.
//!
//! Nobody wants to read an error behind half a word: what cannot be read is not offered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _};
use kld_boot::Looked;
use kld_engine::{History, RealHost};
use kld_host::Cmd;
use kld_host::zpool::{Imported, imported};
use kld_snap::short_of;

use crate::commands::completion::word_before;
use crate::commands::place::dataset;

/// Longer than anybody waits for a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// Datasets, and paths for who begins one.
pub(crate) fn datasets_and_paths(current: &OsStr) -> Vec<CompletionCandidate> {
    match current.as_encoded_bytes().first() {
        Some(b'/' | b'.') => PathCompleter::any().complete(current),
        _ => datasets(current),
    }
}

/// Datasets.
pub(crate) fn datasets(current: &OsStr) -> Vec<CompletionCandidate> {
    let pools = imported().unwrap_or_default().into_iter().filter(Imported::answers);
    let pools: Vec<String> = pools.map(|pool| pool.name).collect();
    // Without a name it would ask the pools that do not answer.
    let names = if pools.is_empty() { Vec::new() } else { names("filesystem,volume", &["-r"], &pools) };
    beginning(current, names)
}

/// Snapshots of the dataset that the word before names, by their short names and by their own.
pub(crate) fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dataset) = word_before().and_then(|word| dataset(&word).ok()) else { return Vec::new() };
    let names = names("snapshot", &["-d", "1"], &[dataset]);
    let names = names.iter().filter_map(|name| Some(name.split_once('@')?.1));
    let all: BTreeSet<&str> = names.flat_map(|name| short_of(name).into_iter().chain([name])).collect();
    beginning(current, all.into_iter().map(str::to_owned))
}

/// Boot environments.
pub(crate) fn environments(current: &OsStr) -> Vec<CompletionCandidate> {
    let looked = Looked::at(&kld_boot::RealMachine).ok();
    let all = looked.iter().flat_map(|looked| &looked.environments);
    beginning(current, all.map(|of| of.name().to_owned()))
}

/// What a boot environment can be made from.
pub(crate) fn origins(current: &OsStr) -> Vec<CompletionCandidate> {
    let looked = Looked::at(&kld_boot::RealMachine).ok();
    let all = looked.iter().flat_map(|looked| &looked.environments);
    let names = all.flat_map(|of| {
        let snapshots = of.snapshots.iter().filter_map(|snapshot| snapshot.name.rsplit('/').next());
        std::iter::once(of.name()).chain(snapshots).map(str::to_owned)
    });
    beginning(current, names)
}

/// Numbers of what was applied, the newest first.
pub(crate) fn applies(current: &OsStr) -> Vec<CompletionCandidate> {
    let records = History::new(&RealHost).records().unwrap_or_default();
    beginning(current, records.iter().rev().map(|record| record.number.to_string()))
}

fn names(kinds: &str, how_deep: &[&str], of: &[String]) -> Vec<String> {
    let list = Cmd::new("zfs").args(["list", "-H", "-o", "name", "-t", kinds]).args(how_deep);
    let listed = list.arg("--").args(of).timeout(PATIENCE).stdout_string();
    listed.map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

/// Those that a person can have begun. One with a space would be several words in a shell that does not quote it.
fn beginning(current: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    let named = names.into_iter().filter(|name| name.starts_with(&*begun) && !name.contains(' '));
    named.map(CompletionCandidate::new).collect()
}

//! What runs around a snapshot: `ksnap --before CMD --after CMD`, and what services of the manifest want.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_snap::split_words;
use kld_system::NodeSnapshotHook;
use kld_ui::{Hinted, Printer};

use crate::commands::status;
use crate::signals;

/// Somebody who waits for longer has a frozen machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// Commands around a snapshot.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Hooks {
    /// Run this first; when it fails, no snapshot is made. A program and its arguments, without a shell
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    /// Run this last: also when --before or the snapshot has failed, and when ksnap is told to end
    #[arg(long, value_name = "COMMAND")]
    after: Option<String>,
    /// Without what services of the machine's manifest want done (`before_snapshot`, `after_snapshot`)
    #[arg(long)]
    no_hooks: bool,
}

/// Two commands, the second of which ends what the first has begun.
#[derive(Debug)]
struct Pair {
    before: Option<Cmd>,
    after: Option<Cmd>,
    /// When `before` fails, something else has run `after`.
    ends_itself: bool,
}

/// Hooks that can be run, the outermost first.
#[derive(Debug)]
pub(super) struct Ready(Vec<Pair>);

impl Hooks {
    /// Reads all, before anything is done: the caller's own around those of the services that own these datasets.
    pub(super) fn ready(&self, datasets: &[String], recursive: bool) -> anyhow::Result<Ready> {
        let node = if self.no_hooks { None } else { status::read_config()? };
        self.ready_with(&node.map(|node| node.snapshot_hooks).unwrap_or_default(), datasets, recursive)
    }

    fn ready_with(
        &self,
        hooks: &[NodeSnapshotHook],
        datasets: &[String],
        recursive: bool,
    ) -> anyhow::Result<Ready> {
        let read = |text: &Option<String>| text.as_deref().map(command).transpose();
        let own = Pair { before: read(&self.before)?, after: read(&self.after)?, ends_itself: false };
        let is_taken = |hook: &&NodeSnapshotHook| {
            let below =
                |of: &String| hook.dataset.strip_prefix(of.as_str()).is_some_and(|r| r.starts_with('/'));
            datasets.contains(&hook.dataset) || recursive && datasets.iter().any(below)
        };
        let mut units: Vec<_> =
            hooks.iter().filter(is_taken).map(|hook| (&hook.before, &hook.after)).collect();
        // A service with two datasets is asked once.
        units.sort();
        units.dedup();
        let start =
            |unit: &String| Cmd::new("systemctl").args(["start", "--", unit.as_str()]).timeout(DEADLINE);
        let of_services = units.into_iter().map(|(before, after)| Pair {
            before: before.as_ref().map(start),
            after: after.as_ref().map(start),
            ends_itself: true,
        });
        let is_any = |pair: &Pair| pair.before.is_some() || pair.after.is_some();
        Ok(Ready([own].into_iter().chain(of_services).filter(is_any).collect()))
    }
}

fn command(text: &str) -> anyhow::Result<Cmd> {
    let words = split_words(text)?;
    let (program, args) = words.split_first().context("a command has words")?;
    Ok(Cmd::new(program).args(args).timeout(DEADLINE))
}

impl Ready {
    /// What will run, in order, as lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let before = self.0.iter().filter_map(|pair| Some(format!("before: {}", pair.before.as_ref()?)));
        let after = self.0.iter().rev().filter_map(|pair| Some(format!("after: {}", pair.after.as_ref()?)));
        before.chain(after).collect()
    }

    /// Does the work between them. The outer result is whether it was done, the inner one whether all that had to run after
    /// it did.
    pub(super) fn around(
        self,
        printer: &Printer,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<anyhow::Result<()>> {
        if self.0.is_empty() {
            return work().map(Ok);
        }
        // From here to the end a signal is only remembered: the hooks are in groups of their own, where Ctrl-C does not
        // reach them, and what `before` has stopped runs again.
        let told = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&told);
        signals::watch(move || seen.store(true, Ordering::SeqCst))?;
        let failed = |error: &anyhow::Error| printer.warning(&format!("{error:#}"));
        self.in_turn(work, &told, failed)
    }

    /// All of it, and what is said of what fails at the end when something has failed before.
    fn in_turn(
        self,
        work: impl FnOnce() -> anyhow::Result<()>,
        told: &AtomicBool,
        warn: impl Fn(&anyhow::Error),
    ) -> anyhow::Result<anyhow::Result<()>> {
        let mut begun = Vec::new();
        let ready = self.0.into_iter().try_for_each(|Pair { before, after, ends_itself }| {
            let ran = before.map_or(Ok(()), |cmd| cmd.run());
            if ran.is_ok() || !ends_itself {
                begun.extend(after);
            }
            ran
        });
        let ready = ready.map_err(|error| {
            Hinted::new(
                format!("the command before the snapshot has failed, and none was made: {error}"),
                "mend it (`journalctl` has what units said), or leave out --before, or take one with --no-hooks",
            )
            .into()
        });
        let done = ready.and_then(|()| match told.load(Ordering::SeqCst) {
            true => Err(Hinted::new("told to end before the snapshot: none was made", "run it again").into()),
            false => work(),
        });
        // All of them, whatever the first has to say: what stands still is not left so.
        let ends = begun
            .iter()
            .rev()
            .map(|cmd: &Cmd| cmd.run().with_context(|| format!("`{cmd}` has failed after the snapshot")));
        let failed: Vec<anyhow::Error> = ends.filter_map(Result::err).collect();
        let mut failed = failed.into_iter();
        let first = if done.is_ok() { failed.next() } else { None };
        failed.for_each(|error| warn(&error));
        done.map(|()| first.map_or(Ok(()), Err))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn hooks(before: Option<&str>, after: Option<&str>) -> Hooks {
        Hooks { before: before.map(str::to_owned), after: after.map(str::to_owned), no_hooks: false }
    }

    fn of(dataset: &str, before: Option<&str>, after: Option<&str>) -> NodeSnapshotHook {
        let owned = |unit: &str| unit.to_owned();
        NodeSnapshotHook { dataset: owned(dataset), before: before.map(owned), after: after.map(owned) }
    }

    fn lines(datasets: &[&str], recursive: bool) -> Vec<String> {
        let all = [
            of("rpool/srv/db", Some("before-db.service"), Some("after-db.service")),
            of("rpool/srv/db/wal", Some("before-db.service"), Some("after-db.service")),
            of("rpool/srv/dbx", None, Some("after-x.service")),
        ];
        let datasets: Vec<String> = datasets.iter().map(|&name| name.to_owned()).collect();
        hooks(Some("first"), Some("last")).ready_with(&all, &datasets, recursive).expect("readable").lines()
    }

    #[test]
    fn services_are_asked_between_the_callers_own_commands() {
        let db = [
            "before: first",
            "before: systemctl start -- before-db.service",
            "after: systemctl start -- after-db.service",
            "after: last",
        ];
        assert_eq!(lines(&["rpool/srv/db", "rpool/srv/db/wal"], false), db);
        assert_eq!(lines(&["rpool/srv/db"], true), db, "once, and not for its neighbour");
        assert_eq!(lines(&["rpool/srv"], false), ["before: first", "after: last"]);
        assert_eq!(lines(&["rpool/srv"], true).len(), 5);
    }

    /// What is written when these are around a piece of work, and what it comes to.
    fn trace(pairs: Vec<(&str, &str, bool)>, work: bool, told: bool) -> (String, String) {
        let folder = tempfile::tempdir().expect("writable");
        let log = folder.path().join("log");
        let note = |word: &str| match word {
            "" => None,
            "fails" => Some(Cmd::new("false")),
            word => Some(Cmd::new("sh").args(["-c", "echo $1 >> $0; test $1 != broken"]).arg(&log).arg(word)),
        };
        let pairs = pairs
            .into_iter()
            .map(|(before, after, ends_itself)| Pair {
                before: note(before),
                after: note(after),
                ends_itself,
            })
            .collect();
        let warned = RefCell::new(0);
        let work = || match work {
            true => note("snapshot").expect("a command").run().map_err(Into::into),
            false => anyhow::bail!("no space"),
        };
        let done = Ready(pairs).in_turn(work, &AtomicBool::new(told), |_| *warned.borrow_mut() += 1);
        let result = match done {
            Ok(Ok(())) => "done".to_owned(),
            Ok(Err(error)) => format!("after: {error}"),
            Err(error) => error.to_string(),
        };
        let log = std::fs::read_to_string(&log)
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        (log, format!("{} warned, {result}", warned.take()))
    }

    #[test]
    fn what_was_begun_is_ended_whatever_fails() {
        let none = "the command before the snapshot has failed, and none was made: `false` failed with exit status: 1";
        let cases = [
            (
                vec![("a", "b", false), ("c", "d", true)],
                true,
                "a c snapshot d b",
                "0 warned, done".to_owned(),
            ),
            (vec![("a", "b", false), ("c", "d", true)], false, "a c d b", "0 warned, no space".to_owned()),
            // systemd has ended what failed for a service by itself; the caller's own is ended here.
            (vec![("a", "b", false), ("fails", "d", true)], true, "a b", format!("0 warned, {none}")),
            (vec![("fails", "b", false), ("c", "d", true)], true, "b", format!("0 warned, {none}")),
            (vec![("fails", "broken", false)], true, "broken", format!("1 warned, {none}")),
            (vec![("", "d", true)], true, "snapshot d", "0 warned, done".to_owned()),
        ];
        for (pairs, work, wanted, result) in cases {
            assert_eq!(trace(pairs.clone(), work, false), (wanted.to_owned(), result), "{pairs:?}");
        }
        let (log, result) = trace(vec![("a", "broken", false), ("", "broken", true)], true, false);
        assert_eq!(log, "a snapshot broken broken", "one that fails keeps no other from its turn");
        assert!(result.starts_with("1 warned, after: `sh"), "{result}");
        let (log, result) = trace(vec![("a", "b", false)], true, true);
        assert_eq!((&*log, &*result), ("a b", "0 warned, told to end before the snapshot: none was made"));
    }
}

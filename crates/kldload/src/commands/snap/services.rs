//! Services that stand still while something is done below them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kld_host::Cmd;
use kld_ui::{Hinted, Printer};

use crate::signals;

/// What can stop with a service and be started again. Mounts, scopes and slices come and go by themselves.
const KINDS: &str = "--type=service,socket,timer,path,target";

/// Does the work while these stand still. Whatever fails, and also when ksnap is told to end, all that stopped with them
/// runs again; these units are given back.
pub(super) fn without(
    printer: &Printer,
    units: &[String],
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    // Until all runs again a signal is only remembered: `systemctl` is in a group of its own, where Ctrl-C does not reach it.
    let (told, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, is_over) = (Arc::clone(&told), Arc::clone(&over));
    let handler = move || match is_over.load(Ordering::SeqCst) {
        true => std::process::exit(130),
        false => seen.store(true, Ordering::SeqCst),
    };
    signals::watch(handler)?;
    let done = in_turn(&|cmd| Ok(cmd.stdout_string()?), &|line| printer.note(line), units, &told, work);
    over.store(true, Ordering::SeqCst);
    done
}

fn in_turn(
    run: &dyn Fn(&Cmd) -> anyhow::Result<String>,
    note: &dyn Fn(&str),
    units: &[String],
    told: &AtomicBool,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    let before = active(run)?;
    note(&format!("stop {}", units.join(", ")));
    let stopped = run(&systemctl("stop", units));
    // When nobody can say, all is started that ran: what runs still is left alone.
    let after = active(run).unwrap_or_default();
    let again: BTreeSet<String> = before.difference(&after).chain(units).cloned().collect();
    let again: Vec<String> = again.into_iter().collect();
    let done = stopped.and_then(|_| match told.load(Ordering::SeqCst) {
        true => {
            Err(Hinted::new("told to end before it went back: nothing was changed", "run it again").into())
        }
        false => work(),
    });
    note(&format!("start {}", again.join(", ")));
    let started = run(&systemctl("start", &again));
    done?;
    started?;
    Ok(again)
}

fn active(run: &dyn Fn(&Cmd) -> anyhow::Result<String>) -> anyhow::Result<BTreeSet<String>> {
    let words = ["list-units", "--plain", "--no-legend", KINDS, "--state=active"];
    let text = run(&Cmd::new("systemctl").args(words).timeout(Duration::from_secs(30)))?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn systemctl(verb: &str, units: &[String]) -> Cmd {
    Cmd::new("systemctl").args([verb, "--"]).args(units).timeout(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A machine on which `app` requires `db`; gives what was done, what runs in the end, and what was said.
    fn trace(fails: &str, told: bool, work: bool) -> (String, String, String) {
        let all = ["app.service", "db.service", "other.service"].map(str::to_owned);
        let (runs, log) = (RefCell::new(BTreeSet::from(all)), RefCell::new(String::new()));
        let run = |cmd: &Cmd| {
            let words: Vec<String> = cmd.argv().map(|word| word.to_string_lossy().into_owned()).collect();
            match words[0].as_str() {
                "list-units" if fails == "look" && !log.borrow().is_empty() => anyhow::bail!("no bus"),
                "list-units" => {
                    let line = |unit: &String| format!("{unit} loaded active running A unit\n");
                    return Ok(runs.borrow().iter().map(line).collect());
                }
                // With those that require it.
                "stop" => runs.borrow_mut().retain(|unit| unit == "other.service"),
                _ => runs.borrow_mut().extend(words[2..].iter().cloned()),
            }
            *log.borrow_mut() += &format!("{} ", words[0]);
            anyhow::ensure!(words[0] != fails, "timeout of {fails}");
            Ok(String::new())
        };
        let back = || {
            *log.borrow_mut() += "back ";
            anyhow::ensure!(work, "dataset is busy");
            Ok(())
        };
        let done = in_turn(&run, &|_| (), &["db.service".to_owned()], &AtomicBool::new(told), back);
        let said = done.map_or_else(|error| error.to_string(), |units| units.join(" "));
        let runs = runs.take().into_iter().collect::<Vec<_>>().join(" ");
        (log.take().trim_end().to_owned(), runs, said)
    }

    #[test]
    fn all_that_stopped_runs_again_whatever_fails() {
        let cases = [
            ("", false, true, "stop back start", "app.service db.service"),
            ("", false, false, "stop back start", "dataset is busy"),
            ("stop", false, true, "stop start", "timeout of stop"),
            ("start", false, true, "stop back start", "timeout of start"),
            ("start", false, false, "stop back start", "dataset is busy"),
            ("look", false, true, "stop back start", "app.service db.service other.service"),
            ("", true, true, "stop start", "told to end before it went back: nothing was changed"),
        ];
        for (fails, told, work, did, said) in cases {
            let all = "app.service db.service other.service".to_owned();
            assert_eq!(
                trace(fails, told, work),
                (did.to_owned(), all, said.to_owned()),
                "{fails} {told} {work}"
            );
        }
    }
}

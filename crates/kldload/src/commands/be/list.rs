//! `kbe list`.

use kld_boot::{Environment, Looked, RealMachine, Unfinished, frees, leftovers, unequal};
use kld_host::LockError;
use kld_ui::{ByteSize, ExitStatus, Printer, Table};
use serde::Serialize;

use crate::commands::history::utc;
use crate::commands::lock::take_lock;
use crate::commands::pkg;

/// Show the boot environments: what runs, what starts next, what each one takes
///
/// ACTIVE: N runs now, R starts next, T starts next but only once. GOOD: the last one known to be well, see `kbe good`. OWN is what only
/// its files hold, SHARED what others hold too, FREES what comes free when it is destroyed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe list\n  kbe list --json | jq -r '.items[] | select(.running) | .name'"
)]
pub(crate) struct Args {
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A row.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    dataset: &'a str,
    running: bool,
    next: bool,
    once: bool,
    last_good: bool,
    own: u64,
    shared: u64,
    frees: Option<u64>,
    frees_at_least: bool,
    kernel: Option<&'a str>,
    created: u64,
    boots: Option<u64>,
    mounted: Option<&'a str>,
    state: &'static str,
    trial: Option<String>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let looked = Looked::at(&RealMachine)?;
    let rows: Vec<Row<'_>> = looked.environments.iter().map(|of| row(&looked, of)).collect();
    if args.json {
        printer.envelope("boot_environment", &rows)?;
    } else {
        printer.data(&table(&rows))?;
    }
    for environment in looked.environments.iter().filter(|of| of.unfinished.is_none()) {
        if let Some((_, said)) = pkg::said(&looked, environment) {
            printer.warning(&format!("`{}`: {said}", environment.name()));
        }
    }
    for note in &looked.notes {
        printer.warning(note);
    }
    let unequal = unequal(&looked);
    for mended in &unequal.mended {
        printer.warning(&format!("{mended}: `kbe prune` mends that"));
    }
    for stays in &unequal.stays {
        printer.warning(stays);
    }
    let left = leftovers(&looked);
    if !left.said.is_empty() {
        let said = left.said.join("\n  ");
        // What is half-made may be in somebody's hands.
        match take_lock("kbe list") {
            Err(error) if error.is::<LockError>() => {
                printer.note(&format!("a command is at work, {error}:\n  {said}"))
            }
            _ => printer.warning(&format!(
                "an interrupted command has left something, `kbe prune` removes it:\n  {said}"
            )),
        }
    }
    Ok(ExitStatus::Done)
}

fn row<'a>(looked: &'a Looked, environment: &'a Environment) -> Row<'a> {
    let is = |other: Option<&Environment>| other.is_some_and(|other| other.dataset == environment.dataset);
    let entry = looked.entry(&environment.dataset);
    let freed = frees(looked, environment);
    Row {
        name: environment.name(),
        dataset: &environment.dataset,
        running: environment.is_running(),
        next: is(looked.default_environment()),
        once: is(looked.once()),
        last_good: is(looked.last_good()),
        own: environment.own,
        shared: environment.referenced.saturating_sub(environment.own),
        frees: freed.map(|freed| freed.bytes),
        frees_at_least: freed.is_some_and(|freed| freed.at_least),
        kernel: entry.and_then(|entry| entry.entry.get("version")),
        created: environment.created,
        boots: environment.good.as_ref().map(|good| good.boots),
        mounted: environment.mounted.first().map(String::as_str),
        state: match (environment.unfinished, entry) {
            (Some(Unfinished::Leaving), _) => "half-destroyed",
            (Some(Unfinished::Making), None) => "half-made",
            (_, None) => "no boot entry",
            (_, Some(_)) => "complete",
        },
        trial: pkg::said(looked, environment).map(|(_, said)| said),
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new()
        .left("NAME")
        .left("ACTIVE")
        .left("GOOD")
        .right("OWN")
        .right("SHARED")
        .right("FREES")
        .left("KERNEL")
        .left("CREATED")
        .right("BOOTS")
        .left("MOUNTED");
    for row in rows {
        let active: String = [(row.running, 'N'), (row.next, 'R'), (row.once, 'T')]
            .into_iter()
            .filter_map(|(is, letter)| is.then_some(letter))
            .collect();
        let sign = if row.frees_at_least { "≥" } else { "" };
        let kernel = if row.state == "complete" { row.kernel.unwrap_or_default() } else { row.state };
        table.row([
            row.name.to_owned(),
            active,
            if row.last_good { "yes".to_owned() } else { String::new() },
            ByteSize(row.own).to_string(),
            ByteSize(row.shared).to_string(),
            row.frees.map(|bytes| format!("{sign}{}", ByteSize(bytes))).unwrap_or_default(),
            kernel.to_owned(),
            utc(row.created),
            row.boots.map(|boots| boots.to_string()).unwrap_or_default(),
            row.mounted.unwrap_or_default().to_owned(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_table_says_what_runs_and_what_starts() {
        let debian = Row {
            name: "debian",
            dataset: "rpool/ROOT/debian",
            running: true,
            next: true,
            once: false,
            last_good: true,
            own: 12 << 20,
            shared: 600 << 20,
            frees: Some(13 << 20),
            frees_at_least: true,
            kernel: Some("6.12.57+deb13-amd64"),
            created: 1_795_752_780,
            boots: Some(4),
            mounted: Some("/"),
            state: "complete",
            trial: None,
        };
        let half = Row {
            name: "try",
            dataset: "rpool/ROOT/try",
            running: false,
            next: false,
            once: true,
            last_good: false,
            own: 8 << 10,
            shared: 612 << 20,
            frees: Some(8 << 10),
            frees_at_least: false,
            kernel: None,
            created: 1_795_752_840,
            boots: None,
            mounted: None,
            state: "half-made",
            trial: None,
        };
        expect![[r#"
            NAME    ACTIVE  GOOD  OWN  SHARED  FREES  KERNEL               CREATED               BOOTS  MOUNTED
            debian  NR      yes   12M    600M   ≥13M  6.12.57+deb13-amd64  2026-11-27 04:13 UTC      4  /
            try     T       -      8K    612M     8K  half-made            2026-11-27 04:14 UTC      -  -
        "#]]
        .assert_eq(&table(&[debian, half]));
    }
}

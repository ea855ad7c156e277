//! `kdf --what-if destroy`.

use kld_snap::{Snapshot, choose, spared};
use kld_ui::{ByteSize, ExitStatus, Hinted, Hints, Printer, Table};
use serde::Serialize;

use crate::commands::place::dataset;
use crate::commands::snap::{counted, reclaimed, snapshots, why};

/// What would go from one dataset.
#[derive(Debug, Serialize)]
struct Row {
    dataset: String,
    destroy: Vec<String>,
    /// Bytes that would come free.
    frees: u64,
}

/// Says what destroying them would free; destroys nothing.
pub(super) fn destroy(printer: &Printer, words: &[String], json: bool) -> anyhow::Result<ExitStatus> {
    // Of each dataset, all that is chosen in any word: what one frees depends on the others.
    let mut wanted: Vec<(String, Vec<Snapshot>, Vec<Snapshot>)> = Vec::new();
    for word in words {
        let Some((of, specification)) = word.rsplit_once('@') else {
            let hint = format!("`ksnap list {word}` lists its snapshots: `{word}@NAME`");
            printer.error(&Hinted::new(format!("`{word}` is no snapshot"), hint), &Hints::new());
            return Ok(ExitStatus::Usage);
        };
        let of = dataset(of)?;
        let place = match wanted.iter().position(|(known, _, _)| *known == of) {
            Some(place) => place,
            None => {
                wanted.push((of.clone(), snapshots(std::slice::from_ref(&of), false)?, Vec::new()));
                wanted.len() - 1
            }
        };
        let (_, all, chosen) = &mut wanted[place];
        for snapshot in choose(&of, all, specification)? {
            if let Some(reason) = spared(snapshot) {
                let full = snapshot.full();
                let hint = match snapshot.clones.first() {
                    Some(clone) => format!("`zfs promote {clone}` makes it the clone's, or leave it out"),
                    None => format!("`zfs holds {full}` names who holds it; leave it out"),
                };
                return Err(
                    Hinted::new(format!("`{full}` cannot go: it {}", why(snapshot, reason)), hint).into()
                );
            }
            if !chosen.contains(snapshot) {
                chosen.push(snapshot.clone());
            }
        }
    }
    let mut rows = Vec::new();
    for (dataset, all, mut chosen) in wanted {
        chosen.sort_by_key(|snapshot| snapshot.txg);
        let frees = reclaimed(&dataset, &all, &chosen.iter().collect::<Vec<_>>())?;
        rows.push(Row {
            dataset,
            destroy: chosen.into_iter().map(|snapshot| snapshot.name).collect(),
            frees,
        });
    }
    if json {
        printer.envelope("what_if", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("DATASET").right("SNAPSHOTS").right("FREES");
    for row in &rows {
        table.row([row.dataset.clone(), row.destroy.len().to_string(), ByteSize(row.frees).to_string()]);
    }
    let (count, bytes) =
        rows.iter().fold((0, 0), |(count, bytes), row| (count + row.destroy.len(), bytes + row.frees));
    printer.data(&format!("{table}{} would free {}\n", counted(count, "snapshot"), ByteSize(bytes)))?;
    Ok(ExitStatus::Done)
}

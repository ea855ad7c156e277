//! `ksnap rollback --swap`, and what an interruption of it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_host::folder::{make_public_folders, names_in, present};
use kld_host::zfs::{Property, parse_get};
use kld_host::zpool::{Imported, imported};
use kld_snap::{Seen, Swap, marks_cmd, parse_marks, properties_cmd, stamp};
use kld_ui::Printer;

use super::now;

/// A machine that kldload has made looks here at its start whether there is something to be ended.
const MEMORY: &str = "/var/lib/kldload";
const DEADLINE: Duration = Duration::from_secs(120);

/// Plans a swap to this snapshot, given in full; nothing is changed.
pub(super) fn plan(dataset: &str, snapshot: &str) -> anyhow::Result<Swap> {
    let properties = parse_get(&properties_cmd(dataset).stdout_string()?)?;
    let below = Cmd::new("zfs").args([
        "list",
        "-H",
        "-o",
        "name",
        "-t",
        "filesystem,volume",
        "-r",
        "-d",
        "1",
        dataset,
    ]);
    let has_children = below.timeout(DEADLINE).stdout_string()?.lines().count() > 1;
    Ok(Swap::new(dataset, snapshot, &properties, has_children, &stamp(now()))?)
}

/// Lets them change places. Services have been stopped. When a step fails, all is brought to an end as it would be after a
/// power cut, and the error says which.
pub(super) fn swap(printer: &Printer, swap: &Swap) -> anyhow::Result<()> {
    let properties = parse_get(&properties_cmd(&swap.dataset).stdout_string()?)?;
    let note = remember(swap)?;
    let done = steps(swap, &properties);
    if done.is_err() {
        end(printer, swap).context("cannot bring it to an end; `kldload recover` tries again")?;
    }
    if let Some(note) = note {
        fs::remove_file(&note).with_context(|| format!("cannot remove `{}`", note.display()))?;
    }
    done
}

fn steps(swap: &Swap, properties: &[Property]) -> anyhow::Result<()> {
    swap.prepare(properties).run()?;
    unmount(&swap.dataset)?;
    for cmd in swap.begin() {
        cmd.run()?;
    }
    // Giving it a mount point of its own has mounted it there.
    unmount(&swap.aside)?;
    for cmd in swap.finish(Seen { incoming: true, aside: true, is_clone: true }) {
        cmd.run()?;
    }
    mount(swap)
}

/// Brings interrupted swaps to their end, in every pool that answers; whether there was one.
pub(crate) fn recover(printer: &Printer) -> anyhow::Result<bool> {
    let (well, silent): (Vec<_>, Vec<_>) = imported()?.into_iter().partition(Imported::answers);
    let well: Vec<String> = well.into_iter().map(|pool| pool.name).collect();
    let found = !well.is_empty() && recover_in(printer, &well)?;
    // Also of one that was killed when all was done but this.
    if silent.is_empty() {
        for name in names_in(notes())? {
            fs::remove_file(notes().join(name)).context("cannot remove the note of a swap")?;
        }
    }
    Ok(found)
}

/// Brings those of these pools to their end.
pub(super) fn recover_in(printer: &Printer, pools: &[String]) -> anyhow::Result<bool> {
    let swaps = parse_marks(&marks_cmd(pools).stdout_string()?);
    for swap in &swaps {
        end(printer, swap)?;
        let note = note(swap);
        present(fs::remove_file(&note)).with_context(|| format!("cannot remove `{}`", note.display()))?;
    }
    Ok(!swaps.is_empty())
}

fn end(printer: &Printer, swap: &Swap) -> anyhow::Result<()> {
    let seen = swap.parse_look(&swap.look_cmd().stdout_string()?);
    let (forward, todo) = swap.recover(seen);
    if forward {
        // What is mounted last is above, and has to go first.
        if !seen.incoming {
            unmount(&swap.dataset)?;
        }
        unmount(&swap.aside)?;
    }
    for cmd in todo {
        cmd.run()?;
    }
    mount(swap)?;
    let Swap { dataset, aside, snapshot, .. } = swap;
    printer.note(&match forward {
        true => format!("`{dataset}` is `{snapshot}` as it was to be; what it was is kept as `{aside}`"),
        false => format!("`{dataset}` is as it was"),
    });
    Ok(())
}

/// Setting a mount point mounts where ZFS thinks so; what is to be mounted is, after this.
fn mount(swap: &Swap) -> anyhow::Result<()> {
    if swap.mounts() && !is_mounted(&swap.dataset)? {
        Cmd::new("zfs").args(["mount", &swap.dataset]).timeout(DEADLINE).run()?;
    }
    Ok(())
}

fn unmount(dataset: &str) -> anyhow::Result<()> {
    if is_mounted(dataset)? {
        Cmd::new("zfs").args(["unmount", dataset]).timeout(DEADLINE).run()?;
    }
    Ok(())
}

fn is_mounted(dataset: &str) -> anyhow::Result<bool> {
    Ok(super::rollback::property(dataset, "mounted")? == "yes")
}

/// Where it is noted that there is something to look at.
fn notes() -> PathBuf {
    Path::new(MEMORY).join("swaps")
}

fn note(swap: &Swap) -> PathBuf {
    notes().join(swap.aside.replace('/', ":"))
}

/// Notes it, on machines that look there.
fn remember(swap: &Swap) -> anyhow::Result<Option<PathBuf>> {
    if !Path::new(MEMORY).is_dir() {
        return Ok(None);
    }
    let note = note(swap);
    make_public_folders(&notes())?;
    kld_host::atomic_write(&note, b"", 0o600)?;
    Ok(Some(note))
}

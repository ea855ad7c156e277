//! `kldload man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;
use kld_host::{atomic_write, folder};
use kld_ui::{ExitStatus, Printer};

use crate::names::{command_of, short_names};

/// Write a manual page for every command into a directory
///
/// The same pages for the same program: nothing of the machine or the day is in them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload man /usr/local/share/man/man1\n  kldload man pages && man -l pages/ksnap-rollback.1"
)]
pub(crate) struct Args {
    /// The directory; it is made when it is not there
    directory: PathBuf,
}

/// Writes them.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let pages = pages().context("cannot make the pages")?;
    let cannot = || format!("cannot make `{}`", args.directory.display());
    folder::make_public_folders(&args.directory).with_context(cannot)?;
    for (name, page) in &pages {
        atomic_write(&args.directory.join(name), page, 0o644)?;
    }
    printer.note(&format!("{} pages in `{}`", pages.len(), args.directory.display()));
    Ok(ExitStatus::Done)
}

/// All pages: `kldload-snap-list.1`, and the same as `ksnap-list.1`.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    add(crate::Args::command(), "kldload", &mut pages)?;
    for name in short_names() {
        add(command_of(name), name, &mut pages)?;
    }
    Ok(pages)
}

fn add(mut command: clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    // Gives every verb the options of all, as `--help` shows them.
    command.build();
    add_built(&command, name, pages)
}

fn add_built(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        add_built(verb, &format!("{name}-{}", verb.get_name()), pages)?;
    }
    let page = command.clone().display_name(name.to_owned()).disable_help_subcommand(true);
    let mut text = Vec::new();
    // The day on which it was made is no business of the page.
    let source = format!("kldload {}", env!("CARGO_PKG_VERSION"));
    Man::new(page).title(name.to_uppercase()).date("").source(source).manual("kldload").render(&mut text)?;
    pages.push((format!("{name}.1"), text));
    Ok(())
}

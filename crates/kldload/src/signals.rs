//! What asks a command to end that must not be cut off in the middle: it is remembered, and looked at where nothing is half-done.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use kld_ui::Printer;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Does this whenever somebody wants the command to end, or its terminal has gone away, instead of ending it.
///
/// # Errors
/// When the system has no room for the watch.
pub(crate) fn watch(mut asked: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    on_each(move |_| asked())
}

/// Whether somebody has asked a change of the machine to end; he is told that he was heard. That its terminal goes away ends
/// no change: it may be the change that has cut the connection.
///
/// # Errors
/// As [`watch`].
pub(crate) fn stop(printer: &Printer) -> anyhow::Result<Arc<AtomicBool>> {
    let (stop, printer) = (Arc::new(AtomicBool::new(false)), printer.clone());
    let asked = Arc::clone(&stop);
    on_each(move |signal| {
        if signal != SIGHUP {
            asked.store(true, Ordering::SeqCst);
            printer.warning("told to stop: what is under way ends first, then all is put back");
        }
    })?;
    Ok(stop)
}

fn on_each(mut told: impl FnMut(c_int) + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    std::thread::spawn(move || signals.forever().for_each(&mut told));
    Ok(())
}

//! `cargo xtask bench rebuild`: recipes/webapp again after one application file changed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_ui::Printer;

use super::table::{Markdown, median, seconds};
use super::{compile, scratch};
use crate::test::inherit;

pub(super) fn run(printer: &Printer, root: &Path, runs: usize) -> anyhow::Result<()> {
    let target = compile(root, &["--package", "kldload"])?;
    let scratch = scratch()?;
    Cmd::new("cp").arg("-r").arg(root.join("recipes/webapp")).arg(&scratch).run()?;
    let build = || {
        Cmd::new(target.join("kldload"))
            .args(["build", "--quiet", "--output"])
            .arg(scratch.join("webapp.img"))
            .arg(scratch.join("webapp/appliance.manifest"))
    };
    inherit(build()).run().context("the first build failed")?;
    let mut times = Vec::new();
    for run in 0..runs.max(1) {
        let app = scratch.join("webapp/app.py");
        let text = fs::read_to_string(&app)? + &format!("# run {run}\n");
        fs::write(&app, text)?;
        let start = Instant::now();
        inherit(build()).run().context("the build failed")?;
        times.push(start.elapsed().as_secs_f64());
    }
    let mut table = Markdown::new(&["what", "seconds"]);
    table.row(["rebuild after one application file changed".to_owned(), seconds(median(times))]);
    printer.data(&table.to_string())?;
    Ok(())
}

//! `cargo xtask bench apply`: what it costs to find out that there is nothing to do.

use std::path::Path;

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::Printer;
use serde_json::Value;

use super::table::Markdown;
use super::{Args, compile, in_machine, scratch};

/// How many things a manifest asks for, and the most milliseconds that a plan may take on a machine in memory.
const SIZES: [(usize, f64); 3] = [(100, 100.0), (1000, 300.0), (10_000, 2000.0)];

pub(super) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    let parts = ["--package", "kld-engine", "--example", "many", "--package", "kldload", "--bin", "kldload"];
    let target = compile(root, &parts)?;
    let many = target.join("examples/many");
    let counts = SIZES.map(|(count, _)| count.to_string());
    let said = Cmd::new(&many).args(["time", &args.runs.max(1).to_string()]).args(counts).stdout_string()?;
    let mut table = Markdown::new(&[
        "things in the manifest",
        "things compared",
        "read the manifest, ms",
        "plan, ms",
        "both, ms",
        "limit, ms",
        "processes",
    ]);
    let mut late = Vec::new();
    for (line, (count, limit)) in said.lines().zip(SIZES) {
        let row: Value =
            serde_json::from_str(line).context("the measuring program has said something else")?;
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        let ms = |name: &str| number(name) * 1000.0;
        table.row([
            count.to_string(),
            row["items"].to_string(),
            format!("{:.1}", ms("read")),
            format!("{:.1}", ms("plan")),
            format!("{:.1}", ms("total")),
            format!("{limit:.0}"),
            row["processes"].to_string(),
        ]);
        if ms("total").is_nan() || ms("total") > limit {
            late.push(format!("{count} things take {:.0} ms", ms("total")));
        }
    }
    printer.data(&table.to_string())?;
    if !late.is_empty() {
        bail!("a plan takes too long: {}", late.join(", "));
    }
    if args.vm {
        let scratch = scratch()?;
        in_machine::run(printer, &target, &scratch, args)?;
    }
    Ok(())
}

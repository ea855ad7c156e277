//! `kldload explain`.

use std::path::PathBuf;

use anyhow::Context as _;
use kld_system::{ExplainRow, explain, preset_rows};
use kld_ui::{ExitStatus, Printer, Table};
use serde::Serialize;

use crate::manifest::ManifestFile;

/// Show everything a manifest makes, each with the line that asked for it and the reason
///
/// Datasets and their properties, packages, accounts, files, firewall rules, unit directives, timers.
/// Nothing is built and nothing is changed. `--presets` lists what each preset of `hardening:` holds, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload explain recipes/webapp/appliance.manifest\n  kldload explain --layer firewall recipes/webapp/appliance.manifest\n  kldload explain --show /etc/nftables.conf recipes/webapp/appliance.manifest\n  kldload explain --presets"
)]
pub(crate) struct Args {
    /// The manifest; `-` reads standard input
    #[arg(required_unless_present = "presets")]
    file: Option<PathBuf>,
    /// The presets of `hardening:`, each with its directives and their reasons; takes no manifest
    #[arg(long, conflicts_with_all = ["file", "layer", "show"])]
    presets: bool,
    /// Only this layer: datasets, wireguard, firewall, services, snapshots, …
    #[arg(long)]
    layer: Option<String>,
    /// Print the file that the machine would have at this path
    #[arg(long, value_name = "PATH", conflicts_with_all = ["layer", "json"])]
    show: Option<String>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    layer: String,
    item: &'a str,
    detail: &'a str,
    line: Option<u32>,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
struct Directive {
    preset: &'static str,
    of: Option<&'static str>,
    directive: String,
    reason: &'static str,
}

fn presets(printer: &Printer, json: bool) -> anyhow::Result<ExitStatus> {
    let rows = preset_rows();
    if json {
        let rows: Vec<Directive> = rows
            .into_iter()
            .map(|row| Directive {
                preset: row.preset.name(),
                of: row.of,
                directive: row.directive,
                reason: row.reason,
            })
            .collect();
        printer.envelope("presets", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("PRESET").left("OF UNITS").left("DIRECTIVE").left("REASON");
    for row in rows {
        let of = row.of.unwrap_or("all");
        table.row([row.preset.name().to_owned(), of.to_owned(), row.directive, row.reason.to_owned()]);
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

/// Shows it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if args.presets {
        return presets(printer, args.json);
    }
    let file = ManifestFile::read(args.file.as_deref().context("no manifest was named")?)?;
    let system = file.system(printer)?;
    if let Some(path) = &args.show {
        let found = system.files.iter().find(|f| f.path == *path);
        let Some(kld_system::Content::Text(text)) = found.map(|f| &f.content) else {
            let hint = "`kldload explain FILE` lists every path";
            return Err(
                kld_ui::Hinted::new(format!("the manifest renders no text file `{path}`"), hint).into()
            );
        };
        printer.data(text)?;
        return Ok(ExitStatus::Done);
    }
    let rows = explain(&system);
    let wanted = |row: &&ExplainRow| args.layer.as_ref().is_none_or(|layer| row.layer.to_string() == *layer);
    let rows: Vec<&ExplainRow> = rows.iter().filter(wanted).collect();
    if rows.is_empty() {
        let mut layers: Vec<String> = explain(&system).iter().map(|row| row.layer.to_string()).collect();
        layers.sort();
        layers.dedup();
        let hint = format!("layers of this manifest: {}", layers.join(", "));
        let layer = args.layer.as_deref().unwrap_or_default();
        return Err(kld_ui::Hinted::new(
            format!("nothing in this manifest belongs to a layer `{layer}`"),
            hint,
        )
        .into());
    }
    if args.json {
        let rows: Vec<Row<'_>> = rows
            .iter()
            .map(|r| Row {
                layer: r.layer.to_string(),
                item: &r.item,
                detail: &r.detail,
                line: r.line,
                reason: &r.reason,
            })
            .collect();
        printer.envelope("explanation", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("LAYER").left("ITEM").left("DETAIL").right("LINE").left("REASON");
    for row in rows {
        let line = row.line.map_or_else(|| "-".to_owned(), |line| line.to_string());
        table.row([row.layer.to_string(), row.item.clone(), row.detail.clone(), line, row.reason.clone()]);
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

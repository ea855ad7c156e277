//! `kldload secret`: secrets that people give to a machine that runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_manifest::names::SecretName;
use kld_node::secrets::{self, MAX_BYTES, Origin, Secret};
use kld_node::{Machine as _, RealMachine};
use kld_system::secret_file;
use kld_ui::{ExitStatus, Hinted, Printer, Table};

use super::asked::asked;
use super::given;
use super::history::utc;
use super::lock;
use super::status::read_config;

/// The secrets of services: which there are, and values that a person gives
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload secret list\n  kldload secret set api-token token.txt\n  systemd-ask-password -n | kldload secret set api-token"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show which secrets this machine has or lacks, where they come from and who uses them; never a value
    #[command(
        after_help = "Examples:\n  kldload secret list\n  kldload secret list --json | jq '.items[] | select(.is_there | not) | .name'"
    )]
    List {
        /// Print JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Give this machine the value of a secret, from a file or from standard input
    ///
    /// The value is taken byte for byte, a line break at its end too, and sealed with systemd-creds for this machine alone. It
    /// may be given before the manifest that asks for it is applied. Services have it when they are started the next time.
    #[command(
        after_help = "Examples:\n  kldload secret set api-token token.txt\n  systemd-ask-password -n | kldload secret set api-token\n  kldload secret set --dry-run api-token token.txt"
    )]
    Set {
        /// The secret, as the manifest calls it
        name: SecretName,
        /// The file with its value; `-`, or none, reads standard input
        file: Option<PathBuf>,
        /// Only show what would be done; exits with 3
        #[arg(long)]
        dry_run: bool,
        /// Do not ask before a value is replaced
        #[arg(long, short)]
        yes: bool,
    },
}

/// Does it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        Verb::List { json } => list(printer, *json),
        Verb::Set { name, file, dry_run, yes } => set(printer, name, file.as_deref(), *dry_run, *yes),
    }
}

fn list(printer: &Printer, json: bool) -> anyhow::Result<ExitStatus> {
    let all = secrets::list(&RealMachine, read_config()?.as_ref())?;
    if json {
        printer.envelope("secret", &all)?;
        return Ok(ExitStatus::Done);
    }
    if all.is_empty() {
        printer.note("this machine has no secrets");
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("SECRET").left("FROM").left("SINCE").left("USED BY");
    for secret in &all {
        table.row(cells(secret));
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

fn cells(secret: &Secret) -> [String; 4] {
    let origin = match secret.origin {
        Origin::Generated => "this machine",
        Origin::Supplied => "a person",
        Origin::Unknown => "a person, for a manifest to come",
    };
    let since = match secret.since.filter(|_| secret.is_there) {
        Some(since) => utc(since),
        None => format!("missing: `kldload secret set {} FILE`", secret.name),
    };
    let used_by = if secret.used_by.is_empty() { "-".to_owned() } else { secret.used_by.join(", ") };
    [secret.name.clone(), origin.to_owned(), since, used_by]
}

fn set(
    printer: &Printer,
    name: &SecretName,
    file: Option<&Path>,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<ExitStatus> {
    let _lock = lock::lock("kldload secret set")?;
    let value = read(name, file.filter(|file| *file != Path::new("-")))?;
    secrets::check(name.as_str(), &value)?;
    let config = read_config()?;
    let known = config.iter().flat_map(|config| &config.secrets).find(|of| of.name == name.as_str());
    let sealed = PathBuf::from(secret_file(name));
    let replaces = RealMachine.read(&sealed)?.is_some();
    printer.data(&format!(
        "{name} {}: {} bytes, sealed into `{}`",
        if replaces { "gets another value" } else { "gets its value" },
        value.len(),
        sealed.display()
    ))?;
    if value.ends_with(b"\n") {
        printer.note("the line break at its end is a part of it; `printf %s` writes none");
    }
    if dry_run {
        return Ok(ExitStatus::Pending);
    }
    if replaces {
        asked(printer, "replace it?", yes)?;
    }
    secrets::set(&RealMachine, name.as_str(), &sealed, &value)?;
    printer.note(&match known {
        None => format!("`{name}` is sealed; no manifest that was applied here asks for it yet"),
        Some(of) if of.used_by.is_empty() => format!("`{name}` is sealed; no service uses it"),
        Some(of) => format!(
            "`{name}` is sealed; its services have it after `systemctl restart {}`",
            of.used_by.join(" ")
        ),
    });
    Ok(ExitStatus::Done)
}

fn read(name: &SecretName, file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = file {
        let source = File::open(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        return given::read(source, MAX_BYTES);
    }
    given::standard_input(MAX_BYTES)?.ok_or_else(|| {
        let hint = format!("`systemd-ask-password -n | kldload secret set {name}`, or name a file");
        Hinted::new("a secret that is typed here would be seen", hint).into()
    })
}

//! `kldload manifest`.

use kld_ui::{ExitStatus, Printer};

/// Print the reference of the manifest, or its JSON Schema
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload manifest reference | less\n  kldload manifest schema > appliance.schema.json"
)]
pub(crate) struct Args {
    /// What to print
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// Every key with its meaning and an example, in Markdown
    Reference,
    /// JSON Schema of the structured form
    Schema,
}

/// Prints it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match args.what {
        What::Reference => printer.data(&kld_manifest::reference())?,
        What::Schema => printer.data(&serde_json::to_string_pretty(&kld_manifest::schema())?)?,
    }
    Ok(ExitStatus::Done)
}

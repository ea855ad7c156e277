//! Why each thing is in the machine: one row per item, property, rule, directive.

use kld_manifest::Span;

use crate::system::{Because, Content, Created, Layer, System};

/// One row: what there is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRow {
    /// The layer that asked for it.
    pub layer: Layer,
    /// What it belongs to: a dataset, a package, a file.
    pub item: String,
    /// The property, rule or directive; what kind of thing it is when it has no parts.
    pub detail: String,
    /// The manifest line; `None` when every machine has it.
    pub line: Option<u32>,
    /// The reason.
    pub reason: String,
}

/// Every dataset and property, package, account, file and its parts, unit state and kernel argument of a system.
pub fn explain(system: &System) -> Vec<ExplainRow> {
    let mut rows = Vec::new();
    for dataset in &system.datasets {
        let detail = match dataset.created {
            Created::InImage => "dataset".to_owned(),
            Created::OnNode(algorithm) => format!("dataset, made on the machine with {algorithm}"),
        };
        rows.push(row(dataset.name.as_str(), detail, &dataset.because));
        for property in &dataset.properties {
            let (name, value) = &property.value;
            rows.push(row(dataset.name.as_str(), format!("{name}={value}"), &property.because));
        }
    }
    for package in &system.packages {
        rows.push(row(package.value.as_str(), "package".to_owned(), &package.because));
    }
    for user in &system.users {
        let kind = if user.system { "system account" } else { "account" };
        rows.push(row(user.name.as_str(), format!("{kind} {}", user.uid), &user.because));
    }
    for file in &system.files {
        let detail = match &file.content {
            Content::Text(_) => "file".to_owned(),
            Content::FromManifestDir(source) => format!("from {source}"),
            Content::Symlink(target) => format!("link to {target}"),
            Content::Directory => "directory".to_owned(),
        };
        rows.push(row(&file.path, detail, &file.because));
        rows.extend(file.parts.iter().map(|part| row(&file.path, part.value.clone(), &part.because)));
    }
    for unit in &system.units {
        rows.push(row(unit.unit.as_str(), unit.state.to_string(), &unit.because));
    }
    for argument in &system.kernel_args {
        rows.push(row("kernel command line", argument.value.clone(), &argument.because));
    }
    rows
}

fn row(item: &str, detail: String, because: &Because) -> ExplainRow {
    ExplainRow {
        layer: because.layer,
        item: item.to_owned(),
        detail,
        line: Some(because.span).filter(|span: &Span| span.is_written()).map(|span| span.line),
        reason: because.reason.clone(),
    }
}

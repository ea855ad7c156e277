//! The manifest's files.

use std::collections::BTreeMap;

use kld_manifest::model::FileSource;
use kld_manifest::names::DatasetName;

use crate::context::Context;
use crate::draft::Draft;
use crate::render::{RenderError, is_on_node};
use crate::system::{Because, Content, Layer, SystemDataset, SystemFile};

/// Adds the manifest's files and packages.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    for package in &context.appliance.packages {
        let because = Because::new(Layer::Files, package.span, "asked for in the manifest");
        draft.package(package.value.clone(), because);
    }
    for file in &context.appliance.files {
        let because = Because::new(Layer::Files, file.path.span, "a file of the manifest");
        let owner = file.owner.as_ref().map_or(("root".to_owned(), "root".to_owned()), |owner| {
            (owner.value.0.to_string(), owner.value.1.to_string())
        });
        let (content, default_mode) = match &file.source {
            FileSource::Path { path, .. } => (Content::FromManifestDir(path.value.clone()), None),
            FileSource::Inline(text) => (Content::Text(text.value.clone()), Some(0o644)),
        };
        draft.file(SystemFile {
            path: file.path.value.clone(),
            mode: file.mode.map(|mode| mode.value).or(default_mode),
            owner,
            content,
            parts: Vec::new(),
            because,
        });
    }
}

/// A file of the manifest cannot be on a dataset that the image does not hold.
pub(crate) fn check_not_on_encrypted(
    context: &Context<'_>,
    datasets: &BTreeMap<DatasetName, SystemDataset>,
) -> Result<(), RenderError> {
    let mounts: BTreeMap<&str, &SystemDataset> =
        datasets.values().filter_map(|dataset| Some((dataset.mounted_at()?, dataset))).collect();
    for file in &context.appliance.files {
        let path = file.path.value.as_str();
        let above = path.rmatch_indices('/').map(|(end, _)| if end == 0 { "/" } else { &path[..end] });
        let holder = std::iter::once(path).chain(above).find_map(|path| mounts.get(path).copied());
        if let Some(dataset) = holder.filter(|d| is_on_node(d.created)) {
            return Err(RenderError::FileOnEncrypted {
                path: file.path.value.clone(),
                dataset: dataset.name.clone(),
                span: file.path.span,
            });
        }
    }
    Ok(())
}

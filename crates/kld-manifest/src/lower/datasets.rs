//! `zfs_layout` → datasets with checked properties.

use std::collections::BTreeMap;

use super::fields::{Fields, impossible, map_entries, parse_name, scalar};
use super::paths;
use crate::diagnostic::Reporter;
use crate::keys::DATASET;
use crate::keys::storage::VOLUME_PROPERTIES;
use crate::model::{Dataset, Encryption, Property};
use crate::names::DatasetName;
use crate::span::Spanned;
use crate::syntax::Node;
use crate::values::Wrong;

/// The datasets of the section, in the order written. A dataset with a bad property is still there.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Vec<Dataset> {
    let mut datasets: Vec<Dataset> = Vec::new();
    for (key, entry) in map_entries(node, "dataset names", report) {
        let Some(name) = parse_name::<DatasetName>(key, report) else { continue };
        if let Some(first) = datasets.iter().find(|d| d.name.value == name.value) {
            report
                .error("dataset-twice", name.span, format!("the dataset `{}` is laid out twice", name.value))
                .related(first.name.span, "first laid out here");
            continue;
        }
        check_place(&name, datasets.first(), report);
        datasets.push(dataset(name, entry, report));
    }
    check_mountpoints(&datasets, report);
    datasets
}

fn check_place(name: &Spanned<DatasetName>, first: Option<&Dataset>, report: &mut Reporter) {
    if let Some(first) = first.filter(|first| first.name.pool() != name.pool()) {
        report
            .error(
                "outside-pool",
                name.span,
                format!("`{}` is outside the pool `{}`", name.value, first.name.pool()),
            )
            .hint("a machine is made with one pool: name every dataset below it")
            .related(first.name.span, "the pool is taken from here");
    }
    let path = name.path_in_pool();
    if path.is_empty() {
        report
            .error("reserved-dataset", name.span, format!("`{}` is the pool's own dataset", name.value))
            .hint(format!("lay out datasets below it, for example `{}/srv/data`", name.value));
    } else if paths::is_at_or_below(path, "ROOT") {
        report
            .error("reserved-dataset", name.span, format!("`{}` is a place of boot environments", name.value))
            .hint("use a dataset outside ROOT, so that a rollback of the system leaves its data alone");
    }
}

fn dataset(name: Spanned<DatasetName>, entry: &Node<'_>, report: &mut Reporter) -> Dataset {
    let mut properties = Vec::new();
    let mut native = Vec::new();
    for node in entry.properties().into_iter().chain(entry.children.iter().cloned()) {
        match node.key {
            Some(key) if key.as_str().contains(':') => properties.extend(user_property(&node, report)),
            Some(key) if VOLUME_PROPERTIES.contains(&key.as_str()) => {
                report
                    .error(
                        "volume-property",
                        key.span(),
                        format!("`{}` can only be given to volumes", key.as_str()),
                    )
                    .hint("a manifest lays out file systems; for block sizes of files write `recordsize`");
            }
            _ => native.push(node),
        }
    }
    let fields = Fields::read(&DATASET, name.span, native, report);
    let mut mountpoint = Some(Spanned::default_value(format!("/{}", name.path_in_pool())));
    let mut encryption = None;
    for (key, node) in fields.entries() {
        let Some(value) = scalar(key, node, report) else { continue };
        let meant = value.unquoted();
        match key.name {
            "mountpoint" if meant == "none" => mountpoint = None,
            "mountpoint" => match paths::check_absolute(&meant) {
                Ok(()) => mountpoint = Some(value.with(meant)),
                Err(wrong) => {
                    let wrong = if meant == "legacy" {
                        wrong.hint("write `none` and mount it yourself")
                    } else {
                        wrong
                    };
                    impossible(key.name, value, wrong, report);
                }
            },
            "encryption" => {
                encryption = match meant.as_str() {
                    "on" | "aes-256-gcm" => Some(value.with(Encryption::Aes256Gcm)),
                    "aes-128-gcm" => Some(value.with(Encryption::Aes128Gcm)),
                    _ => None,
                }
            }
            name => {
                let span = node.text.span();
                properties.push(Property { name: name.to_owned(), value: meant, span });
            }
        }
    }
    if fields.text("canmount", report).is_some_and(|value| value.as_str() == "off") {
        mountpoint = None;
    }
    properties.sort_by_key(|property| property.span);
    Dataset { name, properties, mountpoint, encryption }
}

/// zfsprops(7), "User Properties": lower-case letters, digits, `:` `.` `_` `-`, at most 256 characters.
fn user_property(node: &Node<'_>, report: &mut Reporter) -> Option<Property> {
    let (key, value) = (node.key?, node.value);
    let name = key.as_str();
    let good = name.len() <= 256
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":._-".contains(&b));
    if !good {
        report.error(
            "invalid-name",
            key.span(),
            format!("`{name}` is not a user property: it holds small letters, digits and `:._-`"),
        );
        return None;
    }
    match value {
        Some(value) if value.as_str().len() <= 8191 => {
            Some(Property { name: name.to_owned(), value: value.unquoted(), span: node.text.span() })
        }
        Some(value) => {
            impossible(name, value, Wrong::because("it is longer than 8191 bytes"), report);
            None
        }
        None => {
            report.error("missing-value", key.span(), format!("`{name}` has no value"));
            None
        }
    }
}

fn check_mountpoints(datasets: &[Dataset], report: &mut Reporter) {
    let mut seen: BTreeMap<&str, &Dataset> = BTreeMap::new();
    for dataset in datasets {
        let Some(mountpoint) = &dataset.mountpoint else { continue };
        let span = if mountpoint.span.is_written() { mountpoint.span } else { dataset.name.span };
        let path = mountpoint.value.as_str();
        if dataset.name.path_in_pool().is_empty() && !mountpoint.span.is_written() {
            continue;
        }
        if let Some(reason) = paths::shadows_system(path) {
            let message = format!("`{}` cannot be mounted at `{path}`: {reason}", dataset.name.value);
            let hint = if mountpoint.span.is_written() {
                "mount it below /srv or at the directory of its service"
            } else {
                "the default is the name without the pool: write `mountpoint=…`"
            };
            report.error("shadows-system", span, message).hint(hint);
        }
        match seen.get(path) {
            Some(first) => {
                let message = format!("`{path}` is already the mountpoint of `{}`", first.name.value);
                let place = first.mountpoint.as_ref().map_or(first.name.span, |m| m.span);
                let place = if place.is_written() { place } else { first.name.span };
                report
                    .error("mountpoint-twice", span, message)
                    .hint("give one of them another `mountpoint=`")
                    .related(place, "first mounted here");
            }
            None => {
                seen.insert(path, dataset);
            }
        }
    }
}

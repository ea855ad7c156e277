//! Datasets that wait for a passphrase: what would be written to their place goes to the directory below it, and what needs
//! them does not start.

use kld_host::mounts::is_within;
use kld_system::Created;

use super::{Dataset, Kind, Seen, encryption};
use crate::host::Node;
use crate::kinds::Refusal;
use crate::plan::{Action, Step};
use crate::services::unit_of_file;
use crate::wanted::Wanted;

/// A dataset that is locked.
#[derive(Debug)]
pub(crate) struct Locked {
    name: String,
    /// The one above it, or itself, that the passphrase is of.
    root: String,
    /// Where it would be mounted.
    place: Option<String>,
}

/// Those that have their key from a dataset of the manifest.
pub(super) fn of(seen: &Seen, wanted: &Wanted) -> Vec<Locked> {
    let mut locked = Vec::new();
    for dataset in &wanted.system.datasets {
        let root = dataset.name.to_string();
        let asks = seen.get(&root).is_some_and(|there| {
            encryption::is_locked(there) && there.get("keylocation").is_some_and(|of| of.value == "prompt")
        });
        if !asks || dataset.created == Created::InImage {
            continue;
        }
        for (name, there) in seen.range(root.clone()..) {
            let is_within = is_within(name, &root);
            if is_within && encryption::is_locked(there) {
                let place = there.get("mountpoint").map(|of| of.value.clone());
                let place = place.filter(|place| place.starts_with('/'));
                locked.push(Locked { name: name.clone(), root: root.clone(), place });
            }
        }
    }
    locked
}

/// Refuses steps that a locked dataset is in the way of; they would fail in the middle of the apply, or hide what they make.
pub(crate) fn check<'a>(
    locked: &[Locked],
    wanted: &Wanted,
    steps: impl Iterator<Item = &'a Step>,
) -> Result<(), Refusal> {
    if locked.is_empty() {
        return Ok(());
    }
    for step in steps {
        let Some(of) = locked.iter().find(|of| of.is_in_the_way(step, wanted)) else { continue };
        let Locked { name, root, .. } = of;
        return Err(Refusal::Refused {
            name: step.name.clone(),
            reason: format!("it needs `{name}`, which is locked"),
            hint: format!("`kldload key unlock {root}`, and plan again"),
        });
    }
    Ok(())
}

impl Locked {
    fn is_in_the_way(&self, step: &Step, wanted: &Wanted) -> bool {
        let place = self.place.as_deref();
        match step.kind.as_str() {
            Dataset::NAME => step.action == Action::Add && is_within(&step.name, &self.name),
            "file" => place.is_some_and(|place| is_within(&step.name, place)),
            _ => place.is_some_and(|place| needs(wanted, &step.name, place)),
        }
    }
}

/// Whether a unit of the manifest does not start before a place is mounted.
fn needs(wanted: &Wanted, unit: &str, place: &str) -> bool {
    let files = wanted.files.iter().filter(|(path, _)| unit_of_file(path).as_deref() == Some(unit));
    let texts = files.filter_map(|(_, file)| match &file.node {
        Node::File(text) => std::str::from_utf8(text).ok(),
        _ => None,
    });
    let mut needed =
        texts.flat_map(|text| text.lines().filter_map(|line| line.strip_prefix("RequiresMountsFor=")));
    needed.any(|paths| paths.split_whitespace().any(|path| is_within(path, place)))
}

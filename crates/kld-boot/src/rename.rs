//! Renaming an environment. Its entry names its dataset, and both cannot change in one instant, so what starts next keeps
//! its name.

use crate::action::{Action, Plan};
use crate::entries::{keep_default, set_dataset};
use crate::error::BootError;
use crate::look::{Looked, Maker};
use crate::name::BootEnvironmentName;

/// What renames an environment: a new entry, the dataset, and the old entry away.
///
/// # Errors
/// When it runs, starts next, is the last that was well or is mounted; when the new name is taken.
pub fn plan_rename(looked: &Looked, name: &str, new: &BootEnvironmentName) -> Result<Plan, BootError> {
    let environment = looked.environment(name)?;
    looked.must_be_free(environment)?;
    let to = format!("{}/{new}", looked.root);
    let is_taken = |of: &str| of != environment.dataset && of.eq_ignore_ascii_case(&to);
    let all = looked.environments.iter().map(|of| &of.dataset).chain(&looked.others);
    if name == new.as_str() || all.into_iter().any(|of| is_taken(of)) {
        return Err(BootError::Exists { name: new.to_string() });
    }
    let (mut writes, mut removes) = (Vec::new(), Vec::new());
    for esp in &looked.partitions {
        let old: Vec<_> = esp.entries_of(&environment.dataset).collect();
        for (index, entry) in old.iter().enumerate() {
            // One entry for each kernel, where somebody has made several.
            let file = match index {
                0 => new.entry_id(),
                more => format!("{}-{more}.conf", new.as_str().to_ascii_lowercase()),
            };
            let is_other = |of: &crate::esp::Entry| of.file.eq_ignore_ascii_case(&file);
            let starts_other = |of: &crate::esp::Entry| {
                of.entry.get("linux").is_some()
                    && of.dataset() != Some(&environment.dataset)
                    && of.dataset() != Some(&to)
            };
            if esp.entries.iter().any(|of| is_other(of) && starts_other(of)) {
                return Err(BootError::EntryTaken { path: esp.entry_path(&file) });
            }
            let mut text = entry.entry.clone();
            set_dataset(&mut text, &to);
            if let Some(bare) = text.get("title").and_then(|title| title.strip_suffix(name)) {
                let title = format!("{bare}{new}");
                text.set("title", [&*title]);
            }
            text.set("sort-key", [&*new.as_str().to_ascii_lowercase()]);
            writes.push(Action::Write { path: esp.entry_path(&file), text: text.to_string() });
            if !is_other(entry) {
                removes.push(Action::Remove { path: esp.entry_path(&entry.file) });
            }
        }
    }
    let dataset = environment.dataset.clone();
    let claim = (environment.maker == Maker::Apply).then(|| Action::Claim { dataset: dataset.clone() });
    let rename = Action::Rename { from: dataset, to };
    let first = claim.into_iter().chain(keep_default(looked));
    let actions = first.chain(writes).chain([rename]).chain(removes).collect();
    Ok(Plan { actions, ..Plan::default() })
}

//! Who keeps a file system from being unmounted, which another place for it needs.

use super::super::{Refusal, from_value};
use super::{Change, Seen};
use crate::host::Host;
use crate::plan::Step;

/// Of so many each is named.
const NAMED: usize = 5;

/// Refuses changes that unmount what somebody uses: ZFS would refuse them in the middle of the apply.
pub(super) fn check(host: &dyn Host, seen: &Seen, steps: &[Step]) -> Result<(), Refusal> {
    for step in steps {
        let change = from_value(&step.change).map_err(|error| Refusal::Look("the plan", error))?;
        let dataset = match &change {
            Change::Set { dataset, property, .. } if property == "mountpoint" => dataset,
            Change::Set { dataset, property, value } if property == "canmount" && value == "off" => dataset,
            Change::Inherit { dataset, property } if property == "mountpoint" => dataset,
            _ => continue,
        };
        let Some(path) = mounted_on(seen, dataset) else { continue };
        let users = host.holders(path).map_err(|error| Refusal::Look("who uses a dataset", error))?;
        let inside = others_inside(seen, dataset, path);
        if users.is_empty() && inside.is_empty() {
            continue;
        }
        let mut units: Vec<&str> = users.iter().filter_map(|user| user.unit.as_deref()).collect();
        units.sort_unstable();
        units.dedup();
        let hint = if let Some(first) = inside.first() {
            format!("`zfs unmount {first}`, and plan again")
        } else if units.is_empty() || users.iter().any(|user| user.unit.is_none()) {
            format!("end what uses `{path}`, or leave it, and plan again")
        } else {
            format!("`systemctl stop {}`, and plan again", units.join(" "))
        };
        let mut named: Vec<String> =
            inside.iter().map(|other| format!("`{other}` is mounted in it")).collect();
        named.extend(users.iter().map(ToString::to_string));
        let more = named.len().saturating_sub(NAMED);
        named.truncate(NAMED);
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        let reason = format!("it must be unmounted from `{path}`, and is busy: {}", named.join("; "));
        return Err(Refusal::Refused { name: dataset.clone(), reason, hint });
    }
    Ok(())
}

/// Where a dataset is mounted; not `/`, which never moves.
fn mounted_on<'a>(seen: &'a Seen, dataset: &str) -> Option<&'a str> {
    let there = seen.get(dataset)?;
    let is_mounted = there.get("mounted").is_some_and(|property| property.value == "yes");
    let path = there.get("mountpoint").filter(|_| is_mounted)?.value.as_str();
    (path != "/").then_some(path)
}

/// Datasets that are mounted below a path and do not move with the dataset on it: they have a place of their own.
fn others_inside<'a>(seen: &'a Seen, dataset: &str, path: &str) -> Vec<&'a str> {
    let below = format!("{path}/");
    let has_its_place_from_it = |name: &str| {
        let source = seen[name].get("mountpoint").map_or("", |property| property.source.as_str());
        let from = source.strip_prefix("inherited from ").unwrap_or(name);
        name.starts_with(&format!("{dataset}/"))
            && (from == dataset || dataset.starts_with(&format!("{from}/")))
    };
    let names = seen.keys().map(String::as_str);
    names
        .filter(|name| mounted_on(seen, name).is_some_and(|at| at.starts_with(&below)))
        .filter(|name| !has_its_place_from_it(name))
        .collect()
}

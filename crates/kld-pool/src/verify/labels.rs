//! Labels: all four of each device, not only the one that was used to open the pool.

use super::{FindingKind, Place, Report};
use crate::read::Pool;
use crate::read::nvlist::NvList;

pub(super) fn check(pool: &Pool, report: &mut Report) {
    let sum = pool.config.list("vdev_tree").map(|tree| guid_sum(tree, 0));
    if sum != Some(pool.uberblock.guid_sum) {
        let problem = "the uberblock does not fit the vdevs of the configuration";
        report.add(FindingKind::Label, Place::default(), problem);
    }
    for (index, device) in pool.blocks.devices.iter().enumerate() {
        let newest = |label: &crate::read::label::Label| label.uberblocks.contains(&pool.uberblock);
        let any_newest = device.labels.iter().any(newest);
        for (number, label) in device.labels.iter().enumerate() {
            let mut add = |problem: String| {
                report.add(
                    FindingKind::Label,
                    Place::default(),
                    format!("label {number} of device {index}, at byte {}: {problem}", label.at),
                );
            };
            match &label.config {
                None => add("its configuration is damaged".to_owned()),
                Some(config) if config.number("pool_guid") != Some(pool.guid()) => {
                    add("it belongs to another pool".to_owned());
                }
                Some(_) => {}
            }
            if label.bad_slots > 0 {
                add(format!("{} of its uberblocks are damaged", label.bad_slots));
            }
            // A pool of many vdevs has its newest uberblock only on some, but then in all of their labels.
            if any_newest && !newest(label) {
                add("it lacks the newest uberblock".to_owned());
            }
        }
    }
}

/// The GUIDs of a vdev and all below it, added up; that of the root is the pool's.
fn guid_sum(tree: &NvList, depth: u32) -> u64 {
    const MAX_DEPTH: u32 = 8;
    let own = tree.number("guid").unwrap_or(0);
    if depth == MAX_DEPTH {
        return own;
    }
    let below = tree.lists("children").iter().map(|child| guid_sum(child, depth + 1));
    below.fold(own, u64::wrapping_add)
}

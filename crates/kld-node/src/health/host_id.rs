//! Whether the next start will find the pool's host id: loader, file and kernel agree.

use super::{Probe, Status, View};
use crate::identity::{HOST_ID_PARAMETER, loader_host_ids, stored_host_id};

pub(super) const MEND: &str = "kldload node init";

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let Some(config) = &view.config else {
        return vec![Probe::new("host-id", Status::Info, "kldload has not set one")];
    };
    let machine = &*view.machine;
    let stored = match stored_host_id(machine) {
        Ok(Some(id)) => id,
        Ok(None) => {
            return vec![Probe::new("host-id", Status::Fail, "/etc/hostid holds none").with_command(MEND)];
        }
        Err(error) => return vec![Probe::unanswered("host-id", &error)],
    };
    let loader = match loader_host_ids(machine, &config.esp.mount) {
        Ok(loader) => loader,
        Err(reason) => return vec![Probe::new("host-id", Status::Fail, reason).with_command(MEND)],
    };
    let running =
        machine.read_text(HOST_ID_PARAMETER).ok().flatten().and_then(|text| text.trim().parse().ok());
    let other = loader.iter().find(|(_, id)| *id != Some(stored));
    vec![if let Some((entry, _)) = other {
        Probe::new("host-id", Status::Fail, format!("boot entry `{entry}` does not carry 0x{stored:08x}"))
            .with_command(MEND)
    } else if loader.is_empty() {
        Probe::new("host-id", Status::Fail, "no boot entry to carry it").with_command(MEND)
    } else if running.is_some_and(|id: u32| id != stored) {
        Probe::new("host-id", Status::Warn, format!("the kernel does not run with 0x{stored:08x}"))
            .with_command(MEND)
    } else {
        Probe::new("host-id", Status::Ok, format!("0x{stored:08x} in {} boot entries", loader.len()))
    }]
}

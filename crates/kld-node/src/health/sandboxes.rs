//! Whether services are sandboxed as tightly as the manifest says (`max_exposure`).
//!
//! Asked of the running systemd, so that a drop-in somebody has added counts too.

use super::{DEADLINE, Probe, Status, View};
use crate::machine::MachineError;
use kld_host::systemd::{self, shown_exposure};

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let services = view.config.iter().flat_map(|config| &config.services);
    let limits = services.filter_map(|service| Some((&service.unit, service.max_exposure_tenths?)));
    let mut loose = Vec::new();
    let mut all = Vec::new();
    for (unit, limit) in limits {
        let measured = view
            .machine
            .run_text(systemd::exposure_cmd(unit).timeout(DEADLINE))
            .and_then(|text| Ok::<_, MachineError>(systemd::parse_exposure(&text)?));
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) => return vec![Probe::unanswered("sandboxes", &error)],
        };
        let said = format!("{unit} {} of at most {}", shown_exposure(measured), shown_exposure(limit));
        if measured > limit {
            loose.push((unit, said));
        } else {
            all.push(said);
        }
    }
    match loose.first() {
        Some((unit, _)) => {
            let said: Vec<&str> = loose.iter().map(|(_, said)| said.as_str()).collect();
            let show = format!("systemd-analyze security {unit}; systemctl cat {unit}");
            vec![
                Probe::new("sandboxes", Status::Fail, said.join(", "))
                    .with_command(show)
                    .with_subjects(loose.iter().map(|(unit, _)| unit.as_str())),
            ]
        }
        None if all.is_empty() => vec![Probe::new("sandboxes", Status::Info, "no `max_exposure` is set")],
        None => vec![Probe::new("sandboxes", Status::Ok, all.join(", "))],
    }
}

//! Whether systemd has reached what it was to reach.

use super::{DEADLINE, Probe, Status, View};
use kld_host::Cmd;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    if let Some(said) = view.without_units("boot") {
        return said;
    }
    // Its exit code says the same as its word: everything but `running` is 1.
    let command = Cmd::new("systemctl").arg("is-system-running").accept(1).timeout(DEADLINE);
    let state = match view.machine.run_text(command) {
        Ok(state) => state,
        Err(error) => return vec![Probe::unanswered("boot", &error)],
    };
    vec![match state.as_str() {
        "running" => Probe::new("boot", Status::Ok, "running"),
        "initializing" | "starting" => {
            Probe::new("boot", Status::Warn, "still starting").with_command("systemctl list-jobs")
        }
        other => {
            Probe::new("boot", Status::Fail, other).with_command("systemctl --failed").with_subjects([other])
        }
    }]
}

//! The proof that a change has done no harm: what the manifest promises holds, and no unit has failed that had not before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kld_node::RealMachine;
use kld_node::health::{Probe, Status, check_some};
use kld_system::NodeConfig;

/// Longer than a person waits for `kst`: a machine whose services have just started is busy.
const PROBE: Duration = Duration::from_secs(20);

/// What is looked at: what a change of the machine can break. Disks and clocks are not asked every second.
fn matters(name: &str) -> bool {
    name.starts_with("verify: ") || ["services", "firewall", "wireguard", "sandboxes"].contains(&name)
}

/// What was wrong before a change, for which it is not to blame.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    failed_before: BTreeSet<String>,
}

impl Proof {
    /// Looks, before anything is changed.
    pub(crate) fn before() -> Self {
        let health = check_some(Arc::new(RealMachine), None, PROBE, Vec::new(), |name| name == "services");
        Self { failed_before: health.probes.into_iter().flat_map(|probe| probe.subjects).collect() }
    }

    /// Waits until the services of the manifest run and its proofs hold, this long at most, and no longer than anybody wants.
    ///
    /// # Errors
    /// What does not, in the end.
    pub(crate) fn holds(
        &self,
        node: Option<&NodeConfig>,
        limit: Duration,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let Some(node) = node else { return Ok(()) };
        let own: BTreeSet<&str> = node.services.iter().map(|service| service.unit.as_str()).collect();
        let end = Instant::now() + limit;
        loop {
            let health = check_some(Arc::new(RealMachine), Some(node.clone()), PROBE, Vec::new(), matters);
            let wrong = health.probes.iter().filter(|probe| self.is_wrong(&own, probe));
            let wrong: Vec<String> = wrong.map(|probe| self.said_of(&own, probe)).collect();
            if wrong.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end || stop.load(Ordering::SeqCst) {
                return Err(wrong.join("; "));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn is_wrong(&self, own: &BTreeSet<&str>, probe: &Probe) -> bool {
        let excused = self.excused(own, probe).len();
        let is_excused = excused > 0 && excused == probe.subjects.len();
        matches!(probe.status, Status::Fail | Status::Timeout) && !is_excused
    }

    /// Units that had failed before. A service of the manifest must run whatever was before.
    fn excused<'a>(&self, own: &BTreeSet<&str>, probe: &'a Probe) -> Vec<&'a str> {
        let units = probe.subjects.iter().filter(|_| probe.name == "services").map(String::as_str);
        units.filter(|unit| self.failed_before.contains(*unit) && !own.contains(unit)).collect()
    }

    fn said_of(&self, own: &BTreeSet<&str>, probe: &Probe) -> String {
        let said = format!("{}: {}", probe.name, probe.summary);
        match &self.excused(own, probe)[..] {
            [] => said,
            units => format!("{said} ({} had failed before)", units.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_failed_before_is_excused_unless_it_is_the_manifests() {
        let own = ["webapp.service"].into();
        let proof = Proof { failed_before: ["cron.service", "webapp.service"].map(str::to_owned).into() };
        let of = |subjects: &[&str]| {
            Probe::new("services", Status::Fail, "bad").with_subjects(subjects.iter().copied())
        };
        for (probe, want) in [
            (of(&["cron.service"]), false),
            (of(&["webapp.service"]), true),
            (of(&["cron.service", "other.service"]), true),
            (of(&[]), true),
            (Probe::new("firewall", Status::Fail, "bad").with_subjects(["cron.service"]), true),
            (Probe::new("services", Status::Ok, "good"), false),
        ] {
            assert_eq!(proof.is_wrong(&own, &probe), want, "{probe:?}");
        }
        assert_eq!(proof.said_of(&own, &of(&["webapp.service"])), "services: bad");
        let both = proof.said_of(&own, &of(&["cron.service", "webapp.service"]));
        assert_eq!(both, "services: bad (cron.service had failed before)");
    }
}

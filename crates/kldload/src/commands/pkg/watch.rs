//! From looks at a changed system to a verdict: it must be well, and stay so. A service that ends a few seconds after it was
//! started is `active` at the first look; one that is started again and again has never failed.

use std::collections::BTreeMap;
use std::time::Duration;

use kld_host::Cmd;
use kld_host::systemd::{UnitState, parse_show, show_cmd};

/// How long the services may take to be well after all of them were started.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long they must be well, in a row.
const STAYS_WELL: Duration = Duration::from_secs(30);
/// When what is well by turns is not well: at the next look that says so.
const LONGEST: Duration = Duration::from_secs(180);

/// Services by name.
pub(super) type Services = BTreeMap<String, UnitState>;

/// The services that systemd has loaded.
pub(super) fn services(deadline: Duration) -> anyhow::Result<Services> {
    let show: Cmd = show_cmd(&["*.service"]).timeout(deadline);
    Ok(parse_show(&show.stdout_string()?)?)
}

fn waits_to_restart(service: &UnitState) -> bool {
    // And `auto-restart-queued`, since systemd 254.
    service.sub.starts_with("auto-restart")
}

/// Those that have ended and were started again.
pub(super) fn restarted(services: &Services) -> Vec<String> {
    let have = services.iter().filter(|(_, service)| service.restarts > 0 || waits_to_restart(service));
    have.map(|(name, _)| name.clone()).collect()
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Watch<'a> {
    /// Services that were started again before the change, too.
    excused: &'a [String],
    services: Option<Services>,
    looked: Duration,
    well_since: Option<Duration>,
    not_well: Duration,
}

impl<'a> Watch<'a> {
    pub(super) fn new(excused: &'a [String]) -> Self {
        Self { excused, ..Self::default() }
    }

    /// A look, `at` after the first was begun: what else is wrong, and the services. The verdict, once there is one: what is
    /// wrong, or nothing.
    pub(super) fn look(
        &mut self,
        at: Duration,
        mut problems: Vec<String>,
        services: Services,
    ) -> Option<Vec<String>> {
        problems.extend(self.ending(&services).map(|name| format!("services: {name} keeps ending")));
        self.services = Some(services);
        let since = at.saturating_sub(std::mem::replace(&mut self.looked, at));
        if problems.is_empty() {
            let well_since = *self.well_since.get_or_insert(at);
            return (at.saturating_sub(well_since) >= STAYS_WELL).then(Vec::new);
        }
        self.well_since = None;
        self.not_well += since;
        (self.not_well > PATIENCE || at > LONGEST).then_some(problems)
    }

    /// Services that have ended since the last look. One that does so at every start, and then stays, has time for it.
    fn ending<'s>(&self, services: &'s Services) -> impl Iterator<Item = &'s String> {
        let has_ended = |name: &String, service: &UnitState| {
            let before = self.services.as_ref();
            let before = before.map(|of| of.get(name).map_or(0, |service| service.restarts));
            waits_to_restart(service) || before.is_some_and(|before| service.restarts > before)
        };
        let new = services
            .iter()
            .filter(move |(name, service)| !self.excused.contains(name) && has_ended(name, service));
        new.map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look every five seconds at what this says for each second; the verdict, and when it came.
    fn judged(excused: &[&str], seen: impl Fn(u64) -> (Vec<String>, Services)) -> (u64, Vec<String>) {
        let excused: Vec<String> = excused.iter().map(|&name| name.to_owned()).collect();
        let mut watch = Watch::new(&excused);
        for at in (1..1000).step_by(5) {
            let (problems, services) = seen(at);
            if let Some(verdict) = watch.look(Duration::from_secs(at), problems, services) {
                return (at, verdict);
            }
        }
        panic!("there is an end to it");
    }

    /// A service that has ended this often.
    fn app(sub: &str, restarts: u64) -> Services {
        let state = UnitState { sub: sub.to_owned(), restarts, ..UnitState::default() };
        [("app.service".to_owned(), state)].into()
    }

    fn bad(is_bad: bool) -> Vec<String> {
        is_bad.then(|| "services: app.service failed".to_owned()).into_iter().collect()
    }

    const ENDING: &str = "services: app.service keeps ending";
    const FAILED: &str = "services: app.service failed";

    #[test]
    fn what_is_well_must_stay_so() {
        let well = |_| (vec![], app("running", 0));
        assert_eq!(judged(&[], well), (31, vec![]));
        // It had its time before it was well, and has as long as ever for staying so.
        assert_eq!(judged(&[], |at| (bad(at < 55), app("running", 0))), (86, vec![]));
        // It dies at the seventh second, for good.
        assert_eq!(judged(&[], |at| (bad(at > 7), app("running", 0))), (71, vec![FAILED.to_owned()]));
        assert_eq!(judged(&[], |_| (bad(true), app("running", 0))), (61, vec![FAILED.to_owned()]));
    }

    #[test]
    fn what_is_well_by_turns_is_not_well() {
        let (at, verdict) = judged(&[], |at| (bad(at % 25 == 1), app("running", 0)));
        assert_eq!((at, verdict), (201, vec![FAILED.to_owned()]));
    }

    #[test]
    fn a_service_that_keeps_ending_never_fails_and_is_not_well() {
        // Started every seven seconds, and it runs for five of them.
        let crashes = |at: u64| (vec![], app(if at % 7 < 5 { "running" } else { "auto-restart" }, at / 7));
        let (at, verdict) = judged(&[], crashes);
        assert!(at < 120 && verdict == [ENDING], "{at} {verdict:?}");
        // It runs for twenty.
        let slow = |at: u64| (vec![], app("running", at / 20));
        let (at, verdict) = judged(&[], slow);
        assert!(at < 210 && verdict == [ENDING], "{at} {verdict:?}");
        assert_eq!(judged(&["app.service"], crashes), (31, vec![]), "it did before the change");
        // It was started again before the first look, or once more: it stays.
        assert_eq!(judged(&[], |_| (vec![], app("running", 3))), (31, vec![]));
        assert_eq!(judged(&[], |at| (vec![], app("running", u64::from(at > 10)))), (46, vec![]));
    }

    #[test]
    fn who_was_started_again_is_known_before_a_change() {
        for (sub, restarts, is) in [
            ("running", 0, false),
            ("running", 1, true),
            ("auto-restart", 0, true),
            ("auto-restart-queued", 0, true),
        ] {
            assert_eq!(restarted(&app(sub, restarts)) == ["app.service"], is, "{sub} {restarts}");
        }
    }
}

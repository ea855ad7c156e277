//! What must hold however much a machine has: a plan starts as many processes for ten things as for a thousand.

mod support;

use kld_engine::{Host as _, Plan, Wanted, plan};
use kld_system::{Enablement, UnitState};
use support::fake::Fake;
use support::many::{Many, as_wanted, wanted_in};
use support::{machine_for, plan_for};

fn wanted(count: usize) -> Wanted {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Many::new(count).write(dir.path()).expect("writable");
    wanted_in(dir.path())
}

/// The plan, and the programs that it started.
fn looked(fake: &Fake, wanted: &Wanted) -> (Plan, Vec<String>) {
    fake.take_log();
    let plan = plan_for(fake, wanted);
    // After the variables that it is given.
    let program =
        |command: String| command.split(' ').find(|word| !word.contains('=')).unwrap_or_default().to_owned();
    (plan, fake.take_log().into_iter().map(program).collect())
}

#[test]
fn looking_starts_one_process_for_each_subject() {
    for count in [100, 1000] {
        let wanted = wanted(count);
        let fake = as_wanted(&wanted);
        let (plan, started) = looked(&fake, &wanted);
        assert!(plan.is_empty() && plan.left.is_empty(), "{plan:#?}");
        assert!(plan.items.len() >= count, "{}", plan.items.len());
        assert_eq!(started, ["zfs", "dpkg-query", "systemctl", "nft"], "{count}");
    }
}

#[test]
fn a_plan_of_everything_starts_five_more_and_two_for_each_service() {
    for count in [100, 1000] {
        let wanted = wanted(count);
        let (plan, mut started) = looked(&machine_for(&[&wanted]), &wanted);
        assert!(plan.steps.len() > count * 9 / 10, "{}", plan.steps.len());
        // How exposed a service is, before and after.
        let rated = started.iter().filter(|program| *program == "systemd-analyze").count();
        assert_eq!(rated, 2 * plan.exposures.len());
        started.retain(|program| program != "systemd-analyze");
        // What the pool can do; what apt would do, what that takes, where `/` is, and what room there is.
        assert_eq!(
            started,
            ["zfs", "zpool", "dpkg-query", "apt-get", "apt-cache", "findmnt", "df", "systemctl"],
            "{count}"
        );
    }
}

#[test]
fn what_is_no_longer_said_of_datasets_takes_no_process_each() {
    for count in [100, 1000] {
        let mut wanted = wanted(count);
        let fake = as_wanted(&wanted);
        for dataset in &mut wanted.system.datasets {
            dataset.properties.retain(|item| item.value.0 != "quota");
        }
        let (plan, started) = looked(&fake, &wanted);
        let quotas = plan.steps.iter().filter(|step| step.summary.starts_with("quota ")).count();
        assert_eq!(quotas, count / 10);
        assert_eq!(started, ["zfs", "dpkg-query", "systemctl", "nft"], "{count}");
    }
}

#[test]
fn more_units_than_one_command_takes_are_asked_for_in_parts() {
    let mut wanted = wanted(100);
    let because = wanted.system.units[0].because.clone();
    let more = (0..100_000).map(|number| UnitState {
        unit: format!("a-unit-with-a-name-{number}.service").parse().expect("a name"),
        state: Enablement::Disabled,
        because: because.clone(),
    });
    wanted.system.units.extend(more);
    let fake = as_wanted(&self::wanted(100));
    let names = wanted.system.units.iter().map(|unit| unit.unit.as_str());
    let all = fake.run(&kld_host::Cmd::new("systemctl").args(["show", "--property", "Id", "--"]).args(names));
    assert!(all.is_err(), "the fake takes no more than Linux does");
    fake.take_log();
    let plan = plan(&fake, &wanted, &Default::default()).expect("it can be looked at");
    assert!(plan.is_empty(), "units that are not there do not start");
    let asked = fake.take_log().iter().filter(|command| command.starts_with("systemctl show")).count();
    assert_eq!(asked, 4);
}

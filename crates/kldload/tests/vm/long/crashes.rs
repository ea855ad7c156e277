//! An apply that is killed, or loses its power, after each line of its journal.

use std::collections::BTreeSet;

use kld_vm::Guest;

use crate::apply::{RICH, STATE, assert_same, begin, give, kldload, make_package, rich_manifest};
use crate::first_boot::the_power_fails;
use crate::fixture::{BOOT, boot_until_well, copy_of, machine_on, say, webapp, webapp_image};
use crate::turn::Turn;

use super::adopt;

fn prepare(guest: &Guest) {
    make_package(guest);
    give(guest, RICH, &rich_manifest());
    guest.run_ok("curl -fsS -d text=remember http://10.8.0.1:8000/notes").expect("a note is written");
}

/// What an apply of [`RICH`] would do, in order: the kinds of its steps.
pub(super) fn steps_of(guest: &Guest) -> Vec<String> {
    let plan =
        guest.run(&format!("kldload plan --json {RICH}/appliance.manifest")).expect("it answers").text();
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let part = |name: &str| plan["items"][0][name].as_array().cloned().unwrap_or_default();
    let steps = [part("steps"), part("restarts")].concat();
    steps.iter().map(|step| step["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_kill_after_any_step_leaves_the_machine_as_it_was() {
    let guest = webapp();
    prepare(&guest);
    let before = guest.run_ok(STATE).expect("readable");
    let steps = steps_of(&guest).len();
    guest.save("prepared").expect("saved");
    let mut hit = BTreeSet::new();
    for step in 1..=steps {
        guest.restore("prepared").expect("restored");
        hit.insert(begin(&guest, step));
        guest.run("systemctl kill --signal=KILL the-apply; sleep 0.5").expect("it answers");
        let said = guest.run_for("kldload recover 2>&1", BOOT).expect("it answers");
        assert!(said.is_ok(), "{step} of {steps}: {}", said.text());
        let after = guest.run_ok(STATE).expect("readable");
        assert_same(&before, &after);
        let notes =
            guest.run_ok("until curl -fsS http://10.8.0.1:8000/notes; do sleep 1; done").expect("it answers");
        assert!(notes.contains("remember"), "{step}: {notes}");
    }
    say_count("kills", steps);
    say_hit(&hit);
}

#[test]
fn a_power_cut_after_any_step_leaves_the_machine_as_it_was() {
    let _turn = Turn::take();
    let disk = copy_of(webapp_image(), "crashes.qcow2");
    let mut guest = boot_until_well(&machine_on(&disk));
    prepare(&guest);
    let before = guest.run_ok(STATE).expect("readable");
    let steps = steps_of(&guest).len();
    let mut hit = BTreeSet::new();
    for step in 1..=steps {
        hit.insert(begin(&guest, step));
        guest.cut_power();
        guest = boot_until_well(&machine_on(&disk));
        assert_same(&before, &guest.run_ok(STATE).expect("readable"));
        let notes = guest.run_ok("curl -fsS http://10.8.0.1:8000/notes").expect("the application answers");
        assert!(notes.contains("remember"), "{step}: {notes}");
    }
    say_count("power cuts", steps);
    say_hit(&hit);
}

#[test]
fn a_kill_at_any_stage_of_an_adoption_leaves_the_directory_or_the_dataset() {
    let guest = webapp();
    let before = adopt::prepare(&guest);
    let stages = ["started", "compared", "swapping", "adopted"];
    adopt::a_kill_leaves_one_or_the_other(&guest, &before, &stages);
    say_count("kills of an adoption", stages.len());
}

#[test]
fn an_apply_that_is_killed_is_undone_and_two_do_not_mix() {
    let guest = webapp();
    make_package(&guest);
    give(&guest, RICH, &rich_manifest());
    let before = guest.run_ok(STATE).expect("readable");
    begin(&guest, 10);
    let (status, _, error) = kldload(&guest, &format!("apply --yes {RICH}/appliance.manifest"));
    assert!(
        status == 1 && error.contains("is locked by process") && error.contains("kldload apply"),
        "{error}"
    );
    guest.run_ok("systemctl kill --signal=KILL the-apply; sleep 0.5").expect("killed");
    let (status, said, error) = kldload(&guest, "recover");
    assert_eq!(status, 0, "{said}{error}");
    assert!(error.contains("apply 1 was interrupted"), "{error}");
    assert_same(&before, &guest.run_ok(STATE).expect("readable"));
}

#[test]
fn the_power_may_fail_at_more_moments_of_the_first_boot() {
    let _turn = Turn::take();
    the_power_fails(&[0, 500, 1000, 2000, 4000, 8000, 15_000, 30_000]);
}

/// What the issue of such tests is: N of N.
pub(super) fn say_count(what: &str, steps: usize) {
    say(format_args!("{what}: {steps}/{steps} as before"));
}

/// At which steps it stood still.
fn say_hit(hit: &BTreeSet<usize>) {
    say(format_args!("while these steps were the last to have begun: {hit:?}"));
}

//! What goes back: where it was begun, whole, and without what people have written since.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use kld_engine::{
    ApplyError, CONFIRM_TIMER, History, Host as _, Outcome, Progress, State, Step, put_aside, undo,
};
use kld_host::Cmd;
use support::fake::Machine;
use support::{Silent, applied, apply, assert_same, changed, engine, plan_for, take_back, wanted};

#[test]
fn data_that_came_while_it_ran_is_never_destroyed() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    let write = || {
        fake.change(|machine| {
            let entry = machine.files["/etc/passwd"].clone();
            machine.files.insert("/srv/webapp-cache/of-a-person".to_owned(), entry);
        });
        Err("no".to_owned())
    };
    engine(&fake).apply(&plan, "tester", None, &write, &mut Silent).expect("it goes back");
    let machine = fake.machine();
    assert!(
        machine.datasets.contains_key("rpool/srv/webapp-cache.undone-000002"),
        "{:?}",
        machine.datasets.keys()
    );
    assert!(!machine.datasets.contains_key("rpool/srv/webapp-cache"));
}

/// Somebody has given it another place since, or a place where the manifest gives it none.
#[test]
fn data_is_looked_for_where_the_dataset_is_now() {
    for (place, now) in
        [("", "/data/cache"), ("mountpoint=none  ", "/data/cache"), ("mountpoint=none  ", "legacy")]
    {
        let (fake, ..) = applied();
        let line = "  rpool/srv/webapp-cache:  recordsize=16k";
        let new =
            wanted(&changed().replace(line, &line.replace("recordsize", &format!("{place}recordsize"))));
        assert!(matches!(apply(&fake, &plan_for(&fake, &new)), Outcome::Committed { number: 2 }));
        for property in ["canmount=on", &format!("mountpoint={now}")] {
            fake.run(&Cmd::new("zfs").args(["set", property, "rpool/srv/webapp-cache"]))
                .expect("a person may");
        }
        fake.change(|machine| {
            let entry = machine.files["/etc/passwd"].clone();
            machine.files.insert(format!("{now}/of-a-person"), entry);
        });
        take_back(&fake);
        let datasets = fake.machine().datasets;
        let aside = datasets.keys().any(|name| name.starts_with("rpool/srv/webapp-cache.undone-"));
        assert!(aside, "{place}{now}: {:?}", datasets.keys());
    }
}

/// Replication holds what it has sent; somebody else has cloned.
#[test]
fn a_dataset_whose_snapshot_is_held_is_put_aside() {
    let (fake, ..) = applied();
    let plan = plan_for(&fake, &wanted(&changed()));
    assert!(matches!(apply(&fake, &plan), Outcome::Committed { number: 2 }));
    let zfs = |words: &[&str]| fake.run(&Cmd::new("zfs").args(words)).expect("a person may");
    zfs(&["snapshot", "rpool/srv/webapp-cache@sent"]);
    zfs(&["hold", "replication", "rpool/srv/webapp-cache@sent"]);
    let back = undo(&fake, None).expect("it can be taken back");
    let done = engine(&fake).apply(&back, "tester", Some(60), &|| Ok(()), &mut Silent);
    assert!(matches!(done, Ok(Outcome::Committed { number: 3 })), "{done:?}");
    let aside = "rpool/srv/webapp-cache.undone-000002";
    assert_eq!(put_aside(&fake, 2).expect("readable"), [aside]);
    let machine = fake.machine();
    assert!(!machine.datasets.contains_key("rpool/srv/webapp-cache"));
    assert_eq!(machine.datasets[aside].get("canmount").map(String::as_str), Some("noauto"));
    assert!(machine.unmounted.contains_key(aside), "it is mounted nowhere");
    // Nobody confirms it: by its old name again.
    engine(&fake).take_back("nobody has confirmed it", "kldload", &mut Silent).expect("it goes forward");
    assert!(fake.machine().datasets.contains_key("rpool/srv/webapp-cache"));
}

#[test]
fn data_that_came_while_it_ran_survives_a_machine_that_dies_on_the_way_back() {
    const DATA: &str = "/srv/webapp-cache/of-a-person";
    for fuel in 0.. {
        let (fake, _, new) = applied();
        let plan = plan_for(&fake, &new);
        let write = || {
            fake.change(|machine| {
                let entry = machine.files["/etc/passwd"].clone();
                machine.files.insert(DATA.to_owned(), entry);
            });
            fake.fuel(Some(fuel));
            Err("no".to_owned())
        };
        let ended = engine(&fake).apply(&plan, "tester", None, &write, &mut Silent).is_ok();
        fake.fuel(None);
        engine(&fake).recover(&mut Silent).unwrap_or_else(|error| panic!("{fuel}: {error:?}"));
        let machine = fake.machine();
        let kept = machine.unmounted.get("rpool/srv/webapp-cache.undone-000002");
        assert!(kept.is_some_and(|files| files.contains_key(DATA)), "{fuel}: {:?}", machine.unmounted);
        if ended {
            return;
        }
    }
}

/// A dataset that came from a backup.
#[test]
fn what_was_received_is_received_again() {
    let (fake, _, new) = applied();
    fake.change(|machine| {
        for (property, value) in [("recordsize", "262144"), ("atime", "on")] {
            machine.receive("rpool/srv/webapp", property, value);
        }
    });
    let before = fake.machine().datasets["rpool/srv/webapp"].clone();
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!(fake.machine().datasets["rpool/srv/webapp"].get("atime").map(String::as_str), Some("off"));
    take_back(&fake);
    assert_eq!(fake.machine().datasets["rpool/srv/webapp"], before);
}

#[test]
fn what_was_interrupted_is_undone_where_it_was_begun() {
    let (fake, _, new) = applied();
    let before = fake.machine();
    let plan = plan_for(&fake, &new);
    fake.fuel(Some(40));
    let cut = std::panic::catch_unwind(|| apply(&fake, &plan));
    assert!(cut.is_err() && fake.machine() != before, "it was interrupted");
    fake.fuel(None);
    // Another boot environment starts: its files are not those that were changed.
    fake.change(|machine| drop(machine.datasets.insert("rpool/ROOT/other".to_owned(), Default::default())));
    fake.root(Some("rpool/ROOT/other zfs"));
    let interrupted = fake.machine();
    let error = engine(&fake).while_starting().recover(&mut Silent).expect_err("not here");
    assert!(matches!(error, ApplyError::Elsewhere { number: 2, .. }), "{error}");
    assert!(error.hint().expect("a way").contains("kbe activate --once debian"), "{:?}", error.hint());
    assert_same(&fake.machine(), &interrupted, 0);
    fake.root(None);
    assert!(engine(&fake).recover(&mut Silent).expect("here").is_some());
    fake.change(|machine| drop(machine.datasets.remove("rpool/ROOT/other")));
    assert_same(&fake.machine(), &before, 0);
}

#[test]
fn what_nobody_confirmed_is_taken_back_where_it_was_begun() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    let outcome = engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent);
    assert!(matches!(outcome, Ok(Outcome::Committed { number: 2 })), "{outcome:?}");
    fake.change(|machine| drop(machine.datasets.insert("rpool/ROOT/other".to_owned(), Default::default())));
    fake.root(Some("rpool/ROOT/other zfs"));
    let waiting = fake.machine();
    for error in [
        engine(&fake).while_starting().recover(&mut Silent).expect_err("not here"),
        engine(&fake).take_back("no", "tester", &mut Silent).expect_err("not here"),
    ] {
        assert!(matches!(error, ApplyError::Elsewhere { number: 2, .. }), "{error}");
    }
    assert_same(&fake.machine(), &waiting, 0);
    // Somebody has given it up: nothing of it is in this environment.
    fake.change(|machine| drop(machine.datasets.remove("rpool/ROOT/debian")));
    let waiting = fake.machine();
    let done = engine(&fake).while_starting().recover(&mut Silent).expect("nothing is left to do");
    assert_eq!(done.map(|done| (done.number, done.steps)), Some((2, 0)));
    let files = |machine: Machine| {
        let own = |path: &String| !path.starts_with("/var/lib/kldload");
        machine.files.into_iter().filter(|(path, _)| own(path)).collect::<Vec<_>>()
    };
    assert_eq!(files(fake.machine()), files(waiting));
    assert_eq!(History::new(&fake).records().expect("readable")[1].state, State::Undone);
}

/// The clock runs from before anything can cut off who must confirm, and once more from the end: an apply may take longer.
#[test]
fn who_must_confirm_has_the_whole_time() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    let early = || match engine(&fake).confirm() {
        Err(ApplyError::UnderWay { number: 2 }) => {
            // The clock has run out, and waits for the lock.
            fake.change(|machine| {
                machine.active.remove(CONFIRM_TIMER);
                machine.active.insert("kldload-unconfirmed.service".to_owned());
            });
            Ok(())
        }
        other => panic!("{other:?}"),
    };
    let outcome = engine(&fake).apply(&plan, "tester", Some(60), &early, &mut Silent);
    assert!(matches!(outcome, Ok(Outcome::Committed { number: 2 })), "{outcome:?}");
    let active = fake.machine().active;
    assert!(active.contains(CONFIRM_TIMER) && !active.contains("kldload-unconfirmed.service"), "{active:?}");
    assert!(engine(&fake).confirm().expect("written"));
}

/// Presses Ctrl-C while a step is made, or the proofs run.
struct Impatient<'a> {
    stop: &'a AtomicBool,
    at: usize,
    begun: Vec<String>,
}

impl Progress for Impatient<'_> {
    fn environment(&mut self, _: &str) {}
    fn no_environment(&mut self, _: &str) {}
    fn step(&mut self, number: usize, _: usize, step: &Step) {
        self.begun.push(format!("{} {}", step.kind, step.name));
        self.stop.fetch_or(number == self.at, Ordering::SeqCst);
    }
    fn back(&mut self, _: &str) {}
    fn undo(&mut self, _: &Step) {}
    fn proving(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_has_enough_gets_the_machine_as_it_was() {
    let (fake, _, new) = applied();
    let (before, plan) = (fake.machine(), plan_for(&fake, &new));
    let steps = plan.all().count();
    for at in 1..=steps + 1 {
        let stop = AtomicBool::new(false);
        let mut person = Impatient { stop: &stop, at, begun: Vec::new() };
        let outcome = engine(&fake).unless(&stop).apply(&plan, "tester", None, &|| Ok(()), &mut person);
        let Ok(Outcome::Stopped { number, before: next }) = outcome else { panic!("{at}: {outcome:?}") };
        let all: Vec<String> = plan.all().map(|step| format!("{} {}", step.kind, step.name)).collect();
        // The step during which it was said is done to its end, and the next is not begun.
        assert_eq!(person.begun, all[..at.min(steps)], "{at}");
        assert_eq!(next, all.get(at).map_or("the commit", String::as_str), "{at}");
        assert_same(&fake.machine(), &before, at);
        let records = History::new(&fake).records().expect("readable");
        let record = records.iter().find(|record| record.number == number).expect("it is remembered");
        assert_eq!(record.state, State::Undone);
        assert_eq!(record.failure.as_deref(), Some(&*format!("told to stop before {next}")));
    }
    // Nobody has to clear anything up.
    assert!(matches!(apply(&fake, &plan), Outcome::Committed { .. }));
}

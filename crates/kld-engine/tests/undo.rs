//! What must hold when something is taken back that was done: a plan is shown, nothing is lost, whatever dies or fails, and nobody
//! is locked out.

mod support;

use kld_engine::{
    Action, CLOCK, CONFIRM_TIMER, Cause, Engine, Entry, History, Host as _, Node, Outcome, Plan, State, Step,
    undo,
};
use support::fake::{Fake, Machine};
use support::{
    RECIPE, Silent, applied, apply, changed, engine, machine_for, plan_for, recipe, recover_dying, take_back,
    wanted,
};

/// Applied once, and changed.
fn twice() -> Fake {
    let (fake, _, new) = applied();
    apply(&fake, &plan_for(&fake, &new));
    fake
}

/// Applied once.
fn once() -> Fake {
    applied().0
}

fn way_back(fake: &Fake) -> Plan {
    undo(fake, None).unwrap_or_else(|error| panic!("{error:?}"))
}

/// What differs between two machines; packages stay.
fn differences(a: &Machine, b: &Machine) -> Vec<String> {
    let is_package = |path: &str| {
        ["/usr/lib/", "/var/lib/dpkg", "/etc/systemd/fake-state"].iter().any(|of| path.starts_with(of))
            || (path.starts_with("/etc/") && path.ends_with(".conf") && path.matches('/').count() == 2)
    };
    let files = a.files.iter().filter(|(path, entry)| !is_package(path) && b.files.get(*path) != Some(entry));
    let sets = a.datasets.iter().filter(|(name, own)| b.datasets.get(*name) != Some(own));
    let active = a.active.difference(&b.active).map(|unit| format!("{unit} active"));
    let rules = (a.rules != b.rules).then(|| "rules".to_owned());
    files
        .map(|(path, _)| path.clone())
        .chain(sets.map(|(name, own)| format!("{name} {own:?}")))
        .chain(active)
        .chain(rules)
        .collect()
}

#[test]
fn a_plan_says_what_goes_back_and_what_starts_again() {
    let fake = twice();
    let plan = way_back(&fake);
    let told: Vec<String> = plan
        .all()
        .map(|step| format!("{:?} {} {}: {}", step.action, step.kind, step.name, step.summary))
        .collect();
    expect_test::expect![[r#"
        Change service extra.service: stops
        Change unit extra.service: no longer starts by itself
        Change file /etc/zfs/zfs-list.cache/rpool: +0 −3 lines
        Remove file /etc/systemd/system/zfs-load-key@rpool-srv-vault.service.d/50-kldload.conf: goes
        Change file /etc/systemd/system/webapp.service: +1 −1 lines
        Remove file /etc/systemd/system/kldload-key-srv-vault.service: goes
        Remove file /etc/systemd/system/extra.service: goes
        Change file /etc/sanoid/sanoid.conf: +0 −9 lines
        Change file /etc/nftables.conf: +0 −2 lines
        Change file /etc/kldload/node.json: +2 −79 lines
        Remove account helper: goes; its files stay
        Remove dataset rpool/srv/webapp-cache: goes, or is renamed when it holds anything
        Change dataset rpool/srv/webapp: recordsize 1M → 128K
        Change dataset rpool/srv/webapp: compression zstd-3 → lz4
        Remove dataset rpool/srv/vault/app: goes, or is renamed when it holds anything
        Remove dataset rpool/srv/vault: goes, or is renamed when it holds anything
        Change dataset rpool/srv/safe: quota → 1G
        Change dataset rpool/srv/safe: recordsize 128K → 64K
        Change service systemd: reads its units again
        Change service kldload-identity.service: starts again
        Change service nftables.service: reads its configuration again
        Change service webapp.service: starts again"#]]
    .assert_eq(&told.join("\n"));
    assert_eq!(plan.undoes, [2]);
    assert!(
        plan.steps.iter().all(|step| step.cause == Cause::Wish),
        "nobody has changed anything: {plan:#?}"
    );
    assert_eq!(
        plan.left.iter().map(|left| left.remove_with.as_str()).collect::<Vec<_>>(),
        ["apt-get purge git"]
    );
    assert_eq!(plan, way_back(&fake), "looking changes nothing");
}

#[test]
fn a_machine_that_dies_while_something_is_taken_back_is_as_before_or_as_planned() {
    for begin in [once as fn() -> Fake, twice] {
        let fake = begin();
        let before = fake.machine();
        let (holds, start) = (held(&fake), fake.changes());
        take_back(&fake);
        let (after, length) = (fake.machine(), fake.changes() - start);
        let mut as_planned = 0;
        for fuel in 0..=length {
            let fake = begin();
            let plan = way_back(&fake);
            fake.fuel(Some(fuel));
            let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
            recover_dying(&fake, fuel);
            let now = fake.machine();
            if now == after {
                as_planned += 1;
                assert_eq!(held(&fake), holds[1..], "{fuel}");
            } else {
                assert!(
                    now == before,
                    "{fuel}: {:#?} {:#?}",
                    differences(&now, &before),
                    differences(&before, &now)
                );
                assert_eq!(held(&fake), holds, "{fuel}");
                // It is said again.
                take_back(&fake);
                let now = fake.machine();
                assert!(
                    now == after,
                    "{fuel}: {:#?} {:#?}",
                    differences(&now, &after),
                    differences(&after, &now)
                );
            }
        }
        assert!(as_planned >= 1 && as_planned < length / 2, "{as_planned} of {length}");
    }
}

#[test]
fn an_undo_that_fails_leaves_everything_as_it_was() {
    let fake = twice();
    let (before, start) = (fake.machine(), fake.changes());
    take_back(&fake);
    for number in 0..fake.changes() - start {
        let fake = twice();
        let plan = way_back(&fake);
        fake.refuse(Some(number));
        let outcome = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        fake.refuse(None);
        engine(&fake).recover(&mut Silent).expect("it has room again");
        if !matches!(outcome, Ok(Outcome::Committed { .. })) {
            let now = fake.machine();
            assert!(now == before || held(&fake) == [1], "{number}: {:#?}", differences(&now, &before));
        }
    }
}

/// The applies that hold, the newest first.
fn held(fake: &Fake) -> Vec<u32> {
    let records = History::new(fake).records().expect("readable");
    records.iter().rev().filter(|record| record.holds()).map(|record| record.number).collect()
}

fn write(fake: &Fake, path: &str, text: &str) {
    let there = fake.entry(path).expect("readable");
    let (mode, uid, gid) = there.map_or((0o644, 0, 0), |there| (there.mode, there.uid, there.gid));
    fake.put(path, &Entry { node: Node::File(text.into()), mode, uid, gid }).expect("writable");
}

#[test]
fn what_was_changed_by_hand_since_is_named_and_kept() {
    const RULES: &str = "/etc/nftables.conf";
    const UNIT: &str = "/etc/systemd/system/webapp.service";
    let fake = twice();
    let mine = fake.text(RULES) + "# mine\n";
    write(&fake, RULES, &mine);
    fake.change(|machine| {
        drop(machine.files.remove(UNIT));
        let own = machine.datasets.get_mut("rpool/srv/webapp").expect("there");
        own.insert("recordsize".to_owned(), "65536".to_owned());
        let passwd = machine.files.get_mut("/etc/passwd").expect("there");
        let Node::File(text) = &passwd.node else { panic!("a file") };
        let shell = |line: &str| match line.strip_prefix("helper:") {
            Some(_) => line.replace("/usr/sbin/nologin", "/bin/bash") + "\n",
            None => line.to_owned() + "\n",
        };
        passwd.node = Node::File(String::from_utf8_lossy(text).lines().map(shell).collect::<String>().into());
    });
    let by_hand = |plan: &Plan| -> Vec<(String, String)> {
        let drift = plan.steps.iter().filter(|step| step.cause == Cause::Drift);
        drift.map(|step| (step.name.clone(), step.notes[0].clone())).collect()
    };
    let said = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, note)| ((*name).to_owned(), (*note).to_owned())).collect()
    };
    let plan = way_back(&fake);
    assert_eq!(
        by_hand(&plan),
        said(&[
            (UNIT, "somebody has removed it since"),
            (RULES, "+1 −0 lines by hand since"),
            ("helper", "shell /bin/bash by hand since"),
            ("rpool/srv/webapp", "recordsize is 64K by hand since"),
        ])
    );
    apply(&fake, &plan);
    let kept = History::new(&fake).kept(3).expect("readable");
    assert_eq!(kept.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [RULES]);
    assert_eq!(fake.text(&kept[0].1), mine);
    assert!(!fake.text(RULES).contains("# mine"));
    // What has been brought back by hand already is no reason to ask.
    let was = fake.text(RULES);
    assert!(!was.contains("8001"));
    let fake = twice();
    write(&fake, RULES, &was);
    assert_eq!(by_hand(&way_back(&fake)), []);
}

#[test]
fn applies_are_taken_back_together_and_a_newer_change_is_nobodys() {
    let fake = twice();
    let third = changed().replace("TCP 8001 spare,", "TCP 8002 spare,").replace("--workers 1", "--workers 3");
    apply(&fake, &plan_for(&fake, &wanted(&third)));
    let plan = undo(&fake, Some(2)).expect("there is a way back");
    assert_eq!(plan.undoes, [3, 2]);
    assert!(plan.steps.iter().all(|step| step.cause == Cause::Wish), "{plan:#?}");
    let units: Vec<&Step> = plan.restarts.iter().filter(|step| step.name == "webapp.service").collect();
    assert_eq!(units.len(), 1, "told once");
    apply(&fake, &plan);
    assert_eq!(held(&fake), [1]);
    assert!(plan_for(&fake, &wanted(&recipe())).is_empty());
    let (now, before) = (fake.machine(), once().machine());
    assert_eq!(
        differences(&now, &before).into_iter().chain(differences(&before, &now)).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    let error = undo(&fake, Some(2)).expect_err("it does not hold").to_string();
    assert_eq!(error, "apply 2 does not hold: it was taken back, or there was none");
}

#[test]
fn history_says_who_took_back_what_and_when() {
    let fake = twice();
    engine(&fake).apply(&way_back(&fake), "alice", None, &|| Ok(()), &mut Silent).expect("it goes back");
    let records = History::new(&fake).records().expect("readable");
    let [first, second, undo] = &records[..] else { panic!("{records:?}") };
    assert_eq!((first.state, &first.undone), (State::Committed, &None));
    let undone = second.undone.as_ref().expect("it was");
    assert_eq!((second.state, undone.by.as_str(), undone.number), (State::Undone, "alice", Some(3)));
    assert_eq!((undo.name().as_str(), undo.state, &undo.undoes[..]), ("undo 3", State::Committed, &[2][..]));
    assert_eq!((undo.at, undone.at), (fake.now(), fake.now()));
    assert!(!undo.holds());
}

#[test]
fn an_undo_that_nobody_confirms_goes_forward_again() {
    let begin = |written: bool| {
        let fake = twice();
        if written {
            // With data in what it has made, which is put aside.
            write(&fake, "/srv/webapp-cache/of-a-person", "data");
        }
        let before = fake.machine();
        let plan = way_back(&fake);
        let done = engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent);
        assert_eq!(done.expect("it goes back"), Outcome::Committed { number: 3 });
        assert!(fake.machine().active.contains(CONFIRM_TIMER));
        assert_eq!(held(&fake), [1]);
        (fake, before)
    };
    for written in [false, true] {
        let same = |fake: &Fake, before: &Machine, at: usize| {
            let now = fake.machine();
            assert!(
                now == *before,
                "{at}: {:#?} {:#?}",
                differences(&now, before),
                differences(before, &now)
            );
            assert_eq!(held(fake), [2, 1], "{at}");
            assert!(plan_for(fake, &wanted(&changed())).is_empty(), "{at}");
        };
        for fuel in 0.. {
            let (fake, before) = begin(written);
            fake.fuel(Some(fuel));
            let ended = engine(&fake).take_back("nobody has confirmed it", CLOCK, &mut Silent).is_ok();
            fake.fuel(None);
            engine(&fake).recover(&mut Silent).expect("it goes forward");
            if held(&fake) == [1] {
                // It died before the line that says so was whole.
                engine(&fake)
                    .take_back("nobody has confirmed it", CLOCK, &mut Silent)
                    .expect("it goes forward");
            }
            same(&fake, &before, fuel);
            if ended {
                let undone = History::new(&fake).record(3).expect("readable").expect("there").undone;
                assert_eq!(undone.map(|undone| (undone.by, undone.number)), Some((CLOCK.to_owned(), None)));
                break;
            }
        }
        // A start while it waits.
        let (fake, before) = begin(written);
        fake.change(|machine| machine.active.retain(|unit| unit != CONFIRM_TIMER));
        engine(&fake).while_starting().recover(&mut Silent).expect("it goes forward");
        // Services have not been started yet.
        fake.change(|machine| machine.active.clone_from(&before.active));
        assert_eq!(differences(&fake.machine(), &before), Vec::<String>::new());
        assert_eq!(held(&fake), [2, 1]);
        // What somebody writes meanwhile is kept.
        let (fake, _) = begin(written);
        write(&fake, "/etc/nftables.conf", "flush ruleset\n");
        engine(&fake).take_back("nobody has confirmed it", CLOCK, &mut Silent).expect("it goes forward");
        let kept = History::new(&fake).kept(3).expect("readable");
        assert_eq!(kept.iter().map(|(_, kept)| fake.text(kept)).collect::<Vec<_>>(), ["flush ruleset\n"]);
        // And one that somebody confirms stays.
        let (fake, _) = begin(written);
        assert!(engine(&fake).confirm().expect("written"));
        assert_eq!(held(&fake), [1]);
    }
}

#[test]
fn the_clock_starts_before_anything_can_cut_off_who_must_confirm() {
    // Taking the first apply back takes interfaces away.
    let fake = once();
    let plan = way_back(&fake);
    fake.take_log();
    Engine::new(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent).expect("it goes back");
    let log = fake.take_log();
    let at = |words: &str| {
        log.iter().position(|line| line.starts_with(words)).unwrap_or_else(|| panic!("{words}: {log:#?}"))
    };
    assert!(at("systemd-run") < at("networkctl delete"), "{log:#?}");
    // Nothing is told of a property, and it waits all the same.
    let fake = once();
    let plan = plan_for(&fake, &wanted(&recipe().replace("recordsize=128k", "recordsize=1M")));
    assert_eq!((plan.steps.len(), plan.restarts.len()), (1, 0));
    engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent).expect("applied");
    assert!(fake.machine().active.contains(CONFIRM_TIMER));
}

#[test]
fn what_people_have_written_before_the_clock_ran_out_is_kept() {
    const RULES: &str = "/etc/nftables.conf";
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent).expect("applied");
    write(&fake, RULES, "flush ruleset\n");
    let done = engine(&fake).take_back("nobody has confirmed it", CLOCK, &mut Silent).expect("it goes back");
    assert_eq!((done.was_undo, done.left), (false, vec!["apt-get purge git".to_owned()]));
    let kept = History::new(&fake).kept(2).expect("readable");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!((kept[0].0.as_str(), fake.text(&kept[0].1).as_str()), (RULES, "flush ruleset\n"));
}

#[test]
fn settings_of_the_kernel_go_back_though_their_file_goes() {
    const LIVE: &str = "/proc/sys/kernel/kptr_restrict";
    let fresh = || machine_for(&[&wanted(RECIPE)]);
    let fake = fresh();
    let plan = plan_for(&fake, &wanted(RECIPE));
    let looks = || {
        assert_eq!(fake.text(LIVE), "2\n");
        Err("it does not hold".to_owned())
    };
    engine(&fake).apply(&plan, "tester", None, &looks, &mut Silent).expect("it goes back");
    assert_eq!(fake.text(LIVE), "7\n");
    apply(&fake, &plan_for(&fake, &wanted(RECIPE)));
    let plan = way_back(&fake);
    let step = plan.restarts.last().expect("it tells the kernel");
    assert_eq!((step.name.as_str(), step.action), ("kernel", Action::Change));
    assert!(step.notes.contains(&"kernel.kptr_restrict 2 → 7".to_owned()), "{:?}", step.notes);
    engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent).expect("it goes back");
    assert_eq!(fake.text(LIVE), "7\n");
    engine(&fake).take_back("nobody has confirmed it", CLOCK, &mut Silent).expect("it goes forward");
    assert_eq!(fake.text(LIVE), "2\n");
    // A start in the middle has told the kernel what the file says.
    let fake = fresh();
    let plan = plan_for(&fake, &wanted(RECIPE));
    fake.fuel(Some(plan.steps.len() * 3));
    let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
    fake.fuel(None);
    assert!(fake.entry("/etc/sysctl.d/50-kldload.conf").expect("readable").is_some(), "it came as far");
    write(&fake, LIVE, "2\n");
    engine(&fake).while_starting().recover(&mut Silent).expect("it goes back");
    assert_eq!(fake.text(LIVE), "7\n");
}

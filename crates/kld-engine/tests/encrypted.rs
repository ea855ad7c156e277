//! Encrypted datasets: made by the node, and from then on as all others. Their keys outlive every apply.

mod support;

use std::collections::BTreeMap;

use kld_engine::{Action, Cause, Engine, Entry, Host as _, Node, Outcome, Wanted};
use kld_host::Cmd;
use support::fake::Fake;
use support::{
    RECIPE, Silent, applied, apply, assert_same, engine, machine_for, plan_for, recipe, recover_dying,
    take_back, wanted,
};

const SAFE: &str = "rpool/srv/safe";
const SEALED: &str = "/etc/kldload/keys/srv@safe.cred";

/// A recipe whose service keeps its data in a dataset of its own, which is encrypted.
fn of_a_service() -> Wanted {
    let dataset = "dataset:      rpool/srv/webapp\n";
    assert!(RECIPE.contains(dataset));
    let text = RECIPE.replace("  rpool/srv/webapp:   ", "  rpool/srv/vault:  encryption=on");
    wanted(&text.replace(dataset, "dataset:      rpool/srv/vault\n"))
}

/// A machine without an encrypted dataset, for which `new` would be the first.
fn without(new: &Wanted) -> Fake {
    let plain = wanted(RECIPE);
    let fake = machine_for(&[&plain, new]);
    apply(&fake, &plan_for(&fake, &plain));
    fake
}

fn fail(fake: &Fake, wanted: &Wanted, then: &dyn Fn()) {
    let plan = plan_for(fake, wanted);
    let prove = || {
        then();
        Err("it does not hold".to_owned())
    };
    let outcome = engine(fake).apply(&plan, "tester", None, &prove, &mut Silent);
    assert!(matches!(outcome, Ok(Outcome::RolledBack { .. })), "{outcome:?}");
}

fn refused(fake: &Fake, wanted: &Wanted, before: &BTreeMap<String, String>) -> String {
    let error = kld_engine::plan(fake, wanted, before).expect_err("refused");
    format!("{error} / {}", error.hint().unwrap_or_default())
}

#[test]
fn an_apply_that_failed_leaves_the_key_and_the_next_one_uses_it() {
    let new = wanted(&recipe());
    let fake = without(&new);
    let before = fake.machine();
    fail(&fake, &new, &|| assert!(fake.keys_load() && fake.machine().datasets.contains_key(SAFE)));
    assert_same(&fake.machine(), &before, 0);
    let key = fake.text(SEALED);
    assert_eq!(key.len(), 32, "its key did not");
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!(fake.machine().keys[SAFE], key);
    fake.run(&Cmd::new("zfs").args(["load-key", "-n", SAFE])).expect("it loads");
    assert!(fake.keys_load() && plan_for(&fake, &new).is_empty());
    // Lived with, and taken back.
    take_back(&fake);
    assert!(!fake.machine().datasets.contains_key(SAFE));
    assert_eq!(fake.text(SEALED), key);
}

/// Its data is nobody's to lose because a line was deleted.
#[test]
fn a_dataset_that_leaves_the_manifest_is_unlocked_at_every_start() {
    let (plain, new) = (wanted(RECIPE), wanted(&recipe()));
    let fake = without(&new);
    apply(&fake, &plan_for(&fake, &new));
    let unlocking = kld_system::unlocking_files(&SAFE.parse().expect("a name"));
    assert!(unlocking.iter().all(|path| new.files.contains_key(path)), "{unlocking:?}");
    let leaves = plan_for(&fake, &plain);
    for path in &unlocking {
        assert!(leaves.all().all(|step| step.name != *path), "{leaves:#?}");
        let left = leaves.left.iter().find(|left| left.name == *path).expect("it is named");
        assert_eq!(left.remove_with, format!("rm {path}   # it unlocks {SAFE}: once that is destroyed"));
    }
    assert!(leaves.restarts.iter().all(|step| !step.name.contains("key")), "{leaves:#?}");
    assert!(matches!(apply(&fake, &leaves), Outcome::Committed { .. }));
    assert!(unlocking.iter().all(|path| fake.machine().files.contains_key(path)));
    assert!(fake.machine().datasets.contains_key(SAFE) && fake.keys_load());
    // Nothing is in the way of its coming back.
    apply(&fake, &plan_for(&fake, &new));
    assert!(plan_for(&fake, &new).is_empty());
    // Without their dataset they are files as any other.
    fake.run(&Cmd::new("zfs").args(["destroy", "-r", SAFE])).expect("a person may");
    let leaves = plan_for(&fake, &plain);
    assert!(unlocking.iter().all(|path| leaves.all().any(|step| step.name == *path)), "{leaves:#?}");
}

#[test]
fn what_somebody_has_written_into_it_is_put_aside_with_its_key() {
    let new = wanted(&recipe());
    let fake = without(&new);
    let write = || {
        let entry = Entry { node: Node::File(b"precious".to_vec()), mode: 0o600, uid: 0, gid: 0 };
        fake.put("/srv/safe/of-a-person", &entry).expect("writable");
    };
    fail(&fake, &new, &write);
    let aside = format!("{SAFE}.undone-000002");
    assert!(fake.machine().unmounted[&aside].contains_key("/srv/safe/of-a-person"));
    apply(&fake, &plan_for(&fake, &new));
    let keys = fake.machine().keys;
    assert_eq!(keys[SAFE], keys[&aside]);
    assert!(fake.keys_load());
}

#[test]
fn a_machine_that_dies_while_a_dataset_is_born_is_as_before_or_as_planned() {
    let new = of_a_service();
    let fake = without(&new);
    let before = fake.machine();
    let start = fake.changes();
    apply(&fake, &plan_for(&fake, &new));
    let (after, length) = (fake.machine(), fake.changes() - start);
    assert!(plan_for(&fake, &new).is_empty());
    let root = &after.files["/srv/vault"];
    assert_eq!((root.mode, root.uid != 0), (0o750, true), "the service owns it");
    for fuel in 0..=length {
        let fake = without(&new);
        let plan = plan_for(&fake, &new);
        fake.fuel(Some(fuel));
        let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        recover_dying(&fake, fuel);
        assert!(fake.keys_load(), "{fuel}");
        if fake.machine() != after {
            assert_same(&fake.machine(), &before, fuel);
        }
        apply(&fake, &plan_for(&fake, &new));
        assert_same(&fake.machine(), &after, fuel);
        assert!(fake.keys_load(), "{fuel}");
    }
}

#[test]
fn its_properties_are_planned_applied_and_taken_back() {
    let (fake, old, _) = applied();
    let before = fake.machine();
    let new = wanted(&recipe().replace("recordsize=64k  quota=1G", "recordsize=1M  quota=2G"));
    let plan = plan_for(&fake, &new);
    let of = |name: &str| name == SAFE;
    let said: Vec<&str> = plan.steps.iter().filter(|s| of(&s.name)).map(|s| s.summary.as_str()).collect();
    assert_eq!(said, ["quota 1G → 2G", "recordsize 64K → 1M"]);
    fail(&fake, &new, &|| ());
    assert_same(&fake.machine(), &before, 0);
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!(fake.machine().datasets[SAFE]["recordsize"], "1048576");
    assert!(plan_for(&fake, &new).is_empty());
    take_back(&fake);
    assert_same(&fake.machine(), &before, 0);
    // And by hand.
    fake.run(&Cmd::new("zfs").args(["set", "quota=7G", SAFE])).expect("set");
    let plan = plan_for(&fake, &old);
    assert_eq!((plan.steps.len(), plan.steps[0].cause), (1, Cause::Drift), "{plan:#?}");
}

#[test]
fn encryption_is_never_turned_on_or_off_and_the_way_is_told() {
    let with = |old: &str, new: &str| {
        let text = recipe();
        assert!(text.contains(old), "{old}");
        wanted(&text.replace(old, new))
    };
    let (fake, ..) = applied();
    let known = kld_engine::History::new(&fake).applied().expect("readable");
    let check = |wanted: &Wanted, want: &str| {
        for before in [&known, &BTreeMap::new()] {
            assert_eq!(refused(&fake, wanted, before), format!("cannot plan {want}"));
        }
    };
    let beside = "make a dataset beside it, copy into it, and swap their mountpoints";
    check(
        &with("rpool/srv/webapp:   ", "rpool/srv/webapp:  encryption=on"),
        &format!(
            "`rpool/srv/webapp`: `encryption` is `off` since it was made, and cannot become `aes-256-gcm` / {beside}"
        ),
    );
    check(
        &with("encryption=on  recordsize", "recordsize"),
        &format!(
            "`{SAFE}`: `encryption` is `aes-256-gcm` since it was made, and cannot become `off` / {beside}"
        ),
    );
    check(
        &with("encryption=on", "encryption=aes-128-gcm"),
        &format!(
            "`{SAFE}`: `encryption` is `aes-256-gcm` since it was made, and cannot become `aes-128-gcm` / {beside}"
        ),
    );
}

#[test]
fn whose_key_it_is_is_never_changed_and_keys_of_others_are_left_alone() {
    let inner = |line: &str| {
        let more = format!("  {SAFE}/inner:{line}\n  rpool/srv/webapp-db:");
        wanted(&recipe().replace("  rpool/srv/webapp-db:", &more))
    };
    let (inherits, own) = (inner("  quota=1G"), inner("  encryption=on  quota=1G"));
    for (first, then, want) in [
        (&inherits, &own, "it is encrypted with the key of a dataset above it"),
        (&own, &inherits, "it has a key of its own"),
    ] {
        let fake = machine_for(&[first, then]);
        apply(&fake, &plan_for(&fake, first));
        assert!(fake.keys_load() && plan_for(&fake, first).is_empty());
        let said = refused(&fake, then, &BTreeMap::new());
        assert!(said.contains(want), "{said}");
    }
    // A pool that somebody has encrypted with a passphrase.
    let plain = wanted(RECIPE);
    let fake = machine_for(&[&plain]);
    fake.change(|machine| {
        let own = machine.datasets.get_mut("rpool").expect("there");
        for (name, value) in
            [("encryption", "aes-256-gcm"), ("keyformat", "passphrase"), ("keylocation", "prompt")]
        {
            own.insert(name.to_owned(), value.to_owned());
        }
    });
    apply(&fake, &plan_for(&fake, &plain));
    assert!(plan_for(&fake, &plain).is_empty());
}

#[test]
fn one_that_leaves_the_manifest_is_named_and_comes_back_with_its_key() {
    let (fake, old, _) = applied();
    let key = fake.text(SEALED);
    let plan = plan_for(&fake, &wanted(RECIPE));
    let left = plan.left.iter().filter(|left| left.kind == "dataset");
    assert_eq!(left.map(|left| left.name.as_str()).collect::<Vec<_>>(), [SAFE]);
    apply(&fake, &plan);
    assert!(fake.keys_load());
    let plan = plan_for(&fake, &old);
    assert!(plan.left.is_empty() && plan.steps.iter().all(|step| step.name != SAFE), "{plan:#?}");
    apply(&fake, &plan);
    assert!(fake.keys_load() && plan_for(&fake, &old).is_empty());
    // Without it, the node is told, though nothing else has changed.
    fake.run(&Cmd::new("zfs").args(["destroy", SAFE])).expect("destroyed");
    let plan = plan_for(&fake, &old);
    assert_eq!((plan.steps.len(), plan.steps[0].action), (1, Action::Add), "{plan:#?}");
    assert!(plan.restarts.iter().any(|step| step.because.reason == format!("it makes {SAFE}")));
    assert!(plan.steps[0].notes[0].contains("a key that is born on this machine"));
    apply(&fake, &plan);
    assert!(fake.keys_load() && plan_for(&fake, &old).is_empty());
    assert_eq!(fake.text(SEALED), key);
}

#[test]
fn files_that_it_would_hide_and_a_pool_that_cannot_encrypt_are_told_before() {
    let new = wanted(&recipe());
    let fake = machine_for(&[&new]);
    fake.lacks(Some("encryption"));
    let said = refused(&fake, &new, &BTreeMap::new());
    assert!(said.contains("the pool has no feature `encryption`"), "{said}");
    fake.lacks(None);
    let entry = Entry { node: Node::File(b"precious".to_vec()), mode: 0o600, uid: 0, gid: 0 };
    fake.put("/srv/safe/of-a-person", &entry).expect("writable");
    let said = refused(&fake, &new, &BTreeMap::new());
    assert!(said.contains("`/srv/safe` holds 1 files that the dataset would hide / `mv /srv/safe"), "{said}");
}

#[test]
fn a_start_that_finds_an_apply_interrupted_takes_the_dataset_back() {
    let new = wanted(&recipe());
    let fake = without(&new);
    let plan = plan_for(&fake, &new);
    let die = || {
        fake.fuel(Some(0));
        Ok(())
    };
    assert!(Engine::new(&fake).apply(&plan, "tester", None, &die, &mut Silent).is_err());
    fake.fuel(None);
    assert!(fake.machine().datasets.contains_key(SAFE));
    engine(&fake).while_starting().recover(&mut Silent).expect("it goes back");
    assert!(!fake.machine().datasets.contains_key(SAFE) && !fake.text(SEALED).is_empty());
}

/// As `kldload key passphrase` leaves it, and ZFS's event daemon.
fn give_passphrase(fake: &Fake, dataset: &str) {
    let location = fake.machine().datasets[dataset]["keylocation"].clone();
    let cache = "/etc/zfs/zfs-list.cache/rpool";
    assert!(fake.text(cache).contains(&location));
    let text = fake.text(cache).replace(&location, "prompt");
    fake.change(|machine| {
        let own = machine.datasets.get_mut(dataset).expect("there");
        own.insert("keyformat".to_owned(), "passphrase".to_owned());
        own.insert("keylocation".to_owned(), "prompt".to_owned());
        let sealed = dataset.trim_start_matches("rpool/").replace('/', "@");
        machine.files.retain(|path, _| !path.contains(&sealed));
        machine.keys.remove(dataset);
        machine.files.get_mut(cache).expect("there").node = Node::File(text.into_bytes());
    });
}

/// As a start leaves it.
fn lock(fake: &Fake, dataset: &str) {
    fake.run(&Cmd::new("zfs").args(["unmount", dataset])).expect("unmounted");
    fake.change(|machine| {
        let own = machine.datasets.get_mut(dataset).expect("there");
        own.insert("keystatus".to_owned(), "unavailable".to_owned());
    });
}

#[test]
fn a_passphrase_is_the_business_of_who_has_given_it() {
    let (fake, old, _) = applied();
    give_passphrase(&fake, SAFE);
    let before = fake.machine();
    assert!(plan_for(&fake, &old).is_empty(), "{:#?}", plan_for(&fake, &old));
    assert!(kld_engine::History::new(&fake).drift().expect("readable").is_empty());
    // It changes as any other, and back; whatever is told meanwhile makes no key.
    let new = wanted(&recipe().replace("recordsize=64k  quota=1G", "recordsize=1M  quota=2G"));
    fail(&fake, &new, &|| ());
    assert_same(&fake.machine(), &before, 0);
    apply(&fake, &plan_for(&fake, &new));
    assert!(plan_for(&fake, &new).is_empty());
    assert!(fake.text("/etc/zfs/zfs-list.cache/rpool").contains("\tprompt\t"));
    assert!(!fake.machine().files.contains_key(SEALED));
    take_back(&fake);
    assert_same(&fake.machine(), &before, 0);
}

#[test]
fn what_needs_a_locked_dataset_is_refused_with_the_way() {
    let new = of_a_service();
    let fake = without(&new);
    apply(&fake, &plan_for(&fake, &new));
    give_passphrase(&fake, "rpool/srv/vault");
    assert!(plan_for(&fake, &new).is_empty());
    lock(&fake, "rpool/srv/vault");
    fake.run(&Cmd::new("systemctl").args(["stop", "webapp.service"])).expect("stopped");
    let refused = |text: &str| refused(&fake, &wanted(text), &BTreeMap::new());
    let text = |extra: &str| {
        let vault = format!("  rpool/srv/vault:  encryption=on{extra}");
        let text = RECIPE.replace("  rpool/srv/webapp:   ", &vault);
        text.replace("dataset:      rpool/srv/webapp\n", "dataset:      rpool/srv/vault\n")
    };
    let way = "`kldload key unlock rpool/srv/vault`, and plan again";
    let said = refused(&text(""));
    assert!(said.contains("it needs `rpool/srv/vault`, which is locked") && said.ends_with(way), "{said}");
    let said = refused(&text("\n  rpool/srv/vault/inner:  quota=1G\n  rpool/srv/other:"));
    assert!(
        said.contains("`rpool/srv/vault/inner`: it needs `rpool/srv/vault`") && said.ends_with(way),
        "{said}"
    );
    // What is elsewhere is planned as ever, once it needs nothing of it.
    let (fake, ..) = applied();
    give_passphrase(&fake, SAFE);
    lock(&fake, SAFE);
    let more = wanted(&recipe().replace("recordsize=64k  quota=1G", "recordsize=64k  quota=2G"));
    let plan = plan_for(&fake, &more);
    assert!(plan.steps.iter().any(|step| step.name == SAFE && step.summary == "quota 1G → 2G"), "{plan:#?}");
}

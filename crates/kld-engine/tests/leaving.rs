//! What a manifest no longer names, and places that are not as they seem.

mod support;

use std::collections::BTreeMap;

use kld_engine::{Entry, History, Host as _, Node, Outcome, Plan, Wanted, plan};
use kld_host::Cmd;
use support::fake::Fake;
use support::{
    RECIPE, Silent, applied, apply, assert_same, engine, plan_for, recover_dying, take_back, wanted,
};

fn show(fake: &Fake, unit: &str) -> String {
    let show = Cmd::new("systemctl").args(["show", "--property", "Id,ActiveState,UnitFileState", "--", unit]);
    let text = String::from_utf8(fake.run(&show).expect("it answers").stdout).expect("text");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .skip(1)
        .map(|(_, value)| value)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A machine with `extra.service`, and the plan of the manifest that has it no more.
fn with_extra() -> (Fake, Plan, Wanted) {
    let (fake, old, new) = applied();
    assert!(matches!(apply(&fake, &plan_for(&fake, &new)), Outcome::Committed { .. }));
    assert_eq!(show(&fake, "extra.service"), "active enabled");
    let plan = plan_for(&fake, &old);
    (fake, plan, new)
}

#[test]
fn a_service_that_leaves_the_manifest_ends() {
    let (fake, back, new) = with_extra();
    let first = &back.steps[0];
    assert_eq!((first.kind.as_str(), first.name.as_str()), ("unit", "extra.service"));
    assert!(
        back.restarts.iter().any(|step| step.name == "extra.service" && step.summary.contains("stop")),
        "{back:#?}"
    );
    assert!(matches!(apply(&fake, &back), Outcome::Committed { .. }));
    assert_eq!(show(&fake, "extra.service"), "inactive ");
    assert!(plan_for(&fake, &wanted(&support::recipe())).is_empty());
    // And it is there again.
    assert!(matches!(take_back(&fake), Outcome::Committed { .. }));
    assert_eq!(show(&fake, "extra.service"), "active enabled");
    assert!(plan_for(&fake, &new).is_empty());
}

#[test]
fn a_machine_that_dies_while_a_service_leaves_has_it_as_before() {
    for at in 0.. {
        let (fake, back, _) = with_extra();
        let before = fake.machine();
        fake.fuel(Some(at));
        let outcome = engine(&fake).apply(&back, "tester", None, &|| Ok(()), &mut Silent);
        if matches!(outcome, Ok(Outcome::Committed { .. })) {
            assert!(at > 10, "{at}");
            break;
        }
        recover_dying(&fake, at);
        if show(&fake, "extra.service") != "inactive " {
            assert_same(&fake.machine(), &before, at);
        }
    }
}

#[test]
fn a_unit_of_a_package_stays_and_is_named() {
    let (above, services) =
        RECIPE.split_at(RECIPE.find("  - unit:         postgresql@").expect("it has one"));
    let (_, below) = services.split_at(services.find("  - unit:         webapp").expect("and another"));
    let without_it = format!("{above}{below}").replace("    after:        postgresql@17-main.service\n", "");
    let (with_it, without_it) = (wanted(RECIPE), wanted(&without_it));
    let fake = support::machine_for(&[&with_it, &without_it]);
    assert!(matches!(apply(&fake, &plan_for(&fake, &with_it)), Outcome::Committed { .. }));
    let plan = plan_for(&fake, &without_it);
    let unit = "postgresql@17-main.service";
    let left = plan.left.iter().find(|left| left.name == unit).unwrap_or_else(|| panic!("{:#?}", plan.left));
    assert_eq!(
        (left.kind.as_str(), left.remove_with.as_str()),
        ("unit", &*format!("systemctl disable --now {unit}"))
    );
    assert!(plan.all().all(|step| step.name != unit), "{plan:#?}");
}

fn drift(fake: &Fake) -> Vec<String> {
    History::new(fake).drift().expect("readable").into_iter().map(|(_, name)| name).collect()
}

fn refused(fake: &Fake, wanted: &Wanted) -> String {
    let error = plan(fake, wanted, &BTreeMap::new()).expect_err("it is refused");
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// Nobody sees what lies below a dataset.
#[test]
fn files_are_not_hidden_by_a_dataset_that_moves() {
    let (fake, ..) = applied();
    let moved = wanted(&support::recipe().replace(
        "recordsize=128k  compression=lz4",
        "mountpoint=/srv/new  recordsize=128k  compression=lz4",
    ));
    let file = Entry { node: Node::File(b"mine".to_vec()), mode: 0o644, uid: 0, gid: 0 };
    fake.put("/srv/new/mine", &file).expect("written");
    let said = refused(&fake, &moved);
    assert!(said.contains("`/srv/new` holds 1 files that the dataset would hide; move them away"), "{said}");
    fake.remove("/srv/new/mine").expect("removed");
    plan(&fake, &moved, &BTreeMap::new()).expect("nothing is in the way");
}

/// What its services write is not below it by mistake.
#[test]
fn a_dataset_that_is_not_mounted_is_said() {
    let (fake, old, _) = applied();
    let zfs = |args: &[&str]| fake.run(&Cmd::new("zfs").args(args)).map(drop).expect("a person may");
    assert_eq!(drift(&fake), [""; 0]);
    zfs(&["unmount", "rpool/srv/webapp"]);
    let said = refused(&fake, &old);
    assert!(said.contains("cannot plan `rpool/srv/webapp`: it is not mounted on `/srv/webapp`"), "{said}");
    assert!(said.contains("`zfs mount rpool/srv/webapp`, and plan again"), "{said}");
    let drifted = drift(&fake);
    assert!(
        drifted.iter().any(|item| item.contains("rpool/srv/webapp is not mounted on /srv/webapp")),
        "{drifted:?}"
    );
    zfs(&["mount", "rpool/srv/webapp"]);
    assert!(plan_for(&fake, &old).is_empty());
}

/// `zfs set canmount=on` itself mounts nothing.
#[test]
fn a_dataset_that_may_be_mounted_is() {
    let (fake, old, _) = applied();
    let off = wanted(
        &support::recipe()
            .replace("recordsize=128k  compression=lz4", "canmount=off  recordsize=128k  compression=lz4"),
    );
    assert!(matches!(apply(&fake, &plan_for(&fake, &off)), Outcome::Committed { .. }));
    assert!(matches!(apply(&fake, &plan_for(&fake, &old)), Outcome::Committed { .. }));
    assert!(plan_for(&fake, &old).is_empty());
    assert!(matches!(take_back(&fake), Outcome::Committed { .. }));
    assert!(matches!(take_back(&fake), Outcome::Committed { .. }));
    let text = fake.run(&Cmd::new("zfs").args([
        "get",
        "-Hp",
        "-o",
        "name,property,value,source",
        "mounted",
        "rpool/srv/webapp",
    ]));
    let text = String::from_utf8(text.expect("readable").stdout).expect("text");
    assert!(text.contains("mounted\tyes"), "{text}");
}

#[test]
fn a_unit_that_was_masked_by_hand_starts_again() {
    let (fake, old, _) = applied();
    let systemctl = |verb: &str| {
        fake.run(&Cmd::new("systemctl").args([verb, "webapp.service"])).map(drop).expect("a person may");
    };
    systemctl("stop");
    systemctl("mask");
    let before = fake.machine();
    assert!(matches!(apply(&fake, &plan_for(&fake, &old)), Outcome::Committed { .. }));
    assert_eq!(show(&fake, "webapp.service"), "active enabled");
    assert!(plan_for(&fake, &old).is_empty());
    // Nobody wants it, after all.
    systemctl("stop");
    systemctl("mask");
    let no = || Err("no".to_owned());
    engine(&fake).apply(&plan_for(&fake, &old), "tester", None, &no, &mut Silent).expect("it goes back");
    assert_same(&fake.machine(), &before, 0);
}

/// Nobody is there who has its key, and the way back does not stop for that.
#[test]
fn a_locked_dataset_that_may_be_mounted_waits_for_its_key() {
    let (fake, ..) = applied();
    let off = support::recipe()
        .replace("encryption=on  recordsize=64k", "encryption=on  canmount=off  recordsize=64k");
    assert!(matches!(apply(&fake, &plan_for(&fake, &wanted(&off))), Outcome::Committed { .. }));
    fake.change(|machine| {
        let own = machine.datasets.get_mut("rpool/srv/safe").expect("it is there");
        own.insert("keystatus".to_owned(), "unavailable".to_owned());
    });
    let back = take_back(&fake);
    assert!(matches!(back, Outcome::Committed { .. }), "{back:?}");
    assert!(fake.machine().unmounted.contains_key("rpool/srv/safe"));
}

//! Before an apply changes anything, what it changes is snapshotted: all of a pool at one moment.

mod support;

use kld_engine::Outcome;
use support::fake::Fake;
use support::{RECIPE, apply, changed, machine_for, plan_for, take_back, wanted};

const DATASET: &str = "  rpool/srv/webapp-db:";

/// The snapshots that applies have asked for, a line for each command.
fn asked(fake: &Fake) -> Vec<String> {
    let log = fake.take_log();
    let of_applies = log.iter().filter_map(|command| command.strip_prefix("zfs snapshot "));
    of_applies.filter(|names| !names.ends_with("-packages")).map(str::to_owned).collect()
}

#[test]
fn pools_are_snapshotted_one_by_one() {
    let on_tank = |manifest: &str| {
        let manifest = manifest.replace("encryption=on  ", "").replace("encryption=aes-128-gcm", "atime=off");
        wanted(&manifest.replace("rpool/", "tank/"))
    };
    let (old, new) = (on_tank(RECIPE), on_tank(&changed()));
    let fake = machine_for(&[&old, &new]);
    fake.change(|machine| {
        let own = [("mountpoint".to_owned(), "none".to_owned())];
        drop(machine.datasets.insert("tank".to_owned(), own.into()));
    });
    assert_eq!(apply(&fake, &plan_for(&fake, &old)), Outcome::Committed { number: 1 });
    fake.take_log();
    assert_eq!(apply(&fake, &plan_for(&fake, &new)), Outcome::Committed { number: 2 });
    let name = "kldload-apply-000002";
    assert_eq!(asked(&fake), [format!("rpool/ROOT/debian@{name}"), format!("tank/srv/webapp@{name}")]);
    assert_eq!(take_back(&fake), Outcome::Committed { number: 3 });
    // Those of both go when there are ten newer ones.
    for _ in 0..5 {
        apply(&fake, &plan_for(&fake, &new));
        take_back(&fake);
    }
    assert!(!fake.snapshots().iter().any(|of| of.ends_with(name)), "{:?}", fake.snapshots());
}

#[test]
fn a_dataset_that_a_file_is_written_into_is_snapshotted_with_the_others() {
    let with = RECIPE.replace(DATASET, &format!("  rpool/srv/webapp/archive:  recordsize=1M\n{DATASET}"));
    let file = "files:\n  /srv/webapp/archive/first.py:  app.py\n";
    let (old, new) =
        (wanted(&with), wanted(&with.replace("files:\n", file).replace("recordsize=8k", "recordsize=16k")));
    let fake = machine_for(&[&old, &new]);
    apply(&fake, &plan_for(&fake, &old));
    fake.take_log();
    apply(&fake, &plan_for(&fake, &new));
    let name = "kldload-apply-000002";
    let together =
        ["ROOT/debian", "srv/webapp-db", "srv/webapp/archive"].map(|of| format!("rpool/{of}@{name}"));
    assert_eq!(asked(&fake), [together.join(" ")]);
    // What others have written into it since stays.
    let others = "/srv/webapp/archive/data";
    fake.change(|machine| {
        let entry = machine.files["/etc/passwd"].clone();
        drop(machine.files.insert(others.to_owned(), entry));
    });
    take_back(&fake);
    let machine = fake.machine();
    assert!(
        machine.files.contains_key(others) && !machine.files.contains_key("/srv/webapp/archive/first.py")
    );
}

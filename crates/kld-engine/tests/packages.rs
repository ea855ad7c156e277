//! Packages on machines that have been lived on: an administrator's own policy, and names that others provide.

mod support;

use std::collections::BTreeMap;

use kld_engine::{Entry, History, Host as _, Node, Outcome, plan};
use support::fake::{Deb, Fake};
use support::{RECIPE, Silent, apply, engine, machine_for, plan_for, recover_dying, wanted};

const POLICY: &str = "/usr/sbin/policy-rc.d";

fn script(text: &str) -> Entry {
    Entry { node: Node::File(text.as_bytes().to_vec()), mode: 0o700, uid: 0, gid: 0 }
}

/// A machine on which an administrator decides what may be started.
fn with_policy(root: Option<&'static str>) -> Fake {
    let fake = machine_for(&[&wanted(RECIPE)]);
    fake.root(root);
    fake.put(POLICY, &script("#!/bin/sh\nexit 104\n")).expect("written");
    fake
}

#[test]
fn an_administrators_policy_outlives_the_installation() {
    for root in [None, Some("/dev/vda1 ext4")] {
        let fake = with_policy(root);
        let plan = plan_for(&fake, &wanted(RECIPE));
        let changes = fake.changes();
        apply(&fake, &plan);
        let changes = fake.changes() - changes;
        let policy = |fake: &Fake| fake.entry(POLICY).expect("readable");
        assert_eq!(policy(&fake), Some(script("#!/bin/sh\nexit 104\n")));
        assert!(plan_for(&fake, &wanted(RECIPE)).is_empty());

        for at in 0..changes {
            let fake = with_policy(root);
            let plan = plan_for(&fake, &wanted(RECIPE));
            fake.fuel(Some(at));
            let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
            recover_dying(&fake, at);
            assert_eq!(policy(&fake), Some(script("#!/bin/sh\nexit 104\n")), "killed at {at}");

            let fake = with_policy(root);
            fake.refuse(Some(at));
            let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
            assert_eq!(policy(&fake), Some(script("#!/bin/sh\nexit 104\n")), "refused at {at}");
        }

        // One that a kill has left, and a snapshot of somebody has brought back.
        let ours = "#!/bin/sh\n# kldload starts services when their configuration is there.\nexit 101\n";
        let fake = with_policy(root);
        fake.put(POLICY, &script(ours)).expect("written");
        apply(&fake, &plan_for(&fake, &wanted(RECIPE)));
        assert_eq!(policy(&fake), None);
    }
}

/// A machine whose archive has `libssl3t64`, which provides `libssl3`.
fn renamed() -> (Fake, kld_engine::Wanted) {
    let wanted = wanted(&RECIPE.replace("packages:  curl,", "packages:  libssl3, curl,"));
    let fake = machine_for(&[&wanted]);
    fake.change_archive(|archive| {
        archive.remove("libssl3").expect("it was asked for");
        let provides = vec!["libssl3"];
        archive.insert("libssl3t64".to_owned(), Deb { provides, ..Deb::default() });
    });
    (fake, wanted)
}

#[test]
fn a_package_with_another_name_here_is_refused_with_that_name() {
    let (fake, wanted) = renamed();
    let error = plan(&fake, &wanted, &BTreeMap::new()).expect_err("refused");
    assert_eq!(error.to_string(), "cannot plan `libssl3`: `libssl3` is `libssl3t64` here");
    assert_eq!(error.hint().as_deref(), Some("write `libssl3t64` in `packages:`"));
}

#[test]
fn what_an_installed_package_provides_is_there() {
    let (fake, wanted) = renamed();
    // Another package has brought it.
    fake.change_archive(|archive| archive.get_mut("curl").expect("asked for").depends = vec!["libssl3t64"]);
    apply(&fake, &plan_for(&fake, &support::wanted(RECIPE)));
    let plan = plan_for(&fake, &wanted);
    assert!(plan.is_empty(), "{plan:#?}");

    // With something to install beside it.
    let (fake, wanted) = renamed();
    let status = "/var/lib/dpkg/status";
    fake.put(status, &script("libssl3t64 1.0\n")).expect("written");
    let plan = plan_for(&fake, &wanted);
    let step = plan.steps.iter().find(|step| step.kind == "package").expect("it installs");
    assert!(!step.name.contains("libssl3"), "{step:#?}");
    assert!(matches!(apply(&fake, &plan), Outcome::Committed { .. }));
    assert!(plan_for(&fake, &wanted).is_empty());
    assert_eq!(History::new(&fake).drift().expect("readable"), []);
    // And when what provides it is gone, it is missing.
    let text = fake.text(status).replace("libssl3t64 1.0\n", "");
    fake.put(status, &script(&text)).expect("written");
    let drift = History::new(&fake).drift().expect("readable");
    assert!(format!("{drift:?}").contains("libssl3"), "{drift:?}");
}

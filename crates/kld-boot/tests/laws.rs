//! What must hold whatever happens: a machine that dies at any instant starts what it would have started before, or what
//! was asked for, on each of its boot partitions; and the command that died can be run again.

mod support;

use std::collections::BTreeSet;

use kld_boot::{
    Action, BootError, Keep, Looked, Maker, Origin, Plan, Starts, activate, carry_out, choose, claim,
    common_snapshot, create, export, file_changes, import, kernels, leftovers, look_into, outdated,
    plan_activate, plan_destroy, plan_export, plan_good, plan_import, plan_mount, plan_rename, plan_umount,
    unequal,
};
use support::{Cut, ESPS, Fake, mark_good};

type Begin = fn() -> Fake;
type Act = fn(&Fake) -> Result<(), BootError>;

fn name(text: &str) -> kld_boot::BootEnvironmentName {
    text.parse().expect("a name")
}

fn make(fake: &Fake, what: &str, from: &Origin) -> Result<(), BootError> {
    create(fake, &name(what), from, Maker::Person, &mut |_| ())
}

fn run(fake: &Fake, plan: &Plan) -> Result<(), BootError> {
    Ok(carry_out(fake, plan, &mut |_| ())?)
}

fn destroy(fake: &Fake, what: &str) -> Result<(), BootError> {
    run(fake, &plan_destroy(&Looked::before_change(fake)?, what)?)
}

fn clear(fake: &Fake) {
    let actions = leftovers(&Looked::before_change(fake).expect("readable")).actions;
    run(fake, &Plan { actions, ..Plan::default() }).expect("it is cleared");
    let again = leftovers(&Looked::at(fake).expect("readable"));
    assert_eq!(again.actions, [], "clearing clears all of it");
}

/// Debian, an upgraded clone with a kernel of its own, and a clone of the first that shares everything.
fn three() -> Fake {
    let fake = Fake::new();
    make(&fake, "upgraded", &Origin::Running).expect("made");
    fake.install_kernel("rpool/ROOT/upgraded", "6.12.2");
    fake.change(|state| {
        // As `kupgrade` will, and as an administrator does: the entry of the new kernel comes with it.
        state.disk.fat.retain(|path, _| !path.ends_with("upgraded.conf"));
    });
    fake.make_entry("rpool/ROOT/upgraded", "6.12.2");
    make(&fake, "spare", &Origin::Running).expect("made");
    fake
}

/// One boot partition was replaced by an empty one.
fn replaced() -> Fake {
    let fake = three();
    fake.change(|state| {
        let keep = |path: &str| {
            path.contains("systemd") || path.contains("debian.conf") || path.ends_with("loader.conf")
        };
        let needed: Vec<String> =
            state.disk.fat.keys().filter(|path| path.starts_with("/efi2/EFI/kldload")).cloned().collect();
        let of_debian = [b"kernel 6.12.1".to_vec(), "initrd 6.12.1".repeat(9).into_bytes()];
        for path in needed {
            if !of_debian.contains(&state.disk.fat[&path]) {
                state.disk.fat.remove(&path);
            }
        }
        state.disk.fat.retain(|path, _| !path.starts_with("/efi2/loader") || keep(path));
    });
    fake
}

/// What each boot partition starts.
fn starts(fake: &Fake) -> BTreeSet<String> {
    let disk = fake.disk();
    let start = |esp| disk.would_start(esp).unwrap_or_else(|error| panic!("{esp}: {error}\n{disk:#?}")).1;
    ESPS.map(start).into()
}

/// Kills `act` after each of its changes, in each way a file can be cut off; after each start, clears, and acts again.
fn dies_anywhere(what: &str, begin: Begin, act: Act, is_refused_when_done: bool) {
    let fake = begin();
    let before = starts(&fake);
    act(&fake).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let after = starts(&fake);
    let done = fake.disk();
    let mut deaths = 0;
    for cut in [Cut::Old, Cut::Empty, Cut::New] {
        for fuel in 0.. {
            let fake = begin();
            fake.die_after(fuel, cut);
            if act(&fake).is_ok() {
                break;
            }
            deaths += 1;
            let context = format!("{what}, dead after {fuel}, {cut:?}");
            for started in starts(&fake) {
                assert!(before.contains(&started) || after.contains(&started), "{context}: {started}");
            }
            fake.start().unwrap_or_else(|error| panic!("{context}: {error}"));
            // Before anybody has cleared anything, and after.
            starts(&fake);
            clear(&fake);
            let cleared = starts(&fake);
            assert!(
                cleared.iter().all(|of| before.contains(of) || after.contains(of)),
                "{context}: {cleared:?}"
            );
            match act(&fake) {
                Ok(()) => {}
                Err(BootError::Exists { .. } | BootError::NoSuch { .. }) if is_refused_when_done => {}
                Err(error) => panic!("{context}: {error:?}"),
            }
            let now = fake.disk();
            assert_eq!(starts(&fake), after, "{context}");
            let names = |disk: &support::Disk| disk.datasets.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&now), names(&done), "{context}");
            let origins = |disk: &support::Disk| disk.snapshots.len();
            assert_eq!(origins(&now), origins(&done), "{context}");
            let files = |disk: &support::Disk| disk.fat.keys().cloned().collect::<Vec<_>>();
            assert_eq!(files(&now), files(&done), "{context}");
            assert!(
                now.datasets.values().all(|of| !of.own.contains_key("org.kldload:kbe-state")),
                "{context}"
            );
        }
    }
    assert!(deaths >= 3, "{what} changes something: {deaths}");
}

#[test]
fn a_machine_that_dies_while_one_is_made_starts_as_before() {
    dies_anywhere("create", Fake::new, |fake| make(fake, "new", &Origin::Running), true);
    dies_anywhere("create from", three, |fake| make(fake, "new", &Origin::parse("upgraded")), true);
}

#[test]
fn without_a_default_the_one_that_runs_stays_the_one_that_starts() {
    let acts: [(&str, Begin, Act); 3] = [
        ("create", || Fake::new().without_default(), |fake| make(fake, "aaa", &Origin::Running)),
        ("import", || Fake::new().without_default(), |fake| import(fake, &name("aaa"), "/x", &mut |_| ())),
        (
            "rename",
            || {
                let fake = Fake::new();
                make(&fake, "spare", &Origin::Running).expect("made");
                fake.without_default()
            },
            |fake| run(fake, &plan_rename(&Looked::before_change(fake)?, "spare", &name("aaa"))?),
        ),
    ];
    for (what, begin, act) in acts {
        dies_anywhere(what, begin, act, true);
        let fake = begin();
        act(&fake).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(starts(&fake), ["rpool/ROOT/debian".to_owned()].into(), "{what}");
        let conf = String::from_utf8_lossy(&fake.disk().fat["/efi2/loader/loader.conf"]).into_owned();
        assert_eq!(conf, "timeout 3\neditor no\ndefault debian.conf\n", "{what}");
    }
}

#[test]
fn the_flavour_that_has_started_here_goes_before_a_longer_name() {
    let fake = Fake::new();
    for version in ["6.12.57+deb13-amd64", "6.12.57+deb13-cloud-amd64", "6.12.57+deb13-rt-amd64"] {
        fake.install_kernel("rpool/ROOT/debian", version);
    }
    for (like, best) in [
        ("6.12.48+deb13-amd64", "6.12.57+deb13-amd64"),
        ("6.12.48+deb13-rt-amd64", "6.12.57+deb13-rt-amd64"),
        ("6.1.0-40-cloud-amd64", "6.12.57+deb13-cloud-amd64"),
    ] {
        let found = kernels(&fake, "", Some(like)).expect("readable");
        assert_eq!((found[0].as_str(), found.len()), (best, 4), "{like}");
    }
}

#[test]
fn the_one_that_was_started_last_becomes_the_one_that_starts() {
    let acts: [(&str, Begin, Act); 3] = [
        (
            "create, by loader.conf",
            || Fake::new().with_saved_default(false),
            |fake| make(fake, "aaa", &Origin::Running),
        ),
        (
            "create, by the variable",
            || Fake::new().with_saved_default(true),
            |fake| make(fake, "aaa", &Origin::Running),
        ),
        // What runs was started once, and its very name was said.
        (
            "create, beside another",
            || {
                let fake = Fake::new();
                make(&fake, "spare", &Origin::Running).expect("made");
                let fake = fake.with_saved_default(false);
                activate(&fake, "spare", Starts::Once, &mut |_| ()).expect("activated");
                assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/spare"));
                fake
            },
            |fake| make(fake, "aaa", &Origin::Running),
        ),
    ];
    for (what, begin, act) in acts {
        dies_anywhere(what, begin, act, true);
        let fake = begin();
        act(&fake).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(starts(&fake), ["rpool/ROOT/debian".to_owned()].into(), "{what}");
        let disk = fake.disk();
        let conf = String::from_utf8_lossy(&disk.fat["/efi2/loader/loader.conf"]).into_owned();
        assert!(conf.contains("default debian.conf\n"), "{what}: {conf}");
        assert!(!disk.variables.contains_key("LoaderEntryDefault"), "{what}");
    }
}

#[test]
fn a_machine_that_dies_while_one_is_activated_starts_the_old_or_the_new() {
    dies_anywhere(
        "activate",
        three,
        |fake| activate(fake, "upgraded", Starts::Always, &mut |_| ()).map(drop),
        false,
    );
    dies_anywhere(
        "activate with a partition that lacks it",
        replaced,
        |fake| activate(fake, "upgraded", Starts::Always, &mut |_| ()).map(drop),
        false,
    );
}

#[test]
fn a_machine_that_dies_while_one_is_destroyed_or_renamed_starts_as_before() {
    dies_anywhere("destroy", three, |fake| destroy(fake, "upgraded"), true);
    let moved = || {
        let fake = three();
        activate(&fake, "upgraded", Starts::Always, &mut |_| ()).expect("activated");
        fake.start().expect("it starts");
        fake
    };
    dies_anywhere("destroy the origin of all", moved, |fake| destroy(fake, "debian"), true);
    let rename: Act = |fake| run(fake, &plan_rename(&Looked::before_change(fake)?, "spare", &name("kept"))?);
    dies_anywhere("rename", three, rename, true);
}

#[test]
fn once_is_once() {
    let fake = three();
    activate(&fake, "upgraded", Starts::Once, &mut |_| ()).expect("activated");
    let looked = Looked::at(&fake).expect("readable");
    assert_eq!(looked.once().map(|of| of.name()), Some("upgraded"));
    assert_eq!(looked.default_environment().map(|of| of.name()), Some("debian"));
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/upgraded"));
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/debian"));
    // Activating another takes back what was to start once.
    activate(&fake, "upgraded", Starts::Once, &mut |_| ()).expect("activated");
    activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/spare"));
    assert_eq!(fake.disk().bootfs, "rpool/ROOT/spare");
    assert!(activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated").actions.is_empty());
}

#[test]
fn what_an_activation_would_do_is_what_it_does() {
    let begin: [Begin; 3] = [three, replaced, || replaced().without_default()];
    for begin in begin {
        for (what, start) in [
            ("upgraded", Starts::Always),
            ("upgraded", Starts::Once),
            ("debian", Starts::Always),
            ("spare", Starts::Always),
        ] {
            let fake = begin();
            let before = fake.disk();
            let planned = plan_activate(&fake, what, start).expect("possible");
            assert_eq!(fake.disk(), before, "{what} {start:?}: nothing is changed");
            let done = activate(&fake, what, start, &mut |_| ()).expect("activated");
            assert_eq!(planned.actions, done.actions, "{what} {start:?}");
        }
    }
    // It starts next already, and not from every boot partition.
    let fake = three();
    fake.change(|state| state.disk.fat.retain(|path, _| path != "/efi2/loader/entries/debian.conf"));
    let planned = plan_activate(&fake, "debian", Starts::Always).expect("possible");
    assert_eq!(planned.to_string(), "  write /efi2/loader/entries/debian.conf\n");
}

#[test]
fn the_last_that_was_well_is_the_way_back() {
    let fake = three();
    let before = fake.disk();
    let (plan, name) = plan_good(&fake).expect("possible");
    assert_eq!(
        (plan.to_string().as_str(), name.as_str()),
        ("  remember that rpool/ROOT/debian is well\n", "debian")
    );
    assert_eq!(fake.disk(), before, "nothing is changed");
    assert_eq!(mark_good(&fake).expect("remembered"), "debian");
    assert_eq!(mark_good(&fake).expect("remembered"), "debian");
    let good = |fake: &Fake| {
        let looked = Looked::at(fake).expect("readable");
        let boots = looked.environment("debian").expect("there").good.as_ref().map(|good| good.boots);
        (looked.last_good().expect("there is one").name().to_owned(), boots)
    };
    assert_eq!(good(&fake), ("debian".to_owned(), Some(1)));
    activate(&fake, "upgraded", Starts::Always, &mut |_| ()).expect("activated");
    fake.start().expect("it starts");
    // It runs, and nobody has said yet that it is well.
    let error = destroy(&fake, "debian").expect_err("it is the way back").to_string();
    assert_eq!(error, "`debian` stays as it is: it is the last one that was well");
    mark_good(&fake).expect("remembered");
    assert_eq!(good(&fake), ("upgraded".to_owned(), Some(1)));
    destroy(&fake, "debian").expect("destroyed");
}

#[test]
fn a_variable_that_goes_before_the_file_is_believed_and_taken_away() {
    let fake = three();
    fake.change(|state| {
        state.disk.variables.insert("LoaderEntryDefault".to_owned(), "spare.conf".to_owned());
    });
    let looked = Looked::at(&fake).expect("readable");
    assert_eq!(looked.default_environment().map(|of| of.name()), Some("spare"));
    assert!(matches!(destroy(&fake, "spare"), Err(BootError::Protected { .. })));
    activate(&fake, "debian", Starts::Always, &mut |_| ()).expect("activated");
    assert!(!fake.disk().variables.contains_key("LoaderEntryDefault"));
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/debian"));
}

#[test]
fn a_clone_has_its_origins_properties_and_an_entry_of_its_own() {
    let fake = Fake::new();
    make(&fake, "New", &Origin::Running).expect("made");
    let disk = fake.disk();
    let own: Vec<String> =
        disk.datasets["rpool/ROOT/New"].own.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(own, ["canmount=noauto", "mountpoint=/", "org.me:note=two words"]);
    let entry = String::from_utf8_lossy(&disk.fat["/efi2/loader/entries/new.conf"]).into_owned();
    for part in ["title Debian, New\n", "sort-key new\n", "spl.spl_hostid=0x12", "root=ZFS=rpool/ROOT/New"] {
        assert!(entry.contains(part), "{part}: {entry}");
    }
    // A clone of the clone does not carry both names.
    make(&fake, "newer", &Origin::parse("New")).expect("made");
    let entry = String::from_utf8_lossy(&fake.disk().fat["/efi/loader/entries/newer.conf"]).into_owned();
    assert!(entry.contains("title Debian, newer\n"), "{entry}");
    // The kernel is there once on each.
    let kernels = fake.disk().fat.keys().filter(|path| path.ends_with("/linux")).count();
    assert_eq!(kernels, 2);
}

#[test]
fn a_kernel_goes_with_the_last_entry_that_needs_it() {
    let fake = three();
    let kernels = |fake: &Fake| fake.disk().fat.keys().filter(|path| path.contains("/EFI/kldload/")).count();
    assert_eq!(kernels(&fake), 8);
    destroy(&fake, "upgraded").expect("destroyed");
    assert_eq!(kernels(&fake), 4);
    destroy(&fake, "spare").expect("destroyed");
    assert_eq!(kernels(&fake), 4, "debian needs it");
    assert!(fake.disk().snapshots.is_empty(), "the snapshots were taken for them");
}

#[test]
fn a_full_boot_partition_is_foreseen() {
    let fake = Fake::new();
    make(&fake, "old", &Origin::Running).expect("made");
    fake.install_kernel("rpool/ROOT/old", "6.12.2");
    fake.change(|state| {
        state.disk.fat.retain(|path, _| !path.ends_with("old.conf"));
    });
    fake.make_entry("rpool/ROOT/old", "6.12.2");
    fake.change(|state| {
        let files = &mut state.disk.datasets.get_mut("rpool/ROOT/debian").expect("it is there").files;
        files.insert("/boot/initrd.img-6.12.1".to_owned(), vec![7; 6 << 20]);
        state.disk.fat.insert("/efi2/other".to_owned(), vec![0; 5 << 20]);
    });
    let before = fake.disk();
    let error = make(&fake, "new", &Origin::Running).expect_err("there is no room");
    let BootError::Full { mount, would_free, .. } = &error else { panic!("{error:?}") };
    assert_eq!((mount.as_str(), would_free[0].0.as_str()), ("/efi2", "old"));
    assert_eq!(fake.disk(), before, "nothing is left of it");
    assert_eq!(error.to_string(), "`/efi2` has 5.00M free and 7.25M are needed");
    assert!(error.hint().expect("a hint").contains("old ("), "{:?}", error.hint());
}

#[test]
fn what_must_stay_stays() {
    let fake = three();
    let refusal = |what: &str| destroy(&fake, what).expect_err("it stays").to_string();
    assert_eq!(refusal("debian"), "`debian` stays as it is: it is running");
    activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(refusal("spare"), "`spare` stays as it is: it starts next");
    activate(&fake, "upgraded", Starts::Once, &mut |_| ()).expect("activated");
    assert_eq!(refusal("upgraded"), "`upgraded` stays as it is: it starts next, once");
    assert_eq!(refusal("nosuch"), "there is no boot environment `nosuch`");
    let fake = three();
    fake.change(|state| {
        let own = &mut state.disk.datasets.get_mut("rpool/ROOT/spare").expect("it is there").own;
        own.insert("org.kldload:kbe-good".to_owned(), "5 1 id".to_owned());
        state.mounts.push(("rpool/ROOT/upgraded".to_owned(), "/mnt".to_owned()));
    });
    let refusal = |what: &str| destroy(&fake, what).expect_err("it stays").to_string();
    assert_eq!(refusal("spare"), "`spare` stays as it is: it is the last one that was well");
    assert_eq!(refusal("upgraded"), "`upgraded` stays as it is: it is mounted at `/mnt`");
    for error in [destroy(&fake, "spare"), destroy(&fake, "nosuch")] {
        assert!(error.expect_err("refused").hint().is_some());
    }
}

#[test]
fn what_is_no_environment_of_ours_is_never_taken_along() {
    let fake = three();
    fake.change(|state| {
        let origin = state.disk.snapshots.keys().next().expect("there is one").clone();
        let clone = support::Dataset { origin: Some(origin), ..Default::default() };
        state.disk.datasets.insert("rpool/test".to_owned(), clone);
    });
    activate(&fake, "upgraded", Starts::Always, &mut |_| ()).expect("activated");
    fake.start().expect("it starts");
    // The fake names clones wherever they are, as ZFS does.
    let error = destroy(&fake, "debian").expect_err("`rpool/test` was made from it");
    assert!(error.to_string().starts_with("`rpool/test` was made from"), "{error}");
    fake.change(|state| {
        state.disk.datasets.remove("rpool/test");
        let held = state.disk.snapshots.values_mut().next().expect("there is one");
        held.holds = 1;
    });
    let looked = Looked::at(&fake).expect("readable");
    let held = looked.environments.iter().flat_map(|of| &of.snapshots).find(|of| of.holds > 0).expect("held");
    let owner = held.made_for.clone().expect("made for one");
    let plan = plan_destroy(&looked, if owner == "spare" { "spare" } else { "debian" }).expect("possible");
    assert!(!plan.to_string().contains(&format!("destroy {}", held.name)), "{plan}");
}

#[test]
fn what_lies_below_an_environment_is_never_destroyed_with_it() {
    // One was renamed into its place and is older than the environment, one is a volume.
    for (child, txg, is_volume) in [("rpool/ROOT/spare/var", 0, false), ("rpool/ROOT/spare/swap", 99, true)] {
        let fake = three();
        fake.change(|state| {
            let below = support::Dataset { txg, is_volume, ..Default::default() };
            state.disk.datasets.insert(child.to_owned(), below);
        });
        let error = destroy(&fake, "spare").expect_err("it is not one dataset");
        assert_eq!(error.to_string(), format!("`spare` has datasets below it (`{child}`)"));
        let chosen = choose(&Looked::at(&fake).expect("readable"), Keep::Newest(0));
        assert!(chosen.iter().all(|of| of.name != "spare"), "{chosen:?}");
        // Nor where it looks as though somebody had begun to make or destroy it.
        for state_of in ["making", "leaving"] {
            fake.change(|state| {
                state.disk.fat.retain(|path, _| !path.ends_with("spare.conf"));
                let own = &mut state.disk.datasets.get_mut("rpool/ROOT/spare").expect("it is there").own;
                own.insert("org.kldload:kbe-state".to_owned(), state_of.to_owned());
            });
            clear(&fake);
            assert!(fake.disk().datasets.contains_key(child), "{child} {state_of}");
        }
    }
    let fake = three();
    fake.change(|state| {
        let volume = support::Dataset { is_volume: true, ..Default::default() };
        state.disk.datasets.insert("rpool/ROOT/swap".to_owned(), volume);
    });
    let error = make(&fake, "swap", &Origin::Running).expect_err("its name is taken");
    assert!(matches!(error, BootError::Exists { .. }), "{error:?}");
}

#[test]
fn an_environment_that_the_loader_never_starts_is_not_activated() {
    // Somebody has made one by hand, or an older kbe has.
    let fake = three();
    run(
        &fake,
        &plan_rename(&Looked::at(&fake).expect("readable"), "spare", &name("kept")).expect("possible"),
    )
    .expect("renamed");
    fake.change(|state| {
        let kept = state.disk.datasets.remove("rpool/ROOT/kept").expect("it is there");
        state.disk.datasets.insert("rpool/ROOT/Auto-kept".to_owned(), kept);
        for esp in ESPS {
            let entry =
                state.disk.fat.remove(&format!("{esp}/loader/entries/kept.conf")).expect("it has one");
            let entry = String::from_utf8_lossy(&entry).replace("ROOT/kept", "ROOT/Auto-kept");
            state.disk.fat.insert(format!("{esp}/loader/entries/auto-kept.conf"), entry.into_bytes());
        }
    });
    let refused = activate(&fake, "Auto-kept", Starts::Always, &mut |_| ()).expect_err("it would not start");
    assert!(refused.to_string().contains("passes over"), "{refused}");
    assert_eq!(starts(&fake), ["rpool/ROOT/debian".to_owned()].into());
    // Under another name it does.
    let rename = plan_rename(&Looked::at(&fake).expect("readable"), "Auto-kept", &name("kept"));
    run(&fake, &rename.expect("possible")).expect("renamed");
    activate(&fake, "kept", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/kept"));
}

#[test]
fn pruning_takes_the_oldest_and_leaves_what_must_stay() {
    let fake = Fake::new();
    for number in 0..6 {
        make(&fake, &format!("n{number}"), &Origin::Running).expect("made");
    }
    activate(&fake, "n1", Starts::Always, &mut |_| ()).expect("activated");
    let looked = Looked::at(&fake).expect("readable");
    let chosen = |keep| choose(&looked, keep).into_iter().map(|of| of.name).collect::<Vec<_>>();
    assert_eq!(chosen(Keep::Newest(4)), ["n0", "n2", "n3"]);
    assert_eq!(chosen(Keep::Newest(7)), [] as [&str; 0]);
    assert_eq!(chosen(Keep::Newest(0)), ["n0", "n2", "n3", "n4", "n5"]);
    assert_eq!(chosen(Keep::Free(50_000)), [] as [&str; 0]);
    assert_eq!(chosen(Keep::Free(55_000)), ["n0", "n2"]);
    for name in chosen(Keep::Newest(0)) {
        destroy(&fake, &name).expect("destroyed");
        starts(&fake);
    }
    assert_eq!(Looked::at(&fake).expect("readable").environments.len(), 2);
}

#[test]
fn of_those_that_applies_made_the_oldest_go_and_none_of_a_persons() {
    let fake = Fake::new();
    make(&fake, "mine", &Origin::Running).expect("made");
    let names = ["a1", "a2", "a3", "a4", "a5", "a6"];
    for of in names {
        create(&fake, &name(of), &Origin::Running, Maker::Apply, &mut |_| ()).expect("made");
    }
    let old = |keep| {
        let looked = Looked::at(&fake).expect("readable");
        outdated(&looked, keep).into_iter().map(|of| of.name).collect::<Vec<_>>()
    };
    assert_eq!(old(2), ["a1", "a2", "a3", "a4"]);
    assert_eq!(old(9), [] as [&str; 0]);
    // A clone of one that a person makes is the person's.
    make(&fake, "copy", &Origin::parse("a1")).expect("made");
    // Whoever activates or renames one, or starts it from the menu, wants it.
    activate(&fake, "a2", Starts::Always, &mut |_| ()).expect("activated");
    activate(&fake, "debian", Starts::Always, &mut |_| ()).expect("activated");
    let rename = plan_rename(&Looked::at(&fake).expect("readable"), "a3", &name("kept")).expect("possible");
    run(&fake, &rename).expect("renamed");
    claim(&fake, "rpool/ROOT/a4").expect("remembered");
    // One is merely to be tried; until then it starts next.
    activate(&fake, "a5", Starts::Once, &mut |_| ()).expect("activated");
    assert_eq!(old(0), ["a1", "a6"]);
    for of in old(0) {
        destroy(&fake, &of).expect("destroyed");
    }
    assert_eq!(old(0), [] as [&str; 0]);
    starts(&fake);
}

#[test]
fn other_loaders_are_named() {
    for (loader, files, want) in [
        ("GRUB 2.12", vec![], "GRUB 2.12"),
        ("", vec!["/boot/grub/grub.cfg"], "GRUB (`/boot/grub/grub.cfg`)"),
        ("", vec!["/etc/zfsbootmenu/config.yaml"], "ZFSBootMenu (`/etc/zfsbootmenu/config.yaml`)"),
    ] {
        let fake = Fake::new();
        fake.change(|state| {
            state.disk.fat.retain(|path, _| !path.contains("/loader/"));
            state.disk.variables.clear();
            if !loader.is_empty() {
                state.disk.variables.insert("LoaderInfo".to_owned(), loader.to_owned());
            }
            for file in files {
                let root = state.disk.datasets.get_mut("rpool/ROOT/debian").expect("it is there");
                root.files.insert(file.to_owned(), b"x".to_vec());
            }
        });
        let error = Looked::at(&fake).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("this machine is not started by boot entries of systemd-boot, but by {want}")
        );
        assert!(error.hint().is_some());
    }
    let fake = Fake::new();
    fake.change(|state| state.disk.fat.retain(|path, _| !path.contains("/EFI/systemd/")));
    assert!(matches!(Looked::at(&fake), Err(BootError::LoaderElsewhere { .. })));
}

#[test]
fn a_machine_that_dies_while_one_is_imported_or_exported_starts_as_before() {
    dies_anywhere("import", three, |fake| import(fake, &name("new"), "/x", &mut |_| ()), true);
    let fake = three();
    import(&fake, &name("New"), "/x", &mut |_| ()).expect("imported");
    let entry = String::from_utf8_lossy(&fake.disk().fat["/efi/loader/entries/new.conf"]).into_owned();
    for part in ["title Debian, New\n", "version 6.12.9\n", "root=ZFS=rpool/ROOT/New"] {
        assert!(entry.contains(part), "{part}: {entry}");
    }
    activate(&fake, "New", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(fake.start().as_deref(), Ok("rpool/ROOT/New"));
    assert!(matches!(import(&fake, &name("spare"), "/x", &mut |_| ()), Err(BootError::Exists { .. })));

    let fake = three();
    let before = fake.disk();
    let mut sent = String::new();
    let send = |cmd: &kld_host::Cmd| -> Result<(), BootError> {
        sent = cmd.to_string();
        Ok(())
    };
    export(&fake, "upgraded", send).expect("exported");
    assert!(sent.starts_with("zfs send -Lec rpool/ROOT/upgraded@export-"), "{sent}");
    assert_eq!(fake.disk().snapshots, before.snapshots, "the snapshot is gone");
    let fails = |_: &kld_host::Cmd| Err(BootError::NotMounted { name: "x".to_owned() });
    export(&fake, "upgraded", fails).expect_err("it says what was wrong");
    assert_eq!(fake.disk().snapshots, before.snapshots, "the snapshot is gone");
    // Killed while it was sent.
    fake.die_after(1, Cut::Old);
    export(&fake, "upgraded", |_| Ok::<(), BootError>(())).expect_err("dead");
    fake.start().expect("it starts");
    clear(&fake);
    assert_eq!(fake.disk().snapshots, before.snapshots, "it is cleared");
}

#[test]
fn what_a_stream_would_do_is_what_it_does() {
    let fake = three();
    let before = fake.disk();
    let taken = plan_import(&fake, &name("new"), "/x").expect("possible").actions;
    let sent = plan_export(&fake, "upgraded").expect("possible").actions;
    assert_eq!(fake.disk(), before, "nothing is changed");
    let mut done = Vec::new();
    import(&fake, &name("new"), "/x", &mut |action| done.push(action.clone())).expect("imported");
    // All but what only the stream tells: its kernel, and the entry that names it.
    done.retain(|action| taken.contains(action));
    assert_eq!(done, taken);
    let mut during = before.snapshots.clone();
    let send = |_: &kld_host::Cmd| -> Result<(), BootError> {
        during = fake.disk().snapshots;
        Ok(())
    };
    export(&fake, "upgraded", send).expect("exported");
    let [Action::Snapshot { snapshot, .. }, Action::DestroySnapshot { snapshot: gone }] = &sent[..] else {
        panic!("{sent:?}")
    };
    // Its name has the second in which it is taken.
    let is_sent = |name: &String| name.starts_with("rpool/ROOT/upgraded@export-");
    assert!(snapshot == gone && is_sent(snapshot), "{sent:?}");
    assert_eq!(during.keys().filter(|name| is_sent(name)).count(), 1);
}

#[test]
fn who_looks_into_one_is_shown_where_first() {
    let fake = three();
    let before = fake.disk();
    let (plan, place) = plan_mount(&fake, "spare", None).expect("possible");
    assert_eq!(
        (plan.to_string().as_str(), place.as_str()),
        ("  mount rpool/ROOT/spare at /run/kbe/spare\n", "/run/kbe/spare")
    );
    assert!(matches!(plan_umount(&fake, "spare"), Err(BootError::NotMounted { .. })));
    assert_eq!(fake.disk(), before, "nothing is changed");
    run(&fake, &plan).expect("mounted");
    // Once more changes nothing, and elsewhere it cannot be.
    assert_eq!(plan_mount(&fake, "spare", None).expect("possible"), (Plan::default(), place));
    assert!(matches!(plan_mount(&fake, "spare", Some("/mnt")), Err(BootError::Protected { .. })));
    assert!(matches!(destroy(&fake, "spare"), Err(BootError::Protected { .. })));
    let plan = plan_umount(&fake, "spare").expect("possible");
    assert_eq!(plan.to_string(), "  unmount /run/kbe/spare\n");
    run(&fake, &plan).expect("unmounted");
    destroy(&fake, "spare").expect("destroyed");
    for refused in [plan_mount(&fake, "debian", None).map(drop), plan_umount(&fake, "debian").map(drop)] {
        assert!(matches!(refused, Err(BootError::Protected { .. })), "{refused:?}");
    }
}

#[test]
fn an_environment_is_mounted_whoever_mounts_it_otherwise() {
    for point in ["/", "none", "legacy"] {
        let fake = replaced();
        fake.change(|state| {
            let own = &mut state.disk.datasets.get_mut("rpool/ROOT/spare").expect("there").own;
            own.insert("mountpoint".to_owned(), point.to_owned());
        });
        let (plan, _) = plan_mount(&fake, "spare", None).expect("possible");
        run(&fake, &plan).unwrap_or_else(|error| panic!("{point}: {error:?}"));
        run(&fake, &plan_umount(&fake, "spare").expect("possible")).expect("unmounted");
        let look = |_: &kld_boot::Environment, at: &str| Ok::<_, BootError>(at.to_owned());
        let seen = look_into(&fake, "spare", look).unwrap_or_else(|error| panic!("{point}: {error:?}"));
        assert_eq!(seen, "/run/kbe/.source");
        // A boot partition lacks its kernel, which is in it.
        activate(&fake, "spare", Starts::Always, &mut |_| ())
            .unwrap_or_else(|error| panic!("{point}: {error:?}"));
        assert_eq!(starts(&fake), ["rpool/ROOT/spare".to_owned()].into());
    }
}

/// What was left goes first, then the boot partitions are looked at again.
fn equalize(fake: &Fake) -> Result<(), BootError> {
    let actions = leftovers(&Looked::before_change(fake)?).actions;
    run(fake, &Plan { actions, ..Plan::default() })?;
    let actions = unequal(&Looked::at(fake)?).actions;
    run(fake, &Plan { actions, ..Plan::default() })
}

/// What is said to be mended, what is not, and how many actions mend it.
fn differences(fake: &Fake) -> (Vec<String>, Vec<String>, usize) {
    let found = unequal(&Looked::at(fake).expect("readable"));
    (found.mended, found.stays, found.actions.len())
}

fn assert_equal(fake: &Fake) {
    assert_eq!(differences(fake), (vec![], vec![], 0));
    assert_eq!(leftovers(&Looked::at(fake).expect("readable")).actions, []);
}

/// Otherwise the machine has lost its environments with the first disk.
#[test]
fn a_boot_partition_that_was_replaced_gets_what_it_lacks() {
    dies_anywhere("equalize", replaced, equalize, false);
    let fake = replaced();
    let (mended, stays, _) = differences(&fake);
    assert_eq!(mended, ["`/efi2` does not start `upgraded`", "`/efi2` does not start `spare`"]);
    assert_eq!(stays, [""; 0]);
    equalize(&fake).expect("brought");
    let looked = Looked::at(&fake).expect("readable");
    for (environment, esp) in
        looked.environments.iter().flat_map(|of| looked.partitions.iter().map(move |esp| (of, esp)))
    {
        let mut entries = esp.entries_of(&environment.dataset);
        assert!(entries.any(|entry| esp.is_complete(entry)), "{} on {}", environment.name(), esp.mount);
    }
    assert_equal(&fake);
    // Where there is no room, that is said, and nothing is begun.
    let fake = replaced();
    fake.change(|state| state.capacity = 64 << 10);
    let (mended, stays, actions) = differences(&fake);
    let full = |name: &str| format!("`/efi2` does not start `{name}`: there is no room for it");
    assert_eq!((mended, stays, actions), (vec![], vec![full("upgraded"), full("spare")], 0));
}

/// A partition that has only the loader, and room for one kernel beside the one that runs.
#[test]
fn what_starts_next_is_brought_before_what_nobody_waits_for() {
    let fake = three();
    fake.install_kernel("rpool/ROOT/spare", "6.12.3");
    fake.change(|state| state.disk.fat.retain(|path, _| !path.ends_with("spare.conf")));
    fake.make_entry("rpool/ROOT/spare", "6.12.3");
    activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated");
    let room_for = |kernels: u64| {
        fake.change(|state| {
            state.disk.fat.retain(|path, _| !path.starts_with("/efi2/") || path.contains("systemd"));
            state.disk.fat.insert("/efi2/loader/entries/.keep".to_owned(), Vec::new());
            let all: u64 = state.disk.fat.values().map(|bytes| bytes.len() as u64).sum();
            // A file takes 128 KiB more than it has, and 1 MiB stays free.
            state.capacity = all.max((1 << 20) + kernels * (3 * (128 << 10) + 1024));
        });
        unequal(&Looked::at(&fake).expect("readable"))
    };
    let brought = |of: &kld_boot::Unequal| {
        of.mended.iter().map(|of| of.replace("`/efi2` does not start ", "")).collect::<Vec<_>>()
    };
    assert_eq!(brought(&room_for(1)), ["`spare`", "the default of `/efi2` is not `spare.conf`"]);
    assert_eq!(brought(&room_for(2)), ["`spare`", "`debian`", "the default of `/efi2` is not `spare.conf`"]);
    let found = room_for(2);
    assert_eq!(found.stays, ["`/efi2` does not start `upgraded`: there is no room for it"]);
    run(&fake, &Plan { actions: found.actions, ..Plan::default() }).expect("brought");
    assert_eq!(starts(&fake), ["rpool/ROOT/spare".to_owned()].into());
    // What starts next has no room, and another that starts has.
    fake.change(|state| {
        let files = &mut state.disk.fat;
        let spare = files.iter().filter(|(path, bytes)| {
            path.starts_with("/efi/") && String::from_utf8_lossy(bytes).contains("initrd 6.12.3")
        });
        let spare: Vec<String> = spare.map(|(path, _)| path.clone()).collect();
        files.insert(spare[0].clone(), vec![7; 200 << 10]);
    });
    let found = room_for(1);
    assert_eq!(brought(&found), ["`debian`"]);
    let conf = "default debian.conf\n".to_owned();
    assert!(
        found.actions.contains(&Action::Write { path: "/efi2/loader/loader.conf".to_owned(), text: conf })
    );
}

/// Two installations, each with a boot partition of its own that the other one sees, and an entry of the same name.
fn two_installations(file: &str) -> Fake {
    let fake = Fake::new();
    fake.change(|state| {
        let fat = &mut state.disk.fat;
        fat.retain(|path, _| !path.starts_with("/efi2/EFI/kldload") && path != "/efi2/loader/entries/debian.conf");
        let entry = "title Debian\nlinux /EFI/kldload/other/linux\ninitrd /EFI/kldload/other/initrd\noptions root=ZFS=tank/ROOT/debian\n";
        fat.insert(format!("/efi2/loader/entries/{file}"), entry.as_bytes().to_vec());
        for name in ["linux", "initrd"] {
            fat.insert(format!("/efi2/EFI/kldload/other/{name}"), b"another kernel".to_vec());
        }
    });
    fake
}

#[test]
fn what_starts_another_system_is_never_replaced() {
    for file in ["debian.conf", "Debian.conf"] {
        let fake = two_installations(file);
        let others = |fake: &Fake| {
            let files = fake.disk().fat.into_iter();
            let is_others = |path: &str| {
                path.contains("/EFI/kldload/other/") || path.ends_with(&format!("efi2/loader/entries/{file}"))
            };
            files.filter(|(path, _)| is_others(path)).collect::<Vec<_>>()
        };
        let before = others(&fake);
        assert_eq!(before.len(), 3);
        assert_eq!(leftovers(&Looked::at(&fake).expect("readable")).actions, []);
        let said = format!(
            "`/efi2` does not start `debian`: `/efi2/loader/entries/{file}` belongs to something else"
        );
        assert_eq!(differences(&fake), (vec![], vec![said], 0));
        make(&fake, "new", &Origin::Running).expect("made");
        equalize(&fake).expect("nothing to do");
        let refused = activate(&fake, "debian", Starts::Always, &mut |_| ());
        assert!(matches!(refused, Err(BootError::EntryTaken { .. })), "{refused:?}");
        assert_eq!(others(&fake), before);
        // It is told to start by itself, and goes on.
        let fake = two_installations("other.conf");
        say_on(&fake, "/efi2", "default other.conf\n");
        equalize(&fake).expect("brought");
        assert!(fake.disk().fat.contains_key("/efi2/loader/entries/debian.conf"));
        assert_eq!(fake.disk().fat["/efi2/loader/loader.conf"], b"default other.conf\n");
        // A kernel that is not named by its content.
        let fake = two_installations("other.conf");
        fake.change(|state| {
            for esp in ESPS {
                let entry = if esp == "/efi" { "debian" } else { "other" };
                let path = format!("{esp}/loader/entries/{entry}.conf");
                let text = String::from_utf8_lossy(&state.disk.fat[&path]).into_owned();
                let lines =
                    text.lines().map(|line| if line.starts_with("linux ") { "linux /vmlinuz" } else { line });
                let text = lines.collect::<Vec<_>>().join("\n");
                state.disk.fat.insert(path, text.into_bytes());
                state.disk.fat.insert(format!("{esp}/vmlinuz"), esp.as_bytes().to_vec());
            }
        });
        let said = "`/efi2` does not start `debian`: `/efi2/vmlinuz` belongs to something else".to_owned();
        assert_eq!(differences(&fake), (vec![], vec![said], 0));
    }
}

#[test]
fn what_else_is_mounted_is_another_machines() {
    let fake = Fake::new();
    fake.change(|state| {
        let fat = &mut state.disk.fat;
        let entry = "linux /EFI/kldload/other/linux\noptions root=ZFS=rpool/ROOT/theirs\n";
        fat.insert("/mnt/loader/entries/theirs.conf".to_owned(), entry.as_bytes().to_vec());
        fat.insert("/mnt/EFI/systemd/systemd-bootx64.efi".to_owned(), b"loader".to_vec());
        fat.insert("/mnt/EFI/kldload/lost/linux".to_owned(), b"kernel".to_vec());
        state.also.push(("vfat", "/mnt"));
    });
    let mounts = |fake: &Fake| {
        let looked = Looked::at(fake).expect("readable");
        assert_eq!(looked.notes, [""; 0], "it is no fault of the machine");
        looked.partitions.iter().map(|esp| esp.mount.clone()).collect::<Vec<_>>()
    };
    assert_eq!(mounts(&fake), ESPS);
    assert_equal(&fake);
    // What systemd mounts by itself, or an installer, is the machine's.
    for place in ["/boot", "/boot/efi"] {
        fake.change(|state| {
            state.disk.fat = std::mem::take(&mut state.disk.fat)
                .into_iter()
                .map(|(path, bytes)| {
                    (path.strip_prefix("/mnt").map_or(path.clone(), |rest| format!("{place}{rest}")), bytes)
                })
                .collect();
            state.also = vec![("autofs", place), ("vfat", place)];
        });
        assert_eq!(mounts(&fake), [place, "/efi", "/efi2"]);
        fake.change(|state| {
            state.disk.fat = std::mem::take(&mut state.disk.fat)
                .into_iter()
                .map(|(path, bytes)| {
                    (path.strip_prefix(place).map_or(path.clone(), |rest| format!("/mnt{rest}")), bytes)
                })
                .collect();
        });
    }
    // A machine whose own one nobody has named is told so.
    fake.change(|state| {
        state.disk.fat.retain(|path, _| path.starts_with("/mnt"));
        state.also = vec![("vfat", "/mnt")];
    });
    let refused = Looked::at(&fake).expect_err("there is none").to_string();
    assert!(refused.contains("`/mnt` holds boot entries, and is not in `/etc/fstab`"), "{refused}");
}

/// Makes `loader.conf` of a boot partition say this.
fn say_on(fake: &Fake, esp: &str, conf: &str) {
    fake.change(|state| {
        state.disk.fat.insert(format!("{esp}/loader/loader.conf"), conf.as_bytes().to_vec());
    });
}

/// `spare` starts next, and one boot partition does not know. Its menu begins with another one.
fn away_while_activated(conf: &str) -> Fake {
    let fake = three();
    make(&fake, "aaa", &Origin::Running).expect("made");
    activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated");
    say_on(&fake, "/efi2", conf);
    fake
}

#[test]
fn every_boot_partition_has_the_machines_default() {
    let begins: [Begin; 4] = [
        || away_while_activated("timeout 3\ndefault debian.conf\n"),
        || away_while_activated("timeout 3\n"),
        || away_while_activated("timeout 3\ndefault gone.conf\n"),
        // The first one was replaced.
        || {
            let fake = away_while_activated("timeout 3\ndefault spare.conf\n");
            say_on(&fake, "/efi", "#timeout 3\n");
            fake
        },
    ];
    for begin in begins {
        let fake = begin();
        let looked = Looked::at(&fake).expect("readable");
        assert_eq!(looked.default_environment().map(|of| of.name()), Some("spare"));
        let (mended, stays, _) = differences(&fake);
        assert!(mended.len() == 1 && mended[0].contains(" is not `spare.conf`"), "{mended:?}");
        assert_eq!(stays, [""; 0]);
        assert_eq!(leftovers(&looked).actions, [], "that is nothing that was left");
        dies_anywhere("default", begin, equalize, false);
        equalize(&fake).expect("mended");
        assert_eq!(starts(&fake), ["rpool/ROOT/spare".to_owned()].into());
        assert!(!fake.disk().variables.contains_key("LoaderEntryDefault"));
        assert_equal(&fake);
    }
    // One that lacks it gets it, and not what runs; nothing else starts on the way.
    let begins: [Begin; 2] = [
        || {
            let fake = replaced();
            make(&fake, "aaa", &Origin::Running).expect("made");
            fake.change(|state| state.disk.fat.retain(|path, _| path != "/efi2/loader/entries/aaa.conf"));
            say_on(&fake, "/efi", "default spare.conf\n");
            say_on(&fake, "/efi2", "timeout 3\n");
            fake
        },
        || {
            let fake = away_while_activated("default debian.conf\n");
            fake.change(|state| state.disk.fat.retain(|path, _| path != "/efi2/loader/entries/spare.conf"));
            fake
        },
    ];
    for begin in begins {
        dies_anywhere("default that is not there", begin, equalize, false);
        let fake = begin();
        equalize(&fake).expect("mended");
        assert_eq!(starts(&fake), ["rpool/ROOT/spare".to_owned()].into());
    }
}

#[test]
fn what_an_entry_needs_or_will_need_is_no_leftover() {
    // An entry is lost, and what it booted from is there.
    let fake = three();
    fake.change(|state| state.disk.fat.retain(|path, _| path != "/efi2/loader/entries/upgraded.conf"));
    assert_eq!(leftovers(&Looked::at(&fake).expect("readable")).actions, []);
    assert_eq!(differences(&fake), (vec!["`/efi2` does not start `upgraded`".to_owned()], vec![], 1));
    equalize(&fake).expect("brought");
    assert_equal(&fake);
    // An entry lacks a file, and will be another.
    let fake = three();
    fake.change(|state| {
        let fat = &mut state.disk.fat;
        let entry = String::from_utf8_lossy(&fat["/efi2/loader/entries/spare.conf"]).into_owned();
        let lines = entry.lines().map(|line| match line.split_once(' ') {
            Some(("linux", _)) => "linux /EFI/kldload/old/linux",
            Some(("initrd", _)) => "initrd /EFI/kldload/old/initrd",
            _ => line,
        });
        let entry = lines.collect::<Vec<_>>().join("\n");
        fat.insert("/efi2/loader/entries/spare.conf".to_owned(), entry.into_bytes());
        fat.insert("/efi2/EFI/kldload/old/linux".to_owned(), b"old".to_vec());
    });
    assert_eq!(leftovers(&Looked::at(&fake).expect("readable")).actions, []);
    equalize(&fake).expect("brought");
    clear(&fake);
    assert_equal(&fake);
    assert!(!fake.disk().fat.contains_key("/efi2/EFI/kldload/old/linux"));
}

#[test]
fn a_default_is_brought_as_it_was_said() {
    // What was started last, by `loader.conf`.
    let fake = Fake::new().with_saved_default(false);
    say_on(&fake, "/efi2", "timeout 3\n");
    equalize(&fake).expect("mended");
    assert_eq!(fake.disk().fat["/efi2/loader/loader.conf"], b"timeout 3\ndefault @saved\n");
    assert_equal(&fake);
    // A variable goes before what `loader.conf` says, and a person has set it.
    for variable in ["spare.conf", "@saved"] {
        let fake = three();
        fake.change(|state| {
            state.disk.variables.insert("LoaderEntryDefault".to_owned(), variable.to_owned());
            state.disk.variables.insert("LoaderEntryLastBooted".to_owned(), "spare.conf".to_owned());
        });
        assert_equal(&fake);
    }
    // Nobody has named one: none is missing.
    assert_equal(&three().without_default());
}

#[test]
fn entries_that_boot_something_else_are_named_and_left() {
    let fake = three();
    fake.change(|state| {
        let upgraded =
            String::from_utf8_lossy(&state.disk.fat["/efi2/loader/entries/upgraded.conf"]).into_owned();
        let stale = upgraded.replace("ROOT/upgraded", "ROOT/spare");
        state.disk.fat.insert("/efi2/loader/entries/spare.conf".to_owned(), stale.into_bytes());
    });
    let (mended, stays, actions) = differences(&fake);
    assert_eq!((mended, actions), (vec![], 0));
    let said = "`/efi2/loader/entries/spare.conf` starts `spare` with another kernel than `/efi/loader/entries/spare.conf`: \
                remove the one that is wrong, and `kbe prune` brings the other";
    assert_eq!(stays, [said]);
    fake.change(|state| state.disk.fat.retain(|path, _| path != "/efi2/loader/entries/spare.conf"));
    assert_eq!(differences(&fake).0, ["`/efi2` does not start `spare`"]);
    equalize(&fake).expect("brought");
    assert_equal(&fake);
    // What an entry is called makes no difference.
    fake.change(|state| {
        let entry = state.disk.fat.remove("/efi2/loader/entries/spare.conf").expect("it was brought");
        state.disk.fat.insert("/efi2/loader/entries/by-hand.conf".to_owned(), entry);
    });
    assert_equal(&fake);
    fake.change(|state| {
        let entry = state.disk.fat.remove("/efi2/loader/entries/by-hand.conf").expect("it is there");
        state.disk.fat.insert("/efi2/loader/entries/spare.conf".to_owned(), entry);
    });
    activate(&fake, "spare", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(starts(&fake), ["rpool/ROOT/spare".to_owned()].into());
}

#[test]
fn environments_are_compared_from_where_they_parted() {
    let fake = Fake::new();
    make(&fake, "a", &Origin::Running).expect("made");
    make(&fake, "b", &Origin::Running).expect("made");
    make(&fake, "c", &Origin::parse("b")).expect("made");
    import(&fake, &name("stranger"), "/x", &mut |_| ()).expect("imported");
    let common = |fake: &Fake, a: &str, b: &str| {
        let looked = Looked::at(fake).expect("readable");
        let common = common_snapshot(&looked, a, b).expect("they are there");
        common.map(|snapshot| {
            snapshot.name.rsplit_once('-').expect("a date").0.rsplit_once('-').expect("a date").0.to_owned()
        })
    };
    for (a, b, want) in [
        ("debian", "a", Some("rpool/ROOT/debian@a")),
        ("a", "debian", Some("rpool/ROOT/debian@a")),
        ("a", "b", Some("rpool/ROOT/debian@a")),
        ("c", "debian", Some("rpool/ROOT/debian@b")),
        ("c", "a", Some("rpool/ROOT/debian@a")),
        ("b", "c", Some("rpool/ROOT/b@c")),
        ("a", "stranger", None),
    ] {
        assert_eq!(common(&fake, a, b).as_deref(), want, "{a} {b}");
    }
    // Whichever of them runs, and whether the one that they come from is mounted or not.
    for running in ["debian", "b"] {
        activate(&fake, running, Starts::Always, &mut |_| ()).expect("activated");
        assert_eq!(fake.start().expect("it starts"), format!("rpool/ROOT/{running}"));
        for [a, b] in [["debian", "a"], ["a", "b"], ["c", "a"], ["debian", "c"]] {
            let looked = Looked::at(&fake).expect("readable");
            let since = common_snapshot(&looked, a, b).expect("there").expect("they have one").name.clone();
            for side in [a, b] {
                let look = |of: &kld_boot::Environment, at: &str| -> Result<_, BootError> {
                    file_changes(&fake, &since, &of.dataset, at)
                };
                let changes = look_into(&fake, side, look)
                    .unwrap_or_else(|error| panic!("{running} {a} {b}: {error:?}"));
                assert_eq!(changes, []);
            }
            let left = Looked::at(&fake).expect("readable");
            let mounted = left.environments.iter().filter(|of| !of.mounted.is_empty());
            assert_eq!(mounted.count(), 1, "only what runs stays mounted");
        }
    }
}

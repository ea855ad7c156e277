//! What must hold whatever happens: a machine that dies at any instant starts what it would have started before, or what
//! was asked for, on each of its boot partitions; and the command that died can be run again.

mod support;

use kld_boot::{
    Action, BootError, Keep, Looked, Maker, Origin, Plan, Starts, activate, choose, claim, common_snapshot,
    create, export, file_changes, import, kernels, look_into, outdated, plan_activate, plan_destroy,
    plan_export, plan_good, plan_import, plan_mount, plan_rename, plan_umount,
};
use support::deaths::{Act, Begin, clear, destroy, dies_anywhere, make, name, replaced, run, starts, three};
use support::{Cut, ESPS, Fake, mark_good};

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

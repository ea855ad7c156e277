//! What must hold of boot partitions beside each other: each of them starts what the machine should start, and none loses what
//! starts another system.

mod support;

use kld_boot::{Action, BootError, Looked, Origin, Plan, Starts, activate, leftovers, unequal};
use support::deaths::{Begin, clear, dies_anywhere, make, replaced, run, starts, three};
use support::{ESPS, Fake};

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

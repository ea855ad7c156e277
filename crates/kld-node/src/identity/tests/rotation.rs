//! New keys in place of old ones, whatever happens meanwhile.

use std::path::Path;

use base64::engine::general_purpose::STANDARD;

use super::tools::{KEY_OF, reboot};
use super::*;
use crate::keys::{self, KeyError};
use crate::machine::fake::FakeMachine;

pub(super) const DATASET: &str = "rpool/srv/vault";
pub(super) const SEALED: &str = "/etc/kldload/keys/srv@vault.cred";
pub(super) const NEWEST: &str = "/var/lib/kldload/keys/srv@vault.cred";
pub(super) const IN_MEMORY: &str = "/run/kldload/keys/srv@vault";

pub(super) fn rotate(machine: &FakeMachine) -> Result<(), KeyError> {
    keys::rotate(machine, &config(), DATASET, &mut |_| ())
}

/// A machine that has run for a while.
pub(super) fn running() -> FakeMachine {
    let machine = image();
    assert!(start(&machine).is_complete());
    machine
}

pub(super) fn key(machine: &FakeMachine) -> String {
    machine.text(KEY_OF).expect("the dataset has one")
}

/// The sealed key of the boot environment, and what ZFS reads, are the key of the dataset.
pub(super) fn assert_loads(machine: &FakeMachine, when: &str) {
    assert_eq!(machine.text(IN_MEMORY), Some(key(machine)), "{when}: what ZFS reads");
    let sealed = STANDARD.encode(key(machine));
    assert!(machine.text(SEALED).expect("it is sealed").ends_with(&sealed), "{when}: what is sealed");
}

#[test]
fn a_dataset_gets_another_key_and_nobody_sees_it() {
    let machine = running();
    let old = key(&machine);
    machine.take_log();
    rotate(&machine).expect("it is rotated");
    assert_ne!(key(&machine), old);
    assert_loads(&machine, "after it");
    assert_eq!(machine.text(SEALED), machine.text(NEWEST));
    expect![[r#"
        zfs get -Hp -o name,property,value,source keyformat,keystatus rpool/srv/vault
        zfs get -Hpr -t filesystem,volume -o name,property,value,source keylocation rpool
        systemd-creds encrypt --name=srv@vault --tpm2-pcrs= - -
        systemd-creds decrypt --name=srv@vault /var/lib/kldload/keys/srv@vault.cred -
        zfs change-key rpool/srv/vault
        zfs load-key -n rpool/srv/vault
    "#]]
    .assert_eq(&machine.take_log().iter().map(|line| format!("{line}\n")).collect::<String>());
    for file in [SEALED, NEWEST, IN_MEMORY] {
        assert_eq!(machine.state().files.0[Path::new(file)].mode, 0o600, "{file}");
    }
    let listed = keys::list(&machine, &config()).expect("readable");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].status.as_str(), listed[0].interrupted), ("available", false));
    reboot(&machine);
    assert!(start(&machine).is_complete());
    assert_loads(&machine, "after a start");
}

/// How many changes of the machine somebody makes.
pub(super) fn changes_of(machine: &FakeMachine, change: impl FnOnce(&FakeMachine)) -> usize {
    machine.state().fuel = Some(usize::MAX);
    change(machine);
    usize::MAX - machine.state().fuel.unwrap()
}

/// A machine that has died after so many changes starts again, or somebody says `kldload recover`.
pub(super) fn comes_back(machine: &FakeMachine, deaths: usize, starts_again: bool, when: &str) {
    if starts_again {
        // It dies once more in the middle of the start, and then it stays alive.
        for again in [deaths, deaths % 3] {
            reboot(machine);
            machine.state().fuel = Some(again);
            start(machine);
        }
        machine.state().fuel = None;
        reboot(machine);
        let report = start(machine);
        assert!(report.is_complete(), "{when}: {report:?}");
    } else {
        machine.state().fuel = None;
        keys::recover(machine, &config()).unwrap_or_else(|error| panic!("{when}: {error}"));
    }
}

/// The heart of it: whenever the machine dies, the next start has the key.
#[test]
#[expect(clippy::print_stderr, reason = "the figure is what this test is for")]
fn a_death_at_any_change_of_a_rotation_costs_no_key() {
    let changes = changes_of(&running(), |machine| rotate(machine).expect("it is rotated"));
    assert!(changes >= 8, "{changes} changes only: the fake does not count");
    let (mut old_ones, mut new_ones) = (0, 0);
    for deaths in 0..=changes {
        for starts_again in [true, false] {
            let machine = running();
            let before = key(&machine);
            machine.state().fuel = Some(deaths);
            let _ = rotate(&machine);
            let when = format!("{deaths} of {changes}");
            comes_back(&machine, deaths, starts_again, &when);
            assert!(!keys::list(&machine, &config()).expect("readable")[0].interrupted, "{when}");
            if key(&machine) == before {
                old_ones += 1;
            } else {
                new_ones += 1;
            }
            assert_loads(&machine, &when);
            rotate(&machine).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_loads(&machine, &format!("{when}, and then rotated"));
        }
    }
    assert!(old_ones > 0 && new_ones > 0, "{old_ones} {new_ones}");
    eprintln!("deaths in a rotation: {}/{} keep a key that loads", old_ones + new_ones, 2 * (changes + 1));
}

#[test]
fn an_older_boot_environment_gets_the_newest_key() {
    let machine = running();
    let old = machine.text(SEALED).expect("it is sealed");
    rotate(&machine).expect("it is rotated");
    machine.state().files.put(SEALED, old, 0o600);
    reboot(&machine);
    assert!(start(&machine).is_complete());
    assert_loads(&machine, "in the older one");
    // And one that never had it.
    machine.state().files.0.remove(Path::new(SEALED));
    reboot(&machine);
    assert!(start(&machine).is_complete());
    assert_loads(&machine, "in one without a key");
}

#[test]
fn a_key_that_cannot_be_changed_stays() {
    let machine = running();
    let (before, sealed) = (key(&machine), machine.text(SEALED));
    let refused =
        |dataset: &str| keys::rotate(&machine, &config(), dataset, &mut |_| ()).expect_err("refused");
    assert_eq!(
        refused("rpool/srv/vault/db").to_string(),
        "`rpool/srv/vault/db` uses the key of `rpool/srv/vault`"
    );
    assert_eq!(refused("rpool/srv/other").hint().as_deref(), Some("it keeps those of: rpool/srv/vault"));
    machine.put("/dataset/rpool/srv/vault/keystatus", "unavailable");
    assert!(matches!(refused(DATASET), KeyError::NotLoaded { .. }));
    machine.put("/dataset/rpool/srv/vault/keystatus", "available");
    machine.put("/dataset/rpool/srv/vault/refuses", "change-key");
    assert!(refused(DATASET).to_string().contains("change-key"));
    assert_eq!((key(&machine), machine.text(SEALED)), (before, sealed));
    assert_eq!(machine.text(NEWEST), machine.text(SEALED));
    assert_loads(&machine, "after it was refused");
}

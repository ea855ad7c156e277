//! The key of a dataset is born once, and is that of the dataset whatever else is lost.

use std::path::Path;

use super::rotation::{DATASET, IN_MEMORY, NEWEST, SEALED, assert_loads, key, rotate, running};
use super::tools::{KEY_OF, reboot};
use super::*;
use crate::keys::KeyError;
use crate::machine::fake::FakeMachine;

fn lose(machine: &FakeMachine, files: &[&str]) {
    for file in files {
        machine.state().files.0.remove(Path::new(file));
    }
}

/// What the step has failed with, and what the person can do.
fn failure(machine: &FakeMachine) -> (String, String) {
    let report = start(machine);
    let step = report.steps.iter().find(|step| step.step == "encryption").expect("it was tried");
    (step.error.clone().unwrap_or_default(), step.hint.clone().unwrap_or_default())
}

#[test]
fn a_new_key_is_never_made_for_a_dataset_that_is_there() {
    let machine = running();
    let (kept, before) = (machine.text(SEALED).expect("sealed"), key(&machine));
    lose(&machine, &[SEALED, NEWEST]);
    reboot(&machine);
    let (error, hint) = failure(&machine);
    assert_eq!(error, "the sealed key of `rpool/srv/vault` is missing");
    assert!(hint.contains(NEWEST) && hint.contains("systemctl restart kldload-identity"), "{hint}");
    assert_eq!((machine.text(SEALED), machine.text(NEWEST), machine.text(IN_MEMORY)), (None, None, None));
    // As the hint says.
    machine.state().files.put(NEWEST, kept, 0o600);
    assert!(start(&machine).is_complete());
    assert_eq!(key(&machine), before);
    assert_loads(&machine, "once it was put back");
}

#[test]
fn a_dataset_that_went_and_comes_again_has_the_same_key() {
    for lost in [&[SEALED][..], &[NEWEST], &[]] {
        let machine = running();
        let before = key(&machine);
        machine.state().files.0.retain(|path, _| !path.starts_with("/dataset/rpool/srv/vault"));
        lose(&machine, lost);
        // What somebody has left there is not what is sealed.
        machine.state().files.put(IN_MEMORY, [0; 32], 0o600);
        assert!(start(&machine).is_complete());
        assert_eq!(key(&machine), before, "{lost:?}");
        assert_eq!(machine.text(SEALED), machine.text(NEWEST), "{lost:?}");
        reboot(&machine);
        assert!(start(&machine).is_complete());
        assert_loads(&machine, "after a start");
    }
}

#[test]
fn a_key_that_lies_in_one_place_is_put_into_both() {
    for lost in [SEALED, NEWEST] {
        let machine = running();
        lose(&machine, &[lost]);
        reboot(&machine);
        assert!(start(&machine).is_complete());
        assert_loads(&machine, lost);
        assert_eq!(machine.text(SEALED), machine.text(NEWEST));
        assert!(start(&machine).is_unchanged());
    }
}

#[test]
fn a_key_that_is_left_in_memory_alone_is_sealed_again() {
    let machine = running();
    let before = key(&machine);
    let wrong = machine.text(SEALED).expect("sealed").replace("BA", "CC");
    for sealed in [None, Some(wrong)] {
        lose(&machine, &[SEALED, NEWEST]);
        if let Some(sealed) = sealed {
            machine.state().files.put(SEALED, sealed, 0o600);
        }
        assert!(start(&machine).is_complete());
        reboot(&machine);
        assert!(start(&machine).is_complete());
        assert_eq!(key(&machine), before);
        assert_loads(&machine, "after a start");
    }
}

#[test]
fn a_key_that_only_zfs_has_can_still_be_replaced() {
    let machine = running();
    lose(&machine, &[SEALED, NEWEST, IN_MEMORY]);
    let (error, hint) = failure(&machine);
    assert_eq!(error, "the key of `rpool/srv/vault` is loaded, and no sealed key is the same");
    assert!(hint.starts_with("`kldload key rotate rpool/srv/vault`"), "{hint}");
    rotate(&machine).expect("as the hint says");
    reboot(&machine);
    assert!(start(&machine).is_complete());
    assert_loads(&machine, "after a start");
}

#[test]
fn a_dataset_that_lies_in_clear_is_named() {
    let machine = running();
    machine.put("/dataset/rpool/srv/vault/keystatus", "-");
    lose(&machine, &[SEALED, NEWEST, KEY_OF]);
    assert_eq!(failure(&machine).0, "`rpool/srv/vault` is there, and is not encrypted");
}

/// As taking an apply back leaves it, when somebody has written into it.
#[test]
fn a_key_that_a_dataset_beside_it_needs_is_not_rotated_away() {
    let machine = running();
    for property in ["mounted", "keystatus", "keylocation"] {
        let value = machine.text(&format!("/dataset/{DATASET}/{property}")).expect("it is there");
        machine.put(&format!("/dataset/{DATASET}.undone-000002/{property}"), &value);
    }
    let refused = rotate(&machine).expect_err("refused");
    assert!(matches!(&refused, KeyError::Shared { with, .. } if with.ends_with("vault.undone-000002")));
    assert!(refused.hint().expect("a way").contains("zfs destroy -r"), "{:?}", refused.hint());
    assert_loads(&machine, "after it was refused");
}

//! A passphrase in place of the machine's key, whatever happens meanwhile.

use std::path::Path;
use std::sync::Arc;

use super::rotation::{
    DATASET, IN_MEMORY, NEWEST, SEALED, assert_loads, changes_of, comes_back, key, rotate, running,
};
use super::tools::{KEY_OF, reboot};
use super::*;
use crate::health::{Status, check_some};
use crate::keys::{self, Holder, KeyError, Passphrase, PassphraseError, Unlocked};
use crate::machine::fake::FakeMachine;

const WORDS: &str = "correct horse battery";

fn words(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes()).expect("it can be one")
}

fn give(machine: &FakeMachine, text: &str) -> Result<(), KeyError> {
    keys::set_passphrase(machine, &config(), DATASET, &words(text), &mut |_| ())
}

fn unlock(machine: &FakeMachine, text: &str) -> Result<Unlocked, KeyError> {
    keys::unlock(machine, &config(), DATASET, Some(&words(text)))
}

fn has_passphrase(machine: &FakeMachine) -> bool {
    machine.text("/dataset/rpool/srv/vault/keyformat").as_deref() == Some("passphrase")
}

fn status(machine: &FakeMachine) -> String {
    machine.text("/dataset/rpool/srv/vault/keystatus").expect("it is there")
}

fn assert_forgotten(machine: &FakeMachine, when: &str) {
    for place in [SEALED, NEWEST, IN_MEMORY] {
        assert_eq!(machine.text(place), None, "{when}: {place}");
    }
}

#[test]
fn a_dataset_gets_a_passphrase_and_nothing_of_it_is_kept() {
    let machine = running();
    machine.take_log();
    give(&machine, WORDS).expect("it is given");
    expect![[r#"
        zfs get -Hp -o name,property,value,source keyformat,keystatus rpool/srv/vault
        zfs get -Hpr -t filesystem,volume -o name,property,value,source keylocation rpool
        systemctl stop --job-mode=ignore-dependencies -- kldload-key-srv-vault.service
        zfs change-key -o keyformat=passphrase -o keylocation=prompt rpool/srv/vault
        zfs load-key -n rpool/srv/vault
    "#]]
    .assert_eq(&machine.take_log().iter().map(|line| format!("{line}\n")).collect::<String>());
    assert_eq!(key(&machine), WORDS);
    assert_forgotten(&machine, "after it");
    let listed = keys::list(&machine, &config()).expect("readable").remove(0);
    assert!(listed.passphrase && !listed.interrupted && listed.sealed.is_none(), "{listed:?}");
    assert!(start(&machine).is_unchanged(), "a start has nothing to do");
    assert!(keys::recover(&machine, &config()).expect("nothing to do").is_empty());
    // No tool, file or report has it but ZFS.
    let state = machine.state();
    let kept = state.files.0.iter().filter(|(_, file)| file.bytes == WORDS.as_bytes());
    assert_eq!(kept.map(|(path, _)| path.display().to_string()).collect::<Vec<_>>(), [KEY_OF]);
    assert_eq!(format!("{:?}", words(WORDS)), "Passphrase");
}

#[test]
fn a_locked_dataset_is_no_failure_and_is_named_with_the_way() {
    let machine = running();
    give(&machine, WORDS).expect("it is given");
    reboot(&machine);
    let report = start(&machine);
    assert!(report.is_complete(), "{report:?}");
    let step = report.steps.iter().find(|step| step.step == "encryption").expect("it was looked at");
    let wait = "rpool/srv/vault is locked: `kldload key unlock rpool/srv/vault`";
    assert_eq!((step.warnings.as_slice(), step.made.len()), (&[wait.to_owned()][..], 0));
    assert!(step.to_string().ends_with(&format!("\nencryption      warning  {wait}")), "{step}");
    assert_eq!(keys::list(&machine, &config()).expect("readable")[0].status, "unavailable");
    assert_forgotten(&machine, "a start makes none");

    let refused = rotate(&machine).expect_err("refused");
    assert_eq!(refused.to_string(), "`rpool/srv/vault` is locked");
    assert!(refused.hint().expect("a way").starts_with("`kldload key unlock rpool/srv/vault`"));
    assert!(matches!(give(&machine, "another one"), Err(KeyError::Locked { .. })));
    let probes = |machine: FakeMachine| {
        check_some(Arc::new(machine), Some(config()), std::time::Duration::from_secs(5), vec![], |n| {
            n == "keys"
        })
    };
    let found = probes(machine).probes.remove(0);
    assert_eq!((found.status, found.summary.as_str()), (Status::Warn, "locked: rpool/srv/vault"));
    assert_eq!(found.command.as_deref(), Some("kldload key unlock rpool/srv/vault"));
    assert_eq!(probes(running()).probes[0].status, Status::Ok);
}

#[test]
fn unlocking_brings_data_and_services_back() {
    let machine = running();
    give(&machine, WORDS).expect("it is given");
    reboot(&machine);
    start(&machine);
    machine.put("/run/systemd/generator/srv-vault.mount", "[Mount]\n");
    machine.tool("systemctl", |args, _, files| {
        match &args[0][..] {
            "start" if args[2] == "srv-vault.mount" => {
                files.put("/dataset/rpool/srv/vault/mounted", "yes", 0o644)
            }
            "show" => {
                let blocks = "Id=web.service\nActiveState=inactive\nRequiresMountsFor=/srv/vault\n\n\
                              Id=other.service\nActiveState=inactive\nRequiresMountsFor=/srv\n";
                return Ok(blocks.into());
            }
            _ => {}
        }
        Ok(vec![])
    });
    let mut config = config();
    config.mounts.push(NodeMount { dataset: DATASET.into(), path: "/srv/vault".into() });
    let service = |unit: &str| NodeService { unit: unit.into(), listens: vec![], max_exposure_tenths: None };
    config.services = vec![service("web.service"), service("other.service")];
    machine.take_log();

    let wrong = keys::unlock(&machine, &config, DATASET, Some(&words("wrong horse")));
    let wrong = wrong.expect_err("refused");
    assert_eq!(wrong.to_string(), "that is not the passphrase of `rpool/srv/vault`");
    assert_eq!(machine.take_log(), ["zfs load-key -n rpool/srv/vault"], "nothing else was tried");
    assert!(keys::asks(&machine, &config, DATASET).expect("it has one"));

    let done = keys::unlock(&machine, &config, DATASET, Some(&words(WORDS))).expect("unlocked");
    assert_eq!(done.mounted, ["rpool/srv/vault", "rpool/srv/vault/db"]);
    assert_eq!(done.started, ["web.service"]);
    expect![[r#"
        zfs get -Hp -o name,property,value,source keyformat,keystatus rpool/srv/vault
        zfs load-key -n rpool/srv/vault
        systemctl stop -- zfs-load-key@rpool-srv-vault.service
        zfs load-key rpool/srv/vault
        zfs list -H -o name -t filesystem -r rpool/srv/vault
        zfs get -Hp -o name,property,value,source org.kldload:fill rpool/srv/vault
        zfs get -Hp -o name,property,value,source org.kldload:fill rpool/srv/vault/db
        zfs get -Hpr -t filesystem,volume -o name,property,value,source canmount,encryptionroot,mounted,mountpoint rpool/srv/vault
        systemctl start -- srv-vault.mount
        systemd-run --quiet --collect --property=Type=oneshot --property=DefaultDependencies=no zfs mount rpool/srv/vault/db
        systemctl show --property=Id,ActiveState,RequiresMountsFor -- web.service other.service
        systemctl start -- web.service
    "#]]
    .assert_eq(&machine.take_log().iter().map(|line| format!("{line}\n")).collect::<String>());
    assert!(!keys::asks(&machine, &config, DATASET).expect("it has one"));
    let again = keys::unlock(&machine, &config, DATASET, None).expect("nothing to load");
    assert!(again.mounted.is_empty(), "{again:?}");
}

#[test]
fn what_could_not_be_made_below_a_locked_dataset_is_made_when_it_is_unlocked() {
    let machine = running();
    machine.state().files.0.retain(|path, _| !path.starts_with("/dataset/rpool/srv/vault/db"));
    give(&machine, WORDS).expect("it is given");
    reboot(&machine);
    assert!(start(&machine).is_complete());
    assert_eq!(machine.text("/dataset/rpool/srv/vault/db/mounted"), None);
    let done = unlock(&machine, WORDS).expect("unlocked");
    assert_eq!(done.mounted, ["rpool/srv/vault", "rpool/srv/vault/db"]);
    assert!(start(&machine).is_unchanged());
}

#[test]
fn a_passphrase_becomes_another_and_then_a_key_of_the_machine() {
    let machine = running();
    assert_eq!(keys::check(&machine, &config(), DATASET).expect("it can"), Holder::Machine);
    assert!(matches!(keys::asks(&machine, &config(), DATASET), Err(KeyError::NoPassphrase { .. })));
    give(&machine, WORDS).expect("it is given");
    assert_eq!(keys::check(&machine, &config(), DATASET).expect("it can"), Holder::Person);
    give(&machine, "another horse").expect("it is changed");
    reboot(&machine);
    start(&machine);
    assert!(matches!(unlock(&machine, WORDS), Err(KeyError::WrongPassphrase { .. })));
    unlock(&machine, "another horse").expect("unlocked");
    rotate(&machine).expect("it is rotated");
    assert!(!has_passphrase(&machine));
    reboot(&machine);
    let report = start(&machine);
    assert!(
        report.steps.iter().all(|step| step.step != "encryption" || step.warnings.is_empty()),
        "{report:?}"
    );
    assert_eq!(status(&machine), "available");
    assert_loads(&machine, "without a person");
}

/// As going back to an older boot environment does.
#[test]
fn a_sealed_key_of_before_goes_and_is_never_tried() {
    let machine = running();
    let old = machine.text(SEALED).expect("sealed");
    give(&machine, WORDS).expect("it is given");
    for starts in [true, false] {
        machine.state().files.put(SEALED, old.clone(), 0o600);
        assert!(keys::list(&machine, &config()).expect("readable")[0].interrupted);
        if starts {
            reboot(&machine);
            let report = start(&machine);
            assert!(report.is_complete() && !report.is_unchanged(), "{report:?}");
            unlock(&machine, WORDS).expect("unlocked");
        } else {
            assert_eq!(keys::recover(&machine, &config()).expect("it ends"), [DATASET]);
        }
        assert_forgotten(&machine, "an old key");
    }
    assert_eq!(key(&machine), WORDS);
}

#[test]
fn a_key_that_cannot_be_settled_keeps_no_other_from_it() {
    let machine = running();
    let old = machine.text(SEALED).expect("sealed");
    give(&machine, WORDS).expect("it is given");
    machine.state().files.put(SEALED, old, 0o600);
    let mut config = config();
    let mut broken = config.encrypted[0].clone();
    broken.dataset = "rpool/srv/broken".to_owned();
    let key = broken.key.as_mut().expect("it has one");
    key.credential_file = "/etc/kldload/keys/srv@broken.cred".to_owned();
    key.credential = "srv@broken".to_owned();
    key.key_file = "/run/kldload/keys/srv@broken".to_owned();
    config.encrypted.insert(0, broken);
    for (property, value) in [("keyformat", "raw"), ("keystatus", "available"), ("mounted", "yes")] {
        machine.put(&format!("/dataset/rpool/srv/broken/{property}"), value);
    }
    machine.put("/var/lib/kldload/keys/srv@broken.cred", "no key of anybody");
    let error = keys::recover(&machine, &config).expect_err("nothing loads it").to_string();
    assert!(error.contains("rpool/srv/broken"), "{error}");
    assert_forgotten(&machine, "the other one");
}

/// Somebody has given a passphrase to what has the name now, by hand; what had it before was renamed, and has no other key.
#[test]
fn a_sealed_key_that_another_dataset_needs_is_kept() {
    for other in ["rpool/srv/vault.undone-000003", "rpool/srv/vault-old"] {
        let machine = running();
        let sealed = machine.text(SEALED);
        machine.put(&format!("/dataset/{other}/mounted"), "no");
        machine.put(&format!("/dataset/{other}/keylocation"), &format!("file://{IN_MEMORY}"));
        machine.put("/dataset/rpool/srv/vault/keyformat", "passphrase");
        machine.put("/dataset/rpool/srv/vault/keylocation", "prompt");

        let report = start(&machine);
        assert!(report.is_complete(), "{report:?}");
        let step = report.steps.iter().find(|step| step.step == "encryption").expect("it was looked at");
        let kept =
            format!("the sealed key of rpool/srv/vault, which has a passphrase, is kept: {other} needs it");
        assert_eq!((step.made.len(), step.warnings.as_slice()), (0, &[kept][..]));
        assert!(keys::recover(&machine, &config()).expect("nothing to do").is_empty());
        assert!(!keys::list(&machine, &config()).expect("readable")[0].interrupted, "nothing to do");
        for place in [SEALED, NEWEST] {
            assert_eq!(machine.text(place), sealed, "{place}");
        }

        machine.state().files.0.retain(|path, _| !path.starts_with(format!("/dataset/{other}")));
        assert_eq!(keys::recover(&machine, &config()).expect("it ends"), [DATASET]);
        assert_forgotten(&machine, "nobody needs it any more");
    }
}

/// Whether the dataset has a key that somebody has, and nothing pretends that it has another.
fn assert_settled(machine: &FakeMachine, passphrase: &str, when: &str) {
    assert!(!keys::list(machine, &config()).expect("readable")[0].interrupted, "{when}");
    if has_passphrase(machine) {
        assert_forgotten(machine, when);
        assert_eq!(key(machine), passphrase, "{when}");
        if status(machine) == "unavailable" {
            unlock(machine, passphrase).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        assert_eq!(status(machine), "available", "{when}");
    } else {
        assert_loads(machine, when);
    }
}

/// The heart of it, in both directions: whenever the machine dies, the sealed key loads the dataset or the passphrase does.
#[test]
#[expect(clippy::print_stderr, reason = "the figure is what this test is for")]
fn a_death_at_any_change_of_a_passphrase_costs_no_key() {
    type Begin = fn() -> FakeMachine;
    type Change = fn(&FakeMachine) -> Result<(), KeyError>;
    let changes: [(&str, Begin, Change); 2] = [
        ("given", running, |machine| give(machine, WORDS)),
        (
            "rotated away",
            || {
                let machine = running();
                give(&machine, WORDS).expect("it is given");
                machine
            },
            rotate,
        ),
    ];
    for (what, begin, change) in changes {
        let changes = changes_of(&begin(), |machine| change(machine).expect("nobody dies"));
        assert!(changes >= 7, "{what}: {changes} changes only: the fake does not count");
        let (mut sealed, mut passphrases) = (0, 0);
        for deaths in 0..=changes {
            for starts_again in [true, false] {
                let machine = begin();
                machine.state().fuel = Some(deaths);
                let _ = change(&machine);
                let when = format!("{what}, {deaths} of {changes}");
                comes_back(&machine, deaths, starts_again, &when);
                if has_passphrase(&machine) {
                    passphrases += 1
                } else {
                    sealed += 1
                }
                assert_settled(&machine, WORDS, &when);
                change(&machine).unwrap_or_else(|error| panic!("{when}: {error}"));
                assert_settled(&machine, WORDS, &format!("{when}, and then once more"));
            }
        }
        assert!(sealed > 0 && passphrases > 0, "{what}: {sealed} {passphrases}");
        eprintln!(
            "deaths in a passphrase that is {what}: {sealed} sealed keys and {passphrases} passphrases load"
        );
    }
}

#[test]
fn zfs_would_not_take_it_and_nothing_is_changed() {
    for (line, want) in [
        (&b"seven77"[..], PassphraseError::TooShort),
        (b"seven77\n", PassphraseError::TooShort),
        (b"", PassphraseError::TooShort),
        (b"two lines\nof it", PassphraseError::NotALine),
        (b"eight888\r\n", PassphraseError::NotALine),
        (b"eight\0888", PassphraseError::NotALine),
        (&[b'x'; 513], PassphraseError::TooLong),
    ] {
        assert_eq!(Passphrase::new(line), Err(want), "{line:?}");
    }
    assert_eq!(Passphrase::new(b"eight888\n"), Passphrase::new(b"eight888"));
    assert!(Passphrase::new(&[b'x'; 512]).is_ok());

    let machine = running();
    let (before, sealed) = (key(&machine), machine.text(SEALED));
    machine.put("/dataset/rpool/srv/vault/refuses", "change-key");
    let refused = give(&machine, WORDS).expect_err("refused");
    assert!(
        refused.to_string().contains("change-key") && !format!("{refused:?}").contains(WORDS),
        "{refused}"
    );
    assert_eq!((key(&machine), machine.text(SEALED)), (before, sealed));
    assert_loads(&machine, "after it was refused");
    machine.put("/dataset/rpool/srv/vault/refuses", "load-key");
    let refused = give(&machine, WORDS).expect_err("not proven");
    assert!(matches!(refused, KeyError::NotProven { .. }));
    machine.state().files.0.remove(Path::new("/dataset/rpool/srv/vault/refuses"));
    rotate(&machine).expect("as the hint says");
    assert_loads(&machine, "as the hint says");
}

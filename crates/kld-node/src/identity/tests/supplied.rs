//! Secrets that a person gives to a machine that runs.

use std::path::Path;

use super::*;
use crate::machine::fake::FakeMachine;
use crate::secrets::{self, Origin, SecretError};

const SEALED: &str = "/etc/kldload/secrets/token.cred";
const VALUE: &[u8] = b"of a person\n";

fn set(machine: &FakeMachine, value: &[u8]) -> Result<(), SecretError> {
    secrets::set(machine, "token", Path::new(SEALED), value)
}

#[test]
fn a_secret_is_sealed_and_nobody_sees_it() {
    let machine = image();
    machine.state().files.0.remove(Path::new("/run/credentials/kldload.secret.token"));
    assert!(!start(&machine).is_complete(), "nobody has given it");
    machine.take_log();
    set(&machine, VALUE).expect("it is sealed");
    assert_eq!(machine.take_log(), ["systemd-creds encrypt --name=token --tpm2-pcrs= - -"]);
    assert_eq!(machine.state().files.0[Path::new(SEALED)].mode, 0o600);
    let unsealed = super::super::secrets::unseal(&machine, "token", Path::new(SEALED)).expect("it is sealed");
    assert_eq!(unsealed, VALUE, "byte for byte");
    let given = machine.text(SEALED);
    assert!(start(&machine).is_complete(), "the next start has it");
    assert_eq!(machine.text(SEALED), given, "and keeps it");
    set(&machine, b"another").expect("it is replaced");
    assert_ne!(machine.text(SEALED), given);
}

#[test]
fn what_cannot_be_a_secret_leaves_the_old_one() {
    let machine = image();
    assert!(start(&machine).is_complete());
    let given = machine.text(SEALED);
    assert!(matches!(set(&machine, b""), Err(SecretError::Empty { .. })));
    assert!(matches!(set(&machine, &[0; (1 << 20) + 1]), Err(SecretError::TooLarge { .. })));
    for fuel in 0..3 {
        machine.state().fuel = Some(fuel);
        let done = set(&machine, VALUE).is_ok();
        assert_eq!((done, machine.text(SEALED) == given), (fuel > 2, fuel < 3), "dead after {fuel} changes");
    }
    machine.state().fuel = None;
    machine.tool("systemd-creds", |_, _, _| Err("no TPM".into()));
    assert!(set(&machine, VALUE).is_err());
    assert_eq!(machine.text(SEALED), given);
}

#[test]
fn a_list_says_what_is_there_and_what_is_not() {
    let machine = image();
    let listed = |machine: &FakeMachine, config: Option<&NodeConfig>| -> Vec<(String, Origin, bool)> {
        let all = secrets::list(machine, config).expect("readable");
        all.into_iter().map(|secret| (secret.name, secret.origin, secret.is_there)).collect()
    };
    assert_eq!(
        listed(&machine, Some(&config())),
        [("session".into(), Origin::Generated, false), ("token".into(), Origin::Supplied, false)]
    );
    // Before anything was applied.
    set(&machine, VALUE).expect("it is sealed");
    assert_eq!(listed(&machine, None), [("token".into(), Origin::Unknown, true)]);
    assert_eq!(listed(&machine, Some(&config()))[1], ("token".into(), Origin::Supplied, true));
    let all = secrets::list(&machine, Some(&config())).expect("readable");
    assert_eq!(all[1].used_by, ["web.service"]);
    let json = serde_json::to_string(&all).expect("it prints");
    assert!(!json.contains("of a person"), "{json}");
}

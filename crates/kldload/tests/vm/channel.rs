//! What `kld-vm` promises of a guest that runs: scripts, files, saved states, its last words.

use std::time::Duration;

use kld_vm::{Credential, Guest, VmError};

use crate::fixture::BOOT;

const SECRET: &str = "key, with \"commas\" = and\nlines";

/// A credential for a machine whose channel is to be tested.
pub(crate) fn credential() -> Credential {
    Credential::new("test.note", SECRET)
}

/// Scripts and files arrive byte for byte, errors say what failed, saved states come back whole.
pub(crate) fn obeys(guest: &Guest) {
    let output = guest.run("printf 'a\\0b'; echo oops >&2; exit 7").expect("it answers");
    assert_eq!((output.status, &*output.stdout, &*output.stderr), (7, &b"a\0b"[..], &b"oops\n"[..]));
    let given = guest.run_ok("cat /run/credentials/@system/test.note").expect("it was given");
    assert_eq!(given, SECRET);
    let error = guest.run_ok("echo no >&2\nfalse").expect_err("false fails").to_string();
    assert_eq!(error, "`echo no >&2` failed in the guest with status 1\n  no");
    let output = guest.run_for("sleep 600", Duration::from_secs(2)).expect("it is ended in time");
    assert_eq!(output.status, 124);
    let large = guest.run("head -c 3000000 /dev/zero").expect("it answers");
    assert_eq!(large.stdout.len(), 3_000_000);
    guest.write_file("/root/it's", b"content\n", 0o640).expect("written");
    assert_eq!(guest.run_ok("stat -c %a%s \"/root/it's\"; rm \"/root/it's\"").expect("it is there"), "6408");

    guest.save("booted").expect("saved");
    guest.run_ok("touch /run/memory /root/disk; sync").expect("changed");
    guest.restore("booted").expect("restored");
    let left =
        guest.run_ok("ls /run/memory /root/disk 2>/dev/null | wc -l").expect("the channel still works");
    assert_eq!(left, "0", "memory and disk go back together");
    assert!(matches!(guest.restore("never"), Err(VmError::NoState { .. })));
}

/// A guest that goes away is an error that shows its console.
pub(crate) fn last_words(guest: &Guest) {
    guest.run_ok("(sleep 3; systemctl poweroff --force --force) &").expect("it answers");
    let error = guest.wait_system(BOOT, |_| ()).and_then(|_| guest.run("sleep 60")).expect_err("it ends");
    let error = error.to_string();
    assert!(error.starts_with("the guest ended while waiting") && error.contains("Power down"), "{error}");
}

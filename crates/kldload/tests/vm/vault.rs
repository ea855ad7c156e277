//! What the first recipe does without: encryption at rest, secrets, replication, a container.

use std::path::Path;

use kld_host::Cmd;
use kld_vm::{Credential, Guest};

use crate::apply;
use crate::container;
use crate::fixture::{BOOT, boot_until_well, copy_of, kldload, machine_on, scratch, wait_until_well};
use crate::secrets;
use crate::turn::Turn;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/vault/appliance.manifest");
/// Given from outside, never kept in clear.
pub(crate) const ANSWER: &str = "six times seven is forty-two";
/// One dataset more, for the manifest.
const SECOND: (&str, &str) =
    ("  rpool/srv/greeter:", "  rpool/srv/second:  encryption=on\n  rpool/srv/greeter:");
/// Known to a person alone.
const PASSPHRASE: &str = "the ravens left the tower at noon";
const LATER_PASSPHRASE: &str = "and came back with the evening tide";

#[test]
fn keys_and_secrets_are_born_on_the_machine_and_copies_leave_it_encrypted() {
    lives("vault", |_| ());
}

/// The life of such a machine, with something more before its key is rotated.
pub(crate) fn lives(name: &str, more: impl Fn(&Guest)) {
    let _turn = Turn::take();
    let image = scratch().join(format!("{name}.img"));
    kldload(["build", MANIFEST, "--size", "6G", "--output", &image.display().to_string()]);
    let disk = copy_of(&image, &format!("{name}.qcow2"));
    let guest = machine_on(&disk)
        .credential(Credential::new("kldload.secret.answer", ANSWER))
        .start()
        .expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");

    let state = guest.run_ok("zfs get -H -o value encryption,keystatus,mounted rpool/srv/vault");
    assert_eq!(state.expect("the dataset is there"), "aes-256-gcm\navailable\nyes");
    services_see_secrets_and_nobody_else_does(&guest);
    replication_sends_ciphertext(&guest);
    container::a_container_answers_peers_and_nobody_else(&guest);
    // Now that its image is there, too.
    an_encrypted_dataset_changes_as_any_other(&guest);
    container::a_service_starts_containers_itself(&guest);
    wait_until_well(&guest);
    container::images_are_pulled_or_the_apply_is_undone(&guest);
    wait_until_well(&guest);
    a_key_outlives_an_apply_that_failed(&guest);
    secrets::are_given_to_a_machine_that_runs(&guest);
    wait_until_well(&guest);
    more(&guest);
    // The last: whatever starts the identity's unit again settles the sealed key that it leaves behind.
    a_key_is_rotated(&guest);
    wait_until_well(&guest);
    let token = secrets::value(&guest, "token");
    assert!(!holds(&image, ANSWER) && !holds(&image, &token), "a secret in the image");
    let (secret, plain) = (marker(&guest, "/srv/vault/secret"), marker(&guest, "/var/log/plain"));
    let seen = guest.run_ok("cat /srv/vault/seen").expect("readable");
    guest.cut_power();

    // Who has the disk has what is not encrypted, and nothing else.
    assert!(holds(&disk, &plain), "the search finds what lies in clear");
    assert!(!holds(&disk, &secret), "what is encrypted must not lie in clear");
    for secret in [ANSWER, &token, secrets::LATE, PASSPHRASE, LATER_PASSPHRASE] {
        assert!(!holds(&disk, secret), "a secret must not lie in clear");
    }

    // After the power cut the key is unlocked without anybody, though the sealed one was old; the secret that was given once is still there.
    let guest = boot_until_well(&machine_on(&disk));
    let kept = guest.run_ok("cat /srv/vault/secret /srv/vault/seen").expect("readable");
    assert!(kept.contains(&secret) && kept.contains(&seen), "{kept}");
    let sealed = guest.run_ok("cmp /etc/kldload/keys/srv@vault.cred /var/lib/kldload/keys/srv@vault.cred");
    sealed.expect("the newest key is sealed in both places");
    let second = guest.run_ok("cat /srv/second/kept; zfs get -H -o value keystatus,mounted rpool/srv/second");
    assert_eq!(second.expect("readable"), "of the second\navailable\nyes");
}

/// Puts the manifest there, with these changes.
fn give(guest: &Guest, changes: &[(&str, &str)]) {
    let text =
        changes.iter().fold(include_str!("vault/appliance.manifest").to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
    guest.write_file("/root/vault.manifest", text.as_bytes(), 0o644).expect("written");
}

/// What was just built is as its manifest says; a property is planned, set and taken back; encryption is never switched.
fn an_encrypted_dataset_changes_as_any_other(guest: &Guest) {
    let plan = || apply::kldload(guest, "plan /root/vault.manifest");
    let quota = || guest.run_ok("zfs get -Hp -o value quota rpool/srv/vault").expect("readable");
    give(guest, &[]);
    let (status, said, error) = plan();
    assert_eq!((status, said.as_str()), (0, "vault: as the manifest says, nothing to do"), "{error}");

    give(guest, &[("recordsize=64k  ", "recordsize=64k  quota=1G  ")]);
    let (status, said, error) = plan();
    assert_eq!(status, 3, "{said}\n{error}");
    assert!(said.contains("~ dataset  rpool/srv/vault") && said.contains("quota none → 1G"), "{said}");
    let (status, said, error) = apply::kldload(guest, "apply --yes /root/vault.manifest");
    assert_eq!((status, quota().as_str()), (0, "1073741824"), "{said}\n{error}");
    let (status, said, error) = plan();
    assert_eq!(status, 0, "{said}\n{error}");
    let (status, said, error) = apply::kldload(guest, "undo --yes");
    assert_eq!((status, quota().as_str()), (0, "0"), "{said}\n{error}");

    for (change, want) in [
        (("encryption=on", ""), "`encryption` is `aes-256-gcm` since it was made, and cannot become `off`"),
        (("lz4\n", "lz4  encryption=on\n"), "`encryption` is `off` since it was made"),
    ] {
        give(guest, &[change]);
        let (status, said, error) = plan();
        assert!(status == 1 && error.contains(want) && error.contains("beside it"), "{said}\n{error}");
    }
    give(guest, &[]);
    let (status, said, error) = plan();
    assert_eq!(status, 0, "{said}\n{error}");
}

/// An apply that adds a dataset and fails takes it back, but not its key; the next one makes it with the same.
fn a_key_outlives_an_apply_that_failed(guest: &Guest) {
    let second = SECOND;
    let sealed = "sha256sum /etc/kldload/keys/srv@second.cred /var/lib/kldload/keys/srv@second.cred | cut -c -64 | uniq";
    let start = "set -e; for n in $(seq 60); do mountpoint -q /srv/second && break; sleep 1; done";
    give(guest, &[second, ("systemctl is-active --quiet vault.service", "/bin/false")]);
    let (status, said, error) = apply::kldload(guest, "apply --yes --within 15 /root/vault.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(error.contains("failed at verify, and everything is as it was"), "{error}");
    assert!(!guest.run("zfs list rpool/srv/second || test -e /srv/second").expect("it answers").is_ok());
    let key = guest.run_ok(sealed).expect("it is sealed");
    assert_eq!(key.len(), 64, "the same in both places: {key}");

    give(guest, &[second]);
    let (status, said, error) = apply::kldload(guest, "apply --yes /root/vault.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    let script = format!(
        "{start}; zfs load-key -n rpool/srv/second; echo of the second > /srv/second/kept; zfs get -H -o value mounted rpool/srv/second"
    );
    let state = guest.run_for(&script, BOOT).expect("it answers");
    let log = "systemctl list-units --all --no-pager '*second*'; systemctl cat srv-second.mount; \
         journalctl --no-pager -b -u kldload-identity -u '*second*' | tail -60";
    let log = guest.run(log).map(|output| output.text()).unwrap_or_default();
    assert!(
        state.is_ok() && state.text().ends_with("yes"),
        "{}\n{}\n{log}",
        state.text(),
        state.error_text()
    );
    assert_eq!(guest.run_ok(sealed).expect("it is sealed"), key);
    let (status, said, error) = apply::kldload(guest, "plan /root/vault.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
}

/// The machine starts without the dataset, says how to go on, and has it back with the passphrase; then it has a key of its own again.
pub(crate) fn a_person_has_the_key(guest: &Guest) {
    let as_the_manifest_says = |when: &str| {
        let (status, said, error) = apply::kldload(guest, "plan /root/vault.manifest");
        assert_eq!(status, 0, "{when}: {said}\n{error}");
    };
    let state = || {
        let get =
            "zfs get -H -o value keyformat,keylocation,keystatus,mounted rpool/srv/vault | paste -sd ' '";
        guest.run_ok(get).expect("it answers")
    };
    // In memory, so that whatever finds it on the disk has found what kldload or ZFS has written.
    let put = |text: &str| {
        guest.write_file("/run/passphrase", format!("{text}\n").as_bytes(), 0o600).expect("written");
    };
    let told = |words: &str| apply::kldload(guest, &format!("key {words} < /run/passphrase"));
    let refused = |words: &str, want: &str| {
        let (status, said, error) = told(words);
        assert!(status == 1 && error.contains(want), "{words}: {said}\n{error}");
    };
    give(guest, &[SECOND]);
    as_the_manifest_says("before");
    guest.run_ok("echo precious > /srv/vault/kept").expect("written");
    put("seven77");
    refused("passphrase --yes rpool/srv/vault", "a passphrase has at least 8 bytes");
    refused("unlock rpool/srv/vault", "`rpool/srv/vault` has no passphrase");
    put(PASSPHRASE);
    refused("passphrase rpool/srv/vault", "nothing was changed: not confirmed");
    assert_eq!(told("passphrase --dry-run rpool/srv/vault").0, 3);
    assert!(state().starts_with("raw file:"), "{}", state());
    let (status, said, error) = told("passphrase --yes rpool/srv/vault");
    assert_eq!((status, state().as_str()), (0, "passphrase prompt available yes"), "{said}\n{error}");
    let left = "ls /etc/kldload/keys /var/lib/kldload/keys /run/kldload/keys | grep -cx -e srv@vault -e srv@vault.cred";
    assert_eq!(guest.run(left).expect("it answers").text(), "0");
    as_the_manifest_says("with a passphrase");
    // As an apply does.
    let again = "systemctl restart kldload-identity.service; while [ -n \"$(systemctl list-jobs --no-legend)\" ]; do sleep 1; done";
    guest.run_for(again, BOOT).expect("it answers");
    assert_eq!(state(), "passphrase prompt available yes", "nobody locks it");
    let noted = "for n in $(seq 30); do grep -P '^rpool/srv/vault\\t.*\\tprompt\\t' /etc/zfs/zfs-list.cache/rpool && exit; sleep 1; done; exit 1";
    guest.run_ok(noted).expect("ZFS's event daemon notes where the key is");
    as_the_manifest_says("and once that is noted");
    // At a terminal it is asked for twice, and not shown.
    let typed = format!(
        "(sleep 10; echo '{LATER_PASSPHRASE}'; sleep 10; echo '{LATER_PASSPHRASE}'; sleep 20) \
         | script -qec 'kldload key passphrase --yes rpool/srv/vault' /dev/null"
    );
    let typed = guest.run_for(&typed, BOOT).expect("it answers");
    let seen = typed.text();
    assert!(typed.is_ok() && seen.contains("New passphrase") && !seen.contains(LATER_PASSPHRASE), "{seen}");

    guest.reboot(BOOT, |_| ()).expect("the machine starts without a person");
    let up =
        "for n in $(seq 120); do systemctl is-active --quiet kldload-identity && exit; sleep 2; done; exit 1";
    guest.run_for(up, BOOT).expect("it answers").is_ok().then_some(()).expect("the machine starts");
    assert_eq!(state(), "passphrase prompt unavailable no");
    // The machine is busy starting: probes that have no time for an answer say so.
    let named = "for n in $(seq 40); do kldload status > /run/said && exit 2; \
                 grep -qx 'keys: kldload key unlock rpool/srv/vault' /run/said && exit; sleep 3; done; cat /run/said; exit 1";
    let named = guest.run_for(named, BOOT).expect("it answers");
    assert!(named.is_ok(), "{}", named.text());
    let (_, said, _) = apply::kldload(guest, "key list");
    assert!(said.contains("passphrase, locked"), "{said}");
    // Nobody is at the console: the question ends, and the start goes on without the dataset.
    let ssh = "for n in $(seq 300); do systemctl is-active --quiet ssh && break; sleep 2; done; \
               systemctl is-active ssh; systemctl show -P Result zfs-load-key@rpool-srv-vault.service";
    let ssh = guest.run_for(ssh, BOOT).expect("it answers");
    assert_eq!(ssh.text(), "active\ntimeout", "{}", ssh.error_text());
    let (status, said, error) = apply::kldload(guest, "plan /root/vault.manifest");
    assert!(
        status == 1 && error.contains("which is locked") && error.contains("`kldload key unlock"),
        "{said}\n{error}"
    );
    put(PASSPHRASE);
    refused("unlock rpool/srv/vault", "that is not the passphrase of `rpool/srv/vault`");
    refused("rotate --yes rpool/srv/vault", "`rpool/srv/vault` is locked");
    put(LATER_PASSPHRASE);
    let (status, said, error) = told("unlock rpool/srv/vault");
    let log = "systemctl list-jobs --no-pager; systemctl status --no-pager '*vault*'; systemctl cat 'zfs-load-key@rpool-srv-vault.service'";
    let log = || guest.run(log).map(|output| output.text()).unwrap_or_default();
    assert_eq!(status, 0, "{said}\n{error}\n{}", log());
    assert!(error.contains("vault.service is started"), "{said}\n{error}\n{}", log());
    let kept = guest.run_ok("cat /srv/vault/kept; systemctl is-active vault.service");
    assert_eq!(kept.expect("readable"), "precious\nactive");
    wait_until_well(guest);
    as_the_manifest_says("unlocked");
    guest
        .run_ok("! journalctl --no-pager | grep -qF -e 'left the tower' -e 'evening tide'")
        .expect("a passphrase in the log");

    let (status, said, error) = told("rotate --yes rpool/srv/vault");
    assert!(status == 0 && state().starts_with("raw file:"), "{said}\n{error}");
    as_the_manifest_says("with a key of the machine");
    guest.reboot(BOOT, |_| ()).expect("the machine starts");
    wait_until_well(guest);
    assert!(state().ends_with("available yes"), "{}", state());
    assert_eq!(guest.run_ok("cat /srv/vault/kept").expect("readable"), "precious");
}

/// The data stays, the old key loads it no more, the sealed new one does. Then the old sealed key comes back, as it would
/// when an older boot environment is started, or when the power fails before it is replaced: the next start must cope.
fn a_key_is_rotated(guest: &Guest) {
    guest
        .run_ok("echo precious > /srv/vault/kept; cp /etc/kldload/keys/srv@vault.cred /root/old.cred")
        .expect("written");
    let text = include_str!("../../../../docs/datasets.md");
    guest.write_file("/root/passphrase", b"of the page, and of nobody else\n", 0o600).expect("written");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ kldload key ")).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for words in commands {
        let said = guest.run_for(&format!("kldload key {words} 2>&1"), BOOT).expect("it answers");
        assert!(said.is_ok(), "{words}: {}", said.text());
    }
    let script = "
        set -e
        if cmp -s /etc/kldload/keys/srv@vault.cred /root/old.cred; then exit 7; fi
        systemctl stop vault.service
        zfs unmount rpool/srv/vault
        zfs unload-key rpool/srv/vault
        systemd-creds decrypt --name=srv@vault /root/old.cred /run/kldload/keys/srv@vault
        if zfs load-key rpool/srv/vault; then exit 8; fi
        rm /run/kldload/keys/srv@vault
        systemctl restart kldload-key-srv-vault.service
        zfs get -H -o value keystatus rpool/srv/vault | grep -qx available || zfs load-key rpool/srv/vault
        mountpoint -q /srv/vault || zfs mount rpool/srv/vault
        systemctl start vault.service
        cat /srv/vault/kept
        mv /root/old.cred /etc/kldload/keys/srv@vault.cred
        kldload key list
        sync";
    let output = guest.run_for(script, BOOT).expect("it answers");
    assert!(output.is_ok(), "{}\n{}", output.text(), output.error_text());
    assert!(output.text().starts_with("precious"), "{}", output.text());
    assert!(output.text().contains("interrupted"), "{}", output.text());
    let refused = guest.run("kldload key rotate --yes rpool/srv/greeter").expect("it answers");
    assert!(refused.error_text().contains("kldload keeps no key of"), "{}", refused.error_text());
}

/// 4 KiB of letters that no compression shortens, in a file; gives the first of them.
fn marker(guest: &Guest, path: &str) -> String {
    let script =
        format!("base64 -w0 /dev/urandom | head -c 4096 > {path}; sync; zpool sync; head -c 64 {path}");
    guest.run_ok(&script).expect("written")
}

/// Whether a file holds these bytes anywhere.
pub(crate) fn holds(path: &Path, text: &str) -> bool {
    let found = Cmd::new("grep")
        .args(["--quiet", "--text", "--fixed-strings", "--", text])
        .arg(path)
        .accept(1)
        .output();
    found.expect("the disk is readable").code == 0
}

fn services_see_secrets_and_nobody_else_does(guest: &Guest) {
    let seen = guest.run_ok("cat /srv/vault/seen").expect("the service has run");
    let sha = guest.run_ok(&format!("printf %s '{ANSWER}' | sha256sum | cut -d' ' -f1")).expect("hashed");
    assert!(seen.contains(&format!("{sha}  answer")), "{seen}");
    assert!(seen.lines().any(|line| line.ends_with("  token") && line.len() == 71), "{seen}");
    let refused = guest.run("runuser -u nobody -- cat /run/credentials/vault.service/token").expect("asked");
    assert!(!refused.is_ok(), "{}", refused.text());
    let found = guest
        .run_ok(&format!("grep -rlF '{ANSWER}' /etc /var /srv /root 2>/dev/null; journalctl --no-pager | grep -cF '{ANSWER}'; true"))
        .expect("searched");
    assert_eq!(found, "0", "a secret in a file or a log");
}

/// The other machine is this one under another address: what matters is the sandbox, the account and the stream.
fn replication_sends_ciphertext(guest: &Guest) {
    guest
        .run_ok(
            "set -e
             ip address add 10.8.2.9/32 dev lo
             useradd --create-home --shell /bin/sh receiver
             zfs create -o mountpoint=none rpool/copy
             zfs allow receiver create,mount,receive,mountpoint,canmount rpool/copy
             install -d -m 700 -o receiver -g receiver /home/receiver/.ssh
             install -m 600 -o receiver -g receiver /etc/kldload/replication/ssh_key.pub /home/receiver/.ssh/authorized_keys
             mkdir -p /run/sshd
             systemd-run --unit=receiver /usr/sbin/sshd -D -f /dev/null -o UsePAM=yes -o ListenAddress=10.8.2.9 -o AllowUsers=receiver -o PidFile=none",
        )
        .expect("there is somebody to send to");
    // All of it first, then what has changed.
    for name in ["now", "later"] {
        guest
            .run_ok(&format!("date >> /srv/vault/log; zfs snapshot rpool/srv/vault@{name}"))
            .expect("it changes");
        let log =
            "systemctl start kldload-replicate || journalctl --no-pager -u kldload-replicate | tail -30";
        let log = guest.run_for(log, BOOT).expect("it answers").text();
        let copy = guest.run("zfs list -H -o name -t snapshot -r rpool/copy").expect("it answers").text();
        assert!(copy.lines().any(|copied| copied == format!("rpool/copy/vault@{name}")), "{copy}\n{log}");
    }
    guest.run_ok("systemctl stop receiver").expect("nothing else listens any more");
    // The copy is of use only to who has the key.
    let state =
        guest.run_ok("zfs get -H -o value encryption,keystatus rpool/copy/vault").expect("it is there");
    assert_eq!(state, "aes-256-gcm\nunavailable");
    // The account may send, and nothing else.
    for command in [
        "zfs destroy rpool/srv/vault@now",
        "zfs snapshot rpool/srv/vault@evil",
        "zfs rollback rpool/srv/vault@later",
    ] {
        let refused = guest.run(&format!("runuser -u kldload-replicate -- {command}")).expect("asked");
        assert!(refused.error_text().contains("permission denied"), "{command}: {}", refused.error_text());
    }
}

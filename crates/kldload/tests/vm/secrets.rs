//! Secrets on a machine that runs: given by a person, used by a service, and nowhere in clear.

use kld_vm::Guest;

use crate::apply::kldload;
use crate::fixture::BOOT;
use crate::transcript::commands;

/// Given while the machine runs.
pub(crate) const LATE: &str = "better late than never, said the owl";

/// The value of a secret.
pub(crate) fn value(guest: &Guest, name: &str) -> String {
    guest
        .run_ok(&format!("systemd-creds decrypt --name={name} /etc/kldload/secrets/{name}.cred -"))
        .expect("it is unsealed")
}

/// The manifest asks for one more, nobody has it, a person gives it, and the service is started with it.
pub(crate) fn are_given_to_a_machine_that_runs(guest: &Guest) {
    the_page_says_what_works(guest);
    let manifest = include_str!("vault/appliance.manifest")
        .replace("  answer:  supplied\n", "  answer:  supplied\n  late:    supplied\n")
        .replace("token, answer\n", "token, answer, late\n")
        .replace("sha256sum token answer >", "sha256sum token answer late >");
    guest.write_file("/root/late.manifest", manifest.as_bytes(), 0o644).expect("written");
    for verb in ["plan", "apply --yes"] {
        let (status, _, error) = kldload(guest, &format!("{verb} /root/late.manifest"));
        assert_eq!(status, 1, "{error}");
        for part in ["the secret `late` is not on this machine", "`kldload secret set late FILE`"] {
            assert!(error.contains(part), "{error}");
        }
    }
    guest.write_file("/run/late", LATE.as_bytes(), 0o600).expect("written");
    let (status, _, error) = kldload(guest, "secret set late < /run/late && rm /run/late");
    assert_eq!(status, 0, "{error}");
    let sealed = "stat -c '%a %U' /etc/kldload/secrets /etc/kldload/secrets/late.cred";
    assert_eq!(guest.run_ok(sealed).expect("it is there"), "700 root\n600 root");
    let (status, said, error) = kldload(guest, "apply --yes /root/late.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    let seen = guest.run_ok("cat /srv/vault/seen").expect("the service has run");
    assert!(seen.lines().any(|line| line.ends_with("  late")), "{seen}");
    let (_, listed, _) = kldload(guest, "secret list");
    assert!(
        listed.lines().any(|line| line.starts_with("late ") && line.contains("vault.service")),
        "{listed}"
    );
    are_nowhere(guest);
    let (status, said, error) = kldload(guest, "undo --yes");
    assert_eq!(status, 0, "{said}\n{error}");
}

/// Every command of docs/secrets.md, in order.
fn the_page_says_what_works(guest: &Guest) {
    guest.write_file("/root/token.txt", b"of the page", 0o600).expect("written");
    let commands = commands(include_str!("../../../../docs/secrets.md"));
    assert!(commands.len() >= 4, "{commands:?}");
    for (command, _) in commands {
        let output = guest.run_for(&format!("cd /root && {command}"), BOOT).expect("it answers");
        assert!(matches!(output.status, 0 | 3), "{command}: {}", output.error_text());
    }
    guest.run_ok("rm /root/token.txt /etc/kldload/secrets/api-token.cred").expect("they were made");
}

/// Looks for each secret where it must not be; one that was put there is found. No value is on a command line of the search.
fn are_nowhere(guest: &Guest) {
    const SEARCH: &str = r#"
        set -e
        umask 077
        mkdir /run/search
        for sealed in /etc/kldload/secrets/*.cred; do
            name=$(basename "$sealed" .cred)
            systemd-creds decrypt --name="$name" "$sealed" "/run/search/$name"
        done
        head -c 30 /dev/urandom | base64 -w0 > /run/search/control
        cp /run/search/control /var/lib/kldload/control
        logger "$(cat /run/search/control)"
        journalctl --sync
        (exec -a "$(cat /run/search/control)" sleep 600) > /dev/null 2>&1 &
        control=$!
        sleep 1
        kldload plan --json /root/late.manifest > /run/plan.json || test $? = 3
        for value in /run/search/*; do
            name=$(basename "$value")
            if grep -aqF -f "$value" /proc/[0-9]*/cmdline 2>/dev/null; then echo "$name: command line"; fi
            if journalctl --no-pager -o export | grep -aqF -f "$value"; then echo "$name: journal"; fi
            if grep -raqF -f "$value" /run/plan.json; then echo "$name: plan"; fi
            if grep -raqF -f "$value" /var/lib/kldload; then echo "$name: memory"; fi
            if grep -raqF -f "$value" /etc /var/log; then echo "$name: file"; fi
        done
        ls /run/search | wc -l
        kill $control
        rm -r /run/search /run/plan.json /var/lib/kldload/control"#;
    let found = guest.run_for(SEARCH, BOOT).expect("it answers");
    assert!(found.is_ok(), "{}\n{}", found.text(), found.error_text());
    let found = found.text();
    // The journal as text may lie in /var/log.
    let lines: Vec<&str> = found.lines().filter(|line| *line != "control: file").collect();
    assert_eq!(lines, ["control: command line", "control: journal", "control: memory", "4"], "{found}");
}

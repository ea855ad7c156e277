//! `kldload upgrade` and `kldload dr` with a real shell, in a mount namespace: /var/lib and /run are empty and go with it.

use std::fs;
use std::path::Path;

use kld_host::{Cmd, Output};

const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");

/// What there is before each script: `kldload` as a command, `zfs` that knows a snapshot of a minute ago.
const BEFORE: &str = "
    set -e
    mount -t tmpfs none /var/lib
    mount -t tmpfs none /run
    mkdir /run/bin
    ln -s \"$1\" /run/bin/kldload
    created=$(($(date +%s) - 60))
    printf '#!/bin/sh\\nfor name; do :; done\\nprintf \"%%s@kept\\\\t%s\\\\n\" \"$name\"\\n' $created > /run/bin/zfs
    chmod +x /run/bin/zfs
    export PATH=/run/bin:$PATH
    set +e
";

/// Runs a script where `appliance.manifest` has these procedures; what it and its commands have written.
fn script(upgrade: &str, dr: &str, script: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");
    let recipe = fs::read_to_string(recipe).expect("the recipe is there");
    let (head, rest) = recipe.split_once("upgrade_procedure:\n").expect("it is there");
    let verify = rest.find("\nverify:").expect("it is there");
    let text = format!("{head}upgrade_procedure:\n{upgrade}\ndr_procedure:\n{dr}{}", &rest[verify..]);
    fs::write(dir.path().join("appliance.manifest"), text).expect("written");
    let script = format!("exec 2>&1\n{BEFORE}\n{script}");
    ran(dir.path(), &script)
}

fn ran(dir: &Path, script: &str) -> String {
    let cmd = Cmd::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", KLDLOAD])
        .cwd(dir);
    let Output { stdout, .. } = cmd.output().unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8_lossy(&stdout).into_owned()
}

fn holds(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
}

const PERSON: &str =
    "  RTO: 10 minutes  RPO: 1 hour\n  1. Boot it, then look\n  2. Verify: test -e /run/up\n";

#[test]
fn a_proof_that_fails_takes_its_branch_and_a_second_try_goes_on() {
    let upgrade = "  1. echo one; echo oops >&2\n  2. kldload recover\n  3. Verify: test -e /run/ok\n  4. If failed: touch /run/branch\n";
    let said = script(
        upgrade,
        PERSON,
        "kldload upgrade --yes --within 2; echo status $?; ls /run/branch
         touch /run/ok; kldload upgrade --yes --within 2 --from 3; echo status $?
         kldload upgrade --list; kldload upgrade --list --json
         kldload upgrade --report 9; echo status $?
         cd /var/lib/kldload/procedures; stat -c '%a %n' . 000001 000001/*; cat 000001/output/1
         kldload upgrade; echo status $?",
    );
    holds(
        &said,
        &[
            "[1/4] echo one; echo oops >&2\n",
            "  one\n",
            // The lock is this procedure's own: its steps may change the machine.
            "  nothing was interrupted\n",
            "upgrade 1 of webapp: failed\n",
            "   3  verify          failed",
            "   4  if failed: run  done",
            "error: upgrade 1 failed in step 3 `Verify: test -e /run/ok`: it ended with 1",
            "hint: mend it, then `kldload upgrade --from 3` goes on",
            "status 1\n/run/branch\n",
            "upgrade 2 of webapp: done\n",
            "goes on with 1, which began",
            "status 0\n",
            "\"kind\": \"report\"",
            "error: there is no upgrade 9\n\nhint: `kldload upgrade --list` lists them\nstatus 1\n",
            "700 .\n700 000001\n600 000001/journal\n700 000001/output\n600 000001/report.json\n600 000001/report.txt\n",
            "error: cannot read the manifest `appliance.manifest`",
        ],
    );
}

#[test]
fn a_recovery_is_measured_and_waits_for_nobody() {
    let said = script(
        "  1. true\n",
        PERSON,
        "kldload dr --yes; echo status $?
         touch /run/up; kldload dr --yes --from 2; echo status $?
         kldload dr --yes --answer failed; echo status $?
         kldload dr --yes --answer done --json | tail -n +2; echo; kldload dr; echo status $?",
    );
    holds(
        &said,
        &[
            "dr 1 of webapp: stopped\n",
            "error: step 1 `Boot it, then look` is for a person, and nobody is at the terminal",
            "hint: do it, then `kldload dr --from 2`; `--answer` answers for all such steps\nstatus 1\n",
            "target 10m 00s: met (from the start until step 2 held)\nRPO 1m 0",
            ", target 1h 00m: met (age of `rpool/srv/webapp@kept` at the start)\nstatus 0\n",
            "error: dr 3 failed in step 1 `Boot it, then look`: said so by a person",
            "\"verdict\": \"met\"",
            "error: nothing was done: not confirmed",
        ],
    );
}

/// Whoever obeyed the wrong name would roll back what is well, or go on behind what has failed.
#[test]
fn what_waits_for_a_person_is_named_and_nothing_else() {
    let upgrade = "  1. true\n  2. If failed: touch /run/rolled-back\n  3. Boot it, then look\n";
    let said = script(upgrade, PERSON, "kldload upgrade --yes; kldload upgrade --report 1");
    holds(
        &said,
        &[
            "error: step 3 `Boot it, then look` is for a person, and nobody is at the terminal\n\n\
             hint: do it, then `kldload upgrade --from 3 --answer done`",
            "  not taken ",
            "  waits for a person ",
        ],
    );
    let upgrade = "  1. false\n  2. Boot it, then look\n  3. If failed: call the owner\n";
    let said = script(upgrade, PERSON, "kldload upgrade --yes; echo status $?");
    holds(
        &said,
        &["error: step 1 `false` failed: it ended with 1\n  \
             step 3 `If failed: call the owner` is for a person, and nobody is at the terminal\n\n\
             hint: do what step 3 says; once it is mended, `kldload upgrade --from 1`"],
    );
}

#[test]
fn a_kill_in_a_step_is_remembered_and_two_do_not_mix() {
    let upgrade = "  1. true\n  2. touch /run/begun && exec sleep 600\n  3. touch /run/finished\n";
    let said = script(
        upgrade,
        PERSON,
        "kldload upgrade --yes & upgrade=$!
         until test -e /run/begun; do sleep 0.05; done
         kldload dr --yes; echo status $?
         kldload apply --yes appliance.manifest; echo status $?
         kill -KILL $upgrade; wait $upgrade
         kldload upgrade --report 1
         kldload upgrade --yes; echo status $?
         test -e /run/finished || echo not yet
         kldload upgrade --yes --from 9; echo status $?
         kldload upgrade --yes --from 3; echo status $?
         ls /run/finished",
    );
    holds(
        &said,
        &[
            "error: `/run/kldload-apply.lock` is locked by process",
            "(kldload upgrade)\n\nhint: wait until it has ended, or end it\nstatus 1\n",
            "upgrade 1 of webapp: interrupted\n",
            "   2  run  under way",
            "error: upgrade 1 was interrupted in step 2 `touch /run/begun && exec sleep 600`",
            "`kldload upgrade --from 2` does it again, `--from 3` goes on behind it, `--from 1` begins anew",
            "not yet\n",
            "error: there is no step 9: the `upgrade_procedure` has 3",
            "/run/finished\n",
        ],
    );
    assert_eq!(said.matches("is locked by process").count(), 2, "{said}");
}

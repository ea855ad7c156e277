//! The command line as a person meets it.

use kld_host::{Cmd, Output};

const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");

fn kldload(args: &[&str], stdin: &str) -> (i32, String, String) {
    let cmd =
        [1, 2, 3].into_iter().fold(Cmd::new(KLDLOAD).args(args).stdin_bytes(stdin.as_bytes()), Cmd::accept);
    let Output { code: status, stdout, stderr } = cmd.output().expect("it starts");
    (status, String::from_utf8_lossy(&stdout).into_owned(), stderr)
}

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");

#[test]
fn help_never_acts_and_shows_examples() {
    for verb in ["check", "explain", "build", "run", "manifest"] {
        let (status, stdout, stderr) = kldload(&[verb, "--help"], "");
        assert_eq!((status, stderr.as_str()), (0, ""), "{verb}");
        assert!(stdout.contains("Examples:"), "{verb}:\n{stdout}");
    }
    let (status, _, stderr) = kldload(&[], "");
    assert_eq!(status, 2, "{stderr}");
    let (status, _, stderr) = kldload(&["chek"], "");
    assert_eq!(status, 2);
    assert!(stderr.contains("check"), "a typo gets a suggestion:\n{stderr}");
}

#[test]
fn the_recipe_is_good_and_everything_in_it_is_explained() {
    let (status, _, stderr) = kldload(&["check", RECIPE], "");
    assert_eq!(status, 0, "{stderr}");
    let (status, stdout, _) = kldload(&["explain", "--layer", "firewall", RECIPE], "");
    assert_eq!(status, 0);
    assert!(stdout.contains("8000") && stdout.contains("51820"), "{stdout}");
    let (_, json, _) = kldload(&["explain", "--json", RECIPE], "");
    let rows: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(rows["kind"], "explanation");
    let rows = rows["items"].as_array().expect("an array");
    assert!(rows.len() > 100);
    assert!(
        rows.iter().all(|row| !row["reason"].as_str().unwrap_or_default().is_empty()),
        "every row has a reason"
    );
    let (status, unit, _) = kldload(&["explain", "--show", "/etc/systemd/system/webapp.service", RECIPE], "");
    assert_eq!(status, 0);
    assert!(unit.contains("ProtectSystem=strict"), "{unit}");
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let (status, stdout, stderr) = kldload(
        &["check", "-"],
        "name: x\ndistro: Debian 13\nprofile: server\nzfs_layout:\n  rpool/srv/x: recordsize=3k\n",
    );
    assert_eq!((status, stdout.as_str()), (1, ""));
    for part in ["-:5:", "recordsize=3k", "^", "hint:"] {
        assert!(stderr.contains(part), "{part}:\n{stderr}");
    }
    let (status, json, _) = kldload(&["check", "--json", "-"], "naem: x\n");
    assert_eq!(status, 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert!(json["items"].as_array().is_some_and(|items| !items.is_empty()), "{json}");
}

#[test]
fn what_cannot_be_built_is_said_before_anything_is_done() {
    let (status, _, stderr) =
        kldload(&["build", "--distro", "plan9", "--profile", "core", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 1);
    assert!(stderr.contains("`plan9`") && stderr.contains("debian-13"), "{stderr}");
    let (status, _, stderr) =
        kldload(&["build", "--distro", "debian", "--profile", "core", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 1);
    assert!(stderr.contains("/nonexistent/x.img") && stderr.contains("hint:"), "{stderr}");
    let (status, _, stderr) = kldload(&["build", RECIPE, "--size", "huge", "--output", "x.img"], "");
    assert_eq!(status, 2, "{stderr}");
    let (status, stdout, _) = kldload(&["build", RECIPE, "--dry-run", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 0);
    assert!(stdout.contains("rpool/ROOT/debian"), "{stdout}");
}

/// Every command that the README shows is one that exists and does what it says; what builds or boots is asked for
/// its plan here, and done for real by the tests in machines.
#[test]
fn the_commands_of_the_readme_work_as_written() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).expect("there is a README");
    let mut seen = 0;
    for line in readme.lines().filter(|line| line.starts_with("kldload ")) {
        let command = line.split('#').next().unwrap_or_default();
        let mut words: Vec<&str> = command.split_whitespace().skip(1).collect();
        match words[0] {
            "build" => words.push("--dry-run"),
            "run" => words = vec!["run", "--help"],
            _ => {}
        }
        let output = Cmd::new(KLDLOAD).cwd(root).args(&words).output();
        output.unwrap_or_else(|error| panic!("`{line}`: {error}"));
        seen += 1;
    }
    assert!(seen >= 7, "the README shows its commands");
}

//! Manifests that are refused: which problems are found is written in the table, how they are shown is compared as
//! text.

use expect_test::expect_file;
use kld_manifest::{Diagnostic, Severity, check, render};

const CASES: &str = include_str!("broken/cases.txt");

/// What a case does not write itself.
const BASE: [(&str, &str); 5] = [
    ("name", "name: webapp\n"),
    ("distro", "distro: Debian 13\n"),
    ("profile", "profile: server\n"),
    ("zfs_layout", "zfs_layout:\n  rpool/srv/data: recordsize=128k\n"),
    (
        "network_topology",
        "network_topology:\n  eth0: nothing\n  wg0: TCP 8000 web\n  wg1: TCP 9100\n  wg2: syncoid\n",
    ),
];

/// The codes a case must give, and its manifest. A line `key:NONE` leaves the base's section out.
fn cases() -> Vec<(Vec<&'static str>, String)> {
    let cases = CASES.split("=== ").skip(1).filter_map(|case| case.split_once('\n'));
    cases
        .map(|(codes, own)| {
            let missing = |key: &str| !own.lines().any(|line| line.starts_with(&format!("{key}:")));
            let mut manifest: String =
                own.lines().filter(|l| !l.ends_with(":NONE")).map(|l| format!("{l}\n")).collect();
            for (_, section) in BASE.iter().filter(|(key, _)| missing(key)) {
                manifest.push_str(section);
            }
            (codes.split(' ').collect(), manifest.replace("LONGLINE", &"a".repeat(9000)))
        })
        .collect()
}

fn refusals(manifest: &str) -> Vec<Diagnostic> {
    check(manifest).diagnostics.into_iter().filter(|d| d.severity != Severity::Warning).collect()
}

#[test]
fn every_broken_manifest_gives_exactly_its_errors() {
    let cases = cases();
    assert!(cases.len() >= 60);
    let mut wrong = String::new();
    for (codes, manifest) in cases {
        let found = refusals(&manifest);
        let mut expected = codes.clone();
        let mut codes_found: Vec<&str> = found.iter().map(|d| d.code).collect();
        expected.sort_unstable();
        codes_found.sort_unstable();
        if codes_found != expected || check(&manifest).appliance.is_some() {
            let shown: String = found.iter().map(|d| render("f", &manifest, d)).collect();
            wrong.push_str(&format!("expected {codes:?}\n{shown}\n"));
        }
    }
    assert_eq!(wrong, "");
}

#[test]
fn every_error_is_shown_with_its_words() {
    let mut page = String::new();
    for (_, manifest) in cases() {
        for diagnostic in refusals(&manifest) {
            page.push_str(
                &render("appliance.manifest", &manifest, &diagnostic).replace(&"a".repeat(9000), "a…"),
            );
            page.push('\n');
        }
    }
    expect_file!["broken/shown.txt"].assert_eq(&page);
}

#[test]
fn no_error_is_without_help() {
    for (_, manifest) in cases() {
        for diagnostic in refusals(&manifest) {
            assert!(
                diagnostic.hint.is_some()
                    || !diagnostic.related.is_empty()
                    || diagnostic.message.contains(": "),
                "{}",
                render("f", &manifest, &diagnostic)
            );
            assert!(!diagnostic.message.ends_with('.'), "{}", diagnostic.message);
        }
    }
}

#[test]
fn several_errors_are_told_at_once_by_line() {
    let manifest = "name: a_b\ndistro: Debian 13\nprofile: server\nzfs_layout:\n  rpool/a: recordsize=3k  atime=no\nservices:\n  - unit: x.service\n    listens: wg3:1\n    dataset: rpool/b\n";
    let places: Vec<(u32, &str)> = refusals(manifest).iter().map(|d| (d.span.line, d.code)).collect();
    assert_eq!(
        places,
        [
            (1, "invalid-name"),
            (5, "impossible-value"),
            (5, "impossible-value"),
            (8, "unknown-plane"),
            (9, "unknown-dataset")
        ]
    );
}

#[test]
fn a_secret_that_was_written_is_not_shown() {
    for manifest in [
        "secrets:\n  key: hunter2\n",
        "secrets:\n  key:\n    value: hunter2\n",
        "secrets:\n  key: |\n    hunter2\n",
        "users:\n  a: ssh_key=\"hunter2\"\n",
        "users:\n  a: password_hash=hunter2\n",
        "users:\n  a:\n    password: hunter2\n",
        "wireguard:\n  wg0: private_key=hunter2\n",
    ] {
        for diagnostic in refusals(manifest) {
            assert!(
                !diagnostic.message.contains("hunter2")
                    && !diagnostic.hint.unwrap_or_default().contains("hunter2")
            );
        }
    }
}

#[test]
fn system_accounts_that_would_have_the_numbers_of_people_are_refused() {
    let manifest = |count: usize| {
        let base = BASE.iter().map(|(_, section)| *section).collect::<String>();
        // People have numbers of their own, however many they are.
        let people = (0..count).map(|n| format!("  person{n:03}: admin\n")).collect::<String>();
        let system = (0..count).map(|n| format!("  daemon{n:03}: system\n")).collect::<String>();
        format!("{base}users:\n{people}{system}")
    };
    assert_eq!(refusals(&manifest(200)), []);
    let manifest = manifest(202);
    let [refused] = &refusals(&manifest)[..] else { panic!("{:?}", refusals(&manifest)) };
    assert_eq!(refused.code, "too-many-accounts");
    let shown = render("f", &manifest, refused);
    assert!(shown.contains("daemon200") && shown.contains("200 system accounts"), "{shown}");
}

//! ZFS prints values under names of its own, which differ from version to version: what a manifest states is set once, and no plan
//! asks for it again.

mod support;

use std::collections::BTreeMap;

use kld_engine::{Host as _, Wanted};
use kld_host::Cmd;
use kld_host::zfs::{create_cmd, get_cmd, set_cmd};
use support::fake::Fake;
use support::{RECIPE, apply, machine_for, plan_for, wanted};

const DATASET: &str = "rpool/srv/probe";
/// Set when a dataset is made, and never after.
const FIXED: [&str; 3] = ["casesensitivity", "normalization", "utf8only"];
/// Made by the node; where it is mounted is no value.
const OTHERS: [&str; 2] = ["encryption", "mountpoint"];

/// Every value that a manifest takes where it takes words, and those of each form where it takes more.
fn accepted() -> Vec<(String, String)> {
    let schema = kld_manifest::schema();
    let keys = &schema["properties"]["zfs_layout"]["additionalProperties"]["anyOf"][0]["properties"];
    let levels = |of: &str, levels: &[u32]| levels.iter().map(|level| format!("{of}-{level}")).collect();
    let mut compressions: Vec<String> = levels("zstd", &[1, 2, 3, 4, 19]);
    compressions.extend::<Vec<String>>(levels("zstd-fast", &[1, 2, 10, 1000]));
    compressions.extend::<Vec<String>>(levels("gzip", &[1, 6, 9]));
    compressions.extend(["on", "off", "lz4", "lzjb", "zle", "gzip", "zstd", "zstd-fast"].map(str::to_owned));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut accepted = Vec::new();
    for (name, key) in keys.as_object().expect("keys") {
        let values: Vec<String> = match (name.as_str(), key["enum"].as_array()) {
            (name, _) if OTHERS.contains(&name) => continue,
            (_, Some(values)) => {
                values.iter().filter_map(|value| value.as_str()).map(str::to_owned).collect()
            }
            ("compression", None) => compressions.clone(),
            ("recordsize", None) => words(&["512", "16k", "128K", "1M"]),
            ("special_small_blocks", None) => words(&["0", "16k"]),
            ("filesystem_limit" | "snapshot_limit", None) => words(&["none", "0", "100", "007"]),
            (_, None) => words(&["none", "1048576", "10M", "1g"]),
        };
        accepted.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    accepted
}

fn stating(property: &str, value: &str) -> Wanted {
    wanted(&RECIPE.replace(
        "  rpool/srv/webapp-db:",
        &format!("  {DATASET}:  {property}={value}\n  rpool/srv/webapp-db:"),
    ))
}

/// What a plan would change of this property of the dataset.
fn asks(fake: &Fake, property: &str, value: &str) -> Vec<String> {
    let plan = plan_for(fake, &stating(property, value));
    let summaries = plan.steps.into_iter().filter(|step| step.name == DATASET).map(|step| step.summary);
    summaries.filter(|summary| summary.starts_with(&format!("{property} "))).collect()
}

fn printed(fake: &Fake, property: &str) -> String {
    let said = fake.run(&get_cmd(DATASET, &[property], false)).expect("it is there");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split('\t').nth(2).expect("four columns").to_owned()
}

/// A machine with this version of ZFS that the recipe was applied to.
fn machine(version: &'static str) -> Fake {
    let recipe = wanted(RECIPE);
    let fake = machine_for(&[&recipe]);
    fake.zfs(version);
    apply(&fake, &plan_for(&fake, &recipe));
    fake
}

#[test]
fn a_value_that_was_set_is_not_asked_for_again() {
    let accepted = accepted();
    assert!(accepted.len() > 100, "{accepted:?}");
    let mut again = Vec::new();
    for version in ["2.1.11", "2.3.2", "2.4.4"] {
        let fake = machine(version);
        for (property, value) in &accepted {
            let pair = [(property.as_str(), value.as_str())];
            if FIXED.contains(&property.as_str()) {
                fake.run(&create_cmd(DATASET, &pair)).expect("made");
            } else {
                fake.run(&create_cmd(DATASET, &[])).expect("made");
                fake.run(&set_cmd(DATASET, &pair)).expect("set");
            }
            let asked = asks(&fake, property, value);
            if !asked.is_empty() {
                again.push(format!("{version}: {asked:?}"));
            }
            fake.run(&Cmd::new("zfs").args(["destroy", DATASET])).expect("it goes");
        }
    }
    assert!(again.is_empty(), "{again:#?}");
}

#[test]
fn what_is_settled_at_birth_is_refused_afterwards_with_the_way_there() {
    let fake = machine("2.3.2");
    for (property, is, wanted) in [
        ("casesensitivity", "sensitive", "insensitive"),
        ("normalization", "none", "formC"),
        ("utf8only", "off", "on"),
    ] {
        assert!(FIXED.contains(&property));
        fake.run(&create_cmd(DATASET, &[(property, is)])).expect("made");
        let error =
            kld_engine::plan(&fake, &stating(property, wanted), &BTreeMap::new()).expect_err("refused");
        let said = format!("{error} / {}", error.hint().unwrap_or_default());
        let want = format!(
            "`{DATASET}`: `{property}` is `{is}` since it was made, and cannot become `{wanted}` / make a dataset beside it and copy into it"
        );
        assert!(said.ends_with(&want), "{said}");
        fake.run(&Cmd::new("zfs").args(["destroy", DATASET])).expect("it goes");
    }
}

#[test]
fn how_attributes_are_stored_is_known_whatever_it_prints_as() {
    for (version, set, prints, differs) in [
        ("2.1.11", "dir", "on", "sa"),
        ("2.1.11", "sa", "sa", "dir"),
        ("2.3.2", "sa", "on", "dir"),
        ("2.3.2", "dir", "dir", "sa"),
        ("2.4.4", "on", "sa", "dir"),
        ("2.4.4", "dir", "dir", "sa"),
    ] {
        let fake = machine(version);
        fake.run(&create_cmd(DATASET, &[("xattr", set)])).expect("made");
        assert_eq!(printed(&fake, "xattr"), prints, "{version} {set}");
        assert_eq!(asks(&fake, "xattr", set), [""; 0], "{version} {set}");
        assert_eq!(asks(&fake, "xattr", "on"), [""; 0], "{version} {set}");
        let is = if differs == "sa" { "dir" } else { "sa" };
        assert_eq!(asks(&fake, "xattr", differs), [format!("xattr {is} → {differs}")], "{version} {set}");
    }
}

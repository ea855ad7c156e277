//! What somebody gave this machine at run time: systemd credentials, kernel arguments, a NoCloud seed volume.
//!
//! The seed volume is a file system labelled `cidata` with `user-data` and `meta-data` (cloud-init, *NoCloud*). Of
//! cloud-config, `ssh_authorized_keys` and the map `kldload:` are read; every other key is named and ignored. All of
//! this comes from outside: nothing here is trusted before [`super::operator`] and its like have checked it.

use super::operator::{RawOperator, parse_argument, parse_line};
use crate::machine::{Machine, MachineError};
use kld_host::Cmd;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const CREDENTIAL: &str = "kldload.operator";
const LABELS: [&str; 2] = ["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];
const MOUNT: &str = "/run/kldload/seed";
const DEADLINE: Duration = Duration::from_secs(30);
/// No key or list that a person gives is larger, in bytes.
const LIMIT: usize = 1 << 20;

/// What was given, unchecked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Supplied {
    pub(super) operators: Vec<RawOperator>,
    pub(super) host_name: Option<String>,
    pub(super) ssh_keys: Vec<String>,
}

/// Reads every source. A source that cannot be read is named in the second value; the others still count.
pub(super) fn gather(machine: &dyn Machine, credentials: Option<&Path>) -> (Supplied, Vec<String>) {
    let mut supplied = Supplied::default();
    let mut warnings = Vec::new();
    let mut take = |origin: &str, result: Result<RawOperator, String>| match result {
        Ok(operator) => Some(RawOperator { origin: origin.to_owned(), ..operator }),
        Err(reason) => {
            warnings.push(format!("{origin}: {reason}"));
            None
        }
    };
    if let Some(folder) = credentials
        && let Ok(Some(text)) = machine.read_text(folder.join(CREDENTIAL))
    {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let operators = lines.filter_map(|line| take("credential `kldload.operator`", parse_line(line)));
        supplied.operators.extend(operators);
    }
    let arguments = machine.read_text("/proc/cmdline").ok().flatten().unwrap_or_default();
    let arguments =
        arguments.split_ascii_whitespace().filter_map(|word| word.strip_prefix("kldload.operator="));
    supplied.operators.extend(arguments.filter_map(|text| take("kernel argument", parse_argument(text))));

    match read_volume(machine) {
        Ok(None) => {}
        Ok(Some((user_data, meta_data))) => {
            let (seed, notes) = parse_seed(&user_data, &meta_data);
            supplied.operators.extend(seed.operators);
            supplied.host_name = seed.host_name;
            supplied.ssh_keys = seed.ssh_keys;
            warnings.extend(notes);
        }
        Err(error) => warnings.push(format!("seed volume: {}", super::chain(&error))),
    }
    (supplied, warnings)
}

/// `user-data` and `meta-data` of the seed volume, if there is one.
fn read_volume(machine: &dyn Machine) -> Result<Option<(String, String)>, MachineError> {
    let Some(device) = LABELS.iter().find_map(|label| machine.resolve(Path::new(label))) else {
        return Ok(None);
    };
    machine.make_folder(Path::new(MOUNT))?;
    // The two kinds that NoCloud knows: no other file system's code is given bytes from outside.
    let options = ["-o", "ro,nosuid,nodev,noexec", "-t", "iso9660,vfat"];
    machine.run(Cmd::new("mount").args(options).arg(&device).arg(MOUNT).timeout(DEADLINE), &[])?;
    let read = |name: &str| machine.read_text(Path::new(MOUNT).join(name)).map(Option::unwrap_or_default);
    let texts = read("user-data").and_then(|user| Ok((user, read("meta-data")?)));
    machine.run(Cmd::new("umount").arg(MOUNT).timeout(DEADLINE), &[])?;
    texts.map(Some)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserData {
    kldload: Option<KldloadData>,
    ssh_authorized_keys: Vec<String>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KldloadData {
    operator: Vec<OperatorData>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

/// An operator, as a line or as a map.
#[derive(Deserialize)]
#[serde(untagged)]
enum OperatorData {
    Line(String),
    Map(OperatorMap),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorMap {
    plane: String,
    public_key: String,
    allowed_ips: OneOrMany,
    endpoint: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetaData {
    #[serde(rename = "local-hostname")]
    local_hostname: Option<String>,
}

/// Reads the texts of a seed volume.
fn parse_seed(user_data: &str, meta_data: &str) -> (Supplied, Vec<String>) {
    let mut supplied = Supplied::default();
    let mut warnings = Vec::new();
    let meta: MetaData = parse_yaml("meta-data", meta_data, &mut warnings);
    supplied.host_name = meta.local_hostname;

    let is_cloud_config = user_data.lines().next().is_some_and(|line| line.trim_end() == "#cloud-config");
    if !is_cloud_config {
        if !user_data.trim().is_empty() {
            warnings
                .push("user-data: its first line is not `#cloud-config`; nothing of it is used".to_owned());
        }
        return (supplied, warnings);
    }
    let user: UserData = parse_yaml("user-data", user_data, &mut warnings);
    supplied.ssh_keys = user.ssh_authorized_keys;
    let kldload = user.kldload.unwrap_or_default();
    for operator in kldload.operator {
        let raw = match operator {
            OperatorData::Line(line) => parse_line(&line),
            OperatorData::Map(map) => Ok(RawOperator {
                origin: String::new(),
                plane: map.plane,
                public_key: map.public_key,
                allowed_ips: match map.allowed_ips {
                    OneOrMany::One(text) => text.split(',').map(|ip| ip.trim().to_owned()).collect(),
                    OneOrMany::Many(all) => all,
                },
                endpoint: map.endpoint,
                name: map.name,
            }),
        };
        match raw {
            Ok(raw) => supplied.operators.push(RawOperator { origin: "user-data".to_owned(), ..raw }),
            Err(reason) => warnings.push(format!("user-data: {reason}")),
        }
    }
    let unknown = |path: &str, key: &String| {
        // A key of YAML may have any number of lines.
        let key = key.escape_debug().to_string();
        format!("user-data: kldload does not know `{path}{key:.64}`")
    };
    warnings.extend(user.others.keys().map(|key| unknown("", key)));
    warnings.extend(kldload.others.keys().map(|key| unknown("kldload.", key)));
    (supplied, warnings)
}

fn parse_yaml<T: Default + for<'de> Deserialize<'de>>(
    name: &str,
    text: &str,
    warnings: &mut Vec<String>,
) -> T {
    if text.trim().is_empty() {
        return T::default();
    }
    if text.len() > LIMIT {
        warnings.push(format!("{name}: more than {LIMIT} bytes"));
        return T::default();
    }
    serde_saphyr::from_str(text).unwrap_or_else(|error| {
        let reason = error.to_string();
        warnings.push(format!("{name}: {}", reason.lines().next().unwrap_or_default()));
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn cloud_config_is_read_and_what_is_not_ours_is_named() {
        let user_data = "#cloud-config\n\
            hostname: ignored\n\
            packages: [curl, vim]\n\
            ssh_authorized_keys:\n  - ssh-ed25519 AAAA ops@example.com\n\
            kldload:\n  colour: blue\n  operator:\n\
            \x20   - plane=wg0 public_key=KEY1 allowed_ips=10.8.0.2/32\n\
            \x20   - {plane: wg0, public_key: KEY2, allowed_ips: [10.8.0.3/32, 10.8.0.4/32], endpoint: 'host:51820', name: ops}\n\
            \x20   - {plane: wg1, public_key: KEY3, allowed_ips: '10.8.1.3/32, 10.8.1.4/32'}\n\
            \x20   - plane=wg0 nonsense\n";
        let (supplied, warnings) = parse_seed(user_data, "instance-id: i-1\nlocal-hostname: web1\n");
        expect![[r#"
            Supplied {
                operators: [
                    RawOperator {
                        origin: "user-data",
                        plane: "wg0",
                        public_key: "KEY1",
                        allowed_ips: [
                            "10.8.0.2/32",
                        ],
                        endpoint: None,
                        name: None,
                    },
                    RawOperator {
                        origin: "user-data",
                        plane: "wg0",
                        public_key: "KEY2",
                        allowed_ips: [
                            "10.8.0.3/32",
                            "10.8.0.4/32",
                        ],
                        endpoint: Some(
                            "host:51820",
                        ),
                        name: Some(
                            "ops",
                        ),
                    },
                    RawOperator {
                        origin: "user-data",
                        plane: "wg1",
                        public_key: "KEY3",
                        allowed_ips: [
                            "10.8.1.3/32",
                            "10.8.1.4/32",
                        ],
                        endpoint: None,
                        name: None,
                    },
                ],
                host_name: Some(
                    "web1",
                ),
                ssh_keys: [
                    "ssh-ed25519 AAAA ops@example.com",
                ],
            }
        "#]]
        .assert_debug_eq(&supplied);
        expect![[r#"
            [
                "user-data: `nonsense` is not `key=value`",
                "user-data: kldload does not know `hostname`",
                "user-data: kldload does not know `packages`",
                "user-data: kldload does not know `kldload.colour`",
            ]
        "#]]
        .assert_debug_eq(&warnings);
    }

    #[test]
    fn what_is_no_seed_gives_nothing_and_says_why() {
        for (user_data, meta_data) in [
            ("#!/bin/sh\nrm -rf /\n", ""),
            ("#cloud-config\nkldload: [\n", ""),
            ("#cloud-config\nkldload: 7\n", ""),
            ("#cloud-config\nkldload: {operator: [{plane: wg0}]}\n", ""),
            ("#cloud-config\nssh_authorized_keys: {a: b}\n", ""),
            ("", "local-hostname: [a]\n"),
            ("", "local-hostname: 'a\n"),
        ] {
            let (supplied, warnings) = parse_seed(user_data, meta_data);
            assert_eq!(supplied, Supplied::default(), "{user_data}{meta_data}");
            assert_eq!(warnings.len(), 1, "{user_data}{meta_data}: {warnings:?}");
        }
        assert_eq!(parse_seed("", ""), (Supplied::default(), vec![]));
        let (_, warnings) = parse_seed("#cloud-config\n\"two\\nlines\": x\n", "");
        assert_eq!(warnings, ["user-data: kldload does not know `two\\nlines`"]);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("#cloud-config\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let one = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", [one.as_str(); 10].join(",")));
        }
        let (_, warnings) = parse_seed(&text, "");
        assert!(!warnings.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in any::<String>()) {
            drop(parse_seed(&text, &text));
            drop(parse_seed(&format!("#cloud-config\n{text}"), &text));
            drop((parse_line(&text), parse_argument(&text)));
        }

        #[test]
        fn pieces_of_yaml_get_an_answer(
            pieces in proptest::collection::vec(
                prop::sample::select(vec![
                    "kldload:", "operator:", "ssh_authorized_keys:", "local-hostname:", "plane: wg0", "\n", "\n  ",
                    "\n    - ", " ", "{", "}", "[", "]", ", ", ": ", "&a ", "*a ", "!!binary ", "|\n", "'", "\"",
                    "? ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", "~", "1e999", "\t", "#", "\u{feff}", "é",
                ]),
                0..40,
            )
        ) {
            let text = format!("#cloud-config\n{}", pieces.concat());
            let (supplied, warnings) = parse_seed(&text, &text);
            prop_assert!(warnings.iter().all(|warning| !warning.contains('\n')), "{:?}", warnings);
            drop(supplied);
        }
    }
}

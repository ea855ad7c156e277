//! `zfs`: properties of datasets, making datasets, loading keys.
//!
//! Values are asked for in their exact form (`-p`: bytes, not `1.50G`) and tab-separated without a header (`-H`),
//! which `zfs(8)` promises to scripts.

mod diff;

use std::time::Duration;

pub use diff::{Change, ChangeKind, diff_cmd, parse_diff};

use crate::{Cmd, ParseError};

const DEADLINE: Duration = Duration::from_secs(30);

/// One property of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Property {
    /// `rpool/srv/webapp`.
    pub dataset: String,
    /// `recordsize`.
    pub name: String,
    /// `131072`; `-` when the dataset has none.
    pub value: String,
    /// `local`, `default`, `inherited from rpool`, `-` for those that cannot be set.
    pub source: String,
}

impl Property {
    /// Whether somebody has set it on this dataset, here or where it was sent from.
    pub fn is_set(&self) -> bool {
        matches!(self.source.as_str(), "local" | "received")
    }
}

/// The pool of a dataset, or of a snapshot.
pub fn pool_of(name: &str) -> &str {
    name.split(['/', '@']).next().unwrap_or_default()
}

/// Properties (`["all"]` for every one) of a dataset, or of it and all datasets below; not of their snapshots, which may
/// be thousands.
pub fn get_cmd(dataset: &str, properties: &[&str], recursive: bool) -> Cmd {
    let depth: &[&str] = if recursive { &["-Hpr", "-t", "filesystem,volume"] } else { &["-Hp"] };
    Cmd::new("zfs")
        .arg("get")
        .args(depth)
        .args(["-o", "name,property,value,source"])
        .arg(properties.join(","))
        .arg(dataset)
        .timeout(DEADLINE)
}

/// Sets properties, all or none.
pub fn set_cmd(dataset: &str, properties: &[(&str, &str)]) -> Cmd {
    let pairs = properties.iter().map(|(name, value)| format!("{name}={value}"));
    Cmd::new("zfs").arg("set").args(pairs).arg(dataset).timeout(DEADLINE)
}

/// Makes a file system with these properties.
pub fn create_cmd(dataset: &str, properties: &[(&str, &str)]) -> Cmd {
    let pairs = properties.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
    Cmd::new("zfs").arg("create").args(pairs).arg(dataset).timeout(DEADLINE)
}

/// Loads the key of an encrypted dataset from its `keylocation`.
pub fn load_key_cmd(dataset: &str) -> Cmd {
    Cmd::new("zfs").args(["load-key", dataset]).timeout(DEADLINE)
}

/// Asks whether the key at its `keylocation` is that of an encrypted dataset, whether it is loaded or not.
pub fn check_key_cmd(dataset: &str) -> Cmd {
    Cmd::new("zfs").args(["load-key", "-n", dataset]).timeout(DEADLINE)
}

/// Makes the key at its `keylocation` the key of an encrypted dataset whose old key is loaded. `format` changes in the same
/// instant: `keyformat` and `keylocation`. A `keylocation` of `prompt` is standard input, one line of it.
pub fn change_key_cmd(dataset: &str, format: &[(&str, &str)]) -> Cmd {
    let pairs = format.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
    Cmd::new("zfs").arg("change-key").args(pairs).arg(dataset).timeout(DEADLINE)
}

/// Mounts one dataset.
pub fn mount_cmd(dataset: &str) -> Cmd {
    Cmd::new("zfs").args(["mount", dataset]).timeout(DEADLINE)
}

/// Reads the output of [`get_cmd`].
///
/// # Errors
/// When a line has not four columns.
pub fn parse_get(text: &str) -> Result<Vec<Property>, ParseError> {
    let property = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [dataset, name, value, source] = columns[..] else {
            return Err(ParseError { tool: "zfs get", reason: format!("four columns expected in `{line}`") });
        };
        let [dataset, name, value, source] = [dataset, name, value, source].map(str::to_owned);
        Ok(Property { dataset, name, value, source })
    };
    text.lines().map(property).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_what_stands_before_the_first_dataset() {
        assert_eq!(["t/a/b", "t@x", "t"].map(pool_of), ["t"; 3]);
    }
    use expect_test::expect;

    #[test]
    fn commands_are_what_an_admin_would_type() {
        let commands = [
            get_cmd("rpool", &["all"], true),
            get_cmd("rpool/srv", &["used", "quota"], false),
            set_cmd("rpool/srv", &[("quota", "10G"), ("org.kldload:layer", "storage data")]),
            create_cmd("rpool/srv/a", &[("recordsize", "8k"), ("mountpoint", "/srv/a")]),
            load_key_cmd("rpool/srv"),
            check_key_cmd("rpool/srv"),
            change_key_cmd("rpool/srv", &[]),
            change_key_cmd("rpool/srv", &[("keyformat", "passphrase"), ("keylocation", "prompt")]),
            mount_cmd("rpool/srv"),
            diff_cmd("rpool/srv@monday", "rpool/srv"),
        ];
        expect![[r#"
            zfs get -Hpr -t filesystem,volume -o name,property,value,source all rpool
            zfs get -Hp -o name,property,value,source used,quota rpool/srv
            zfs set quota=10G 'org.kldload:layer=storage data' rpool/srv
            zfs create -o recordsize=8k -o mountpoint=/srv/a rpool/srv/a
            zfs load-key rpool/srv
            zfs load-key -n rpool/srv
            zfs change-key rpool/srv
            zfs change-key -o keyformat=passphrase -o keylocation=prompt rpool/srv
            zfs mount rpool/srv
            zfs diff -FH rpool/srv@monday rpool/srv"#]]
        .assert_eq(&commands.map(|cmd| cmd.to_string()).join("\n"));
    }

    #[test]
    fn reads_get() {
        let text =
            "rpool\trecordsize\t131072\tdefault\nrpool/a b\tcompression\tzstd-3\tinherited from rpool\n";
        let properties = parse_get(text).expect("four columns");
        assert_eq!(properties.len(), 2);
        assert_eq!(properties[1].dataset, "rpool/a b");
        assert_eq!(properties[1].source, "inherited from rpool");
        assert!(parse_get("cannot open 'tank': dataset does not exist").is_err());
    }
}

//! `zfs`: properties of datasets, making datasets, loading keys.
//!
//! Values are asked for in their exact form (`-p`: bytes, not `1.50G`) and tab-separated without a header (`-H`),
//! which `zfs(8)` promises to scripts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Cmd, ParseError, ToolError};

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

/// Properties (`["all"]` for every one) of a dataset, or of it and all below.
pub fn get_cmd(dataset: &str, properties: &[&str], recursive: bool) -> Cmd {
    let depth = if recursive { "-Hpr" } else { "-Hp" };
    let columns = ["get", depth, "-o", "name,property,value,source"];
    Cmd::new("zfs").args(columns).arg(properties.join(",")).arg(dataset).timeout(DEADLINE)
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

/// What a node asks of `zfs`.
pub trait Zfs {
    /// Properties of one dataset.
    ///
    /// # Errors
    /// When there is no such dataset, or `zfs` does not answer.
    fn get(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Property>, ToolError>;

    /// Sets properties.
    ///
    /// # Errors
    /// When ZFS refuses one; then none is set.
    fn set(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError>;

    /// Makes a file system.
    ///
    /// # Errors
    /// When it exists, its parent does not, or ZFS refuses a property.
    fn create(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError>;

    /// Loads a key.
    ///
    /// # Errors
    /// When the dataset has none, or it is loaded, or its place cannot be read.
    fn load_key(&self, dataset: &str) -> Result<(), ToolError>;
}

/// The real `zfs`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealZfs;

impl Zfs for RealZfs {
    fn get(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Property>, ToolError> {
        Ok(parse_get(&get_cmd(dataset, properties, false).stdout_string()?)?)
    }

    fn set(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError> {
        Ok(set_cmd(dataset, properties).run()?)
    }

    fn create(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError> {
        Ok(create_cmd(dataset, properties).run()?)
    }

    fn load_key(&self, dataset: &str) -> Result<(), ToolError> {
        Ok(load_key_cmd(dataset).run()?)
    }
}

/// Datasets in memory: local properties are inherited by what is below; `keystatus` follows [`Zfs::load_key`].
#[derive(Debug, Default)]
pub struct FakeZfs {
    datasets: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

impl FakeZfs {
    /// A pool with its root dataset only.
    pub fn with_pool(pool: &str) -> Self {
        Self { datasets: Mutex::new(BTreeMap::from([(pool.to_owned(), BTreeMap::new())])) }
    }

    fn datasets(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        self.datasets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(reason: String) -> ToolError {
    ParseError { tool: "zfs", reason }.into()
}

impl Zfs for FakeZfs {
    fn get(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Property>, ToolError> {
        let datasets = self.datasets();
        if !datasets.contains_key(dataset) {
            return Err(refused(format!("dataset `{dataset}` does not exist")));
        }
        let ancestors =
            || std::iter::successors(Some(dataset), |name| name.rsplit_once('/').map(|(up, _)| up));
        let find = |name: &str| {
            ancestors().find_map(|from| datasets.get(from)?.get(name).map(|value| (from, value.clone())))
        };
        let property = |&name: &&str| {
            let (value, source) = match find(name) {
                Some((from, value)) if from == dataset => (value, "local".to_owned()),
                Some((from, value)) => (value, format!("inherited from {from}")),
                None => ("-".to_owned(), "-".to_owned()),
            };
            Property { dataset: dataset.to_owned(), name: name.to_owned(), value, source }
        };
        Ok(properties.iter().map(property).collect())
    }

    fn set(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError> {
        let mut datasets = self.datasets();
        let found = datasets.get_mut(dataset);
        let found = found.ok_or_else(|| refused(format!("dataset `{dataset}` does not exist")))?;
        found.extend(properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        Ok(())
    }

    fn create(&self, dataset: &str, properties: &[(&str, &str)]) -> Result<(), ToolError> {
        let mut datasets = self.datasets();
        let parent = dataset.rsplit_once('/').map(|(parent, _)| parent);
        if datasets.contains_key(dataset) {
            return Err(refused(format!("dataset `{dataset}` exists")));
        }
        if parent.is_none_or(|parent| !datasets.contains_key(parent)) {
            return Err(refused(format!("parent of `{dataset}` does not exist")));
        }
        let properties =
            properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        datasets.insert(dataset.to_owned(), properties);
        Ok(())
    }

    fn load_key(&self, dataset: &str) -> Result<(), ToolError> {
        let mut datasets = self.datasets();
        let found = datasets.get_mut(dataset);
        let found = found.ok_or_else(|| refused(format!("dataset `{dataset}` does not exist")))?;
        match found.get("keystatus").map(String::as_str) {
            Some("unavailable") => drop(found.insert("keystatus".to_owned(), "available".to_owned())),
            Some(_) => return Err(refused(format!("key of `{dataset}` is loaded already"))),
            None => return Err(refused(format!("`{dataset}` is not encrypted"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn commands_are_what_an_admin_would_type() {
        let commands = [
            get_cmd("rpool", &["all"], true),
            get_cmd("rpool/srv", &["used", "quota"], false),
            set_cmd("rpool/srv", &[("quota", "10G"), ("org.kldload:layer", "storage data")]),
            create_cmd("rpool/srv/a", &[("recordsize", "8k"), ("mountpoint", "/srv/a")]),
            load_key_cmd("rpool/srv"),
            mount_cmd("rpool/srv"),
        ];
        expect![[r#"
            zfs get -Hpr -o name,property,value,source all rpool
            zfs get -Hp -o name,property,value,source used,quota rpool/srv
            zfs set quota=10G 'org.kldload:layer=storage data' rpool/srv
            zfs create -o recordsize=8k -o mountpoint=/srv/a rpool/srv/a
            zfs load-key rpool/srv
            zfs mount rpool/srv"#]]
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

    #[test]
    fn the_fake_behaves_like_a_pool() {
        let zfs = FakeZfs::with_pool("rpool");
        assert!(zfs.create("rpool/srv/a", &[]).is_err());
        zfs.create("rpool/srv", &[("compression", "zstd-3"), ("keystatus", "unavailable")])
            .expect("parent is there");
        zfs.create("rpool/srv/a", &[("recordsize", "8192")]).expect("parent is there");
        assert!(zfs.create("rpool/srv/a", &[]).is_err());
        let got = zfs.get("rpool/srv/a", &["recordsize", "compression", "quota"]).expect("it is there");
        let got: Vec<(&str, &str)> = got.iter().map(|one| (&*one.value, &*one.source)).collect();
        assert_eq!(got, [("8192", "local"), ("zstd-3", "inherited from rpool/srv"), ("-", "-")]);
        zfs.load_key("rpool/srv").expect("not loaded yet");
        assert!(zfs.load_key("rpool/srv").is_err());
        assert!(zfs.load_key("rpool").is_err());
        assert!(zfs.get("tank", &["used"]).is_err());
        assert!(zfs.set("tank", &[("quota", "1G")]).is_err());
    }
}

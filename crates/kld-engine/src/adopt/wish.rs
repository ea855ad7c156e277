//! Whether a directory can become a dataset, and which. Looks, and touches nothing.

use std::collections::BTreeMap;

use kld_host::zpool::{self, Imported};
use kld_host::{Cmd, zfs};

use super::compare::Survey;
use super::users::User;
use super::{AdoptError, Ground};
use crate::host::{HostError, read};
use kld_host::mounts::{self, is_within};

/// What somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The directory.
    pub path: String,
    /// The dataset, when it is not the one below that of the directory above.
    pub dataset: Option<String>,
    /// Properties of the dataset.
    pub properties: Vec<(String, String)>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// The directory.
    pub path: String,
    /// The dataset to be made.
    pub dataset: String,
    /// Its properties.
    pub properties: Vec<(String, String)>,
    /// What is to be copied.
    pub survey: Survey,
    /// Bytes that the dataset could take.
    pub available: u64,
    /// Who uses the directory now.
    pub users: Vec<User>,
}

/// Directories that the machine is made of: they and everything below them stay where they are.
const SYSTEM: [&str; 17] = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/kldload",
    "/var/lib/systemd",
];
/// These alone: what is below them may move.
const SYSTEM_ITSELF: [&str; 5] = ["/", "/usr", "/usr/local", "/var", "/var/lib"];

/// Properties that are ours to set, and what to do instead.
const OURS: [(&str, &str); 5] = [
    ("mountpoint", "it is the directory"),
    ("canmount", "it is switched on when everything is copied"),
    (
        "encryption",
        "adopt into a dataset whose parent is encrypted: `--dataset PARENT/NAME` inherits its key",
    ),
    ("keyformat", "the key is that of the parent"),
    ("keylocation", "the key is that of the parent"),
];

/// What `zfs` writes for each dataset.
pub(crate) type Datasets = BTreeMap<String, BTreeMap<String, String>>;

/// Looks at everything that could be in the way.
pub(super) fn look(ground: &dyn Ground, wish: &Wish, person: Option<u32>) -> Result<Prospect, AdoptError> {
    let path = wish.path.as_str();
    check_path(ground, path, person)?;
    check_mounts(ground, path)?;
    for (property, value) in &wish.properties {
        if let Some((_, why)) = OURS.iter().find(|(name, _)| name == property) {
            return Err(refuse(path, format!("`{property}={value}` cannot be given"), *why));
        }
    }
    let datasets = datasets(ground)?;
    let dataset = match &wish.dataset {
        Some(name) => name.clone(),
        None => derive(path, &datasets)?,
    };
    let parent = check_dataset(path, &dataset, &datasets)?;
    let survey = ground.survey(path)?;
    if let Some(file) = survey.linked_outside.first() {
        let reason = format!("`{file}` has a further name outside of it, and would become two files");
        let hint = format!("`find / -xdev -samefile {path}/{file}` shows its names; keep one of them");
        return Err(refuse(path, reason, hint));
    }
    let available = parent.get("available").and_then(|text| text.parse().ok()).unwrap_or(0);
    let needed = needed(&survey);
    if needed > available {
        let reason = format!("it needs {needed} bytes, and `{dataset}` would have {available}");
        return Err(refuse(path, reason, "make room in the pool, or choose another with `--dataset`"));
    }
    let users = super::units::users(ground, path)?;
    let properties = wish.properties.clone();
    Ok(Prospect { path: path.to_owned(), dataset, properties, survey, available, users })
}

/// Copies take a little more or less than the original: other block sizes, other compression.
fn needed(survey: &Survey) -> u64 {
    survey.bytes + survey.bytes / 20 + survey.entries * 512 + (16 << 20)
}

pub(crate) fn refuse(path: &str, reason: impl Into<String>, hint: impl Into<String>) -> AdoptError {
    AdoptError::Refused { path: path.to_owned(), reason: reason.into(), hint: hint.into() }
}

/// A path that may be the mount point of a dataset.
pub(crate) fn check_name(path: &str) -> Result<(), AdoptError> {
    let plain = path == "/"
        || (path.starts_with('/')
            && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !path.chars().any(char::is_control));
    if !plain {
        return Err(refuse(path, "it is not a plain absolute path", "write it as `/srv/app`"));
    }
    let below_usr = is_within(path, "/usr") && !is_within(path, "/usr/local");
    if SYSTEM_ITSELF.contains(&path) || below_usr || SYSTEM.iter().any(|of| is_within(path, of)) {
        let hint = "directories of data can be datasets: those of services, of people, of containers";
        return Err(refuse(path, "it is a part of the operating system", hint));
    }
    Ok(())
}

fn check_path(ground: &dyn Ground, path: &str, person: Option<u32>) -> Result<(), AdoptError> {
    check_name(path)?;
    match ground.resolve(path)? {
        None => return Err(refuse(path, "it is not there", format!("`kdir {path}` makes a dataset there"))),
        Some(real) if real != path => {
            return Err(refuse(path, format!("it leads to `{real}`"), format!("`kldload adopt {real}`")));
        }
        Some(_) => {}
    }
    if !ground.is_directory(path)? {
        return Err(refuse(path, "it is not a directory", "adopt the directory that it lies in"));
    }
    if let Some((reason, hint)) = super::above::is_of_others(ground, path, person)? {
        return Err(refuse(path, reason, hint));
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.len() > 200 {
        return Err(refuse(
            path,
            "its name is too long for a second one beside it",
            "give it a shorter name",
        ));
    }
    Ok(())
}

fn check_mounts(ground: &dyn Ground, path: &str) -> Result<(), AdoptError> {
    let mounts = super::mounts_of(ground)?;
    if let Some(mount) = mounts::mounted_on(&mounts, path) {
        let reason = format!("`{}` is mounted on it already", mount.source);
        return Err(refuse(path, reason, format!("`findmnt {path}` shows it")));
    }
    if let Some(mount) = mounts.iter().find(|mount| is_within(&mount.point, path)) {
        let reason = format!("`{}` is mounted inside of it, on `{}`", mount.source, mount.point);
        return Err(refuse(
            path,
            reason,
            format!("`umount {}` first, and mount it again afterwards", mount.point),
        ));
    }
    Ok(())
}

/// Every file system of the pools that answer: one that is suspended would keep the others from being told.
pub(crate) fn datasets(ground: &dyn Ground) -> Result<Datasets, HostError> {
    let state = |name: &str| read(ground, &zpool::state_file(name)).map(|text| text.map(String::into_bytes));
    let pools = zpool::imported_of(ground.list(zpool::KSTAT)?, state)?;
    let cmd = Cmd::new("zfs")
        .args(["get", "-Hp", "-t", "filesystem", "-o", "name,property,value,source"])
        .arg("mountpoint,canmount,available");
    let cmd = match pools.iter().all(Imported::answers) {
        true => cmd,
        false => {
            let well: Vec<&str> =
                pools.iter().filter(|pool| pool.answers()).map(|pool| pool.name.as_str()).collect();
            if well.is_empty() {
                return Ok(Datasets::new());
            }
            cmd.arg("-r").args(well)
        }
    };
    let text = String::from_utf8_lossy(&ground.run(&cmd)?.stdout).into_owned();
    let mut datasets = Datasets::new();
    for property in zfs::parse_get(&text)? {
        datasets.entry(property.dataset).or_default().insert(property.name, property.value);
    }
    Ok(datasets)
}

/// `/srv/app` below the dataset of `/srv`.
fn derive(path: &str, datasets: &Datasets) -> Result<String, AdoptError> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = if above.is_empty() { "/" } else { above };
    let of =
        |properties: &BTreeMap<String, String>| properties.get("mountpoint").is_some_and(|at| at == above);
    let found: Vec<&str> =
        datasets.iter().filter(|(_, own)| of(own)).map(|(name, _)| name.as_str()).collect();
    let hint = format!("name the dataset: `kldload adopt {path} --dataset POOL/…/{name}`");
    match found[..] {
        // A boot environment's content goes with it.
        [one] if above != "/" => Ok(format!("{one}/{name}")),
        [] => Err(refuse(path, format!("no dataset has `{above}` as its mount point"), hint)),
        [..] if above == "/" => {
            Err(refuse(path, "a dataset below a boot environment would go with it", hint))
        }
        [..] => {
            Err(refuse(path, format!("`{}` have `{above}` as their mount point", found.join("`, `")), hint))
        }
    }
}

/// The dataset can be made, and nothing else is mounted there one day; gives its parent.
pub(crate) fn check_dataset<'a>(
    path: &str,
    dataset: &str,
    datasets: &'a Datasets,
) -> Result<&'a BTreeMap<String, String>, AdoptError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.: /".contains(c);
    if !dataset.chars().all(valid) || dataset.split('/').any(str::is_empty) {
        let hint =
            "letters, digits, spaces and `-_.:` are allowed between the slashes; `--dataset` names another";
        return Err(refuse(path, format!("`{dataset}` cannot be the name of a dataset"), hint));
    }
    if datasets.contains_key(dataset) {
        let hint = format!("`zfs list {dataset}` shows it; `--dataset` names another");
        return Err(refuse(path, format!("the dataset `{dataset}` exists"), hint));
    }
    let clashes = |own: &BTreeMap<String, String>| {
        own.get("mountpoint").is_some_and(|at| at == path)
            && own.get("canmount").is_none_or(|can| can != "off")
    };
    if let Some((other, _)) = datasets.iter().find(|(_, own)| clashes(own)) {
        let hint = format!("`zfs set mountpoint=none {other}` when it has no business there");
        return Err(refuse(path, format!("it is the mount point of the dataset `{other}`"), hint));
    }
    let parent = dataset.rsplit_once('/').map_or("", |(parent, _)| parent);
    datasets.get(parent).ok_or_else(|| {
        let hint = format!("`zfs create -p -o canmount=off {parent}` makes it");
        refuse(path, format!("there is no dataset `{parent}` to make `{dataset}` in"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datasets(of: &[(&str, &str, &str)]) -> Datasets {
        let own = |mountpoint: &str, canmount: &str| {
            let pairs = [("mountpoint", mountpoint), ("canmount", canmount)];
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect()
        };
        of.iter()
            .map(|(name, mountpoint, canmount)| ((*name).to_owned(), own(mountpoint, canmount)))
            .collect()
    }

    #[test]
    fn a_dataset_is_found_by_the_directory_above() {
        let all = datasets(&[
            ("rpool", "none", "off"),
            ("rpool/ROOT/debian", "/", "noauto"),
            ("rpool/srv", "/srv", "off"),
            ("rpool/twice", "/data", "off"),
            ("tank", "/data", "on"),
        ]);
        let said = |path: &str| match derive(path, &all) {
            Ok(name) => name,
            Err(AdoptError::Refused { reason, .. }) => reason,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(said("/srv/app"), "rpool/srv/app");
        assert_eq!(said("/srv/app/below"), "no dataset has `/srv/app` as its mount point");
        assert_eq!(said("/media"), "a dataset below a boot environment would go with it");
        assert_eq!(said("/data/x"), "`rpool/twice`, `tank` have `/data` as their mount point");
        let check = |path, dataset| match check_dataset(path, dataset, &all) {
            Ok(_) => "good".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(check("/srv/app", "rpool/srv/app"), "good");
        for (path, dataset, want) in [
            ("/srv/app", "tank", "exists"),
            ("/srv/app", "tank/größe", "cannot be the name"),
            ("/srv/app", "tank//b", "cannot be the name"),
            ("/srv/app", "rpool/new/app", "there is no dataset `rpool/new`"),
            ("/data", "rpool/srv/data", "it is the mount point of the dataset"),
        ] {
            let said = check(path, dataset);
            assert!(said.contains(want), "{path} {dataset}: {said}");
        }
    }
}

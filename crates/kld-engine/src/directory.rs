//! A directory that is made as a dataset: which one, below which, and how.
//!
//! The dataset is the one below that whose mount point is nearest above, mounted or not: `rpool/srv` for `/srv/app`. Never
//! below a system, which would take it along when it goes back: then it is the pool's own, by its path.

use std::fmt;

use kld_host::{Cmd, mounts, zfs};

use crate::adopt::wish::{self, Datasets};
use crate::adopt::{AdoptError, Ground, mounts_of};
use crate::host::{Entry, HostError, Node};

/// Why it cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Something is in the way: nothing was touched.
    #[error("cannot make `{path}` a dataset: {reason}")]
    Refused {
        /// The directory.
        path: String,
        /// Why not.
        reason: String,
        /// What the person can do.
        hint: String,
    },
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl DirectoryError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Host(error) => error.hint(),
        }
    }
}

impl From<AdoptError> for DirectoryError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Refused { path, reason, hint } => Self::Refused { path, reason, hint },
            AdoptError::Host(error) => Self::Host(error),
            other => Self::Refused {
                path: String::new(),
                hint: other.hint().unwrap_or_default(),
                reason: other.to_string(),
            },
        }
    }
}

fn refuse(path: &str, reason: impl Into<String>, hint: impl Into<String>) -> DirectoryError {
    DirectoryError::Refused { path: path.to_owned(), reason: reason.into(), hint: hint.into() }
}

/// A dataset that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub dataset: String,
    /// What is set on it.
    pub properties: Vec<(String, String)>,
}

impl Made {
    /// Makes it.
    pub fn command(&self) -> Cmd {
        let properties: Vec<(&str, &str)> =
            self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        zfs::create_cmd(&self.dataset, &properties)
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command().fmt(f)
    }
}

/// Where a dataset for a directory belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Datasets between it and what is there: they hold nothing, and are not mounted.
    pub parents: Vec<Made>,
    /// The dataset, with its mount point where it would inherit another.
    pub own: Made,
}

/// A directory that can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The directory.
    pub path: String,
    /// What is made for it.
    pub place: Place,
    /// The directory as it is: the dataset gets its owner and its mode.
    pub present: Option<Entry>,
    /// There is something in it: it is to be adopted.
    pub is_full: bool,
}

impl Directory {
    /// Looks whether and where it can be made. `dataset` is a name that somebody prefers; with `parents`, the directories
    /// above need not be there; with `adopt`, files may be in it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn look(
        ground: &dyn Ground,
        path: &str,
        dataset: Option<&str>,
        parents: bool,
        adopt: bool,
    ) -> Result<Self, DirectoryError> {
        wish::check_name(path)?;
        let above =
            path.rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
        for at in [above, path] {
            match ground.resolve(at)? {
                Some(real) if real != at => {
                    let there =
                        real.trim_end_matches('/').to_owned() + path.strip_prefix(at).unwrap_or_default();
                    return Err(refuse(path, format!("`{at}` leads to `{real}`"), format!("`kdir {there}`")));
                }
                Some(_) if !ground.is_directory(at)? => {
                    return Err(refuse(path, format!("`{at}` is not a directory"), "choose another name"));
                }
                None if at == above && !parents => {
                    let hint = "`-p` makes what is missing; or is it a slip of the pen?";
                    return Err(refuse(path, format!("`{above}` is not there"), hint));
                }
                _ => {}
            }
        }
        let mounts = mounts_of(ground)?;
        if let Some(mount) = mounts::mounted_on(&mounts, path) {
            let reason = format!("`{}` is mounted on it already", mount.source);
            return Err(refuse(path, reason, format!("`zfs list {}` shows it", mount.source)));
        }
        let present = ground.entry(path)?;
        let is_full = present.is_some() && !ground.list(path)?.is_empty();
        if is_full && !adopt {
            let hint = format!("`kdir --adopt {path}` makes a dataset of it with everything in it");
            return Err(refuse(path, "files are in it", hint));
        }
        let mut datasets = wish::datasets(ground)?;
        let root = mounts::mounted_on(&mounts, "/").filter(|mount| mount.kind == "zfs");
        let place = match dataset {
            Some(dataset) => named(path, dataset, &datasets),
            None => place(path, &datasets, root.map(|mount| mount.source.as_str()))?,
        };
        for made in &place.parents {
            datasets.insert(made.dataset.clone(), made.properties.iter().cloned().collect());
        }
        wish::check_dataset(path, &place.own.dataset, &datasets)?;
        Ok(Self { path: path.to_owned(), place, present, is_full })
    }

    /// Makes the datasets above it that are missing. They hide nothing, and stay when something fails later.
    ///
    /// # Errors
    /// When ZFS refuses.
    pub fn make_parents(&self, ground: &dyn Ground) -> Result<(), DirectoryError> {
        for made in &self.place.parents {
            ground.run(&made.command())?;
        }
        Ok(())
    }

    /// Makes it, with these properties besides, and with the owner and the mode of the directory that was there.
    ///
    /// # Errors
    /// When ZFS refuses.
    pub fn make(&self, ground: &dyn Ground, properties: &[(String, String)]) -> Result<(), DirectoryError> {
        self.make_parents(ground)?;
        ground.run(&self.made(properties).command())?;
        match &self.present {
            Some(entry @ Entry { node: Node::Directory, .. }) => Ok(ground.put(&self.path, entry)?),
            _ => Ok(()),
        }
    }

    /// The dataset with all its properties.
    pub fn made(&self, properties: &[(String, String)]) -> Made {
        let mut made = self.place.own.clone();
        made.properties.extend(properties.iter().cloned());
        made
    }
}

/// Where it is mounted when nothing is said.
fn inherited(parent: &str, name: &str, datasets: &Datasets) -> String {
    let at = datasets.get(parent).and_then(|own| own.get("mountpoint")).map_or("none", String::as_str);
    if at.starts_with('/') { format!("{}/{name}", at.trim_end_matches('/')) } else { at.to_owned() }
}

fn own(path: &str, dataset: String, would_be: &str) -> Made {
    let differs = would_be != path;
    let properties = differs.then(|| ("mountpoint".to_owned(), path.to_owned()));
    Made { dataset, properties: properties.into_iter().collect() }
}

/// As somebody has named it.
fn named(path: &str, dataset: &str, datasets: &Datasets) -> Place {
    let (parent, name) = dataset.rsplit_once('/').unwrap_or(("", dataset));
    Place { parents: Vec::new(), own: own(path, dataset.to_owned(), &inherited(parent, name, datasets)) }
}

/// Below the nearest dataset that is not a system's; `root` is what is mounted on `/`.
fn place(path: &str, datasets: &Datasets, root: Option<&str>) -> Result<Place, DirectoryError> {
    let value = |name: &str, property: &str| {
        datasets.get(name).and_then(|own| own.get(property)).map(String::as_str).unwrap_or_default()
    };
    let is_system = |name: &str| {
        let whole = |name: &str| value(name, "mountpoint") == "/" || root == Some(name);
        name.match_indices('/').map(|(at, _)| &name[..at]).chain([name]).any(whole)
    };
    let is_above = |name: &&str| {
        let at = value(name, "mountpoint");
        // A copy that was received has the same mount points and is not mounted.
        at.starts_with('/')
            && at != path
            && mounts::is_within(path, at)
            && value(name, "canmount") != "noauto"
    };
    let above: Vec<&str> =
        datasets.keys().map(String::as_str).filter(|name| !is_system(name)).filter(is_above).collect();
    let nearest = above.iter().map(|name| value(name, "mountpoint").len()).max();
    let nearest: Vec<&str> =
        above.into_iter().filter(|name| Some(value(name, "mountpoint").len()) == nearest).collect();
    let hint = format!("name the dataset: `kdir --dataset POOL/… {path}`");
    let (start, rest) = match nearest[..] {
        [one] => (one, path.strip_prefix(value(one, "mountpoint").trim_end_matches('/')).unwrap_or(path)),
        [] => {
            let pools: Vec<&str> =
                datasets.keys().map(String::as_str).filter(|name| !name.contains('/')).collect();
            match (root.map(zfs::pool_of), &pools[..]) {
                (Some(pool), _) => (pool, path),
                (None, [pool]) => (*pool, path),
                (None, []) => return Err(refuse(path, "there is no pool", "`zpool import` finds pools")),
                (None, _) => {
                    let pools = pools.join("`, `");
                    return Err(refuse(path, format!("it could be in any of `{pools}`"), hint));
                }
            }
        }
        [..] => {
            let reason = format!("`{}` have the same mount point above it", nearest.join("`, `"));
            return Err(refuse(path, reason, hint));
        }
    };
    let mut known = datasets.clone();
    let mut parents = Vec::new();
    let mut parent = start.to_owned();
    let names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty()).collect();
    let mut left = names.len();
    let base = path.strip_suffix(rest).unwrap_or_default();
    let mut at = base.to_owned();
    for name in names {
        left -= 1;
        at = format!("{at}/{name}");
        let dataset = format!("{parent}/{name}");
        let would_be = inherited(&parent, name, &known);
        if left == 0 {
            return Ok(Place { parents, own: own(path, dataset, &would_be) });
        }
        if !known.contains_key(&dataset) {
            let mut made = own(&at, dataset.clone(), &would_be);
            made.properties.insert(0, ("canmount".to_owned(), "off".to_owned()));
            known.insert(dataset.clone(), [("mountpoint".to_owned(), at.clone())].into());
            parents.push(made);
        }
        parent = dataset;
    }
    Err(refuse(path, "it has no name", hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datasets(of: &[(&str, &str, &str)]) -> Datasets {
        let own = |at: &str, can: &str| {
            [("mountpoint".to_owned(), at.to_owned()), ("canmount".to_owned(), can.to_owned())].into()
        };
        of.iter().map(|(name, at, can)| ((*name).to_owned(), own(at, can))).collect()
    }

    fn said(path: &str, datasets: &Datasets, root: Option<&str>) -> String {
        match place(path, datasets, root) {
            Ok(place) => place.parents.iter().chain([&place.own]).map(|made| format!("{made}\n")).collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_dataset_is_placed_as_the_layers_place_theirs() {
        let all = datasets(&[
            ("rpool", "none", "off"),
            ("rpool/ROOT", "none", "off"),
            ("rpool/ROOT/debian", "/", "noauto"),
            ("rpool/ROOT/debian/usr", "/usr", "on"),
            ("rpool/home", "/home", "on"),
            ("rpool/srv", "/srv", "off"),
            ("rpool/var", "/var", "off"),
            ("rpool/var/lib", "/var/lib", "off"),
            ("rpool/backup", "/srv", "noauto"),
        ]);
        let root = Some("rpool/ROOT/debian");
        for (path, want) in [
            ("/srv/app", "zfs create rpool/srv/app\n"),
            ("/srv/a/b", "zfs create -o canmount=off rpool/srv/a\nzfs create rpool/srv/a/b\n"),
            ("/var/lib/postgresql", "zfs create rpool/var/lib/postgresql\n"),
            ("/home/x/photos", "zfs create -o canmount=off rpool/home/x\nzfs create rpool/home/x/photos\n"),
            (
                "/opt/data",
                "zfs create -o canmount=off -o mountpoint=/opt rpool/opt\nzfs create rpool/opt/data\n",
            ),
            ("/data", "zfs create -o mountpoint=/data rpool/data\n"),
            // What lies below a system would go back with it.
            (
                "/usr/local/x",
                "zfs create -o canmount=off -o mountpoint=/usr rpool/usr\nzfs create -o canmount=off rpool/usr/local\nzfs create rpool/usr/local/x\n",
            ),
        ] {
            assert_eq!(said(path, &all, root), want, "{path}");
        }
        assert_eq!(
            named("/data/x", "rpool/srv/x", &all).own.to_string(),
            "zfs create -o mountpoint=/data/x rpool/srv/x"
        );
        assert_eq!(named("/srv/x", "rpool/srv/x", &all).own.to_string(), "zfs create rpool/srv/x");
    }

    #[test]
    fn on_any_other_machine_it_is_the_pool_that_there_is() {
        let one = datasets(&[("tank", "/tank", "on"), ("tank/a", "/tank/a", "on")]);
        assert_eq!(said("/tank/a/b", &one, None), "zfs create tank/a/b\n");
        assert_eq!(said("/data", &one, None), "zfs create -o mountpoint=/data tank/data\n");
        let two = datasets(&[("tank", "/tank", "on"), ("pool", "/tank", "on")]);
        assert!(said("/data", &two, None).contains("any of `pool`, `tank`"));
        assert!(said("/tank/x", &two, None).contains("have the same mount point"));
        assert!(said("/data", &datasets(&[]), None).contains("there is no pool"));
        let data = datasets(&[("tank", "none", "off"), ("tank/all", "/", "off")]);
        assert_eq!(said("/x", &data, None), "zfs create -o mountpoint=/x tank/x\n");
    }
}

//! Going back without a loss: a clone of the snapshot takes the place of the dataset, which is kept under another name.
//!
//! ```text
//!                    tank/db      tank/db.incoming     tank/db.before-…
//! begin: clone       serves       waits
//! begin: pin         serves       waits
//! begin: rename                   waits                serves
//! finish: rename     waits                             serves
//! finish: serve      serves                            serves           one above the other at a start, both whole
//! finish: put aside  serves                            is kept
//! finish: promote    serves, has the older snapshots   is kept, is the clone, has the newer ones
//! ```
//!
//! At every instant something whole is mounted at a start. What was interrupted is told by looking: while the dataset has
//! its name, all goes back; from the rename on, all goes forward. Both are marked with what is needed for that.

use std::time::Duration;

use kld_host::Cmd;
use kld_host::zfs::{self, Property};
use serde::{Deserialize, Serialize};

/// Marks both datasets until it is over.
const MARK: &str = "org.kldload:swap";
const DEADLINE: Duration = Duration::from_secs(300);
/// ZFS takes no longer name.
const LONGEST: usize = 255;

/// Properties that a clone has from its snapshot, or that are set at their time.
const NOT_COPIED: [&str; 10] = [
    MARK,
    "canmount",
    "mountpoint",
    "reservation",
    "refreservation",
    "volsize",
    "encryption",
    "keyformat",
    "keylocation",
    "pbkdf2iters",
];

/// One swap. It is written into the mark as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// What goes back.
    pub dataset: String,
    /// The snapshot that it goes back to, in full.
    pub snapshot: String,
    /// The name under which the dataset is kept.
    pub aside: String,
    /// The name of the clone until it has the dataset's.
    pub incoming: String,
    /// Where it is mounted; `None` for a volume.
    pub mountpoint: Option<String>,
    /// Whether the mount point is inherited.
    pub inherits: bool,
    /// Whether it is mounted by itself: `on`, `noauto`, `off`.
    pub canmount: String,
    /// Whether it was mounted when this began; `None` in marks of before this was written down.
    #[serde(default)]
    pub mounted: Option<bool>,
    /// Space that is kept for it, by property.
    pub reserved: Vec<(String, String)>,
}

/// Which of the names there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The clone still has its own name.
    pub incoming: bool,
    /// The dataset has its other name.
    pub aside: bool,
    /// The clone is one still: nobody has promoted it.
    pub is_clone: bool,
}

/// Why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The dataset is not one that can change places.
    #[error("`{dataset}` cannot change places with a clone: {reason}")]
    Refused {
        /// The dataset.
        dataset: String,
        /// Why not.
        reason: String,
        /// What the person can do.
        hint: String,
    },
}

impl SwapError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let Self::Refused { hint, .. } = self;
        Some(hint.clone())
    }
}

/// All properties of the dataset, for [`zfs::parse_get`].
pub fn properties_cmd(dataset: &str) -> Cmd {
    zfs::get_cmd(dataset, &["all"], false).timeout(DEADLINE)
}

/// Who may do what with the dataset, for [`has_grants`].
pub fn grants_cmd(dataset: &str) -> Cmd {
    Cmd::new("zfs").args(["allow", dataset]).timeout(DEADLINE)
}

/// Whether the output of [`grants_cmd`] has something that was granted on the dataset itself, and not on one above it. It stays
/// with what is put aside.
pub fn has_grants(text: &str, dataset: &str) -> bool {
    text.lines().any(|line| {
        let of = line.strip_prefix("---- Permissions on ").map(|rest| rest.trim_end_matches('-').trim_end());
        of == Some(dataset)
    })
}

/// Every mark in these pools.
pub fn marks_cmd(pools: &[String]) -> Cmd {
    let columns = ["get", "-H", "-r", "-s", "local", "-t", "filesystem,volume", "-o", "value", MARK];
    Cmd::new("zfs").args(columns).args(pools).timeout(DEADLINE)
}

/// Reads the output of [`marks_cmd`]: each swap once. What nobody of us has written is left alone.
pub fn parse_marks(text: &str) -> Vec<Swap> {
    let mut swaps: Vec<Swap> = Vec::new();
    for swap in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        if !swaps.contains(&swap) {
            swaps.push(swap);
        }
    }
    swaps
}

impl Swap {
    /// Plans one; `stamp` is [`crate::stamp`]'s, `has_children` whether datasets lie below.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn new(
        dataset: &str,
        snapshot: &str,
        properties: &[Property],
        has_children: bool,
        stamp: &str,
    ) -> Result<Self, SwapError> {
        let refuse = |reason: &str, hint: String| {
            let (dataset, reason) = (dataset.to_owned(), reason.to_owned());
            Err(SwapError::Refused { dataset, reason, hint })
        };
        let of = |name: &str| properties.iter().find(|property| property.name == name);
        let value = |name: &str| of(name).map(|property| property.value.as_str());
        let copy = format!("work on a copy: `zfs clone {snapshot} {dataset}-back`");
        if has_children {
            return refuse("the datasets below it would go aside with it", copy);
        }
        if value("encryptionroot") == Some(dataset) {
            return refuse("it is the root of an encryption", copy);
        }
        match value("mountpoint") {
            Some("/") => return refuse("it is a system", "`kbe` goes back with systems".to_owned()),
            Some("legacy") if value("mounted") == Some("yes") => {
                return refuse(
                    "it is mounted by `mount`, and not by ZFS",
                    format!("`umount` it first, or {copy}"),
                );
            }
            _ => {}
        }
        let (aside, incoming) = (format!("{dataset}.before-{stamp}"), format!("{dataset}.incoming"));
        if aside.len() > LONGEST {
            return refuse("its name is too long for a second one", copy);
        }
        let reserved = ["reservation", "refreservation"].into_iter().filter_map(|name| {
            let property = of(name).filter(|property| property.is_set())?;
            let value = Some(&property.value).filter(|value| !matches!(value.as_str(), "0" | "none"))?;
            Some((name.to_owned(), value.clone()))
        });
        Ok(Self {
            dataset: dataset.to_owned(),
            snapshot: snapshot.to_owned(),
            aside,
            incoming,
            mountpoint: value("mountpoint").filter(|value| *value != "-").map(str::to_owned),
            inherits: of("mountpoint").is_some_and(|property| !property.is_set()),
            canmount: value("canmount").filter(|value| *value != "-").unwrap_or("on").to_owned(),
            mounted: Some(value("mounted") == Some("yes")),
            reserved: reserved.collect(),
        })
    }

    fn zfs<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Cmd {
        Cmd::new("zfs").args(words).timeout(DEADLINE)
    }

    fn set(pairs: &[String], dataset: &str) -> Cmd {
        Self::zfs(["set"].into_iter().chain(pairs.iter().map(String::as_str)).chain([dataset]))
    }

    fn mark(&self) -> String {
        format!("{MARK}={}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether ZFS is to mount the dataset in the end: as it was, whether or not a start mounts it.
    pub fn mounts(&self) -> bool {
        self.mountpoint.as_deref().is_some_and(|at| at.starts_with('/'))
            && self.mounted.unwrap_or(self.canmount == "on")
    }

    /// Makes the clone, with what was set on the dataset. Nothing that anybody uses is touched.
    pub fn prepare(&self, properties: &[Property]) -> Cmd {
        let mut set: Vec<String> = properties
            .iter()
            .filter(|property| property.is_set() && !NOT_COPIED.contains(&property.name.as_str()))
            .map(|property| format!("{}={}", property.name, property.value))
            .collect();
        if self.mountpoint.is_some() {
            set.extend(["canmount=noauto".to_owned(), "mountpoint=none".to_owned()]);
        }
        set.push(self.mark());
        let options = set.iter().flat_map(|pair| ["-o", pair.as_str()]);
        Self::zfs(["clone"].into_iter().chain(options).chain([self.snapshot.as_str(), &self.incoming]))
    }

    /// When nobody uses the dataset any more: it stays where it is mounted at a start, and gives its name away.
    pub fn begin(&self) -> Vec<Cmd> {
        let place = self.mountpoint.as_ref().map(|at| format!("mountpoint={at}"));
        let pin: Vec<String> = [self.mark()].into_iter().chain(place).collect();
        vec![Self::set(&pin, &self.dataset), Self::zfs(["rename", &self.dataset, &self.aside])]
    }

    /// Everything after that, as far as it is not done.
    pub fn finish(&self, seen: Seen) -> Vec<Cmd> {
        let Self { dataset, aside, incoming, .. } = self;
        let mut todo = Vec::new();
        if seen.incoming {
            todo.push(Self::zfs(["rename", incoming, dataset]));
        }
        if let Some(at) = &self.mountpoint {
            let serve = [format!("mountpoint={at}"), format!("canmount={}", self.canmount)];
            todo.push(Self::set(&serve, dataset));
        }
        if seen.aside {
            let mut off: Vec<String> = self.reserved.iter().map(|(name, _)| format!("{name}=none")).collect();
            if self.mountpoint.is_some() {
                off.extend(["canmount=noauto".to_owned(), "mountpoint=none".to_owned()]);
            }
            if !off.is_empty() {
                todo.push(Self::set(&off, aside));
            }
        }
        if seen.is_clone {
            todo.push(Self::zfs(["promote", dataset]));
        }
        if !self.reserved.is_empty() {
            let on: Vec<String> =
                self.reserved.iter().map(|(name, value)| format!("{name}={value}")).collect();
            todo.push(Self::set(&on, dataset));
        }
        if self.inherits && self.mountpoint.is_some() {
            todo.push(Self::zfs(["inherit", "mountpoint", dataset]));
        }
        if seen.aside {
            todo.push(Self::zfs(["inherit", MARK, aside]));
        }
        todo.push(Self::zfs(["inherit", MARK, dataset]));
        todo
    }

    /// Everything as it was; only while the dataset has its name. The clone that goes has never been seen by anybody.
    pub fn back(&self, seen: Seen) -> Vec<Cmd> {
        let mut todo = Vec::new();
        if seen.incoming {
            todo.push(Self::zfs(["destroy", &self.incoming]));
        }
        if self.inherits && self.mountpoint.is_some() {
            todo.push(Self::zfs(["inherit", "mountpoint", &self.dataset]));
        }
        todo.push(Self::zfs(["inherit", MARK, &self.dataset]));
        todo
    }

    /// What brings an interrupted swap to its end, and whether that is forward.
    pub fn recover(&self, seen: Seen) -> (bool, Vec<Cmd>) {
        // The other name has a time in it: nobody else gives it.
        if seen.aside { (true, self.finish(seen)) } else { (false, self.back(seen)) }
    }

    /// Asks which of the names there are, and where each comes from.
    pub fn look_cmd(&self) -> Cmd {
        Self::zfs([
            "list",
            "-H",
            "-t",
            "filesystem,volume",
            "-o",
            "name,origin",
            "-r",
            "-d",
            "1",
            self.parent(),
        ])
    }

    /// The dataset above.
    fn parent(&self) -> &str {
        self.dataset.rsplit_once('/').map_or(self.dataset.as_str(), |(parent, _)| parent)
    }

    /// Reads the output of [`Swap::look_cmd`].
    pub fn parse_look(&self, text: &str) -> Seen {
        let rows: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let origin = |of: &str| rows.iter().find(|(name, _)| *name == of).map(|(_, origin)| *origin);
        let (incoming, aside) = (origin(&self.incoming), origin(&self.aside));
        let clone = incoming.or_else(|| origin(&self.dataset).filter(|_| aside.is_some()));
        let from = |origin: &str| {
            let dataset = origin.split('@').next().unwrap_or_default();
            dataset == self.dataset || dataset == self.aside
        };
        Seen { incoming: incoming.is_some(), aside: aside.is_some(), is_clone: clone.is_some_and(from) }
    }
}

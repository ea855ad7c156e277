//! Images of containers, pulled before the units that run them start.
//!
//! Without this the first start of a unit would pull: an image that is not to be had would be noticed by whoever waits for the
//! service, and not by the apply. An image that is there is never pulled again by itself, pinned or not.

use std::collections::BTreeMap;
use std::time::Duration;

use kld_host::{Cmd, ExecError};
use serde::{Deserialize, Serialize};

use super::{Found, Kind, Refusal, WayBack, to_value};
use crate::history::Store;
use crate::host::{Host, HostError, Node};
use crate::plan::{Action, Cause, Left, Step};
use crate::wanted::{Wanted, WantedFile};

pub(super) struct Image;

/// An image to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// `docker.io/library/nginx@sha256:…`.
    image: String,
    /// Units that run it, which come or change in the same plan.
    units: Vec<String>,
}

/// Whether it was there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    was_there: bool,
}

/// Where podman-systemd.unit(5) finds containers.
const CONTAINERS: &str = "/etc/containers/systemd/";
/// podman-image-rm(1): a container runs it.
const IN_USE: i32 = 2;
/// An image of some gigabytes through a slow line.
const LIMIT: Duration = Duration::from_secs(3600);

impl Kind for Image {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "image";
    const STAYS: bool = true;
    // They lie on a dataset of their own.
    const ON_ROOT: bool = false;

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let look = |error| Refusal::Look("the images", error);
        let mut found = Found::default();
        let images = images(wanted);
        for (image, files) in &images {
            found.items.insert((*image).to_owned(), String::new());
            if is_there(host, image).map_err(look)? {
                continue;
            }
            let comes = |path: &str| earlier.iter().any(|step| step.kind == "file" && step.name == path);
            let units = files.iter().filter(|(path, _)| comes(path)).filter_map(|(path, _)| unit_of(path));
            found.steps.push(Step {
                kind: Self::NAME.to_owned(),
                name: (*image).to_owned(),
                action: Action::Add,
                cause: Cause::Wish,
                summary: "pull".to_owned(),
                interrupts: None,
                notes: if is_pinned(image) { Vec::new() } else { vec![NOT_PINNED.to_owned()] },
                because: files[0].1.because.clone(),
                change: to_value(&Change { image: (*image).to_owned(), units: units.collect() }),
            });
        }
        for gone in super::gone(Self::NAME, before, &found.items) {
            if is_there(host, gone).map_err(look)? {
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!("podman image rm {gone}"),
                });
            }
        }
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<Memory, HostError> {
        Ok(Memory { was_there: is_there(host, &change.image)? })
    }

    fn make(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        if is_there(host, &change.image)? {
            return Ok(());
        }
        let pull = Cmd::new("podman").args(["pull", "--quiet", &change.image]).timeout(LIMIT);
        host.run(&pull).map(drop)
    }

    fn undo(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        if memory.was_there {
            return Ok(());
        }
        let remove = Cmd::new("podman").args(["image", "rm", &change.image]).accept(1).accept(IN_USE);
        let mut removed = host.run(&remove);
        if removed.as_ref().is_ok_and(|output| output.code == IN_USE) && !change.units.is_empty() {
            // Units that have started with it are told once everything is as it was, and start again if they ran before.
            for unit in &change.units {
                host.run(&Cmd::new("systemctl").args(["stop", unit]).accept(5))?;
            }
            removed = host.run(&remove);
        }
        // It stays when somebody else runs a container of it by now. One image too much harms nobody, and is no reason to leave
        // the rest half undone.
        match removed {
            Err(HostError::Exec(_)) => Ok(()),
            answer => answer.map(drop),
        }
    }

    // Going forward again must not need a registry.
    fn way_back(&self, store: &Store<'_>, change: &Change, memory: &Memory) -> Result<WayBack, HostError> {
        Ok(match !memory.was_there && is_there(store.host, &change.image)? {
            true => WayBack::Stays(format!("podman image rm {}", change.image)),
            false => WayBack::Nothing,
        })
    }

    fn redo(
        &self,
        _host: &dyn Host,
        _store: &Store<'_>,
        _of: &Store<'_>,
        _change: &Change,
        _memory: &Memory,
    ) -> Result<(), HostError> {
        Ok(())
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let mut drifted = Vec::new();
        for (image, _) in items {
            if !is_there(host, image)? {
                drifted.push((*image).to_owned());
            }
        }
        Ok(drifted)
    }
}

const NOT_PINNED: &str =
    "not pinned: it is what the registry calls so at that moment; `@sha256:…` behind the name pins it";

/// Whether the reference names content, and not whatever somebody has put there.
fn is_pinned(image: &str) -> bool {
    image.contains("@sha256:")
}

/// The images of all containers, and the files that name them.
fn images(wanted: &Wanted) -> BTreeMap<&str, Vec<(&str, &WantedFile)>> {
    let mut images: BTreeMap<&str, Vec<(&str, &WantedFile)>> = BTreeMap::new();
    for (path, file) in wanted.files.range(CONTAINERS.to_owned()..) {
        if !path.starts_with(CONTAINERS) {
            break;
        }
        let Node::File(bytes) = &file.node else { continue };
        if unit_of(path).is_none() {
            continue;
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.strip_prefix("Image="));
        // Units of podman's that pull or build one themselves are named instead of an image.
        let is_unit = |name: &&str| name.ends_with(".image") || name.ends_with(".build");
        if let Some(image) =
            names.map(str::trim).next_back().filter(|name| !name.is_empty() && !is_unit(name))
        {
            images.entry(image).or_default().push((path, file));
        }
    }
    images
}

/// The unit that podman makes of a file.
fn unit_of(path: &str) -> Option<String> {
    let name = path.strip_prefix(CONTAINERS)?.strip_suffix(".container")?;
    (!name.contains('/')).then(|| format!("{name}.service"))
}

/// Without podman there is none; its package comes first.
fn is_there(host: &dyn Host, image: &str) -> Result<bool, HostError> {
    match host.run(&Cmd::new("podman").args(["image", "exists", image]).accept(1)) {
        Err(HostError::Exec(ExecError::Missing { .. })) => Ok(false),
        answer => Ok(answer?.code == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_containers_are_units_and_digests_are_pins() {
        assert_eq!(unit_of("/etc/containers/systemd/web.container").as_deref(), Some("web.service"));
        for other in ["/etc/containers/systemd/web.volume", "/etc/containers/systemd/web.container.d/x.conf"]
        {
            assert_eq!(unit_of(other), None);
        }
        assert!(is_pinned("docker.io/library/nginx@sha256:00") && !is_pinned("docker.io/library/nginx:1.27"));
    }
}

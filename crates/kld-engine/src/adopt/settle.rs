//! Services run again, and the next start mounts what it should.

use std::time::Duration;

use kld_host::Cmd;
use kld_host::zfs::pool_of;

use super::store::{Adoption, Store, Told as _};
use super::{Adopter, Watch};
use crate::engine::chain;
use crate::host::{Entry, HostError, Node};

/// What mount units are made of: zfs-mount-generator(8).
fn cache_of(adoption: &Adoption) -> String {
    kld_system::mount_cache_path(pool_of(&adoption.dataset))
}

impl Adopter<'_> {
    /// The next start will mount what is mounted now, and what was stopped runs again. What cannot be done is said.
    pub(super) fn settle(&self, store: &Store<'_>, watch: &mut dyn Watch) {
        if self.starting {
            return;
        }
        if let Some(warning) = self.wait_for_cache(&store.adoption) {
            watch.warn(&warning);
        }
        if let Err(error) = self.ground.run(&Cmd::new("systemctl").arg("daemon-reload")) {
            watch.warn(&chain(&error));
        }
        let units = store.events().map(|events| events.as_slice().stopped()).unwrap_or_default();
        if !units.is_empty() {
            watch.doing(&format!("start {}", units.join(" ")));
            if let Err(error) = self.ground.run(&Cmd::new("systemctl").arg("start").args(units)) {
                watch.warn(&chain(&error));
            }
        }
    }

    /// Mount units are made of a cache that ZFS's event daemon writes: until it has, a start would not mount the dataset.
    fn wait_for_cache(&self, adoption: &Adoption) -> Option<String> {
        let is_there = self.is_mounted(adoption).unwrap_or(false);
        let cache = cache_of(adoption);
        (!self.cache_comes_to(adoption, is_there)).then(|| {
            format!("`{cache}` is not up to date: `systemctl restart zfs-zed`, or the next start does not mount what it should")
        })
    }

    /// A start must not mount what is about to go, and would fail when it is gone.
    pub(super) fn forget_in_cache(&self, adoption: &Adoption) -> Result<(), HostError> {
        // While the machine starts, the daemon does not run yet.
        if !self.starting && self.cache_comes_to(adoption, false) {
            return self.sync(adoption);
        }
        let cache = cache_of(adoption);
        let Some(text) = crate::host::read(self.ground, &cache)? else { return Ok(()) };
        let line = format!("{}\t", adoption.dataset);
        let rest: String =
            text.lines().filter(|of| !of.starts_with(&line)).map(|of| format!("{of}\n")).collect();
        if rest == text {
            return Ok(());
        }
        let entry = Entry { node: Node::File(rest.into_bytes()), mode: 0o644, uid: 0, gid: 0 };
        self.ground.put(&cache, &entry)
    }

    /// Waits until the cache mounts the dataset in its place, or does not; `false`: it takes too long.
    fn cache_comes_to(&self, adoption: &Adoption, wanted: bool) -> bool {
        let line = format!("{}\t{}\ton\t", adoption.dataset, adoption.path);
        for _ in 0..50 {
            // A machine without a cache mounts by other means.
            let Ok(Some(text)) = crate::host::read(self.ground, &cache_of(adoption)) else { return true };
            if text.lines().any(|of| of.starts_with(&line)) == wanted {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }
}

//! What `kldload node init` does about encrypted datasets when its unit starts: `kld-node` holds the real one to the same.

use kld_system::{NODE_CONFIG_PATH, NodeConfig, NodeDatasetKey, NodeEncrypted};

use super::*;

/// Where sealed keys lie outside of every boot environment.
const KEPT: &str = "/var/lib/kldload/keys";

impl State {
    pub(super) fn init(&mut self) -> Result<(), HostError> {
        let Ok(config) = NodeConfig::parse(&self.text(NODE_CONFIG_PATH)) else { return Ok(()) };
        for wanted in &config.encrypted {
            let is_there = self.machine.datasets.contains_key(&wanted.dataset);
            if let Some(key) = &wanted.key {
                self.key(wanted, key, is_there)?;
            }
            if !is_there {
                self.make(wanted)?;
            }
        }
        Ok(())
    }

    /// A sealed key is the key itself here.
    fn key(&mut self, wanted: &NodeEncrypted, key: &NodeDatasetKey, is_there: bool) -> Result<(), HostError> {
        let kept = format!("{KEPT}/{}.cred", key.credential);
        if is_there && self.property(&wanted.dataset, "keyformat").0 == "passphrase" {
            for path in [&kept, &key.credential_file, &key.key_file] {
                if self.machine.files.contains_key(path) {
                    self.burn(path)?;
                    self.machine.files.remove(path);
                }
            }
            return Ok(());
        }
        let sealed = [&kept, &key.credential_file].map(|path| self.text(path));
        let loads = |text: &&String| {
            !text.is_empty() && (!is_there || Some(*text) == self.machine.keys.get(&wanted.dataset))
        };
        let text = match sealed.iter().find(loads) {
            Some(text) => text.clone(),
            None if is_there => {
                return Err(error(format!("the sealed key of {} is missing", wanted.dataset)));
            }
            None => format!("{:032}", self.machine.keys.len() + 1),
        };
        for (path, was) in [&kept, &key.credential_file].into_iter().zip(&sealed) {
            if *was != text {
                self.burn(path)?;
                self.put(path, Entry { mode: 0o600, ..file(&text) });
            }
        }
        self.machine.files.insert(key.key_file.clone(), Entry { mode: 0o600, ..file(&text) });
        Ok(())
    }

    fn make(&mut self, wanted: &NodeEncrypted) -> Result<(), HostError> {
        let mut pairs: Vec<String> =
            wanted.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Some(key) = &wanted.key {
            pairs.push(format!("encryption={}", key.algorithm));
            pairs.push("keyformat=raw".to_owned());
            pairs.push(format!("keylocation=file://{}", key.key_file));
        }
        let words = pairs.iter().flat_map(|pair| ["-o", pair.as_str()]);
        let words: Vec<&str> = ["create"].into_iter().chain(words).chain([wanted.dataset.as_str()]).collect();
        self.zfs(&words)?;
        let Some((owner, mode)) = &wanted.owner else { return Ok(()) };
        let path = self.property(&wanted.dataset, "mountpoint").0;
        let (user, group) = owner.split_once(':').expect("a user and a group");
        let number = |file: &str, name: &str| {
            let text = self.text(file);
            let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
            line.split(':').nth(2)?.parse().ok()
        };
        let (uid, gid) = (number("/etc/passwd", user), number("/etc/group", group));
        let mode = u32::from_str_radix(mode, 8).expect("octal");
        let (uid, gid) = uid.zip(gid).ok_or_else(|| error(format!("invalid user: {owner}")))?;
        if let Some(entry) = self.machine.files.get_mut(&path) {
            *entry = Entry { mode, uid, gid, ..directory() };
        }
        Ok(())
    }
}

//! `zfs`, `zpool`, `mount`, `umount` and `bootctl`.

use kld_boot::MachineError;

use super::{Dataset, Snapshot, State, error};

impl State {
    pub(super) fn run(&mut self, program: &str, args: &[&str]) -> Result<String, MachineError> {
        let last = args.last().copied().unwrap_or_default();
        match (program, args[0]) {
            ("zfs", "list") => {
                let kinds = args.iter().position(|arg| *arg == "-t").map(|at| args[at + 1]);
                let kinds: Vec<&str> = kinds.ok_or_else(|| error("no types"))?.split(',').collect();
                Ok(self.list(&kinds, args[args.len() - 2], last))
            }
            ("zfs", "get") => {
                let own = &self.disk.datasets.get(last).ok_or_else(|| error("does not exist"))?.own;
                let line = |(name, value): (&String, &String)| format!("{last}\t{name}\t{value}\tlocal\n");
                let inherited =
                    format!("{last}\tcompression\tlz4\tinherited from rpool\n{last}\tused\t1\t-\n");
                Ok(own.iter().map(line).collect::<String>() + &inherited)
            }
            ("zfs", "diff") => {
                let since = args[args.len() - 2];
                let owner = since.split('@').next().unwrap_or_default();
                if !self.disk.snapshots.contains_key(since)
                    || ![owner, last].iter().all(|of| self.is_busy(of))
                {
                    return Err(error("Cannot diff an unmounted snapshot"));
                }
                Ok(String::new())
            }
            ("zfs", _) => {
                self.burn()?;
                self.change_zfs(args, last).map(|()| String::new())
            }
            ("zpool", "get") => Ok(self.disk.bootfs.clone() + "\n"),
            ("zpool", "set") => {
                self.burn()?;
                self.disk.bootfs = args[1].trim_start_matches("bootfs=").to_owned();
                Ok(String::new())
            }
            ("bootctl", verb) => {
                self.burn()?;
                let name = if verb == "set-default" { "LoaderEntryDefault" } else { "LoaderEntryOneShot" };
                match args[1] {
                    "" => self.disk.variables.remove(name),
                    entry => self.disk.variables.insert(name.to_owned(), entry.to_owned()),
                };
                Ok(String::new())
            }
            ("mount", _) => {
                let source = args[args.len() - 2];
                if !self.disk.datasets.contains_key(source) && !self.disk.snapshots.contains_key(source) {
                    return Err(error(format!("filesystem '{source}' cannot be mounted")));
                }
                // As mount.zfs does.
                let is_legacy = |of: &Dataset| of.own.get("mountpoint").is_some_and(|at| at == "legacy");
                let by_mount = self.disk.datasets.get(source).is_none_or(is_legacy);
                if args.iter().any(|arg| arg.contains("zfsutil")) == by_mount {
                    return Err(error(format!("filesystem '{source}' cannot be mounted: {args:?}")));
                }
                self.mounts.push((source.to_owned(), last.to_owned()));
                Ok(String::new())
            }
            ("umount", _) => {
                let at = self.mounts.iter().rposition(|(_, target)| target == last);
                self.mounts.remove(at.ok_or_else(|| error("not mounted"))?);
                Ok(String::new())
            }
            _ => Err(error(format!("`{program}` is not installed"))),
        }
    }

    fn is_busy(&self, name: &str) -> bool {
        self.mounts.iter().any(|(source, _)| source == name)
    }

    fn clones(&self, snapshot: &str) -> Vec<String> {
        let made =
            self.disk.datasets.iter().filter(|(_, dataset)| dataset.origin.as_deref() == Some(snapshot));
        made.map(|(name, _)| name.clone()).collect()
    }

    fn snapshots_of(&self, dataset: &str) -> Vec<String> {
        let below = format!("{dataset}@");
        self.disk.snapshots.keys().filter(|name| name.starts_with(&below)).cloned().collect()
    }

    fn change_zfs(&mut self, args: &[&str], last: &str) -> Result<(), MachineError> {
        let pairs = || {
            let words = args[1..args.len() - 1].iter().filter_map(|word| word.split_once('='));
            words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        match args[0] {
            "snapshot" => {
                let dataset = last.split('@').next().unwrap_or_default();
                let files =
                    self.disk.datasets.get(dataset).ok_or_else(|| error("does not exist"))?.files.clone();
                let snapshot = Snapshot { own: pairs(), files, txg: self.next_txg(), holds: 0 };
                match self.disk.snapshots.insert(last.to_owned(), snapshot) {
                    None => Ok(()),
                    Some(_) => Err(error("dataset already exists")),
                }
            }
            "clone" => {
                let origin = args[args.len() - 2].to_owned();
                let files =
                    self.disk.snapshots.get(&origin).ok_or_else(|| error("does not exist"))?.files.clone();
                let txg = self.next_txg();
                let clone = Dataset { own: pairs(), origin: Some(origin), files, txg, is_volume: false };
                match self.disk.datasets.insert(last.to_owned(), clone) {
                    None => Ok(()),
                    Some(_) => Err(error("dataset already exists")),
                }
            }
            // A system with a kernel of its own, and the snapshot that was sent.
            "receive" => {
                let own: super::Properties = pairs();
                let mut files = super::Files::new();
                files.insert("/boot/vmlinuz-6.12.9".to_owned(), b"kernel 6.12.9".to_vec());
                files.insert("/boot/initrd.img-6.12.9".to_owned(), b"initrd 6.12.9".to_vec());
                files.insert("/usr/lib/modules/6.12.9/modules.dep".to_owned(), b"x".to_vec());
                let txg = self.next_txg();
                let sent = Snapshot { files: files.clone(), txg, ..Snapshot::default() };
                self.disk.snapshots.insert(format!("{last}@export-1"), sent);
                let received = Dataset { own, files, txg, ..Dataset::default() };
                match self.disk.datasets.insert(last.to_owned(), received) {
                    None => Ok(()),
                    Some(_) => Err(error("dataset already exists")),
                }
            }
            "promote" => {
                let origin = self.disk.datasets[last]
                    .origin
                    .clone()
                    .ok_or_else(|| error("not a cloned filesystem"))?;
                let (old, _) = origin.split_once('@').expect("a snapshot");
                let txg = self.disk.snapshots[&origin].txg;
                for name in self.snapshots_of(old) {
                    if self.disk.snapshots[&name].txg > txg {
                        continue;
                    }
                    let new = format!("{last}@{}", name.split_once('@').expect("a snapshot").1);
                    let snapshot = self.disk.snapshots.remove(&name).expect("it is there");
                    if self.disk.snapshots.insert(new.clone(), snapshot).is_some() {
                        return Err(error("snapshot name conflicts"));
                    }
                    for dataset in self.disk.datasets.values_mut() {
                        if dataset.origin.as_ref() == Some(&name) {
                            dataset.origin = Some(new.clone());
                        }
                    }
                }
                let short = origin.split_once('@').expect("a snapshot").1;
                let of_old = self.disk.datasets[old].origin.clone();
                self.disk.datasets.get_mut(old).expect("it is there").origin =
                    Some(format!("{last}@{short}"));
                self.disk.datasets.get_mut(last).expect("it is there").origin = of_old;
                Ok(())
            }
            "destroy" if last.contains('@') => {
                if !self.clones(last).is_empty() || self.is_busy(last) || self.disk.snapshots[last].holds > 0
                {
                    return Err(error("snapshot has dependent clones, is held or busy"));
                }
                self.disk.snapshots.remove(last).map(drop).ok_or_else(|| error("does not exist"))
            }
            "destroy" => {
                let snapshots = self.snapshots_of(last);
                if self.is_busy(last)
                    || snapshots.iter().any(|of| !self.clones(of).is_empty() || self.is_busy(of))
                {
                    return Err(error("filesystem has dependent clones or is busy"));
                }
                self.disk.snapshots.retain(|name, _| !snapshots.contains(name));
                self.disk.datasets.remove(last).ok_or_else(|| error("does not exist"))?;
                let below = format!("{last}/");
                if args.contains(&"-r") {
                    self.disk.datasets.retain(|name, _| !name.starts_with(&below));
                } else if self.disk.datasets.keys().any(|name| name.starts_with(&below)) {
                    return Err(error("filesystem has children"));
                }
                Ok(())
            }
            "rename" => {
                let from = args[args.len() - 2];
                if self.disk.datasets.contains_key(last) || self.is_busy(from) {
                    return Err(error("dataset already exists or is busy"));
                }
                let dataset = self.disk.datasets.remove(from).ok_or_else(|| error("does not exist"))?;
                self.disk.datasets.insert(last.to_owned(), dataset);
                for name in self.snapshots_of(from) {
                    let new = format!("{last}{}", &name[from.len()..]);
                    let snapshot = self.disk.snapshots.remove(&name).expect("it is there");
                    self.disk.snapshots.insert(new.clone(), snapshot);
                    for dataset in
                        self.disk.datasets.values_mut().filter(|of| of.origin.as_ref() == Some(&name))
                    {
                        dataset.origin = Some(new.clone());
                    }
                }
                Ok(())
            }
            "set" => {
                let own: super::Properties = pairs();
                self.disk.datasets.get_mut(last).ok_or_else(|| error("does not exist"))?.own.extend(own);
                Ok(())
            }
            "inherit" => {
                self.disk.datasets.get_mut(last).ok_or_else(|| error("does not exist"))?.own.remove(args[1]);
                Ok(())
            }
            verb => Err(error(format!("zfs: unknown verb {verb}"))),
        }
    }

    fn list(&self, kinds: &[&str], columns: &str, root: &str) -> String {
        let mut rows: Vec<(u64, String)> = Vec::new();
        let value = |own: &super::Properties, fixed: &[(&str, String)], column: &str| -> String {
            let fixed = fixed.iter().find(|(name, _)| *name == column).map(|(_, value)| value.clone());
            fixed.or_else(|| own.get(column).cloned()).unwrap_or_else(|| "-".to_owned())
        };
        let row = |own: &super::Properties, fixed: &[(&str, String)]| {
            columns.split(',').map(|column| value(own, fixed, column)).collect::<Vec<_>>().join("\t") + "\n"
        };
        let below = format!("{root}/");
        let is_below = |name: &String| name == root || name.starts_with(&below);
        for (name, dataset) in self.disk.datasets.iter().filter(|(name, _)| is_below(name)) {
            let kind = if dataset.is_volume { "volume" } else { "filesystem" };
            if !kinds.contains(&kind) {
                continue;
            }
            let fixed = [
                ("name", name.clone()),
                ("type", kind.to_owned()),
                ("origin", dataset.origin.clone().unwrap_or_else(|| "-".to_owned())),
                ("creation", (1_795_752_780 + dataset.txg).to_string()),
                ("createtxg", dataset.txg.to_string()),
                ("used", "3000".to_owned()),
                ("usedbydataset", "2000".to_owned()),
                ("referenced", "9000".to_owned()),
                ("available", "50000".to_owned()),
            ];
            rows.push((dataset.txg, row(&dataset.own, &fixed)));
        }
        for (name, snapshot) in self.disk.snapshots.iter().filter(|(name, _)| is_below(name)) {
            let clones = self.clones(name).join(",");
            let fixed = [
                ("name", name.clone()),
                ("type", "snapshot".to_owned()),
                ("creation", (1_795_752_780 + snapshot.txg).to_string()),
                ("createtxg", snapshot.txg.to_string()),
                ("used", "500".to_owned()),
                ("clones", clones),
                ("userrefs", snapshot.holds.to_string()),
            ];
            rows.push((snapshot.txg, row(&snapshot.own, &fixed)));
        }
        rows.sort();
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

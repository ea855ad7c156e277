//! Its boot partitions and boot environments: the machine in memory of kld-boot, on the same pool and with the same power.

#[path = "../../../../kld-boot/tests/support/mod.rs"]
pub(crate) mod disks;

use kld_boot::{Machine as _, MachineError};

use super::*;

/// What lies below it are boot environments.
const ENVIRONMENTS: &str = "rpool/ROOT/";

fn in_boot(error: HostError) -> MachineError {
    match error {
        HostError::File { action, path, source } => MachineError::File { action, path, source },
        HostError::Exec(error) => MachineError::Exec(error),
        other => panic!("the fake has no such error: {other}"),
    }
}

impl State {
    /// A snapshot of the root is what environments are made from.
    pub(super) fn boot_snapshot(&mut self, name: &str) {
        let (Some(boot), Some(dataset)) = (&self.boot, name.split('@').next()) else { return };
        if !name.starts_with(ENVIRONMENTS) {
            return;
        }
        // kldload's memory is a dataset of its own.
        let files = self.machine.files.iter().filter(|(path, _)| !path.starts_with("/var/lib/kldload/"));
        let machine = files.filter_map(|(path, entry)| match &entry.node {
            Node::File(bytes) => Some((path.clone(), bytes.clone())),
            _ => None,
        });
        boot.change(|state| {
            let txg = state.next_txg();
            let mut files = state.disk.datasets[dataset].files.clone();
            files.extend(machine);
            state
                .disk
                .snapshots
                .insert(name.to_owned(), disks::Snapshot { files, txg, ..Default::default() });
        });
    }

    /// One that an environment was made from cannot be destroyed.
    pub(super) fn boot_forget(&mut self, name: &str) -> Result<(), HostError> {
        let Some(boot) = self.boot.as_ref().filter(|_| name.starts_with(ENVIRONMENTS)) else { return Ok(()) };
        let destroy = Cmd::new("zfs").args(["destroy", name]);
        boot.run(&destroy).map(drop).map_err(HostError::from)
    }
}

impl Fake {
    /// The boot partitions and environments.
    pub(crate) fn disk(&self) -> disks::Disk {
        self.with_boot(disks::Fake::disk)
    }

    /// Changes them.
    pub(crate) fn change_disks(&self, change: impl FnOnce(&mut disks::State)) {
        self.with_boot(|boot| boot.change(change));
    }

    fn with_boot<T>(&self, ask: impl FnOnce(&disks::Fake) -> T) -> T {
        ask(self.state().boot.as_ref().expect("this machine has a loader"))
    }

    /// Counts a change before it is made.
    fn boot_change<T>(
        &self,
        what: &str,
        make: impl FnOnce(&disks::Fake) -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        let burnt = self.state().burn(what).map_err(in_boot);
        burnt?;
        self.with_boot(make)
    }

    fn boot_alive(&self, what: &str) -> Result<(), MachineError> {
        if self.state().fuel == Some(0) { Err(in_boot(dead(what))) } else { Ok(()) }
    }
}

impl kld_boot::Machine for Fake {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MachineError> {
        self.with_boot(|boot| boot.read(path))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, MachineError> {
        self.with_boot(|boot| boot.size(path))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, MachineError> {
        self.with_boot(|boot| boot.list(path))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), MachineError> {
        let is_last = self.state().fuel == Some(0);
        let written = self.boot_change(path, |boot| boot.write(path, bytes));
        if is_last {
            // The worst that FAT may leave.
            self.change_disks(|state| drop(state.disk.fat.insert(path.to_owned(), Vec::new())));
        }
        written
    }

    fn remove(&self, path: &str) -> Result<(), MachineError> {
        if path.starts_with("/run/") {
            return self.with_boot(|boot| boot.remove(path));
        }
        self.boot_change(path, |boot| boot.remove(path))
    }

    fn make_directory(&self, path: &str) -> Result<(), MachineError> {
        self.with_boot(|boot| boot.make_directory(path))
    }

    fn free(&self, path: &str) -> Result<u64, MachineError> {
        self.with_boot(|boot| boot.free(path))
    }

    fn run(&self, command: &Cmd) -> Result<String, MachineError> {
        let words = command.to_string();
        self.boot_alive(&words)?;
        self.state().log.push(words.clone());
        let only_looks = ["zfs list", "zfs get", "zpool get", "mount", "umount"];
        if only_looks.iter().any(|begin| words.starts_with(begin)) {
            return self.with_boot(|boot| boot.run(command));
        }
        let done = self.boot_change(&words, |boot| boot.run(command))?;
        // It is one pool.
        let left = self.disk().snapshots;
        let is_left = |name: &String| !name.starts_with(ENVIRONMENTS) || left.contains_key(name);
        self.state().snapshots.retain(|name, _| is_left(name));
        Ok(done)
    }

    fn now(&self) -> u64 {
        self.with_boot(disks::Fake::now)
    }
}

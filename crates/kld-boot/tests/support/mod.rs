//! A machine in memory with a pool, two boot partitions, a loader's variables, and tools that keep state as the real ones do.
//!
//! What the loader would do is decided here by code of its own, from what the file systems hold: nothing of the crate under
//! test is asked.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod deaths;
mod judge;
mod tools;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};

use kld_boot::{BootError, Machine, MachineError, carry_out, plan_good};
use kld_host::{Cmd, ExecError};
use sha2::{Digest as _, Sha256};

pub(crate) type Files = BTreeMap<String, Vec<u8>>;
pub(crate) type Properties = BTreeMap<String, String>;

const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Dataset {
    pub(crate) own: Properties,
    pub(crate) origin: Option<String>,
    pub(crate) files: Files,
    pub(crate) txg: u64,
    pub(crate) is_volume: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Snapshot {
    pub(crate) own: Properties,
    pub(crate) files: Files,
    pub(crate) txg: u64,
    pub(crate) holds: u64,
}

/// All that survives a power cut.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Disk {
    pub(crate) datasets: BTreeMap<String, Dataset>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// Files on the boot partitions, by whole path.
    pub(crate) fat: Files,
    /// The loader's variables.
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) bootfs: String,
}

/// What a write leaves that the power cuts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Old,
    Empty,
    New,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) disk: Disk,
    pub(crate) mounts: Vec<(String, String)>,
    pub(crate) capacity: u64,
    /// What is mounted beside the boot partitions that `/etc/fstab` names: kinds and places.
    pub(crate) also: Vec<(&'static str, &'static str)>,
    txg: u64,
    fuel: Option<usize>,
    cut: Option<Cut>,
    changes: usize,
    starts: usize,
    pub(crate) log: Vec<String>,
}

pub(crate) struct Fake(Mutex<State>);

pub(crate) fn error(reason: impl Into<String>) -> MachineError {
    ExecError::Failed {
        command: "a fake tool".to_owned(),
        status: ExitStatus::from_raw(0x100),
        stderr: reason.into(),
    }
    .into()
}

fn file_error(path: &str, source: io::Error) -> MachineError {
    MachineError::File { action: "use", path: path.into(), source }
}

/// `/EFI/kldload/…/linux` for this content.
pub(crate) fn address(content: &[u8], name: &str) -> String {
    let digest: String = Sha256::digest(content)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/EFI/kldload/{digest}/{name}")
}

pub(crate) const ESPS: [&str; 2] = ["/efi", "/efi2"];

/// Says that what runs is well.
pub(crate) fn mark_good(fake: &Fake) -> Result<String, BootError> {
    let (plan, name) = plan_good(fake)?;
    carry_out(fake, &plan, &mut |_| ())?;
    Ok(name)
}

impl Fake {
    /// Debian that runs, with one kernel, on two boot partitions.
    pub(crate) fn new() -> Self {
        let fake = Self(Mutex::default());
        {
            let mut state = fake.state();
            state.capacity = 10 << 20;
            let own = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            for (name, pairs) in [
                ("rpool/ROOT", own(&[("mountpoint", "none"), ("canmount", "off")])),
                (
                    "rpool/ROOT/debian",
                    own(&[("mountpoint", "/"), ("canmount", "noauto"), ("org.me:note", "two words")]),
                ),
            ] {
                state.txg += 1;
                let txg = state.txg;
                state
                    .disk
                    .datasets
                    .insert(name.to_owned(), Dataset { own: pairs, txg, ..Dataset::default() });
            }
            state.disk.bootfs = "rpool/ROOT/debian".to_owned();
            state.mounts.push(("rpool/ROOT/debian".to_owned(), "/".to_owned()));
            for (name, value) in
                [("LoaderInfo", "systemd-boot 257.13"), ("LoaderEntrySelected", "debian.conf")]
            {
                state.disk.variables.insert(name.to_owned(), value.to_owned());
            }
            for esp in ESPS {
                let mut put = |path: &str, text: &str| {
                    state.disk.fat.insert(format!("{esp}{path}"), text.as_bytes().to_vec());
                };
                put("/EFI/systemd/systemd-bootx64.efi", "loader");
                put("/loader/loader.conf", "timeout 3\ndefault debian.conf\neditor no\n");
            }
        }
        fake.install_kernel("rpool/ROOT/debian", "6.12.1");
        fake.make_entry("rpool/ROOT/debian", "6.12.1");
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// Takes away the `default` of every `loader.conf`: the first of the menu starts.
    pub(crate) fn without_default(self) -> Self {
        self.with_conf("timeout 3\neditor no\n")
    }

    /// The entry that was started last is the default: so `loader.conf` says it, or the variable.
    pub(crate) fn with_saved_default(self, by_variable: bool) -> Self {
        let by_conf = if by_variable { "" } else { "default @saved\n" };
        let fake = self.with_conf(&format!("timeout 3\n{by_conf}editor no\n"));
        fake.change(|state| {
            let variables = &mut state.disk.variables;
            if by_variable {
                variables.insert("LoaderEntryDefault".to_owned(), "@saved".to_owned());
            }
            variables.insert("LoaderEntryLastBooted".to_owned(), "debian.conf".to_owned());
        });
        fake
    }

    /// A loader for which the count of tries is no part of an entry's name.
    pub(crate) fn with_new_loader(self) -> Self {
        self.change(|state| {
            state.disk.variables.insert("LoaderInfo".to_owned(), "systemd-boot 258.1".to_owned());
        });
        self
    }

    fn with_conf(self, conf: &str) -> Self {
        for esp in ESPS {
            self.state().disk.fat.insert(format!("{esp}/loader/loader.conf"), conf.as_bytes().to_vec());
        }
        self
    }

    /// Puts a kernel into an environment, as its package manager does.
    pub(crate) fn install_kernel(&self, dataset: &str, version: &str) {
        let mut state = self.state();
        let files = &mut state.disk.datasets.get_mut(dataset).expect("it is there").files;
        files.insert(format!("/boot/vmlinuz-{version}"), format!("kernel {version}").into_bytes());
        files.insert(
            format!("/boot/initrd.img-{version}"),
            format!("initrd {version}").repeat(9).into_bytes(),
        );
        files.insert(format!("/usr/lib/modules/{version}/modules.dep"), b"x".to_vec());
    }

    /// Gives an environment the entry that an installer would.
    pub(crate) fn make_entry(&self, dataset: &str, version: &str) {
        let mut state = self.state();
        let files = state.disk.datasets[dataset].files.clone();
        let name = dataset.rsplit('/').next().expect("a name");
        let linux = files[&format!("/boot/vmlinuz-{version}")].clone();
        let initrd = files[&format!("/boot/initrd.img-{version}")].clone();
        let (to_linux, to_initrd) = (address(&linux, "linux"), address(&initrd, "initrd"));
        let text = format!(
            "title Debian\nversion {version}\nsort-key {name}\nlinux {to_linux}\ninitrd {to_initrd}\n\
             options root=ZFS={dataset} rw quiet spl.spl_hostid=0x12\n"
        );
        for esp in ESPS {
            state.disk.fat.insert(format!("{esp}{to_linux}"), linux.clone());
            state.disk.fat.insert(format!("{esp}{to_initrd}"), initrd.clone());
            state.disk.fat.insert(format!("{esp}/loader/entries/{name}.conf"), text.clone().into_bytes());
        }
    }

    pub(crate) fn disk(&self) -> Disk {
        self.state().disk.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
    }

    /// Dies after this many further changes, and leaves this of the file that is being written.
    pub(crate) fn die_after(&self, fuel: usize, cut: Cut) {
        let mut state = self.state();
        (state.fuel, state.cut) = (Some(fuel), Some(cut));
    }

    /// Starts again: what was mounted is not, what was to happen once has happened. Returns what runs.
    pub(crate) fn start(&self) -> Result<String, String> {
        let dataset = {
            let mut state = self.state();
            (state.fuel, state.cut) = (None, None);
            let (file, dataset) = state.disk.would_start("/efi")?;
            state.disk.count_try("/efi", &file);
            state.disk.remember("/efi", &file);
            state.starts += 1;
            state.mounts = vec![(dataset.clone(), "/".to_owned())];
            dataset
        };
        Ok(dataset)
    }
}

impl State {
    /// Counts a change; fails when the machine is dead.
    pub(crate) fn burn(&mut self) -> Result<(), MachineError> {
        if let Some(fuel) = &mut self.fuel {
            if *fuel == 0 {
                return Err(file_error("the machine", io::Error::other("it is dead")));
            }
            *fuel -= 1;
        }
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn next_txg(&mut self) -> u64 {
        self.txg += 1;
        self.txg
    }

    /// Every file by its whole path, as the running system sees them.
    fn files(&self) -> Files {
        let mut all = Files::new();
        for (source, target) in &self.mounts {
            let files = match source.contains('@') {
                true => &self.disk.snapshots[source].files,
                false => &self.disk.datasets[source].files,
            };
            let target = target.trim_end_matches('/');
            all.extend(files.iter().map(|(path, bytes)| (format!("{target}{path}"), bytes.clone())));
        }
        all.extend(self.disk.fat.clone());
        let utf16 = |text: &str| {
            let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
            [7, 0, 0, 0].into_iter().chain(units).collect::<Vec<u8>>()
        };
        let variable = |name: &str| format!("/sys/firmware/efi/efivars/{name}-{VENDOR}");
        for (name, value) in &self.disk.variables {
            all.insert(variable(name), utf16(value));
        }
        if self.disk.variables.contains_key("LoaderInfo") {
            all.insert(variable("LoaderFeatures"), [7, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0].to_vec());
        }
        let mut mountinfo = String::new();
        for (index, (source, target)) in self.mounts.iter().enumerate() {
            mountinfo += &format!("{index} 1 0:{index} / {target} rw,relatime shared:1 - zfs {source} rw\n");
        }
        for (index, esp) in ESPS.into_iter().enumerate() {
            mountinfo += &format!("9{index} 1 8:{index} / {esp} rw,relatime - vfat /dev/sda{index} rw\n");
        }
        for (index, (kind, place)) in self.also.iter().enumerate() {
            mountinfo += &format!("8{index} 1 9:{index} / {place} rw,relatime - {kind} /dev/sdb{index} rw\n");
        }
        all.insert(
            "/proc/sys/kernel/random/boot_id".to_owned(),
            format!("start-{}\n", self.starts).into_bytes(),
        );
        all.insert("/proc/self/mountinfo".to_owned(), mountinfo.into_bytes());
        all.insert(
            "/etc/fstab".to_owned(),
            b"# boot\n/dev/sda0 /efi vfat umask=0077 0 2\n/dev/sda1 /efi2 vfat umask=0077 0 2\n".to_vec(),
        );
        all
    }

    fn used(&self, esp: &str) -> u64 {
        let below = format!("{esp}/");
        self.disk
            .fat
            .iter()
            .filter(|(path, _)| path.starts_with(&below))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    }
}

impl Machine for Fake {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MachineError> {
        Ok(self.state().files().remove(path))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, MachineError> {
        Ok(self.state().files().get(path).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, MachineError> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let files = self.state().files();
        let names = files.keys().filter_map(|of| of.strip_prefix(&below));
        let mut names: Vec<String> =
            names.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), MachineError> {
        let mut state = self.state();
        let esp = ESPS.into_iter().find(|esp| path.starts_with(&format!("{esp}/")));
        let esp = esp.ok_or_else(|| file_error(path, io::ErrorKind::ReadOnlyFilesystem.into()))?;
        if state.used(esp) + bytes.len() as u64 > state.capacity {
            return Err(file_error(path, io::ErrorKind::StorageFull.into()));
        }
        let burnt = state.burn();
        match (&burnt, state.cut.take_if(|_| burnt.is_err())) {
            (Ok(()), _) | (_, Some(Cut::New)) => {
                state.disk.fat.insert(path.to_owned(), bytes.to_vec());
            }
            (_, Some(Cut::Empty)) => {
                state.disk.fat.insert(path.to_owned(), Vec::new());
            }
            _ => {}
        }
        burnt
    }

    fn remove(&self, path: &str) -> Result<(), MachineError> {
        let mut state = self.state();
        if ESPS.iter().any(|esp| path.starts_with(&format!("{esp}/"))) {
            state.burn()?;
            if state.disk.fat.remove(path).is_none()
                && state.disk.fat.keys().any(|of| of.starts_with(&format!("{path}/")))
            {
                return Err(file_error(path, io::ErrorKind::DirectoryNotEmpty.into()));
            }
        }
        Ok(())
    }

    fn make_directory(&self, _: &str) -> Result<(), MachineError> {
        Ok(())
    }

    fn free(&self, path: &str) -> Result<u64, MachineError> {
        let state = self.state();
        Ok(state.capacity - state.used(path))
    }

    fn run(&self, command: &Cmd) -> Result<String, MachineError> {
        let program = command.program().to_string_lossy().into_owned();
        let args: Vec<String> = command.argv().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut state = self.state();
        state.log.push(command.to_string());
        state.run(&program, &args)
    }

    fn now(&self) -> u64 {
        1_795_752_780 + self.state().txg
    }
}

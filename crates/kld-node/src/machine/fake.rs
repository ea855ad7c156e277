//! A machine in memory: files, and tools that keep state as the real ones do.
//!
//! `fuel` is how many changes it still takes before it dies, which is how crash safety is tested.

use super::{Access, Machine, MachineError};
use kld_host::{Cmd, ExecError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) group: String,
}

/// What a fake tool gets: its arguments, what is on stdin, and all files.
pub(crate) type Tool = Box<dyn FnMut(&[String], &[u8], &mut Files) -> Result<Vec<u8>, String> + Send>;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Files(pub(crate) BTreeMap<PathBuf, FakeFile>);

impl Files {
    pub(crate) fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.0.insert(path.into(), FakeFile { bytes: bytes.into(), mode, group: "root".into() });
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.0.get(Path::new(path)).map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: Files,
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    pub(crate) times: BTreeMap<PathBuf, u64>,
    pub(crate) tools: BTreeMap<String, Tool>,
    /// Commands that name this never end.
    pub(crate) hangs: Option<String>,
    /// Every command, as one would type it.
    pub(crate) log: Vec<String>,
    /// Changes until the machine dies; `None`: it lives.
    pub(crate) fuel: Option<usize>,
    pub(crate) now: u64,
    /// Somebody asks who is not root.
    pub(crate) unprivileged: bool,
    /// Names below [`FAT`] that were changed and not synced since.
    unsynced: BTreeSet<PathBuf>,
    random: u8,
}

/// Below this, a change that was not synced may leave an empty file when the machine dies.
const FAT: &str = "/efi";

#[derive(Default)]
pub(crate) struct FakeMachine(Mutex<State>);

impl FakeMachine {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        self.state().files.put(path, text, 0o644);
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.state().files.text(path)
    }

    pub(crate) fn link(&self, from: &str, to: &str) {
        self.state().links.insert(from.into(), to.into());
    }

    pub(crate) fn tool(
        &self,
        name: &str,
        tool: impl FnMut(&[String], &[u8], &mut Files) -> Result<Vec<u8>, String> + Send + 'static,
    ) {
        self.state().tools.insert(name.to_owned(), Box::new(tool));
    }

    /// A tool that always writes the same.
    pub(crate) fn answer(&self, name: &str, text: &str) {
        let text = text.to_owned();
        self.tool(name, move |_, _, _| Ok(text.clone().into_bytes()));
    }

    /// The worst that a power cut does to what was not synced.
    pub(crate) fn cut_power(&self) {
        let mut state = self.state();
        for path in std::mem::take(&mut state.unsynced) {
            state.files.put(&path.to_string_lossy(), "", 0o755);
        }
    }

    /// The commands since the last call.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

impl State {
    /// Counts a change; fails when the machine is dead.
    fn burn(&mut self, path: &Path) -> Result<(), MachineError> {
        if path.starts_with(FAT) && self.fuel != Some(0) {
            self.unsynced.insert(path.to_owned());
        }
        match &mut self.fuel {
            None => Ok(()),
            Some(0) => Err(MachineError::File {
                action: "go on with",
                path: path.to_owned(),
                source: io::Error::other("the machine is dead"),
            }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

fn missing(action: &'static str, path: &Path) -> MachineError {
    MachineError::File { action, path: path.to_owned(), source: io::ErrorKind::NotFound.into() }
}

impl Machine for FakeMachine {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, MachineError> {
        Ok(self.state().files.0.get(path).map(|file| file.bytes.clone()))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, MachineError> {
        let state = self.state();
        let below = state.files.0.keys().filter_map(|file| file.strip_prefix(path).ok()?.components().next());
        let mut names: Vec<String> =
            below.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        names.dedup();
        Ok(names)
    }

    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let state = self.state();
        let target = state.links.get(path).cloned();
        target.or_else(|| state.files.0.keys().any(|file| file.starts_with(path)).then(|| path.to_owned()))
    }

    fn modified(&self, path: &Path) -> Option<u64> {
        self.state().times.get(path).copied()
    }

    fn write(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(path)?;
        let group = access.group.unwrap_or("root").to_owned();
        state.files.0.insert(path.to_owned(), FakeFile { bytes: bytes.to_vec(), mode: access.mode, group });
        Ok(())
    }

    fn set_access(&self, path: &Path, access: Access<'_>) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(path)?;
        let file = state.files.0.get_mut(path).ok_or_else(|| missing("protect", path))?;
        file.mode = access.mode;
        file.group = access.group.unwrap_or("root").to_owned();
        Ok(())
    }

    fn set_parameter(&self, path: &Path, value: &str) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(path)?;
        state.files.put(&path.to_string_lossy(), value, 0o644);
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> Result<(), MachineError> {
        self.state().burn(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(to)?;
        let file = state.files.0.remove(from).ok_or_else(|| missing("replace", to))?;
        state.files.0.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync(&self, path: &Path) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(Path::new("sync"))?;
        if path.starts_with(FAT) {
            state.unsynced.clear();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), MachineError> {
        let mut state = self.state();
        state.burn(path)?;
        state.files.0.remove(path);
        Ok(())
    }

    fn run(&self, command: Cmd, input: &[u8]) -> Result<Vec<u8>, MachineError> {
        let program = command.program().to_string_lossy().into_owned();
        let args: Vec<String> = command.argv().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let mut state = self.state();
        state.burn(Path::new(&program))?;
        state.log.push(command.to_string());
        if state.hangs.as_ref().is_some_and(|name| args.contains(name)) {
            drop(state);
            loop {
                std::thread::park();
            }
        }
        let Some(mut tool) = state.tools.remove(&program) else {
            return Err(ExecError::Missing { program, package: None }.into());
        };
        let result = tool(&args, input, &mut state.files);
        state.tools.insert(program, tool);
        // What it says and ends with 1.
        let status = ExitStatus::from_raw(1 << 8);
        result.map_err(|stderr| ExecError::Failed { command: command.to_string(), status, stderr }.into())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        state.random += 1;
        bytes.fill(state.random);
    }

    fn now(&self) -> u64 {
        self.state().now
    }

    fn is_root(&self) -> bool {
        !self.state().unprivileged
    }
}

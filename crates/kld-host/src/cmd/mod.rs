//! Processes: what to run, as a value.
//!
//! Arguments are an array, never a shell string. A process inherits nothing but what [`INHERITED`] names; its
//! locale is `C.UTF-8` and its stdin is empty unless given. Words marked secret are never displayed; they are still
//! visible to the machine's users in `/proc`, so keys belong on stdin or in files.

mod batches;
mod child;
mod error;
mod packages;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use batches::batches;
pub use child::Child;
pub use error::ExecError;
pub use packages::package_of;

/// Variables that pass through: where programs are, and what decides how downloads reach the network or how built
/// files are dated. Both spellings of the proxies are in use.
const INHERITED: &[&str] = &[
    "HOME",
    "USER",
    "TMPDIR",
    "SOURCE_DATE_EPOCH",
    "APT_CONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Where system tools are, which a user's own PATH often lacks.
const SYSTEM_PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How much of a streamed command's stderr is kept for its error, in bytes.
const STDERR_KEPT: usize = 64 << 10;

/// A command: program, arguments, environment, stdin, folder, time limit. Nothing happens until it is run.
#[derive(Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<Word>,
    needs: Vec<OsString>,
    env: BTreeMap<OsString, Word>,
    stdin: Input,
    log_file: Option<PathBuf>,
    cwd: Option<PathBuf>,
    timeout: Option<Duration>,
    apart: bool,
    accepted: Vec<i32>,
}

#[derive(Clone)]
struct Word {
    text: OsString,
    secret: bool,
}

#[derive(Clone)]
enum Input {
    Null,
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// What a command that succeeded has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// 0, or one of the codes given to [`Cmd::accept`].
    pub code: i32,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr; what is not UTF-8 is replaced.
    pub stderr: String,
}

/// One line of a running command, without its end; a carriage return ends a line too, for progress displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// From stdout.
    Stdout(&'a str),
    /// From stderr.
    Stderr(&'a str),
}

impl Line<'_> {
    /// The text, wherever it came from.
    pub fn text(&self) -> &str {
        match self {
            Self::Stdout(text) | Self::Stderr(text) => text,
        }
    }
}

impl Cmd {
    /// A program, looked up in `PATH` and the system's folders unless it holds a `/`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            needs: Vec::new(),
            env: BTreeMap::new(),
            stdin: Input::Null,
            log_file: None,
            cwd: None,
            timeout: None,
            apart: false,
            accepted: vec![0],
        }
    }

    /// Names a program that this one runs and does not name when it is missing: nothing is started without it.
    #[must_use]
    pub fn needs(mut self, program: impl AsRef<OsStr>) -> Self {
        self.needs.push(program.as_ref().to_owned());
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(Word { text: arg.as_ref().to_owned(), secret: false });
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Adds one argument that is displayed as `***`.
    #[must_use]
    pub fn secret_arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(Word { text: arg.as_ref().to_owned(), secret: true });
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), Word { text: value.as_ref().to_owned(), secret: false });
        self
    }

    /// Sets a variable that is displayed as `***`.
    #[must_use]
    pub fn secret_env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), Word { text: value.as_ref().to_owned(), secret: true });
        self
    }

    /// Gives these bytes on stdin. They are never displayed.
    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Gives this file on stdin.
    #[must_use]
    pub fn stdin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Input::File(path.into());
        self
    }

    /// For [`Cmd::spawn`]: stdout and stderr go to this file, which is made new.
    #[must_use]
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_file = Some(path.into());
        self
    }

    /// Runs in this folder.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Kills the command, and all it started, when it takes longer. Does not apply to [`Cmd::spawn`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Keeps Ctrl-C and a terminal that goes away from the command and from all it starts: whoever runs it has to end in order.
    /// Those with a time limit are apart anyway. Does not apply to [`Cmd::run_attached`].
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Takes this exit code for success too: `systemctl is-active` says 3 for a unit that is not.
    #[must_use]
    pub fn accept(mut self, code: i32) -> Self {
        self.accepted.push(code);
        self
    }

    /// Whether this exit code is success, for those who stand in for a machine.
    pub fn accepts(&self, code: i32) -> bool {
        self.accepted.contains(&code)
    }

    /// The arguments, without the program, as they will be passed: for tests of those who make commands.
    pub fn argv(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(|word| word.text.as_os_str())
    }

    /// The program as it was named.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Runs it; its stdout is of no interest.
    ///
    /// # Errors
    /// [`ExecError`] when it is missing, fails, is killed or takes too long.
    pub fn run(&self) -> Result<(), ExecError> {
        self.output().map(drop)
    }

    /// Runs it and keeps everything it writes.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn output(&self) -> Result<Output, ExecError> {
        self.collect(None)
    }

    /// The same; kills it, and all it started, when `stop` is set before it has ended, and then gives `None`.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn output_unless(&self, stop: &AtomicBool) -> Result<Option<Output>, ExecError> {
        match self.collect(Some(stop)) {
            Ok(output) => Ok(Some(output)),
            // Whoever has set it may have told the command, too.
            Err(_) if stop.load(Ordering::SeqCst) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn collect(&self, stop: Option<&AtomicBool>) -> Result<Output, ExecError> {
        let mut stdout = Vec::new();
        let (code, stderr) =
            self.attend(|pipe, _| pipe.read_to_end(&mut stdout).map(drop), stop, usize::MAX)?;
        Ok(Output { code, stdout, stderr })
    }

    /// Runs it and gives its stdout as text, without the final newlines.
    ///
    /// # Errors
    /// As [`Cmd::run`], or stdout is not UTF-8.
    pub fn stdout_string(&self) -> Result<String, ExecError> {
        let text = String::from_utf8(self.output()?.stdout);
        let mut text = text.map_err(|_| ExecError::NotText { command: self.to_string() })?;
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    /// Runs it and hands its stdout to `read` while it is written, such as a tar stream. Everything that `read`
    /// leaves is thrown away. The last 64 KiB of stderr are kept for the error.
    ///
    /// # Errors
    /// As [`Cmd::run`]; then what `read` has returned is lost, since it has read half of something.
    pub fn read_stdout<T: Send>(&self, read: impl FnOnce(&mut dyn Read) -> T + Send) -> Result<T, ExecError> {
        let mut result = None;
        let attend = |pipe: &mut dyn Read, _: &mpsc::Sender<(bool, String)>| {
            result = Some(read(pipe));
            io::copy(pipe, &mut io::sink()).map(drop)
        };
        self.attend(attend, None, STDERR_KEPT)?;
        Ok(result.expect("a command that succeeded has had its stdout read"))
    }

    /// Runs it and calls `line` for each line as it comes. The last 64 KiB of stderr are kept for the error.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn stream(&self, mut line: impl FnMut(Line<'_>)) -> Result<(), ExecError> {
        let read = |pipe: &mut dyn Read, lines: &mpsc::Sender<(bool, String)>| {
            read_lines(pipe, |text| drop(lines.send((false, text.to_owned()))))
        };
        let each =
            |stderr: bool, text: &str| line(if stderr { Line::Stderr(text) } else { Line::Stdout(text) });
        self.supervise(read, each, None, STDERR_KEPT).map(drop)
    }

    /// Starts it and returns at once. It has its own process group, so that a Ctrl-C does not reach it before its
    /// owner has ended it in order; it is killed when the [`Child`] is dropped and when this process dies.
    ///
    /// # Errors
    /// [`ExecError`] when it is missing or cannot be started.
    pub fn spawn(&self) -> Result<Child, ExecError> {
        let io_error = |source| ExecError::Start { command: self.to_string(), source };
        let log = self.log_file.as_ref().map(File::create).transpose().map_err(io_error)?;
        let copy = log.as_ref().map(File::try_clone).transpose().map_err(io_error)?;
        let stdio = |file: Option<File>| file.map_or_else(Stdio::null, Stdio::from);
        let mut command = self.prepare(true)?;
        command.stdout(stdio(log)).stderr(stdio(copy));
        let inner = child::spawn_tied(command).map_err(|source| self.not_started(source))?;
        let mut child = Child::new(inner, self.to_string());
        if let Some(pipe) = child.take_stdin() {
            feed(pipe, self.stdin_content());
        }
        Ok(child)
    }

    /// Runs it on the caller's own stdin, stdout and stderr: what it shows is seen as it comes, and it may show
    /// progress on a terminal. Its time limit does not count.
    ///
    /// # Errors
    /// [`ExecError`], without the output, which the person has seen.
    pub fn run_attached(&self) -> Result<(), ExecError> {
        let mut command = self.prepare(false)?;
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let status = command.status().map_err(|source| self.not_started(source))?;
        match status.code() {
            Some(code) if self.accepted.contains(&code) => Ok(()),
            _ => Err(self.failed(status, String::new())),
        }
    }

    fn attend(
        &self,
        read: impl FnOnce(&mut dyn Read, &mpsc::Sender<(bool, String)>) -> io::Result<()> + Send,
        stop: Option<&AtomicBool>,
        keep: usize,
    ) -> Result<(i32, String), ExecError> {
        self.supervise(read, |_, _| {}, stop, keep)
    }

    /// Runs the command with three helpers (stdin, stdout, stderr) while this thread hands out lines and watches
    /// the clock. Returns the accepted exit code and the last `keep` bytes of stderr.
    fn supervise(
        &self,
        read: impl FnOnce(&mut dyn Read, &mpsc::Sender<(bool, String)>) -> io::Result<()> + Send,
        mut each: impl FnMut(bool, &str),
        stop: Option<&AtomicBool>,
        keep: usize,
    ) -> Result<(i32, String), ExecError> {
        let own_group = self.apart || self.timeout.is_some() || stop.is_some();
        let mut command = self.prepare(false)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if own_group {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let mut process = command.spawn().map_err(|source| self.not_started(source))?;
        let stdin = process.stdin.take();
        let mut stdout = process.stdout.take().expect("stdout was asked to be a pipe");
        let mut stderr = process.stderr.take().expect("stderr was asked to be a pipe");
        let deadline = self.timeout.map(|limit| Instant::now() + limit);

        let (ended, stdout_read, kept) = std::thread::scope(|scope| {
            let (lines, received) = mpsc::channel::<(bool, String)>();
            let for_stderr = lines.clone();
            if let Some(pipe) = stdin {
                feed(pipe, self.stdin_content());
            }
            let stdout_reader = scope.spawn(move || read(&mut stdout, &lines));
            let stderr_reader = scope.spawn(move || {
                let mut kept = Vec::new();
                let read = read_chunks(&mut stderr, &for_stderr, &mut kept, keep);
                read.map(|()| kept)
            });
            let waiter = scope.spawn(move || child::wait_until(&mut process, deadline, stop, own_group));
            while let Ok((is_stderr, text)) = received.recv() {
                each(is_stderr, &text);
            }
            (join(waiter), join(stdout_reader), join(stderr_reader))
        });

        let broken = |source| ExecError::Pipe { command: self.to_string(), source };
        let status = ended.map_err(broken)?;
        let stderr = String::from_utf8_lossy(&kept.map_err(broken)?).into_owned();
        let Some(status) = status else {
            let limit = self.timeout.unwrap_or_default();
            return Err(ExecError::TimedOut { command: self.to_string(), limit, stderr });
        };
        match status.code().filter(|code| self.accepted.contains(code)) {
            Some(code) => {
                stdout_read.map_err(broken)?;
                Ok((code, stderr))
            }
            None => Err(self.failed(status, stderr)),
        }
    }

    fn failed(&self, status: ExitStatus, stderr: String) -> ExecError {
        ExecError::Failed { command: self.to_string(), status, stderr }
    }

    fn not_started(&self, source: io::Error) -> ExecError {
        let folder_exists = self.cwd.as_ref().is_none_or(|folder| folder.is_dir());
        if source.kind() == io::ErrorKind::NotFound && folder_exists {
            return missing(&self.program);
        }
        ExecError::Start { command: self.to_string(), source }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts processes")]
    fn prepare(&self, tied: bool) -> Result<std::process::Command, ExecError> {
        let path = search_path(std::env::var_os("PATH"));
        let lacks = |program: &&OsString| find(program, &path).is_none();
        if let Some(program) = self.needs.iter().find(lacks).filter(|_| find(&self.program, &path).is_some())
        {
            return Err(missing(program));
        }
        // `setpriv` ends the child with this process, whatever ends it, `kill -9` included.
        let found =
            tied.then(|| find(OsStr::new("setpriv"), &path).zip(find(&self.program, &path))).flatten();
        let mut command = match found {
            Some((setpriv, program)) => {
                let mut command = std::process::Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => std::process::Command::new(&self.program),
        };
        command.args(self.argv()).env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
        for name in INHERITED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(self.env.iter().map(|(name, word)| (name, &word.text)));
        if let Some(folder) = &self.cwd {
            command.current_dir(folder);
        }
        command.stdin(match &self.stdin {
            Input::Null => Stdio::null(),
            Input::Bytes(_) => Stdio::piped(),
            Input::File(path) => File::open(path)
                .map_err(|source| ExecError::Input { path: path.clone(), command: self.to_string(), source })?
                .into(),
        });
        Ok(command)
    }

    /// The bytes it gets on stdin; none when that is a file.
    pub fn stdin_content(&self) -> &[u8] {
        if let Input::Bytes(bytes) = &self.stdin { bytes } else { &[] }
    }
}

/// Writes stdin from a thread of its own: a command that does not read it must not stop the caller. The thread
/// ends when the pipe does.
fn feed(mut pipe: std::process::ChildStdin, content: &[u8]) {
    let content = content.to_vec();
    std::thread::spawn(move || {
        // A command that ends without reading its input is judged by its exit status.
        let _ = pipe.write_all(&content);
    });
}

fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read_lines(pipe: &mut dyn Read, mut line: impl FnMut(&str)) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for &byte in &buffer[..count] {
            if byte != b'\n' && byte != b'\r' {
                pending.push(byte);
            } else if !pending.is_empty() {
                line(&String::from_utf8_lossy(&pending));
                pending.clear();
            }
        }
    }
    if !pending.is_empty() {
        line(&String::from_utf8_lossy(&pending));
    }
    Ok(())
}

fn read_chunks(
    pipe: &mut dyn Read,
    lines: &mpsc::Sender<(bool, String)>,
    kept: &mut Vec<u8>,
    keep: usize,
) -> io::Result<()> {
    let mut tee = Tee { pipe, kept, keep };
    read_lines(&mut tee, |text| drop(lines.send((true, text.to_owned()))))
}

/// Keeps the last `keep` bytes of what passes.
struct Tee<'a> {
    pipe: &'a mut dyn Read,
    kept: &'a mut Vec<u8>,
    keep: usize,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..count]);
        // Cut rarely, so that a chatty command does not cost a copy of all per read.
        if self.kept.len() / 2 > self.keep {
            self.kept.drain(..self.kept.len() - self.keep);
        }
        Ok(count)
    }
}

fn search_path(inherited: Option<OsString>) -> OsString {
    let mut folders: Vec<PathBuf> = inherited.iter().flat_map(std::env::split_paths).collect();
    folders.extend(SYSTEM_PATH.iter().map(PathBuf::from));
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    // Joining fails only for a folder with a `:`, which cannot come from splitting at `:`.
    std::env::join_paths(folders).unwrap_or_default()
}

fn missing(program: &OsStr) -> ExecError {
    let package = package_of(Path::new(program).file_name().unwrap_or_default());
    ExecError::Missing { program: program.to_string_lossy().into_owned(), package }
}

fn find(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Some(program.into());
    }
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// As one would type it in a shell, secrets as `***`.
impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{}={value} ", name.to_string_lossy())?;
        }
        f.write_str(&quote(&self.program.to_string_lossy()))?;
        for word in &self.args {
            write!(f, " {word}")?;
        }
        if let Input::File(path) = &self.stdin {
            write!(f, " < {}", quote(&path.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cmd({self})")
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret {
            "***"
        } else {
            return f.write_str(&quote(&self.text.to_string_lossy()));
        })
    }
}

/// Single quotes when needed, as POSIX shells read them.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;

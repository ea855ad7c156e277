//! zdb as the judge of what was written.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::Image;

/// Seconds that zdb may take: it takes one or two, and may wait for ever for what it cannot read (then its status is 124).
const LIMIT: u32 = 120;

/// What zdb says after it has read every block and compared their sum with the space maps. Of wrong blocks it speaks before,
/// and when the counts of features are wrong it does not come to it.
const NOTHING_LOST: &str = "No leaks (block sum matches space maps exactly)";
/// What it says last, of a pool with or without a history (`-h`): then the counts of space maps have been compared, too.
const LAST_WORDS: [&str; 2] = ["History:", "Unable to read history"];

impl Image {
    pub(crate) fn zdb(&self, args: &[&str]) -> Output {
        self.command(&find_zdb(), LIMIT, args).output().unwrap()
    }

    /// zdb reads every block, finds no error and no leak, and agrees with the features' reference counts.
    pub(crate) fn check(&self) {
        self.check_with(&find_zdb());
    }

    /// The same by the `zdb` of another release.
    pub(crate) fn check_with(&self, zdb: &Path) {
        let text = self.report(zdb, LIMIT);
        assert!(is_good(&text) && text.contains("feature refcount"), "{}: {text}", zdb.display());
    }

    /// Whether zdb, given `seconds`, reads every block and finds nothing lost. Of damage it may never come back.
    pub(crate) fn zdb_is_content(&self, seconds: u32) -> bool {
        is_good(&self.report(&find_zdb(), seconds))
    }

    /// The content of a file of the pool, read by zdb.
    pub(crate) fn extract(&self, dataset: &str, path: &str) -> Vec<u8> {
        let to = self.dir.path().join("extracted");
        let output = self.zdb(&["-r", "--", dataset, path, to.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "zdb -r {dataset} {path}: {errors}");
        let content = std::fs::read(&to).unwrap();
        drop(std::fs::remove_file(to));
        content
    }

    /// All that zdb says of the pool's blocks and features.
    ///
    /// After that it waits, busily, until what it prefetched is six seconds old and may leave its cache. On a
    /// terminal it speaks line by line, so that we need not wait with it.
    fn report(&self, zdb: &Path, seconds: u32) -> String {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let mut zdb = self
            .command(zdb, seconds, &["-bccdh", "fz"])
            .stdin(Stdio::null())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal)
            .spawn()
            .unwrap();
        let mut controller = File::from(controller);
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        // Reading fails when zdb has ended and nobody holds the terminal any more.
        while let Ok(len @ 1..) = controller.read(&mut buffer) {
            text.extend_from_slice(&buffer[..len]);
            let said = String::from_utf8_lossy(&text);
            if LAST_WORDS.iter().any(|words| said.contains(words)) {
                // To `timeout`, which passes it on.
                kill_process(Pid::from_child(&zdb), Signal::TERM).unwrap();
                break;
            }
        }
        drop(controller);
        zdb.wait().unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The oracle is a program: there is no library that could be asked instead.
    #[allow(
        clippy::disallowed_methods,
        reason = "a test asks a foreign program, nothing on the host is changed"
    )]
    fn command(&self, zdb: &Path, seconds: u32, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &seconds.to_string()]);
        command.arg(zdb).arg("-e").arg("-p").arg(self.dir.path()).args(args);
        command
    }
}

fn is_good(text: &str) -> bool {
    text.contains(NOTHING_LOST)
        && ["Error counts", "Got error", "mismatch", "leaked space"].iter().all(|sign| !text.contains(sign))
}

/// The `zdb` of other releases, and what these are.
pub(crate) fn other_releases() -> Vec<(String, PathBuf)> {
    let named =
        std::env::var("KLD_OTHER_ZDB").expect("no zdb of other releases: run it through cargo xtask test");
    let each = named.split(',').map(|named| named.split_once('=').expect("RELEASE=PATH"));
    each.map(|(release, path)| (release.to_owned(), PathBuf::from(path))).collect()
}

fn find_zdb() -> PathBuf {
    let from_path = || {
        let path = std::env::var_os("PATH")?;
        let places =
            std::env::split_paths(&path).chain(["/sbin", "/usr/sbin"].map(|dir| Path::new(dir).to_owned()));
        places.map(|dir| dir.join("zdb")).find(|zdb| zdb.exists())
    };
    std::env::var_os("KLD_ZDB")
        .map(PathBuf::from)
        .or_else(from_path)
        .expect("no zdb: run it through cargo xtask test, which installs zdb")
}

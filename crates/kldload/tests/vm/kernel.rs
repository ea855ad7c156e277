//! Pools in the hands of the OpenZFS of a machine: what their tests share.

use std::fs::File;
use std::path::{Path, PathBuf};

use kld_host::Cmd;
use kld_pool::ReadAt;
use kld_pool::read::Pool;
use kld_pool::verify::verify;
use kld_vm::{Guest, Output};

use crate::fixture::BOOT;

/// `sha256sum` of every file, in the order of their names, and the names of all directories.
const SUMS: &str =
    "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; find . -type d | LC_ALL=C sort";

/// The files of a directory of this machine.
pub(crate) fn sums_here(dir: &Path) -> String {
    Cmd::new("sh").args(["-c", SUMS]).cwd(dir).stdout_string().expect("coreutils").trim().to_owned()
}

/// The verifier finds nothing wrong with a pool, and leaves nothing out.
pub(crate) fn assert_whole(paths: &[PathBuf]) {
    let disks: Vec<File> = paths.iter().map(|path| File::open(path).expect("it is there")).collect();
    let devices: Vec<&dyn ReadAt> = disks.iter().map(|disk| disk as &dyn ReadAt).collect();
    let report = verify(&Pool::open(&devices).expect("it opens"), &());
    assert!(report.is_clean() && report.not_checked.is_empty(), "{report:#?}");
}

/// Runs scripts in a machine.
pub(crate) struct Shell<'g>(pub(crate) &'g Guest);

impl Shell<'_> {
    /// What a script that must succeed says.
    pub(crate) fn run(&self, script: &str) -> String {
        self.output(script).text()
    }

    /// The same, byte for byte.
    pub(crate) fn bytes(&self, script: &str) -> Vec<u8> {
        self.output(script).stdout
    }

    fn output(&self, script: &str) -> Output {
        let output = self.0.run_for(&format!("set -e -o pipefail; {script}"), BOOT).expect("it answers");
        assert!(output.is_ok(), "{script}: {}", output.error_text());
        output
    }

    /// What a script that must fail says of it.
    pub(crate) fn fails(&self, script: &str) -> String {
        let output = self.0.run_for(&format!("set -o pipefail; {script}"), BOOT).expect("it answers");
        assert!(!output.is_ok(), "{script}: {}", output.text());
        output.error_text()
    }

    /// The kernel reads all of a pool and finds nothing wrong.
    pub(crate) fn scrub(&self, pool: &str) {
        let status = self.run(&format!("zpool scrub -w {pool}; zpool status {pool}"));
        assert!(status.contains("with 0 errors") && status.contains("No known data errors"), "{status}");
    }

    /// The files of a directory of the machine.
    pub(crate) fn sums(&self, dir: &str) -> String {
        self.run(&format!("cd {dir}; {SUMS}"))
    }
}

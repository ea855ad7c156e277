//! The units that judge a changed system at its first start. They lie in the clone alone, and go when it has passed.
//!
//! `kldload-trial.service` stands before `boot-complete.target` and asks whether all is well. Where that is never reached, the
//! other one says so: in emergency and rescue mode at once, else after ten minutes.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kld_host::atomic_write;
use kld_host::folder::make_public_folders;

use crate::error::PackageError;
use crate::request::TrialFile;

/// What the changed system is told; while it is there, it must prove itself.
pub const TRIAL_FILE: &str = "/etc/kldload/trial.json";
const STUCK_UNIT: &str = "kldload-trial-stuck.service";
const JUDGE: &str = "kldload-trial.service";
/// When a first start counts as stuck.
pub const STUCK_TIMER: &str = "kldload-trial-stuck.timer";
const UNITS: &str = "etc/systemd/system";

/// Who wants which.
const LINKS: [(&str, &str); 5] = [
    ("boot-complete.target.requires", JUDGE),
    ("multi-user.target.wants", JUDGE),
    ("emergency.target.wants", STUCK_UNIT),
    ("rescue.target.wants", STUCK_UNIT),
    ("sysinit.target.wants", STUCK_TIMER),
];

fn units(program: &str) -> [(&'static str, String); 3] {
    let judge = format!(
        "After=multi-user.target graphical.target\n\
         Before=boot-complete.target\n\
         OnFailure={STUCK_UNIT}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={program} pkg judge\n\
         TimeoutStartSec=10min\n\
         StandardOutput=journal+console\n"
    );
    let stuck = format!(
        "DefaultDependencies=no\n\
         FailureAction=reboot-force\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={program} pkg judge --stuck\n\
         TimeoutStartSec=2min\n\
         StandardOutput=journal+console\n"
    );
    let timer = "DefaultDependencies=no\n\
         Before=shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Timer]\n\
         OnBootSec=10min\n";
    [
        (JUDGE, unit("Say whether the changed system is well", &judge)),
        (STUCK_UNIT, unit("Leave a changed system that does not start", &stuck)),
        (STUCK_TIMER, unit("When a changed system counts as stuck", timer)),
    ]
}

/// A unit that does nothing in a system that has nothing to prove.
fn unit(description: &str, rest: &str) -> String {
    format!(
        "# Written by kldload for the first start of a changed system; removed when it was found well.\n\
         [Unit]\n\
         Description={description}\n\
         ConditionPathExists={TRIAL_FILE}\n\
         {rest}"
    )
}

/// Puts them into the system below `root`.
pub(crate) fn write(root: &Path, program: &str, trial: &TrialFile) -> Result<(), PackageError> {
    let folder = root.join(UNITS);
    for (name, text) in units(program) {
        put(&folder.join(name), text.as_bytes())?;
    }
    for (target, unit) in LINKS {
        let wants = folder.join(target);
        make_public_folders(&wants).map_err(PackageError::file("make", &wants))?;
        let link = wants.join(unit);
        match symlink(format!("../{unit}"), &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PackageError::file("make", link)(error));
            }
            _ => {}
        }
    }
    let json =
        serde_json::to_vec(trial).map_err(|error| PackageError::file("write", TRIAL_FILE)(error.into()))?;
    put(&root.join(TRIAL_FILE.trim_start_matches('/')), &json)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), PackageError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    make_public_folders(folder).map_err(PackageError::file("make", folder))?;
    atomic_write(path, bytes, 0o644).map_err(|error| PackageError::Machine(error.into()))
}

/// Removes them from the system below `root`, and the folders that were theirs.
///
/// # Errors
/// When one cannot be removed. What is not there is no error.
pub fn remove(root: &Path) -> Result<(), PackageError> {
    let folder = root.join(UNITS);
    // The file that says what it is about goes last: without it the units do nothing.
    let mut files: Vec<PathBuf> = LINKS.iter().map(|(target, unit)| folder.join(target).join(unit)).collect();
    files.extend([JUDGE, STUCK_UNIT, STUCK_TIMER].map(|name| folder.join(name)));
    files.push(root.join(TRIAL_FILE.trim_start_matches('/')));
    for file in files {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PackageError::file("remove", file)(error));
            }
            _ => {}
        }
    }
    let folders = LINKS.iter().map(|(target, _)| folder.join(target)).chain([root.join("etc/kldload")]);
    for folder in folders {
        // One that holds something else stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_and_go_without_a_trace() {
        let root = tempfile::tempdir().expect("writable");
        let system = root.path().join(UNITS);
        fs::create_dir_all(system.join("multi-user.target.wants")).expect("writable");
        fs::write(system.join("multi-user.target.wants/x.service"), "").expect("writable");
        let list = || {
            let mut found = vec![root.path().to_owned()];
            let mut at = 0;
            while let Some(folder) = found.get(at).cloned() {
                at += 1;
                if folder.is_dir() && !folder.is_symlink() {
                    found.extend(
                        fs::read_dir(folder).expect("readable").map(|of| of.expect("readable").path()),
                    );
                }
            }
            found.sort();
            found
        };
        let before = list();
        let trial = TrialFile {
            from: "debian".to_owned(),
            bad_before: vec!["scrub".to_owned()],
            ..TrialFile::default()
        };
        for _ in 0..2 {
            write(root.path(), "/usr/bin/kldload", &trial).expect("written");
        }
        assert_eq!(list().len(), before.len() + 14, "{:?}", list());
        let link = system.join("boot-complete.target.requires").join(JUDGE);
        assert!(
            fs::read_to_string(link)
                .expect("it leads somewhere")
                .contains("ExecStart=/usr/bin/kldload pkg judge\n")
        );
        remove(root.path()).expect("removed");
        assert_eq!(list(), before);
        remove(root.path()).expect("nothing to do");
    }
}

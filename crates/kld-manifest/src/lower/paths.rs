//! Rules for paths in the machine and beside the manifest.

use crate::values::Wrong;

/// Absolute, no `.` or `..`, no empty part, no control characters.
pub(crate) fn check_absolute(text: &str) -> Result<(), Wrong> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(Wrong::because("it must be an absolute path").hint(format!("for example `/{text}`")));
    };
    if text.contains(char::is_control) {
        return Err(Wrong::because("control characters are not allowed"));
    }
    if text.len() > 4095 {
        return Err(Wrong::because("it is longer than Linux takes"));
    }
    if rest.is_empty() {
        return Ok(());
    }
    for part in rest.split('/') {
        match part {
            "" => {
                return Err(
                    Wrong::because("a part of it is empty").hint("write single slashes and none at the end")
                );
            }
            "." | ".." => {
                return Err(
                    Wrong::because(format!("`{part}` is not allowed in it")).hint("write the path out")
                );
            }
            part if part.len() > 255 => return Err(Wrong::because("a part of it is longer than 255 bytes")),
            _ => {}
        }
    }
    Ok(())
}

/// Relative to the manifest's folder, and inside it.
pub(crate) fn check_beside(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::because("it is empty"));
    }
    if text.starts_with('/') {
        return Err(Wrong::because("a source is a path beside the manifest")
            .hint("copy the file into the manifest's folder"));
    }
    if text.starts_with('~') {
        return Err(Wrong::because("`~` is not expanded").hint("copy the file into the manifest's folder"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Wrong::because("it leaves the manifest's folder")
            .hint("copy the file into the manifest's folder"));
    }
    let plain = text.strip_prefix("./").unwrap_or(text);
    check_absolute(&format!("/{}", plain.strip_suffix('/').unwrap_or(plain)))
}

/// Where a dataset must not be mounted, with the reason: it would hide the system, or take the package database out of
/// the boot environment.
pub(crate) fn shadows_system(mountpoint: &str) -> Option<&'static str> {
    const DATABASE: &str = "the package database below it belongs to the boot environment";
    const HIDES: &str = "it would hide a part of the system";
    const WHOLE: [&str; 13] = [
        "/usr", "/etc", "/boot", "/bin", "/lib", "/lib32", "/lib64", "/sbin", "/proc", "/sys", "/dev",
        "/run", "/efi",
    ];
    if mountpoint == "/" {
        return Some("the root file system is the boot environment");
    }
    if mountpoint == "/usr/local" || mountpoint.starts_with("/usr/local/") {
        return None;
    }
    if WHOLE.iter().any(|path| is_at_or_below(mountpoint, path)) {
        return Some(HIDES);
    }
    let databases = ["/var/lib/dpkg", "/var/lib/apt", "/var/lib/rpm", "/var/lib/pacman", "/lib/apk"];
    if ["/var", "/var/lib"].contains(&mountpoint)
        || databases.iter().any(|path| is_at_or_below(mountpoint, path))
    {
        return Some(DATABASE);
    }
    None
}

/// Whether `path` is `parent` or something below it.
pub(crate) fn is_at_or_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stay_beside_the_manifest() {
        for good in ["app.py", "./app.py", "static/", "a/b.c", "..a"] {
            assert_eq!(check_beside(good), Ok(()), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../b", "~/x", "a//b", "a/./b"] {
            assert!(check_beside(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn system_paths_are_kept() {
        for kept in
            ["/", "/usr", "/usr/lib", "/etc/x", "/run", "/var", "/var/lib", "/var/lib/dpkg/info", "/lib64"]
        {
            assert!(shadows_system(kept).is_some(), "{kept}");
        }
        for free in ["/srv/x", "/usr/local", "/var/lib/postgresql", "/libx", "/home", "/var/log", "/opt"] {
            assert!(shadows_system(free).is_none(), "{free}");
        }
    }
}

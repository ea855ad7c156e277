//! Sealing: what a package run leaves behind that must not be in an image, and the proof that nothing is left.
//!
//! Removing is not trusted to be complete: [`audit`] looks at the finished tree and refuses to build an image
//! that holds an identity, a private key, a password nobody asked for or a compiler.

use kld_pool::tree::{Kind, Tree};

use crate::lock::Lock;

/// Paths removed with everything below them.
const REMOVED: &[(&str, &str)] = &[
    ("/etc/hostid", "identity, made on the machine"),
    ("/etc/machine-id", "identity, made on the machine (an empty file takes its place)"),
    ("/var/lib/dbus/machine-id", "identity, made on the machine"),
    ("/var/lib/systemd/random-seed", "a seed that every machine would share"),
    ("/var/lib/systemd/credential.secret", "the key that seals credentials"),
    ("/etc/ssl/private/ssl-cert-snakeoil.key", "identity, made on the machine"),
    ("/etc/ssl/certs/ssl-cert-snakeoil.pem", "identity, made on the machine"),
    ("/etc/.resolv.conf.systemd-resolved.bak", "names the resolver of the machine that built the image"),
    ("/etc/zfs/zpool.cache", "names the pools of the machine that built the image"),
    ("/etc/passwd-", "backup with dates"),
    ("/etc/shadow-", "backup with dates"),
    ("/etc/group-", "backup with dates"),
    ("/etc/gshadow-", "backup with dates"),
    ("/etc/subuid-", "backup with dates"),
    ("/etc/subgid-", "backup with dates"),
    ("/var/lib/dpkg/status-old", "backup"),
    ("/var/lib/dpkg/diversions-old", "backup"),
    ("/var/lib/dpkg/statoverride-old", "backup"),
    ("/var/cache/debconf/config.dat-old", "backup"),
    ("/var/cache/debconf/templates.dat-old", "backup"),
    ("/var/cache/ldconfig/aux-cache", "holds inode numbers and times of the building machine"),
    ("/root/.bash_history", "history"),
    ("/root/.wget-hsts", "history"),
];

/// Directories whose content is removed, while they stay.
const EMPTIED: &[&str] = &["/tmp", "/run", "/var/tmp", "/var/cache/apt", "/var/lib/apt/lists"];

/// Removes what a package run left behind. Idempotent.
pub(crate) fn seal(tree: &mut Tree) {
    for (path, _) in REMOVED {
        tree.remove(path);
    }
    for dir in EMPTIED {
        for path in below(tree, dir) {
            tree.remove(&path);
        }
    }
    for path in below(tree, "/etc/ssh").into_iter().filter(|path| path.starts_with("/etc/ssh/ssh_host_")) {
        tree.remove(&path);
    }
    // Log files go, log directories stay: daemons expect theirs with its owner.
    for path in below(tree, "/var/log") {
        if tree.get(&path).is_some_and(|node| matches!(node.kind(), Kind::File(_))) {
            tree.remove(&path);
        }
    }
}

/// Something in the tree that must not be in an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub path: String,
    /// What it is.
    pub what: &'static str,
}

/// An image that would give something away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tree is not clean: {}", list(.findings))]
pub struct AuditError {
    /// What was found, sorted.
    pub findings: Vec<Finding>,
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("`{}` ({})", f.path, f.what)).collect::<Vec<_>>().join(", ")
}

/// The largest file that is searched for a private key.
const KEY_FILE_MAX: u64 = 64 * 1024;

/// Looks at everything once more. `hashes` are the password hashes that the manifest gives.
///
/// # Errors
/// What was found.
pub(crate) fn audit(tree: &Tree, lock: &Lock, hashes: &[&str]) -> Result<(), AuditError> {
    let mut findings = Vec::new();
    let mut found = |path: &str, what| findings.push(Finding { path: path.to_owned(), what });
    for (path, node) in tree.walk() {
        let path = absolute(&path);
        let Kind::File(data) = node.kind() else { continue };
        let name = path.rsplit('/').next().unwrap_or_default();
        if path == "/etc/machine-id" && !data.is_empty() {
            found(&path, "machine id");
        } else if REMOVED.iter().any(|(removed, _)| *removed == path && path != "/etc/machine-id") {
            found(&path, "left behind by the package run");
        } else if path.starts_with("/etc/ssh/ssh_host_") {
            found(&path, "SSH host key");
        } else if path.starts_with("/etc/kldload/wireguard/") || path.starts_with("/etc/kldload/secrets/") {
            found(&path, "key or secret");
        } else if name.ends_with("_history") || name == ".viminfo" || name == ".lesshst" {
            found(&path, "history");
        } else if !path.starts_with("/usr/") && data.len() <= KEY_FILE_MAX && holds_private_key(tree, &path) {
            found(&path, "private key");
        }
    }
    for package in &lock.packages {
        if package.name.ends_with("-dkms")
            || package.name == "dkms"
            || package.name.starts_with("linux-headers-")
        {
            found(&package.name, "package that compiles modules");
        }
    }
    if let Ok(shadow) = tree.read("/etc/shadow") {
        for line in String::from_utf8_lossy(&shadow).lines() {
            let mut fields = line.split(':');
            let (user, hash) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            if !hash.starts_with(['!', '*']) && !hashes.contains(&hash) {
                found(&format!("/etc/shadow: {user}"), "password");
            }
        }
    }
    findings.sort();
    findings.dedup();
    if findings.is_empty() { Ok(()) } else { Err(AuditError { findings }) }
}

fn holds_private_key(tree: &Tree, path: &str) -> bool {
    let Ok(bytes) = tree.read(path) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----"))
}

/// Everything below a directory, children before parents.
fn below(tree: &Tree, dir: &str) -> Vec<String> {
    let prefix = format!("{dir}/");
    let mut paths: Vec<String> =
        tree.walk().map(|(path, _)| absolute(&path)).filter(|path| path.starts_with(&prefix)).collect();
    paths.reverse();
    paths
}

/// The path of a walk as the machine will know it.
pub(crate) fn absolute(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use kld_pool::tree::{Data, Meta, Timestamp};

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        let meta = |mode| Meta::root(mode, Timestamp { sec: 0, nsec: 0 });
        for (path, content) in files {
            let parent = path.rsplit_once('/').expect("absolute").0;
            if !parent.is_empty() {
                tree.ensure_dir(parent, meta(0o755)).expect("a directory");
            }
            let data = Data::bytes(content.as_bytes().to_vec());
            tree.insert(*path, meta(0o644), Kind::File(data)).expect("a file");
        }
        tree
    }

    fn lock(packages: &[&str]) -> Lock {
        let list: String = packages.iter().map(|name| format!("{name}\tamd64\t1\t\n")).collect();
        Lock::from_list("debian-13", "6.12", &list).expect("a list")
    }

    fn found(tree: &Tree, lock: &Lock) -> String {
        audit(tree, lock, &["$y$given"]).expect_err("it is not clean").to_string()
    }

    #[test]
    fn what_a_package_run_leaves_behind_is_removed() {
        let mut tree = tree(&[
            ("/etc/ssh/ssh_host_ed25519_key", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("/etc/ssh/sshd_config", "Port 22\n"),
            ("/etc/hostid", "1234"),
            ("/etc/shadow", "root:!:::::::\nalice:$y$given:::::::\n"),
            ("/var/lib/systemd/random-seed", "seed"),
            ("/var/log/apt/history.log", "when"),
            ("/var/cache/apt/pkgcache.bin", "cache"),
            ("/root/.bash_history", "ls"),
        ]);
        assert!(audit(&tree, &lock(&["bash"]), &["$y$given"]).is_err());
        seal(&mut tree);
        audit(&tree, &lock(&["bash"]), &["$y$given"]).expect("it is clean");
        let left: Vec<String> =
            tree.walk().filter(|(_, node)| !node.is_dir()).map(|(path, _)| absolute(&path)).collect();
        assert_eq!(left, ["/etc/shadow", "/etc/ssh/sshd_config"]);
        assert!(tree.get("/var/log/apt").is_some(), "directories of logs stay");
    }

    #[test]
    fn what_sealing_does_not_know_is_still_found() {
        let key = "# a comment\n-----BEGIN EC PRIVATE KEY-----\n";
        assert!(
            found(&tree(&[("/etc/app/tls.pem", key)]), &lock(&[]))
                .contains("`/etc/app/tls.pem` (private key)")
        );
        assert!(found(&tree(&[("/srv/app/.psql_history", "x")]), &lock(&[])).contains("history"));
        assert!(
            found(&tree(&[("/etc/kldload/wireguard/wg0.key", "x")]), &lock(&[])).contains("key or secret")
        );
        assert!(found(&tree(&[("/etc/machine-id", "0123")]), &lock(&[])).contains("machine id"));
        assert!(
            found(&tree(&[("/etc/shadow", "bob:$y$other:::::::\n")]), &lock(&[]))
                .contains("`/etc/shadow: bob` (password)")
        );
        assert!(found(&tree(&[]), &lock(&["linux-headers-6.12"])).contains("compiles modules"));
    }
}

//! Packages made for a test, and an archive of them that apt reads from a folder.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kld_host::Cmd;
use sha2::{Digest as _, Sha256};

/// A folder with packages and their list.
pub(super) struct Archive {
    folder: PathBuf,
    list: String,
}

/// What a package holds.
#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) files: &'a [(&'a str, &'a [u8])],
    pub(super) links: &'a [(&'a str, &'a str)],
    /// Run when it is configured, as shell.
    pub(super) postinst: &'a str,
}

impl Archive {
    pub(super) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("writable");
        Self { folder: folder.to_owned(), list: String::new() }
    }

    /// Makes a package; only what is listed is found by apt.
    pub(super) fn add(&mut self, name: &str, version: &str, content: &Content<'_>, is_listed: bool) {
        let tree = self.folder.with_extension(format!("{name}-tree"));
        let put = |path: &str, bytes: &[u8], mode: u32| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("below the tree")).expect("writable");
            fs::write(&path, bytes).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("writable");
        };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A Test <test@example.org>\nDescription: made for a test\n"
        );
        put("DEBIAN/control", control.as_bytes(), 0o644);
        put("DEBIAN/md5sums", self.sums(&tree, content).as_bytes(), 0o644);
        if !content.postinst.is_empty() {
            put("DEBIAN/postinst", format!("#!/bin/sh\nset -e\n{}\n", content.postinst).as_bytes(), 0o755);
        }
        for (path, bytes) in content.files {
            put(path, bytes, if path.contains("bin/") { 0o755 } else { 0o644 });
        }
        for (path, to) in content.links {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("below the tree")).expect("writable");
            std::os::unix::fs::symlink(to, &path).expect("writable");
        }
        let file = format!("{name}_{version}_all.deb");
        let package = self.folder.join(&file);
        let build = Cmd::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&tree).arg(&package);
        build.run().expect("dpkg is installed");
        if is_listed {
            let bytes = fs::read(&package).expect("it was made");
            let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let size = bytes.len();
            writeln!(self.list, "{control}Filename: ./{file}\nSize: {size}\nSHA256: {sum}\n")
                .expect("in memory");
            fs::write(self.folder.join("Packages"), &self.list).expect("writable");
        }
    }

    /// `md5sums`, without which dpkg has nothing to compare a package's files with.
    fn sums(&self, tree: &Path, content: &Content<'_>) -> String {
        let scratch = tree.with_extension("sum");
        let sum = |(path, bytes): &(&str, &[u8])| {
            fs::write(&scratch, bytes).expect("writable");
            let said = Cmd::new("md5sum").arg(&scratch).stdout_string().expect("coreutils are installed");
            format!("{}  {path}\n", said.split(' ').next().expect("a sum"))
        };
        content.files.iter().map(sum).collect()
    }
}

/// An uncompressed cpio archive (newc) with one executable file.
pub(super) fn cpio(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes, mode) in [(name, bytes, 0o100_755), ("TRAILER!!!", &[][..], 0)] {
        let fields = [1, mode, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        archive.extend_from_slice(format!("070701{fields}{name}\0").as_bytes());
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

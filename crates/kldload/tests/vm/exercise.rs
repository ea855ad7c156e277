//! What a kernel must be able to do with a pool of ours: find everything as it was given, and use it as its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use kld_host::zpool;
use kld_pool::tree::{Data, Kind, Meta, Node, NodeId, Timestamp, Tree};
use kld_pool::{DatasetSpec, PoolSpec, write_pool};
use sha2::{Digest as _, Sha256};

use crate::kernel::{Shell, assert_whole};

const SIZE: u64 = 384 << 20;
/// What the disk is enlarged to while the pool is in use.
const GROWN: u64 = 512 << 20;
const DATASETS: [(&str, &[(&str, &str)]); 3] = [
    ("a", &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto"), ("quota", "300M")]),
    ("b", &[("compression", "lz4"), ("recordsize", "4k"), ("reservation", "8M"), ("checksum", "sha256")]),
    ("c", &[("compression", "off"), ("refquota", "200M"), ("copies", "2")]),
];

/// `struct posix_acl_xattr_header` and its entries (Linux, include/uapi/linux/posix_acl_xattr.h): tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Every kind of node, name, size, mode, owner, time and attribute.
fn tree() -> Tree {
    let mut tree = Tree::new();
    let mut count = 0u32;
    let mut meta = |mode| {
        count += 1;
        let mtime = Timestamp { sec: 1_600_000_000 + i64::from(count) * 86_399, nsec: count * 1_234_567 };
        Meta { mode, uid: 1000 + count % 4, gid: 50 + count % 3, mtime, xattrs: BTreeMap::new() }
    };
    let noise = |size: usize| -> Data {
        Data::bytes((0..size as u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<u8>>())
    };
    let mut insert = |path: &[u8], meta: Meta, kind: Kind| {
        tree.insert(path, meta, kind).expect("it fits");
    };
    for dir in ["names", "sizes", "modes", "kinds", "xattrs", "many"] {
        insert(dir.as_bytes(), meta(0o755), Kind::Directory);
    }
    let every_byte: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for name in [&every_byte[..], b"-rf", b"new\nline", b" ", "\u{fc}n\u{ef}code".as_bytes(), &[b'x'; 255]] {
        insert(&[b"names/", name].concat(), meta(0o644), Kind::File(noise(10)));
    }
    for limit in [0usize, 112, 512, 4096, 131_072, 1 << 20] {
        for size in [limit.saturating_sub(1), limit, limit + 1] {
            insert(format!("sizes/{size}").as_bytes(), meta(0o644), Kind::File(noise(size)));
        }
    }
    let mut holes = vec![0; 3 << 20];
    holes[1 << 20..(1 << 20) + 5000].fill(7);
    insert(b"sizes/holes", meta(0o644), Kind::File(Data::bytes(holes)));
    for mode in (0..=0o777).step_by(73).chain([0o1777, 0o2755, 0o4755, 0o6711]) {
        insert(format!("modes/{mode:o}").as_bytes(), meta(mode), Kind::File(noise(1)));
        insert(format!("modes/d{mode:o}").as_bytes(), meta(mode), Kind::Directory);
    }
    for length in [1usize, 60, 200, 1000, 4000] {
        insert(format!("kinds/l{length}").as_bytes(), meta(0o777), Kind::Symlink(vec![b't'; length]));
    }
    insert(b"kinds/char", meta(0o620), Kind::CharDevice { major: 5, minor: 300 });
    insert(b"kinds/block", meta(0o660), Kind::BlockDevice { major: 259, minor: 70_000 });
    insert(b"kinds/fifo", meta(0o600), Kind::Fifo);
    insert(b"kinds/socket", meta(0o600), Kind::Socket);
    let mut old = meta(0o600);
    old.mtime = Timestamp { sec: -1_000_000, nsec: 5 };
    insert(b"kinds/old", old, Kind::File(noise(1)));
    let mut far = meta(0o600);
    (far.uid, far.gid) = (4_000_000_000, 3_000_000_000);
    insert(b"kinds/far", far, Kind::File(noise(1)));
    for size in [1usize, 100, 1000, 10_000, 40_000] {
        let mut meta = meta(0o644);
        meta.xattrs.insert(b"user.note".to_vec(), vec![b'n'; size]);
        meta.xattrs.insert(b"trusted.other".to_vec(), vec![0, 255]);
        insert(format!("xattrs/{size}").as_bytes(), meta, Kind::File(noise(size)));
    }
    // The mode's group bits are the mask of an ACL.
    let entries = |x: u16| acl(&[(1, 6 | x, !0), (2, 4 | x, 1234), (4, 4, !0), (16, 4 | x, !0), (32, 0, !0)]);
    let mut guarded = meta(0o640);
    guarded.xattrs.insert(b"system.posix_acl_access".to_vec(), entries(0));
    insert(b"xattrs/acl", guarded, Kind::File(noise(100)));
    let mut inherits = meta(0o755);
    inherits.xattrs.insert(b"system.posix_acl_default".to_vec(), entries(1));
    insert(b"xattrs/default", inherits, Kind::Directory);
    let mut capable = meta(0o755);
    // `struct vfs_cap_data`, revision 2, effective: CAP_NET_RAW.
    let net_raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    capable.xattrs.insert(b"security.capability".to_vec(), net_raw.to_vec());
    insert(b"xattrs/capable", capable, Kind::File(noise(100)));
    for i in 0..3000 {
        insert(format!("many/{i:05}").as_bytes(), meta(0o644), Kind::File(noise(i % 40)));
    }
    for link in ["kinds/hard", "many/hard", "names/hard"] {
        tree.link("sizes/4097", link).expect("it is there");
    }
    tree
}

/// One line for each name, as [`LIST`] prints it.
fn listing(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let mut names: BTreeMap<NodeId, u64> = BTreeMap::new();
    tree.walk().for_each(|(_, node)| *names.entry(node.id()).or_default() += 1);
    let line = |(path, node): (Vec<u8>, Node<'_>)| {
        let Meta { mode, uid, gid, mtime, .. } = node.meta();
        let subdirectories = node.entries().filter(|(_, child)| child.is_dir()).count() as u64;
        let (letter, size, links, target): (_, u64, u64, &[u8]) = match node.kind() {
            // ZFS counts the entries of a directory as its size, with `.` and `..`.
            Kind::Directory => ('d', node.entries().count() as u64 + 2, 2 + subdirectories, b""),
            Kind::File(data) => ('f', data.len(), names[&node.id()], b""),
            Kind::Symlink(target) => ('l', target.len() as u64, 1, target),
            Kind::CharDevice { .. } => ('c', 0, 1, b""),
            Kind::BlockDevice { .. } => ('b', 0, 1, b""),
            Kind::Fifo => ('p', 0, 1, b""),
            Kind::Socket => ('s', 0, 1, b""),
        };
        // find(1) prints ten digits.
        let Timestamp { sec, nsec } = mtime;
        let words = format!("{letter} {mode:o} {uid} {gid} {sec}.{nsec:09}0 {links} {size} ");
        [words.as_bytes(), target, b" ", &path].concat()
    };
    tree.walk().map(line).collect()
}

const LIST: &str = r"find . -printf '%y %m %U %G %T@ %n %s %l %P\0'";

/// Sums of all files.
fn sums(tree: &Tree) -> BTreeSet<Vec<u8>> {
    tree.walk()
        .filter_map(|(path, node)| {
            let Kind::File(data) = node.kind() else { return None };
            let sum = Sha256::digest(data.read().expect("it is in memory"));
            let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            Some([hex.as_bytes(), b"  ./", &path].concat())
        })
        .collect()
}

const SUM: &str = "find . -type f -print0 | xargs -0 sha256sum --zero";

/// Device numbers, which find(1) does not print.
const NUMBERS: &str = "stat -c '%t:%T' kinds/char kinds/block";

/// Attributes by path, names and values in hexadecimal.
fn attributes(tree: &Tree) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
    let text = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}=0x{value}", String::from_utf8_lossy(name))
    };
    let with = tree.walk().filter(|(_, node)| !node.meta().xattrs.is_empty());
    with.map(|(path, node)| (path, node.meta().xattrs.iter().map(text).collect())).collect()
}

/// The same of a directory of the machine. The core image has no `getfattr`; its `tar` gives all but the ACLs.
fn attributes_there(shell: &Shell<'_>, dir: &str) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
    if shell.run("command -v getfattr || true").is_empty() {
        let tar = shell.bytes(&format!("cd {dir}; tar --xattrs --xattrs-include='*' -cf - xattrs"));
        let file = tempfile::NamedTempFile::new().expect("writable");
        std::fs::write(file.path(), tar).expect("writable");
        return without_acls(attributes(&Tree::from_tar(file.path()).expect("a tar")));
    }
    let text = shell.run(&format!("cd {dir}; getfattr -R -h -P -d -m - -e hex xattrs/*"));
    let mut all = BTreeMap::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.trim().lines();
        let path = lines.next().and_then(|line| line.strip_prefix("# file: ")).expect("a path");
        all.insert(path.as_bytes().to_vec(), lines.map(str::to_owned).collect());
    }
    all
}

fn without_acls(mut all: BTreeMap<Vec<u8>, BTreeSet<String>>) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
    all.values_mut().for_each(|names| names.retain(|name| !name.starts_with("system.")));
    all.retain(|_, names| !names.is_empty());
    all
}

/// A pool on one disk, in the making: its image and the disks that join it.
pub(crate) struct Exercise {
    tree: Tree,
    /// The pool, then two empty disks of its size.
    pub(crate) disks: Vec<PathBuf>,
}

impl Exercise {
    /// Writes the pool `drill`, for a machine that sees it as its disk `device`.
    pub(crate) fn write(dir: &Path, compatibility: &str, device: &str) -> Self {
        let tree = tree();
        let mut spec = PoolSpec::new("drill".parse().expect("a name"), SIZE, [23; 32]);
        spec.vdevs[0].paths = vec![device.to_owned()];
        spec.properties.set("compatibility", compatibility).expect("a property");
        for (name, properties) in DATASETS {
            let mut dataset = DatasetSpec::new(format!("drill/{name}").parse().expect("a name"));
            for (property, value) in properties.iter().chain(&[("acltype", "posix")]) {
                dataset.properties.set(property, value).expect("a property");
            }
            dataset.content = tree.clone().into();
            dataset.snapshots = vec!["install".into()];
            spec.datasets.push(dataset);
        }
        let disks: Vec<PathBuf> = ["drill", "second", "third"].map(|name| dir.join(name)).into();
        for path in &disks {
            let size = if path.ends_with("drill") { SIZE } else { GROWN };
            File::create_new(path).and_then(|disk| disk.set_len(size)).expect("writable");
        }
        let disk = File::options().read(true).write(true).open(&disks[0]).expect("it is there");
        write_pool(&spec, &[&disk], &()).expect("it is written");
        assert_whole(&disks[..1]);
        // From here on the disk is larger than the pool on it.
        disk.set_len(GROWN).expect("sparse files work");
        Self { tree, disks }
    }

    /// Everything in a directory of the machine is as it was given.
    fn assert_equal(&self, shell: &Shell<'_>, dir: &str) {
        let lines = |script: &str| -> BTreeSet<Vec<u8>> {
            let bytes = shell.bytes(&format!("cd {dir}; {script}"));
            bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        };
        assert_same(&listing(&self.tree), &lines(LIST), dir);
        assert_same(&sums(&self.tree), &lines(SUM), dir);
        assert_eq!(shell.run(&format!("cd {dir}; {NUMBERS}")), "5:12c\n103:11170");
        let (got, want) = (attributes_there(shell, dir), attributes(&self.tree));
        let has_acls = got.values().flatten().any(|name| name.starts_with("system."));
        assert_eq!(got, if has_acls { want } else { without_acls(want) }, "{dir}");
    }

    /// Compares, then uses the pool as people do. `[pool, second, third]` are the machine's names of the disks.
    pub(crate) fn run(&self, shell: &Shell<'_>, [pool, second, third]: [&str; 3]) {
        let run = |script: &str| shell.run(script);
        let get =
            |property: &str, dataset: &str| run(&format!("zfs get -Hp -o value {property} drill/{dataset}"));
        run("zpool import drill");
        assert_eq!(run("zpool status -x drill"), "pool 'drill' is healthy");
        for (dataset, properties) in DATASETS {
            self.assert_equal(shell, &format!("/drill/{dataset}/.zfs/snapshot/install"));
            for (property, value) in properties.iter().chain(&[("acltype", "posix")]) {
                let raw = value.strip_suffix('M').map(|n| n.parse::<u64>().expect("a number") << 20);
                let raw =
                    raw.or_else(|| Some(value.strip_suffix('k')?.parse::<u64>().expect("a number") << 10));
                let want = raw.map_or((*value).to_owned(), |bytes| bytes.to_string());
                assert_eq!(get(property, dataset), want, "{property} of {dataset}");
            }
            let ids: BTreeMap<NodeId, u32> =
                self.tree.walk().map(|(_, node)| (node.id(), node.meta().uid)).collect();
            for uid in [1000, 4_000_000_000] {
                let owned = ids.values().filter(|of| **of == uid).count();
                assert_eq!(get(&format!("userobjused@{uid}"), dataset), owned.to_string());
            }
        }
        shell.scrub("drill");

        // Write, snapshot, compare, send, go back, clone, promote, destroy.
        run(
            "cd /drill/a; for i in 1 2 3; do dd if=/dev/urandom of=new-$i bs=64k count=40 status=none; done; \
             rm -r many; mv sizes/131072 sizes/moved; chown 7:7 xattrs/40000; \
             zfs snapshot drill/a@used",
        );
        let diff = run("zfs diff -H drill/a@install drill/a@used");
        for line in
            ["+\t/drill/a/new-1", "-\t/drill/a/many", "R\t/drill/a/sizes/131072\t/drill/a/sizes/moved"]
        {
            assert!(diff.lines().any(|of| of == line), "{line:?} in {diff}");
        }
        run("zfs send drill/a@install | zfs receive -u drill/copy; \
             zfs send -i @install drill/a@used | zfs receive -u drill/copy; zfs mount drill/copy");
        self.assert_equal(shell, "/drill/copy/.zfs/snapshot/install");
        run("rm -r /drill/b/*; zfs rollback drill/b@install");
        self.assert_equal(shell, "/drill/b");
        run("zfs clone drill/b@install drill/clone; date > /drill/clone/new; zfs promote drill/clone; \
             zfs destroy drill/b; zfs destroy drill/a@install");
        self.assert_equal(shell, "/drill/clone/.zfs/snapshot/install");

        // All features, a second disk, another in place of the first, and the room that it has.
        run("zpool set compatibility=off drill; zpool upgrade drill; zpool set autoexpand=off drill");
        run(&format!("zpool attach -w drill {pool} {second}"));
        shell.scrub("drill");
        run(&format!("zpool replace -w drill {second} {third}"));
        let before: u64 = run("zpool list -Hp -o size drill").parse().expect("bytes");
        run(&format!("zpool online -e drill {pool}; zpool online -e drill {third}"));
        let after: u64 = run("zpool list -Hp -o size drill").parse().expect("bytes");
        assert!(after > before + (64 << 20), "{before} to {after}");
        run("cp -r /drill/clone/sizes /drill/c/more; zfs snapshot -r drill@last; zpool sync drill");
        run("zpool export drill; zpool import drill");
        shell.scrub("drill");
        assert_eq!(run("zpool status -x drill"), "pool 'drill' is healthy");
        // What `kst` reads of an OpenZFS that writes no JSON.
        let text = run(&zpool::status_text_cmd("drill").to_string());
        let status =
            zpool::parse_status_text("drill", &text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let scan = status.scan.expect("it was scrubbed");
        assert_eq!((status.state.as_str(), status.errors, status.device_errors), ("ONLINE", 0, 0), "{text}");
        assert!(scan.state == "FINISHED" && scan.ended.is_some(), "{text}");
        self.assert_equal(shell, "/drill/clone/.zfs/snapshot/install");
        self.assert_equal(shell, "/drill/c/.zfs/snapshot/install");
        run(&format!("zpool detach drill {third}; zpool export drill"));
    }

    /// What the machine has left is whole.
    pub(crate) fn assert_whole(&self) {
        assert_whole(&self.disks[..1]);
    }
}

/// Compares sets, and names only what differs.
fn assert_same(want: &BTreeSet<Vec<u8>>, got: &BTreeSet<Vec<u8>>, dir: &str) {
    let shown = |from: &BTreeSet<Vec<u8>>, without: &BTreeSet<Vec<u8>>| -> Vec<String> {
        from.difference(without).take(5).map(|line| line.escape_ascii().to_string()).collect()
    };
    assert!(want == got, "{dir}: missing {:#?}, instead {:#?}", shown(want, got), shown(got, want));
}

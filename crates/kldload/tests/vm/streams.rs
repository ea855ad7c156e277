//! Send streams in the hands of the kernel's OpenZFS: it makes the same bytes, takes ours, goes on with them, and refuses
//! what was damaged.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_disk::Guid;
use kld_disk::gpt::read_partitions;
use kld_pool::read::{Filesystem, NodeKind, Pool};
use kld_pool::send::SendOptions;
use kld_pool::tree::{Data, Tree};
use kld_pool::verify::verify;
use kld_pool::{Content, DatasetSpec, PoolSpec, Region, SnapshotSpec, Volume, write_pool};
use kld_vm::{Disk, DiskFormat};
use sha2::{Digest as _, Sha256};

use crate::fixture::{BOOT, core_image, fresh, kldload, machine};
use crate::kernel::{Shell, sums_here};
use crate::pools::{STATES, make_states};
use crate::turn::Turn;

const SIZE: u64 = 512 << 20;
/// What the disk of streams has room for besides them: one more stream, written while the machine runs.
const MAILBOX: u64 = 64 << 20;
type Properties = &'static [(&'static str, &'static str)];
/// Datasets, their settings, and the letters with which they are sent.
const FORMATS: [(&str, Properties, &str); 4] = [
    ("plain", &[("compression", "lz4")], ""),
    ("stored", &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")], "cLe"),
    ("split", &[("compression", "gzip-6"), ("recordsize", "512k"), ("checksum", "sha256")], "c"),
    ("small", &[("compression", "off"), ("recordsize", "8k"), ("checksum", "blake3")], "e"),
];
/// What the kernel's pool is sent as: snapshot, the one before it, letters.
const FROM_THE_KERNEL: [(&str, Option<&str>, &str); 11] = [
    ("scratch/made@a", None, ""),
    ("scratch/made@a", None, "cLe"),
    ("scratch/made@b", Some("scratch/made@a"), ""),
    ("scratch/made@b", Some("scratch/made@a"), "c"),
    ("scratch/made@b", Some("scratch/made@a"), "cLe"),
    ("scratch/clone@c", Some("scratch/made@a"), "cLe"),
    ("scratch/clone@c", None, "L"),
    ("scratch/disk@b", Some("scratch/disk@a"), "ce"),
    // Not with `-e`: of its spill blocks OpenZFS makes embedded data (the crate's README).
    ("scratch/plain@three", Some("scratch/plain@one"), ""),
    ("scratch/stored@three", None, "cLe"),
    ("scratch/plain@mine", Some("scratch/plain@three"), "c"),
];

/// A tree with every state's files, owned by several people and with attributes of all sizes.
fn tree_of(dir: &Path, state: &str) -> Tree {
    let mut tree = Tree::from_dir(dir.join(state)).expect("readable");
    let paths: Vec<Vec<u8>> = tree.walk().map(|(path, _)| path).collect();
    for (n, path) in (0u32..).zip(paths) {
        let meta = tree.meta_mut(&path).expect("it was just met");
        (meta.uid, meta.gid) = (1000 + n % 3, 2000 + n % 2);
        if n % 5 == 0 {
            // The largest ones are kept in blocks of their own.
            let value = vec![b'a' + (n % 26) as u8; [10, 300, 3000][n as usize % 3]];
            meta.xattrs.insert(b"user.note".to_vec(), value);
        }
    }
    tree
}

/// Properties that are only carried, and as the kernel's tools show them.
const CARRIED: [(&str, &str); 23] = [
    ("aclinherit", "passthrough-x"),
    ("aclmode", "groupmask"),
    ("acltype", "posix"),
    // So that nothing of this is tried.
    ("canmount", "off"),
    ("com.example:note", "by hand"),
    ("context", "none"),
    ("devices", "off"),
    ("direct", "always"),
    ("exec", "off"),
    ("logbias", "throughput"),
    ("nbmand", "on"),
    ("overlay", "off"),
    ("prefetch", "metadata"),
    ("primarycache", "metadata"),
    ("redundant_metadata", "most"),
    ("secondarycache", "none"),
    ("setuid", "off"),
    ("sharenfs", "off"),
    ("snapdev", "visible"),
    ("snapdir", "visible"),
    ("sync", "always"),
    ("volmode", "dev"),
    ("vscan", "on"),
];

/// The same of the pool.
const OF_THE_POOL: [(&str, &str); 4] =
    [("autoreplace", "on"), ("autotrim", "on"), ("failmode", "continue"), ("listsnapshots", "on")];

fn write_tank(dir: &Path) -> PathBuf {
    make_states(dir);
    let spec = tank(dir);
    let path = dir.join("tank.img");
    let disk = File::create_new(&path).expect("writable");
    disk.set_len(SIZE).expect("sparse files work");
    write_pool(&spec, &[&disk], &()).expect("it is written");
    path
}

fn tank(dir: &Path) -> PoolSpec {
    let states = STATES.map(|state| (state, tree_of(dir, state)));
    let mut spec = PoolSpec::new("tank".parse().expect("a name"), SIZE, [11; 32]);
    spec.properties.set("compatibility", "openzfs-2.3-linux").expect("a property");
    let dataset = |name: &str| DatasetSpec::new(format!("tank/{name}").parse().expect("a name"));
    let snapshot = |name: &str, content| SnapshotSpec { content: Some(content), ..name.into() };
    for (name, properties, _) in FORMATS {
        let mut format = dataset(name);
        for (property, value) in properties {
            format.properties.set(property, value).expect("a property");
        }
        let of = |(state, tree): &(&str, Tree)| snapshot(state, Content::Files(tree.clone()));
        format.snapshots = states.iter().map(of).collect();
        format.content = Content::Files(states[2].1.clone());
        spec.datasets.push(format);
    }
    let mut volume = dataset("volume");
    let of = |state: &str| {
        let data = fs::read(dir.join(state).join("dir/changes")).expect("readable");
        Content::Volume(Volume { size: 16 << 20, block_size: 16 << 10, data: Data::bytes(data) })
    };
    volume.snapshots = STATES.into_iter().map(|state| snapshot(state, of(state))).collect();
    volume.content = of(STATES[2]);
    spec.datasets.push(volume);
    let mut carried = dataset("carried");
    for (property, value) in CARRIED {
        carried.properties.set(property, value).expect("a property");
    }
    spec.datasets.push(carried);
    for (property, value) in OF_THE_POOL {
        spec.properties.set(property, value).expect("a property");
    }
    spec
}

fn options(letters: &str) -> SendOptions {
    SendOptions {
        compressed: letters.contains('c'),
        large_blocks: letters.contains('L'),
        embedded: letters.contains('e'),
    }
}

/// The words of `zfs send` that make a stream.
fn zfs_send(to: &str, from: Option<&str>, letters: &str) -> String {
    let letters = if letters.is_empty() { String::new() } else { format!(" -{letters}") };
    let from = from.map(|from| format!(" -i {from}")).unwrap_or_default();
    format!("zfs send{letters}{from} {to}")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream on the disk of streams.
struct Sent {
    dataset: &'static str,
    to: String,
    from: Option<String>,
    letters: &'static str,
    start: u64,
    bytes: Vec<u8>,
}

/// What the guest reads a stream with.
fn read(start: u64, len: usize) -> String {
    format!("dd if=/dev/vdd bs=1M iflag=skip_bytes,count_bytes skip={start} count={len} status=none")
}

/// Streams of every state of every dataset, one behind the other: made of the trees, and the same as those of the pool.
fn send_all(dir: &Path, tank_image: &Path) -> Vec<Sent> {
    let file = File::open(tank_image).expect("it is there");
    let pool = Pool::open(&[&file]).expect("it opens");
    let spec = tank(dir);
    let mut streams = Vec::new();
    let mut start = 0;
    let datasets = FORMATS.map(|(name, _, letters)| (name, letters));
    for (dataset, letters) in datasets.into_iter().chain([("volume", "c")]) {
        let mut from = None;
        for state in STATES {
            let to = format!("tank/{dataset}@{state}");
            let (mut bytes, mut from_pool) = (Vec::new(), Vec::new());
            let stream = spec.send(&to, from.as_deref(), options(letters)).expect("it can be sent");
            stream.write_to(&mut bytes).expect("it is readable");
            let stream = pool.send(&to, from.as_deref(), options(letters)).expect("it can be sent");
            stream.write_to(&mut from_pool).expect("it is readable");
            assert!(bytes == from_pool, "{to}");
            let len = bytes.len() as u64;
            streams.push(Sent { dataset, to: to.clone(), from, letters, start, bytes });
            start += len.next_multiple_of(4096);
            from = Some(to);
        }
    }
    streams
}

/// The disk of streams; behind them, a place for one more.
fn write_disk(path: &Path, streams: &[Sent]) -> (File, u64) {
    let disk = File::create_new(path).expect("writable");
    for stream in streams {
        disk.write_all_at(&stream.bytes, stream.start).expect("writable");
    }
    let last = streams.last().expect("there are streams");
    let mailbox = (last.start + last.bytes.len() as u64).next_multiple_of(1 << 20);
    disk.set_len(mailbox + MAILBOX).expect("sparse files work");
    (disk, mailbox)
}

/// Every node of two file systems is the same: names, owners, modes, times, attributes, content.
fn assert_same(ours: &Filesystem, theirs: &Filesystem) {
    let mut others = theirs.walk();
    for one in ours.walk() {
        let one = one.expect("readable");
        let other = others.next().expect("as many names").expect("readable");
        let path = String::from_utf8_lossy(&one.path).into_owned();
        assert_eq!((&one.path, one.node.metadata()), (&other.path, other.node.metadata()), "{path}");
        let attributes = |filesystem: &Filesystem, node| filesystem.xattrs(node).expect("readable");
        assert_eq!(attributes(ours, &one.node), attributes(theirs, &other.node), "{path}");
        if one.node.metadata().kind == NodeKind::File {
            let content = |filesystem: &Filesystem, node: &kld_pool::read::Node| {
                let mut content = vec![0; node.metadata().size as usize];
                filesystem.read(node, 0, &mut content).expect("readable");
                content
            };
            assert!(content(ours, &one.node) == content(theirs, &other.node), "{path}");
        }
    }
    assert!(others.next().is_none(), "as many names");
}

/// The kernel's `send` makes the same bytes; when it does not, the first records that differ are shown.
fn assert_same_stream(shell: &Shell<'_>, send: &str, ours: &str, bytes: &[u8]) {
    if shell.run(&format!("{send} | sha256sum"))[..64] == sha256(bytes) {
        return;
    }
    let script = format!(
        "diff <({send} | zstream dump -v) <({ours} | zstream dump -v) | head -40; cmp <({send}) <({ours})"
    );
    let differences = shell.0.run_for(&script, BOOT).map(|output| output.text()).unwrap_or_default();
    panic!("{send}: the kernel's stream (<) and ours (>) differ:\n{differences}");
}

/// The kernel makes the same bytes of the same snapshots, and takes ours.
fn streams_are_the_kernels(shell: &Shell<'_>, dir: &Path, streams: &[Sent]) {
    for stream in streams {
        let send = zfs_send(&stream.to, stream.from.as_deref(), stream.letters);
        let ours = read(stream.start, stream.bytes.len());
        assert_same_stream(shell, &send, &ours, &stream.bytes);
        let receive = format!("zfs receive -u scratch/{}", stream.dataset);
        shell.run(&format!("{ours} | {receive}"));
    }
    for (dataset, ..) in FORMATS {
        shell.run(&format!("zfs mount scratch/{dataset}"));
        for state in STATES {
            let there = shell.sums(&format!("/scratch/{dataset}/.zfs/snapshot/{state}"));
            assert_eq!(there, sums_here(&dir.join(state)), "{dataset}@{state}");
            let guid =
                format!("zfs get -H -o value guid tank/{dataset}@{state} scratch/{dataset}@{state} | uniq");
            assert_eq!(shell.run(&guid).lines().count(), 1, "{dataset}@{state}");
        }
    }
    let owners = "find . -printf '%p %y %m %U %G %s %n %T@\\n' | LC_ALL=C sort | sha256sum";
    let of = |pool: &str| shell.run(&format!("cd /{pool}/stored; {owners}"));
    assert_eq!(of("tank"), of("scratch"));
    let volumes =
        "udevadm settle; for pool in tank scratch; do sha256sum < /dev/zvol/$pool/volume; done | uniq";
    assert_eq!(shell.run(volumes).lines().count(), 1);
}

/// A stream that is cut off leaves a token, and what `kldload pool send` makes of the token completes it.
fn a_cut_stream_is_resumed(shell: &Shell<'_>, tank: &Path, stream: &Sent, disk: &File, mailbox: u64) {
    let cut = stream.bytes.len() / 2;
    shell.fails(&format!("{} | zfs receive -s -u scratch/resumed", read(stream.start, cut)));
    let token = shell.run("zfs get -H -o value receive_resume_token scratch/resumed");
    assert!(token.starts_with("1-"), "{token}");
    let rest = tank.with_extension("rest");
    let [image, output] = [tank, &rest].map(|path| path.display().to_string());
    kldload(["pool", "send", "-t", &token, &image, "--output", &output]);
    let rest = fs::read(rest).expect("it was written");
    assert!(rest.len() < stream.bytes.len() * 3 / 4 && rest.len() as u64 <= MAILBOX, "{}", rest.len());
    disk.write_all_at(&rest, mailbox).expect("writable");
    shell.run(&format!(
        "blockdev --flushbufs /dev/vdd; {} | zfs receive -s -u scratch/resumed",
        read(mailbox, rest.len())
    ));
    shell.run("zfs mount scratch/resumed");
    let there = shell.sums("/scratch/resumed");
    assert_eq!(there, shell.sums(&format!("/tank/{}/.zfs/snapshot/one", stream.dataset)));
}

/// One changed byte, anywhere, and nothing of the stream is kept.
fn a_damaged_stream_is_refused(shell: &Shell<'_>, stream: &Sent, disk: &File, mailbox: u64) {
    for part in [3, 2] {
        let mut damaged = stream.bytes.clone();
        let at = damaged.len() / part;
        damaged[at] ^= 0x10;
        disk.write_all_at(&damaged, mailbox).expect("writable");
        let said = shell.fails(&format!(
            "blockdev --flushbufs /dev/vdd; {} | zfs receive -u scratch/broken",
            read(mailbox, damaged.len())
        ));
        assert!(said.contains("checksum mismatch"), "{said}");
        shell.fails("zfs list scratch/broken");
        assert!(kld_pool::send::check(&damaged[..]).is_err());
    }
}

/// What the kernel makes of its own accord: all that a stream can hold.
fn fill_scratch(shell: &Shell<'_>) {
    shell.run(
        "zfs create -o recordsize=1M -o compression=zstd -o dnodesize=auto -o xattr=sa scratch/made; cd /scratch/made; \
         cp -a /etc /usr/sbin .; mkdir many; for i in $(seq 3000); do echo $i > many/$i; done; \
         dd if=/dev/urandom of=large bs=1M count=7 status=none; truncate -s 1T sparse; \
         dd if=/dev/urandom of=sparse bs=64k count=3 seek=100000 conv=notrunc status=none; \
         chown -R 1234:567 etc; ln -s etc link; mkfifo fifo; zfs snapshot scratch/made@a; \
         rm -r sbin/z* many/1*; truncate -s 2500000 large; fallocate -p -o 1M -l 1M large; \
         for i in $(seq 500); do echo new > many/new-$i; done; echo more >> etc/passwd; rm sparse; \
         mkdir -p sparse/now/a/directory; zfs snapshot scratch/made@b; \
         zfs clone scratch/made@a scratch/clone; rm -r /scratch/clone/etc; date > /scratch/clone/date; \
         zfs snapshot scratch/clone@c; \
         zfs create -V 32M -o volblocksize=8k -o compression=lz4 scratch/disk; udevadm settle; \
         dd if=/dev/urandom of=/dev/zvol/scratch/disk bs=1M count=5 status=none; zfs snapshot scratch/disk@a; \
         dd if=/dev/zero of=/dev/zvol/scratch/disk bs=1M count=2 seek=1 status=none; \
         blkdiscard -o 3M -l 1M /dev/zvol/scratch/disk; zfs snapshot scratch/disk@b",
    );
}

#[test]
fn the_kernel_sends_the_same_bytes_and_receives_ours() {
    let _turn = Turn::take();
    let dir = fresh("streams");
    let tank = write_tank(&dir);
    let streams = send_all(&dir, &tank);
    let (disk, mailbox) = write_disk(&dir.join("streams.img"), &streams);
    let scratch = dir.join("scratch.img");
    File::create_new(&scratch).and_then(|file| file.set_len(2 << 30)).expect("sparse files work");
    let guest = machine(core_image(), 4)
        // What is asked of the image later must be what was sent: the guest writes elsewhere.
        .disk(Disk::new(&tank, DiskFormat::Raw).overlay().volatile())
        .disk(Disk::new(&scratch, DiskFormat::Raw).volatile())
        .disk(Disk::new(dir.join("streams.img"), DiskFormat::Raw).volatile())
        .start()
        .expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    let shell = Shell(&guest);
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    // The kernel's tools give udev a few seconds for a new partition, which is little on an emulated machine.
    shell.run(
        "zpool import tank; for try in 1 2 3 4 5; do \
             udevadm settle; zpool create -f scratch /dev/vdc && break; sleep 5; done; zpool list scratch",
    );
    for (property, value) in CARRIED {
        let shown = shell.run(&format!("zfs get -H -o value,source {property} tank/carried"));
        assert_eq!(shown, format!("{value}\tlocal"), "{property}");
    }
    for (property, value) in OF_THE_POOL {
        assert_eq!(shell.run(&format!("zpool get -H -o value {property} tank")), value, "{property}");
    }
    streams_are_the_kernels(&shell, &dir, &streams);
    let first = |dataset| streams.iter().find(|stream| stream.dataset == dataset).expect("it is sent");
    a_cut_stream_is_resumed(&shell, &tank, first("stored"), &disk, mailbox);
    a_damaged_stream_is_refused(&shell, first("small"), &disk, mailbox);

    // What was received is a base like any other: the kernel sends on from it, and back to where it came from.
    shell.run(
        "date > /scratch/plain/mine; rm /scratch/plain/grows; zfs snapshot scratch/plain@mine; \
         zfs send -i @three scratch/plain@mine | zfs receive -F tank/plain",
    );
    assert_eq!(shell.sums("/tank/plain/.zfs/snapshot/mine"), shell.sums("/scratch/plain/.zfs/snapshot/mine"));
    fill_scratch(&shell);
    let sums = FROM_THE_KERNEL.map(|(to, from, letters)| {
        shell.run(&format!("{} | sha256sum", zfs_send(to, from, letters)))[..64].to_owned()
    });
    for pool in ["tank", "scratch"] {
        shell.scrub(pool);
    }
    shell.run("zpool export tank; zpool export scratch");
    guest.shutdown(Duration::from_secs(300)).expect("it ends");

    let ours = File::open(&tank).expect("it is there");
    let ours = Pool::open(&[&ours]).expect("it opens");
    let mut theirs = File::open(&scratch).expect("it is there");
    // The kernel put a partition table on the disk.
    let partitions = read_partitions(&mut theirs).expect("readable").expect("there is a table");
    let partition = partitions.iter().find(|partition| partition.kind == Guid::ZFS).expect("one is of ZFS");
    let theirs = Region { file: &theirs, start: partition.start, len: partition.len };
    let theirs = Pool::open(&[&theirs]).expect("it opens");
    let report = verify(&theirs, &());
    assert!(report.is_clean(), "{report:#?}");
    for (dataset, ..) in FORMATS {
        for state in STATES {
            let ours = ours.filesystem(&format!("tank/{dataset}@{state}")).expect("it opens");
            let theirs = theirs.filesystem(&format!("scratch/{dataset}@{state}")).expect("it opens");
            assert_same(&ours, &theirs);
        }
    }
    // And what a kernel made is sent from here as the kernel sends it.
    for ((to, from, letters), sum) in FROM_THE_KERNEL.into_iter().zip(sums) {
        let mut bytes = Vec::new();
        let stream = theirs.send(to, from, options(letters)).expect("it can be sent");
        stream.write_to(&mut bytes).expect("it is readable");
        kld_pool::send::check(&bytes[..]).expect("it makes sense");
        assert_eq!(sha256(&bytes), sum, "{}", zfs_send(to, from, letters));
    }
    // Embedded spill blocks, which the kernel has and the writer never makes, are not sent as data: the checker would see it.
    let mut bytes = Vec::new();
    let stream = theirs.send("scratch/plain@three", None, options("e")).expect("it can be sent");
    stream.write_to(&mut bytes).expect("it is readable");
    kld_pool::send::check(&bytes[..]).expect("it makes sense");
}

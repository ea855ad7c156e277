//! Pools of every kind that the writer makes, in the hands of the kernel's OpenZFS: imported, read, changed, scrubbed,
//! exported; then read once more here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_host::Cmd;
use kld_pool::read::Pool;
use kld_pool::tree::{Data, Tree};
use kld_pool::verify::verify;
use kld_pool::{Content, DatasetSpec, PoolSpec, SnapshotSpec, Volume, write_pool};
use kld_vm::{Disk, DiskFormat};

use crate::exercise::Exercise;
use crate::fixture::{BOOT, core_image, fresh, machine};
use crate::kernel::{Shell, assert_whole, sums_here};
use crate::turn::Turn;

const SIZE: u64 = 512 << 20;
/// States of one dataset, oldest first; the last is its head.
pub(crate) const STATES: [&str; 3] = ["one", "two", "three"];
/// Settings of datasets that hold the same files.
const FORMATS: [(&str, &[(&str, &str)]); 7] = [
    ("zle", &[("compression", "zle")]),
    ("gzip", &[("compression", "gzip-9"), ("recordsize", "1M")]),
    ("fast", &[("compression", "zstd-fast-10"), ("recordsize", "16k")]),
    ("lzjb", &[("compression", "lzjb"), ("checksum", "off")]),
    ("sha256", &[("checksum", "sha256"), ("compression", "off")]),
    ("sha512", &[("checksum", "sha512"), ("compression", "zstd-3")]),
    ("blake3", &[("checksum", "blake3"), ("compression", "lz4"), ("copies", "2")]),
];

/// A directory for each state: files that stay, change, grow, shrink, go, come, move and become something else.
pub(crate) fn make_states(dir: &Path) {
    let noise = |seed: u32, len: usize| -> Vec<u8> {
        let mut word = seed | 1;
        (0..len)
            .map(|_| {
                word ^= word << 13;
                word ^= word >> 17;
                word ^= word << 5;
                word as u8
            })
            .collect()
    };
    for (n, state) in STATES.into_iter().enumerate() {
        let root = dir.join(state);
        fs::create_dir_all(root.join("dir/deep")).expect("writable");
        let write = |name: &str, bytes: Vec<u8>| fs::write(root.join(name), bytes).expect("writable");
        write("stays", noise(1, 3 << 20));
        let mut changes = noise(2, 2 << 20);
        changes[(1 << 20) + n] = n as u8;
        write("dir/changes", changes);
        write("grows", noise(3, 100_000 << n));
        write("shrinks", noise(4, 1_000_000 >> n));
        write("text", b"the same line again and again\n".repeat(5000 + n));
        write(&format!("dir/deep/only-in-{state}"), noise(5 + n as u32, 300_000));
        if n == 1 {
            fs::create_dir(root.join("turns")).expect("writable");
        } else {
            write("turns", noise(9, 10));
        }
        for i in 0..(200 + 1000 * n) {
            write(&format!("dir/{i:04}"), i.to_string().into_bytes());
        }
    }
}

/// The pool: a mirror on two disks.
fn write_mirror(dir: &Path) -> [PathBuf; 2] {
    make_states(dir);
    let tree = |state: &str| Content::Files(Tree::from_dir(dir.join(state)).expect("readable"));
    let mut spec = PoolSpec::new("tank".parse().expect("a name"), SIZE, [9; 32]);
    spec.vdevs[0].paths = vec!["/dev/vdb".to_owned(), "/dev/vdc".to_owned()];
    spec.properties.set("compatibility", "openzfs-2.3-linux").expect("a property");
    let dataset = |name: &str| DatasetSpec::new(format!("tank/{name}").parse().expect("a name"));

    let mut versions = dataset("versions");
    versions.content = tree(STATES[2]);
    versions.snapshots = STATES[..2]
        .iter()
        .map(|state| SnapshotSpec { content: Some(tree(state)), ..SnapshotSpec::from(*state) })
        .chain([STATES[2].into()])
        .collect();
    spec.datasets.push(versions);
    for (name, properties) in FORMATS {
        let mut format = dataset(name);
        for (property, value) in properties {
            format.properties.set(property, value).expect("a property");
        }
        format.content = tree("one");
        spec.datasets.push(format);
    }
    let mut volume = dataset("volume");
    let data = fs::read(dir.join("one/stays")).expect("readable");
    volume.content =
        Content::Volume(Volume { size: 16 << 20, block_size: 16 << 10, data: Data::bytes(data) });
    spec.datasets.push(volume);

    let paths = [dir.join("b.img"), dir.join("c.img")];
    let disks = paths.each_ref().map(|path| {
        let disk = File::create_new(path).expect("writable");
        disk.set_len(SIZE).expect("sparse files work");
        disk
    });
    write_pool(&spec, &[&disks[0], &disks[1]], &()).expect("it is written");
    paths
}

/// Whole, also with one side missing.
fn assert_whole_mirror(paths: &[PathBuf; 2]) {
    assert_whole(paths);
    for side in paths {
        let disk = File::open(side).expect("it is there");
        let report = verify(&Pool::open(&[&disk]).expect("it opens"), &());
        assert!(report.is_clean() && report.not_checked.len() == 1, "{report:#?}");
    }
}

#[test]
fn the_kernel_takes_every_kind_of_pool_and_gives_it_back_whole() {
    let _turn = Turn::take();
    let dir = fresh("pools");
    let paths = write_mirror(&dir);
    assert_whole_mirror(&paths);
    let exercise = Exercise::write(&dir, "openzfs-2.3-linux", "/dev/vdd");
    let vm = paths
        .iter()
        .chain(&exercise.disks)
        .fold(machine(core_image(), 3), |vm, path| vm.disk(Disk::new(path, DiskFormat::Raw).volatile()));
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    let shell = Shell(&guest);
    let run = |script: &str| shell.run(script);

    run("zpool import tank");
    assert_eq!(run("zpool status -x tank"), "pool 'tank' is healthy");
    for state in STATES {
        assert_eq!(shell.sums(&format!("/tank/versions/.zfs/snapshot/{state}")), sums_here(&dir.join(state)));
    }
    let one = sums_here(&dir.join("one"));
    for (name, properties) in FORMATS {
        assert_eq!(shell.sums(&format!("/tank/{name}")), one, "{name}");
        for (property, value) in properties {
            let got = run(&format!("zfs get -H -o value {property} tank/{name}"));
            assert!(got.eq_ignore_ascii_case(value), "{property} of {name}: {got}");
        }
    }
    let volume = run(
        "udevadm settle; head -c 3145728 /dev/zvol/tank/volume | sha256sum; tail -c +3145729 /dev/zvol/tank/volume | tr -d '\\0' | wc -c",
    );
    let stays = Cmd::new("sha256sum").arg(dir.join("one/stays")).stdout_string().expect("coreutils");
    assert_eq!(volume, format!("{}  -\n0", &stays[..64]));
    shell.scrub("tank");

    // What people do with snapshots: compare, send, clone, promote, write, destroy the middle one, go back.
    let diff = run("zfs diff -H tank/versions@one tank/versions@two");
    assert!(
        diff.contains("-\t/tank/versions/dir/deep/only-in-one") && diff.contains("M\t/tank/versions/grows"),
        "{diff}"
    );
    run("zfs send tank/versions@one | zfs receive tank/copy; \
         zfs send -i @one tank/versions@two | zfs receive tank/copy; \
         zfs send -ce -I @two tank/versions@three | zfs receive tank/copy");
    for state in STATES {
        assert_eq!(shell.sums(&format!("/tank/copy/.zfs/snapshot/{state}")), sums_here(&dir.join(state)));
    }
    run("zfs clone tank/versions@two tank/clone; date > /tank/clone/dir/changes; zfs promote tank/clone");
    run("zfs destroy tank/copy@two; cp /tank/versions/stays /tank/versions/new; rm /tank/versions/grows; \
         zfs snapshot -r tank@after; zfs destroy tank/versions@after; zfs rollback tank/versions@three");
    assert_eq!(shell.sums("/tank/versions"), sums_here(&dir.join("three")));
    run(
        "dd if=/dev/urandom of=/dev/zvol/tank/volume bs=64k count=32 seek=10 conv=notrunc status=none; zfs destroy -r tank/gzip",
    );
    shell.scrub("tank");

    // One disk goes away, comes back empty, and is filled again from the other.
    run(
        "zpool offline tank /dev/vdc; date > /tank/zle/while-degraded; zpool online tank /dev/vdc; zpool wait -t resilver tank",
    );
    run("zpool upgrade tank; zpool sync tank");
    assert_eq!(run("zpool status -x tank"), "pool 'tank' is healthy");
    run("zpool export tank");
    exercise.run(&shell, ["/dev/vdd", "/dev/vde", "/dev/vdf"]);
    guest.shutdown(Duration::from_secs(300)).expect("it ends");
    assert_whole_mirror(&paths);
    exercise.assert_whole();
}

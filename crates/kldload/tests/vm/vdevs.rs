//! Pools on several vdevs, and on raidz, in the hands of the kernel's OpenZFS: imported, degraded, repaired, exported.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_host::Cmd;
use kld_pool::read::Pool;
use kld_pool::tree::Tree;
use kld_pool::verify::verify;
use kld_pool::{DatasetSpec, Parity, PoolSpec, ReadAt, Redundancy, Vdev, WriteAt, write_pool};
use kld_vm::{Disk, DiskFormat};

use crate::fixture::{BOOT, core_image, fresh, machine};

const SIZE: u64 = 256 << 20;

fn make_files(dir: &Path) {
    fs::create_dir_all(dir.join("many")).expect("writable");
    for n in 0..6u32 {
        let noise: Vec<u8> =
            (0..3_000_000u32).map(|i| (i.wrapping_mul(i).wrapping_add(n) >> 9) as u8).collect();
        fs::write(dir.join(format!("noise-{n}")), noise).expect("writable");
    }
    for i in 0..2000 {
        fs::write(dir.join(format!("many/{i}")), i.to_string().repeat(i % 50)).expect("writable");
    }
}

/// Writes a pool whose devices are the disks from `/dev/vdb` on; gives their images.
fn write_image(dir: &Path, name: &str, vdevs: &[(usize, Redundancy)]) -> Vec<PathBuf> {
    let mut letters = b'b'..;
    let mut spec = PoolSpec::new(name.parse().expect("a name"), SIZE, [19; 32]);
    spec.vdevs = vdevs
        .iter()
        .map(|(devices, redundancy)| Vdev {
            size: SIZE,
            paths: letters
                .by_ref()
                .take(*devices)
                .map(|letter| format!("/dev/vd{}", letter as char))
                .collect(),
            redundancy: *redundancy,
        })
        .collect();
    for (dataset, properties) in
        [("plain", &[][..]), ("small", &[("recordsize", "4k"), ("compression", "off")])]
    {
        let mut dataset = DatasetSpec::new(format!("{name}/{dataset}").parse().expect("a name"));
        for (property, value) in properties {
            dataset.properties.set(property, value).expect("a property");
        }
        dataset.content = Tree::from_dir(dir.join("files")).expect("readable").into();
        dataset.snapshots = vec!["install".into()];
        spec.datasets.push(dataset);
    }
    let count: usize = vdevs.iter().map(|(devices, _)| devices).sum();
    let paths: Vec<PathBuf> = (0..count).map(|i| dir.join(format!("{name}-{i}.img"))).collect();
    let disks: Vec<File> = paths
        .iter()
        .map(|path| {
            let disk = File::create_new(path).expect("writable");
            disk.set_len(SIZE).expect("sparse files work");
            disk
        })
        .collect();
    let outs: Vec<&dyn WriteAt> = disks.iter().map(|disk| disk as &dyn WriteAt).collect();
    write_pool(&spec, &outs, &()).expect("it is written");
    paths
}

fn assert_whole(paths: &[PathBuf]) {
    let disks: Vec<File> = paths.iter().map(|path| File::open(path).expect("it is there")).collect();
    let devices: Vec<&dyn ReadAt> = disks.iter().map(|disk| disk as &dyn ReadAt).collect();
    let report = verify(&Pool::open(&devices).expect("it opens"), &());
    assert!(report.is_clean() && report.not_checked.is_empty(), "{report:#?}");
}

/// `sha256sum` of every file, in the order of their names.
const SUMS: &str = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

/// Lets the kernel use a pool while `gone`, as many devices as may be missing, are away.
fn exercise(name: &str, number: u16, vdevs: &[(usize, Redundancy)], gone: &[&str]) {
    let dir = fresh(&format!("vdevs-{name}"));
    make_files(&dir.join("files"));
    let paths = write_image(&dir, name, vdevs);
    assert_whole(&paths);
    let vm = paths
        .iter()
        .fold(machine(core_image(), number), |vm, path| vm.disk(Disk::new(path, DiskFormat::Raw).volatile()));
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    let run = |script: &str| {
        let output = guest.run_for(&format!("set -e; {script}"), BOOT).expect("it answers");
        assert!(output.is_ok(), "{script}: {}", output.error_text());
        output.text()
    };
    let sums = Cmd::new("sh").args(["-c", SUMS]).cwd(dir.join("files")).stdout_string().expect("coreutils");
    let scrubbed = || {
        let status = run(&format!("zpool scrub -w {name}; zpool status {name}"));
        assert!(status.contains("with 0 errors") && status.contains("No known data errors"), "{status}");
    };
    let intact = || {
        for dataset in ["plain", "small"] {
            assert_eq!(run(&format!("cd /{name}/{dataset}/.zfs/snapshot/install && {SUMS}")), sums.trim());
        }
    };

    run(&format!("zpool import {name}"));
    assert_eq!(run(&format!("zpool status -x {name}")), format!("pool '{name}' is healthy"));
    intact();
    scrubbed();
    let gone = gone.join(" ");
    if !gone.is_empty() {
        run(&format!("zpool offline {name} {gone}"));
        run(&format!("zpool export {name}; zpool import {name}"));
        intact();
        run(&format!("cp -r /{name}/plain/many /{name}/small/again; zpool sync {name}"));
        run(&format!("zpool online {name} {gone}; zpool wait -t resilver {name}"));
    }
    run(&format!(
        "cp -r /{name}/small /{name}/plain/copy; rm /{name}/plain/noise-1; zfs destroy {name}/small@install"
    ));
    run(&format!("zfs snapshot -r {name}@after; zpool sync {name}"));
    scrubbed();
    assert_eq!(run(&format!("zpool status -x {name}")), format!("pool '{name}' is healthy"));
    run(&format!("zpool export {name}"));
    guest.shutdown(Duration::from_secs(300)).expect("it ends");
    assert_whole(&paths);
}

#[test]
fn the_kernel_takes_a_stripe_of_a_device_and_a_mirror() {
    let vdevs = [(1, Redundancy::Mirror), (2, Redundancy::Mirror)];
    exercise("stripe", 5, &vdevs, &["/dev/vdd"]);
}

#[test]
fn the_kernel_takes_raidz_of_every_parity() {
    exercise("z1", 6, &[(3, Redundancy::Raidz(Parity::Single))], &["/dev/vdc"]);
    exercise("z2", 7, &[(5, Redundancy::Raidz(Parity::Double))], &["/dev/vdb", "/dev/vdf"]);
    exercise("z3", 8, &[(6, Redundancy::Raidz(Parity::Triple))], &["/dev/vdb", "/dev/vdd", "/dev/vde"]);
}

//! Pools on several vdevs, and on raidz, in the hands of the kernel's OpenZFS: imported, degraded, repaired, exported.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_pool::tree::Tree;
use kld_pool::{DatasetSpec, Parity, PoolSpec, Redundancy, Vdev, WriteAt, write_pool};
use kld_vm::{Disk, DiskFormat};

use crate::fixture::{BOOT, core_image, fresh, machine};
use crate::kernel::{Shell, assert_whole, sums_here};
use crate::turn::Turn;

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

/// A pool on several vdevs, and as many of its devices as may be missing, by their numbers.
struct Layout {
    name: &'static str,
    vdevs: &'static [(usize, Redundancy)],
    gone: &'static [usize],
}

const LAYOUTS: [Layout; 4] = [
    Layout { name: "stripe", vdevs: &[(1, Redundancy::Mirror), (2, Redundancy::Mirror)], gone: &[2] },
    Layout { name: "z1", vdevs: &[(3, Redundancy::Raidz(Parity::Single))], gone: &[1] },
    Layout { name: "z2", vdevs: &[(5, Redundancy::Raidz(Parity::Double))], gone: &[0, 4] },
    Layout { name: "z3", vdevs: &[(6, Redundancy::Raidz(Parity::Triple))], gone: &[0, 2, 3] },
];

/// The devices of all pools, in the order of the machine's disks.
fn devices() -> impl Iterator<Item = String> {
    (b'b'..=b'z').map(|letter| format!("/dev/vd{}", letter as char))
}

/// Writes a pool on these devices; gives their images.
fn write_image(dir: &Path, layout: &Layout, devices: &[String]) -> Vec<PathBuf> {
    let Layout { name, vdevs, .. } = layout;
    let mut devices_left = devices.iter().cloned();
    let mut spec = PoolSpec::new(name.parse().expect("a name"), SIZE, [19; 32]);
    spec.vdevs = vdevs
        .iter()
        .map(|(devices, redundancy)| Vdev {
            size: SIZE,
            paths: devices_left.by_ref().take(*devices).collect(),
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
    let paths: Vec<PathBuf> = (0..devices.len()).map(|i| dir.join(format!("{name}-{i}.img"))).collect();
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

/// Lets the kernel use a pool while as many devices as may be missing are away.
fn exercise(shell: &Shell<'_>, name: &str, gone: &str, sums: &str) {
    let run = |script: &str| shell.run(script);
    let intact = || {
        for dataset in ["plain", "small"] {
            assert_eq!(shell.sums(&format!("/{name}/{dataset}/.zfs/snapshot/install")), sums);
        }
    };
    let healthy = || assert_eq!(run(&format!("zpool status -x {name}")), format!("pool '{name}' is healthy"));

    run(&format!("zpool import {name}"));
    healthy();
    intact();
    shell.scrub(name);
    run(&format!("zpool offline {name} {gone}"));
    run(&format!("zpool export {name}; zpool import {name}"));
    intact();
    run(&format!("cp -r /{name}/plain/many /{name}/small/again; zpool sync {name}"));
    run(&format!("zpool online {name} {gone}; zpool wait -t resilver {name}"));
    run(&format!(
        "cp -r /{name}/small /{name}/plain/copy; rm /{name}/plain/noise-1; zfs destroy {name}/small@install"
    ));
    run(&format!("zfs snapshot -r {name}@after; zpool sync {name}"));
    shell.scrub(name);
    healthy();
    run(&format!("zpool export {name}"));
}

#[test]
fn the_kernel_takes_a_stripe_and_raidz_of_every_parity() {
    let _turn = Turn::take();
    let dir = fresh("vdevs");
    make_files(&dir.join("files"));
    let sums = sums_here(&dir.join("files"));
    let mut left = devices();
    let pools = LAYOUTS.map(|layout| {
        let count: usize = layout.vdevs.iter().map(|(devices, _)| devices).sum();
        let devices: Vec<String> = left.by_ref().take(count).collect();
        let images = write_image(&dir, &layout, &devices);
        assert_whole(&images);
        let gone: Vec<&str> = layout.gone.iter().map(|i| devices[*i].as_str()).collect();
        (layout.name, gone.join(" "), images)
    });
    let mut vm = machine(core_image(), 5);
    for image in pools.iter().flat_map(|(_, _, images)| images) {
        vm = vm.disk(Disk::new(image, DiskFormat::Raw).volatile());
    }
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    for (name, gone, _) in &pools {
        exercise(&Shell(&guest), name, gone, &sums);
    }
    guest.shutdown(Duration::from_secs(300)).expect("it ends");
    pools.iter().for_each(|(_, _, images)| assert_whole(images));
}

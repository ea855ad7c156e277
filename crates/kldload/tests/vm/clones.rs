//! An image with two boot environments, bookmarks and holds in the hands of the kernel's OpenZFS: listed, sent from,
//! promoted, destroyed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_pool::tree::Tree;
use kld_pool::{BookmarkSpec, DatasetSpec, PoolSpec, SnapshotSpec, write_pool};
use kld_vm::{Disk, DiskFormat};

use crate::fixture::{BOOT, core_image, fresh, machine};
use crate::kernel::{Shell, assert_whole, sums_here};
use crate::turn::Turn;

const SIZE: u64 = 512 << 20;
/// What the first boot environment held when it was installed and later, and what the second one made of the former.
const STATES: [&str; 3] = ["installed", "later", "updated"];

fn make_states(dir: &Path) {
    for (n, state) in STATES.into_iter().enumerate() {
        let root = dir.join(state);
        fs::create_dir_all(root.join("etc")).expect("writable");
        let write = |name: &str, bytes: Vec<u8>| fs::write(root.join(name), bytes).expect("writable");
        let mut library: Vec<u8> = (0..4_000_000u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        library[(1 << 20) * n] ^= 0xff;
        write("library", library);
        write("etc/release", format!("{state}\n").into_bytes());
        write(&format!("only-in-{state}"), vec![n as u8 + 1; 300_000]);
        for i in 0..500 + 100 * n {
            write(&format!("etc/{i}"), i.to_string().into_bytes());
        }
    }
}

fn write_image(dir: &Path) -> PathBuf {
    make_states(dir);
    let tree = |state: &str| Tree::from_dir(dir.join(state)).expect("readable");
    let dataset = |name: &str| DatasetSpec::new(format!("tank/{name}").parse().expect("a name"));
    let origin = |name: &str| Some(format!("tank/ROOT/{name}").parse().expect("a name"));
    let mut old = dataset("ROOT/old");
    old.content = tree("later").into();
    old.snapshots = vec![
        SnapshotSpec {
            content: Some(tree("installed").into()),
            holds: vec!["factory".to_owned()],
            ..SnapshotSpec::from("install")
        },
        SnapshotSpec::from("later"),
    ];
    old.bookmarks = vec![BookmarkSpec { name: "mark".to_owned(), snapshot: "install".to_owned() }];
    let mut new = dataset("ROOT/new");
    new.origin = origin("old@install");
    new.content = tree("updated").into();
    new.snapshots = vec![SnapshotSpec { holds: vec!["keep".to_owned()], ..SnapshotSpec::from("updated") }];
    let mut spare = dataset("ROOT/spare");
    spare.origin = origin("old@later");
    let mut root = DatasetSpec::new("tank".parse().expect("a name"));
    root.properties.set("mountpoint", "legacy").expect("a property");
    let mut spec = PoolSpec::new("tank".parse().expect("a name"), SIZE, [17; 32]);
    spec.vdevs[0].paths = vec!["/dev/vdb".to_owned()];
    spec.bootfs = Some(new.name.clone());
    spec.datasets = vec![root, new, old, spare];
    let path = dir.join("tank.img");
    let disk = File::create_new(&path).expect("writable");
    disk.set_len(SIZE).expect("sparse files work");
    write_pool(&spec, &[&disk], &()).expect("it is written");
    path
}

#[test]
fn the_kernel_promotes_and_destroys_boot_environments_of_an_image() {
    let _turn = Turn::take();
    let dir = fresh("clones");
    let path = write_image(&dir);
    assert_whole(std::slice::from_ref(&path));
    let vm = machine(core_image(), 4).disk(Disk::new(&path, DiskFormat::Raw).volatile());
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    let shell = Shell(&guest);
    let run = |script: &str| shell.run(script);
    let here = |state: &str| sums_here(&dir.join(state));
    let there = |dataset: &str| {
        run(&format!("mkdir -p /mnt/t; mount -t zfs {dataset} /mnt/t"));
        let sums = shell.sums("/mnt/t");
        run("umount /mnt/t");
        sums
    };

    run("zpool import tank");
    assert_eq!(
        run("zfs list -H -t all -o name,origin -r tank/ROOT | tr '\\t' ' ' | LC_ALL=C sort"),
        "tank/ROOT -\n\
         tank/ROOT/new tank/ROOT/old@install\n\
         tank/ROOT/new@updated -\n\
         tank/ROOT/old -\n\
         tank/ROOT/old#mark -\n\
         tank/ROOT/old@install -\n\
         tank/ROOT/old@later -\n\
         tank/ROOT/spare tank/ROOT/old@later"
    );
    assert_eq!(run("zfs get -H -o value clones tank/ROOT/old@install"), "tank/ROOT/new");
    assert_eq!(run("zfs list -Hp -o used tank/ROOT/spare"), "0");
    assert_eq!(run("zpool get -H -o value bootfs tank"), "tank/ROOT/new");
    for (dataset, state) in [
        ("tank/ROOT/old@install", "installed"),
        ("tank/ROOT/old", "later"),
        ("tank/ROOT/new", "updated"),
        ("tank/ROOT/new@updated", "updated"),
        ("tank/ROOT/spare", "later"),
    ] {
        assert_eq!(there(dataset), here(state), "{dataset}");
    }
    shell.scrub("tank");

    // A held snapshot stays; what changed since the bookmark can be sent once it is gone.
    assert!(run("zfs holds -H tank/ROOT/old@install").contains("factory"));
    let held = shell.fails("zfs destroy tank/ROOT/new@updated");
    assert!(held.contains("busy") || held.contains("held"), "{held}");
    run("zfs send tank/ROOT/old@install | zfs receive -u tank/copy; \
         zfs send -i '#mark' tank/ROOT/old@later | zfs receive -u tank/copy");
    assert_eq!(there("tank/copy"), here("later"));
    assert!(
        run("zfs get -Hp -o value written#mark tank/ROOT/old").parse::<u64>().is_ok_and(|bytes| bytes > 0)
    );

    // The update is kept: it becomes the one that owns what both share, and the old one goes.
    run(
        "mount -t zfs tank/ROOT/new /mnt/t; date > /mnt/t/etc/booted; cp /mnt/t/library /mnt/t/again; umount /mnt/t",
    );
    run("zfs promote tank/ROOT/new");
    assert_eq!(run("zfs get -H -o value origin tank/ROOT/old"), "tank/ROOT/new@install");
    run("zfs promote tank/ROOT/spare");
    shell.scrub("tank");
    run("zfs destroy -r tank/ROOT/old; zfs release factory tank/ROOT/new@install");
    run("zfs snapshot -r tank@after; zfs rollback tank/ROOT/new@after; zfs destroy -r tank@after");
    assert_eq!(there("tank/ROOT/new@updated"), here("updated"));
    assert_eq!(there("tank/ROOT/spare"), here("later"));
    shell.scrub("tank");
    run("zpool sync tank; zpool export tank");
    guest.shutdown(Duration::from_secs(300)).expect("it ends");
    assert_whole(std::slice::from_ref(&path));
}

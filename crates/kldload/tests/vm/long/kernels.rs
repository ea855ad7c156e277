//! Pools in the hands of the OpenZFS that other Debian releases ship, each in its own kernel. `cargo xtask test --long`
//! compiles their modules and runs this.

use std::path::PathBuf;
use std::time::Duration;

use kld_host::Cmd;
use kld_vm::{Boot, Disk, DiskFormat, Guest, Vm};

use crate::exercise::Exercise;
use crate::fixture::{BOOT, fresh};
use crate::kernel::Shell;
use crate::turn::Turn;

/// The directory of a release's kernel and memory disk.
fn kernel(release: &str) -> PathBuf {
    let all = std::env::var("KLD_OTHER_KERNELS").expect("`cargo xtask test --long` sets KLD_OTHER_KERNELS");
    let of = |entry: &str| entry.strip_prefix(release)?.strip_prefix('=').map(PathBuf::from);
    all.split(',').find_map(of).unwrap_or_else(|| panic!("no kernel of OpenZFS {release} in {all}"))
}

/// What that release's `zdb` says of a pool.
fn zdb(release: &str, dir: &std::path::Path) -> String {
    let all = std::env::var("KLD_OTHER_ZDB").expect("`cargo xtask test` sets KLD_OTHER_ZDB");
    let of = |entry: &str| entry.strip_prefix(release)?.strip_prefix('=').map(str::to_owned);
    let zdb = all.split(',').find_map(of).expect("a zdb");
    Cmd::new(zdb).args(["-bcc", "-e", "-p"]).arg(dir).arg("drill").stdout_string().expect("zdb is content")
}

fn boot(release: &str, disks: &[PathBuf]) -> Guest {
    let dir = kernel(release);
    let vm = Vm::new().memory_mib(2048).cpus(1).boot(Boot::Kernel {
        kernel: dir.join("vmlinuz"),
        initrd: dir.join("initrd"),
        append: "console=ttyS0 rdinit=/init".to_owned(),
    });
    let vm = disks.iter().fold(vm, |vm, path| vm.disk(Disk::new(path, DiskFormat::Raw).volatile()));
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    guest
}

fn takes_and_gives_back(release: &str) {
    let dir = fresh(&format!("kernel-{release}"));
    let exercise = Exercise::write(&dir, &format!("openzfs-{release}-linux"), "/dev/vda");
    let guest = boot(release, &exercise.disks);
    let shell = Shell(&guest);
    assert!(shell.run("cat /sys/module/zfs/version").starts_with(release));
    exercise.run(&shell, ["/dev/vda", "/dev/vdb", "/dev/vdc"]);
    guest.shutdown(Duration::from_secs(300)).expect("it ends");
    exercise.assert_whole();
    let said = zdb(release, &dir);
    assert!(said.contains("No leaks (block sum matches space maps exactly)"), "{said}");
}

#[test]
fn openzfs_2_1_of_debian_12_takes_ours_and_gives_it_back_whole() {
    let _turn = Turn::take();
    takes_and_gives_back("2.1");
}

#[test]
fn openzfs_2_4_of_debian_unstable_takes_ours_and_gives_it_back_whole() {
    let _turn = Turn::take();
    takes_and_gives_back("2.4");
}

//! Pools in the hands of the OpenZFS that other Debian releases ship, each in its own kernel. `cargo xtask test --long`
//! compiles their modules and runs this.

use std::path::PathBuf;
use std::time::Duration;

use kld_host::Cmd;
use kld_vm::{Boot, Disk, DiskFormat, Guest, Vm};

use crate::exercise::Exercise;
use crate::fixture::{BOOT, KLDLOAD, fresh};
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

/// The program as a disk: there is no other way into a machine that lives in memory.
fn program(dir: &std::path::Path) -> PathBuf {
    let path = dir.join("program");
    std::fs::copy(KLDLOAD, &path).expect("copied");
    let file = std::fs::File::options().write(true).open(&path).expect("it is there");
    let size = file.metadata().expect("it is there").len();
    file.set_len(size.next_multiple_of(512)).expect("whole sectors");
    path
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

/// On a machine that kldload has not made, without systemd, with a pool of any name.
fn takes_the_daily_commands(release: &str) {
    let guest = boot(release, &[program(&fresh(&format!("commands-{release}")))]);
    let shell = Shell(&guest);
    let run = |script: &str| shell.run(script);
    run("cat /dev/vda > /run/kldload; chmod 755 /run/kldload
         for name in ksnap kdir kdf kst; do ln -s /run/kldload /usr/local/sbin/$name; done
         truncate -s 256M /run/daily.img; zpool create -O mountpoint=/day 'my pool' /run/daily.img
         zfs create 'my pool/a'; zfs create 'my pool/a/b'; echo first > /day/a/file");
    run("ksnap -r 'my pool/a' early");
    let groups = run("zfs list -Hpt snapshot -o createtxg -r 'my pool/a'");
    let groups: Vec<&str> = groups.lines().collect();
    assert!(groups.len() == 2 && groups[0] == groups[1], "{groups:?}");
    run("echo second > /day/a/file; touch /day/a/more");
    assert_eq!(run("ksnap diff 'my pool/a' early").lines().count(), 3);
    assert_eq!(run("ksnap show --json /day/a/file | tr , '\n' | grep -c '\"size\"'"), "2");
    run("ksnap show /day/a/file --restore early --to /run/first; grep -q first /run/first");
    assert!(run("ksnap list /day/a").contains("my pool/a@early-"));
    run("ksnap rollback --yes /day/a early; grep -q first /day/a/file; test ! -e /day/a/more");
    prunes_all_but_what_is_held(&shell);
    run("echo third > /day/a/file; ksnap rollback --swap --yes 'my pool/a/b' early");
    run("kdir --for postgres /day/db; findmnt -n /day/db");
    assert_eq!(run("zfs get -Hpo value recordsize,atime 'my pool/db'"), "8192\noff");
    let sums = run("kdf --json 'my pool/a' | tr , '\n' | grep '\"used\"' | head -1 | tr -dc 0-9");
    assert_eq!(sums, run("zfs get -Hpo value used 'my pool/a'"));
    assert!(
        run("kdf --what-if destroy \"$(zfs list -Hpt snapshot -o name 'my pool/a' | head -1)\"")
            .contains("my pool/a")
    );
    assert!(run("kst --timeout 60").contains("my pool ONLINE, no errors"));
    run("zpool export 'my pool'");
}

/// As root, who has ZFS destroy all at once (`zfs program`).
fn prunes_all_but_what_is_held(shell: &Shell<'_>) {
    let left = || shell.run("zfs list -Hpt snapshot -o name -s createtxg 'my pool/turns' | cut -d @ -f 2");
    shell.run("zfs create 'my pool/turns'; ksnap 'my pool/turns' turn; sleep 1; ksnap 'my pool/turns' turn");
    let both = left();
    let (older, newer) = both.split_once('\n').expect("two");
    shell.run(&format!("ksnap hold 'my pool/turns' {older}"));
    let prune = "ksnap prune --yes --keep 1 'my pool/turns'";
    let said = shell.run(prune);
    assert!(said.contains(&format!("my pool/turns@{older} stays: it is held")), "{said}");
    assert_eq!(left(), both);
    shell.run(&format!("ksnap release 'my pool/turns' {older}"));
    let said = shell.run(prune);
    assert!(said.contains("1 snapshot destroyed"), "{said}");
    assert_eq!(left(), newer);
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

#[test]
fn openzfs_2_1_of_debian_12_takes_the_daily_commands() {
    let _turn = Turn::take();
    takes_the_daily_commands("2.1");
}

#[test]
fn openzfs_2_4_of_debian_unstable_takes_the_daily_commands() {
    let _turn = Turn::take();
    takes_the_daily_commands("2.4");
}

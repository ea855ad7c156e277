//! The crate against a real QEMU and a real guest: one boot, every promise of [`kld_vm::Guest`].
//!
//! Needs a folder with `vmlinuz`, `initrd` and `guest.img` (a raw ext4 root file system with systemd 256 or later
//! that knows nothing of kldload), named by `KLDLOAD_TEST_GUEST`; without it the test fails. The feature `vm` compiles it.
#![expect(clippy::print_stdout, reason = "a test without a harness reports by printing")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kld_vm::{Accel, Boot, Credential, Disk, DiskFormat, Guest, Mac, Nic, Vm, VmError};

const BOOT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os("KLDLOAD_TEST_GUEST").map(PathBuf::from) else {
        println!("real_guest: failed: KLDLOAD_TEST_GUEST is not set");
        return ExitCode::FAILURE;
    };
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut ok = true;
    for (name, test) in TESTS.into_iter().filter(|(name, _)| name.contains(&filter)) {
        let start = Instant::now();
        let result = test(&machine(&folder));
        println!(
            "real_guest::{name}: {} in {:.1?}",
            if result.is_ok() { "ok" } else { "failed" },
            start.elapsed()
        );
        if let Err(error) = result {
            println!("  {error}");
            ok = false;
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Test = fn(&Vm) -> Result<(), Box<dyn Error>>;

const TESTS: [(&str, Test); 6] = [
    ("uefi_looks_for_a_loader", uefi_looks_for_a_loader),
    ("boots_and_obeys", boots_and_obeys),
    ("two_guests_share_a_cable", two_guests_share_a_cable),
    ("a_guest_that_ends_shows_its_console", a_guest_that_ends_shows_its_console),
    ("a_broken_machine_says_why", a_broken_machine_says_why),
    ("dropping_a_guest_leaves_nothing", dropping_a_guest_leaves_nothing),
];

fn machine(folder: &std::path::Path) -> Vm {
    let boot = Boot::Kernel {
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd"),
        append: "root=/dev/vda rw console=ttyS0".to_owned(),
    };
    let disk = Disk::new(folder.join("guest.img"), DiskFormat::Raw).overlay().volatile();
    Vm::new().memory_mib(768).boot(boot).disk(disk)
}

fn expect_that(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("expected {what}").into()) }
}

fn timed<T>(what: &str, act: impl FnOnce() -> Result<T, VmError>) -> Result<T, VmError> {
    let start = Instant::now();
    let result = act();
    println!("  {what}: {:.1?}", start.elapsed());
    result
}

fn boots_and_obeys(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let vm = vm.clone().credential(Credential::new("kldload.operator", "key, with \"commas\" = and\nlines"));
    let guest = vm.start()?;
    println!("  acceleration: {}", guest.accel());
    let mut steps = Vec::new();
    timed("boot to control channel", || guest.wait_control(BOOT, |step| steps.push(step.to_owned())))?;
    let early = guest.run_ok("cat /proc/uptime; systemctl is-system-running || true")?;
    println!("  the guest's uptime and state then: {}", early.replace('\n', " "));
    let verdict =
        timed("control channel to booted", || guest.wait_system(BOOT, |step| steps.push(step.to_owned())))?;
    expect_that(verdict == "running", &format!("`running`, not `{verdict}`"))?;
    expect_that(steps.iter().any(|step| step == "kernel started"), &format!("kernel in {steps:?}"))?;
    expect_that(
        steps.iter().any(|step| step.starts_with("Reached target")),
        &format!("targets in {steps:?}"),
    )?;

    // Output, status and credentials, byte for byte.
    let output = guest.run("printf 'a\\0b'; echo oops >&2; exit 7")?;
    expect_that(
        (output.status, &*output.stdout, &*output.stderr) == (7, b"a\0b", b"oops\n"),
        "status and bytes",
    )?;
    let credential = guest.run_ok("cat /run/credentials/@system/kldload.operator")?;
    expect_that(credential == "key, with \"commas\" = and\nlines", "the credential")?;
    let error = guest.run_ok("echo no >&2\nfalse").expect_err("false fails").to_string();
    expect_that(error == "`echo no >&2` failed in the guest with status 1\n  no", &error)?;
    let output = guest.run_for("sleep 600", Duration::from_secs(2))?;
    expect_that(output.status == 124, "a script to be ended in time")?;
    let big = guest.run("head -c 3000000 /dev/zero")?;
    expect_that(big.stdout.len() == 3_000_000, "three million bytes")?;
    guest.write_file("/root/it's", b"content\n", 0o640)?;
    expect_that(guest.run_ok("stat -c %a%s \"/root/it's\"")? == "6408", "mode and size of a written file")?;
    timed("one empty script", || guest.run_ok("true"))?;

    // Saved and restored: memory and disk go back together, and the channel still works.
    timed("save", || guest.save("booted"))?;
    guest.run_ok("touch /run/memory /root/disk; sync")?;
    timed("restore to an answer", || guest.restore("booted").and_then(|()| guest.run_ok("true")))?;
    expect_that(
        guest.run_ok("ls /run/memory /root/disk 2>/dev/null | wc -l")? == "0",
        "both files to be gone",
    )?;
    expect_that(matches!(guest.restore("never"), Err(VmError::NoState { .. })), "no state of that name")?;

    let boot_id = guest.run_ok("cat /proc/sys/kernel/random/boot_id")?;
    timed("reboot to control channel", || guest.reboot(BOOT, |_| ()))?;
    expect_that(guest.run_ok("cat /proc/sys/kernel/random/boot_id")? != boot_id, "another boot")?;
    guest.wait_system(BOOT, |_| ())?;
    Ok(timed("clean shutdown", || guest.shutdown(BOOT))?)
}

fn uefi_looks_for_a_loader(_: &Vm) -> Result<(), Box<dyn Error>> {
    let guest = Vm::new().memory_mib(256).start()?;
    let deadline = Instant::now() + BOOT;
    while !guest.console().contains("BdsDxe") {
        expect_that(Instant::now() < deadline, &format!("UEFI on the console: {}", guest.console()))?;
        std::thread::sleep(Duration::from_millis(200));
    }
    expect_that(guest.with_qmp(|qmp| qmp.status())? == "running", "a running guest")
}

fn two_guests_share_a_cable(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    let cable = |number, local: &PathBuf, remote: &PathBuf| Nic::Cable {
        mac: Mac::numbered(number),
        local: local.clone(),
        remote: remote.clone(),
    };
    let one = vm.clone().nic(Nic::isolated(Mac::numbered(9))).nic(cable(1, &left, &right)).start()?;
    let two = vm.clone().nic(cable(2, &right, &left)).start()?;
    one.wait_control(BOOT, |_| ())?;
    two.wait_control(BOOT, |_| ())?;
    let address = |guest: &Guest, number: u16, ip: &str| {
        let mac = Mac::numbered(number);
        guest.run_ok(&format!(
            "udevadm settle; card=$(ip -o link | grep -i {mac} | cut -d: -f2 | tr -d ' ')\n\
             ip address add {ip}/24 dev $card && ip link set $card up"
        ))
    };
    address(&one, 1, "192.0.2.1")?;
    address(&two, 2, "192.0.2.2")?;
    // Bash's own TCP: the guest has no other tool for it. A refused connection proves that the packets travel.
    let reach = "for try in $(seq 30); do ip neigh show 192.0.2.2 | grep -q lladdr && break\n\
                 (: </dev/tcp/192.0.2.2/9) 2>/dev/null; sleep 0.2; done; ip neigh show 192.0.2.2";
    let neighbour = one.run_ok(reach)?;
    expect_that(
        neighbour.contains(&Mac::numbered(2).to_string()),
        &format!("the other's address in `{neighbour}`"),
    )
}

fn a_guest_that_ends_shows_its_console(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let guest = vm.start()?;
    guest.wait_control(BOOT, |_| ())?;
    guest.run_ok("(sleep 3; systemctl poweroff --force --force) &")?;
    let error = guest.wait_system(BOOT, |_| ()).expect_err("it ends").to_string();
    expect_that(error.starts_with("the guest ended while waiting") && error.contains("Power down"), &error)
}

fn a_broken_machine_says_why(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let error = vm.clone().accel(Accel::Tcg).cpus(0).start().expect_err("no machine has no processor");
    expect_that(
        matches!(error, VmError::Ended { .. }) && error.to_string().contains("qemu"),
        &error.to_string(),
    )?;
    let error =
        vm.clone().disk(Disk::new("/nowhere.img", DiskFormat::Raw)).start().expect_err("no such disk");
    expect_that(error.to_string().contains("/nowhere.img"), &error.to_string())
}

fn dropping_a_guest_leaves_nothing(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let guest = vm.start()?;
    let error = guest.wait_control(Duration::from_millis(10), |_| ()).expect_err("no guest boots so fast");
    expect_that(error.to_string().contains("did not come to its control channel"), &error.to_string())?;
    let (work, process) = (guest.work_folder().to_owned(), PathBuf::from(format!("/proc/{}", guest.id())));
    expect_that(work.exists() && process.exists(), "a folder and a process")?;
    guest.cut_power();
    expect_that(!work.exists() && !process.exists(), "no folder and no process")
}

//! What a real QEMU with its firmware shows without a disk; `tests/vm` of the program boots whole machines.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kld_vm::{Accel, Disk, DiskFormat, Vm, VmError};

/// Far more than firmware takes, also when the machine is busy.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_firmware_runs_under_what_the_probe_has_found() {
    let probe = Accel::probe().expect("QEMU is installed");
    assert_eq!(probe.reason.is_none(), probe.accel == Accel::Kvm, "{probe}");
    let guest = Vm::new().memory_mib(256).start().expect("it starts");
    assert_eq!(guest.accel().accel, probe.accel);
    let started = Instant::now();
    while !guest.console().contains("BdsDxe") {
        assert!(guest.is_running() && started.elapsed() < LIMIT, "{probe}: {}", guest.console());
        std::thread::sleep(Duration::from_millis(50));
    }

    // A machine whose KVM gives guests up says so at once, and nobody waits for a deadline.
    if probe.reason.is_some_and(|reason| reason.contains("internal error")) {
        let guest = Vm::new().memory_mib(256).accel(Accel::Kvm).start().expect("QEMU itself starts");
        let given_up = guest.wait_control(LIMIT, |_| ()).expect_err("it stands still");
        assert!(
            matches!(&given_up, VmError::Stopped { status, .. } if status == "internal-error"),
            "{given_up}"
        );
        assert!(given_up.to_string().contains("KVM internal error"), "{given_up}");
    }
}

#[test]
fn a_broken_machine_says_why() {
    let vm = Vm::new().memory_mib(256).accel(Accel::Tcg);
    let error = vm.clone().cpus(0).start().expect_err("no machine has no processor");
    assert!(matches!(error, VmError::Ended { .. }) && error.to_string().contains("qemu"), "{error}");
    let error = vm.disk(Disk::new("/nowhere.img", DiskFormat::Raw)).start().expect_err("no such disk");
    assert!(error.to_string().contains("/nowhere.img"), "{error}");
}

#[test]
fn dropping_a_guest_leaves_nothing() {
    let guest = Vm::new().memory_mib(256).accel(Accel::Tcg).start().expect("it starts");
    let error = guest.wait_control(Duration::from_millis(10), |_| ()).expect_err("no guest boots so fast");
    assert!(error.to_string().contains("did not come to its control channel"), "{error}");
    let (work, process) = (guest.work_folder().to_owned(), PathBuf::from(format!("/proc/{}", guest.id())));
    assert!(work.exists() && process.exists());
    guest.cut_power();
    assert!(!work.exists() && !process.exists());
}

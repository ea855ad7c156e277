//! What the probe says of KVM is what a guest finds: with a real QEMU and its firmware, without a disk.

use std::time::{Duration, Instant};

use kld_vm::{Accel, Vm, VmError};

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

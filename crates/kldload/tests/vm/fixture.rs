//! Images and machines that tests share.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kld_host::Cmd;
use kld_manifest::check;
use kld_system::{System, render};
use kld_vm::{Disk, DiskFormat, Guest, Mac, Nic, Vm};

/// The program under test.
pub(crate) const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");
/// The recipe that most tests boot.
pub(crate) const RECIPE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");
/// Longer than any machine here takes to boot under emulation with both cores busy.
pub(crate) const BOOT: Duration = Duration::from_secs(600);

/// Runs kldload and expects it to succeed.
pub(crate) fn kldload<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let mut cmd = Cmd::new(KLDLOAD).args(args);
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        cmd = cmd.env("XDG_CACHE_HOME", cache);
    }
    let output = cmd
        .output()
        .unwrap_or_else(|error| panic!("kldload failed: {error}\n{}", error.stderr().unwrap_or_default()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory for images, removed when the test process ends.
pub(crate) fn scratch() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // Kept over the life of the process: statics are not dropped, so the path is reused by the next run.
        let dir = std::env::temp_dir().join("kldload-vm-tests");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        dir
    })
}

/// The image of recipes/webapp.
pub(crate) fn webapp_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let image = scratch().join("webapp.img");
        kldload(["build", RECIPE, "--size", "6G", "--output", &image.display().to_string()]);
        image
    })
}

/// What the recipe's manifest asks for.
pub(crate) fn webapp_system() -> System {
    let text = std::fs::read_to_string(RECIPE).expect("the recipe is there");
    let appliance = check(&text).appliance.expect("the recipe is good");
    render(&appliance).expect("the recipe renders")
}

/// A machine with this image, a throw-away overlay and a way out.
pub(crate) fn machine(image: &Path, number: u16) -> Vm {
    Vm::new()
        .memory_mib(1536)
        .disk(Disk::new(image, DiskFormat::Raw).overlay().volatile())
        .nic(Nic::isolated(Mac::numbered(number)))
}

/// Boots and waits until kst is content.
pub(crate) fn boot_until_well(vm: &Vm) -> Guest {
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("the machine boots");
    wait_until_well(&guest);
    guest
}

/// Waits until kst is content; shows its last words when it is not.
pub(crate) fn wait_until_well(guest: &Guest) {
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    let script =
        "for i in $(seq 40); do kst && exit 0; sleep 5; done; kst; systemctl --failed --no-pager; exit 1";
    let output = guest.run_for(script, BOOT).expect("the machine answers");
    assert!(
        output.is_ok(),
        "not well:\n{}{}\n{}",
        output.text(),
        output.error_text(),
        guest.run("journalctl -b -p warning --no-pager | tail -60").map(|o| o.text()).unwrap_or_default()
    );
}

/// The shared machine, as it was right after it became healthy.
pub(crate) fn webapp() -> MutexGuard<'static, Guest> {
    static GUEST: OnceLock<Mutex<Guest>> = OnceLock::new();
    let guest = GUEST.get_or_init(|| {
        let guest = boot_until_well(&machine(webapp_image(), 1));
        guest.save("well").expect("the state is saved");
        Mutex::new(guest)
    });
    let guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
    guest.restore("well").expect("the state is restored");
    guest
}

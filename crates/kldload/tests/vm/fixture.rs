//! Images and machines that tests share.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kld_host::Cmd;
use kld_manifest::check;
use kld_system::{System, render};
use kld_vm::{Credential, Disk, DiskFormat, Guest, Mac, Nic, Vm};

use crate::turn::Turn;

/// The program under test.
pub(crate) const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");
/// The recipe that most tests boot.
pub(crate) const RECIPE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");
/// Longer than any machine here takes to boot under emulation with both cores busy.
pub(crate) const BOOT: Duration = Duration::from_secs(600);

/// Says a figure that a test is for, also when the test passes: what the macros of `std` print is kept back then.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").expect("somebody listens");
}

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

/// An empty directory of its own for a test.
pub(crate) fn fresh(name: &str) -> PathBuf {
    let dir = scratch().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("writable");
    dir
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

/// The core image: stock Debian on ZFS.
pub(crate) fn core_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let image = scratch().join("core.img");
        let output = image.display().to_string();
        kldload(["build", "--distro", "debian", "--profile", "core", "--size", "4G", "--output", &output]);
        image
    })
}

/// What the recipe's manifest asks for.
pub(crate) fn webapp_system() -> System {
    let text = std::fs::read_to_string(RECIPE).expect("the recipe is there");
    let appliance = check(&text).appliance.expect("the recipe is good");
    render(&appliance).expect("the recipe renders")
}

/// A machine of one processor: as many tests run at a time as there are, and one emulated processor for each does more
/// than two.
fn small() -> Vm {
    Turn::assert_taken();
    Vm::new().memory_mib(1536).cpus(1)
}

/// A machine with this image, a throw-away overlay and a way out.
pub(crate) fn machine(image: &Path, number: u16) -> Vm {
    small()
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
        guest.run("journalctl -b --no-pager | tail -150").map(|o| o.text()).unwrap_or_default()
    );
}

/// The shared machine while a test has it.
pub(crate) struct Shared {
    // In this order: the machine is let go before the turn ends.
    guest: MutexGuard<'static, Option<Guest>>,
    turn: Turn,
}

impl Deref for Shared {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        self.guest.as_ref().expect("it runs while a test has it")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.turn.is_last_shared() {
            *self.guest = None;
        }
    }
}

/// The shared machine, as it was right after it became healthy. It has a second card, [`ON_THE_WIRE`], and an operator
/// who may come in as [`OPERATOR`].
pub(crate) fn webapp() -> Shared {
    static GUEST: Mutex<Option<Guest>> = Mutex::new(None);
    Turn::announce_shared();
    let mut guest = GUEST.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = Turn::take_shared();
    match &*guest {
        Some(guest) => guest.restore("well").expect("the state is restored"),
        None => *guest = Some(boot_shared()),
    }
    Shared { guest, turn }
}

fn boot_shared() -> Guest {
    let (local, remote) = cable();
    let vm = machine(webapp_image(), 1)
        .nic(Nic::Cable { mac: ON_THE_WIRE, local, remote })
        .credential(operator(&key_pair().1, OPERATOR));
    let guest = boot_until_well(&vm);
    guest.save("well").expect("the state is saved");
    guest
}

/// The card of the shared machine that another machine can be joined to.
pub(crate) const ON_THE_WIRE: Mac = Mac::numbered(11);
/// The address that the operator's key may use in wg0.
pub(crate) const OPERATOR: &str = "10.8.0.9/32";

/// The ends of the cable: the shared machine's first.
pub(crate) fn cable() -> (PathBuf, PathBuf) {
    (scratch().join("wire-a"), scratch().join("wire-b"))
}

/// The operator's WireGuard key pair, private and public, made for this run.
pub(crate) fn key_pair() -> &'static (String, String) {
    static PAIR: OnceLock<(String, String)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let private = Cmd::new("wg").arg("genkey").stdout_string().expect("wg is installed");
        let public =
            Cmd::new("wg").arg("pubkey").stdin_bytes(private.as_bytes()).stdout_string().expect("wg works");
        (private.trim().to_owned(), public.trim().to_owned())
    })
}

/// The credential that lets an operator in.
fn operator(public_key: &str, allowed_ips: &str) -> Credential {
    Credential::new(
        "kldload.operator",
        format!("name=test plane=wg0 public_key={public_key} allowed_ips={allowed_ips}\n"),
    )
}

/// A writable copy of an image that outlives one start of a machine.
pub(crate) fn copy_of(image: &Path, name: &str) -> PathBuf {
    let copy = scratch().join(name);
    let _ = std::fs::remove_file(&copy);
    Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(image)
        .arg(&copy)
        .run()
        .expect("qemu-img makes an overlay");
    copy
}

/// A machine on such a copy.
pub(crate) fn machine_on(disk: &Path) -> Vm {
    small().disk(Disk::new(disk, DiskFormat::Qcow2).volatile()).nic(Nic::isolated(Mac::numbered(1)))
}

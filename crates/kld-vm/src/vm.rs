//! What a machine is, and how QEMU is told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kld_host::Cmd;

use crate::{Accel, Credential, Disk, DiskFormat, Firmware, Nic, control};

/// A machine to be started: q35 with virtio devices.
#[derive(Debug, Clone)]
pub struct Vm {
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) boot: Boot,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) accel: Option<Accel>,
    pub(crate) work: Option<PathBuf>,
}

/// How it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// UEFI from the first disk that has a loader.
    Uefi,
    /// A Linux kernel, without firmware or loader.
    Kernel {
        /// `vmlinuz`.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: PathBuf,
        /// Its command line; `console=ttyS0` makes the boot visible.
        append: String,
    },
}

/// Files that a running guest has in its work folder.
pub(crate) struct Work<'a>(pub(crate) &'a Path);

impl Work<'_> {
    pub(crate) fn qmp(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }

    pub(crate) fn console_socket(&self) -> PathBuf {
        self.0.join("console.sock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }

    pub(crate) fn vars(&self) -> PathBuf {
        self.0.join("uefi-vars.fd")
    }

    pub(crate) fn smbios(&self, index: usize) -> PathBuf {
        self.0.join(format!("smbios-{index}"))
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

impl Vm {
    /// 2 processors, 2 GiB, UEFI, no disk, no network, the control channel.
    pub fn new() -> Self {
        Self {
            memory_mib: 2048,
            cpus: 2,
            boot: Boot::Uefi,
            disks: Vec::new(),
            nics: Vec::new(),
            credentials: control::credentials(),
            accel: None,
            work: None,
        }
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    /// Processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// How it boots.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds a network card.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Gives the guest's systemd a credential.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Uses this acceleration instead of probing.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = Some(accel);
        self
    }

    /// Puts sockets, overlays and logs here, and leaves them there, instead of a temporary folder. The path must be
    /// short: a unix socket's is at most 107 bytes.
    #[must_use]
    pub fn work_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.work = Some(folder.into());
        self
    }

    /// The command that starts it. `firmware` is for [`Boot::Uefi`].
    pub(crate) fn command(&self, work: &Work<'_>, accel: Accel, firmware: Option<&Firmware>) -> Cmd {
        let mut cmd = Cmd::new("qemu-system-x86_64")
            .args(["-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35"])
            .args(accel.args())
            .args(["-m", &format!("{}M", self.memory_mib), "-smp", &self.cpus.to_string()])
            .args(["-device", "virtio-rng-pci"])
            .args(["-chardev", &socket("qmp", &work.qmp()), "-mon", "chardev=qmp,mode=control"])
            .arg("-chardev")
            .arg(format!("{},logfile={}", socket("console", &work.console_socket()), escape(&work.console())))
            .args(["-serial", "chardev:console", "-device", "virtio-serial-pci"])
            .args(["-chardev", &socket("control", &work.control())])
            .args(["-device", &format!("virtserialport,chardev=control,name={}", control::PORT)]);
        match &self.boot {
            Boot::Uefi => {
                let flash =
                    |path: &Path, rest: &str| format!("if=pflash,format=raw,{rest}file={}", escape(path));
                if let Some(firmware) = firmware {
                    cmd = cmd.args(["-drive", &flash(&firmware.code, "readonly=on,")]);
                }
                cmd = cmd.args(["-drive", &flash(&work.vars(), "")]);
            }
            Boot::Kernel { kernel, initrd, append } => {
                cmd = cmd.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", append]);
            }
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let (path, format) = disk.written(work.0, index);
            cmd = cmd.args(["-blockdev", &blockdev(index, &path, format, disk.volatile)]);
            // 0 belongs to a kernel that is given directly.
            let order = index + 1;
            cmd = cmd.args(["-device", &format!("virtio-blk-pci,drive=disk{index},bootindex={order}")]);
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let (netdev, device) = nic.args(index);
            cmd = cmd.args(["-netdev", &netdev, "-device", &device]);
        }
        for index in 0..self.credentials.len() {
            cmd = cmd.args(["-smbios", &format!("file={}", escape(&work.smbios(index)))]);
        }
        cmd.log_file(work.log())
    }

    /// Nodes that hold a saved state.
    pub(crate) fn snapshot_nodes(&self) -> Vec<String> {
        let holds = |disk: &Disk| disk.overlay || disk.format == DiskFormat::Qcow2;
        let nodes = self.disks.iter().enumerate().filter(|(_, disk)| holds(disk));
        nodes.map(|(index, _)| format!("disk{index}")).collect()
    }
}

fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},server=on,wait=off,path={}", escape(path))
}

fn blockdev(index: usize, path: &Path, format: DiskFormat, volatile: bool) -> String {
    let flush = if volatile { ",cache.no-flush=on" } else { "" };
    let (format, path) = (format.name(), escape(path));
    format!("{format},node-name=disk{index},discard=unmap{flush},file.driver=file,file.filename={path}")
}

/// Commas end a value in QEMU's lists; two are one.
fn escape(path: &Path) -> String {
    OsString::from(path).to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;
    use expect_test::{Expect, expect};

    fn check(vm: Vm, accel: Accel, want: Expect) {
        let firmware = Firmware { code: "/ovmf/code.fd".into(), vars: "/ovmf/vars.fd".into() };
        let cmd = vm.command(&Work(Path::new("/w,1")), accel, Some(&firmware));
        let argv: Vec<String> = cmd.argv().map(|arg| arg.to_string_lossy().into_owned()).collect();
        // One option a line.
        want.assert_eq(format!(" {}\n", argv.join(" ")).replace(" -", "\n-").trim_start());
    }

    #[test]
    fn uefi_with_two_disks_and_three_cards() {
        let cable = Nic::Cable { mac: Mac::numbered(3), local: "/c/a".into(), remote: "/c/b".into() };
        let vm = Vm::new()
            .disk(Disk::new("/img/web.img", DiskFormat::Raw).overlay().volatile())
            .disk(Disk::new("/img/data.qcow2", DiskFormat::Qcow2))
            .nic(Nic::user(Mac::numbered(1), 40000, 51820))
            .nic(Nic::isolated(Mac::numbered(2)))
            .nic(cable)
            .credential(Credential::new("kldload.operator", "SECRET"));
        assert_eq!(vm.snapshot_nodes(), ["disk0", "disk1"]);
        check(
            vm,
            Accel::Tcg,
            expect![[r#"
            -no-user-config
            -nodefaults
            -display none
            -machine q35
            -accel tcg,thread=multi,tb-size=1024
            -cpu max
            -m 2048M
            -smp 2
            -device virtio-rng-pci
            -chardev socket,id=qmp,server=on,wait=off,path=/w,,1/qmp.sock
            -mon chardev=qmp,mode=control
            -chardev socket,id=console,server=on,wait=off,path=/w,,1/console.sock,logfile=/w,,1/console.log
            -serial chardev:console
            -device virtio-serial-pci
            -chardev socket,id=control,server=on,wait=off,path=/w,,1/control.sock
            -device virtserialport,chardev=control,name=kldload.control
            -drive if=pflash,format=raw,readonly=on,file=/ovmf/code.fd
            -drive if=pflash,format=raw,file=/w,,1/uefi-vars.fd
            -blockdev qcow2,node-name=disk0,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=/w,,1/disk0.qcow2
            -device virtio-blk-pci,drive=disk0,bootindex=1
            -blockdev qcow2,node-name=disk1,discard=unmap,file.driver=file,file.filename=/img/data.qcow2
            -device virtio-blk-pci,drive=disk1,bootindex=2
            -netdev user,id=net0,hostfwd=udp:127.0.0.1:40000-:51820
            -device virtio-net-pci,netdev=net0,mac=52:54:00:6b:00:01
            -netdev user,id=net1,restrict=on
            -device virtio-net-pci,netdev=net1,mac=52:54:00:6b:00:02
            -netdev dgram,id=net2,local.type=unix,local.path=/c/a,remote.type=unix,remote.path=/c/b
            -device virtio-net-pci,netdev=net2,mac=52:54:00:6b:00:03
            -smbios file=/w,,1/smbios-0
            -smbios file=/w,,1/smbios-1
            -smbios file=/w,,1/smbios-2
            -smbios file=/w,,1/smbios-3
        "#]],
        );
    }

    #[test]
    fn a_kernel_without_firmware() {
        let boot = Boot::Kernel {
            kernel: "/b/vmlinuz".into(),
            initrd: "/b/initrd".into(),
            append: "root=/dev/vda console=ttyS0".to_owned(),
        };
        let mut vm = Vm::new().memory_mib(512).cpus(1).boot(boot).disk(Disk::new("/img/a", DiskFormat::Raw));
        vm.credentials.clear();
        assert_eq!(vm.snapshot_nodes(), [""; 0]);
        check(
            vm,
            Accel::Kvm,
            expect![[r#"
            -no-user-config
            -nodefaults
            -display none
            -machine q35
            -accel kvm
            -cpu host
            -m 512M
            -smp 1
            -device virtio-rng-pci
            -chardev socket,id=qmp,server=on,wait=off,path=/w,,1/qmp.sock
            -mon chardev=qmp,mode=control
            -chardev socket,id=console,server=on,wait=off,path=/w,,1/console.sock,logfile=/w,,1/console.log
            -serial chardev:console
            -device virtio-serial-pci
            -chardev socket,id=control,server=on,wait=off,path=/w,,1/control.sock
            -device virtserialport,chardev=control,name=kldload.control
            -kernel /b/vmlinuz
            -initrd /b/initrd
            -append root=/dev/vda console=ttyS0
            -blockdev raw,node-name=disk0,discard=unmap,file.driver=file,file.filename=/img/a
            -device virtio-blk-pci,drive=disk0,bootindex=1
        "#]],
        );
    }
}

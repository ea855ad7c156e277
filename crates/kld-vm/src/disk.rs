//! Disks of a guest.

use std::path::{Path, PathBuf};

use kld_host::Cmd;

/// How the bytes of an image file are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk itself.
    Raw,
    /// QEMU's sparse format; the only one that can hold saved states.
    Qcow2,
}

impl DiskFormat {
    /// As QEMU names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// An image file as a virtio disk: `/dev/vda`, `/dev/vdb` … in the order they are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub(crate) image: PathBuf,
    pub(crate) format: DiskFormat,
    pub(crate) overlay: bool,
    pub(crate) volatile: bool,
}

impl Disk {
    /// The guest writes to the image itself.
    pub fn new(image: impl Into<PathBuf>, format: DiskFormat) -> Self {
        Self { image: image.into(), format, overlay: false, volatile: false }
    }

    /// The guest writes to a qcow2 file in the work folder; the image stays as it is and may be shared by several
    /// guests. Needed for saved states.
    #[must_use]
    pub fn overlay(mut self) -> Self {
        self.overlay = true;
        self
    }

    /// Flushes are ignored: several times faster, and a crash of the host loses the disk. For tests only.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// The file and format that the guest writes to.
    pub(crate) fn written(&self, work: &Path, index: usize) -> (PathBuf, DiskFormat) {
        if self.overlay {
            return (work.join(format!("disk{index}.qcow2")), DiskFormat::Qcow2);
        }
        (self.image.clone(), self.format)
    }
}

/// Makes a qcow2 file at `overlay` that holds only what differs from `base`.
pub fn overlay_cmd(base: &Path, format: DiskFormat, overlay: &Path) -> Cmd {
    Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"])
        .arg(base)
        .arg(overlay)
        .timeout(std::time::Duration::from_secs(30))
}

//! Machines in QEMU: started, talked to, saved, ended.
//!
//! A [`Vm`] says what the machine is; [`Vm::start`] gives a running [`Guest`]. Talking to a guest needs nothing in
//! its image: the channel is a systemd unit that is injected through the firmware's tables (see [`control`]), so
//! that the image under test is the image that ships. x86-64, UEFI or a kernel given directly.

mod accel;
mod boot_log;
pub mod control;
mod credential;
mod disk;
mod error;
mod firmware;
mod guest;
mod lines;
mod net;
mod qmp;
mod vm;

pub use accel::{Accel, Probe};
pub use boot_log::parse_boot_line;
pub use control::Output;
pub use credential::Credential;
pub use disk::{Disk, DiskFormat, overlay_cmd};
pub use error::VmError;
pub use firmware::Firmware;
pub use guest::Guest;
pub use net::{Forward, Mac, Nic, free_udp_port};
pub use qmp::{Qmp, QmpError};
pub use vm::{Boot, Vm};

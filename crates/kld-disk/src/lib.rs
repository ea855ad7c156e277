//! Disk images as bytes: GPT tables, the EFI system partition, boot entries.
//!
//! Everything here is a pure function of its arguments onto a `Read`/`Write`/`Seek`: no device, no mount, no root,
//! no clock, no random number. The same arguments give the same bytes.
//!
//! | module | writes | follows |
//! |---|---|---|
//! | [`gpt`] | protective MBR, primary and backup partition tables | UEFI 2.10, chapter 5 |
//! | [`esp`] | a FAT32 file system with given files | Microsoft FAT specification 1.03 |
//! | [`boot_entry`] | boot entries and `loader.conf` | Boot Loader Specification, type 1 |
//! | [`section`] | nothing: confines a writer to its partition | |

pub mod boot_entry;
mod crc32;
pub mod esp;
pub mod gpt;
pub mod guid;
pub mod section;

pub use boot_entry::{BootEntry, LoaderConf};
pub use esp::{EspFile, EspSpec, write_esp};
pub use gpt::{DiskLayout, LayoutError, Partition};
pub use guid::Guid;
pub use section::Section;

/// Bytes in a sector. Images are written for 512-byte logical sectors, as every hypervisor presents them.
pub const SECTOR: u64 = 512;
/// Bytes in one MiB, the alignment of every partition.
pub const MIB: u64 = 1024 * 1024;

//! `kldload pool`: ZFS pools in images and on disks, read and written without the kernel module. One file per verb.

mod cat;
mod diff;
mod extract;
mod image;
mod info;
mod ls;
mod verify;
mod write;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use kld_ui::{ExitStatus, Phase, Printer};

/// Look into ZFS pools and write them, in images and on disks, without the ZFS module
///
/// IMAGE is a file or device with a pool on it: a whole disk with a partition table, a partition, or a bare pool. The
/// sides of a mirror are separated by commas; one of them is enough. Looking never writes to it. A pool that is
/// imported somewhere changes while it is read: use a snapshot of the disk.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool info webapp.img\n  kldload pool ls webapp.img rpool/ROOT/debian /etc\n  kldload pool cat webapp.img rpool/ROOT/debian@install /etc/os-release\n  kldload pool extract webapp.img rpool/ROOT/debian@install /etc --output etc\n  kldload pool diff webapp.img rpool/ROOT/debian@install rpool/ROOT/debian\n  kldload pool verify webapp.img\n  kldload pool write --name tank --size 20G --output tank.img --dataset home=/home"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Info(info::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Extract(extract::Args),
    Diff(diff::Args),
    Verify(verify::Args),
    Write(write::Args),
}

pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        Verb::Info(args) => info::run(printer, args),
        Verb::Ls(args) => ls::run(printer, args),
        Verb::Cat(args) => cat::run(printer, args),
        Verb::Extract(args) => extract::run(printer, args),
        Verb::Diff(args) => diff::run(printer, args),
        Verb::Verify(args) => verify::run(printer, args),
        Verb::Write(args) => write::run(printer, args),
    }
}

/// Shows how far the reader or writer is.
struct Bar(Phase);

impl kld_pool::Progress for Bar {
    fn bytes(&self, done: u64, total: u64) {
        self.0.set(done, total);
    }
}

/// Standard output as it is: what goes there comes in large pieces, which a buffer of lines would only copy.
fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Says how much damage there was that nobody else will notice.
fn warn_healed(printer: &Printer, pool: &kld_pool::read::Pool<'_>) {
    match pool.healed() {
        0 => {}
        1 => printer.warning("1 copy of a block is damaged: another copy was read"),
        many => printer.warning(&format!("{many} copies of blocks are damaged: other copies were read")),
    }
}

/// A name of a file as people read it: bytes that are no characters, or would end a line, are escaped as in C.
fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_on_their_line() {
        for (name, text) in [
            (&b"plain"[..], "plain"),
            ("größe 1".as_bytes(), "größe 1"),
            (b"a\nb\\", "a\\nb\\\\"),
            (b"\xff\x1b[31m", "\\xff\\u{1b}[31m"),
        ] {
            assert_eq!(shown(name), text);
        }
    }
}

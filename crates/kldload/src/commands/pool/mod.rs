//! `kldload pool`: what is in a ZFS pool, read from images and disks without the kernel module. One file per verb.

mod cat;
mod diff;
mod image;
mod info;
mod ls;
mod verify;

use kld_ui::{ExitStatus, Printer};

/// Look into ZFS pools, in images and on disks, without the ZFS module
///
/// IMAGE is a file or device with a pool on it: a whole disk with a partition table, a partition, or a bare pool. The
/// sides of a mirror are separated by commas; one of them is enough. Nothing is ever written to it. A pool that is
/// imported somewhere changes while it is read: use a snapshot of the disk.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool info webapp.img\n  kldload pool ls webapp.img rpool/ROOT/debian /etc\n  kldload pool cat webapp.img rpool/ROOT/debian@install /etc/os-release\n  kldload pool diff webapp.img rpool/ROOT/debian@install rpool/ROOT/debian\n  kldload pool verify webapp.img"
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
    Diff(diff::Args),
    Verify(verify::Args),
}

pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        Verb::Info(args) => info::run(printer, args),
        Verb::Ls(args) => ls::run(printer, args),
        Verb::Cat(args) => cat::run(args),
        Verb::Diff(args) => diff::run(printer, args),
        Verb::Verify(args) => verify::run(printer, args),
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

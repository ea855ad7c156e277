//! `kldload pool cat`.

use std::io::{self, Write as _};

use kld_pool::read::{NodeKind, Piece};
use kld_ui::{ExitStatus, Printer};

use super::image::Image;
use super::{raw_stdout, warn_healed};

/// Write a file of a file system or snapshot to standard output
///
/// Stops at what cannot be read, and says where that is: `pool extract` takes out the rest.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool cat webapp.img rpool/ROOT/debian@install /etc/os-release\n  kldload pool cat /dev/sdb rpool/home /alice/thesis.tex > thesis.tex"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// File system or snapshot
    dataset: String,
    /// Path in it; links are not followed
    path: String,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    Image::open(&args.image)?.with_pool(|pool| {
        let filesystem = pool.filesystem(&args.dataset)?;
        let node = filesystem.lookup(args.path.as_bytes())?;
        match node.metadata().kind {
            NodeKind::File => {}
            NodeKind::Symlink => {
                let target = super::shown(&filesystem.read_link(&node)?);
                anyhow::bail!("`{}` is a link to `{target}`", args.path);
            }
            _ => anyhow::bail!("`{}` is not a regular file", args.path),
        }
        let mut out = raw_stdout()?;
        let mut at = 0;
        filesystem.read_pieces(&node, 0, &mut |piece| match piece {
            Piece::Data { offset, bytes } => {
                write_zeros(&mut out, offset - at)?;
                at = offset + bytes.len() as u64;
                Ok(out.write_all(&bytes)?)
            }
            Piece::Unreadable { range, error } => {
                let what = format!("cannot read bytes {} to {} of `{}`", range.start, range.end, args.path);
                Err(anyhow::Error::from(error).context(what))
            }
            _ => Ok(()),
        })?;
        write_zeros(&mut out, node.metadata().size - at)?;
        warn_healed(printer, pool);
        Ok(ExitStatus::Done)
    })
}

/// A hole.
fn write_zeros(out: &mut impl io::Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), len), out).map(drop)
}

//! `kldload pool cat`.

use std::io::{self, Write as _};

use anyhow::Context as _;
use kld_pool::read::NodeKind;
use kld_ui::ExitStatus;

use super::image::Image;

/// Write a file of a file system or snapshot to standard output
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

pub(super) fn run(args: &Args) -> anyhow::Result<ExitStatus> {
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
        let mut out = io::stdout().lock();
        let mut content = filesystem.content(&node);
        io::copy(&mut content, &mut out).with_context(|| format!("cannot read `{}`", args.path))?;
        out.flush()?;
        Ok(ExitStatus::Done)
    })
}

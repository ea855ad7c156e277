//! `kldload pool send`.

mod tree;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use kld_host::AtomicFile;
use kld_pool::read::ReadError;
use kld_pool::send::{ResumeToken, SendError, SendOptions, TokenError};
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};

use super::image::Image;

/// Write a snapshot as a stream for `zfs receive`, as `zfs send` does
///
/// The stream goes to standard output. The letters are those of `zfs send`, and so are the bytes.
///
/// With `--tree` no pool is needed: the stream is made of a directory, a tar (as it is, or packed with gzip or zstd; `-` is
/// standard input) or the image of a volume, and is the one that the pool of `kldload pool write` would give. Files must not
/// change while they are read: one that does ends it.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "kldload pool send [OPTIONS] IMAGE DATASET@SNAPSHOT\n       kldload pool send [OPTIONS] --token <TOKEN> IMAGE\n       kldload pool send [OPTIONS] --tree <CONTENT> DATASET@SNAPSHOT",
    after_help = "Examples:\n  kldload pool send webapp.img rpool/ROOT/debian@install | zfs receive tank/webapp\n  kldload pool send -cLe -i @sunday /dev/sdb tank/home@monday |\n    ssh backup zfs receive -s tank/home\n  token=$(ssh backup zfs get -H -o value receive_resume_token tank/home)\n  kldload pool send -t \"$token\" /dev/sdb | ssh backup zfs receive -s tank/home\n  kldload pool send --output home.zstream tank.img tank/home@first\n  kldload pool send --offset \"$(stat -c %s part)\" tank.img tank/home@first >> part\n  kldload pool send --tree /home --seed \"$seed\" tank/home@monday | ssh backup zfs receive tank/home\n  kldload pool send --tree /home --from-tree /backup/mon --seed \"$seed\" tank/home@tuesday |\n    ssh backup zfs receive tank/home"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas. Left out with `--tree`
    image: String,
    /// The snapshot to send
    #[arg(value_name = "DATASET@SNAPSHOT", required_unless_present_any = ["token", "tree"])]
    snapshot: Option<String>,
    /// Send only what changed since this snapshot: of the same dataset, or the one it is a clone of
    #[arg(long, short = 'i', value_name = "SNAPSHOT")]
    from: Option<String>,
    /// Leave compressed blocks compressed
    #[arg(long, short)]
    compressed: bool,
    /// Leave blocks larger than 128 KiB whole
    #[arg(long, short = 'L')]
    large_block: bool,
    /// Leave blocks embedded that are stored inside their pointers
    #[arg(long, short)]
    embed: bool,
    /// Go on where a receiver was interrupted, as its property receive_resume_token says
    #[arg(long, short, conflicts_with_all = ["snapshot", "from", "compressed", "large_block", "embed"])]
    token: Option<String>,
    /// Leave out the first bytes, which were taken before: the same pool gives the same stream
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true)]
    offset: ByteSize,
    /// Write the stream to a file, which appears whole or not at all
    #[arg(long, value_name = "FILE", conflicts_with = "offset")]
    output: Option<PathBuf>,
    /// Send this content, which is in no pool
    #[arg(long, value_name = "CONTENT", conflicts_with_all = ["snapshot", "from", "token"])]
    tree: Option<PathBuf>,
    /// Send only what changed since this content was sent, with the same seed. Of several updates all that was sent before,
    /// oldest first
    #[arg(long, value_name = "CONTENT", requires_all = ["tree", "seed"])]
    from_tree: Vec<PathBuf>,
    /// recordsize, compression, checksum or dnodesize; volsize or volblocksize of a volume
    #[arg(long, value_name = "PROPERTY=VALUE", requires = "tree")]
    property: Vec<String>,
    /// GUIDs are made from this text and the dataset's name; by default they are random
    #[arg(long, requires = "tree")]
    seed: Option<String>,
    /// log2 of the smallest write of the pool that the stream is as if from, 9 to 16; 12 by default
    #[arg(long, requires = "tree")]
    ashift: Option<u8>,
}

impl Args {
    fn options(&self) -> SendOptions {
        SendOptions { compressed: self.compressed, large_blocks: self.large_block, embedded: self.embed }
    }
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let token: Option<ResumeToken> =
        args.token.as_deref().map(str::parse).transpose().context("cannot use the token")?;
    refuse(args)?;
    if let Some(content) = &args.tree {
        // There is no image: the first name is that of the snapshot.
        let name = &args.image;
        let spec = tree::spec(name, content, args)?;
        let stream = tree::stream(&spec, name, args)?;
        return write(printer, args, name, &|offset, out| stream.write_from(offset, out));
    }
    Image::open(&args.image)?.with_pool(|pool| {
        let stream = match (&token, &args.snapshot) {
            (Some(token), _) => pool.resume(token)?,
            (None, snapshot) => {
                let to = snapshot.as_deref().unwrap_or_default();
                let from = args.from.as_deref().map(|from| full_name(from, to));
                pool.send(to, from.as_deref(), args.options())?
            }
        };
        write(printer, args, stream.name(), &|offset, out| stream.write_from(offset, out))
    })
}

/// Writes a stream from a byte on; gives its length.
type WriteFrom<'w> = &'w dyn Fn(u64, &mut dyn Write) -> Result<u64, SendError>;

fn write(
    printer: &Printer,
    args: &Args,
    name: &str,
    write_from: WriteFrom<'_>,
) -> anyhow::Result<ExitStatus> {
    let cannot_send = || format!("cannot send `{name}`");
    let Some(path) = &args.output else {
        return match write_from(args.offset.0, &mut io::stdout().lock()) {
            Ok(_) => Ok(ExitStatus::Done),
            // Half a stream is a failure, unlike half a list.
            Err(SendError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                let hint = "what `zfs receive -s` has by now can be completed with its token: `-t`";
                Err(Hinted::new("the stream was not read to its end", hint).into())
            }
            Err(error) => Err(error).with_context(cannot_send),
        };
    };
    let mut file = AtomicFile::output(path, 0o600)?;
    let len = write_from(0, file.file()).with_context(cannot_send)?;
    file.commit()?;
    printer.note(&format!("{}: {} of {name}", path.display(), ByteSize(len)));
    Ok(ExitStatus::Done)
}

/// A stream is nothing to look at.
fn refuse(args: &Args) -> anyhow::Result<()> {
    if args.output.is_some() || !io::stdout().is_terminal() {
        return Ok(());
    }
    let hint = "send it on, `| ssh backup zfs receive tank/home`, or write a file with `--output FILE`";
    Err(Hinted::new("a stream is not written to a terminal", hint).into())
}

/// `@sunday` and `sunday` are snapshots of the dataset that is sent.
fn full_name(from: &str, to: &str) -> String {
    match from.split_once('@') {
        Some((dataset, _)) if !dataset.is_empty() => from.to_owned(),
        Some((_, snapshot)) => below(to, snapshot),
        None => below(to, from),
    }
}

fn below(to: &str, snapshot: &str) -> String {
    format!("{}@{snapshot}", to.split('@').next().unwrap_or_default())
}

/// What to do when a snapshot cannot be sent.
pub(crate) fn hint(error: &SendError) -> Option<String> {
    const LIST: &str = "`kldload pool info IMAGE` lists datasets and snapshots";
    let hint = match error {
        SendError::NotASnapshot { .. } => format!("only `DATASET@SNAPSHOT` can be sent; {LIST}"),
        SendError::Read(ReadError::NoDataset { .. }) => LIST.to_owned(),
        SendError::NotEarlier { .. } => format!("leave `-i` out to send all of it; {LIST}"),
        SendError::NoSuchGuid { .. } => "give the image that the stream began with".to_owned(),
        SendError::LargeTables { .. } => "add `-L`".to_owned(),
        SendError::PastTheEnd { .. } => "what was taken is not of this stream".to_owned(),
        SendError::Content(error) => return error.hint(),
        SendError::Read(ReadError::Encrypted { .. }) => {
            "import the pool and send it as it is: `zfs send --raw`".to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

/// Where to get a token that can be used.
pub(crate) fn token_hint(error: &TokenError) -> Option<String> {
    let hint = match error {
        TokenError::NotSupported(_) => "import the pool and use `zfs send -t`",
        _ => "copy it whole: `zfs get -H -o value receive_resume_token DATASET` where it was received",
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_to_start_from_are_named_as_for_zfs_send() {
        for from in ["old", "@old", "tank/home@old"] {
            assert_eq!(full_name(from, "tank/home@new"), "tank/home@old");
        }
        assert_eq!(full_name("tank/origin@old", "tank/clone@new"), "tank/origin@old");
    }
}

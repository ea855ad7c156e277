//! Where content comes from: directories, tars (compressed ones are unpacked first), images.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::Path;

use anyhow::Context as _;
use kld_pool::tree::{Data, Tree};
use kld_pool::{Content, Volume};
use kld_ui::Hinted;

use super::request::{DatasetRequest, bytes};

/// What ZFS takes by itself.
const VOLBLOCKSIZE: &str = "16K";

/// Opens the content of a dataset or snapshot. What has to be unpacked goes into files without names in `scratch`.
pub(in crate::commands::pool) fn open(
    dataset: &DatasetRequest,
    path: &Path,
    scratch: &Path,
) -> anyhow::Result<Content> {
    let shown = path.display();
    if is_volume(dataset) {
        let data = Data::from_file(path).with_context(|| format!("cannot read `{shown}`"))?;
        return volume(dataset, data);
    }
    let tree = if path.is_dir() {
        Tree::from_dir(path).with_context(|| format!("cannot read `{shown}`"))?
    } else {
        tar(path, scratch).with_context(|| format!("cannot read `{shown}`"))?
    };
    Ok(Content::Files(tree))
}

/// A dataset without content.
pub(super) fn empty(dataset: &DatasetRequest) -> anyhow::Result<Content> {
    match is_volume(dataset) {
        true => volume(dataset, Data::bytes([])),
        false => Ok(Content::Empty),
    }
}

/// Whether a property of a dataset is one that only volumes have, and that `open` takes.
pub(in crate::commands::pool) fn is_of_volumes(property: &str) -> bool {
    matches!(property, "volsize" | "volblocksize")
}

fn is_volume(dataset: &DatasetRequest) -> bool {
    dataset.properties.keys().any(|property| is_of_volumes(property))
}

fn volume(dataset: &DatasetRequest, data: Data) -> anyhow::Result<Content> {
    let property = |name: &str| dataset.properties.get(name).map(String::as_str);
    let of = || format!("cannot set a property of `{}`", dataset.name);
    let block_size = bytes(property("volblocksize").unwrap_or(VOLBLOCKSIZE)).with_context(of)?;
    let size = match property("volsize") {
        Some(text) => bytes(text).with_context(of)?,
        None => data.len().checked_next_multiple_of(block_size).unwrap_or(data.len()),
    };
    Ok(Content::Volume(Volume { size, block_size, data }))
}

fn tar(path: &Path, scratch: &Path) -> anyhow::Result<Tree> {
    let is_stdin = path.as_os_str() == "-";
    let mut input: Box<dyn Read> = match is_stdin {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path)?),
    };
    let mut start = Vec::new();
    input.by_ref().take(6).read_to_end(&mut start)?;
    let whole = BufReader::with_capacity(1 << 20, io::Cursor::new(start.clone()).chain(input));
    let mut unpacked: Box<dyn Read> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(other_compression("xz", path).into()),
        [b'B', b'Z', b'h', ..] => return Err(other_compression("bzip2", path).into()),
        _ if is_stdin => Box::new(whole),
        _ => return Ok(Tree::from_tar(path)?),
    };
    let mut file = tempfile::tempfile_in(scratch)
        .with_context(|| format!("cannot unpack it in `{}`", scratch.display()))?;
    io::copy(&mut unpacked, &mut file).context("cannot unpack it")?;
    file.rewind()?;
    Ok(Tree::from_open_tar(file, path)?)
}

fn other_compression(name: &str, path: &Path) -> Hinted {
    let hint =
        format!("unpack it first: `{name} -d -k {}`; gzip and zstd are read as they are", path.display());
    Hinted::new(format!("it is compressed with {name}"), hint)
}

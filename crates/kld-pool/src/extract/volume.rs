//! A volume as an image.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::report::{ExtractError, Report, Trouble};
use crate::device::Progress;
use crate::read::{Piece, Volume};

/// Writes the content of a volume to `out`, an empty file that becomes as long as the volume; holes stay holes. The path in
/// problems is empty. `threads` 0 is one per core.
pub fn extract_volume(
    volume: &Volume<'_>,
    out: &File,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Report, ExtractError> {
    let mut report = Report::below("");
    report.files = 1;
    let fail = |source| ExtractError::Write { path: String::new(), source };
    out.set_len(volume.size()).map_err(fail)?;
    volume.read_pieces::<ExtractError>(threads, &mut |piece| {
        match piece {
            Piece::Data { offset, bytes } => {
                out.write_all_at(&bytes, offset).map_err(fail)?;
                report.bytes += bytes.len() as u64;
                progress.bytes(offset + bytes.len() as u64, volume.size());
            }
            Piece::Unreadable { range, error } => report.problem(&[], Some(range), Trouble::Read(error)),
        }
        Ok(())
    })?;
    Ok(report)
}

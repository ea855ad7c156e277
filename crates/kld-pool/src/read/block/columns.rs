//! Blocks on raidz: their columns, from the devices that are there.

use std::sync::atomic::Ordering;

use super::{Blocks, CopyProblem};
use crate::read::pointer::Dva;
use crate::read::raidz::{self, Column, Raidz};
use crate::read::vdev::Form;

/// Ways to put a damaged block together that are tried: all that a raidz3 of 30 devices has.
const MAX_GUESSES: usize = 4096;

impl Blocks<'_> {
    /// `len` bytes at `dva` that `accept` finds to be right, from what can be read of all columns.
    pub(super) fn read_raidz(
        &self,
        raidz: &Raidz,
        children: &[Vec<Option<usize>>],
        dva: &Dva,
        len: usize,
        accept: &dyn Fn(&[u8]) -> Result<(), CopyProblem>,
    ) -> Result<Vec<u8>, CopyProblem> {
        let columns = raidz.columns(dva.offset, len).ok_or(CopyProblem::NoVdev)?;
        let (mut gone, mut bad) = (0, 0);
        let mut read_column = |column: &Column| {
            let devices = children.get(column.device).map(Vec::as_slice).unwrap_or_default();
            let mut problem = CopyProblem::Missing;
            for device in devices {
                match self.read_child(*device, column.offset, column.len) {
                    Ok(bytes) => return Some(bytes),
                    Err(error) => problem = error,
                }
            }
            gone += 1;
            bad += u64::from(problem != CopyProblem::Missing);
            None
        };
        let mut read: raidz::Read = vec![None; columns.len()];
        let (parity, data) = read.split_at_mut(raidz.parity.min(columns.len()));
        let (parity_columns, data_columns) = columns.split_at(parity.len());
        data.iter_mut().zip(data_columns).for_each(|(bytes, column)| *bytes = read_column(column));
        // Parity is only needed when something is wrong.
        if data.iter().all(Option::is_some) {
            let mut raw: Vec<u8> = data.iter().flatten().flatten().copied().collect();
            raw.truncate(len);
            match accept(&raw) {
                Ok(()) => return Ok(raw),
                Err(CopyProblem::Checksum) => {}
                Err(problem) => return Err(problem),
            }
        }
        parity.iter_mut().zip(parity_columns).for_each(|(bytes, column)| *bytes = read_column(column));
        for (guess, raw) in raidz.candidates(&read, &columns, len).take(MAX_GUESSES).enumerate() {
            match accept(&raw) {
                Ok(()) => {
                    // More than what could not be read was left out.
                    self.healed.fetch_add(bad + u64::from(guess > 0), Ordering::Relaxed);
                    return Ok(raw);
                }
                Err(CopyProblem::Checksum) => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(if gone > raidz.parity { CopyProblem::Missing } else { CopyProblem::Checksum })
    }

    /// The columns of a block on raidz that are not what they must be for the block to be `raw`: which child, and what is
    /// wrong.
    pub(crate) fn bad_columns(&self, dva: &Dva, raw: &[u8]) -> Vec<(usize, CopyProblem)> {
        let Ok(Form::Raidz(raidz, children)) = self.form(dva) else { return Vec::new() };
        let Some(columns) = raidz.columns(dva.offset, raw.len()).filter(|_| !dva.gang) else {
            return Vec::new();
        };
        let mut padded = raw.to_vec();
        padded.resize(raw.len().next_multiple_of(1 << raidz.ashift), 0);
        let mut rest = padded.as_slice();
        let mut data: Vec<&[u8]> = Vec::new();
        for column in columns.iter().skip(raidz.parity) {
            let (own, others) = rest.split_at(column.len.min(rest.len()));
            data.push(own);
            rest = others;
        }
        let parity = raidz.parity_of(&data);
        let wanted = parity.iter().map(Vec::as_slice).chain(data.iter().copied());
        let mut bad = Vec::new();
        for (column, wanted) in columns.iter().zip(wanted) {
            for device in children.get(column.device).into_iter().flatten() {
                match self.read_child(*device, column.offset, column.len) {
                    Ok(bytes) if bytes == wanted => {}
                    Ok(_) => bad.push((column.device, CopyProblem::Checksum)),
                    Err(CopyProblem::Missing) => {}
                    Err(problem) => bad.push((column.device, problem)),
                }
            }
        }
        bad
    }
}

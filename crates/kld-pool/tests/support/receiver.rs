//! What a stream makes of a dataset: the rules of `zfs receive`, in memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use kld_pool::send::Record;

/// The objects of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects(pub(crate) BTreeMap<u64, Object>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    kind: (u8, u8),
    block_size: u32,
    slots: u8,
    bonus: Vec<u8>,
    spill: Option<Vec<u8>>,
    /// Content in pages of 4 KiB, those without anything in them left out: how it came in blocks makes no difference.
    pages: BTreeMap<u64, Vec<u8>>,
}

const PAGE: u64 = 4096;

impl Objects {
    /// Does what a record says. A full stream, which comes to an empty dataset, says everything once.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Begin(_) | Record::End => {}
            Record::Object {
                number, object_type, bonus_type, block_size, slots, bonus, has_spill, ..
            } => {
                let kind = (object_type, bonus_type);
                let known = self.0.remove(&number);
                // Of an object with another shape nothing is kept.
                let known = known.filter(|known| known.block_size == block_size && known.slots == slots);
                let (spill, pages) = known.map(|known| (known.spill, known.pages)).unwrap_or_default();
                let spill = spill.filter(|_| has_spill);
                self.0.insert(number, Object { kind, block_size, slots, bonus, spill, pages });
            }
            Record::FreeObjects { first, count } => {
                self.0.retain(|number, _| !(first..first + count).contains(number));
            }
            Record::Write { object, offset, block } => {
                let content = block.decode().unwrap();
                assert_eq!(content.len(), block.size as usize);
                self.object(object).write(offset, &content);
            }
            Record::Free { object, offset, length } => {
                let end = length.map_or(u64::MAX, |length| offset + length);
                self.object(object).free(offset, end);
            }
            Record::Spill { object, unmodified, content } => {
                let spill = &mut self.object(object).spill;
                assert!(!unmodified || spill.as_ref().is_none_or(|spill| *spill == content));
                *spill = Some(content);
            }
            other => panic!("{other:?}"),
        }
    }

    fn object(&mut self, number: u64) -> &mut Object {
        self.0.get_mut(&number).expect("it was described before")
    }
}

impl Object {
    fn write(&mut self, offset: u64, content: &[u8]) {
        self.free(offset, offset + content.len() as u64);
        let mut at = offset;
        let mut rest = content;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (part, behind) = rest.split_at(rest.len().min(PAGE as usize - within));
            if part.iter().any(|byte| *byte != 0) {
                let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
                page[within..within + part.len()].copy_from_slice(part);
            }
            at += part.len() as u64;
            rest = behind;
        }
    }

    fn free(&mut self, start: u64, end: u64) {
        let touched: Vec<u64> = self.pages.range(start / PAGE..=end / PAGE).map(|(page, _)| *page).collect();
        for number in touched {
            let first = number * PAGE;
            let page = self.pages.get_mut(&number).expect("it was just met");
            let within = |at: u64| at.saturating_sub(first).min(PAGE) as usize;
            page[within(start)..within(end)].fill(0);
            if page.iter().all(|byte| *byte == 0) {
                self.pages.remove(&number);
            }
        }
    }

    /// The first `len` bytes; there must be nothing behind them.
    pub(crate) fn content(&self, len: u64) -> Vec<u8> {
        let mut content = vec![0; len as usize];
        for (number, page) in &self.pages {
            let start = (number * PAGE) as usize;
            let inside = page.len().min(content.len().saturating_sub(start));
            assert!(page[inside..].iter().all(|byte| *byte == 0), "there is something behind the end");
            content[start..start + inside].copy_from_slice(&page[..inside]);
        }
        content
    }
}

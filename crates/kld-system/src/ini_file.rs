//! Files of `[Header]` blocks with `Name=value` lines, where a header may come several times: systemd-networkd, resolved,
//! sanoid. Unit files have [a type of their own](crate::unit_file).

use crate::system::{Because, Item, SystemFile};
use crate::unit_file::sentence;

/// A file under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct IniFile {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    header: String,
    lines: Vec<Item<(String, String)>>,
}

impl IniFile {
    /// Begins a block; the lines that follow belong to it.
    pub(crate) fn block(&mut self, header: impl Into<String>) {
        self.blocks.push(Block { header: header.into(), lines: Vec::new() });
    }

    /// Adds a line to the block begun last.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString, because: Because) {
        let block = self.blocks.last_mut().expect("a layer begins a block before it adds lines");
        block.lines.push(Item::new((name.to_owned(), value.to_string()), because));
    }

    /// The finished file.
    pub(crate) fn into_file(self, path: impl Into<String>, because: Because) -> SystemFile {
        let mut text = format!(
            "# {}.\n# Written by kldload; `kldload explain` gives the reason of every line.\n",
            sentence(&because.reason)
        );
        let mut parts = Vec::new();
        for block in self.blocks {
            text.push_str(&format!("\n[{}]\n", block.header));
            for line in block.lines {
                let (name, value) = line.value;
                text.push_str(&format!("{name}={value}\n"));
                parts.push(Item::new(format!("[{}] {name}={value}", block.header), line.because));
            }
        }
        SystemFile::text(path, text, because).with_parts(parts)
    }
}

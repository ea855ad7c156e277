//! How much memory the writer and the sender take: by the number of files, never by their size. One test, since it looks at
//! the whole process.
#![expect(clippy::print_stdout, reason = "the figures are what these tests are for")]

mod support;

use std::io;
use std::sync::Arc;

use kld_pool::send::SendOptions;
use kld_pool::tree::{Data, Kind, SourceFile, Tree};
use kld_pool::{WriteAt, write_pool};
use support::{dataset, meta, pool};

/// An output that keeps nothing.
struct Nowhere;

impl WriteAt for Nowhere {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() << 10
}

/// The most that was ever resident, above `before`.
fn grown(before: u64) -> u64 {
    status("VmHWM:").saturating_sub(before)
}

#[test]
fn memory_follows_the_number_of_files() {
    let before = status("VmRSS:");
    // A gibibyte that must be read: as a slice, nothing is known of its holes.
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let file = Arc::new(SourceFile::held(file, "zeros").unwrap());
    let mut tree = Tree::new();
    for n in 0..4u64 {
        let data = Data::Slice { file: Arc::clone(&file), offset: n << 28, len: 1 << 28 };
        tree.insert(format!("{n}"), meta(), Kind::File(data)).unwrap();
    }
    let mut spec = pool(2048);
    let mut root = dataset("fz/root", &[("compression", "off")], Some(tree));
    root.snapshots = vec!["a".into()];
    spec.datasets = vec![root];
    write_pool(&spec, &[&Nowhere], &()).unwrap();
    spec.send("fz/root@a", None, SendOptions::default()).unwrap().write_to(&mut io::sink()).unwrap();
    let large = grown(before);
    println!("{} MiB for a gibibyte", large >> 20);
    assert!(large < 100 << 20, "{large}");

    const FILES: u64 = 200_000;
    let mut tree = Tree::new();
    for n in 0..FILES {
        if n % 1000 == 0 {
            tree.insert(format!("{}", n / 1000), meta(), Kind::Directory).unwrap();
        }
        let path = format!("{}/file-{n}", n / 1000);
        tree.insert(path, meta(), Kind::File(Data::bytes([]))).unwrap();
    }
    spec.datasets[0].content = tree.into();
    let before = before + large;
    write_pool(&spec, &[&Nowhere], &()).unwrap();
    let written = grown(before) / FILES;
    spec.send("fz/root@a", None, SendOptions::default()).unwrap().write_to(&mut io::sink()).unwrap();
    let sent = grown(before) / FILES;
    println!("{written} bytes for a file that is written, {sent} for one that is sent");
    assert!(written < 1300, "{written}");
    assert!(sent < 1800, "{sent}");
}

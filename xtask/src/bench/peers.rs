//! The writers of images that are compared: ours and those of other formats.

use std::path::{Path, PathBuf};

use kld_host::Cmd;

use super::contender::Contender;

/// Where our programs are, what they read and where outputs go.
pub(super) struct Place {
    /// The folder of what was compiled.
    pub(super) target: PathBuf,
    pub(super) tree: PathBuf,
    pub(super) scratch: PathBuf,
    /// A folder in memory, where outputs go. Nobody waits for a disk there, whether it makes its output durable, as our writer
    /// does, or leaves that to the system.
    pub(super) memory: PathBuf,
    /// Size of the pools in MiB: the tree fits even when nothing can be compressed.
    pub(super) pool_mib: u64,
}

impl Place {
    fn output(&self, name: &str) -> PathBuf {
        self.memory.join(name.replace([' ', '|'], "-"))
    }

    /// Our writer; on one processor only when `cpu` names it.
    pub(super) fn mkpool(&self, name: &str, compression: &str, cpu: Option<u32>) -> Contender {
        let output = self.output(name);
        let cmd = self.mkpool_cmd(&output, compression, cpu);
        Contender { name: name.to_owned(), cmd, output: Some(output) }
    }

    /// Our writer with its output on the disk, which it makes durable.
    pub(super) fn mkpool_on_disk(&self, name: &str, compression: &str) -> Contender {
        let output = self.scratch.join("bench.img");
        let cmd = self.mkpool_cmd(&output, compression, None);
        Contender { name: name.to_owned(), cmd, output: Some(output) }
    }

    pub(super) fn mkpool_cmd(&self, output: &Path, compression: &str, cpu: Option<u32>) -> Cmd {
        pinned(&self.target.join("examples/mkpool"), cpu)
            .args(["--name", "bench", "--compression", compression, "--size", &self.pool_mib.to_string()])
            .arg("--output")
            .arg(output)
            .arg(format!("bench/root={}", self.tree.display()))
    }

    /// A stream of the same dataset, without a pool.
    pub(super) fn stream(&self, name: &str, compression: &str) -> Contender {
        let output = self.output(name);
        let cmd = Cmd::new(self.target.join("kldload"))
            .args(["pool", "send", "-cLe", "--property", &format!("compression={compression}"), "--tree"])
            .arg(&self.tree)
            .arg("--output")
            .arg(&output)
            .arg("bench/root@bench");
        Contender { name: name.to_owned(), cmd, output: Some(output) }
    }

    /// The same work without a format.
    pub(super) fn ceiling(&self, name: &str, compression: &str, cpu: Option<u32>) -> Contender {
        let output = self.output(name);
        let cmd = pinned(&self.target.join("examples/ceiling"), cpu)
            .args(["--compression", compression, "--output"])
            .arg(&output)
            .arg(&self.tree);
        Contender { name: name.to_owned(), cmd, output: Some(output) }
    }

    /// Everybody else's writers.
    pub(super) fn peers(&self) -> Vec<Contender> {
        let other = |name: &str, program: &str, args: &[&str]| {
            let output = self.output(name);
            let cmd = args.iter().fold(Cmd::new(program), |cmd, arg| match *arg {
                "OUT" => cmd.arg(&output),
                "TREE" => cmd.arg(&self.tree),
                arg => cmd.arg(arg),
            });
            Contender { name: name.to_owned(), cmd, output: Some(output) }
        };
        let squash = |name: &str, compression: &[&str]| {
            let mut args = vec!["TREE", "OUT", "-noappend", "-quiet", "-no-progress"];
            args.extend(compression);
            other(name, "mksquashfs", &args)
        };
        let ext4_size = format!("{}M", self.pool_mib);
        let pipeline = "tar -C \"$1\" -cf - . | zstd -q -3 -T0 -o \"$2\"";
        vec![
            squash("mksquashfs lz4", &["-comp", "lz4"]),
            squash("mksquashfs zstd-3", &["-comp", "zstd", "-Xcompression-level", "3"]),
            other("mkfs.erofs lz4", "mkfs.erofs", &["--quiet", "-zlz4", "OUT", "TREE"]),
            other("mke2fs -d", "mke2fs", &["-q", "-t", "ext4", "-d", "TREE", "OUT", &ext4_size]),
            other("tar | zstd -3", "sh", &["-c", pipeline, "sh", "TREE", "OUT"]),
        ]
    }
}

/// A program that may use only one processor.
fn pinned(program: &Path, cpu: Option<u32>) -> Cmd {
    match cpu {
        Some(cpu) => Cmd::new("taskset").args(["-c", &cpu.to_string()]).arg(program),
        None => Cmd::new(program),
    }
}

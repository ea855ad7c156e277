//! How fast this machine could make the blocks of a pool at best: `ceiling --compression lz4 --output F DIR`.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use kld_pool::{Compression, ceiling};

/// Reads, compresses, checksums and writes every file below a directory; the output has no structure.
#[derive(Parser)]
struct Args {
    /// The file to make; replaced if it exists.
    #[arg(long)]
    output: PathBuf,
    /// off, lz4, or zstd with a level.
    #[arg(long, default_value = "lz4")]
    compression: String,
    /// Threads; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// The directory to read.
    dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let start = std::time::Instant::now();
    let compression = match args.compression.as_str() {
        "off" => Compression::Off,
        "lz4" => Compression::Lz4,
        name => match name.strip_prefix("zstd-").and_then(|level| level.parse().ok()) {
            Some(level @ 1..=19) => Compression::Zstd(level),
            _ => anyhow::bail!("`{name}` is not off, lz4 or zstd-1 to zstd-19"),
        },
    };
    let threads = match args.threads {
        0 => std::thread::available_parallelism()?.get(),
        threads => threads,
    };
    let out = std::fs::File::create(&args.output)?;
    let (read, written) = ceiling::write(&args.dir, compression, &out, threads)?;
    let seconds = start.elapsed().as_secs_f64();
    let mib_per_second = read as f64 / 1048576.0 / seconds;
    writeln!(
        std::io::stdout(),
        "{} MiB read, {} MiB written, {seconds:.2} s, {mib_per_second:.0} MiB/s",
        read >> 20,
        written >> 20
    )?;
    Ok(())
}

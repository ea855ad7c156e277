//! `kldload pool extract`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_host::AtomicFile;
use kld_pool::extract::{Report, extract_dir, extract_tar, extract_volume};
use kld_pool::read::{Pool, ReadError, Volume};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer};

use super::image::Image;
use super::{Bar, raw_stdout, shown, warn_healed};

/// Take files out of a file system or snapshot, or the content of a volume
///
/// Into a new or empty directory: files with their holes, owners and devices (as root), modes, times, hard links, extended
/// attributes, ACLs and capabilities. Or into a tar. A volume becomes a sparse image. What is damaged is said, with the path
/// and the bytes that are missing, and everything else is taken out; then the exit code is 1. The pool is not trusted:
/// nothing is written outside the directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool extract webapp.img rpool/ROOT/debian@install /etc --output etc\n  kldload pool extract /dev/sdb rpool/home --tar home.tar\n  kldload pool extract /dev/sdb rpool/home /alice --tar - | zstd > alice.tar.zst\n  kldload pool extract disk-a.img,disk-b.img tank/vm/web --output web.raw"
)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["output", "tar"])))]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// File system, volume or snapshot
    dataset: String,
    /// File or directory in it
    #[arg(default_value = "/")]
    path: String,
    /// Directory to take files out to; for a volume the image file
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Tar to write instead, `-` is standard output
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    Image::open(&args.image)?.with_pool(|pool| {
        let phases = Phases::new(printer, 1);
        let bar = Bar(phases.start_bytes("take out the files"));
        let done = extract(pool, args, &bar);
        match &done {
            Ok(_) => bar.0.finish(),
            Err(_) => bar.0.fail(),
        }
        drop(phases);
        let report = done?;
        warn_healed(printer, pool);
        Ok(tell(printer, &report))
    })
}

fn extract(pool: &Pool<'_>, args: &Args, bar: &Bar) -> anyhow::Result<Report> {
    let filesystem = match pool.filesystem(&args.dataset) {
        Ok(filesystem) => filesystem,
        Err(error @ ReadError::NotAFilesystem { .. }) => {
            return match (pool.volume(&args.dataset), &args.output) {
                (Ok(volume), Some(output)) => to_image(&volume, output, bar),
                (Ok(_), None) => {
                    let message = format!("`{}` is a volume, which is no tar", args.dataset);
                    Err(Hinted::new(message, "give the image to write: `--output FILE`").into())
                }
                (Err(_), _) => Err(error.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let Some(tar) = &args.tar else {
        let output = args.output.as_deref().unwrap_or(Path::new("."));
        return Ok(extract_dir(&filesystem, &args.path, output, 0, bar)?);
    };
    if tar.as_os_str() == "-" {
        let mut out = BufWriter::with_capacity(1 << 20, raw_stdout()?);
        return Ok(extract_tar(&filesystem, &args.path, &mut out, 0, bar)?);
    }
    let mut file = AtomicFile::output(tar, 0o600)?;
    let report = {
        let mut out = BufWriter::with_capacity(1 << 20, file.file());
        let report = extract_tar(&filesystem, &args.path, &mut out, 0, bar)?;
        out.flush().with_context(|| format!("cannot write `{}`", tar.display()))?;
        report
    };
    file.commit()?;
    Ok(report)
}

fn to_image(volume: &Volume<'_>, output: &Path, bar: &Bar) -> anyhow::Result<Report> {
    if output.exists() {
        let hint = "name a new file";
        return Err(Hinted::new(format!("`{}` exists already", output.display()), hint).into());
    }
    let mut file = AtomicFile::output(output, 0o600)?;
    let out: &File = file.file();
    let report = extract_volume(volume, out, 0, bar)
        .with_context(|| format!("cannot write `{}`", output.display()))?;
    file.commit()?;
    Ok(report)
}

fn tell(printer: &Printer, report: &Report) -> ExitStatus {
    for problem in &report.problems {
        printer.problem(&problem.to_string());
    }
    for (what, omission) in &report.left_out {
        let (count, first) = (omission.count, shown(&omission.first));
        printer.warning(&format!("{what} were left out: {count} files, the first is `/{first}`"));
    }
    printer.note(&format!(
        "{} directories, {} files, {} hard links, {} others, {} read",
        report.directories,
        report.files,
        report.hard_links,
        report.others,
        ByteSize(report.bytes)
    ));
    match report.problems.len() {
        0 => ExitStatus::Done,
        problems => {
            printer.problem(&format!("{problems} of them could not be taken out whole"));
            ExitStatus::Failed
        }
    }
}

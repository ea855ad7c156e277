//! `cargo xtask bench pool`: what the pool writer and reader are worth beside others, and beside this machine's ceiling.

use std::fs;
use std::path::Path;

use kld_host::Cmd;
use kld_ui::Printer;

use super::contender::{Contender, Measured, measure};
use super::image::{prepare, size_of, writers};
use super::peers::Place;
use super::table::{Markdown, mib, ratio, seconds, speed};
use super::{Args, vm};

/// Compressions that are compared, as `compression=` has them.
const CODECS: [&str; 2] = ["lz4", "zstd-3"];

pub(super) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    let parts =
        ["--package", "kld-pool", "--examples", "--package", "kldload", "--bin", "kldload"].as_slice();
    let place = prepare(root, args, parts)?;
    let content = size_of(&place.tree)?;
    let cpu = first_cpu();

    let mut contenders: Vec<Contender> =
        CODECS.iter().map(|codec| place.mkpool(&format!("pool {codec}"), codec, None)).collect();
    contenders.extend(CODECS.iter().map(|codec| place.stream(&format!("stream {codec}, `-cLe`"), codec)));
    contenders.extend(place.peers());
    let listed = contenders.len();
    contenders.extend(CODECS.iter().map(|codec| place.mkpool_on_disk(&on_disk(codec), codec)));
    for codec in CODECS {
        contenders.push(place.mkpool(&format!("{codec}, one processor"), codec, Some(cpu)));
        contenders.push(place.ceiling(&format!("ceiling {codec}"), codec, None));
        contenders.push(place.ceiling(&format!("ceiling {codec}, one processor"), codec, Some(cpu)));
    }
    let results = measure(printer, &contenders, args.runs)?;

    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    printer.data(&format!(
        "{} of content, {processors} processors, medians of {} runs taken in turns, page-cached, outputs in memory.\n\n",
        mib(content),
        args.runs.max(1)
    ))?;
    printer.data(&format!("{}\n", writers(&results[..listed])))?;
    printer.data(&format!("{}\n", limits(&results)))?;
    printer.data(&reading(printer, &place, content, args.runs)?.to_string())?;
    if args.vm {
        vm::run(printer, &place, args)?;
    }
    Ok(())
}

fn on_disk(codec: &str) -> String {
    format!("pool {codec}, on the disk")
}

/// Our writer beside what the machine can do at all, and beside the peer with the same codec.
fn limits(results: &[Measured]) -> Markdown {
    let time = |name: String| {
        let found = results.iter().find(|result| result.name == name);
        found.map_or(f64::NAN, |result| result.seconds)
    };
    let mut table = Markdown::new(&[
        "codec",
        "one processor",
        "all",
        "scaling",
        "all, durable on the disk",
        "ceiling, one processor",
        "ceiling, all",
        "share of the ceiling",
        "mksquashfs takes",
    ]);
    for codec in CODECS {
        let one = time(format!("{codec}, one processor"));
        let all = time(format!("pool {codec}"));
        let ceiling = time(format!("ceiling {codec}"));
        table.row([
            codec.to_owned(),
            seconds(one),
            seconds(all),
            format!("{} ×", ratio(one / all)),
            seconds(time(on_disk(codec))),
            seconds(time(format!("ceiling {codec}, one processor"))),
            seconds(ceiling),
            format!("{:.0} %", ceiling / all * 100.0),
            format!("{} ×", ratio(time(format!("mksquashfs {codec}")) / all)),
        ]);
    }
    table
}

/// Reads pools from the page cache: every file, then every block, by us and by `zdb`.
fn reading(printer: &Printer, place: &Place, content: u64, runs: usize) -> anyhow::Result<Markdown> {
    let mut contenders = Vec::new();
    for codec in CODECS {
        // `zdb` looks for pools in a folder: each has its own.
        let dir = place.memory.join(format!("read-{codec}"));
        fs::create_dir(&dir)?;
        let image = dir.join("bench.img");
        place.mkpool_cmd(&image, codec, None).run()?;
        let mut add = |name: &str, cmd: Cmd| {
            contenders.push(Contender { name: format!("{name}, {codec}"), cmd, output: None })
        };
        let lspool = Cmd::new(place.target.join("examples/lspool")).arg(&image);
        add("every file, `lspool`", lspool.args(["--files", "bench/root", "--read"]));
        add(
            "`kldload pool verify`",
            Cmd::new(place.target.join("kldload")).args(["pool", "verify"]).arg(&image),
        );
        if let Some(zdb) = std::env::var_os("KLD_ZDB") {
            add("`zdb -bcc`", Cmd::new(zdb).args(["-e", "-p"]).arg(&dir).args(["-bcc", "bench"]));
        }
    }
    if std::env::var_os("KLD_ZDB").is_none() {
        printer.warning("`zdb` was left out: KLD_ZDB names none");
    }
    let results = measure(printer, &contenders, runs)?;
    let mut table = Markdown::new(&["reader", "seconds", "content", "processor seconds", "peak memory"]);
    for r in &results {
        table.row([
            r.name.clone(),
            seconds(r.seconds),
            speed(content, r.seconds),
            seconds(r.cpu_seconds),
            mib(r.peak_kib << 10),
        ]);
    }
    Ok(table)
}

/// A processor that this process may use.
fn first_cpu() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split([',', '-']).next());
    first.and_then(|cpu| cpu.parse().ok()).unwrap_or(0)
}

//! `cargo xtask bench daily`: the commands of every day beside the tools that they stand in for, in one machine, in one run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};
use kld_vm::{Disk, DiskFormat, Mac, Nic, Vm};

use super::table::{Markdown, median, mib, ratio};
use super::{Args, compile, scratch};
use crate::test::inherit;

/// Longer than it takes under emulation with thousands of snapshots.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Room for the snapshots; the file has holes.
const POOL: u64 = 8 << 30;
/// Starts of a program on this machine, of which the median counts.
const STARTS: usize = 51;
const MEASURE: &str = include_str!("daily/measure.sh");

/// Medians by name.
type Measured = BTreeMap<String, f64>;

pub(super) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    let target = compile(root, &["--package", "kldload", "--bin", "kldload"])?;
    let scratch = scratch()?;
    let program = target.join("kldload");
    let phases = Phases::new(printer, 3);
    let phase = phases.start("build the machine");
    let image = scratch.join("daily.img");
    let build =
        Cmd::new(&program).cwd(root).args(["build", "--quiet", "--size", "6G", "--output"]).arg(&image);
    inherit(build.arg("recipes/webapp/appliance.manifest")).run().context("cannot build it")?;
    let disk = scratch.join("pool.img");
    File::create(&disk)?.set_len(POOL)?;
    phase.finish();

    let phase = phases.start("boot it");
    let vm = Vm::new()
        .memory_mib(2048)
        .cpus(2)
        .disk(Disk::new(&image, DiskFormat::Raw).overlay().volatile())
        .disk(Disk::new(&disk, DiskFormat::Raw).volatile())
        .nic(Nic::isolated(Mac::numbered(1)));
    let guest = vm.start().context("cannot start the machine")?;
    guest.wait_control(LIMIT, |step| phase.message(step))?;
    guest.wait_system(LIMIT, |step| phase.message(step))?;
    phase.finish();

    let phase = phases.start(&format!("measure, {} datasets", args.scale));
    let script = format!("set -- {} {}\n{MEASURE}", args.scale, args.runs.max(1));
    let output =
        guest.run_for(&format!("exec bash -s -- <<'END-OF-MEASURE'\n{script}\nEND-OF-MEASURE"), LIMIT)?;
    if !output.is_ok() {
        bail!("it could not be measured: {}\n{}", output.text(), output.error_text());
    }
    let measured = read(&output.text())?;
    let accel = guest.accel().to_string();
    guest.cut_power();
    phase.finish();
    drop(phases);

    let start = starts(&program)?;
    let beside = beside_probes(&program)?;
    let size = fs::metadata(&program)?.len();
    printer.data(&format!(
        "{}\nMedians of {} runs taken in turns; {accel}. {} datasets.\n\n{}",
        table(&measured),
        args.runs.max(1),
        args.scale,
        own(&start, beside, size)
    ))?;
    Ok(())
}

fn read(text: &str) -> anyhow::Result<Measured> {
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else { bail!("`{line}` is no measurement") };
        let value = value.trim().parse().with_context(|| format!("`{line}` is no measurement"))?;
        samples.entry(name.to_owned()).or_default().push(value);
    }
    Ok(samples.into_iter().map(|(name, values)| (name, median(values))).collect())
}

fn table(measured: &Measured) -> Markdown {
    let mut table =
        Markdown::new(&["", "seconds", "of the first", "transaction groups, or longest wait of `zfs get`"]);
    let value = |name: &str| measured.get(name).copied();
    let rows: [(&str, &str, &str, Option<String>); 17] = [
        ("snapshot-zfs", "snapshot-zfs", "one `zfs snapshot` with all datasets", None),
        (
            "snapshot-ksnap",
            "snapshot-zfs",
            "`ksnap` with all datasets",
            value("txgs-ksnap").map(|n| format!("{n:.0}")),
        ),
        (
            "snapshot-each",
            "snapshot-zfs",
            "`zfs snapshot`, one by one",
            value("txgs-each").map(|n| format!("{n:.0}")),
        ),
        ("snapshot-sanoid", "snapshot-zfs", "`sanoid --take-snapshots`", None),
        ("list-zfs", "list-zfs", "`zfs list -Hp -t all`", None),
        ("list-kdf", "list-zfs", "`kdf`", None),
        ("list-kdf-json", "list-zfs", "`kdf --json`", None),
        (
            "prune-ksnap",
            "prune-ksnap",
            "`ksnap prune -r --keep 1`, seven of each dataset",
            stall(measured, "prune-ksnap"),
        ),
        (
            "prune-pool",
            "prune-ksnap",
            "`zfs program`, all of them in one transaction group",
            stall(measured, "prune-pool"),
        ),
        ("prune-sanoid", "prune-ksnap", "`sanoid --prune-snapshots`", stall(measured, "prune-sanoid")),
        ("prune-each", "prune-ksnap", "`zfs destroy`, one by one", stall(measured, "prune-each")),
        ("prune-nothing", "prune-nothing", "nothing, 5 seconds", stall(measured, "prune-nothing")),
        (
            "rollback-bare",
            "rollback-bare",
            "`systemctl stop`, `zfs rollback`, `systemctl start`, a query",
            None,
        ),
        ("rollback-ksnap", "rollback-bare", "`ksnap rollback --stop-services`, a query", None),
        ("kst-slowest", "kst-slowest", "the slowest probe of `kst`", None),
        ("kst", "kst-slowest", "`kst`, all probes", None),
        ("start-ksnap", "start-true", "20 times `ksnap --help`; beside 20 times `true`", None),
    ];
    for (name, first, shown, more) in rows {
        let (Some(micros), Some(of)) = (value(name), value(first)) else { continue };
        table.row([
            shown.to_owned(),
            format!("{:.3}", micros / 1e6),
            ratio(micros / of),
            more.unwrap_or_default(),
        ]);
    }
    table
}

fn stall(measured: &Measured, name: &str) -> Option<String> {
    measured.get(&format!("stall-{name}")).map(|micros| format!("{:.3} s", micros / 1e6))
}

/// Milliseconds of starting the program, and `true`, on this machine.
fn starts(program: &Path) -> anyhow::Result<(f64, f64)> {
    let help = Cmd::new(program).args(["snap", "--help"]);
    let nothing = Cmd::new("true");
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (cmd, times) in [(&help, &mut times.0), (&nothing, &mut times.1)] {
            let start = Instant::now();
            cmd.run()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((median(times.0), median(times.1)))
}

/// Milliseconds that `kst` takes on this machine beside its slowest probe. What there is nothing to ask of is a probe, too.
fn beside_probes(program: &Path) -> anyhow::Result<f64> {
    // Whatever it finds wrong with this machine.
    let status = Cmd::new(program).args(["status", "--json"]).accept(1);
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let said: serde_json::Value = serde_json::from_str(&status.stdout_string()?)?;
        let all = start.elapsed().as_secs_f64() * 1e3;
        let probes = said["items"].as_array().context("`kst --json` has no items")?;
        let slowest = probes.iter().filter_map(|probe| probe["milliseconds"].as_f64()).fold(0.0, f64::max);
        times.push(all - slowest);
    }
    Ok(median(times))
}

fn own((help, nothing): &(f64, f64), beside: f64, size: u64) -> Markdown {
    let mut table = Markdown::new(&["on this machine", "", "limit"]);
    table.row(["`ksnap --help`".to_owned(), format!("{help:.2} ms"), "5 ms".to_owned()]);
    table.row([
        "`true`, for what starting a process costs".to_owned(),
        format!("{nothing:.2} ms"),
        String::new(),
    ]);
    table.row(["`kst` beside its slowest probe".to_owned(), format!("{beside:.1} ms"), "50 ms".to_owned()]);
    table.row(["size of the program".to_owned(), mib(size), "15 MiB".to_owned()]);
    table
}

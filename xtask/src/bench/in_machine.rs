//! Plans with nothing to do in real machines: beside the bare tools, and beside Ansible.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};
use kld_vm::{Disk, DiskFormat, Guest, Mac, Nic, Vm};

use super::Args;
use super::table::{Markdown, median, ratio};
use crate::test::inherit;

/// Longer than any machine takes to boot, or Ansible to look, under emulation.
const LIMIT: Duration = Duration::from_secs(3600);
/// How many things the machines have. Ansible looks at the last one only, at the very end: it starts two programs for each
/// file, which takes a quarter of an hour for a hundred things under emulation.
const SIZES: [usize; 2] = [1000, 100];
/// Measures in the machine: lines of a name, microseconds, and how many processes and threads the kernel has made.
const MEASURE: &str = include_str!("in_machine/measure.sh");
/// The same things for Ansible.
const PLAYBOOK: &str = include_str!("in_machine/playbook.yml");

/// Medians of microseconds and of tasks.
type Measured = BTreeMap<String, (f64, f64)>;

pub(super) fn run(printer: &Printer, target: &Path, scratch: &Path, args: &Args) -> anyhow::Result<()> {
    let phases = Phases::new(printer, 3 * SIZES.len());
    let mut table = Markdown::new(&[
        "things in the manifest",
        "",
        "seconds",
        "of the bare tools",
        "processes and threads",
    ]);
    let mut accel = String::new();
    for count in SIZES {
        let phase = phases.start(&format!("build a machine with {count} things"));
        let dir = scratch.join(format!("{count}"));
        Cmd::new(target.join("examples/many")).arg("write").arg(&dir).arg(count.to_string()).run()?;
        std::fs::write(dir.join("measure.sh"), MEASURE)?;
        std::fs::write(dir.join("playbook.yml"), PLAYBOOK)?;
        let image = scratch.join(format!("{count}.img"));
        let build = Cmd::new(target.join("kldload")).args(["build", "--quiet", "--size", "6G", "--output"]);
        inherit(build.arg(&image).arg(dir.join("appliance.manifest"))).run().context("cannot build it")?;
        let tar = scratch.join(format!("{count}.tar"));
        Cmd::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&dir).arg(".").run()?;
        phase.finish();

        let phase = phases.start(&format!("boot it, {count}"));
        let vm = Vm::new()
            .memory_mib(2048)
            .cpus(1)
            .disk(Disk::new(&image, DiskFormat::Raw).overlay().volatile())
            .disk(Disk::new(&tar, DiskFormat::Raw).overlay().volatile())
            .nic(Nic::isolated(Mac::numbered(1)));
        let guest = vm.start().context("cannot start the machine")?;
        guest.wait_control(LIMIT, |step| phase.message(step))?;
        guest.wait_system(LIMIT, |step| phase.message(step))?;
        accel = guest.accel().to_string();
        phase.finish();

        let phase = phases.start(&format!("measure, {count}"));
        guest.run_ok("mkdir -p /root/many && tar -xf /dev/vdb -C /root/many")?;
        let mut measured = measure(&guest, &["tools", &args.runs.max(1).to_string()])?;
        // Said at once: what follows may take long.
        printer.note(&format!("{measured:?}"));
        if count == SIZES[SIZES.len() - 1] {
            phase.message("Ansible");
            measured.extend(measure(&guest, &["ansible"])?);
        }
        guest.cut_power();
        phase.finish();
        rows(&mut table, count, &measured);
    }
    printer.data(&format!("\n{table}\nMedians of {} runs taken in turns; {accel}.\n", args.runs.max(1)))?;
    Ok(())
}

fn measure(guest: &Guest, words: &[&str]) -> anyhow::Result<Measured> {
    let script = format!("bash /root/many/measure.sh {}", words.join(" "));
    let output = guest.run_for(&script, LIMIT)?;
    if !output.is_ok() {
        bail!("it could not be measured: {}\n{}", output.text(), output.error_text());
    }
    let mut samples: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in output.text().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, micros, tasks] = words[..] else { bail!("`{line}` is no measurement") };
        samples.entry(name.to_owned()).or_default().push((micros.parse()?, tasks.parse()?));
    }
    Ok(samples.into_iter().map(|(name, of)| (name, medians(&of))).collect())
}

fn medians(of: &[(f64, f64)]) -> (f64, f64) {
    (median(of.iter().map(|(micros, _)| *micros)), median(of.iter().map(|(_, tasks)| *tasks)))
}

fn rows(table: &mut Markdown, count: usize, measured: &Measured) {
    let bare = measured.get("bare").map_or(f64::NAN, |(micros, _)| *micros);
    for (name, shown) in [
        ("plan", "`kldload plan`"),
        ("bare", "`zfs get`, `dpkg-query`, `systemctl show`, `nft -j`, one after the other"),
        ("zfs", "`zfs get` alone"),
        ("dpkg-query", "`dpkg-query` alone"),
        ("systemctl", "`systemctl show` alone"),
        ("nft", "`nft -j list ruleset` alone"),
        ("check", "`kldload check`"),
        ("ansible", "`ansible-playbook`"),
    ] {
        let Some((micros, tasks)) = measured.get(name) else { continue };
        table.row([
            count.to_string(),
            shown.to_owned(),
            format!("{:.3}", micros / 1e6),
            ratio(micros / bare),
            format!("{tasks:.0}"),
        ]);
    }
}

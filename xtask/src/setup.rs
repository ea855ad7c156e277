//! What this machine needs so that images can be built and booted: said first, then installed.

use std::path::Path;

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Hinted, Phases, Printer};

/// Programs that kldload and its tests run, with the Debian and Ubuntu package of each.
const NEEDED: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    // Without it mmdebstrap mounts no /proc in its trees, and the module does not compile; containers lack it.
    ("mount", "mount"),
    ("newuidmap", "uidmap"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("nft", "nftables"),
    ("wg", "wireguard-tools"),
    ("cc", "gcc"),
    ("mke2fs", "e2fsprogs"),
    ("mksquashfs", "squashfs-tools"),
    ("mkfs.erofs", "erofs-utils"),
    ("fsck.fat", "dosfstools"),
    ("mcopy", "mtools"),
    ("zstd", "zstd"),
];

/// The keys of Debian's archive, which a host of another distribution does not trust by itself.
pub(crate) const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Files that are needed without being programs.
const NEEDED_FILES: &[(&str, &str)] =
    &[("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"), (DEBIAN_KEYRING, "debian-archive-keyring")];

/// QEMU's parts come from one source: mixed versions refuse each other.
const QEMU: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];

/// Installs what is missing.
pub(crate) fn run(printer: &Printer, dry_run: bool) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        printer.note("everything that is needed is installed");
        return Ok(());
    }
    printer.note(&format!("to be installed with apt: {}", missing.join(" ")));
    if dry_run {
        return Ok(());
    }
    install(printer, &missing)
}

fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .chain(NEEDED_FILES.iter().filter(|(file, _)| !Path::new(file).exists()))
        .map(|(_, package)| *package)
        .collect();
    if packages.contains(&"qemu-system-x86") {
        packages.extend(&QEMU[1..]);
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn is_installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}

fn install(printer: &Printer, packages: &[&str]) -> anyhow::Result<()> {
    if !Path::new("/etc/debian_version").exists() {
        let hint = format!("install what these Debian packages hold: {}", packages.join(" "));
        return Err(Hinted::new("cannot install packages: this is neither Debian nor Ubuntu", hint).into());
    }
    let phases = Phases::new(printer, 2);
    let phase = phases.start("read the package lists");
    as_root("apt-get").args(["update", "-q"]).run().context("cannot read the package lists")?;
    phase.finish();

    let phase = phases.start("install packages");
    let (mut qemu, others): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|package| QEMU.contains(package));
    if !others.is_empty() {
        apt_install(&others, None, &phase)?;
    }
    if !qemu.is_empty() {
        // qemu-utils from backports (as some Debian 12 machines have) refuses the older qemu-system of the release.
        let backports = backports_of_qemu_utils()?;
        if let Some(suite) = &backports {
            add_backports(suite)?;
            qemu = QEMU.to_vec();
        }
        apt_install(&qemu, backports.as_deref(), &phase)?;
    }
    phase.finish_with(&packages.join(" "));
    Ok(())
}

/// `bookworm-backports` when the installed qemu-utils came from there.
fn backports_of_qemu_utils() -> anyhow::Result<Option<String>> {
    let version =
        Cmd::new("dpkg-query").args(["-W", "-f", "${Version}", "qemu-utils"]).accept(1).stdout_string()?;
    if !version.contains("~bpo") {
        return Ok(None);
    }
    let release = std::fs::read_to_string("/etc/os-release").context("cannot read `/etc/os-release`")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match codename {
        Some(name) => Ok(Some(format!("{}-backports", name.trim_matches('"')))),
        None => bail!("`/etc/os-release` has no VERSION_CODENAME"),
    }
}

/// Adds the backports suite on the mirror that the machine already uses, unless it is there.
fn add_backports(suite: &str) -> anyhow::Result<()> {
    let known = Cmd::new("apt-cache").args(["policy"]).stdout_string()?;
    if known.contains(&format!("n={suite}")) || known.contains(&format!("a={suite}")) {
        return Ok(());
    }
    let base = suite.trim_end_matches("-backports");
    // `500 URL SUITE/main amd64 Packages`
    let mirror = known
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (url, section) = (words.next()?, words.next()?);
            (section == format!("{base}/main")).then(|| url.to_owned())
        })
        .next()
        .with_context(|| format!("cannot tell which mirror of `{base}` this machine uses"))?;
    let line = format!("deb [signed-by={DEBIAN_KEYRING}] {mirror} {suite} main\n");
    as_root("tee")
        .arg("/etc/apt/sources.list.d/kldload-backports.list")
        .stdin_bytes(line)
        .run()
        .with_context(|| format!("cannot add the suite `{suite}`"))?;
    as_root("apt-get").args(["update", "-q"]).run().context("cannot read the package lists")
}

fn apt_install(packages: &[&str], suite: Option<&str>, phase: &kld_ui::Phase) -> anyhow::Result<()> {
    let mut cmd = as_root("env").args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
    ]);
    if let Some(suite) = suite {
        cmd = cmd.args(["-t", suite]);
    }
    cmd.args(packages)
        .stream(|line| {
            let text = line.text();
            if text.starts_with("Get:") || text.starts_with("Setting up") || text.starts_with("Unpacking") {
                phase.message(text);
            }
        })
        .with_context(|| format!("cannot install {}", packages.join(" ")))
}

/// The command as root: itself, or through sudo that asks nobody.
fn as_root(program: &str) -> Cmd {
    if rustix::process::geteuid().is_root() {
        Cmd::new(program)
    } else {
        Cmd::new("sudo").args(["-n", program])
    }
}

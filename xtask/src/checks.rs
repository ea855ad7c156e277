//! `cargo xtask ci` and `cargo xtask tidy`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};

use crate::test::inherit;
use crate::{generate, test};

/// Which crates of the workspace a crate may use: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("kld-boot", &["kld-disk", "kld-host", "kld-ui"]),
    ("kld-build", &["kld-disk", "kld-host", "kld-pool", "kld-system", "kld-ui"]),
    ("kld-disk", &[]),
    ("kld-engine", &["kld-boot", "kld-host", "kld-manifest", "kld-system", "kld-ui"]),
    ("kld-host", &[]),
    ("kld-manifest", &[]),
    ("kld-node", &["kld-disk", "kld-host", "kld-system", "kld-ui"]),
    ("kld-packages", &["kld-boot", "kld-host"]),
    ("kld-pool", &[]),
    ("kld-snap", &["kld-disk", "kld-host"]),
    ("kld-space", &["kld-host"]),
    ("kld-system", &["kld-manifest"]),
    ("kld-ui", &[]),
    ("kld-vm", &["kld-host"]),
    (
        "kldload",
        &[
            "kld-boot",
            "kld-build",
            "kld-disk",
            "kld-engine",
            "kld-host",
            "kld-manifest",
            "kld-node",
            "kld-packages",
            "kld-pool",
            "kld-snap",
            "kld-space",
            "kld-system",
            "kld-ui",
            "kld-vm",
        ],
    ),
];

/// More lines than this, and a file surely holds a second thing.
const MAX_LINES: usize = 800;

/// Everything a change must pass.
pub(crate) fn ci(printer: &Printer, root: &Path) -> anyhow::Result<()> {
    let phases = Phases::new(printer, 5);
    let cargo = |name: &str, args: &[&str], env: Option<(&str, &str)>| -> anyhow::Result<()> {
        let phase = phases.start(name);
        let mut cmd = inherit(Cmd::new("cargo").cwd(root).args(args));
        if let Some((key, value)) = env {
            cmd = cmd.env(key, value);
        }
        cmd.run_attached().with_context(|| format!("`cargo {}` failed", args.join(" ")))?;
        phase.finish();
        Ok(())
    };
    cargo("format", &["fmt", "--all", "--check"], None)?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], None)?;
    let machines = ["clippy", "--workspace", "--test", "vm", "--", "-D", "warnings"];
    cargo("lints of the tests in machines", &machines, None)?;
    cargo("documentation", &["doc", "--workspace", "--no-deps"], Some(("RUSTDOCFLAGS", "-D warnings")))?;
    let phase = phases.start("licences and advisories");
    if Cmd::new("cargo").args(["deny", "--version"]).timeout(std::time::Duration::from_secs(60)).run().is_ok()
    {
        // Advisories need a database from the network; licences, sources and bans do not.
        let cmd = inherit(Cmd::new("cargo").cwd(root).args(["deny", "check", "licenses", "bans", "sources"]));
        cmd.run_attached().context("`cargo deny` failed")?;
        phase.finish();
    } else {
        phase.finish_with("skipped: cargo-deny is not installed (`cargo install cargo-deny`)");
    }
    drop(phases);
    generate::run(printer, root, true)?;
    test::run(printer, root, &test::Args::default())
}

/// The rules of the workspace that no other tool checks.
pub(crate) fn tidy(printer: &Printer, root: &Path) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    check_arrows(root, &mut faults)?;
    for file in sources(root)? {
        check_source(root, &file, &mut faults)?;
    }
    if faults.is_empty() {
        printer.note("tidy: nothing to mend");
        return Ok(());
    }
    bail!("the workspace is not tidy:\n  {}", faults.join("\n  "))
}

fn check_arrows(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join("crates"))? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = dir.join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let manifest: toml::Table =
            text.parse().with_context(|| format!("cannot parse `{}`", path.display()))?;
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("crates/{name}: no arrow is drawn for it in xtask/src/checks.rs"));
            continue;
        };
        let used = manifest
            .get("dependencies")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flat_map(toml::Table::keys);
        for used in used.filter(|used| used.starts_with("kld") && !allowed.contains(&used.as_str())) {
            faults.push(format!("crates/{name}: must not depend on `{used}`"));
        }
        let lints =
            manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if lints != Some(true) {
            faults.push(format!("crates/{name}: must take the workspace's lints"));
        }
    }
    Ok(())
}

fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = Cmd::new("git")
        .cwd(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .stdout_string()?;
    Ok(list.lines().map(|line| root.join(line)).filter(|path| path.exists()).collect())
}

fn check_source(root: &Path, file: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{shown}: {lines} lines; is there a second thing in it?"));
    }
    if !text.starts_with("//!") && !text.starts_with("#![") {
        faults.push(format!("{shown}: begins without saying what it is (`//!`)"));
    }
    // Tests may start the tools they check against; each says why beside its `allow`.
    let may_start = shown.starts_with("crates/kld-host/") || shown.contains("/tests/");
    for (number, line) in text.lines().enumerate() {
        // Spelt apart, so that this check does not find itself.
        let ignored = concat!("#[", "ignore");
        if line.contains(ignored) {
            faults.push(format!("{shown}:{}: a test that does not run proves nothing", number + 1));
        }
        if !may_start && line.contains(concat!("process::", "Command")) {
            faults.push(format!("{shown}:{}: only kld-host starts processes", number + 1));
        }
    }
    Ok(())
}

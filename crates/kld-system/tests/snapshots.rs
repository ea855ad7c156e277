//! Every file of the two appliances, as it would be written. `UPDATE_EXPECT=1` renews them.

mod appliances;

use std::fmt::Write as _;

use expect_test::expect_file;
use kld_system::{Content, System, explain, known_distros, render, render_core};

/// A system as one text: what a person compares when something changes.
fn whole(system: &System) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string cannot fail");
    line(format!("boot dataset {}", system.boot_dataset));
    for dataset in &system.datasets {
        let properties: Vec<_> =
            dataset.properties.iter().map(|p| format!("{}={}", p.value.0, p.value.1)).collect();
        let owner = dataset
            .owner
            .as_ref()
            .map_or(String::new(), |o| format!(" {}:{} {:04o}", o.user, o.group, o.mode));
        line(format!("dataset {} {:?}{owner} {}", dataset.name, dataset.created, properties.join(" ")));
    }
    for package in &system.packages {
        line(format!("package {}", package.value));
    }
    for user in &system.users {
        line(format!("user {} {} {} {}", user.name, user.uid, user.home, user.shell));
    }
    for unit in &system.units {
        line(format!("unit {} {}", unit.unit, unit.state));
    }
    let args: Vec<_> = system.kernel_args.iter().map(|a| a.value.as_str()).collect();
    line(format!("kernel {}", args.join(" ")));
    for file in &system.files {
        let mode = file.mode.map_or("source".to_owned(), |mode| format!("{mode:04o}"));
        line(format!("\n=== {} {mode} {}:{}", file.path, file.owner.0, file.owner.1));
        match &file.content {
            Content::Text(text) => line(text.trim_end().to_owned()),
            Content::FromManifestDir(source) => line(format!("from {source}")),
            Content::Symlink(target) => line(format!("-> {target}")),
            Content::Directory => line("directory".to_owned()),
        }
    }
    out
}

/// The units of every preset, as systemd reads them.
#[test]
fn presets_are_as_they_were() {
    let system = render(&appliances::presets()).expect("it renders");
    let of_services = |file: &&kld_system::SystemFile| {
        file.because.layer == kld_system::Layer::Services && file.path.starts_with("/etc/systemd/system/")
    };
    let mut page = String::new();
    for file in system.files.iter().filter(of_services) {
        let Content::Text(text) = &file.content else { continue };
        write!(page, "=== {}\n{text}\n", file.path).expect("writing to a string cannot fail");
    }
    expect_file!["snapshots/presets.txt"].assert_eq(&page);
}

/// A service that names the preset it has anyway is the same, but for the line that it comes from.
#[test]
fn the_defaults_are_strict_and_packaged() {
    let text = |manifest: &str, path: &str| {
        let appliance = kld_manifest::check(manifest).appliance.expect("it is good");
        let system = render(&appliance).expect("it renders");
        let file = system.files.into_iter().find(|file| file.path == path).expect("it is there");
        let Content::Text(text) = file.content else { panic!("a unit is text") };
        text
    };
    let named = appliances::PRESETS
        .replace("  - unit: by-default.service\n", "  - unit: by-default.service\n    hardening: strict\n")
        .replace(
            "  - unit: redis-server.service\n",
            "  - unit: redis-server.service\n    hardening: packaged\n",
        );
    for path in ["by-default.service", "redis-server.service.d/50-kldload.conf"] {
        let path = format!("/etc/systemd/system/{path}");
        assert_eq!(text(appliances::PRESETS, &path), text(&named, &path));
    }
}

#[test]
fn webapp() {
    let system = render(&appliances::webapp()).expect("it holds together");
    expect_file!["snapshots/webapp.txt"].assert_eq(&whole(&system));
}

#[test]
fn gitea() {
    let system = render(&appliances::gitea()).expect("it holds together");
    expect_file!["snapshots/gitea.txt"].assert_eq(&whole(&system));
}

#[test]
fn core() {
    let debian = &known_distros()[0];
    expect_file!["snapshots/core.txt"].assert_eq(&whole(&render_core(debian, &appliances::n("rpool"))));
}

#[test]
fn webapp_explained() {
    let system = render(&appliances::webapp()).expect("it holds together");
    let mut out = String::new();
    for row in explain(&system) {
        let line = row.line.map_or("-".to_owned(), |l| l.to_string());
        writeln!(out, "{} | {} | {} | {line} | {}", row.layer, row.item, row.detail, row.reason)
            .expect("writing to a string cannot fail");
    }
    expect_file!["snapshots/webapp-explained.txt"].assert_eq(&out);
}

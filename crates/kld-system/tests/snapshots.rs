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

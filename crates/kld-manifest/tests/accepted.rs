//! Manifests that are accepted: the two of the masterclass as they stand there, and a complete web application.

use expect_test::{expect, expect_file};
use kld_manifest::{Severity, check, render};

const GITEA: &str = include_str!("seed/gitea.manifest");
const TEMPLATE: &str = include_str!("seed/template.manifest");
const WEBAPP: &str = include_str!("accepted/webapp.manifest");

fn shown(text: &str) -> String {
    check(text).diagnostics.iter().map(|d| render("f", text, d)).collect()
}

#[test]
fn the_git_server_is_accepted_as_written() {
    let checked = check(GITEA);
    expect![[""]].assert_eq(&shown(GITEA));
    let appliance = checked.appliance.expect("only warnings");
    expect_file!["accepted/gitea.model"].assert_eq(&format!("{appliance:#?}\n"));
}

#[test]
fn the_template_lists_what_is_to_be_filled_in_and_nothing_else() {
    let checked = check(TEMPLATE);
    assert!(checked.appliance.is_none());
    assert!(checked.diagnostics.iter().all(|d| d.severity == Severity::Placeholder), "{}", shown(TEMPLATE));
    let list: String = checked.diagnostics.iter().map(|d| format!("{}: {}\n", d.span, d.message)).collect();
    expect![[""]].assert_eq(&list);
    let first = &checked.diagnostics[0];
    expect![[""]].assert_eq(&render("appliance.manifest", TEMPLATE, first));
}

#[test]
fn the_web_application_is_accepted() {
    expect![[""]].assert_eq(&shown(WEBAPP));
    let appliance = check(WEBAPP).appliance.expect("no errors");
    expect_file!["accepted/webapp.model"].assert_eq(&format!("{appliance:#?}\n"));
}

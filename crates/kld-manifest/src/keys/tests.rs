//! The table against the parser: every key is explained, and every example is accepted.

use super::{Key, Section};
use crate::reference::sections;

/// Sections that examples refer to; a section of an example replaces the one here.
const BASE: &str = "\
name: webapp
distro: Debian 13
profile: server
zfs_layout:
  rpool/srv/webapp: recordsize=128k
  rpool/srv/webapp-db: recordsize=8k
network_topology:
  eth0: TCP 443 web
  wg0: TCP 8000-8001 web, UDP 8001 game
  wg1: TCP 9100 node_exporter
  wg2: syncoid source
users:
  webapp: system
secrets:
  session-key: generate 32 bytes
services:
  - unit: webapp.service
";

pub(crate) fn every_section() -> Vec<&'static Section> {
    sections()
}

/// One manifest for each key of the section, with the required keys beside it.
pub(crate) fn frames(section: &'static Section) -> Vec<String> {
    section.keys.iter().map(|key| frame(section, key)).collect()
}

fn frame(section: &'static Section, key: &'static Key) -> String {
    let mut body: Vec<&str> = key.example.lines().collect();
    for other in section.keys.iter().filter(|other| other.required && other.name != key.name) {
        // The base has what the top level requires.
        if section.title != super::ROOT.title {
            body.extend(other.example.lines());
        }
    }
    let (before, after) = section.frame.split_once("{}").expect("every frame has a place for the keys");
    let indent =
        before.lines().last().filter(|_| !before.ends_with('\n')).map_or(0, |line| line.chars().count());
    let body = body.join(&format!("\n{}", " ".repeat(indent)));
    merged(&format!("{before}{body}{after}"))
}

/// The base with the top-level sections of `piece` in place of its own.
pub(crate) fn merged(piece: &str) -> String {
    let piece_sections = split(piece);
    let mut text = String::new();
    for (name, lines) in split(BASE) {
        if !piece_sections.iter().any(|(replaced, _)| *replaced == name) {
            text.push_str(&lines);
        }
    }
    text.push_str(piece);
    text
}

fn split(text: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            let name = line.split(':').next().unwrap_or_default().to_owned();
            sections.push((name, String::new()));
        }
        if let Some((_, lines)) = sections.last_mut() {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    sections
}

fn refusals(manifest: &str) -> String {
    let checked = crate::check(manifest);
    let refusals = checked.diagnostics.iter().filter(|d| d.severity != crate::Severity::Warning);
    refusals.map(|d| crate::render("example", manifest, d)).collect()
}

#[test]
fn every_example_is_accepted() {
    let mut refused = String::new();
    for section in every_section() {
        for manifest in frames(section) {
            refused.push_str(&refusals(&manifest));
        }
    }
    assert_eq!(refused, "");
}

#[test]
fn every_shorthand_is_accepted() {
    for section in every_section() {
        for shorthand in section.shorthands {
            let manifest = merged(shorthand);
            assert_eq!(refusals(&manifest), "", "{}\n{manifest}", section.title);
        }
    }
}

#[test]
fn everything_is_explained() {
    for section in every_section() {
        assert!(section.doc.ends_with('.'), "{}", section.title);
        for (at, key) in section.keys.iter().enumerate() {
            assert!(
                key.doc.len() > 5 && key.doc.ends_with('.'),
                "{}: {}: {}",
                section.title,
                key.name,
                key.doc
            );
            assert!(
                key.example.lines().any(|line| line.starts_with(&format!("{}:", key.name))),
                "{}: the example of {} is about something else",
                section.title,
                key.name
            );
            assert!(section.keys[..at].iter().all(|k| k.name != key.name), "{} twice", key.name);
        }
    }
}

//! The reference page of the notation, printed from the table of keys.

use std::fmt::Write as _;

use crate::keys::{Key, Kind, PLANE, ROOT, Section, one_of};

/// Every section and key of a manifest, as a Markdown page.
pub fn reference() -> String {
    let mut page = String::from(
        "# Manifest reference\n\nPrinted from the table of keys that the parser itself reads.\n",
    );
    for section in sections() {
        // Writing to a String cannot fail.
        let _ = write_section(&mut page, section);
    }
    page
}

/// Every section, outer ones first.
pub(crate) fn sections() -> Vec<&'static Section> {
    let mut found: Vec<&'static Section> = vec![&ROOT];
    let mut next = 0;
    while let Some(section) = found.get(next).copied() {
        next += 1;
        let named = (section.title == "wireguard").then_some(&PLANE);
        let inner = section.keys.iter().filter_map(|key| match key.kind {
            Kind::Section(inner) | Kind::Items(inner) | Kind::Map(_, inner) => Some(inner),
            _ => None,
        });
        for inner in named.into_iter().chain(inner) {
            if !found.iter().any(|known| std::ptr::eq(*known, inner)) {
                found.push(inner);
            }
        }
    }
    found
}

fn write_section(page: &mut String, section: &Section) -> std::fmt::Result {
    writeln!(page, "\n## {}\n\n{}\n", section.title, section.doc)?;
    if section.frame != ROOT.frame {
        writeln!(page, "```text\n{}```\n", section.frame.replace("{}", "…"))?;
    }
    if !section.shorthands.is_empty() {
        writeln!(page, "On one line:\n\n```text\n{}```\n", section.shorthands.join("\n"))?;
    }
    writeln!(page, "| key | value | meaning | example |\n|---|---|---|---|")?;
    for key in section.keys {
        let name = if key.required { format!("**`{}`**", key.name) } else { format!("`{}`", key.name) };
        writeln!(page, "| {name} | {} | {} | {} |", cell(&value(key)), cell(key.doc), example(key))?;
    }
    if section.keys.iter().any(|key| key.required) {
        writeln!(page, "\nKeys in bold are required.")?;
    }
    Ok(())
}

fn value(key: &Key) -> String {
    match key.kind {
        Kind::Text(what) => what.to_owned(),
        Kind::Block => "deeper lines below `|`".to_owned(),
        Kind::Checked(rule) => rule.what.to_owned(),
        Kind::Integer { min, max } => format!("{min} to {max}"),
        Kind::Choice(choices) => one_of(choices),
        Kind::Flag => "`yes` or `no`; on one line the word alone".to_owned(),
        Kind::Duration => "a length of time".to_owned(),
        Kind::List(what) => format!("{what}, separated by commas or one per `- ` item"),
        Kind::Section(inner) => format!("see {}", inner.title),
        Kind::Items(inner) => format!("`- ` items, see {}", inner.title),
        Kind::Map(what, inner) => format!("{what}, see {}", inner.title),
        Kind::Pairs(what) => format!("{what}, as `NAME=value` words or `NAME: value` lines"),
    }
}

/// Text in a table: the bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn example(key: &Key) -> String {
    let lines: Vec<String> = key.example.lines().map(|line| format!("`{}`", cell(line))).collect();
    lines.join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_key() {
        let page = reference();
        for section in sections() {
            assert!(page.contains(&format!("\n## {}\n", section.title)), "{}", section.title);
            for key in section.keys {
                assert!(page.contains(&format!("`{}`", key.name)), "{}", key.name);
            }
        }
    }
}

//! Commands of the documentation, with what it shows of each.

/// Lines with a `$` in front, and the lines below each, in order.
pub(crate) fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for block in text.split("```").skip(1).step_by(2) {
        // A block without a command is a file, or an example of something else.
        let mut shown = None;
        for line in block.lines().filter(|line| !line.is_empty()) {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), Vec::new()));
                shown = commands.last_mut().map(|(_, shown)| shown);
            } else if let Some(shown) = &mut shown {
                shown.push(line.to_owned());
            }
        }
    }
    commands
}

/// Whether a line must be said word for word: tables and errors are compared by other means.
pub(crate) fn is_plain(line: &str) -> bool {
    !line.trim_start().contains("  ") && !line.starts_with("error: ")
}

/// How what a command has said differs from what its page shows, numbers and the width of columns apart. `…` stands for any
/// lines; a page that shows nothing says nothing.
pub(crate) fn misfit(command: &str, shown: &[String], said: &str) -> Option<String> {
    let wanted: Vec<String> = shown.iter().map(|line| still(line)).collect();
    let got: Vec<String> = said.lines().filter(|line| !line.is_empty()).map(still).collect();
    let fits = shown.is_empty() || fits(&wanted, &got);
    (!fits).then(|| {
        format!("$ {command}\n{}\nis said, and shown is\n{}\n", got.join("\n"), wanted.join("\n")) + said
    })
}

fn fits(wanted: &[String], got: &[String]) -> bool {
    match wanted.split_first() {
        None => got.is_empty(),
        Some((line, rest)) if line == "…" => (0..=got.len()).any(|skipped| fits(rest, &got[skipped..])),
        Some((line, rest)) => {
            got.split_first().is_some_and(|(first, more)| first == line && fits(rest, more))
        }
    }
}

/// A line in which every number is 0, whatever its unit: sizes, times and their like differ from machine to machine.
fn still(line: &str) -> String {
    line.split_whitespace().map(still_word).filter(|word| !is_unit(word)).collect::<Vec<_>>().join(" ")
}

fn is_unit(word: &str) -> bool {
    let word = word.trim_end_matches([',', ';', ')']);
    matches!(word, "s" | "min" | "h" | "days")
}

fn still_word(word: &str) -> String {
    if word.starts_with("0x") {
        return "0x0".to_owned();
    }
    let mut still = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let number = rest[at..]
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len() - at);
        still.push_str(&rest[..at]);
        still.push('0');
        rest = &rest[at + number..];
        // `44.5M`, `9m`: a unit is one letter that no other follows.
        let after = rest.strip_prefix(['B', 'K', 'M', 'G', 'T', 's', 'm', 'h', 'd']);
        rest =
            after.filter(|after| !after.starts_with(|letter: char| letter.is_alphanumeric())).unwrap_or(rest);
    }
    still + rest
}

#[test]
fn what_differs_from_machine_to_machine_is_put_out() {
    for (line, want) in [
        ("  webapp-db  44.3M  3.79G   160K  3  2.62x  +96K/9m", "webapp-db 0 0 0 0 0x +0/0"),
        ("rpool/srv@nightly-20261127-091215", "rpool/srv@nightly-0-0"),
        ("scrub of rpool found no errors 24 h ago", "scrub of rpool found no errors 0 ago"),
        ("0x04030201 in 1 boot entries, 1.00x", "0x0 in 0 boot entries, 0x"),
        ("10min 3Mbit postgresql@17-main.service", "0min 0Mbit postgresql@0-main.service"),
    ] {
        assert_eq!(still(line), want);
    }
    let shown = ["a 1", "…", "b"].map(str::to_owned);
    for (said, fits) in [("a 7\n\nb", true), ("a 7\nmore\nb\nb", true), ("a 7\nmore", false), ("b", false)] {
        assert_eq!(misfit("x", &shown, said).is_none(), fits, "{said}");
    }
    let page = "a\n```\n$ one\nsaid\n\n$ two\n```\n```\nno: command\n```\n";
    assert_eq!(commands(page), [("one".to_owned(), vec!["said".to_owned()]), ("two".to_owned(), Vec::new())]);
}

//! What holds for every text.

use kld_manifest::{Severity, check, render};
use proptest::prelude::*;

const SEEDS: [&str; 4] = [
    include_str!("seed/gitea.manifest"),
    include_str!("seed/template.manifest"),
    include_str!("accepted/webapp.manifest"),
    include_str!("broken/cases.txt"),
];

/// Checks, shows every finding, and looks at what must hold of the answer.
fn examine(text: &str) {
    let checked = check(text);
    let refused = checked.diagnostics.iter().any(|d| d.severity != Severity::Warning);
    assert_eq!(checked.appliance.is_none(), refused);
    assert!(checked.diagnostics.is_sorted_by_key(|d| d.span));
    let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    for d in &checked.diagnostics {
        if d.span.is_written() {
            let width = lines[d.span.line as usize - 1];
            // The end of a line may be pointed at, one character behind the last.
            assert!((d.span.column + d.span.length) as usize <= width + 2, "{d:?}");
        }
        render("f", text, d);
    }
}

/// A seed with some of its characters replaced, removed or doubled.
fn damaged() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..4_u8, "[ \\t\\n:\"'|<>#/,=(){}$0-9a-z-é—-]{0,3}");
    (prop::sample::select(SEEDS.to_vec()), prop::collection::vec(edit, 1..8)).prop_map(|(seed, edits)| {
        let mut chars: Vec<char> = seed.chars().collect();
        for (at, kind, text) in edits {
            let at = at.index(chars.len());
            match kind {
                0 => drop(chars.remove(at)),
                1 => chars.truncate(at.max(40)),
                _ => drop(chars.splice(at..at, text.chars())),
            }
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(text in "(\\PC|\\n|\\t|\\r| ){0,300}") {
        examine(&text);
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        examine(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_damaged_manifest_gets_an_answer(text in damaged()) {
        examine(&text);
    }

    #[test]
    fn line_endings_and_a_byte_order_mark_change_nothing(text in damaged()) {
        let text = text.replace('\r', "");
        let plain = check(&text);
        prop_assert_eq!(&plain, &check(&text.replace('\n', "\r\n")));
        prop_assert_eq!(&plain, &check(&format!("\u{feff}{text}")));
    }
}

#[test]
fn large_inputs_are_answered() {
    for text in ["a".repeat(1 << 20), "- ".repeat(1 << 19), "a: b\n".repeat(1 << 12), "\"".repeat(1 << 20)] {
        examine(&text);
    }
}

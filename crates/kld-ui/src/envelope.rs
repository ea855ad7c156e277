//! The one JSON shape of all commands: `{"version":1,"kind":"…","items":[…]}`.

use serde::Serialize;

/// Raised when a field of the envelope or of any item changes its meaning or goes away; new fields do not raise it.
pub const ENVELOPE_VERSION: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, T> {
    version: u32,
    kind: &'a str,
    items: &'a [T],
}

/// One JSON document, two-space indented, without a final newline. `kind` names what an item is: `dataset`,
/// `diagnostic`, `probe`.
///
/// # Errors
/// When an item cannot be written as JSON: a map whose keys are not strings.
pub fn render_envelope<T: Serialize>(kind: &str, items: &[T]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Envelope { version: ENVELOPE_VERSION, kind, items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn holds_version_kind_items_in_this_order() {
        expect![[r#"
            {
              "version": 1,
              "kind": "port",
              "items": [
                51820
              ]
            }"#]]
        .assert_eq(&render_envelope("port", &[51820]).expect("numbers are JSON"));
        expect![[r#"
            {
              "version": 1,
              "kind": "port",
              "items": []
            }"#]]
        .assert_eq(&render_envelope::<u8>("port", &[]).expect("nothing is JSON"));
    }
}

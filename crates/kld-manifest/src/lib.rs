//! Manifest text → [`Appliance`]: one checked model, with the place of every value.
//!
//! ```text
//! text ──syntax──▶ tree with places ──lower──▶ draft ──consistency──▶ Appliance ──advice──▶ warnings
//!                                      ▲
//!                    keys: every key once ──▶ schema(), reference()
//! ```
//!
//! [`check`] is pure and total: any text gives an answer, everything wrong is told at once, and each finding names its
//! line, its words and what to do. [`render`] shows a finding to a person.

mod advice;
mod consistency;
mod diagnostic;
mod digest;
mod directives;
mod keys;
mod lower;
pub mod model;
pub mod names;
mod nearest;
mod normal;
mod preset;
mod reference;
mod schema;
mod span;
mod syntax;
mod text;
mod values;

pub use diagnostic::{Diagnostic, Severity, render};
pub use digest::{NotADigest, Sha256};
pub use directives::since as systemd_since;
pub use model::Appliance;
pub use reference::reference;
pub use schema::schema;
pub use span::{Span, Spanned};

/// What [`check`] found out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// The model; `None` when an error or a placeholder stands in its way.
    pub appliance: Option<Appliance>,
    /// Everything there is to say, by line.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a manifest.
///
/// Takes any text (a byte-order mark and CRLF line ends are fine), never panics, and depends on nothing but the text.
/// Warnings are given once no error is left: advice about half a manifest would be noise.
pub fn check(text: &str) -> Checked {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = diagnostic::Reporter::default();
    let nodes = syntax::parse(text, &mut report);
    let draft = lower::lower(nodes, &mut report);
    consistency::check(&draft, &mut report);
    let at_rest = draft.at_rest;
    let appliance = if report.refuses() { None } else { draft.finish() };
    if let Some(appliance) = &appliance {
        advice::advise(appliance, at_rest, &mut report);
    }
    Checked { appliance, diagnostics: report.finish() }
}

//! `upgrade_procedure`, `dr_procedure` and `verify`.

use std::time::Duration;

use super::fields::{Fields, impossible, items, no_deeper_lines};
use super::steps;
use crate::diagnostic::Reporter;
use crate::keys::{PROCEDURE, STEP, VERIFY};
use crate::model::{Procedure, Step, StepAction, StepRole, Verify};
use crate::span::Spanned;
use crate::syntax::{Marker, Node};
use crate::text::Text;
use crate::values::parse_duration;

/// Numbered steps and targets, or the structured form.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Procedure {
    super::fields::no_value(node, report);
    let mut procedure = Procedure::default();
    let mut keyed = Vec::new();
    let mut last = 0;
    for line in &node.children {
        if let Marker::Step(number) = line.marker {
            no_deeper_lines(line, report);
            if number != last + 1 {
                let message = format!("step {number} stands where step {} is expected", last + 1);
                report.error("step-number", line.text.span(), message).hint("number the steps 1, 2, 3, …");
            }
            last = number;
        }
        if line.marker == Marker::Item || line.pending {
            if line.marker == Marker::Item {
                report
                    .error("expected-step", line.text.span(), "a numbered step is wanted here")
                    .hint("write `1. …`, or `steps:` with `- text: …` below");
            }
            continue;
        }
        if let Some(targets) = targets(line.text) {
            no_deeper_lines(line, report);
            for (name, value) in targets {
                target(name, value, &mut procedure, report);
            }
        } else if matches!(line.marker, Marker::Step(_)) {
            procedure.steps.push(step(line.text));
        } else {
            keyed.push(line.clone());
        }
    }
    let fields = Fields::read(&PROCEDURE, node.span(), keyed, report);
    if let Some(rto) = fields.duration("rto", report) {
        procedure.rto = Some(rto);
    }
    if let Some(rpo) = fields.duration("rpo", report) {
        procedure.rpo = Some(rpo);
    }
    if let Some(steps) = fields.node("steps") {
        for item in items(steps, report) {
            procedure.steps.extend(structured_step(item, report));
        }
    }
    procedure
}

/// The keys of which a structured step has exactly one.
const KINDS: [&str; 4] = ["text", "command", "verify", "ask"];

fn step(text: Text<'_>) -> Step {
    let (role, action) = steps::read(text.as_str());
    Step { text: text.with(text.as_str().to_owned()), role, action, timeout: None }
}

/// One step, and the branch that its `if_failed` stands for.
fn structured_step(item: &Node<'_>, report: &mut Reporter) -> Vec<Step> {
    let fields = Fields::of(&STEP, item, report);
    let flag = fields.flag("on_failure", report);
    let timeout = fields.duration("timeout", report);
    if let Some(zero) = timeout.as_ref().filter(|timeout| timeout.value.is_zero()) {
        report.error("impossible-value", zero.span, "no step ends in no time").hint("for example `10m`");
    }
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| fields.has(kind)).collect();
    let branch = fields.text("if_failed", report).map(|text| Step {
        text: text.with(format!("If failed: {}", text.unquoted())),
        role: StepRole::Branch,
        action: steps::action(&text.unquoted()),
        timeout: None,
    });
    let [kind] = kinds.as_slice() else {
        // A line that is not understood may be the one that is missing.
        if kinds.len() > 1 || fields.is_complete() && !item.any_pending() {
            report
                .error(
                    "step-not-understood",
                    fields.owner(),
                    "a step has one of `text`, `command`, `verify` and `ask`",
                )
                .hint("for example `command: zpool import tank`");
        }
        return Vec::new();
    };
    let Some(text) = fields.text(kind, report) else { return Vec::new() };
    let words = text.unquoted();
    let (shown, (role, action)) = match *kind {
        "command" => (words.clone(), (StepRole::Work, StepAction::Run(words))),
        "ask" => (words.clone(), (StepRole::Work, StepAction::Ask(words))),
        "verify" => (format!("Verify: {words}"), (StepRole::Proof, steps::action(&words))),
        _ => (words.clone(), steps::read(&words)),
    };
    let role = match flag.map(|flag| flag.value) {
        Some(true) => StepRole::Branch,
        Some(false) if role == StepRole::Branch => StepRole::Work,
        _ => role,
    };
    let step = Step { text: text.with(shown), role, action, timeout: timeout.map(|timeout| timeout.value) };
    [step].into_iter().chain(branch).collect()
}

/// `RTO: 8 minutes  RPO: 24 hours`, `RTO target: …`: each name with what follows it. Written in capitals; `rto:` in
/// small letters is the structured form.
fn targets(line: Text<'_>) -> Option<Vec<(Text<'_>, Text<'_>)>> {
    const LABELS: [&str; 4] = ["RTO target:", "RPO target:", "RTO:", "RPO:"];
    let text = line.as_str();
    if !LABELS.iter().any(|label| text.starts_with(label)) {
        return None;
    }
    let mut starts: Vec<(usize, usize)> = Vec::new();
    for label in LABELS {
        starts.extend(text.match_indices(label).map(|(at, label)| (at, at + label.len())));
    }
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let parts = starts.iter().zip(ends);
    Some(
        parts
            .map(|((from, label), to)| (line.slice(*from, *from + 3), line.slice(*label, to).trim()))
            .collect(),
    )
}

fn target(name: Text<'_>, value: Text<'_>, procedure: &mut Procedure, report: &mut Reporter) {
    let value = match value.as_str().strip_suffix([',', ';']) {
        Some(shorter) => value.slice(0, shorter.len()).trim(),
        None => value,
    };
    if value.is_empty() {
        report.error("missing-value", name.span(), format!("`{}` has no value", name.as_str()));
        return;
    }
    match parse_duration(value.as_str()) {
        Ok(duration) => {
            let place = if name.as_str() == "RTO" { &mut procedure.rto } else { &mut procedure.rpo };
            if let Some(first) = place {
                report
                    .error("duplicate-key", name.span(), format!("`{}` is written twice", name.as_str()))
                    .related(first.span, "first written here");
                return;
            }
            *place = Some(value.with(duration));
        }
        Err(wrong) => impossible(name.as_str(), value, wrong, report),
    }
}

/// The proofs, in the order written.
pub(super) fn lower_verify(node: &Node<'_>, report: &mut Reporter) -> Vec<Verify> {
    super::fields::no_value(node, report);
    let mut proofs: Vec<Verify> = Vec::new();
    for item in items(node, report) {
        let fields = Fields::of(&VERIFY, item, report);
        let name = fields.string("name", report);
        let command = fields.string("command", report);
        let expect = fields.string("expect", report);
        let timeout = fields.duration("timeout", report);
        if let Some(zero) = timeout.as_ref().filter(|timeout| timeout.value.is_zero()) {
            report
                .error("impossible-value", zero.span, "no command ends in no time")
                .hint("for example `10s`");
        }
        let Some((name, command)) = name.zip(command) else { continue };
        if let Some(first) = proofs.iter().find(|proof| proof.name.value == name.value) {
            report
                .error("duplicate-value", name.span, format!("`{}` is proven twice", name.value))
                .hint("give each proof a name of its own")
                .related(first.name.span, "first proven here");
            continue;
        }
        let timeout = timeout.map_or(Duration::from_secs(10), |timeout| timeout.value);
        proofs.push(Verify { name, command: Spanned::new(command.value, command.span), expect, timeout });
    }
    proofs
}

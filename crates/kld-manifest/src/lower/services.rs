//! `services`.

use super::fields::{Fields, impossible, items, no_value, parse_name, plain_item};
use super::paths;
use crate::diagnostic::Reporter;
use crate::directives::{DIRECTIVES, PRESET, words_of};
use crate::keys::SERVICE;
use crate::model::{Directive, Preset, Service};
use crate::names::{UnitName, UserName};
use crate::nearest::did_you_mean;
use crate::span::{Span, Spanned};
use crate::syntax::{Marker, Node};
use crate::text::Text;
use crate::values::{self, Wrong};

/// The services, in the order written. An item without a readable unit is left out.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Vec<Service> {
    no_value(node, report);
    let mut services: Vec<Service> = Vec::new();
    for item in items(node, report) {
        let Some(service) = service(item, report) else { continue };
        if let Some(first) = services.iter().find(|s| s.unit.value == service.unit.value) {
            report
                .error(
                    "unit-twice",
                    service.unit.span,
                    format!("`{}` is described twice", service.unit.value),
                )
                .related(first.unit.span, "first described here");
            continue;
        }
        services.push(service);
    }
    services
}

fn service(item: &Node<'_>, report: &mut Reporter) -> Option<Service> {
    let fields = Fields::of(&SERVICE, item, report);
    let unit = unit(&fields, report);
    let command = command_line("command", &fields, report);
    let datasets = names(&fields, "dataset", report);
    let [before_snapshot, after_snapshot] = ["before_snapshot", "after_snapshot"].map(|key| {
        let command = command_line(key, &fields, report)?;
        if datasets.is_empty() {
            report
                .error(
                    "hook-without-dataset",
                    command.span,
                    format!("`{key}` of a service without a dataset"),
                )
                .hint("`dataset:` says which snapshots it is for");
        }
        Some(command)
    });
    let setup = commands(&fields, report);
    let mut hardening = pairs(&fields, "hardening", report);
    let preset = preset(&mut hardening, report);
    hardening.retain(|directive| check_directive(directive, report));
    let user = user(&fields, &mut hardening, report);
    if let (Some(preset), Some(user)) = (&preset, &user)
        && preset.value == Preset::ContainerHost
    {
        report
            .error("container-host-user", user.span, "`container-host` is for services that run as root")
            .hint("podman without root needs set-user-id programs, which no preset lets it start; leave the account out")
            .related(preset.span, "chosen here");
    }
    let writes =
        fields.list("writes", report).into_iter().filter_map(|word| writable(word, report)).collect();
    let after = names(&fields, "after", report);
    for unit in &after {
        let unit: &Spanned<UnitName> = unit;
        if !unit.as_str().contains('.') {
            report
                .error("invalid-name", unit.span, format!("`{}` has no unit type", unit.value))
                .hint(format!("write `{}.service`", unit.value));
        }
    }
    Some(Service {
        command,
        setup,
        before_snapshot,
        after_snapshot,
        user,
        listens: super::listens::listens(&fields, report),
        datasets,
        writes,
        preset,
        hardening,
        after,
        environment: environment(&fields, report),
        secrets: names(&fields, "secrets", report),
        max_exposure_tenths: fields.text("max_exposure", report).and_then(|text| {
            crate::keys::parse_exposure(text.bare().as_str()).ok().map(|tenths| text.with(tenths))
        }),
        unit: unit?,
    })
}

fn unit(fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<UnitName>> {
    let unit = fields.parsed::<UnitName>("unit", report)?;
    let stem = unit.as_str().strip_suffix(".service");
    if stem.is_none_or(|stem| stem.is_empty() || stem.starts_with('.')) {
        let hint = if unit.as_str().contains('.') {
            "only services are described in a manifest".to_owned()
        } else {
            format!("write `{}.service`", unit.value)
        };
        report.error("invalid-name", unit.span, format!("`{}` is not a service", unit.value)).hint(hint);
    }
    Some(unit)
}

/// A command line that systemd can start.
fn command_line(key: &str, fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<String>> {
    fields.string(key, report).filter(|command| {
        let good = check_command(&command.value);
        if let Err(wrong) = &good {
            let word = Spanned::new(first_word(&command.value), first_word_span(command));
            let message = format!("`{}` cannot be started: {}", word.value, wrong.reason);
            report.error("relative-command", word.span, message).maybe_hint(wrong.hint.clone());
        }
        good.is_ok()
    })
}

fn first_word(command: &str) -> String {
    command.split_whitespace().next().unwrap_or_default().to_owned()
}

fn first_word_span(command: &Spanned<String>) -> Span {
    let length = command.value.split_whitespace().next().map_or(1, |word| word.chars().count());
    Span { length: crate::text::saturated(length).min(command.span.length).max(1), ..command.span }
}

/// systemd.service(5): the program of `ExecStart=` is an absolute path. The prefixes `@ - : + !` are not taken: some of
/// them switch the sandbox off.
fn check_command(command: &str) -> Result<(), Wrong> {
    let program = command.split_whitespace().next().unwrap_or_default();
    if program.starts_with('/') {
        return paths::check_absolute(program);
    }
    let bare = program.trim_start_matches(['@', '-', ':', '+', '!']);
    if bare.len() < program.len() && bare.starts_with('/') {
        return Err(Wrong::because("systemd's prefixes are not taken, some switch the sandbox off")
            .hint(format!("write `{bare}`")));
    }
    Err(Wrong::because("systemd starts programs by absolute path")
        .hint(format!("for example `/usr/bin/{bare}`")))
}

/// Commands, each a whole line: commas mean nothing here.
fn commands(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Spanned<String>> {
    let Some(node) = fields.node("setup") else { return Vec::new() };
    let mut lines: Vec<Text<'_>> = node.value.into_iter().collect();
    lines.extend(items(node, report).into_iter().filter_map(|item| plain_item(item, report)));
    if lines.is_empty() && !node.any_pending() && node.children.is_empty() {
        report.error("missing-value", node.span(), "`setup` is empty");
    }
    lines.into_iter().map(|line| line.with(line.unquoted())).collect()
}

/// `NAME=value` words and nested `NAME: value` lines; a bare word is `yes`.
fn pairs(fields: &Fields<'_>, name: &str, report: &mut Reporter) -> Vec<Directive> {
    let Some(node) = fields.node(name) else { return Vec::new() };
    let mut pairs: Vec<Directive> = Vec::new();
    for entry in node.properties().iter().chain(&node.children) {
        let Some(key) = entry.key.filter(|_| matches!(entry.marker, Marker::Line | Marker::Property)) else {
            if !entry.any_pending() {
                report.error("expected-key", entry.text.span(), "`NAME: value` is wanted here");
            }
            continue;
        };
        if entry.pending {
            continue;
        }
        super::fields::no_deeper_lines(entry, report);
        if let Some(value) =
            entry.value.filter(|v| entry.marker == Marker::Property && v.as_str().ends_with(','))
        {
            report
                .error("impossible-value", value.span(), format!("`{}` ends with a comma", value.as_str()))
                .hint(format!(
                    "separate them with spaces; a comma that is meant stands in quotes: `\"{}\"`",
                    value.as_str()
                ));
            continue;
        }
        let mut pair_name = key.as_str();
        let value = match (entry.value, entry.marker) {
            (Some(value), _) => value.unquoted(),
            // `web` alone: directives begin with a capital.
            (None, Marker::Property) if name == "hardening" && pair_name.starts_with(char::is_lowercase) => {
                std::mem::replace(&mut pair_name, PRESET).to_owned()
            }
            // `NoNewPrivileges` alone.
            (None, Marker::Property) if name == "hardening" => "yes".to_owned(),
            (None, _) => {
                report
                    .error("missing-value", key.span(), format!("`{}` has no value", key.as_str()))
                    .hint(format!("write `{}=value`", key.as_str()));
                continue;
            }
        };
        if let Some(first) = pairs.iter().find(|pair| pair.name == pair_name) {
            report
                .error("duplicate-key", key.span(), format!("`{pair_name}` is written twice"))
                .related(first.span, "first written here");
            continue;
        }
        pairs.push(Directive { name: pair_name.to_owned(), value, span: entry.text.span() });
    }
    pairs
}

/// The preset among them.
fn preset(hardening: &mut Vec<Directive>, report: &mut Reporter) -> Option<Spanned<Preset>> {
    let at = hardening.iter().position(|directive| directive.name == PRESET)?;
    let Directive { value, span, .. } = hardening.remove(at);
    match Preset::named(&value) {
        Ok(preset) => Some(Spanned::new(preset, span)),
        Err(Wrong { reason, hint }) => {
            report.error("unknown-preset", span, reason).maybe_hint(hint);
            None
        }
    }
}

fn check_directive(directive: &Directive, report: &mut Reporter) -> bool {
    let Directive { name, value, span } = directive;
    let name_span = Span { length: crate::text::saturated(name.chars().count()).max(1), ..*span };
    if !DIRECTIVES.contains(&name.as_str()) {
        let near = did_you_mean(name, DIRECTIVES.iter().copied());
        let hint = near.unwrap_or_else(|| "see the sandboxing section of systemd.exec(5)".to_owned());
        report
            .error("unknown-directive", name_span, format!("systemd has no hardening directive `{name}`"))
            .hint(hint);
        return false;
    }
    if let Some(words) = words_of(name)
        && values::parse_flag(value).is_err()
        && !words.contains(&value.as_str())
    {
        let words: Vec<&str> = words.iter().copied().chain(["yes", "no"]).collect();
        report
            .error("impossible-value", *span, format!("`{value}` is not a possible `{name}`"))
            .hint(format!("it takes {}", crate::keys::one_of(&words)));
        return false;
    }
    true
}

/// The account: `user:`, or `User=` among the directives, as in the masterclass's example.
fn user(
    fields: &Fields<'_>,
    hardening: &mut Vec<Directive>,
    report: &mut Reporter,
) -> Option<Spanned<UserName>> {
    let written = fields.parsed::<UserName>("user", report);
    let Some(at) = hardening.iter().position(|directive| directive.name == "User") else { return written };
    let directive = hardening.remove(at);
    let user = match directive.value.parse::<UserName>() {
        Ok(user) => Spanned::new(user, directive.span),
        Err(error) => {
            report.error("invalid-name", directive.span, error.to_string());
            return written;
        }
    };
    match written {
        Some(written) if written.value != user.value => {
            report
                .error(
                    "user-twice",
                    user.span,
                    format!("`User={}` contradicts `user: {}`", user.value, written.value),
                )
                .hint("write the account once")
                .related(written.span, "the other account");
            Some(written)
        }
        Some(written) => Some(written),
        None => Some(user),
    }
}

fn writable(word: Text<'_>, report: &mut Reporter) -> Option<Spanned<String>> {
    const PARENTS: [&str; 4] = ["/run", "/var/lib", "/var/log", "/var/cache"];
    let path = word.as_str();
    let result = paths::check_absolute(path).and_then(|()| {
        if PARENTS.iter().any(|parent| path != *parent && paths::is_at_or_below(path, parent)) {
            return Ok(());
        }
        Err(Wrong::because(
            "a service writes to its dataset, and below /run, /var/lib, /var/log or /var/cache",
        )
        .hint("give the service a dataset"))
    });
    match result {
        Ok(()) => Some(word.with(path.to_owned())),
        Err(wrong) => {
            impossible("writes", word, wrong, report);
            None
        }
    }
}

/// Variable names as a shell takes them.
pub(super) fn environment(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Directive> {
    let mut pairs = pairs(fields, "environment", report);
    pairs.retain(|pair| {
        let name = pair.name.as_str();
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let span = Span { length: crate::text::saturated(name.chars().count()).max(1), ..pair.span };
            report
                .error("invalid-name", span, format!("`{name}` is not a name for an environment variable"))
                .hint("letters, digits and `_`, no digit first; separate variables with spaces");
        }
        good
    });
    pairs
}

/// Names of one kind, each once.
pub(super) fn names<T>(fields: &Fields<'_>, key: &str, report: &mut Reporter) -> Vec<Spanned<T>>
where
    T: std::str::FromStr<Err: std::fmt::Display> + PartialEq,
{
    let mut names: Vec<Spanned<T>> = Vec::new();
    for word in fields.list(key, report) {
        let Some(name) = parse_name::<T>(word, report) else { continue };
        match names.iter().find(|n| n.value == name.value) {
            Some(first) => {
                report
                    .error("duplicate-value", name.span, format!("`{}` is named twice", word.as_str()))
                    .related(first.span, "first named here");
            }
            None => names.push(name),
        }
    }
    names
}

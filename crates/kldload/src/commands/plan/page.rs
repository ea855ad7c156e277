//! A plan for people: what changes, under the part of the machine that asked for it.

use std::fmt::Write as _;

use kld_engine::{Action, Cause, Exposure, OffLock, Plan, Step};
use kld_host::systemd::shown_exposure;
use kld_ui::ByteSize;

use crate::commands::history::numbers;

/// Columns that a name takes at most before what is said of it moves on.
const NAME: usize = 48;
/// How many packages are named that nothing happens to: a machine that was upgraded has hundreds.
const SHOWN: usize = 10;

/// A plan as a page.
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = title(plan);
    section(&mut text, "first, for the journal, and to stay", &plan.memory.iter().collect::<Vec<_>>());
    let steps = |cause| plan.steps.iter().filter(move |step| step.cause == cause);
    let told = |cause| plan.restarts.iter().filter(move |step| step.cause == cause);
    for (layer, steps) in by_layer(steps(Cause::Wish)) {
        section(&mut text, layer, &steps);
    }
    let drift = match plan.undoes.is_empty() {
        true => "changed by hand since the last apply, and put back",
        false => "changed by hand since: goes back with `--overwrite` only, and what is there now is kept",
    };
    section(&mut text, drift, &steps(Cause::Drift).chain(told(Cause::Drift)).collect::<Vec<_>>());
    section(&mut text, "then", &told(Cause::Wish).collect::<Vec<_>>());
    exposures(&mut text, &plan.exposures);
    if !plan.at_start.is_empty() {
        let _ = writeln!(text, "\nnot done by an apply, because the machine starts from it: reboot");
        for item in &plan.at_start {
            let line = item.because.line.map_or_else(String::new, |line| format!("  (line {line})"));
            let _ = writeln!(text, "    {} {}{line}", item.kind, item.name);
            let _ = writeln!(text, "      {}", item.because.reason);
            let _ = writeln!(text, "      {}", item.with);
        }
    }
    off_lock(&mut text, &plan.off_lock);
    if !plan.left.is_empty() {
        let title = match plan.undoes.is_empty() {
            true => "no longer in the manifest, and left alone",
            false => "stays, because others may need it by now",
        };
        let _ = writeln!(text, "\n{title}");
        for left in &plan.left {
            let _ = writeln!(text, "    {} {}", left.kind, left.name);
            let _ = writeln!(text, "      {}", left.remove_with);
        }
    }
    text
}

fn title(plan: &Plan) -> String {
    let taken_back = match plan.undoes.is_empty() {
        true => String::new(),
        false => format!("{} taken back, ", numbers(&plan.undoes)),
    };
    if plan.is_empty() {
        let end = if plan.undoes.is_empty() { "as the manifest says, " } else { taken_back.as_str() };
        return format!("{}: {end}nothing to do\n", plan.machine);
    }
    let told_first = plan.steps.iter().filter(|step| step.kind == "service").count();
    let counted =
        |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let takes = match plan.takes {
        0 => String::new(),
        bytes => format!("; takes about {}", ByteSize(bytes)),
    };
    format!(
        "{}: {taken_back}{}, then {}{takes}{}\n",
        plan.machine,
        counted(plan.steps.len() - told_first, "change", "changes"),
        counted(told_first + plan.restarts.len(), "service is told", "services are told"),
        if plan.needs_reboot() { "; in use after a reboot" } else { "" }
    )
}

/// Steps under what asked for them; those that come first have their part first. Packages come in one step, whoever asked.
fn by_layer<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<(&'a str, Vec<&'a Step>)> {
    let mut parts: Vec<(&str, Vec<&Step>)> = Vec::new();
    for step in steps {
        let of = match step.kind.as_str() {
            "package" => "packages",
            "service" => "first",
            _ => step.because.layer.as_str(),
        };
        match parts.iter_mut().find(|(part, _)| *part == of) {
            Some((_, steps)) => steps.push(step),
            None => parts.push((of, vec![step])),
        }
    }
    parts
}

fn section(text: &mut String, title: &str, steps: &[&Step]) {
    if steps.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default().min(NAME);
    for (number, step) in steps.iter().enumerate() {
        let sign = match step.action {
            _ if step.kind == "service" => ' ',
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        let line = step.because.line.map(|line| format!("line {line}"));
        let facts = line.into_iter().chain(step.interrupts.map(|interrupts| interrupts.to_string()));
        let facts = facts.collect::<Vec<_>>().join(", ");
        let facts = if facts.is_empty() { facts } else { format!("  ({facts})") };
        let _ = writeln!(text, "  {sign} {:8} {:width$}  {}{facts}", step.kind, step.name, step.summary);
        // Once for several that have it in common.
        let next = steps.get(number + 1).filter(|next| next.because == step.because);
        if let Some(reason) = reason(step).filter(|_| next.is_none() || !step.notes.is_empty()) {
            let _ = writeln!(text, "             {reason}");
        }
        for note in &step.notes {
            let _ = writeln!(text, "             {note}");
        }
    }
}

/// Why, unless the line of the manifest says all of it.
fn reason(step: &Step) -> Option<String> {
    let because = &step.because;
    if step.kind == "service" {
        return Some(format!("because {}", because.reason));
    }
    let says_more = because.line.is_none() || because.reason != "asked for in the manifest";
    says_more.then(|| because.reason.clone())
}

fn exposures(text: &mut String, all: &[Exposure]) {
    // Of a unit that its package has yet to bring nothing is known.
    let known: Vec<_> = all.iter().filter(|of| of.now.or(of.then).is_some()).collect();
    if known.is_empty() {
        return;
    }
    let tenths = |tenths: Option<u8>| tenths.map_or_else(|| "–".to_owned(), shown_exposure);
    let _ = writeln!(text, "\nexposed to the rest of the machine, from 0.0 (not at all) to 10.0");
    let width = known.iter().map(|of| of.unit.chars().count()).max().unwrap_or_default();
    for of in known {
        let limit = of.limit.map_or_else(String::new, |limit| format!(", at most {}", tenths(Some(limit))));
        let _ = writeln!(text, "    {:width$}  {} → {}{limit}", of.unit, tenths(of.now), tenths(of.then));
    }
}

fn off_lock(text: &mut String, all: &[OffLock]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\ninstalled in another version than the lock file's, and left alone");
    for off in all.iter().take(SHOWN) {
        let _ = writeln!(text, "    {} {} (locked: {})", off.name, off.installed, off.locked);
    }
    if let Some(more) = all.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "    and {more} more: `--json` has them all");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{expect, expect_file};
    use serde_json::{Value, json};

    use super::*;

    fn plan(json: Value) -> Plan {
        serde_json::from_value(json).expect("a plan")
    }

    /// The engine's own plan for its changed recipe (`kld-engine/tests/reboots.rs` writes it).
    #[test]
    fn a_change_of_everything_reads_by_layers() {
        let text = include_str!("../../../../kld-engine/tests/snapshots/changed.json");
        let page = render(&plan(serde_json::from_str(text).expect("JSON")));
        expect_file!["changed.txt"].assert_eq(&page);
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part:?} in {page}"));
        let order = ["\ndatasets\n", "\npackages\n", "\nusers\n", "\nfirewall\n", "\nservices\n", "\nthen\n"];
        assert!(order.map(at).is_sorted(), "{page}");
    }

    #[test]
    fn what_needs_a_reboot_says_so() {
        let because =
            |line: Option<u32>, reason: &str| json!({"layer": "files", "line": line, "reason": reason});
        let step = json!({
            "kind": "package", "name": "amd64-microcode", "action": "add", "cause": "wish", "summary": "install",
            "interrupts": "reboot", "notes": ["reboot: `amd64-microcode` is in use after the next start"],
            "because": because(Some(31), "asked for in the manifest"), "change": null
        });
        let page = render(&plan(json!({
            "machine": "webapp", "manifest": "", "steps": [step], "restarts": [], "left": [], "items": {},
            "at_start": [
                {"kind": "package", "name": "zfs-initramfs", "because": because(None, "the root is ZFS"),
                 "with": "`kpkg install zfs-initramfs` puts it into a clone of the system, `reboot` starts that"},
                {"kind": "kernel argument", "name": "net.ifnames=0", "because": because(Some(18), "its name"),
                 "with": "add it to what the boot entry gives the kernel, then `reboot`"}
            ]
        })));
        expect![[r#"
            webapp: 1 change, then 0 services are told; in use after a reboot

            packages
              + package  amd64-microcode  install  (line 31, reboot)
                         reboot: `amd64-microcode` is in use after the next start

            not done by an apply, because the machine starts from it: reboot
                package zfs-initramfs
                  the root is ZFS
                  `kpkg install zfs-initramfs` puts it into a clone of the system, `reboot` starts that
                kernel argument net.ifnames=0  (line 18)
                  its name
                  add it to what the boot entry gives the kernel, then `reboot`
        "#]]
        .assert_eq(&page);
    }

    #[test]
    fn what_is_off_the_lock_file_is_named_as_far_as_a_person_reads() {
        let off = |count: usize| {
            let all = 0..count;
            let all = all.map(|n| json!({"name": format!("lib{n:02}"), "installed": "2-1", "locked": "1-1"}));
            render(&plan(json!({
                "machine": "webapp", "manifest": "", "steps": [], "restarts": [], "left": [], "items": {},
                "off_lock": all.collect::<Vec<_>>()
            })))
        };
        expect![[r#"
            webapp: as the manifest says, nothing to do

            installed in another version than the lock file's, and left alone
                lib00 2-1 (locked: 1-1)
        "#]]
        .assert_eq(&off(1));
        assert!(off(SHOWN).ends_with("lib09 2-1 (locked: 1-1)\n"), "{}", off(SHOWN));
        let many = off(SHOWN + 2);
        assert!(many.ends_with("lib09 2-1 (locked: 1-1)\n    and 2 more: `--json` has them all\n"), "{many}");
    }

    #[test]
    fn an_undo_says_what_was_changed_by_hand_and_what_stays() {
        let step = |kind: &str, name: &str, cause: &str, summary: &str, notes: &[&str]| {
            json!({
                "kind": kind, "name": name, "action": "change", "cause": cause, "summary": summary, "notes": notes,
                "because": {"layer": "files", "line": null, "reason": "apply 2 is taken back"}, "change": null,
            })
        };
        let page = render(&plan(json!({
            "machine": "webapp", "manifest": "", "undoes": [3, 2], "items": {},
            "left": [{"kind": "package", "name": "git", "remove_with": "apt-get purge git"}],
            "steps": [
                step("service", "new.service", "wish", "stops", &[]),
                step("file", "/etc/a", "wish", "+0 −2 lines", &[]),
                step("file", "/etc/b", "drift", "mode 0600 → 0644", &["+1 −0 lines by hand since"]),
            ],
            "restarts": [step("service", "webapp.service", "wish", "starts again", &[])],
        })));
        expect![[r#"
            webapp: applies 3, 2 taken back, 2 changes, then 2 services are told

            first
                service  new.service  stops
                         because apply 2 is taken back

            files
              ~ file     /etc/a  +0 −2 lines
                         apply 2 is taken back

            changed by hand since: goes back with `--overwrite` only, and what is there now is kept
              ~ file     /etc/b  mode 0600 → 0644
                         apply 2 is taken back
                         +1 −0 lines by hand since

            then
                service  webapp.service  starts again
                         because apply 2 is taken back

            stays, because others may need it by now
                package git
                  apt-get purge git
        "#]]
        .assert_eq(&page);
        let page = render(&plan(json!({
            "machine": "webapp", "manifest": "", "undoes": [2], "items": {}, "left": [], "steps": [], "restarts": []
        })));
        expect![[r#"
            webapp: apply 2 taken back, nothing to do
        "#]]
        .assert_eq(&page);
    }
}

//! The presets of `hardening:` for people: as rows, and as the page of the documentation.

use std::fmt::Write as _;

use kld_manifest::model::Preset;

use crate::layers::hardening::Hardening;
use crate::layers::presets::{self, Start};

/// One directive of a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetRow {
    /// The preset.
    pub preset: Preset,
    /// Of which units it is, when not of all.
    pub of: Option<&'static str>,
    /// `ProtectHome=yes`.
    pub directive: String,
    /// The reason.
    pub reason: &'static str,
}

const WITH_COMMAND: &str = "with a command";
const OF_A_PACKAGE: &str = "of a package";

/// Every directive of every preset, in the order in which a unit has them.
pub fn preset_rows() -> Vec<PresetRow> {
    Preset::ALL.into_iter().flat_map(rows_of).collect()
}

fn rows_of(preset: Preset) -> Vec<PresetRow> {
    let [account, root] = [Start::AsAccount, Start::AsRoot].map(|start| {
        let mut all = presets::directives(preset, start);
        if preset == Preset::Web {
            all.extend(presets::low_port(start));
        }
        all
    });
    let row = |of, (name, value, reason): Hardening| PresetRow {
        preset,
        of,
        directive: format!("{name}={value}"),
        reason,
    };
    let both = account.iter().filter(|one| root.contains(one));
    let only = |of: &[Hardening], not: &[Hardening]| {
        of.iter().filter(|one| !not.contains(one)).copied().collect::<Vec<_>>()
    };
    let mut rows: Vec<PresetRow> = both.map(|one| row(None, *one)).collect();
    rows.push(row(None, presets::families(preset)));
    rows.extend(only(&account, &root).into_iter().map(|one| row(Some(WITH_COMMAND), one)));
    rows.extend(only(&root, &account).into_iter().map(|one| row(Some(OF_A_PACKAGE), one)));
    rows
}

/// Who takes it, and what it leaves open.
fn about(preset: Preset) -> &'static str {
    match preset {
        Preset::Strict => {
            "The default of a service with a `command`. Take it for everything that runs under it: compiled programs, and \
             interpreters without a compiler of their own (Python, Perl, Ruby)."
        }
        Preset::Packaged => {
            "The default of a unit that a package brings, and for a `command` that starts as root and changes its account \
             itself. It leaves memory that is written and executed, and the processes of others in `/proc`."
        }
        Preset::Database => {
            "For PostgreSQL and MariaDB. It leaves what they work with: shared memory that outlives a stop, queries compiled to \
             machine code, memory placed near a processor. A package's unit keeps the rights by which it changes its account, \
             and none to listen below port 1024."
        }
        Preset::Web => {
            "For web servers, and for applications in Node.js, Java, PHP or .NET, which compile while they run: that is why memory \
             may be written and executed. What does not compile is better off with `strict`, or says \
             `MemoryDenyWriteExecute`. Where `listens` has a port below 1024 it gets the right to listen there, and no other."
        }
        Preset::ContainerHost => {
            "For a service that runs podman as root: `podman run`, `podman-compose`, an agent that starts containers. What podman \
             needs is most of what root can do, so this is a fence around the kernel and not around the files: it sees all of \
             them, and `dataset` and `writes` limit nothing. A container of the manifest (`containers:`) has limits of its own and \
             needs no preset. It takes no `user`; packages are yours to name (`packages: podman, netavark`). What podman has \
             started may outlive the service: see to it that the service ends it when it is told to stop (`podman stop`, \
             `podman rm --force`)."
        }
    }
}

/// The page `docs/hardening.md`.
pub fn preset_page() -> String {
    let mut page = String::from(
        "# Hardening presets\n\nPrinted from the tables that units are made from; `kldload explain --presets` prints them, too.\n\n\
         ```\nservices:\n  - unit: postgresql.service\n    hardening: database\n  - unit: shop.service\n    \
         command: /usr/bin/node /srv/shop/server.js\n    hardening: web  ProtectHome=read-only\n    max_exposure: 3.0\n```\n\n\
         The first word is the preset, and directives behind it replace single ones of it. Without a word a service with a `command` gets \
         `strict`, and a unit of a package `packaged`. On lines of its own it is written `preset: web`.\n\n\
         Every preset leaves its datasets, what `writes` names and the package's own directories writable; with a `command` it opens the \
         ports of `listens` and no others (`SocketBindDeny`), and it exchanges packets with the networks it serves or may connect to \
         (`IPAddressDeny`). `container-host` is the exception.\n\n\
         How exposed a service is, by systemd's own reckoning, is in every plan that changes it; with `max_exposure` one that is more \
         exposed is refused, and `kst` warns of it. Choose the tightest with which the service still works: `strict` first, then the preset \
         of its work, then single directives. `journalctl -u UNIT` shows what was refused (`EPERM`, `Operation not permitted`).\n",
    );
    for preset in Preset::ALL {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {preset}\n\n{}\n\n| directive | of units | reason |\n|---|---|---|\n",
            about(preset)
        );
        for row in rows_of(preset) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} |",
                row.directive,
                row.of.unwrap_or("all"),
                row.reason.replace('|', "\\|")
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_of_every_preset_has_a_reason_of_its_own() {
        for row in preset_rows() {
            assert!(!row.reason.is_empty() && !row.reason.ends_with('.'), "{row:?}");
        }
        let page = preset_page();
        assert!(Preset::ALL.iter().all(|preset| page.contains(&format!("\n## {preset}\n"))), "{page}");
    }

    #[test]
    fn the_right_to_listen_low_is_in_no_other_preset_than_where_it_is_said() {
        let has = |preset, of| {
            rows_of(preset)
                .iter()
                .filter(|row| row.of.is_none_or(|is| is == of))
                .any(|row| row.directive.contains("CAP_NET_BIND_SERVICE"))
        };
        let with_it: Vec<_> = Preset::ALL.into_iter().filter(|preset| has(*preset, OF_A_PACKAGE)).collect();
        assert_eq!(with_it, [Preset::Packaged, Preset::Web, Preset::ContainerHost]);
        let with_it: Vec<_> = Preset::ALL.into_iter().filter(|preset| has(*preset, WITH_COMMAND)).collect();
        assert_eq!(with_it, [Preset::Packaged, Preset::Web, Preset::ContainerHost]);
    }
}

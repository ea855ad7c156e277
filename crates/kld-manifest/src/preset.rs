//! Sandboxes by name: what `hardening:` begins with.

use std::fmt;

use crate::directives::DIRECTIVES;
use crate::keys::one_of;
use crate::nearest::did_you_mean;
use crate::values::Wrong;

/// A sandbox for a kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// As tight as a service can bear that knows nothing of it: what a service with a `command` gets.
    Strict,
    /// For units that start as root and change their account themselves: what a package's unit gets.
    Packaged,
    /// PostgreSQL and MariaDB.
    Database,
    /// Web servers, and applications in runtimes that compile while they run.
    Web,
    /// Podman, and what starts containers with it.
    ContainerHost,
}

impl Preset {
    /// All of them, the tightest first.
    pub const ALL: [Self; 5] = [Self::Strict, Self::Packaged, Self::Database, Self::Web, Self::ContainerHost];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Packaged => "packaged",
            Self::Database => "database",
            Self::Web => "web",
            Self::ContainerHost => "container-host",
        }
    }

    /// The one of this name.
    pub(crate) fn named(text: &str) -> Result<Self, Wrong> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| {
            let all = format!("a preset is {}", one_of(&names));
            let known = names.into_iter().chain(DIRECTIVES.iter().copied());
            let hint = did_you_mean(text, known).map_or_else(|| all.clone(), |near| format!("{near} {all}"));
            Wrong::because(format!("there is no hardening preset `{text}`")).hint(hint)
        })
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_found_by_its_name_and_an_unknown_one_hears_of_all() {
        for preset in Preset::ALL {
            assert_eq!(Preset::named(&preset.to_string()), Ok(preset));
        }
        let wrong = Preset::named("databse").expect_err("it is none");
        assert_eq!(wrong.reason, "there is no hardening preset `databse`");
        assert_eq!(
            wrong.hint.as_deref(),
            Some(
                "did you mean `database`? a preset is `strict`, `packaged`, `database`, `web` or `container-host`"
            )
        );
    }
}

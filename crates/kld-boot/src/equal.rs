//! Boot partitions that are not equal: one was replaced, or away while something changed. What one lacks is brought from
//! another; what two of them have otherwise is named, and a person decides.

use crate::action::Action;
use crate::entries::{PER_FILE, SPARE};
use crate::esp::{Entry, Esp, KERNELS};
use crate::loader;
use crate::look::{Environment, Looked};

/// In what boot partitions differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unequal {
    /// What the actions mend, for a person.
    pub mended: Vec<String>,
    /// What stays until somebody does something about it, and what that is.
    pub stays: Vec<String>,
    /// What mends it: all that starts something stays as it is.
    pub actions: Vec<Action>,
}

/// An environment that every boot partition should start, and the entry that does so.
struct Wanted<'a> {
    environment: &'a Environment,
    from: &'a Esp,
    entry: &'a Entry,
}

/// A boot partition, and what it would be.
struct Mended<'a> {
    esp: &'a Esp,
    after: Esp,
    /// What brings each environment.
    brought: Vec<Vec<Action>>,
}

/// Finds in what boot partitions differ: which environments they start, what from, and which one unless told otherwise.
pub fn unequal(looked: &Looked) -> Unequal {
    let mut found = Unequal::default();
    let all = wanted(looked);
    let mut partitions = Vec::new();
    for esp in &looked.partitions {
        let mut mended = Mended { esp, after: esp.clone(), brought: Vec::new() };
        for Wanted { environment, from, entry } in &all {
            let (mount, name) = (&esp.mount, environment.name());
            match bring(from, entry, &mended.after) {
                Bring::Has => {}
                Bring::Differs { file } => found.stays.push(format!(
                    "`{}` starts `{name}` with another kernel than `{}`: remove the one that is wrong, and `kbe prune` brings \
                     the other",
                    esp.entry_path(&file),
                    from.entry_path(&entry.file)
                )),
                Bring::Taken { file } => found.stays.push(format!(
                    "`{mount}` does not start `{name}`: `{}` belongs to something else",
                    esp.path(&file)
                )),
                Bring::Full => found
                    .stays
                    .push(format!("`{mount}` does not start `{name}`: there is no room for it")),
                Bring::By(actions) => {
                    let counts = actions.iter().any(|action| matches!(action, Action::Remove { .. }));
                    found.mended.push(match counts {
                        true => format!("`{mount}` still counts tries of `{name}`"),
                        false => format!("`{mount}` does not start `{name}`"),
                    });
                    actions.iter().for_each(|action| mended.after.gains(action));
                    mended.brought.push(actions);
                }
            }
        }
        partitions.push(mended);
    }
    tell(looked, &all, &partitions, &mut found);
    found
}

/// What every boot partition should start, and what matters most first: where there is no room for all of it, the last of it
/// is not there.
fn wanted(looked: &Looked) -> Vec<Wanted<'_>> {
    let is = |of: &Environment, other: Option<&Environment>| {
        other.is_some_and(|other| other.dataset == of.dataset)
    };
    let rank = |of: &Wanted<'_>| {
        let of = of.environment;
        let ranks = [is(of, looked.default_environment()), of.is_running(), is(of, looked.last_good())];
        ranks.iter().position(|is| *is).unwrap_or(ranks.len())
    };
    let is_settled = |of: &&Environment| of.unfinished.is_none() && of.trial.is_none();
    let settled = looked.environments.iter().filter(is_settled);
    let mut all: Vec<_> = settled
        .filter_map(|environment| {
            let (from, entry) =
                looked.entry_on(&environment.dataset, |entry| entry.tries_left().is_none())?;
            Some(Wanted { environment, from, entry })
        })
        .collect();
    all.sort_by_key(rank);
    all
}

/// How a boot partition stands to an entry of another one.
pub(crate) enum Bring {
    /// It starts the environment so.
    Has,
    /// It starts the environment, from other files: by this one below `loader/entries`.
    Differs { file: String },
    /// This file of it, which would be replaced, belongs to something else.
    Taken { file: String },
    /// There is no room.
    Full,
    /// This gives it the entry and what it boots from, and takes away what counts tries of it.
    By(Vec<Action>),
}

/// What brings an entry to a boot partition from another one.
pub(crate) fn bring(from: &Esp, entry: &Entry, to: &Esp) -> Bring {
    let Some(dataset) = entry.dataset() else { return Bring::Has };
    // What counts tries is no match for what has passed.
    let is_match = |of: &&Entry| of.tries_left().is_none() || entry.tries_left().is_some();
    let own: Vec<&Entry> = to.entries_of(dataset).filter(|of| to.is_complete(of)).filter(is_match).collect();
    let boots_the_same = |of: &&Entry| of.boot_files().eq(entry.boot_files());
    let same_name = own.iter().find(|of| of.id.eq_ignore_ascii_case(&entry.id));
    match (same_name, own.last()) {
        (Some(of), _) if boots_the_same(of) => return Bring::Has,
        (None, Some(_)) if own.iter().any(boots_the_same) => return Bring::Has,
        (Some(of), _) | (None, Some(of)) => return Bring::Differs { file: of.file.clone() },
        (None, None) => {}
    }
    if let Some(taken) = to.taken(&entry.id, dataset) {
        return Bring::Taken { file: to.entry_path(&taken.file)[to.mount.len()..].to_owned() };
    }
    let missing = entry.boot_files().filter(|file| to.files.get(*file) != from.files.get(*file));
    let missing: Vec<_> = missing.filter_map(|file| Some((file, *from.files.get(file)?))).collect();
    // A name that says nothing of the content may mean another kernel to another system.
    let is_anothers = |of: &Entry, file: &str| {
        of.dataset() != Some(dataset) && of.boot_files().any(|of| of.eq_ignore_ascii_case(file))
    };
    let taken = missing
        .iter()
        .find(|(file, _)| !file.starts_with(KERNELS) && to.entries.iter().any(|of| is_anothers(of, file)));
    if let Some((file, _)) = taken {
        return Bring::Taken { file: (*file).to_owned() };
    }
    if missing.iter().map(|(_, size)| size + PER_FILE).sum::<u64>() + PER_FILE + SPARE > to.free {
        return Bring::Full;
    }
    let copies = missing.into_iter().map(|(file, size)| Action::Copy {
        from: from.path(file),
        to: to.path(file),
        size,
    });
    let is_there = to.entries.contains(entry);
    let write = Action::Write { path: to.entry_path(&entry.file), text: entry.entry.to_string() };
    let counts = |of: &&Entry| of.tries_left().is_some() && entry.tries_left().is_none();
    let counted = to.entries_of(dataset).filter(counts).filter(|of| of.id.eq_ignore_ascii_case(&entry.id));
    let counted = counted.map(|of| Action::Remove { path: to.entry_path(&of.file) });
    Bring::By(copies.chain((!is_there).then_some(write)).chain(counted).collect())
}

/// What the machine starts unless it is told otherwise.
struct MachineDefault<'a> {
    id: Option<String>,
    entry: Option<&'a Entry>,
    /// As it was said: it may be a pattern, or the word for what was started last.
    word: Option<&'a str>,
    /// Which that is.
    last: Option<&'a str>,
    /// The variable says it, which goes before `loader.conf`.
    by_variable: bool,
}

impl<'a> MachineDefault<'a> {
    fn of(looked: &'a Looked) -> Self {
        let id = looked.default_id();
        let by_variable = looked.loader.default.is_some() && looked.loader.default == id;
        let mut default =
            Self { id, entry: None, word: None, last: looked.loader.last.as_deref(), by_variable };
        let entries = || looked.partitions.iter().flat_map(|esp| &esp.entries);
        default.entry = entries().find(|of| default.is(Some(&of.id)));
        let says_it = looked.partitions.iter().find(|esp| default.is(default.said_on(esp).as_deref()));
        default.word = says_it.and_then(|esp| loader::default_of(&esp.conf)).filter(|_| !by_variable);
        default
    }

    fn is(&self, id: Option<&str>) -> bool {
        id.zip(self.id.as_deref()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    /// What `loader.conf` says on a boot partition.
    fn said_on(&self, esp: &Esp) -> Option<String> {
        esp.default_id(self.last).map(|id| id.to_ascii_lowercase())
    }

    /// A `loader.conf` that says it, for a boot partition like this.
    fn conf_for(&self, esp: &Esp, entry: &Entry) -> String {
        let with = |word: &str| loader::with_default(&esp.conf, word);
        let says_it =
            |conf: &String| self.is(self.said_on(&Esp { conf: conf.clone(), ..esp.clone() }).as_deref());
        self.word.map(with).filter(says_it).unwrap_or_else(|| with(&entry.id))
    }
}

/// Brings what is to be brought, and has every boot partition start the same unless it is told otherwise. What that is comes
/// first, then `loader.conf`, then the rest: without a default, the first of the menu starts, which any entry that came may be.
fn tell(looked: &Looked, all: &[Wanted<'_>], partitions: &[Mended<'_>], found: &mut Unequal) {
    let loader = &looked.loader;
    let default = MachineDefault::of(looked);
    let said: Vec<_> = partitions.iter().map(|of| default.said_on(&of.after)).collect();
    // What `loader.conf` says behind a variable is nobody's matter, as long as it is the same everywhere.
    let by_saved = loader.default.as_deref().is_some_and(loader::is_saved) && default.id.is_some();
    let is_nobodys = by_saved || (default.by_variable && said.iter().all(|of| *of == said[0]));
    for (Mended { esp, after, brought }, said) in partitions.iter().zip(&said) {
        let is_wrong =
            !is_nobodys && !default.is(said.as_deref()) && !is_strangers(looked, esp, said.as_deref());
        let wrong = default.entry.filter(|of| is_wrong && starts(after, of));
        let lead = || all.iter().map(|of| of.entry).find(|of| starts(after, of));
        let named = match wrong {
            Some(of) => Some((of, default.conf_for(after, of))),
            None if said.is_none() && !brought.is_empty() => {
                lead().map(|of| (of, loader::with_default(&esp.conf, &of.id)))
            }
            None => None,
        };
        if let Some(of) = wrong.filter(|_| !default.is(default.said_on(esp).as_deref())) {
            found.mended.push(format!("the default of `{}` is not `{}`", esp.mount, of.id));
        }
        let mut brought = brought.iter();
        if let Some((of, text)) = named {
            if !starts(esp, of) {
                found.actions.extend(brought.next().into_iter().flatten().cloned());
            }
            let write = Action::Write { path: esp.conf_path(), text };
            // FAT may lose a file that is replaced. Until the new one is on disk, the firmware holds what starts.
            let holds = loader.has_variables() && wrong.is_some() && !default.by_variable;
            let hold =
                |entry: &Option<String>| holds.then(|| Action::DefaultVariable { entry: entry.clone() });
            found.actions.extend(hold(&default.id).into_iter().chain([write]).chain(hold(&loader.default)));
        }
        found.actions.extend(brought.flatten().cloned());
    }
}

/// Whether a boot partition was told to start something that is no environment: by a person, or by another system of theirs.
fn is_strangers(looked: &Looked, esp: &Esp, said: Option<&str>) -> bool {
    let is_ours = |of: &Entry| {
        of.dataset().and_then(|dataset| dataset.rsplit_once('/')).is_some_and(|(root, _)| root == looked.root)
    };
    let mut meant = esp.entries.iter().filter(|of| said.is_some_and(|said| of.id.eq_ignore_ascii_case(said)));
    meant.any(|of| !is_ours(of))
}

/// Whether a boot partition starts by an entry of this name what this one starts.
fn starts(esp: &Esp, entry: &Entry) -> bool {
    let Some(dataset) = entry.dataset() else { return false };
    let mut plain = esp.entries_of(dataset).filter(|of| of.tries_left().is_none());
    plain.any(|of| of.id.eq_ignore_ascii_case(&entry.id) && esp.is_complete(of))
}

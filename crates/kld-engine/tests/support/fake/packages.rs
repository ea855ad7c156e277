//! Its `apt-get`.

use super::*;

const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/kldload.conf";

/// The newest first.
fn versions(deb: &Deb) -> Vec<&'static str> {
    if deb.versions.is_empty() { vec!["1.0"] } else { deb.versions.clone() }
}

/// SHA-256 of a package file.
pub(crate) fn digest_of(name: &str, version: &str) -> String {
    format!("{version}{name}").bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl State {
    pub(super) fn apt(&mut self, args: &[&str]) -> Result<String, HostError> {
        if args.last() == Some(&"check") {
            return Ok(String::new());
        }
        if let Some(at) = args.iter().position(|word| *word == "purge") {
            return args[at + 1..].iter().try_for_each(|name| self.purge(name)).map(|()| String::new());
        }
        let words = args.iter().skip_while(|word| **word != "install").skip(1);
        // Names, and the versions that some must have.
        let words: Vec<(&str, Option<&str>)> = words
            .filter(|word| !word.starts_with('-'))
            .map(|word| word.split_once('=').map_or((*word, None), |(name, version)| (name, Some(version))))
            .collect();
        let pinned: BTreeMap<&str, &str> =
            words.iter().filter_map(|(name, version)| Some((*name, (*version)?))).collect();
        let mut open: Vec<&str> = words.iter().map(|(name, _)| self.selected(name)).collect();
        let mut wanted: Vec<(String, String)> = Vec::new();
        while let Some(name) = open.pop() {
            let version = self.offered(name, pinned.get(name).copied())?;
            let there = self.version_of(name);
            let is_so = there.as_ref().is_some_and(|there| !pinned.contains_key(name) || *there == version);
            if !is_so && !wanted.iter().any(|(of, _)| of == name) {
                open.extend(self.archive[name].depends.clone());
                wanted.push((name.to_owned(), version));
            }
        }
        if args.contains(&"-s") {
            let was = |name: &str| self.version_of(name).map_or_else(String::new, |was| format!("[{was}] "));
            let line = |(name, version): &(String, String)| {
                format!("Inst {name} {}({version} fake [all])\n", was(name))
            };
            return Ok(wanted.iter().map(line).collect());
        }
        if !self.text("/usr/sbin/policy-rc.d").contains("exit 101") {
            return Err(error("services would start without their configuration"));
        }
        let rank =
            |name: &str, version: &str| versions(&self.archive[name]).iter().position(|of| *of == version);
        let is_older = |(name, version): &(String, String)| {
            self.version_of(name).is_some_and(|was| rank(name, version) > rank(name, &was))
        };
        if wanted.iter().any(is_older) && !args.contains(&"--allow-downgrades") {
            return Err(refused(
                100,
                "E: Packages were downgraded and -y was used without --allow-downgrades.",
            ));
        }
        for (name, version) in wanted {
            let deb = self.archive[&name].clone();
            let is_first = self.version_of(&name).is_none();
            for (path, text) in &deb.files {
                self.burn(path)?;
                let is_conffile = path.starts_with("/etc/");
                if !self.machine.files.contains_key(*path) || !is_first && !is_conffile {
                    self.put(
                        path,
                        file(&if version == "1.0" {
                            (*text).to_owned()
                        } else {
                            format!("{text} {version}")
                        }),
                    );
                }
            }
            self.burn("dpkg status")?;
            // Its scripts make a cluster, unless they are told not to.
            if name == "postgresql" && !self.text(CREATE_CLUSTER).contains("create_main_cluster = false") {
                self.put("/etc/postgresql/17/main/postgresql.conf", file(""));
            }
            for unit in deb.units.iter().filter(|_| is_first) {
                self.put(&format!("/usr/lib/systemd/system/{unit}"), file("[Install]\n"));
                self.put(&format!("{UNITS}/{unit}"), file("enabled"));
            }
            let status = self.without(&name) + &format!("{name} {version}\n");
            self.put(STATUS, file(&status));
        }
        Ok(String::new())
    }

    /// `apt-cache show --no-all-versions`.
    pub(super) fn apt_show(&self, words: &[&str]) -> String {
        words.iter().fold(String::new(), |text, word| {
            let (name, version) = word.split_once('=').map_or((*word, None), |(name, of)| (name, Some(of)));
            // Of what it does not know it says nothing.
            let Ok(version) = self.offered(name, version) else { return text };
            let digest = digest_of(name, &version);
            text + &format!(
                "Package: {name}\nVersion: {version}\nInstalled-Size: 100\nSize: 25000\nSHA256: {digest}\n{}\n",
                match &self.provided_by(name)[..] {
                    "" => String::new(),
                    others => format!("Provides: {others}\n"),
                }
            )
        })
    }

    /// `dpkg-query -L`: what it knows, and an error for the rest.
    pub(super) fn files_of(&self, names: &[&str]) -> Result<String, HostError> {
        let (there, not): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| self.version_of(name).is_some());
        let files = there.iter().flat_map(|name| &self.archive[*name].files);
        let text: String = files.map(|(path, _)| format!("{path}\n")).collect();
        match not.first() {
            Some(name) if there.is_empty() => Err(refused(1, format!("package '{name}' is not installed"))),
            _ => Ok(text),
        }
    }

    /// A name that the archive has, or the only one that provides it.
    fn selected<'a>(&'a self, name: &'a str) -> &'a str {
        let mut providers = self.archive.iter().filter(|(_, deb)| deb.provides.contains(&name));
        match (self.archive.contains_key(name), providers.next(), providers.next()) {
            (false, Some((provider, _)), None) => provider,
            _ => name,
        }
    }

    /// What dpkg and apt have in the field `Provides`.
    pub(super) fn provided_by(&self, name: &str) -> String {
        self.archive.get(name).map(|deb| deb.provides.join(", ")).unwrap_or_default()
    }

    /// The version of a package that is installed.
    pub(super) fn version_of(&self, name: &str) -> Option<String> {
        let text = self.text(STATUS);
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(of, _)| *of == name).map(|(_, version)| version.to_owned())
    }

    /// The version that the archive gives: this one, or the newest.
    fn offered(&self, name: &str, version: Option<&str>) -> Result<String, HostError> {
        let deb = self.archive.get(name);
        let deb = deb.ok_or_else(|| refused(100, format!("E: Unable to locate package {name}")))?;
        let all = versions(deb);
        match version {
            None => Ok(all[0].to_owned()),
            Some(version) if all.contains(&version) => Ok(version.to_owned()),
            Some(version) => Err(refused(100, format!("E: Version '{version}' for '{name}' was not found"))),
        }
    }

    /// The lines of all others.
    fn without(&self, name: &str) -> String {
        let name = format!("{name} ");
        let text = self.text(STATUS);
        text.lines().filter(|line| !line.starts_with(&name)).map(|line| format!("{line}\n")).collect()
    }

    fn purge(&mut self, name: &str) -> Result<(), HostError> {
        self.burn("dpkg status")?;
        let deb = self.archive[name].clone();
        for path in deb
            .files
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .chain(deb.units.iter().map(|unit| format!("{UNITS}/{unit}")))
        {
            self.machine.files.remove(&path);
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            if self.is_empty(above) {
                self.machine.files.remove(above);
            }
        }
        let status = self.without(name);
        self.put(STATUS, file(&status));
        Ok(())
    }
}

//! Its `apt-get`.

use super::*;

const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/kldload.conf";

impl State {
    pub(super) fn apt(&mut self, args: &[&str]) -> Result<String, HostError> {
        if let Some(at) = args.iter().position(|word| *word == "purge") {
            return args[at + 1..].iter().try_for_each(|name| self.purge(name)).map(|()| String::new());
        }
        let names: Vec<&str> = args.iter().skip_while(|word| **word != "install").skip(1).copied().collect();
        let mut wanted: Vec<String> = Vec::new();
        let mut open: Vec<&str> = names.clone();
        let mut of = BTreeMap::new();
        while let Some(name) = open.pop() {
            let deb = self.archive.get(name).cloned();
            let deb = deb.ok_or_else(|| refused(100, format!("E: Unable to locate package {name}")))?;
            if !self.text(STATUS).lines().any(|of| of == name) && !wanted.iter().any(|of| of == name) {
                open.extend(deb.depends.clone());
                wanted.push(name.to_owned());
                of.insert(name.to_owned(), deb);
            }
        }
        if args.contains(&"-s") {
            return Ok(wanted.iter().map(|name| format!("Inst {name} (1.0)\n")).collect());
        }
        if self.text("/usr/sbin/policy-rc.d").is_empty() {
            return Err(error("services would start without their configuration"));
        }
        for name in wanted {
            for (path, text) in &of[&name].files {
                self.burn(path)?;
                if !self.machine.files.contains_key(*path) {
                    self.put(path, file(text));
                }
            }
            self.burn("dpkg status")?;
            // Its scripts make a cluster, unless they are told not to.
            if name == "postgresql" && !self.text(CREATE_CLUSTER).contains("create_main_cluster = false") {
                self.put("/etc/postgresql/17/main/postgresql.conf", file(""));
            }
            for unit in &of[&name].units {
                self.put(&format!("/usr/lib/systemd/system/{unit}"), file("[Install]\n"));
                self.put(&format!("{UNITS}/{unit}"), file("enabled"));
            }
            let status = self.text(STATUS) + &name + "\n";
            self.put(STATUS, file(&status));
        }
        Ok(String::new())
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
        let status: String =
            self.text(STATUS).lines().filter(|line| *line != name).map(|line| format!("{line}\n")).collect();
        self.put(STATUS, file(&status));
        Ok(())
    }
}

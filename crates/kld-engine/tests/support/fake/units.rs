//! Its `systemctl` and `systemd-analyze`.

use super::*;

impl State {
    pub(super) fn systemctl(&mut self, args: &[&str]) -> Result<String, HostError> {
        let args = if args[0] == "--no-block" { &args[1..] } else { args };
        let units: Vec<&str> = args[1..].iter().filter(|word| !word.starts_with('-')).copied().collect();
        if args[0] == "show" {
            let asked: Vec<&str> = after(args, "--property").split(',').collect();
            let units = &args[4..];
            let block = |unit: &&str| {
                let state = self.unit_state(unit);
                let load = match state.as_str() {
                    "masked" => "masked",
                    _ if self.is_there(unit) => "loaded",
                    _ => "not-found",
                };
                let active = if self.machine.active.contains(*unit) { "active" } else { "inactive" };
                let group = match active {
                    "active" => format!("/system.slice/{unit}"),
                    _ => String::new(),
                };
                let all = [
                    ("Id", *unit),
                    ("LoadState", load),
                    ("ActiveState", active),
                    ("UnitFileState", &state),
                    ("ControlGroup", &group),
                ];
                let shown = all.iter().filter(|(name, _)| asked.contains(name));
                shown.map(|(name, value)| format!("{name}={value}\n")).collect::<String>()
            };
            return Ok(units.iter().map(block).collect::<Vec<_>>().join("\n"));
        }
        self.burn(&format!("systemctl {}", args.join(" ")))?;
        for unit in units {
            let there = self.is_there(unit);
            match args[0] {
                "restart" | "try-reload-or-restart" if !there => {
                    return Err(refused(5, format!("Unit {unit} not found.")));
                }
                "stop" if !there && !self.machine.active.contains(unit) => {
                    return Err(refused(5, format!("Unit {unit} not loaded.")));
                }
                // What has links is switched off though its file is gone.
                "enable" | "disable" if !there && (args[0] == "enable" || !self.has_links(unit)) => {
                    return Err(error(format!("Unit {unit} does not exist")));
                }
                "enable" | "restart" if self.unit_state(unit) == "masked" => {
                    return Err(error(format!("Unit {unit} is masked.")));
                }
                "enable" | "disable" if self.unit_state(unit) == "static" => {}
                "enable" => self.put(&format!("{UNITS}/{unit}"), file("enabled")),
                "mask" => self.put(&format!("{UNITS}/{unit}"), file("masked")),
                "disable" | "unmask" => drop(self.machine.files.remove(&format!("{UNITS}/{unit}"))),
                // A unit without its image would pull it: nobody waits for that here.
                "restart"
                    if self.image_of(unit).is_some_and(|image| !self.machine.images.contains(&image)) =>
                {
                    return Err(error(format!("Job for {unit} failed: image not known")));
                }
                "restart" => {
                    if unit == kld_system::IDENTITY_UNIT {
                        self.init()?;
                    }
                    self.machine.active.insert(unit.to_owned());
                    self.load_rules(unit);
                    if unit == "systemd-sysctl.service" {
                        let files =
                            self.machine.files.keys().filter(|path| path.starts_with("/etc/sysctl.d/"));
                        let texts: Vec<String> = files.map(|path| self.text(path)).collect();
                        texts.iter().for_each(|text| self.set_settings(text));
                    }
                    let image = self.image_of(unit);
                    self.machine.containers.extend(image.map(|image| (unit.to_owned(), image)));
                }
                "try-reload-or-restart" if self.machine.active.contains(unit) => self.load_rules(unit),
                "stop" => {
                    self.machine.active.remove(unit);
                    // ExecStop of Debian's unit flushes them.
                    if unit == "nftables.service" {
                        self.machine.rules.clear();
                    }
                    self.machine.containers.remove(unit);
                }
                _ => {}
            }
        }
        Ok(String::new())
    }

    fn load_rules(&mut self, unit: &str) {
        if unit == "nftables.service" {
            self.machine.rules = self.text("/etc/nftables.conf");
        }
    }

    /// What sysctl.d(5) says; a kernel without a setting ignores it.
    pub(super) fn set_settings(&mut self, text: &str) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let key = key.trim().trim_start_matches('-').replace('.', "/");
            let path = format!("/proc/sys/{key}");
            if self.machine.files.contains_key(&path) {
                self.put(&path, file(&format!("{}\n", value.trim())));
            }
        }
    }

    /// The fewer lines of a sandbox a unit's files have, the more exposed it is; the files of a directory in memory win.
    pub(super) fn exposure(&self, unit: &str) -> Result<String, HostError> {
        const HARDENING: [&str; 6] = ["Protect", "Private", "Restrict", "NoNew", "System", "Capability"];
        let files = |dir: &str| -> Vec<String> {
            let paths = self.machine.files.keys().filter(|path| path.starts_with(&format!("{dir}{unit}")));
            paths.map(|path| self.text(path)).collect()
        };
        let mut dirs = self.machine.files.keys().filter_map(|path| path.strip_suffix(unit));
        let scratch = dirs.rfind(|dir| dir.starts_with("/run/kldload-plan-"));
        let mut texts = scratch.map_or_else(Vec::new, files);
        if texts.is_empty() {
            texts = files("/etc/systemd/system/");
        }
        if texts.is_empty() {
            return Err(error(format!("Failed to load unit file {unit}: No such file or directory")));
        }
        let lines = texts.iter().flat_map(|text| text.lines());
        let counts =
            |line: &&str| HARDENING.iter().any(|word| line.starts_with(word)) && !line.ends_with("=no");
        let hardened = lines.filter(counts).count();
        let tenths = 96_usize.saturating_sub(3 * hardened);
        Ok(format!("→ Overall exposure level for {unit}: {}.{} OK", tenths / 10, tenths % 10))
    }

    /// `UnitFileState`.
    pub(super) fn unit_state(&self, unit: &str) -> String {
        let state = self.text(&format!("{UNITS}/{unit}"));
        let installs = |dir: &str| self.text(&format!("{dir}/{unit}")).contains("[Install]");
        match state.as_str() {
            "masked" => state,
            _ if !self.is_there(unit) => String::new(),
            "" if UNIT_FILES.into_iter().any(installs) => "disabled".to_owned(),
            "" => "static".to_owned(),
            _ => state,
        }
    }

    pub(super) fn has_links(&self, unit: &str) -> bool {
        self.machine.files.contains_key(&format!("{UNITS}/{unit}"))
    }

    pub(super) fn is_there(&self, unit: &str) -> bool {
        let template = unit
            .split_once('@')
            .and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
        let has = |dir: &str, name: &str| self.machine.files.contains_key(&format!("{dir}/{name}"));
        let named = |name: &str| UNIT_FILES.iter().any(|dir| has(dir, name));
        named(unit) || template.is_some_and(|template| named(&template))
    }
}

//! Manifests that ask for many things, and machines that have them all: for laws of size, and for measurements.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kld_engine::{Entry, Host, Node, Plan, Wanted, plan};
use kld_host::{Cmd, zfs};
use kld_system::{Created, Enablement, Layer, render};

use super::fake::Fake;
use super::machine_for;

/// How much a manifest asks for beside what every server has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Many {
    files: usize,
    datasets: usize,
    accounts: usize,
    services: usize,
    packages: Packages,
}

/// Where the names of packages come from.
#[derive(Debug, Clone, Copy)]
enum Packages {
    /// Made up: as many as one likes.
    Invented(usize),
    /// Debian's.
    Real,
}

/// Packages that are small, or in every Debian anyway, and Ansible, which is compared.
const REAL: [&str; 25] = [
    "ansible-core",
    "base-passwd",
    "bsdutils",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "gpgv",
    "grep",
    "gzip",
    "hostname",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "perl-base",
    "procps",
    "python3-apt",
    "sed",
    "tar",
    "tzdata",
    "util-linux",
];

/// Files of one directory.
const IN_ONE: usize = 100;

impl Many {
    /// In a hundred things: 84 files, 10 datasets, 3 packages, 2 accounts, 1 service.
    pub(crate) fn new(count: usize) -> Self {
        let of = |percent: usize| count * percent / 100;
        let (datasets, accounts, services) = (of(10), of(2), of(1));
        let packages = Packages::Invented(of(3));
        let files = count - datasets - accounts - services - of(3);
        Self { files, datasets, accounts, services, packages }
    }

    /// The same for a machine that can be built: there are only so many packages, the rest are files.
    pub(crate) fn real(count: usize) -> Self {
        let many = Self::new(count);
        let files = count - many.datasets - many.accounts - many.services - REAL.len().min(count / 4);
        Self { files, packages: Packages::Real, ..many }
    }

    /// The manifest's text.
    pub(crate) fn manifest(&self) -> String {
        let lines = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<String>();
        [
            "name: many\npurpose: Many things\nowner: Nobody  n@example.com\ndistro: Debian 13\nprofile: server\n\n"
                .to_owned(),
            "network_topology:\n  wg0: TCP 22 SSH (backplane only)\n\n".to_owned(),
            "wireguard:\n  wg0: address=10.8.0.1/24  port=51820\n\n".to_owned(),
            format!("packages: {}\n\n", self.packages().join(", ")),
            "zfs_layout:\n".to_owned(),
            lines(self.datasets, |n| format!("  rpool/srv/many/d{n:04}: recordsize=16k  quota=1G  atime=off\n")),
            "\nusers:\n".to_owned(),
            lines(self.accounts, |n| format!("  many{n:04}: system  home=/srv\n")),
            "\nfiles:\n".to_owned(),
            lines(self.files.div_ceil(IN_ONE), |n| format!("  /usr/local/share/many/{n:03}: many/{n:03}\n")),
            "\nservices:\n".to_owned(),
            lines(self.services, |n| {
                format!("  - unit: many-{n:03}.service\n    command: /usr/bin/sleep infinity\n    user: many{n:04}\n    dataset: rpool/srv/many/d{n:04}\n")
            }),
        ]
        .concat()
    }

    fn packages(&self) -> Vec<String> {
        match self.packages {
            Packages::Invented(count) => (0..count).map(|n| format!("many-{n:05}")).collect(),
            Packages::Real => REAL.map(str::to_owned).to_vec(),
        }
    }

    /// The names of packages, accounts and services, each in a file of its own, for others that are to look at them.
    pub(crate) fn write_names(&self, dir: &Path) -> std::io::Result<()> {
        let numbered = |count: usize, name: fn(usize) -> String| (0..count).map(name).collect::<Vec<_>>();
        for (file, names) in [
            ("packages", self.packages()),
            ("accounts", numbered(self.accounts, |n| format!("many{n:04}"))),
            ("services", numbered(self.services, |n| format!("many-{n:03}.service"))),
        ] {
            fs::write(dir.join(file), names.join("\n") + "\n")?;
        }
        Ok(())
    }

    /// Writes the manifest and its files: a kilobyte each.
    pub(crate) fn write(&self, dir: &Path) -> std::io::Result<()> {
        fs::write(dir.join("appliance.manifest"), self.manifest())?;
        for number in 0..self.files {
            let folder = dir.join(format!("many/{:03}", number / IN_ONE));
            fs::create_dir_all(&folder)?;
            let text: String =
                (0..32).map(|line| format!("setting-{line:02} = value {number:08}\n")).collect();
            fs::write(folder.join(format!("{number:05}.conf")), text)?;
        }
        Ok(())
    }
}

/// What the manifest in a directory wants, as `kldload plan` reads it.
pub(crate) fn wanted_in(dir: &Path) -> Wanted {
    let text = fs::read_to_string(dir.join("appliance.manifest")).expect("it is there");
    let checked = kld_manifest::check(&text);
    let appliance = checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    Wanted::new(render(&appliance).expect("it renders"), dir, Default::default())
        .expect("its files are there")
}

/// A machine that is as wanted, and knows it. Applying ten thousand things would take too long: the tools make them.
pub(crate) fn as_wanted(wanted: &Wanted) -> Fake {
    let fake = machine_for(&[wanted]);
    let run = |cmd: Cmd| drop(fake.run(&cmd).unwrap_or_else(|error| panic!("{cmd}: {error:?}")));
    let put = |path: &str, entry: Entry| fake.put(path, &entry).expect("writable");
    let system = &wanted.system;
    for dataset in system.datasets.iter().filter(|dataset| dataset.created == Created::InImage) {
        let properties: Vec<(&str, &str)> =
            dataset.properties.iter().map(|item| (item.value.0.as_str(), item.value.1.as_str())).collect();
        let name = dataset.name.as_str();
        let there = fake.machine().datasets.contains_key(name);
        run(if there { zfs::set_cmd(name, &properties) } else { zfs::create_cmd(name, &properties) });
    }
    let policy = "/usr/sbin/policy-rc.d";
    put(policy, Entry { node: Node::File(b"exit 101\n".to_vec()), mode: 0o755, uid: 0, gid: 0 });
    let mine = system.packages.iter().filter(|item| item.because.layer != Layer::Boot);
    run(Cmd::new("apt-get").arg("install").args(mine.map(|item| item.value.as_str())));
    fake.remove(policy).expect("it was made");
    for user in &system.users {
        let (name, number) = (user.name.as_str(), user.uid.to_string());
        run(Cmd::new("groupadd").args(["--gid", &number, name]));
        let ids = ["--uid", &number, "--gid", &number];
        run(Cmd::new("useradd").args(ids).args(["--home-dir", &user.home, "--shell", &user.shell, name]));
    }
    let numbers = |file: &str| -> BTreeMap<String, u32> {
        let Some(Entry { node: Node::File(bytes), .. }) = fake.entry(file).expect("readable") else {
            return BTreeMap::new();
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let number = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((fields[0].to_owned(), fields[2].parse().ok()?))
        };
        text.lines().filter_map(number).collect()
    };
    let (users, groups) = (numbers("/etc/passwd"), numbers("/etc/group"));
    for (path, file) in &wanted.files {
        let (uid, gid) = (users[&file.owner.0], groups[&file.owner.1]);
        put(path, Entry { node: file.node.clone(), mode: file.mode, uid, gid });
    }
    for unit in &system.units {
        let verb = match unit.state {
            Enablement::Enabled => "enable",
            Enablement::Disabled => "disable",
            Enablement::Masked => "mask",
        };
        run(Cmd::new("systemctl").args([verb, "--quiet", unit.unit.as_str()]));
    }
    for service in wanted.services().chain(["nftables.service"]) {
        run(Cmd::new("systemctl").args(["restart", service]));
    }
    let Plan { items, .. } = plan(&fake, wanted, &BTreeMap::new()).expect("it can be looked at");
    let applied = serde_json::json!({ "number": 1, "manifest": wanted.digests.text, "items": items });
    let node = Node::File(applied.to_string().into_bytes());
    put("/var/lib/kldload/applied.json", Entry { node, mode: 0o600, uid: 0, gid: 0 });
    fake
}

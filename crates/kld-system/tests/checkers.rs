//! The tools' own checkers read what is rendered for them, in a root tree of the target distribution.
//!
//! `KLD_TOOLS_ROOT` names that tree; `cargo xtask test` makes it (Debian 13 with systemd, systemd-resolved,
//! systemd-timesyncd, nftables, prometheus, prometheus-node-exporter, sanoid, openssh-server, postgresql, zfsutils-linux,
//! zfs-zed, podman, sudo and gunicorn). Needs root: it mounts an overlay in a namespace of its own. Rendered files are laid over it at their real paths, in
//! a mount and network namespace of the test's own, so that the tools see the machine as it will be and the tree stays
//! as it was.

mod appliances;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use kld_manifest::model::Appliance;
use kld_system::{Content, Packet, Ruleset, System, Verdict, Way, render};

/// Makes the namespaces, lays the rendered files over the tree, and runs a tool in it.
const ENTER: &str = r#"
set -e
cd "$1"; lower="$2"; shift 2
mount -t overlay overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" merged
mount -t proc proc merged/proc
exec chroot merged "$@"
"#;

/// Units that the layers' own texts name, but that the tools' tree does not have.
const STUBS: &[&str] =
    &["/usr/bin/kldload", "/usr/local/bin/gitea", "/usr/sbin/nginx", "/usr/bin/redis-server"];

/// A machine laid out for its tools.
struct Machine {
    system: System,
    directory: tempfile::TempDir,
    tools: PathBuf,
}

/// What a tool said.
struct Answer {
    good: bool,
    text: String,
}

impl Machine {
    fn of(appliance: &Appliance) -> Self {
        let tools = std::env::var_os("KLD_TOOLS_ROOT").map(PathBuf::from).unwrap_or_else(|| {
            panic!(
                "KLD_TOOLS_ROOT is not set: run `cargo xtask test`, which makes a root tree with the tools"
            )
        });
        let system = render(appliance).expect("the appliance holds together");
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["upper", "work", "merged"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory");
        }
        let machine = Self { system, directory, tools };
        machine.lay_out();
        machine
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.directory.path().join("upper").join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.upper(path);
        fs::create_dir_all(path.parent().expect("an absolute path has a parent")).expect("directories");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }

    fn lay_out(&self) {
        for file in &self.system.files {
            let path = self.upper(&file.path);
            match &file.content {
                // The resolver's link and masked generators do not concern the tools.
                Content::Text(text) => self.write(&file.path, text, file.mode.expect("text has a mode")),
                Content::Directory => fs::create_dir_all(&path).expect("directories"),
                Content::Symlink(target) => {
                    fs::create_dir_all(path.parent().expect("an absolute path has a parent"))
                        .expect("directories");
                    symlink(target, &path).expect("a link");
                }
                Content::FromManifestDir(_) => {}
            }
        }
        for stub in STUBS {
            self.write(stub, "#!/bin/sh\nexit 0\n", 0o755);
        }
        // Parts of a drop-in need the unit they belong to.
        for (unit, program) in
            [("nginx.service", "/usr/sbin/nginx"), ("redis-server.service", "/usr/bin/redis-server")]
        {
            let text = format!("[Service]\nExecStart={program}\n");
            self.write(&format!("/usr/lib/systemd/system/{unit}"), &text, 0o644);
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "kld-host is not below this crate; a test may start the tools itself"
    )]
    fn run(&self, command: &[&str]) -> Answer {
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"])
            .arg(self.directory.path())
            .arg(&self.tools)
            .args(command)
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("LC_ALL", "C"),
                ("SYSTEMD_LOG_COLOR", "0"),
                ("SYSTEMD_COLORS", "0"),
            ])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("unshare(1) of util-linux");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Answer { good: output.status.success(), text }
    }

    /// Paths of rendered files below a directory.
    fn paths(&self, below: &str, suffix: &str) -> Vec<String> {
        let fits = |path: &&String| path.starts_with(below) && path.ends_with(suffix);
        self.system.files.iter().map(|f| &f.path).filter(fits).cloned().collect()
    }

    /// Every unit that a rendered file is, or adds to.
    fn units(&self) -> Vec<String> {
        let mut units: Vec<String> = self
            .paths("/etc/systemd/system/", "")
            .iter()
            .filter_map(|path| {
                let name =
                    Path::new(path).strip_prefix("/etc/systemd/system").ok()?.iter().next()?.to_str()?;
                Some(name.strip_suffix(".d").unwrap_or(name).to_owned())
            })
            .filter(|name| name.contains('.'))
            .collect();
        units.sort();
        units.dedup();
        units
    }
}

fn machines() -> Vec<(&'static str, Machine)> {
    vec![
        ("webapp", Machine::of(&appliances::webapp())),
        ("gitea", Machine::of(&appliances::gitea())),
        ("bare", Machine::of(&appliances::empty())),
        ("recipe", Machine::of(&appliances::recipe())),
        ("presets", Machine::of(&appliances::presets())),
    ]
}

#[test]
fn nft_accepts_the_firewall() {
    for (name, machine) in machines() {
        let answer = machine.run(&["nft", "-c", "-f", "/etc/nftables.conf"]);
        assert!(answer.good && answer.text.is_empty(), "{name}: {}", answer.text);
        // Twice for real: the second time replaces the first.
        let twice = "nft -f /etc/nftables.conf && nft -f /etc/nftables.conf && nft list tables";
        let answer = machine.run(&["sh", "-c", twice]);
        assert!(answer.good, "{name}: {}", answer.text);
        assert_eq!(answer.text.trim(), "table inet kldload", "{name}");
    }
}

/// Puts packets on their way, and says what the rules let through. Its input is JSON: interfaces, packets, the port of a published
/// packet's place on the machine. The other end of each interface is in the same namespace; what is written there arrives. A packet
/// carries its number: in the data of UDP, in the field of TCP that means nothing before an answer.
const SEND: &str = include_str!("send.py");

/// What [`SEND`] is told, and the packets in its order.
fn to_send(rules: &Ruleset) -> (Vec<Packet>, String) {
    let mut interfaces = BTreeSet::new();
    // Told apart by the port that they come from, where the rules ask for none.
    let usual = rules.flows()[0].packet.source_port;
    let packets: Vec<Packet> = (1024..)
        .zip(rules.flows())
        .map(|(free, flow)| {
            let source_port = if flow.packet.source_port == usual { free } else { flow.packet.source_port };
            Packet { source_port, ..flow.packet.clone() }
        })
        .collect();
    let said = packets.iter().map(|packet| {
        let (way, from, to, sender, published) = match &packet.way {
            Way::In { interface } => ("in", interface.as_str(), "", None, false),
            Way::Out { interface, sender } => ("out", "", interface.as_str(), sender.as_ref(), false),
            Way::Through { from, to, published } => ("through", from.as_str(), to.as_str(), None, *published),
        };
        interfaces.extend([from, to].into_iter().filter(|name| !name.is_empty() && *name != "lo"));
        serde_json::json!({
            "way": way, "came": from, "leaves": to, "published": published,
            // Packets of the kernel have no account; no rule for them asks for one.
            "sender": sender.map_or("root", |sender| &sender.name), "number": sender.and_then(|s| s.number),
            "from": packet.from, "to": packet.to, "tcp": packet.tcp,
            "sport": packet.source_port, "port": packet.port,
        })
    });
    let said: Vec<_> = said.collect();
    let text = serde_json::json!({ "interfaces": interfaces, "packets": said }).to_string();
    (packets, text)
}

#[test]
fn real_nft_decides_as_the_evaluator_does() {
    for (name, machine) in machines() {
        let rules = &machine.system.firewall;
        assert_eq!(rules.broken(), None, "{name}");
        let (packets, input) = to_send(rules);
        machine.write("/tmp/packets.json", &input, 0o644);
        machine.write("/tmp/send.py", SEND, 0o644);
        let answer = machine.run(&["python3", "/tmp/send.py"]);
        assert!(answer.good, "{name}: {}", answer.text);
        let passed: BTreeSet<usize> = answer.text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let wrong: Vec<String> = (1..)
            .zip(&packets)
            .filter(|(number, packet)| passed.contains(number) != (rules.verdict(packet) == Verdict::Accept))
            .map(|(number, packet)| format!("{packet}: nft passes it: {}", passed.contains(&number)))
            .collect();
        assert!(
            wrong.is_empty(),
            "{name}: {} of {}: {:#?}",
            wrong.len(),
            packets.len(),
            &wrong[..wrong.len().min(20)]
        );
        let count = |is: &dyn Fn(&Packet) -> bool| {
            let of = packets.iter().filter(|packet| is(packet));
            let accepted = of.clone().filter(|packet| rules.verdict(packet) == Verdict::Accept).count();
            (accepted, of.count() - accepted)
        };
        // Both families and all three ways, so that the comparison is one.
        let (opened, closed) = count(&|p| p.to.is_ipv6() && matches!(p.way, Way::Out { .. }));
        // The manifest of the presets keeps nobody in.
        assert!(opened > 0 && (closed > 0) != (name == "presets"), "{name}: {opened} {closed}");
        let (opened, closed) = count(&|p| p.to.is_ipv6() && matches!(p.way, Way::In { .. }));
        assert!(opened > 0 && closed > 0, "{name}: {opened} {closed}");
        let (passing, not_passing) = count(&|p| matches!(p.way, Way::Through { .. }));
        assert_eq!(passing > 0, name == "gitea", "{name}: {passing}");
        assert!(not_passing > 0 || ["bare", "presets"].contains(&name), "{name}");
    }
}

#[test]
fn nft_refuses_a_broken_firewall() {
    let machine = Machine::of(&appliances::webapp());
    let file = machine
        .system
        .files
        .iter()
        .find(|f| f.path == "/etc/nftables.conf")
        .expect("a server has a firewall");
    let Content::Text(text) = &file.content else { panic!("the firewall is text") };
    machine.write("/etc/nftables.conf", &text.replace("tcp dport 8000", "tcp dport nonsense-port"), 0o755);
    assert!(!machine.run(&["nft", "-c", "-f", "/etc/nftables.conf"]).good);
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    for (name, machine) in machines() {
        let units = machine.units();
        // Drop-ins for generated units need them to be there.
        let script =
            "/usr/lib/systemd/system-generators/zfs-mount-generator /etc/systemd/system /tmp /tmp 2>/dev/null
                      exec systemd-analyze verify --man=no --recursive-errors=one \"$@\"";
        let mut command = vec!["sh", "-c", script, "sh"];
        command.extend(units.iter().map(String::as_str));
        let answer = machine.run(&command);
        let complaints: Vec<_> = answer
            .text
            .lines()
            .filter(|line| units.iter().any(|u| line.contains(u.as_str())) || line.contains("kldload"))
            .collect();
        assert!(complaints.is_empty(), "{name}: {complaints:#?}");
        assert!(answer.good, "{name}: {}", answer.text);
    }
}

/// The exposure that `systemd-analyze security` gives a unit, times ten.
fn exposure(machine: &Machine, unit: &str) -> u32 {
    let answer = machine.run(&["systemd-analyze", "security", "--offline=true", "--no-pager", unit]);
    let line = answer
        .text
        .lines()
        .find(|l| l.contains("Overall exposure level"))
        .unwrap_or_else(|| panic!("{unit}: {}", answer.text));
    let number: String = line
        .rsplit(": ")
        .next()
        .unwrap_or_default()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    number.replace('.', "").parse().unwrap_or_else(|_| panic!("{unit}: {line}"))
}

#[test]
fn the_exposure_of_every_unit_stays_below_its_limit() {
    // In tenths. kldload's own units 2.0, what a manifest or a package brings 4.0.
    let webapp = [
        ("kldload-mesh.service", 20),
        ("kldload-metrics.service", 20),
        ("kldload-identity.service", 20),
        // Goes back to what was, wherever that is: it can have no file systems of its own.
        ("kldload-recover.service", 40),
        ("sanoid.service", 20),
        ("prometheus-node-exporter.service", 20),
        ("webapp.service", 20),
        ("kldload-setup-webapp.service", 40),
        ("kldload-before-snapshot-postgresql@17-main.service", 40),
        ("kldload-after-snapshot-postgresql@17-main.service", 40),
        ("postgresql@17-main.service", 40),
    ];
    let gitea = [
        ("kldload-key-srv-gitea\\x2dlfs.service", 20),
        ("kldload-replicate.service", 20),
        ("gitea.service", 20),
        ("nginx.service", 40),
    ];
    let mut measured = Vec::new();
    for (machine, limits) in [
        (Machine::of(&appliances::webapp()), webapp.as_slice()),
        (Machine::of(&appliances::gitea()), gitea.as_slice()),
    ] {
        measured.extend(limits.iter().map(|(unit, limit)| (*unit, exposure(&machine, unit), *limit)));
    }
    let over: Vec<_> = measured.iter().filter(|(_, is, limit)| is > limit).collect();
    assert!(over.is_empty(), "over their limits, in tenths: {over:?}; all: {measured:?}");
}

#[test]
fn every_preset_has_the_exposure_that_it_had() {
    let machine = Machine::of(&appliances::presets());
    let mut page = String::new();
    for service in appliances::presets().services {
        let unit = if service.unit.as_str() == "postgresql.service" {
            "postgresql@17-main.service"
        } else {
            service.unit.as_str()
        };
        let preset = service.preset.map_or("-", |preset| preset.value.name());
        let tenths = exposure(&machine, unit);
        page.push_str(&format!("{preset:14} {unit:26} {}.{}\n", tenths / 10, tenths % 10));
    }
    expect_file!["snapshots/exposures.txt"].assert_eq(&page);
}

#[test]
fn the_mount_generator_makes_units_from_the_cache() {
    let machine = Machine::of(&appliances::gitea());
    let script = "mkdir /tmp/n /tmp/e /tmp/l; /usr/lib/systemd/system-generators/zfs-mount-generator /tmp/n /tmp/e /tmp/l && cd /tmp/n && ls && cat 'srv-gitea\\x2dlfs.mount' zfs-load-key*.service";
    let answer = machine.run(&["sh", "-c", script]);
    assert!(answer.good, "{}", answer.text);
    for wanted in [
        "srv-gitea.mount",
        "var-log.mount",
        "var-lib-postgresql.mount",
        "home.mount",
        "What=rpool/srv/gitea-lfs",
        "kldload-key-srv-gitea",
        "After=kldload-identity.service",
    ] {
        assert!(answer.text.contains(wanted), "no `{wanted}` in {}", answer.text);
    }
    assert!(!answer.text.lines().any(|l| l == "srv.mount"), "{}", answer.text);
}

#[test]
fn the_boot_has_no_ordering_cycle() {
    let wants = "/etc/systemd/system/sysinit.target.wants";
    let more = "/etc/systemd/system/multi-user.target.wants";
    let script = format!(
        "mkdir /tmp/l; /usr/lib/systemd/system-generators/zfs-mount-generator /etc/systemd/system /tmp/l /tmp/l
         mkdir -p {wants} {more}; cd /etc/systemd/system
         ln -s ../kldload-identity.service {wants}/; for u in *.service; do ln -s ../$u {more}/; done
         systemd-analyze verify --man=no local-fs.target sysinit.target network.target multi-user.target"
    );
    for (name, machine) in machines() {
        let answer = machine.run(&["sh", "-c", &script]);
        assert!(!answer.text.contains("cycle"), "{name}: {}", answer.text);
        assert!(!answer.text.contains("Failed to create"), "{name}: {}", answer.text);
    }
    // The check itself: a cycle is seen.
    let machine = Machine::of(&appliances::gitea());
    let drop_in = "/etc/systemd/system/kldload-identity.service.d/cycle.conf";
    machine.write(drop_in, "[Unit]\nAfter=local-fs.target\n", 0o644);
    let answer = machine.run(&["sh", "-c", &script]);
    assert!(answer.text.contains("cycle"), "{}", answer.text);
}

#[test]
fn prometheus_accepts_alerts_and_scrape_configuration() {
    for (name, machine) in machines() {
        for rules in machine.paths("/usr/share/kldload/prometheus/rules/", ".yml") {
            let answer = machine.run(&["promtool", "check", "rules", &rules]);
            assert!(answer.good, "{name}: {}", answer.text);
        }
        for scrape in machine.paths("/usr/share/kldload/prometheus/scrape/", ".yml") {
            machine.write("/tmp/prometheus.yml", &format!("scrape_config_files: [{scrape}]\n"), 0o644);
            let answer = machine.run(&["promtool", "check", "config", "/tmp/prometheus.yml"]);
            assert!(answer.good, "{name}: {}", answer.text);
        }
    }
    let webapp = Machine::of(&appliances::webapp());
    assert_eq!(
        webapp.paths("/usr/share/kldload/prometheus/", ".yml").len(),
        2,
        "alerts and a scrape configuration"
    );
}

#[test]
fn sanoid_takes_snapshots_by_the_policy() {
    for appliance in [appliances::webapp(), appliances::gitea()] {
        let machine = Machine::of(&appliance);
        // No pool here: sanoid asks a stand-in for the datasets, and must want to snapshot each of them.
        machine.write("/usr/sbin/zfs", "#!/bin/sh\ncase \"$*\" in *snapshot*) echo ;; *) for d in $KLD_DATASETS; do printf '%s\\n' \"$d\"; done ;; esac\n", 0o755);
        let datasets: Vec<_> = appliance.datasets.iter().map(|d| d.name.to_string()).collect();
        let script = format!(
            "export KLD_DATASETS='{}'; mkdir -p /run/sanoid; exec sanoid --configdir /etc/sanoid --readonly --take-snapshots --verbose",
            datasets.join(" ")
        );
        let answer = machine.run(&["sh", "-c", &script]);
        assert!(answer.good, "{}", answer.text);
        for dataset in datasets {
            assert!(
                answer.text.contains(&format!("taking snapshot {dataset}@autosnap")),
                "{dataset}: {}",
                answer.text
            );
        }
    }
}

#[test]
fn sshd_accepts_its_configuration() {
    for (name, machine) in machines() {
        let answer = machine.run(&["sh", "-c", "mkdir -p /run/sshd; ssh-keygen -q -A; exec sshd -T"]);
        assert!(answer.good, "{name}: {}", answer.text);
        let listening: Vec<_> = answer.text.lines().filter(|l| l.starts_with("listenaddress ")).collect();
        // The others have no plane.
        if !matches!(name, "bare" | "presets") {
            assert_eq!(listening, ["listenaddress 10.8.0.1:22"], "{name}");
            assert!(answer.text.contains("passwordauthentication no"), "{name}: {}", answer.text);
        }
    }
}

#[test]
fn sudo_accepts_who_may_become_root() {
    let machine = Machine::of(&appliances::webapp());
    let answer = machine.run(&["visudo", "-c", "-f", "/etc/sudoers.d/50-kldload"]);
    assert!(answer.good, "{}", answer.text);
}

#[test]
fn podman_makes_a_unit_from_the_container() {
    let machine = Machine::of(&appliances::gitea());
    let answer = machine.run(&["/usr/lib/systemd/system-generators/podman-system-generator", "--dryrun"]);
    assert!(answer.good, "{}", answer.text);
    for wanted in [
        "---runner.service---",
        "--publish 10.8.0.1:8081:80/tcp",
        "--cap-drop all",
        "After=kldload-mesh.service",
    ] {
        assert!(answer.text.contains(wanted), "no `{wanted}` in {}", answer.text);
    }
}

//! The tools that `node init` starts, with the state that the real ones keep.
//!
//! Their state is kept in the fake machine's files, so that it can be looked at and survives what the real one does:
//! `/dataset/NAME/PROPERTY` are ZFS properties, `/content/NAME/…` is what a dataset holds while it is not mounted on
//! [`FILL`], `/volume/DEVICE/…` is a seed volume.

use crate::machine::fake::{FakeMachine, Files};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_disk::BootEntry;
use std::path::{Path, PathBuf};

/// A file that the image carries below the mount point of an encrypted dataset.
pub(super) const IMAGE_FILE: &str = "/srv/vault/hooks/post";
/// The key that a dataset is encrypted with.
pub(super) const KEY_OF: &str = "/dataset/rpool/srv/vault/wrapping";
const FILL: &str = "/run/kldload/fill";
const SEED: &str = "/run/kldload/seed";
const MOUNTS: &str = "/proc/self/mounts";

/// A machine with every tool, on a disk of 2 GiB that holds an image of 512 MiB.
pub(super) fn installed() -> FakeMachine {
    let machine = FakeMachine::default();
    for (path, text) in [
        (MOUNTS, "systemd-1 /efi autofs rw 0 0\n"),
        ("/sys/module/spl/parameters/spl_hostid", "0\n"),
        ("/etc/ssh/sshd_config", ""),
        ("/sys/devices/vda/size", "4194304"),
        ("/sys/devices/vda/vda2/partition", "2"),
        ("/sys/devices/vda/vda2/start", "133120"),
        ("/sys/devices/vda/vda2/size", "915456"),
        ("/dataset/rpool/mounted", "no"),
        ("/dataset/rpool/srv/mounted", "no"),
    ] {
        machine.put(path, text);
    }
    machine.link("/dev/disk/by-partlabel/rpool", "/dev/vda2");
    machine.link("/sys/class/block/vda2", "/sys/devices/vda/vda2");
    let mut made = 0;
    machine.tool("wg", move |args, input, _| match &args[0][..] {
        "genkey" => {
            made += 1;
            Ok(format!("{}\n", STANDARD.encode([made; 32])).into_bytes())
        }
        _ => {
            let private = STANDARD.decode(input.trim_ascii()).map_err(|error| error.to_string())?;
            let public: Vec<u8> = private.iter().map(|byte| byte ^ 0x80).collect();
            Ok(format!("{}\n", STANDARD.encode(public)).into_bytes())
        }
    });
    machine.tool("ssh-keygen", |args, _, files| {
        if args == ["-A"] {
            for kind in ["ecdsa", "ed25519", "rsa"] {
                files.put(&format!("/etc/ssh/ssh_host_{kind}_key"), "k", 0o600);
                files.put(&format!("/etc/ssh/ssh_host_{kind}_key.pub"), "p", 0o644);
            }
            return Ok(vec![]);
        }
        let path = args.last().ok_or("no file")?;
        if files.text(path).is_some() {
            return Err(format!("{path} already exists. Overwrite (y/n)?"));
        }
        files.put(path, "k", 0o600);
        files.put(&format!("{path}.pub"), "p", 0o644);
        Ok(vec![])
    });
    machine.tool("systemd-creds", |args, input, files| match &args[0][..] {
        "encrypt" => Ok(format!("{}:{}", args[1], STANDARD.encode(input)).into_bytes()),
        _ => {
            let text = files.text(&args[2]).ok_or("no such file")?;
            let (name, body) = text.split_once(':').ok_or("not a credential")?;
            if name == args[1] {
                STANDARD.decode(body).map_err(|e| e.to_string())
            } else {
                Err("other name".into())
            }
        }
    });
    machine.tool("mount", mount);
    machine.tool("umount", umount);
    machine.tool("cp", |args, _, files| {
        let from = args[2].strip_suffix("/.").ok_or("the content is copied, not the folder")?;
        move_files(files, from, &args[3], true);
        Ok(vec![])
    });
    machine.tool("find", |args, _, files| {
        files.0.retain(|path, _| !path.starts_with(&args[0]) || path == Path::new(&args[0]));
        Ok(vec![])
    });
    machine.answer("chown", "");
    machine.answer("chmod", "");
    machine.answer("partx", "");
    machine.answer("udevadm", "");
    machine.answer("systemctl", "");
    machine.tool("systemd-run", |args, input, files| {
        let options = args.iter().take_while(|arg| arg.starts_with("--")).count();
        match args[options..].split_first() {
            Some((tool, args)) if tool == "zfs" => zfs(args, input, files),
            other => Err(format!("what systemd runs for the node is not {other:?}")),
        }
    });
    machine.tool("sfdisk", |args, input, files| {
        if args.iter().any(|arg| arg == "-N") {
            assert_eq!(input, b",+\n");
            files.put("/sys/devices/vda/vda2/size", (4_194_304 - 133_120 - 2048).to_string(), 0o644);
            files.put("/room", "1677721600", 0o644);
        }
        Ok(vec![])
    });
    machine.tool("zpool", |args, _, files| {
        let property = args.get(4).map(String::as_str);
        Ok(match (&args[0][..], property) {
            ("get", Some("guid")) => "1234567890\n".into(),
            ("get", Some("expandsize")) => files.text("/room").unwrap_or("-".into()).into_bytes(),
            ("get", Some("size")) => "2076180480\n".into(),
            ("status", _) => br#"{"pools":{"rpool":{"state":"ONLINE","vdevs":{"rpool":{"vdevs":{"x":
                {"path":"/dev/disk/by-partlabel/rpool","guid":42}}}}}}}"#
                .to_vec(),
            ("online", _) => {
                files.0.remove(Path::new("/room"));
                vec![]
            }
            _ => vec![],
        })
    });
    machine.tool("zdb", |_, _, files| {
        let id = files.text("/sys/module/spl/parameters/spl_hostid").unwrap_or_default();
        Ok(format!("    txg: 9\n    hostid: {}\n    hostname: 'web'\n", id.trim()).into_bytes())
    });
    machine.tool("zfs", zfs);
    machine
}

/// What a power cut leaves: RAM disks are empty, nothing is mounted, no key is loaded.
pub(super) fn reboot(machine: &FakeMachine) {
    machine.cut_power();
    let mut state = machine.state();
    let files = &mut state.files;
    let _ = umount(&[FILL.to_owned()], &[], files);
    files.0.retain(|path, _| !path.starts_with("/run/kldload"));
    files.put(MOUNTS, "systemd-1 /efi autofs rw 0 0\n", 0o644);
    let names: Vec<PathBuf> = files.0.keys().filter(|path| path.starts_with("/dataset")).cloned().collect();
    for path in names {
        let value = match path.file_name().and_then(|name| name.to_str()) {
            Some("mounted") => "no",
            Some("keystatus") => "unavailable",
            _ => continue,
        };
        files.put(&path.to_string_lossy(), value, 0o644);
    }
    // As systemd-boot does: the default entry, else another that has a kernel.
    let bootable = |name: &str| {
        let text = files.text(&format!("/efi/loader/entries/{name}.conf"))?;
        BootEntry::parse(&text).ok().filter(|entry| entry.get("linux").is_some())
    };
    let entry = bootable("debian").or_else(|| bootable("debian.stand-in"));
    let id = crate::identity::host_id::entry_id(&entry.expect("the loader finds an entry that boots"));
    files.put("/sys/module/spl/parameters/spl_hostid", id.unwrap_or(0).to_string(), 0o644);
}

fn move_files(files: &mut Files, from: &str, to: &str, keep: bool) {
    let moved: Vec<PathBuf> = files.0.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in moved {
        let target = Path::new(to).join(path.strip_prefix(from).unwrap());
        let file = files.0[&path].clone();
        if !keep {
            files.0.remove(&path);
        }
        files.0.insert(target, file);
    }
}

fn mount(args: &[String], _: &[u8], files: &mut Files) -> Result<Vec<u8>, String> {
    let target = args.last().ok_or("no mount point")?.clone();
    let table = files.text(MOUNTS).unwrap_or_default();
    if table.lines().any(|line| line.contains(&format!(" {target} ")) && !line.contains("autofs")) {
        return Err(format!("{target} is mounted already"));
    }
    let mut source = "/dev/vda1".to_owned();
    match &target[..] {
        FILL => {
            source = args[4].clone();
            if property(files, &source, "keystatus") == "unavailable" {
                return Err("the key is not loaded".into());
            }
            move_files(files, &format!("/content/{source}"), FILL, false);
        }
        SEED => move_files(files, &args[4].replace("/dev", "/volume"), SEED, true),
        _ => {}
    }
    files.put(MOUNTS, format!("{table}{source} {target} kind rw 0 0\n"), 0o644);
    Ok(vec![])
}

fn umount(args: &[String], _: &[u8], files: &mut Files) -> Result<Vec<u8>, String> {
    let target = &args[0];
    let table = files.text(MOUNTS).unwrap_or_default();
    let line =
        table.lines().find(|line| line.contains(&format!(" {target} "))).ok_or("not mounted")?.to_owned();
    match &target[..] {
        FILL => {
            let dataset = line.split(' ').next().ok_or("a line without source")?;
            move_files(files, FILL, &format!("/content/{dataset}"), false);
        }
        _ => files.0.retain(|path, _| !path.starts_with(target)),
    }
    let rest: String =
        table.lines().filter(|other| **other != line).map(|line| format!("{line}\n")).collect();
    files.put(MOUNTS, rest, 0o644);
    Ok(vec![])
}

fn property(files: &Files, dataset: &str, name: &str) -> String {
    let own = |of: &Path, name: &str| files.text(&format!("/dataset/{}/{name}", of.display()));
    let root = || Path::new(dataset).ancestors().find(|of| own(of, "keylocation").is_some());
    let value = match name {
        "encryptionroot" => root().map(|of| of.display().to_string()),
        // Those of the root, for all that has its key.
        "keystatus" | "keyformat" => {
            own(Path::new(dataset), name).or_else(|| root().and_then(|of| own(of, name)))
        }
        "canmount" => own(Path::new(dataset), name).or(Some("on".to_owned())),
        name => own(Path::new(dataset), name),
    };
    value.unwrap_or("-".into())
}

/// What `keylocation` gives, as ZFS keeps it.
fn given(files: &Files, location: &str, input: &[u8]) -> Result<String, String> {
    if location != "prompt" {
        return files.text(location.trim_start_matches("file://")).ok_or("no key file".into());
    }
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.len() {
        8..=512 => Ok(String::from_utf8_lossy(line).into_owned()),
        0..8 => Err("Passphrase too short (min 8).".into()),
        _ => Err("Passphrase too long (max 512).".into()),
    }
}

fn zfs(args: &[String], input: &[u8], files: &mut Files) -> Result<Vec<u8>, String> {
    let dataset = args.last().ok_or("no dataset")?.clone();
    let path = |name: &str| format!("/dataset/{dataset}/{name}");
    let exists = files.text(&path("mounted")).is_some();
    if !exists && args[0] != "create" {
        return Err(format!("cannot open '{dataset}': dataset does not exist"));
    }
    match &args[0][..] {
        "list" if args.contains(&"--".to_owned()) => {
            let of = args[3].split(',').map(|name| match name {
                "name" => dataset.clone(),
                name => property(files, &dataset, name),
            });
            return Ok((of.collect::<Vec<_>>().join("\t") + "\n").into_bytes());
        }
        "list" => {
            let names = files.0.keys().filter(|path| path.ends_with("mounted"));
            let names = names.filter_map(|path| path.strip_prefix("/dataset").ok()?.parent());
            return Ok(names.map(|name| format!("{}\n", name.display())).collect::<String>().into_bytes());
        }
        "get" => {
            let names = &args[args.len() - 2];
            let below = Path::new("/dataset").join(&dataset);
            let is_recursive = args[1].contains('r');
            let of = files.0.keys().filter(|path| path.ends_with("mounted")).filter_map(|path| path.parent());
            let of = of.filter(|of| *of == below || (is_recursive && of.starts_with(&below)));
            let line = |of: &Path, name: &str| {
                let of = of.strip_prefix("/dataset").unwrap_or(of).to_string_lossy();
                format!("{of}\t{name}\t{}\tlocal\n", property(files, &of, name))
            };
            let lines = of.flat_map(|of| names.split(',').map(move |name| line(of, name)));
            return Ok(lines.collect::<String>().into_bytes());
        }
        "allow" => {
            let [_, who, account, what, _] = args else { return Err("zfs allow usage".into()) };
            assert_eq!((&who[..], &what[..]), ("-u", "send,hold"));
            files.put(&path("allowed"), account.as_str(), 0o644);
        }
        "create" if exists => return Err("dataset already exists".into()),
        "create" | "set" => {
            if args[0] == "create" {
                let parent = Path::new(&dataset).parent().ok_or("no parent")?;
                files
                    .text(&format!("/dataset/{}/mounted", parent.display()))
                    .ok_or("parent does not exist")?;
                if property(files, &parent.to_string_lossy(), "keystatus") == "unavailable" {
                    return Err("parent key must be loaded".into());
                }
            }
            for (name, value) in args.iter().filter_map(|arg| arg.split_once('=')) {
                if name == "keylocation" {
                    let key = value.strip_prefix("file://").ok_or("not a file")?;
                    let len = files.0.get(Path::new(key)).ok_or("no key file")?.bytes.len();
                    if len != 32 {
                        return Err(format!("a raw key has 32 bytes, not {len}"));
                    }
                    files.put(&path("keystatus"), "available", 0o644);
                    let bytes = files.0[Path::new(key)].bytes.clone();
                    files.put(&path("wrapping"), bytes, 0o600);
                }
                files.put(&path(name), value, 0o644);
            }
            if args[0] == "create" {
                files.put(&path("mounted"), "no", 0o644);
            }
        }
        "inherit" => drop(files.0.remove(Path::new(&path(&args[1])))),
        "load-key" | "change-key" => {
            if files.text(&path("refuses")).as_deref() == Some(&args[0]) {
                return Err(format!("{} of '{dataset}' is refused", args[0]));
            }
            let new = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(&format!("{name}=")[..]));
            let known = files.text(&path("keylocation")).ok_or("not the root of an encrypted tree")?;
            let key = given(files, new("keylocation").unwrap_or(&known), input)?;
            if args[0] == "change-key" {
                if files.text(&path("keystatus")).as_deref() != Some("available") {
                    return Err("the old key must be loaded first".into());
                }
                for name in ["keyformat", "keylocation"] {
                    new(name).into_iter().for_each(|value| files.put(&path(name), value, 0o644));
                }
                files.put(&path("wrapping"), key, 0o600);
            } else if files.text(&path("wrapping")) != Some(key) {
                return Err(format!("Key load error: Incorrect key provided for '{dataset}'."));
            } else if args[1] != "-n" {
                if files.text(&path("keystatus")).as_deref() == Some("available") {
                    return Err(format!("Key load error: Key already loaded for '{dataset}'."));
                }
                files.put(&path("keystatus"), "available", 0o644);
            }
        }
        "mount" => {
            if property(files, &dataset, "keystatus") == "unavailable" {
                return Err("encryption key not loaded".into());
            }
            files.put(&path("mounted"), "yes", 0o644);
        }
        other => return Err(format!("unknown command '{other}'")),
    }
    Ok(vec![])
}

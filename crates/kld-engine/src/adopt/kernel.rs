//! What the kernel itself uses of a directory, without a process that has it open: swap files, files behind loop devices, layers
//! of overlays, and what is exported over NFS.

use std::collections::BTreeSet;
use std::fs;

use kld_host::mounts::{self, Mount, is_within};

use super::users::User;

pub(super) fn kernel(does: String) -> User {
    User { name: "kernel".to_owned(), process: None, unit: None, does }
}

/// Swap files and the files behind loop devices.
pub(super) fn files(path: &str) -> Vec<User> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let swaps = swaps.filter(|file| is_within(file, path)).map(|file| kernel(format!("swaps to {file}")));
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let file = file.trim_end().to_owned();
        let device = entry.file_name().to_string_lossy().into_owned();
        is_within(&file, path).then(|| kernel(format!("has {file} behind /dev/{device}")))
    });
    swaps.chain(loops).collect()
}

/// Where an overlay is mounted that has a layer in a directory, which `is_of_it` knows; and that layer.
pub(super) fn overlay<'a>(mounts: &'a [Mount], is_of_it: &dyn Fn(&str) -> bool) -> Option<(&'a str, String)> {
    let overlays = mounts.iter().filter(|mount| mount.kind == "overlay");
    let with_layers =
        overlays.flat_map(|mount| layers(&mount.options).into_iter().map(|of| (&*mount.point, of)));
    with_layers.into_iter().find(|(_, layer)| is_of_it(layer))
}

/// The directories that an overlay is made of: *Documentation/filesystems/overlayfs.rst*.
fn layers(options: &str) -> Vec<String> {
    let options = options.split(',').filter_map(|option| option.split_once('='));
    let layers = options.flat_map(|(name, value)| {
        let value = mounts::unescape(value);
        match name {
            "lowerdir" => split(&value),
            "lowerdir+" | "datadir+" | "upperdir" | "workdir" => vec![value],
            _ => Vec::new(),
        }
    });
    layers.collect()
}

/// `a:b`; a colon of a name is `\:`.
fn split(layers: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut letters = layers.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ':' => all.push(String::new()),
            '\\' => all.last_mut().into_iter().for_each(|last| last.extend(letters.next())),
            _ => all.last_mut().into_iter().for_each(|last| last.push(letter)),
        }
    }
    // What holds nothing but data is behind two colons.
    all.retain(|layer| !layer.is_empty());
    all
}

/// What is exported: what clients have asked for lately, as the kernel knows it, and what they may ask for (exportfs(8)).
pub(super) fn exports() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    read("/proc/fs/nfsd/exports") + &read("/var/lib/nfs/etab")
}

/// Exports of a directory, of something in it, or of what it lies in: whoever goes through those sees what is below the new mount.
pub(super) fn exporting(exports: &str, mounts: &[Mount], path: &str) -> Vec<User> {
    let device = |at: &str| mounts::above(mounts, at).map(|mount| &mount.device);
    let is_it = |export: &String| {
        is_within(export, path) || is_within(path, export) && device(export) == device(path)
    };
    let found: BTreeSet<String> = exports.lines().filter_map(exported).filter(is_it).collect();
    found.into_iter().map(|export| kernel(format!("exports {export} over NFS"))).collect()
}

/// `/srv/app  192.168.1.0/24(rw,sync)`.
fn exported(line: &str) -> Option<String> {
    let (path, client) = line.split_once(char::is_whitespace).filter(|_| !line.starts_with('#'))?;
    let options = client.split_once('(')?.1.trim_end().trim_end_matches(')');
    // What the kernel knows not to be exported has none; NFS 4 shows all that is on the way to an export.
    let is_one = !options.is_empty() && options.split(',').all(|option| option != "v4root");
    is_one.then(|| mounts::unescape(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_overlays_are_directories_that_are_used() {
        let of = |line: &str| {
            let mounts = mounts::parse(line);
            overlay(&mounts, &|at| is_within(at, "/srv/app")).map(|(point, layer)| format!("{point} {layer}"))
        };
        let line = |options: &str| format!("60 22 0:50 / /mnt/merged rw - overlay overlay rw,{options}\n");
        for (options, want) in [
            ("lowerdir=/srv/app/lower,upperdir=/u,workdir=/w", Some("/srv/app/lower")),
            ("lowerdir=/a:/srv/app:/b,upperdir=/u,workdir=/w", Some("/srv/app")),
            ("lowerdir=/a,upperdir=/srv/app/up,workdir=/w", Some("/srv/app/up")),
            ("lowerdir=/a,upperdir=/u,workdir=/srv/app/work", Some("/srv/app/work")),
            ("lowerdir+=/a,lowerdir+=/srv/app/x:y,datadir+=/d", Some("/srv/app/x:y")),
            ("lowerdir=/a::/srv/app/data", Some("/srv/app/data")),
            // A comma and a colon of the name.
            (r"lowerdir=/srv/app/a\054b\134:c:/z", Some("/srv/app/a,b:c")),
            ("lowerdir=/srv/apple:/srv,upperdir=/u,workdir=/w,xino=off", None),
            ("lowerdir=l/ABC:l/DEF", None),
        ] {
            assert_eq!(of(&line(options)), want.map(|layer| format!("/mnt/merged {layer}")), "{options}");
        }
        let other = "60 22 0:50 / /mnt rw - zfs pool rw,upperdir=/srv/app\n";
        assert_eq!(of(other), None);
    }

    #[test]
    fn exports_are_used_by_whoever_has_mounted_them() {
        let mounts = mounts::parse(
            "22 1 0:23 / / rw - zfs r/d rw\n40 22 0:40 / /srv rw - zfs r/srv rw\n41 40 0:41 / /srv/app/x rw - zfs r/x rw\n",
        );
        let said = |exports: &str| {
            let users = exporting(exports, &mounts, "/srv/app");
            users.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let exports = "# Version 1.1\n# Path Client(Flags) # IPs\n\
            /\t*(ro,root_squash,sync,v4root,fsid=0)\n\
            /srv/app\t10.0.0.0/8(rw,root_squash,sync,wdelay,no_subtree_check,uuid=0:0,sec=1)\n\
            /srv/app\t192.168.1.7(ro)\n\
            /srv/app/a\\040b\t*(ro)\n\
            /srv/app/gone\t*()\n\
            /srv/apple\t*(ro)\n";
        assert_eq!(said(exports), "kernel exports /srv/app over NFS; kernel exports /srv/app/a b over NFS");
        // What it lies in, when that is the same file system.
        assert_eq!(said("/srv\t*(rw,sync)\n"), "kernel exports /srv over NFS");
        assert_eq!(said("/\t*(rw,sync)\n/home\t*(rw)\n"), "");
        assert_eq!(said(""), "");
    }
}

//! The Debian family: mmdebstrap command lines.
//!
//! Hooks are fixed texts of this module; nothing from a manifest ever becomes shell. Special hooks (`upload`,
//! `download`) are carried out by the calling user, so that they also work from a user namespace.

use std::path::Path;

use kld_host::Cmd;
use kld_system::{DistroSpec, PreparedFile};

use crate::lock::Lock;

use super::{ModuleLayer, RootTree, Source, pins};

const MODULES_SCRIPT: &str = "zfs-modules.sh";
const PACKAGES_SCRIPT: &str = "packages.sh";
const HOSTID_HOOK: &str = "no-hostid.sh";
const PINS: &str = "preferences";
const PINS_IN_TREE: &str = "/etc/apt/preferences.d/kldload";
const ZFS_MODULES: &str = include_str!("zfs-modules.sh");
const PACKAGES: &str = include_str!("packages.sh");
const NO_HOSTID: &str = include_str!("no-hostid.sh");

/// Compiles the modules of the distribution's current kernel and leaves `zfs-modules.deb`, `Packages` and
/// `kernel` (its release) in `out`. Nothing else of the layer is kept: no compiler ever gets near an image.
///
/// The files of [`module_layer_files`] must lie in `out` when it runs.
pub fn module_layer_cmd(layer: &ModuleLayer<'_>, out: &Path) -> Cmd {
    let script = out.join(MODULES_SCRIPT);
    let locked_kernel = layer.lock.map(|lock| lock.kernel.as_str());
    // The headers are enough: dkms compiles for what /lib/modules has headers of.
    let headers = layer.distro.kernel_package.replacen("image", "headers", 1);
    let mut packages =
        vec![locked_kernel.map_or(headers.clone(), |release| format!("linux-headers-{release}"))];
    packages.extend(layer.distro.module_build.packages.iter().filter(|p| **p != headers).cloned());
    packages.extend(["build-essential", "xz-utils"].map(str::to_owned));
    let cmd = base_cmd(layer.distro, layer.epoch)
        // Headers bring their image, whose initramfs nobody will boot: kernel-img.conf(5), run-parts of postinst.d.
        .env("INITRD", "No")
        .arg("--variant=minbase")
        .arg("--format=null")
        .arg(format!("--include={}", packages.join(",")))
        .arg(special("setup", "upload", &[&out.join(PINS), Path::new(PINS_IN_TREE)]))
        .arg("--essential-hook=mkdir -p \"$1/kldload\"")
        .arg(special("customize", "upload", &[&script, Path::new("/kldload/zfs-modules.sh")]))
        .arg("--customize-hook=chroot \"$1\" sh /kldload/zfs-modules.sh");
    let cmd = ["zfs-modules.deb", "Packages", "kernel"].into_iter().fold(cmd, |cmd, name| {
        cmd.arg(special("customize", "download", &[&Path::new("/kldload").join(name), &out.join(name)]))
    });
    with_suite(cmd, layer.distro, layer.source, None)
}

/// Makes a root tree and leaves `tree.tar` and `packages` (the list that [`Lock::from_list`] reads) in `out`.
///
/// The files of [`root_tree_files`] must lie in `out` when it runs.
pub fn root_tree_cmd(tree: &RootTree<'_>, out: &Path) -> Cmd {
    let (list, no_hostid) = (out.join(PACKAGES_SCRIPT), out.join(HOSTID_HOOK));
    let mut names: Vec<String> = vec![
        format!("linux-image-{}", tree.kernel),
        format!("zfs-modules-{}", tree.kernel),
        "zstd".to_owned(),
    ];
    names.extend(tree.packages.iter().cloned());
    names.sort();
    names.dedup();
    let mut cmd = base_cmd(tree.distro, tree.epoch).arg("--variant=minbase").arg("--format=tar");
    for (option, patterns) in
        [("path-exclude", &tree.distro.dpkg.exclude), ("path-include", &tree.distro.dpkg.include)]
    {
        cmd = patterns.iter().fold(cmd, |cmd, pattern| cmd.arg(format!("--dpkgopt={option}={pattern}")));
    }
    cmd = cmd
        .arg(format!("--include={}", names.join(",")))
        // A package source inside the tree itself: apt runs outside, so the path is spelt with the tree's root.
        .arg(
            "--setup-hook=mkdir -p \"$1/kldload\" && \
             printf 'deb [trusted=yes] copy:%s/kldload ./\\n' \"$1\" > \"$1/etc/apt/sources.list.d/kldload.list\"",
        );
    for name in ["zfs-modules.deb", "Packages"] {
        cmd = cmd.arg(special(
            "setup",
            "upload",
            &[&tree.modules.join(name), &Path::new("/kldload").join(name)],
        ));
    }
    cmd = cmd.arg(special("setup", "upload", &[&out.join(PINS), Path::new(PINS_IN_TREE)]));
    for prepared in &tree.distro.prepared {
        let file = out.join(prepared_name(prepared));
        let folder = Path::new(&prepared.path).parent().unwrap_or(Path::new("/"));
        cmd = cmd.arg(format!("--essential-hook=mkdir -p \"$1\"{}", quote(folder))).arg(special(
            "essential",
            "upload",
            &[&file, Path::new(&prepared.path)],
        ));
    }
    cmd = cmd
        .arg("--essential-hook=mkdir -p \"$1/etc/initramfs-tools/hooks\"")
        .arg(special(
            "essential",
            "upload",
            &[&no_hostid, Path::new("/etc/initramfs-tools/hooks/kldload-no-hostid")],
        ))
        .arg("--essential-hook=chmod 755 \"$1/etc/initramfs-tools/hooks/kldload-no-hostid\"")
        .arg(special("customize", "upload", &[&list, Path::new("/kldload-packages.sh")]))
        .arg("--customize-hook=chroot \"$1\" sh /kldload-packages.sh")
        .arg(special("customize", "download", &[Path::new("/kldload-packages"), &out.join("packages")]))
        .arg(
            "--customize-hook=rm -r \"$1/kldload\" \"$1/kldload-packages.sh\" \"$1/kldload-packages\" \
             \"$1/etc/apt/sources.list.d/kldload.list\" \"$1/etc/apt/preferences.d/kldload\" \
             \"$1/etc/initramfs-tools/hooks/kldload-no-hostid\"",
        );
    with_suite(cmd, tree.distro, tree.source, Some(&out.join("tree.tar")))
}

/// Lets apt believe the keys of `keyring` and no others. What a host's own apt believes is another distribution's on some hosts,
/// and it decides whether a layer is made, not what is in it.
pub fn with_keyring(cmd: Cmd, keyring: &Path) -> Cmd {
    cmd.arg(format!("--keyring={}", keyring.display()))
}

/// Lets apt take packages that lie in `debs`, and leaves there what it has downloaded.
pub fn with_package_cache(cmd: Cmd, debs: &Path) -> Cmd {
    const ARCHIVES: &str = "/var/cache/apt/archives";
    // mmdebstrap expects no package files at the start, and removes them once they are installed.
    cmd.args(["--skip=download/empty", "--skip=essential/unlink"])
        .arg(format!("--setup-hook=mkdir -p \"$1{ARCHIVES}\""))
        .arg(special("setup", "sync-in", &[debs, Path::new(ARCHIVES)]))
        .arg(special("customize", "sync-out", &[Path::new(ARCHIVES), debs]))
}

fn base_cmd(distro: &DistroSpec, epoch: u64) -> Cmd {
    Cmd::new("mmdebstrap")
        // Without it there is no /proc in the tree, and modules fail to compile in ways that do not say so.
        .needs("mount")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        // A tree that is lost in a power cut is made again: no fsync per file. The other two are dpkg's defaults, dpkg(1).
        .env("DPKG_FORCE", "unsafe-io,downgrade,security-mac")
        .arg("--architectures=amd64")
        .arg(format!("--components={}", distro.components.join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
}

fn with_suite(cmd: Cmd, distro: &DistroSpec, source: &Source, target: Option<&Path>) -> Cmd {
    let cmd = cmd.arg(&distro.suite).arg(target.unwrap_or(Path::new("/dev/null")));
    source.mirrors.iter().fold(cmd, Cmd::arg)
}

/// A hook that mmdebstrap itself carries out. It splits the text like a shell would.
fn special(stage: &str, verb: &str, paths: &[&Path]) -> String {
    let words: Vec<String> = paths.iter().map(|path| quote(path)).collect();
    format!("--{stage}-hook={verb} {}", words.join(" "))
}

fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Files that [`module_layer_cmd`] takes from its directory: name and content.
pub fn module_layer_files(lock: Option<&Lock>) -> Vec<(String, String)> {
    // The modules have the version of the source they were compiled from.
    let zfs =
        lock.into_iter().filter_map(Lock::zfs_modules).map(|modules| ("zfs-dkms", modules.version.as_str()));
    vec![(MODULES_SCRIPT.to_owned(), ZFS_MODULES.to_owned()), (PINS.to_owned(), pins(zfs))]
}

/// Files that [`root_tree_cmd`] takes from its directory: name and content.
pub fn root_tree_files(distro: &DistroSpec, lock: Option<&Lock>) -> Vec<(String, String)> {
    let packages = lock.into_iter().flat_map(|lock| &lock.packages);
    let mut files = vec![
        (PACKAGES_SCRIPT.to_owned(), PACKAGES.to_owned()),
        (HOSTID_HOOK.to_owned(), NO_HOSTID.to_owned()),
        (PINS.to_owned(), pins(packages.map(|p| (p.name.as_str(), p.version.as_str())))),
    ];
    files.extend(distro.prepared.iter().map(|prepared| (prepared_name(prepared), prepared.text.clone())));
    files
}

fn prepared_name(prepared: &PreparedFile) -> String {
    format!("prepared-{}", prepared.path.trim_start_matches('/').replace('/', "-"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// On Ubuntu apt by itself believes Ubuntu's keys only.
    #[test]
    fn the_archive_is_signed_by_the_distribution_whatever_the_host_trusts() {
        let distro = &kld_system::known_distros()[0];
        let keyring_of = |source: &Source| {
            let cmd = with_keyring(Cmd::new("mmdebstrap"), source.keyring(distro));
            cmd.argv().last().map(|word| word.to_string_lossy().into_owned())
        };
        let own = "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg";
        assert_eq!(keyring_of(&Source::default()).as_deref(), Some(own));
        let given = Source { keyring: Some("/keys/mine.gpg".into()), ..Source::default() };
        assert_eq!(keyring_of(&given).as_deref(), Some("--keyring=/keys/mine.gpg"));
    }

    #[test]
    fn a_root_tree_is_one_command() {
        let distro = &kld_system::known_distros()[0];
        let source = Source { mirrors: vec!["https://mirror.example/debian".to_owned()], keyring: None };
        let tree = RootTree {
            distro,
            source: &source,
            modules: Path::new("/it's a cache/modules"),
            kernel: "6.12-amd64",
            packages: &["openssh-server".to_owned()],
            epoch: 1,
        };
        let cmd = root_tree_cmd(&tree, Path::new("/out"));
        let interesting = ["--include", "--keyring", "--components", "--setup-hook=upload"];
        let words: Vec<String> = cmd
            .argv()
            .map(|word| word.to_string_lossy().into_owned())
            .filter(|word| !word.starts_with("--") || interesting.iter().any(|start| word.starts_with(start)))
            .collect();
        expect![[r#"
            --components=main,contrib
            --include=linux-image-6.12-amd64,openssh-server,zfs-modules-6.12-amd64,zstd
            --setup-hook=upload '/it'\''s a cache/modules/zfs-modules.deb' '/kldload/zfs-modules.deb'
            --setup-hook=upload '/it'\''s a cache/modules/Packages' '/kldload/Packages'
            --setup-hook=upload '/out/preferences' '/etc/apt/preferences.d/kldload'
            trixie
            /out/tree.tar
            https://mirror.example/debian"#]]
        .assert_eq(&words.join("\n"));
    }

    #[test]
    fn a_lock_file_pins_every_version() {
        let lock =
            Lock::from_list("debian-13", "6.12", "bash\tamd64\t5.2\t\nzfs-modules-6.12\tamd64\t2.3\t\n");
        let lock = lock.expect("a list");
        let files = root_tree_files(&kld_system::known_distros()[0], Some(&lock));
        let preferences = files.iter().find(|(name, _)| name == PINS).map(|(_, text)| text.as_str());
        assert_eq!(
            preferences,
            Some(
                "Package: bash\nPin: version 5.2\nPin-Priority: 1001\n\n\
                 Package: zfs-modules-6.12\nPin: version 2.3\nPin-Priority: 1001\n\n"
            )
        );
        let modules = module_layer_files(Some(&lock));
        assert!(
            modules
                .iter()
                .any(|(_, text)| text == "Package: zfs-dkms\nPin: version 2.3\nPin-Priority: 1001\n\n")
        );
    }
}

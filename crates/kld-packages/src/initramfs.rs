//! What an initial RAM file system must hold to find the root.

use kld_host::Output;

/// What a list of an initial RAM file system lacks; where the list itself failed, that.
pub(crate) fn unfit(path: &str, output: &Output, release: &str, needs_host_id: bool) -> Vec<String> {
    let lacks = lacking(path, &String::from_utf8_lossy(&output.stdout), release, needs_host_id);
    // An archive behind a compressed one, which the kernel reads, ends a list with an error, too: what is in it counts.
    if output.code == 0 || lacks.is_empty() {
        return lacks;
    }
    let words: Vec<&str> = output.stderr.split_whitespace().collect();
    vec![format!("`{path}` cannot be listed: {}", words.join(" "))]
}

/// The path in a line of `lsinitramfs`, which is one, or of `lsinitrd`, which shows files as `ls -l` does.
fn listed(line: &str) -> &str {
    let is_mode =
        |word: &str| word.len() >= 10 && word.bytes().all(|byte| b"-dlbcpsrwxStT.+@".contains(&byte));
    match line.split_whitespace().next().is_some_and(is_mode) {
        true => line.split(" -> ").next().and_then(|line| line.rsplit(' ').next()).unwrap_or(line),
        false => line,
    }
}

fn lacking(path: &str, list: &str, release: &str, needs_host_id: bool) -> Vec<String> {
    let holds = |is: &dyn Fn(&str) -> bool| list.lines().map(listed).any(is);
    let modules = format!("lib/modules/{release}/");
    let module = |line: &str| {
        line.contains(&modules) && line.rsplit('/').next().is_some_and(|of| of.starts_with("zfs.ko"))
    };
    let mut lacks = Vec::new();
    if !holds(&module) {
        lacks.push(format!("`{path}` has no zfs.ko of {release}"));
    }
    if !holds(&|line| line.ends_with("/zpool")) {
        lacks.push(format!("`{path}` has no zpool"));
    }
    if !holds(&|line| line == "init" || line.ends_with("/init")) {
        lacks.push(format!("`{path}` has no init"));
    }
    if needs_host_id && !holds(&|line| line.ends_with("etc/hostid")) {
        lacks.push(format!("`{path}` has no host id: the pool would be another machine's"));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_start_needs_is_named() {
        let list = "init\nusr/lib/modules/6.12/extra/zfs.ko.xz\nusr/sbin/zpool\netc/hostid\n";
        assert_eq!(lacking("/boot/i", list, "6.12", true), [""; 0]);
        assert_eq!(lacking("/boot/i", "", "6.12", true).len(), 4);
        assert_eq!(lacking("/boot/i", list, "6.13", false), ["`/boot/i` has no zfs.ko of 6.13"]);
    }

    #[test]
    fn a_list_that_failed_is_not_an_empty_one() {
        let output = |code, stdout: &str, stderr: &str| Output {
            code,
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.to_owned(),
        };
        let list = "init\nusr/lib/modules/6.12/extra/zfs.ko.xz\nusr/sbin/zpool\netc/hostid\n";
        let said = "unmkinitramfs: none: unrecognised compression or\n corrupted file\n";
        let unfit = |output: &Output| unfit("/boot/i", output, "6.12", true);
        assert_eq!(
            unfit(&output(1, "", said)),
            ["`/boot/i` cannot be listed: unmkinitramfs: none: unrecognised compression or corrupted file"]
        );
        assert_eq!(unfit(&output(0, "", "")).len(), 4);
        assert_eq!(unfit(&output(1, list, "zstd: /*stdin*\\: unsupported format")), [""; 0]);
        let long = "Image: /boot/i: 9M\n========\ndrwxr-xr-x   3 root     root            0 Jan  1  1970 .\n\
             -rw-r--r--   1 root     root            4 Jan  1  1970 etc/hostid\n\
             lrwxrwxrwx   1 root     root           23 Jan  1  1970 init -> usr/lib/systemd/systemd\n\
             -rw-r--r--   1 root     root         9999 Jan  1  1970 usr/lib/modules/6.12/extra/zfs.ko.xz\n\
             -rwxr-xr-x   1 root     root         9999 Jan  1  1970 usr/sbin/zpool\n";
        assert_eq!(unfit(&output(0, long, "")), [""; 0]);
    }
}

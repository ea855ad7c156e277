//! Paths that dpkg leaves out of the packages it unpacks (`path-exclude` and `path-include` of dpkg(1)). Its own `--verify` does
//! not know of them and calls them missing.

use std::fs;
use std::io;
use std::path::Path;

use kld_host::folder::{names_in, present};

/// Read first, in the order of their names.
const FOLDER: &str = "etc/dpkg/dpkg.cfg.d";
/// Read last.
const FILE: &str = "etc/dpkg/dpkg.cfg";

/// Patterns in the order in which dpkg reads them: the last one that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PathFilters(Vec<Filter>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    pattern: Vec<char>,
    leaves_out: bool,
}

impl PathFilters {
    /// Reads the configuration below `root`.
    pub(crate) fn of(root: &Path) -> io::Result<Self> {
        // dpkg passes over what a package manager or a person has put aside: `x.dpkg-old`, `x~`.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let names = names_in(root.join(FOLDER))?.into_iter().filter(|name| name.bytes().all(is_plain));
        let mut filters = Vec::new();
        for file in names.map(|name| format!("{FOLDER}/{name}")).chain([FILE.to_owned()]) {
            let bytes = present(fs::read(root.join(file)))?.unwrap_or_default();
            filters.extend(String::from_utf8_lossy(&bytes).lines().filter_map(Filter::parse));
        }
        Ok(Self(filters))
    }

    /// Whether dpkg leaves this path out, if it is no folder.
    pub(crate) fn leave_out(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        let last = self.0.iter().rev().find(|filter| matches(&filter.pattern, &path));
        last.is_some_and(|filter| filter.leaves_out)
    }
}

impl Filter {
    /// `path-exclude=/x`, `path-exclude /x` or `path-exclude = "/x"`.
    fn parse(line: &str) -> Option<Self> {
        let (option, value) = line.split_once(['=', ' ', '\t'])?;
        let leaves_out = match option {
            "path-exclude" => true,
            "path-include" => false,
            _ => return None,
        };
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        let unquoted = ['"', '\''].iter().find_map(|of| value.strip_prefix(*of)?.strip_suffix(*of));
        Some(Self { pattern: unquoted.unwrap_or(value).chars().collect(), leaves_out })
    }
}

/// fnmatch(3) without flags: `*`, `?` and `[…]` mean `/` too.
fn matches(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', rest @ ..] => (0..=path.len()).any(|taken| matches(rest, &path[taken..])),
        ['\\', wanted, rest @ ..] => {
            path.split_first().is_some_and(|(c, path)| c == wanted && matches(rest, path))
        }
        [first, rest @ ..] => path.split_first().is_some_and(|(c, path)| match (first, set(rest)) {
            ('?', _) => matches(rest, path),
            ('[', Some((set, rest))) => is_in(set, *c) && matches(rest, path),
            _ => c == first && matches(rest, path),
        }),
    }
}

/// What is between the brackets, and behind them. A `]` that comes first is one of the set.
fn set(behind: &[char]) -> Option<(&[char], &[char])> {
    let first = 1 + usize::from(matches!(behind, ['!' | '^', ..]));
    let end = first + behind.get(first..)?.iter().position(|of| *of == ']')?;
    Some((&behind[..end], &behind[end + 1..]))
}

/// Whether a set names a character: `abc`, `a-c`, and `!…` or `^…` for all others.
fn is_in(set: &[char], c: char) -> bool {
    match set {
        ['!' | '^', rest @ ..] => !is_in(rest, c),
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || is_in(rest, c),
        [one, rest @ ..] => *one == c || is_in(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(files: &[(&str, &str)]) -> PathFilters {
        let root = tempfile::tempdir().expect("writable");
        fs::create_dir_all(root.path().join(FOLDER)).expect("writable");
        for (file, text) in files {
            fs::write(root.path().join("etc/dpkg").join(file), text).expect("writable");
        }
        PathFilters::of(root.path()).expect("readable")
    }

    /// `99mmdebstrap` of an image, from kld-system/distros/debian-13.toml.
    const IMAGE: &str = "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/info/*\n\
                         path-exclude=/usr/share/groff/*\npath-exclude=/usr/share/lintian/*\npath-exclude=/usr/share/linda/*\n\
                         path-exclude=/usr/share/bug/*\npath-exclude=/usr/share/locale/*\n\
                         path-exclude=/usr/share/gnome/help/*/*\npath-include=/usr/share/doc/*/copyright\n\
                         path-include=/usr/share/locale/locale.alias\npath-include=/usr/share/locale/en*\n";

    #[test]
    fn what_an_image_leaves_out_is_known() {
        let image =
            filters(&[("dpkg.cfg.d/99mmdebstrap", IMAGE), ("dpkg.cfg", "# mine\nno-debsig\nlog /x\n")]);
        for (path, want) in [
            ("/usr/share/doc/x/README", true),
            ("/usr/share/doc/x/examples/a b.gz", true),
            ("/usr/share/doc/x/copyright", false),
            ("/usr/share/doc/x/examples/copyright", false),
            ("/usr/share/doc-base/x", false),
            ("/usr/share/man/man1/x.1.gz", true),
            ("/usr/share/locale/de/LC_MESSAGES/x.mo", true),
            ("/usr/share/locale/en_GB/LC_MESSAGES/x.mo", false),
            ("/usr/share/locale/locale.alias", false),
            ("/usr/share/gnome/help/x", false),
            ("/usr/share/gnome/help/x/C/y", true),
            ("/usr/bin/x", false),
            ("/usr/lib/x", false),
        ] {
            assert_eq!(image.leave_out(path), want, "{path}");
        }
        assert!(!PathFilters::default().leave_out("/usr/share/doc/x/README"));
        assert_eq!(PathFilters::of(Path::new("/nonexistent")).expect("no error"), PathFilters::default());
    }

    #[test]
    fn the_last_one_decides_and_the_folder_is_read_first() {
        let order = filters(&[
            ("dpkg.cfg.d/20-b", "path-include=/a/b\n"),
            ("dpkg.cfg.d/10-a", "path-exclude=/a/*\n#path-exclude=/c\n"),
            ("dpkg.cfg.d/30-c.dpkg-old", "path-exclude=/d\n"),
            ("dpkg.cfg", "path-include = /e/f\npath-exclude\t\"/e/*\"\n"),
        ]);
        for (path, want) in
            [("/a/b", false), ("/a/c", true), ("/c", false), ("/d", false), ("/e/f", true), ("/", false)]
        {
            assert_eq!(order.leave_out(path), want, "{path}");
        }
    }

    #[test]
    fn patterns_are_those_of_fnmatch() {
        let is = |pattern: &str, path: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &path.chars().collect::<Vec<_>>())
        };
        for (pattern, path) in [
            ("/a?b", "/a/b"),
            ("/[a-c]*", "/b/.x"),
            ("/[!a]", "/b"),
            ("/[]x]", "/]"),
            ("/[x-]", "/-"),
            ("/[x", "/[x"),
            ("/\\*", "/*"),
            ("*", ""),
        ] {
            assert!(is(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("/a", "/a/b"), ("/[!a]", "/a"), ("/\\*", "/x"), ("/a?", "/a"), ("", "/")] {
            assert!(!is(pattern, path), "{pattern} {path}");
        }
    }
}

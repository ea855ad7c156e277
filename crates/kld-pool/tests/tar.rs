//! Tars, well-formed and hostile.

use std::path::Path;

use kld_pool::tree::{Kind, TarProblem, Timestamp, Tree};
use proptest::prelude::*;

/// One member as bytes.
struct Member<'a> {
    name: &'a str,
    flag: u8,
    link: &'a str,
    body: &'a [u8],
    size: Option<u64>,
}

fn member(name: &str, flag: u8) -> Member<'_> {
    Member { name, flag, link: "", body: b"", size: None }
}

fn file<'a>(name: &'a str, body: &'a [u8]) -> Member<'a> {
    Member { body, ..member(name, b'0') }
}

fn link<'a>(name: &'a str, flag: u8, link: &'a str) -> Member<'a> {
    Member { link, ..member(name, flag) }
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        let mut header = [0u8; 512];
        header[..member.name.len()].copy_from_slice(member.name.as_bytes());
        header[100..107].copy_from_slice(b"0000640");
        header[108..115].copy_from_slice(b"0001750");
        header[116..123].copy_from_slice(b"0000062");
        let size = member.size.unwrap_or(member.body.len() as u64);
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[136..147].copy_from_slice(b"14524566400");
        header[156] = member.flag;
        header[157..157 + member.link.len()].copy_from_slice(member.link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..336].copy_from_slice(b"0000005");
        header[337..344].copy_from_slice(b"0000001");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(header);
        out.extend(member.body);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn parse(bytes: &[u8]) -> Result<Tree, kld_pool::tree::TarError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    std::fs::write(&path, bytes).unwrap();
    // The tar stays readable through the open file.
    Tree::from_tar(&path)
}

fn problem(bytes: &[u8]) -> TarProblem {
    parse(bytes).unwrap_err().problem
}

#[test]
fn members_of_every_kind() {
    let long = format!("{}/f", "n".repeat(120));
    let pax = |records: &[(&str, &str)]| -> Vec<u8> {
        records
            .iter()
            .flat_map(|(key, value)| {
                let base = key.len() + value.len() + 3;
                let digits = (base + 2).to_string().len();
                format!("{} {key}={value}\n", base + digits).into_bytes()
            })
            .collect()
    };
    let records = pax(&[("path", &long), ("mtime", "1.5"), ("uid", "70000"), ("SCHILY.xattr.user.k", "v")]);
    let sparse = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.realsize", "20000"),
    ]);
    let mut sparse_body = b"1\n8192\n3\n".to_vec();
    sparse_body.resize(512, 0);
    sparse_body.extend(b"xyz");
    let tree = parse(&tar(&[
        member("./", b'5'),
        link("./hard", b'1', "./dir/file"),
        member("./dir/", b'5'),
        file("./dir/file", b"content"),
        link("sym", b'2', "/etc/target"),
        member("null", b'3'),
        member("disk", b'4'),
        member("pipe", b'6'),
        Member { body: &records, ..member("pax", b'x') },
        file("short", b"pax content"),
        Member { body: b"gnu/long/name\0", ..member("././@LongLink", b'L') },
        file("short", b"gnu content"),
        Member { body: &sparse, ..member("pax", b'x') },
        file("GNUSparseFile.1/sparse", &sparse_body),
        file("last", b""),
    ]))
    .unwrap();
    assert_eq!(tree.read("dir/file").unwrap(), b"content");
    assert_eq!(tree.get("hard").unwrap().id(), tree.get("dir/file").unwrap().id());
    assert!(matches!(tree.get("sym").unwrap().kind(), Kind::Symlink(target) if target == b"/etc/target"));
    assert!(matches!(tree.get("null").unwrap().kind(), Kind::CharDevice { major: 5, minor: 1 }));
    assert!(matches!(tree.get("disk").unwrap().kind(), Kind::BlockDevice { .. }));
    assert!(matches!(tree.get("pipe").unwrap().kind(), Kind::Fifo));
    assert_eq!(tree.read(&long).unwrap(), b"pax content");
    let meta = tree.get(&long).unwrap().meta();
    assert_eq!((meta.uid, meta.gid, meta.mode), (70_000, 50, 0o640));
    assert_eq!(meta.mtime, Timestamp { sec: 1, nsec: 500_000_000 });
    assert_eq!(meta.xattrs[&b"user.k"[..]], b"v");
    assert_eq!(tree.read("gnu/long/name").unwrap(), b"gnu content");
    let content = tree.read("sparse").unwrap();
    assert_eq!((content.len(), &content[8190..8197]), (20_000, &b"\0\0xyz\0\0"[..]));
    assert_eq!(tree.read("last").unwrap(), b"");
}

#[test]
fn sparse_files_may_add_up_to_more_than_a_number_holds_but_not_be_longer_than_a_file() {
    let sparse = |size: &[u8; 12]| {
        let mut tar = tar(&[Member { body: b"", ..member("s", b'S') }]);
        tar[483..495].copy_from_slice(size);
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.truncate(512);
        tar
    };
    // 2^63 - 1 in base 256: three of them exceed 64 bits.
    let longest = sparse(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let three: Vec<u8> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| {
            let mut member = longest.clone();
            member[0] = name.as_bytes()[0];
            member[148..156].fill(b' ');
            let sum: u32 = member.iter().map(|byte| u32::from(*byte)).sum();
            member[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            member
        })
        .collect();
    assert_eq!(parse(&[three, vec![0; 1024]].concat()).unwrap().apparent_size(), u64::MAX);
    let longer = sparse(b"\x80\0\0\0\x80\0\0\0\0\0\0\0");
    assert!(matches!(problem(&longer), TarProblem::BadSparseMap(_)));
}

#[test]
fn hostile_and_broken_tars_are_refused() {
    let escape = tar(&[link("d", b'2', "/etc"), file("d/passwd", b"x")]);
    let mut truncated = tar(&[file("f", &[1; 3000])]);
    truncated.truncate(1024);
    let huge = tar(&[Member { size: Some(0o77_777_777_777), ..member("f", b'0') }]);
    let huge_header = tar(&[Member { size: Some(1 << 30), ..member("f", b'x') }]);
    for (bytes, message) in [
        (tar(&[file("../f", b"")]), "path `../f` leaves its directory by `..`"),
        (tar(&[file("a/../../f", b"")]), "path `a/../../f` leaves its directory by `..`"),
        (tar(&[file("/etc/passwd", b"")]), "member name `/etc/passwd` is absolute"),
        (escape, "cannot add `d`: its parent is not a directory"),
        (tar(&[link("a", b'1', "../x")]), "path `../x` leaves its directory by `..`"),
        (
            tar(&[link("a", b'1', "b"), link("b", b'1', "a")]),
            "hard link `a` points at `b`, which is not a file of the tar",
        ),
        (tar(&[member("v", b'V')]), "member `v` has the unsupported type `V`"),
        (tar(&[member("d/", b'5'), file("d", b"")]), "cannot replace the directory `d`"),
        (truncated, "it ends inside a member"),
        (huge, "it ends inside a member"),
        (huge_header, "an extended header of 1073741824 bytes is too large"),
        (
            tar(&[Member { body: b"26 SCHILY.xattr.user.k=v1\n", ..member("g", b'g') }, file("f", b"")]),
            "the extended header record `SCHILY.xattr` stands for all members, but fits only one",
        ),
        (vec![1; 512], "this is not a tar header"),
        (b"\x1f\x8b12345678".to_vec(), "it is compressed"),
        (Vec::new(), "it ends inside a member"),
    ] {
        assert_eq!(problem(&bytes).to_string(), message);
    }
    // Each link but the last leads to the one behind it: it would take as many rounds as there are links.
    let names: Vec<String> = (0..3000).map(|i| format!("l{i}")).collect();
    let mut members: Vec<Member> = names.windows(2).map(|pair| link(&pair[0], b'1', &pair[1])).collect();
    members.push(file(&names[2999], b""));
    assert!(matches!(problem(&tar(&members)), TarProblem::DanglingLink { .. }));
    let error = Tree::from_tar(Path::new("/nonexistent.tar")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read tar `/nonexistent.tar` at byte 0: reading failed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn changed_bytes_never_panic(
        changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..12),
        cut in 0usize..6000,
        fix_checksums in any::<bool>(),
    ) {
        let mut bytes = tar(&[
            member("d/", b'5'),
            Member { body: b"26 SCHILY.xattr.user.k=v1\n18 mtime=12.000001\n", ..member("p", b'x') },
            file("d/f", b"content"),
            link("h", b'1', "d/f"),
            Member { body: &[0; 512], ..member("sparse", b'S') },
            Member { body: b"long\0", ..member("l", b'L') },
            file("x", b"1"),
        ]);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut % 1024);
        if fix_checksums {
            for header in bytes.chunks_exact_mut(512) {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(tree) = parse(&bytes) {
            for (path, node) in tree.walk() {
                if let Kind::File(data) = node.kind() && data.len() < 1 << 20 {
                    prop_assert_eq!(tree.read(&path).unwrap().len() as u64, data.len());
                }
            }
        }
    }
}

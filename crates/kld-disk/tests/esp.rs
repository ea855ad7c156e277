//! The EFI system partition, judged by dosfstools and read by mtools.

use expect_test::expect;
use kld_disk::esp::EspError;
use kld_disk::{EspFile, EspSpec, MIB, write_esp};
use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const EPOCH: u64 = 1_795_305_600; // 2026-11-22

fn spec(size: u64) -> EspSpec {
    EspSpec { size, label: "KLDLOAD".into(), volume_id: 0x1234_ABCD, epoch: EPOCH }
}

/// Bytes that no compressor and no zero test takes for holes.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..4]);
    }
    bytes.truncate(len);
    bytes
}

// kld-disk knows no other crate of the workspace, so its tests start the checkers themselves.
#[allow(clippy::disallowed_methods)]
fn run(program: &str, package: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output().unwrap_or_else(|error| {
        panic!(
            "`{program}` did not start ({error}): install {package}, or run `cargo xtask test`, which does"
        )
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{program} {args:?}` failed:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn image(path: &Path, size: u64, files: Vec<EspFile<'_>>) {
    let mut file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    write_esp(&mut file, &spec(size), files).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size, "nothing is written past the end");
}

fn contents() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("EFI/BOOT/BOOTX64.EFI".to_owned(), noise(120_000, 1)),
        ("EFI/systemd/systemd-bootx64.efi".to_owned(), noise(120_000, 1)),
        ("EFI/kldload/a1b2c3d4e5f60718/linux".to_owned(), noise(9 * MIB as usize + 17, 2)),
        ("EFI/kldload/a1b2c3d4e5f60718/initrd".to_owned(), noise(4096 * 3, 3)),
        ("loader/loader.conf".to_owned(), b"timeout 3\n".to_vec()),
        ("loader/empty".to_owned(), Vec::new()),
        ("README.TXT".to_owned(), b"short name\n".to_vec()),
        ("exactly-13.chr-and-a-name-that-needs-several-long-name-slots.conf".to_owned(), b"x".to_vec()),
        ("thirteen.char".to_owned(), b"y".to_vec()),
    ];
    // A folder of more than one cluster, with short names that collide.
    files.extend(
        (0..150).map(|n| (format!("loader/entries/debian-{n:03}.conf"), format!("title {n}\n").into_bytes())),
    );
    files
}

fn sources(files: &[(String, Vec<u8>)]) -> Vec<EspFile<'_>> {
    files.iter().map(|(path, bytes)| EspFile::from_bytes(path, bytes)).collect()
}

#[test]
fn dosfstools_finds_nothing_wrong_and_mtools_reads_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let files = contents();
    for size in [33 * MIB, 64 * MIB, 260 * MIB, 512 * MIB] {
        let path = dir.path().join(format!("{size}.img"));
        image(&path, size, sources(&files));
        let path = path.to_str().unwrap();
        let report = run("fsck.fat", "dosfstools", &["-n", "-v", path]);
        assert!(report.contains("2 FATs, 32 bit entries"), "{report}");
        let (checks, summary) =
            report.split_once("Checking for unused clusters.\n").expect("the last checks ran");
        assert!(checks.ends_with("sectors total\n"), "a remark about the structure: {report}");
        let [free, count] = summary.lines().collect::<Vec<_>>()[..] else { panic!("a remark: {report}") };
        assert_eq!(free, "Checking free cluster summary.");
        assert!(count.contains(" files, "), "{report}");

        let out = dir.path().join(format!("{size}.tree"));
        fs::create_dir(&out).unwrap();
        run("mcopy", "mtools", &["-s", "-i", path, "::/", out.to_str().unwrap()]);
        for (name, bytes) in &files {
            assert!(fs::read(out.join(name)).unwrap() == *bytes, "`{name}` differs in {size}");
        }
    }
}

#[test]
fn names_label_and_times_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("esp.img");
    let files = contents();
    image(&path, 64 * MIB, sources(&files));
    let listing = run("mdir", "mtools", &["-i", path.to_str().unwrap(), "::/"]);
    expect![[r#"
         Volume in drive : is KLDLOAD    
         Volume Serial Number is 1234-ABCD
        Directory for ::/

        EFI          <DIR>     2026-11-22   0:00 
        EXACTL~1 CON         1 2026-11-22   0:00  exactly-13.chr-and-a-name-that-needs-several-long-name-slots.conf
        LOADER~1     <DIR>     2026-11-22   0:00  loader
        README   TXT        11 2026-11-22   0:00 
        THIRTE~1 CHA         1 2026-11-22   0:00  thirteen.char
                5 files                  13 bytes
                                 56 268 288 bytes free

    "#]]
    .assert_eq(&listing);
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    let size = 64 * MIB;
    let mut files = contents();
    let write = |files: &[(String, Vec<u8>)]| {
        let mut disk = Cursor::new(vec![0; size as usize]);
        write_esp(&mut disk, &spec(size), sources(files)).unwrap();
        disk.into_inner()
    };
    let first = write(&files);
    files.reverse();
    assert!(first == write(&files));
}

#[test]
fn an_image_takes_no_more_room_than_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("esp.img");
    let bytes = noise(8 * MIB as usize, 5);
    image(&path, 512 * MIB, vec![EspFile::from_bytes("EFI/linux", &bytes)]);
    let used = path.metadata().unwrap().blocks() * 512;
    assert!(used < 9 * MIB, "{used} bytes of 512 MiB are allocated for 8 MiB of files");
}

/// A disk that remembers how far it was written.
struct Watch {
    position: u64,
    end: u64,
}

impl Write for Watch {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.position += buf.len() as u64;
        self.end = self.end.max(self.position);
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Watch {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        if let SeekFrom::Start(offset) = to {
            self.position = offset;
        }
        Ok(self.position)
    }
}

/// Path and bytes of a file.
type Source = (String, u64);

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let size = 64 * MIB;
    let file = |path: &str| (path.to_owned(), 1_u64);
    let long = "n".repeat(256);
    let table: [(EspSpec, Vec<Source>, String); 13] = [
        (spec(16 * MIB), vec![], "`16777216` bytes cannot be a FAT32 file system: it needs 34603008 to 2199022206976 bytes, in whole sectors".into()),
        (EspSpec { label: "TOO LONG LABEL".into(), ..spec(size) }, vec![], "volume label `TOO LONG LABEL` is not 1 to 11 letters, digits, `-`, `_` or spaces".into()),
        (EspSpec { label: String::new(), ..spec(size) }, vec![], "volume label `` is not 1 to 11 letters, digits, `-`, `_` or spaces".into()),
        (spec(size), vec![file("a//b")], "path `a//b` cannot be on a FAT file system: a part of it is empty".into()),
        (spec(size), vec![file("a:b")], "path `a:b` cannot be on a FAT file system: only printable ASCII without `\"*:<>?\\|` is allowed".into()),
        (spec(size), vec![file("größe")], "path `größe` cannot be on a FAT file system: only printable ASCII without `\"*:<>?\\|` is allowed".into()),
        (spec(size), vec![file("../up")], "path `../up` cannot be on a FAT file system: a part of it begins with a space or ends with a dot or a space".into()),
        (spec(size), vec![file(&long)], format!("path `{long}` cannot be on a FAT file system: a part of it is longer than 255 characters")),
        (spec(size), vec![file("EFI/a"), file("efi/A")], "path `efi/A` is taken twice: FAT does not tell capitals from small letters".into()),
        (spec(size), vec![file("EFI"), file("EFI/a")], "path `EFI/a` is taken twice: FAT does not tell capitals from small letters".into()),
        (spec(size), vec![file("EFI/a"), file("EFI")], "path `EFI` is taken twice: FAT does not tell capitals from small letters".into()),
        (spec(size), vec![("big".into(), 1 << 32)], "file `big` has 4294967296 bytes: a FAT file must be smaller than 4 GiB".into()),
        (spec(size), vec![("big".into(), 65 * MIB)], "the EFI system partition holds 66056192 bytes, but its files need 68157952".into()),
    ];
    for (spec, files, expected) in table {
        let mut disk = Watch { position: 0, end: 0 };
        let files = files
            .iter()
            .map(|(path, len)| EspFile::from_reader(path, *len, std::io::repeat(1).take(*len)))
            .collect();
        let error = write_esp(&mut disk, &spec, files).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(disk.end, 0, "{expected}");
    }
}

#[test]
fn a_source_that_changes_while_it_is_read_is_noticed() {
    for (announced, given) in [(10_u64, 9_usize), (9, 10), (1, 0)] {
        let bytes = vec![1; given];
        let file = EspFile::from_reader("EFI/linux", announced, bytes.as_slice());
        let mut disk = Cursor::new(vec![0; 64 * MIB as usize]);
        let error = write_esp(&mut disk, &spec(64 * MIB), vec![file]).unwrap_err();
        assert!(matches!(error, EspError::Length { expected, .. } if expected == announced), "{error}");
    }
}

#[test]
fn a_full_partition_says_how_large_it_must_be() {
    let bytes = vec![1; 40 * MIB as usize];
    let mut disk = Cursor::new(Vec::new());
    let error =
        write_esp(&mut disk, &spec(33 * MIB), vec![EspFile::from_bytes("linux", &bytes)]).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("give the EFI system partition 43M or more"));
    write_esp(&mut disk, &spec(43 * MIB), vec![EspFile::from_bytes("linux", &bytes)]).unwrap();
}

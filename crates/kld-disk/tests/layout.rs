//! The partition tables, read back by another implementation.

use expect_test::expect;
use gptman::GPT;
use kld_disk::gpt::{ESP_SIZE, POOL_MIN};
use kld_disk::{DiskLayout, LayoutError, MIB, SECTOR};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::io::Cursor;

const SEED: [u8; 32] = [7; 32];

fn write(layout: &DiskLayout) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; layout.size() as usize]);
    layout.write_tables(&mut disk).unwrap();
    disk.into_inner()
}

fn describe(gpt: &GPT) -> String {
    let mut text = String::new();
    let header = &gpt.header;
    writeln!(
        text,
        "disk {:02x?} usable {}..={}",
        header.disk_guid, header.first_usable_lba, header.last_usable_lba
    )
    .unwrap();
    for (number, entry) in gpt.iter().filter(|(_, entry)| entry.is_used()) {
        writeln!(
            text,
            "{number} {} {}..={} type {:02x?} guid {:02x?}",
            entry.partition_name.as_str(),
            entry.starting_lba,
            entry.ending_lba,
            entry.partition_type_guid,
            entry.unique_partition_guid
        )
        .unwrap();
    }
    text
}

#[test]
fn another_reader_finds_both_partitions() {
    let layout = DiskLayout::plan(256 * MIB, 64 * MIB, "rpool", &SEED).unwrap();
    let disk = write(&layout);
    let gpt = GPT::read_from(&mut Cursor::new(&disk), SECTOR).unwrap();
    assert!(gpt.header.is_primary());
    expect![[r#"
        disk [5d, 82, 48, de, 13, 7a, dc, 84, a7, a4, 37, 95, ef, c3, 1b, 5c] usable 34..=524254
        1 kldload-esp 2048..=133119 type [28, 73, 2a, c1, 1f, f8, d2, 11, ba, 4b, 00, a0, c9, 3e, c9, 3b] guid [d5, d8, 44, e9, 87, 0a, 7b, 80, b6, 2f, df, 98, 42, c3, 2c, 2a]
        2 rpool 133120..=522239 type [c3, 8c, 89, 6a, d2, 1d, b2, 11, 99, a6, 08, 00, 20, 73, 66, 31] guid [90, 46, 69, ee, d9, e0, 92, 80, 99, 6d, ca, 58, 54, 51, 26, 04]
    "#]]
    .assert_eq(&describe(&gpt));
}

#[test]
fn the_backup_table_alone_tells_the_same() {
    let layout = DiskLayout::plan(256 * MIB, 64 * MIB, "rpool", &SEED).unwrap();
    let mut disk = write(&layout);
    let primary = GPT::read_from(&mut Cursor::new(&disk), SECTOR).unwrap();
    disk[512..34 * 512].fill(0);
    let backup = GPT::read_from(&mut Cursor::new(&disk), SECTOR).unwrap();
    assert!(backup.header.is_backup());
    assert_eq!(describe(&primary), describe(&backup));
}

#[test]
fn the_protective_mbr_covers_the_disk() {
    let disk = write(&DiskLayout::plan(256 * MIB, 64 * MIB, "rpool", &SEED).unwrap());
    assert_eq!(disk[446..462], [0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 7, 0]);
    assert_eq!(disk[510..512], [0x55, 0xAA]);
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let long = "p".repeat(37);
    let table = [
        (
            DiskLayout::plan(400 * MIB, ESP_SIZE, "rpool", &SEED),
            expect![[r#"
            a disk of `419430400` bytes is too small for an EFI system partition of 536870912 bytes and a pool: 606076928 bytes are needed
            give a size of at least 578M"#]],
        ),
        (
            DiskLayout::plan(MIB + 1, 64 * MIB, "rpool", &SEED),
            expect![[r#"
            a disk of `1048577` bytes is not a whole number of 512-byte sectors
            give a size of 2M"#]],
        ),
        (
            DiskLayout::plan(0, u64::MAX / MIB * MIB, "rpool", &SEED),
            expect![[r#"
            a disk of `0` bytes is too small for an EFI system partition of 18446744073708503040 bytes and a pool: 18446744073709551615 bytes are needed
            give a size of at least 17592186044416M"#]],
        ),
        (
            DiskLayout::plan(1024 * MIB, 1000, "rpool", &SEED),
            expect![[r#"
            an EFI system partition of `1000` bytes is not a whole number of MiB
            give 1048576 bytes"#]],
        ),
        (
            DiskLayout::plan(1024 * MIB, ESP_SIZE, &long, &SEED),
            expect![[r#"
            partition label `ppppppppppppppppppppppppppppppppppppp` is longer than 36 UTF-16 units
            choose a shorter pool name"#]],
        ),
    ];
    for (result, expected) in table {
        let error = result.unwrap_err();
        expected.assert_eq(&format!("{error}\n{}", error.hint().unwrap()));
    }
}

#[test]
fn the_size_that_the_error_names_is_the_least_that_fits() {
    let Err(LayoutError::TooSmall { needed, .. }) = DiskLayout::plan(SECTOR, ESP_SIZE, "rpool", &SEED) else {
        panic!("one sector holds no disk");
    };
    let layout = DiskLayout::plan(needed, ESP_SIZE, "rpool", &SEED).unwrap();
    assert_eq!(layout.pool().len, POOL_MIN);
    assert!(DiskLayout::plan(needed - SECTOR, ESP_SIZE, "rpool", &SEED).is_err());
}

proptest! {
    #[test]
    fn partitions_are_aligned_disjoint_and_clear_of_the_tables(sectors in 270_000_u64..1 << 34, esp in 1_u64..2048) {
        let size = sectors * SECTOR;
        if let Ok(layout) = DiskLayout::plan(size, esp * MIB, "tank", &SEED) {
            let (esp, pool) = (layout.esp(), layout.pool());
            for edge in [esp.start, esp.len, pool.start, pool.len] {
                prop_assert!(edge.is_multiple_of(MIB));
            }
            prop_assert!(esp.start >= 34 * SECTOR);
            prop_assert_eq!(esp.start + esp.len, pool.start);
            prop_assert!(pool.len >= POOL_MIN);
            let end = pool.start + pool.len;
            prop_assert!(end <= size - 33 * SECTOR);
            prop_assert!(size - end < 2 * MIB, "no more than alignment is lost");
        }
    }
}

//! What holds for every pool without asking anyone: same bytes, clear errors.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::{PoolSpec, WriteAt, WriteError, write_pool};
use support::{Random, dataset, pool, random_tree, write};

#[test]
fn bytes_do_not_depend_on_threads() {
    let tree = random_tree(&mut Random(21), 200);
    let image = |threads| {
        let mut spec = pool(128);
        spec.threads = threads;
        spec.datasets = vec![dataset("fz/root", &[("compression", "zstd-1")], Some(tree.clone()))];
        write(&spec).bytes()
    };
    let one = image(1);
    assert!(one == image(2), "two threads write other bytes than one");
    assert!(one == image(5), "five threads write other bytes than one");
}

#[test]
fn the_seed_decides_the_identity() {
    let guid = |seed: u8| {
        let mut spec = pool(64);
        spec.seed = [seed; 32];
        write(&spec).summary.guid
    };
    assert_eq!(guid(1), guid(1));
    assert_ne!(guid(1), guid(2));
}

fn of_one_file(content: Vec<u8>) -> PoolSpec {
    let mut tree = Tree::new();
    tree.insert("f", Meta::root(0o644, Timestamp::default()), Kind::File(Data::bytes(content))).unwrap();
    let mut spec = pool(64);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    spec
}

#[test]
fn what_does_not_fit_says_how_much_would() {
    let mut spec = of_one_file(Random(3).bytes(90 << 20));
    let out = tempfile::tempfile().unwrap();
    let Err(WriteError::TooSmall { size, needed }) = write_pool(&spec, &[&out], &()) else {
        panic!("it must not fit")
    };
    assert_eq!(size, 64 << 20);
    assert!((91 << 20..160 << 20).contains(&needed), "{needed}");
    assert!(out.metadata().unwrap().len() <= 64 << 20, "nothing is written past the end");
    spec.vdevs[0].size = needed;
    write_pool(&spec, &[&tempfile::tempfile().unwrap()], &()).unwrap();
}

#[test]
fn a_source_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, [1; 5000]).unwrap();
    let tree = Tree::from_dir(dir.path()).unwrap();
    let mut spec = pool(64);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let error = |spec| write_pool(spec, &[&tempfile::tempfile().unwrap()], &()).unwrap_err().to_string();
    std::fs::write(&file, [1; 5001]).unwrap();
    assert_eq!(error(&spec), format!("`{}` changed while it was read for `/f` of `fz/root`", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(error(&spec), format!("cannot read `{}` for `/f` of `fz/root`", file.display()));
}

#[test]
fn impossible_pools_are_refused() {
    let error = |change: &dyn Fn(&mut kld_pool::PoolSpec)| {
        let mut spec = pool(64);
        change(&mut spec);
        write_pool(&spec, &[&tempfile::tempfile().unwrap()], &()).unwrap_err().to_string()
    };
    let with = |property: &'static str, value: &'static str| {
        error(&move |spec| {
            let mut tree = Tree::new();
            let content = Random(4).bytes(3 << 20);
            tree.insert("f", Meta::root(0o644, Timestamp::default()), Kind::File(Data::bytes(content)))
                .unwrap();
            spec.datasets = vec![dataset("fz/root", &[(property, value)], Some(tree))];
        })
    };
    assert_eq!(
        error(&|spec| spec.vdevs[0].size = 1 << 20),
        "cannot make a pool of 1048576 bytes: the least is 67108864"
    );
    assert_eq!(error(&|spec| spec.ashift = 8), "cannot make a pool with ashift `8`: it must be from 9 to 16");
    assert_eq!(
        error(&|spec| spec.vdevs[0].paths.push("/other".to_owned())),
        "a pool on 2 devices cannot be written to 1 outputs"
    );
    assert!(with("quota", "1M").starts_with("`quota` of `fz/root` is 1048576 bytes, less than"));
    assert!(with("refquota", "1M").starts_with("`refquota` of `fz/root` is 1048576 bytes, less than"));
    assert!(with("reservation", "1G").starts_with("the content does not fit into 67108864 bytes"));
}

#[test]
fn an_output_that_fails_is_reported_with_its_place() {
    struct Full;
    impl kld_pool::WriteAt for Full {
        fn write_all_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = write_pool(&pool(64), &[&Full], &()).unwrap_err();
    assert_eq!(error.to_string(), "cannot write the pool at byte 4194304");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_lost_write_that_is_told_of_once_is_not_forgotten() {
    /// As the system does it: what could not be made durable is an error of the next call, and of that one only.
    #[derive(Default)]
    struct Once(AtomicUsize);
    impl WriteAt for Once {
        fn write_all_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> std::io::Result<()> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Err(std::io::Error::other("lost")),
                _ => Ok(()),
            }
        }
    }
    let out = Once::default();
    let mut spec = of_one_file(Random(5).bytes(48 << 20));
    spec.vdevs[0].size = 128 << 20;
    let error = write_pool(&spec, &[&out], &()).unwrap_err();
    assert!(matches!(error, WriteError::Sync { .. }), "{error}");
    assert_eq!(out.0.into_inner(), 1, "it was told of while content was written");
}

#[test]
fn only_what_holds_something_is_written() {
    use std::os::unix::fs::MetadataExt;
    let image = write(&pool(1024));
    let file = image.device();
    assert!(file.metadata().unwrap().blocks() * 512 < 8 << 20);
    assert_eq!(file.metadata().unwrap().len(), 1024 << 20);
}

/// An output of somebody else's making.
struct Panics;

impl WriteAt for Panics {
    fn write_all_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        panic!("as asked")
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
#[should_panic(expected = "a thread that writes content panicked")]
fn a_panic_in_a_thread_ends_it_all() {
    let spec = of_one_file(Random(4).bytes(3 << 20));
    drop(write_pool(&spec, &[&Panics], &()));
}

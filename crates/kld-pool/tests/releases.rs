//! Pools in the hands of the OpenZFS of other Debian releases: 2.1 of Debian 12, 2.4 of unstable.

mod support;

use kld_pool::tree::Data;
use kld_pool::{Content, Parity, PoolSpec, Redundancy, Vdev, Volume};
use support::zdb::other_releases;
use support::{Random, dataset, pool, random_tree, snapshot, write};

/// Everything a pool can hold that `compatibility` allows.
fn full(compatibility: &str, vdevs: Vec<Vdev>) -> PoolSpec {
    let random = &mut Random(161);
    let mut spec = pool(0);
    spec.vdevs = vdevs;
    spec.properties.set("compatibility", compatibility).unwrap();
    let formats: [&[(&str, &str)]; 5] = [
        &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")],
        &[("compression", "lz4"), ("recordsize", "4k"), ("checksum", "sha512")],
        &[("compression", "gzip-6"), ("recordsize", "16k"), ("checksum", "sha256"), ("copies", "2")],
        &[("compression", "zle"), ("refreservation", "20M"), ("quota", "200M")],
        &[("compression", "off"), ("recordsize", "512")],
    ];
    for (i, properties) in formats.into_iter().enumerate() {
        let mut filesystem = dataset(&format!("fz/f{i}"), properties, Some(random_tree(random, 80)));
        filesystem.snapshots = vec![snapshot("old", &random_tree(random, 80)), "new".into()];
        spec.datasets.push(filesystem);
    }
    let mut clone = dataset("fz/clone", &[], Some(random_tree(random, 40)));
    clone.origin = Some("fz/f0@old".parse().unwrap());
    spec.datasets.push(clone);
    let mut volume = dataset("fz/volume", &[], None);
    volume.content = Content::Volume(Volume {
        size: 8 << 20,
        block_size: 16 << 10,
        data: Data::bytes(random.bytes(3 << 20)),
    });
    volume.snapshots = vec!["only".into()];
    spec.datasets.push(volume);
    spec
}

fn vdevs(mib: u64, devices: usize, redundancy: Redundancy) -> Vec<Vdev> {
    vec![Vdev { size: mib << 20, paths: (0..devices).map(|i| format!("/d{i}")).collect(), redundancy }]
}

#[test]
fn every_release_reads_what_is_written_for_it() {
    let releases = other_releases();
    assert_eq!(releases.iter().map(|(release, _)| release.as_str()).collect::<Vec<_>>(), ["2.1", "2.4"]);
    for (release, zdb) in releases {
        for vdevs in [
            vdevs(256, 1, Redundancy::Mirror),
            vdevs(256, 2, Redundancy::Mirror),
            vdevs(160, 5, Redundancy::Raidz(Parity::Double)),
        ] {
            write(&full(&format!("openzfs-{release}-linux"), vdevs)).check_with(&zdb);
        }
    }
}

#[test]
fn an_older_release_is_not_given_what_it_does_not_know() {
    let mut spec = full("openzfs-2.1-linux", vdevs(256, 1, Redundancy::Mirror));
    spec.datasets[0].properties.set("checksum", "blake3").unwrap();
    let error = kld_pool::write_pool(&spec, &[&tempfile::tempfile().unwrap()], &()).unwrap_err().to_string();
    assert!(error.contains("needs feature `blake3`"), "{error}");
}

//! What a pool must be able to do before a dataset can have a property: zpool-features(7).

use std::collections::BTreeMap;

use kld_host::zpool;

use super::super::Refusal;
use super::values::number;
use crate::host::Host;

/// Records above this need a feature: `SPA_OLD_MAXBLOCKSIZE`.
const OLD_MAX_RECORD: u64 = 128 << 10;

/// Refuses values that the pool cannot have; asks it only when one of them needs a feature.
pub(super) fn check<'a>(
    host: &dyn Host,
    pool: &str,
    values: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), Refusal> {
    let needed: BTreeMap<&str, String> = values
        .filter_map(|(property, value)| Some((needed(property, value)?, format!("{property}={value}"))))
        .collect();
    if needed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = needed.keys().copied().collect();
    let text = host
        .text(&zpool::features_cmd(pool, &names))
        .map_err(|error| Refusal::Look("the features of the pool", error))?;
    let there = zpool::parse_features(&text);
    match needed.into_iter().find(|(feature, _)| !there.contains(*feature)) {
        None => Ok(()),
        Some((feature, property)) => Err(Refusal::Refused {
            name: pool.to_owned(),
            reason: format!("the pool has no feature `{feature}`, which `{property}` needs"),
            hint: format!(
                "`zpool set feature@{feature}=enabled {pool}` adds it, for good: what reads this pool must know it, a boot loader too"
            ),
        }),
    }
}

/// The feature that a value needs; none for what every pool of OpenZFS has.
fn needed(property: &str, value: &str) -> Option<&'static str> {
    match property {
        "compression" if value == "lz4" => Some("lz4_compress"),
        "compression" if value.starts_with("zstd") => Some("zstd_compress"),
        "recordsize" | "volblocksize" => (number(value)? > OLD_MAX_RECORD).then_some("large_blocks"),
        "dnodesize" if value != "legacy" => Some("large_dnode"),
        // `dedup=blake3,verify`
        "checksum" | "dedup" => {
            let sum = value.split(',').next()?;
            ["sha512", "skein", "edonr", "blake3"].into_iter().find(|feature| *feature == sum)
        }
        "encryption" if value != "off" => Some("encryption"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_need_what_the_manual_says() {
        for (property, value, feature) in [
            ("compression", "zstd-fast-10", Some("zstd_compress")),
            ("compression", "gzip-9", None),
            ("recordsize", "1M", Some("large_blocks")),
            ("recordsize", "128k", None),
            ("volblocksize", "262144", Some("large_blocks")),
            ("dnodesize", "auto", Some("large_dnode")),
            ("dnodesize", "legacy", None),
            ("checksum", "sha256", None),
            ("checksum", "blake3", Some("blake3")),
            ("dedup", "skein,verify", Some("skein")),
            ("encryption", "off", None),
            ("encryption", "aes-256-gcm", Some("encryption")),
            ("quota", "1G", None),
        ] {
            assert_eq!(needed(property, value), feature, "{property}={value}");
        }
    }
}

//! Whatever a tool writes, its reader has an answer: a value or an error, never a panic.

use kld_host::{nft, systemd, wireguard, zfs, zpool};
use proptest::prelude::*;

/// What tools write when all is well.
const STATUS: &str = r#"{"pools":{"tank":{"state":"ONLINE","status":"OK","error_count":1,"scan_stats":{"function":"SCRUB","state":"FINISHED","errors":"2","end_time":3},"vdevs":{"tank":{"read_errors":0,"vdevs":{"a":{"path":"/dev/a","guid":7,"read_errors":1,"write_errors":2,"checksum_errors":"3"},"b":{"read_errors":4}}}},"l2cache":{"/dev/c":{"state":"CANT_OPEN","aux":"OPEN_FAILED"}}}}}"#;
const RULES: &str = r#"{"nftables":[{"metainfo":{"version":"1"}},{"chain":{"family":"inet","table":"t","name":"c","hook":"input","policy":"drop"}},{"rule":{"family":"inet","table":"t","chain":"c"}}]}"#;
const DUMP: &str = "PRIVATE=\tPUBLIC=\t51820\toff\nPEER=\t(none)\t192.0.2.7:1\t10.0.0.2/32\t1\t2\t3\t25\n";
const UNITS: &str = "Id=a.service\nLoadState=loaded\nNRestarts=2\n\nId=b.timer\nActiveState=active\n";
const EXPOSURE: &str = "→ Overall exposure level for a.service: 9.6 UNSAFE 🙂\n";
const PROPERTIES: &str = "tank\tcompression\tlz4\tlocal\ntank/a b\tquota\t0\tdefault\n";

/// A text with some of its characters replaced by what is likely to go wrong.
fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    let chars: Vec<char> = text.chars().collect();
    let replacement = prop::sample::select(vec![
        "",
        "\0",
        "\n",
        "\n\n",
        "\t",
        "=",
        ":",
        ".",
        "-1",
        "0",
        "18446744073709551615",
        "18446744073709551616",
        "1e9",
        "null",
        "{",
        "}",
        "[",
        "\"",
        "\\",
        "é",
        "\u{feff}",
    ]);
    prop::collection::vec((0..chars.len(), replacement), 0..8).prop_map(move |changes| {
        let mut parts: Vec<String> = chars.iter().map(char::to_string).collect();
        changes.into_iter().for_each(|(at, new)| new.clone_into(&mut parts[at]));
        parts.concat()
    })
}

fn read_all(text: &str) {
    drop(zpool::parse_status("tank", text));
    drop(nft::parse_list(text));
    drop(systemd::parse_show(text));
    drop(systemd::parse_exposure(text));
    drop(zfs::parse_get(text));
    drop(wireguard::parse_dump(text));
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        read_all(&text);
    }

    #[test]
    fn damaged_output_gets_an_answer(
        text in prop_oneof![
            damaged(STATUS), damaged(RULES), damaged(DUMP), damaged(UNITS), damaged(EXPOSURE), damaged(PROPERTIES)
        ]
    ) {
        read_all(&text);
    }

    #[test]
    fn an_error_never_shows_a_key(text in damaged(DUMP)) {
        if let Err(error) = wireguard::parse_dump(&text) {
            prop_assert!(!error.to_string().contains("PRIVATE") && !error.to_string().contains("PEER"));
        }
    }

    #[test]
    fn an_exposure_is_at_most_ten(text in damaged(EXPOSURE)) {
        prop_assert!(systemd::parse_exposure(&text).map_or(true, |tenths| tenths <= 109));
    }
}

#[test]
fn the_samples_are_what_tools_write() {
    assert_eq!(zpool::parse_status("tank", STATUS).map(|status| status.device_errors), Ok(10));
    assert!(nft::parse_list(RULES).is_ok() && wireguard::parse_dump(DUMP).is_ok());
    assert!(systemd::parse_show(UNITS).is_ok() && zfs::parse_get(PROPERTIES).is_ok());
    assert_eq!(systemd::parse_exposure(EXPOSURE), Ok(96));
}

#[test]
fn error_counts_of_all_devices_together_may_exceed_a_number() {
    let most = u64::MAX;
    let json = format!(
        r#"{{"pools":{{"r":{{"state":"ONLINE","vdevs":{{"a":{{"read_errors":{most},"write_errors":1}},"b":{{"read_errors":{most}}}}}}}}}}}"#
    );
    assert_eq!(zpool::parse_status("r", &json).map(|status| status.device_errors), Ok(most));
}

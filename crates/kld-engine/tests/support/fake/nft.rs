//! Its `nft`.

/// What `nft --json list ruleset` says when a file of rules is loaded: one chain or rule a line.
pub(super) fn list(text: &str) -> String {
    let (mut objects, mut table) = (Vec::new(), "");
    // The chain that is read, and whether the kernel calls it.
    let mut chain: Option<(&str, bool)> = None;
    for line in text.lines().map(str::trim) {
        let of = |name: &str| format!(r#""family":"inet","table":"{table}","{name}":"#);
        match (&line.split(' ').collect::<Vec<_>>()[..], chain) {
            (["table", "inet", name, "{"], _) => table = name,
            (["chain", name, "{"], _) => chain = Some((name, false)),
            (["type", "filter", "hook", hook, .., policy], Some((name, _))) => {
                let policy = policy.trim_end_matches(';');
                objects.push(format!(
                    r#"{{"chain":{{{}"{name}","hook":"{hook}","policy":"{policy}"}}}}"#,
                    of("name")
                ));
                chain = Some((name, true));
            }
            (["}"], Some((name, is_called))) => {
                if !is_called {
                    objects.push(format!(r#"{{"chain":{{{}"{name}"}}}}"#, of("name")));
                }
                chain = None;
            }
            ([""] | ["#", ..], _) | (_, None) => {}
            (_, Some((name, _))) => {
                objects.push(format!(r#"{{"rule":{{{}"{name}","expr":[]}}}}"#, of("chain")));
            }
        }
    }
    format!(r#"{{"nftables":[{}]}}"#, objects.join(","))
}

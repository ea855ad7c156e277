//! Long lists of names, in parts that a command can take.

/// Bytes of names in one command. Linux takes a quarter of the stack's limit for arguments and environment, 2 MiB unless
/// somebody has lowered it.
const ROOM: usize = 1 << 20;
/// What a word costs besides its letters: the zero at its end, and a pointer to it.
const PER_WORD: usize = 1 + size_of::<usize>();

/// Splits names into as few parts as fit into the arguments of one command each. Ten thousand units are one part.
pub fn batches<'a, 'n>(names: &'a [&'n str]) -> impl Iterator<Item = &'a [&'n str]> {
    let mut rest = names;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|name| {
            bytes += name.len() + PER_WORD;
            bytes <= ROOM
        });
        // A name that is too long alone is the tool's to refuse.
        let count = fit.count().max(1).min(rest.len());
        let part;
        (part, rest) = rest.split_at(count);
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cmd;

    #[test]
    fn nothing_is_lost_and_every_part_can_be_run() {
        let names: Vec<String> =
            (0..60_000).map(|number| format!("a-unit-with-a-name-{number}.service")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let parts: Vec<_> = batches(&names).collect();
        assert_eq!(parts.concat(), names);
        assert_eq!(parts.len(), 3);
        for part in parts {
            Cmd::new("true").args(part).run().expect("it can be started");
        }
        let all = Cmd::new("true").args(&names).run();
        assert!(all.is_err(), "the limit is real: {all:?}");
        assert_eq!(batches(&names[..10_000]).count(), 1);
        assert_eq!(batches(&[]).count(), 0);
        let long = "x".repeat(ROOM + 1);
        assert_eq!(batches(&["a", &long, "b"]).map(<[_]>::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}

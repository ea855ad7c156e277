//! "Did you mean": the known word nearest to a written one.

/// The candidate nearest to `written` (ignoring case, `-` and `_`), when it is near enough to be meant.
/// Ties go to the first.
pub(crate) fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let written: Vec<char> = plain(written);
    let limit = match written.len() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    let distances = candidates.into_iter().map(|c| (distance(&written, &plain(c)), c));
    distances.filter(|(d, c)| *d <= limit && *d < c.chars().count()).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// A hint that names the nearest candidate.
pub(crate) fn did_you_mean<'c>(
    written: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    nearest(written, candidates).map(|c| format!("did you mean `{c}`?"))
}

fn plain(word: &str) -> Vec<char> {
    word.chars().take(64).filter(|c| !"-_".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// Damerau–Levenshtein distance in its "optimal string alignment" form: insert, delete, replace, swap neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, cb) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(ca != cb);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typing_errors_find_their_word_and_other_words_do_not() {
        let known = ["recordsize", "compression", "atime", "quota", "for"];
        for (written, meant) in [
            ("recordsiez", Some("recordsize")),
            ("record_size", Some("recordsize")),
            ("Compresion", Some("compression")),
            ("atme", Some("atime")),
            ("dedup", None),
            ("", None),
            ("fro", Some("for")),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }
}

//! A command in one text, without a shell: words, quotes and backslashes.

/// A text that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a command: {reason}", text.escape_debug())]
pub struct WordsError {
    text: String,
    reason: String,
}

impl WordsError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        Some(
            "a program and its arguments, with quotes where a word has spaces; for more, name a script"
                .to_owned(),
        )
    }
}

/// What only a shell understands. To take it as a letter would be a surprise.
const OF_SHELLS: &str = "|&;<>()$`*?[]#~{}!\n";

/// Splits a command as a shell would, and expands nothing: white space is between words, `'…'` is taken as it is, in `"…"`
/// a backslash stands before `"` and `\`, elsewhere before anything.
///
/// # Errors
/// When there is no word, a quote does not end, or something means more to a shell and is not quoted.
pub fn split_words(text: &str) -> Result<Vec<String>, WordsError> {
    let error = |reason: String| WordsError { text: text.to_owned(), reason };
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    let open = || error(format!("a {letter} has no end"));
                    match letters.next().ok_or_else(open)? {
                        end if end == letter => break,
                        '\\' if letter == '"' => match letters.next().ok_or_else(open)? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => {
                let next =
                    letters.next().ok_or_else(|| error("a backslash has nothing behind it".to_owned()))?;
                word.get_or_insert_default().push(next);
            }
            other if OF_SHELLS.contains(other) => {
                return Err(error(format!(
                    "no shell reads it, and `{}` is not quoted",
                    other.escape_debug()
                )));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(error("it names no program".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_and_nothing_is_expanded() {
        let table: [(&str, &[&str]); 5] = [
            ("fsfreeze -f /mnt", &["fsfreeze", "-f", "/mnt"]),
            (r#"  a 'b "c' "d '\" \\ \e" "#, &["a", "b \"c", r#"d '" \ \e"#]),
            (r"a\ b\$c ''", &["a b$c", ""]),
            ("a'b'\"c\"d", &["abcd"]),
            ("systemctl stop app.service", &["systemctl", "stop", "app.service"]),
        ];
        for (text, want) in table {
            assert_eq!(split_words(text).expect(text), want, "{text}");
        }
        for bad in
            ["", "  ", "''", "a 'b", "a \"b", "a\\", "a | b", "a > b", "a $HOME", "a; b", "a && b", "a *"]
        {
            let error = split_words(bad).expect_err(bad);
            assert!(error.hint().is_some() && error.to_string().contains("is not a command"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("\\PC{0,12}", 0..5)) {
            let all: Vec<String> = std::iter::once("program".to_owned()).chain(words).collect();
            let quoted: Vec<String> = all.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            prop_assert_eq!(split_words(&quoted.join(" ")), Ok(all));
        }

        #[test]
        fn whatever_comes_is_split_or_refused(text in "(?s).{0,40}") {
            let _ = split_words(&text);
        }
    }
}

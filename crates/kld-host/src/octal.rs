//! Bytes as a backslash and their octal digits: how the kernel and `zfs diff` keep white space out of columns.

/// Reads a text in which such bytes have this many digits. What only looks like one stays as it is.
pub(crate) fn unescape(text: &str, digits: usize) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..digits)
            .filter(|octal| *first == b'\\' && octal.iter().all(|d| matches!(d, b'0'..=b'7')));
        let value =
            octal.map(|octal| octal.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[digits..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        assert_eq!(unescape("/caf\\0303\\0251", 4), "/café");
        assert_eq!(unescape("/a\\b\\9999", 4), "/a\\b\\9999");
        assert_eq!(unescape("a\\b\\04", 4), "a\\b\\04");
        // Neither digits with a sign nor more than a byte.
        assert_eq!(unescape("\\+040\\0400", 4), "\\+040\\0400");
        assert_eq!(unescape("/a\\040b\\134c\\400", 3), "/a b\\c\\400");
    }
}

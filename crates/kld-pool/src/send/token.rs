//! Tokens of receivers that were interrupted (`receive_resume_token`): what they have, and what they still want.
//!
//! A token is `1-<checksum>-<length>-<payload>`, all hexadecimal: the payload is a zlib stream of a packed name/value list
//! of that length, the checksum the first word of the payload's fletcher-4.

use std::io::Read as _;

use super::SendOptions;
use crate::read::nvlist::{NvList, Value};

/// Where an interrupted receiver wants its stream to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeToken {
    /// GUID of the snapshot that is sent.
    pub to_guid: u64,
    /// Its name where it was sent from.
    pub name: String,
    /// GUID of the snapshot that the stream is the difference from.
    pub from_guid: Option<u64>,
    /// Object to go on with.
    pub object: u64,
    /// Byte in it.
    pub offset: u64,
    /// Bytes that were received so far.
    pub received: u64,
    /// Options of the stream.
    pub options: SendOptions,
}

/// A token that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not made of four hexadecimal numbers.
    #[error("the token is not of the form `1-…-…-…`")]
    Form,
    /// Its version is not 1.
    #[error("the token has an unknown version")]
    Version,
    /// Its checksum is wrong: it was not copied as a whole.
    #[error("the token's checksum is wrong")]
    Checksum,
    /// Its checksum is right, but its payload makes no sense.
    #[error("the token's content is damaged")]
    Content,
    /// It asks for something that only OpenZFS can send.
    #[error("the token asks for a stream that is {0}, which is not supported")]
    NotSupported(&'static str),
}

/// Tokens are a few hundred bytes.
const MAX_LEN: u64 = 1 << 20;

impl std::str::FromStr for ResumeToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<ResumeToken, TokenError> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [version, checksum, len, payload] = parts[..] else { return Err(TokenError::Form) };
        if version != "1" {
            return Err(TokenError::Version);
        }
        let number = |text| u64::from_str_radix(text, 16).map_err(|_| TokenError::Form);
        let (checksum, len) = (number(checksum)?, number(len)?);
        let payload = bytes_of_hex(payload).ok_or(TokenError::Form)?;
        if first_word(&payload) != checksum {
            return Err(TokenError::Checksum);
        }
        let mut packed = Vec::new();
        let decoder = flate2::read::ZlibDecoder::new(payload.as_slice());
        decoder.take(MAX_LEN).read_to_end(&mut packed).map_err(|_| TokenError::Content)?;
        if packed.len() as u64 != len {
            return Err(TokenError::Content);
        }
        ResumeToken::of(&NvList::unpack(&packed).ok_or(TokenError::Content)?)
    }
}

impl ResumeToken {
    fn of(list: &NvList) -> Result<ResumeToken, TokenError> {
        let has = |name: &str| list.iter().any(|(found, _)| found == name.as_bytes());
        if has("rawok") {
            return Err(TokenError::NotSupported("raw"));
        }
        // Only a list with something in it asks for redaction.
        let redacts = |value: &Value| !matches!(value, Value::Numbers(guids) if guids.is_empty());
        let lists: [&[u8]; 2] = [b"redact_snaps", b"book_redact_snaps"];
        if list.iter().any(|(name, value)| lists.contains(&name) && redacts(value)) {
            return Err(TokenError::NotSupported("redacted"));
        }
        let need = |name| list.number(name).ok_or(TokenError::Content);
        let object = need("object")?;
        if object == 0 {
            return Err(TokenError::Content);
        }
        Ok(ResumeToken {
            to_guid: need("toguid")?,
            name: list.text("toname").ok_or(TokenError::Content)?,
            from_guid: list.number("fromguid").filter(|guid| *guid != 0),
            object,
            offset: need("offset")?,
            received: list.number("bytes").unwrap_or(0),
            options: SendOptions {
                compressed: has("compressok"),
                large_blocks: has("largeblockok"),
                embedded: has("embedok"),
            },
        })
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The first word of fletcher-4: the sum of all 32-bit words; a last one that is cut off does not count.
fn first_word(payload: &[u8]) -> u64 {
    payload
        .chunks_exact(4)
        .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenZFS 2.3.9 gave for a stream of `zfs send -cLe` that was cut off.
    const TOKEN: &str = "1-10264ed3ee-110-789c636064000310a500c4ec50360710e72765a5269730305843d560c8a7a515a79630c001489e0d493\
             ea9b224b5184837b86863d55f929f5e9a99c2c090b332e397fa37917d1a48f29c60f9bcc4dc54209d9897ad5f5c925f949ae\
             2909f970a36879701e1ee9cc4a2f4d4a49cfce4ecfc6c909804d47c987c6a6e526a0a500aa48f1b493c393fb7a028b5b818a\
             20b0200e8e32539";

    #[test]
    fn a_token_of_the_kernel() {
        let token: ResumeToken = TOKEN.parse().unwrap();
        assert_eq!((token.name.as_str(), token.from_guid), ("tank/stored@one", None));
        assert_eq!((token.object, token.offset, token.received), (0x13b, 0, 0x2b_4480));
        assert_eq!(token.to_guid, 0xbe14_f627_fa68_a96c);
        let SendOptions { compressed, large_blocks, embedded } = token.options;
        assert!(compressed && large_blocks && embedded);
    }
}

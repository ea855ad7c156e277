//! ZLE, zero-length encoding: runs of zeros are counted, all else is copied.
//!
//! The stream is a list of runs. A first byte below 64 announces that many bytes plus one, copied as they are; one of 64
//! and more stands for that many zeros less 63.

/// Bytes a literal run can have, which is also where zero runs start to count (the `level` of ZLE in OpenZFS).
const LITERAL_MAX: usize = 64;
/// Zeros one byte can stand for.
const ZEROS_MAX: usize = 256 - LITERAL_MAX;

/// Appends the compressed form of `data` to `out`.
pub(super) fn compress(data: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < data.len() {
        let rest = &data[at..];
        let zeros = rest.iter().take(ZEROS_MAX).take_while(|byte| **byte == 0).count();
        if zeros > 0 {
            out.push((LITERAL_MAX + zeros - 1) as u8);
            at += zeros;
            continue;
        }
        // A single zero costs as much inside a literal run as between two of them: only two end it.
        let most = rest.len().min(LITERAL_MAX);
        let len = (1..most).find(|i| rest[*i] == 0 && rest.get(i + 1) == Some(&0)).unwrap_or(most);
        out.push((len - 1) as u8);
        out.extend_from_slice(&rest[..len]);
        at += len;
    }
}

#[cfg(test)]
pub(super) fn decompress(mut stream: &[u8], len: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < len {
        let run = usize::from(stream[0]) + 1;
        stream = &stream[1..];
        if run <= LITERAL_MAX {
            data.extend_from_slice(&stream[..run]);
            stream = &stream[run..];
        } else {
            data.resize(data.len() + run - LITERAL_MAX, 0);
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs() {
        for (data, stream) in [
            (&[0; 192][..], &[255][..]),
            (&[0; 193], &[255, 64]),
            (&[7, 0, 7], &[2, 7, 0, 7]),
            (&[7, 0, 0, 7], &[0, 7, 65, 0, 7]),
        ] {
            let mut out = Vec::new();
            compress(data, &mut out);
            assert_eq!(out, stream);
            assert_eq!(decompress(&out, data.len()), data);
        }
    }
}

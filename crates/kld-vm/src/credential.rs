//! System credentials: named values that systemd in the guest reads from the firmware's tables.
//!
//! SMBIOS type 11 strings `io.systemd.credential.binary:NAME=BASE64` (systemd 252 and later, `systemd.system-credentials(7)`).
//! QEMU gets them as files, since its arguments can be read by every user of the host. In the guest they can be read
//! by root.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A named value for the guest's systemd. Its value is never displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    name: String,
    value: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, {} bytes)", self.name, self.value.len())
    }
}

impl Credential {
    /// `name` is a file name: no `/`, at most 255 bytes, and no `=`, at which the firmware string is cut.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The string for the firmware's table.
    pub(crate) fn to_smbios(&self) -> String {
        format!("io.systemd.credential.binary:{}={}", self.name, STANDARD.encode(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_base64_in_the_table_and_hidden_in_debug() {
        let credential = Credential::new("kldload.operator", "key,=\n");
        assert_eq!(credential.to_smbios(), "io.systemd.credential.binary:kldload.operator=a2V5LD0K");
        assert_eq!(format!("{credential:?}"), "Credential(kldload.operator, 6 bytes)");
    }
}

//! System credentials: named values that systemd in the guest reads from the firmware's tables.
//!
//! SMBIOS type 11 strings `io.systemd.credential.binary:NAME=BASE64` (systemd 252 and later, `systemd.system-credentials(7)`).
//! QEMU gets them as files of structures, since its arguments can be read by every user of the host. In the guest they can be read
//! by root.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The type of the structure, SMBIOS 3.0, 7.12.
const OEM_STRINGS: u8 = 11;

/// The upper byte of handles. QEMU counts its own structures of this type from the same one (`T11_BASE` in hw/smbios/smbios.c), and
/// makes none where it is given some.
const FIRST_HANDLE: u8 = 0x0e;

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

    /// The structure "OEM strings" of the firmware's table with one string (SMBIOS 3.0, 6.1.2 and 7.12): type, length of what
    /// precedes the strings, handle, how many strings; each string and all of them end with a zero. `number` tells the structures
    /// of one machine apart.
    ///
    /// QEMU would make one of a file that holds the string only (`path=`), but before 7.2.18, 9.2.4 and 10.0.1 it forgets the zero, and
    /// the guest gets whatever lies behind ("smbios: Fix buffer overrun when using path= option").
    pub(crate) fn to_smbios(&self, number: u8) -> Vec<u8> {
        let mut structure = vec![OEM_STRINGS, 5, number, FIRST_HANDLE, 1];
        structure.extend_from_slice(self.to_text().as_bytes());
        structure.extend_from_slice(&[0, 0]);
        structure
    }

    fn to_text(&self) -> String {
        format!("io.systemd.credential.binary:{}={}", self.name, STANDARD.encode(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_base64_in_the_table_and_hidden_in_debug() {
        let credential = Credential::new("kldload.operator", "key,=\n");
        assert_eq!(credential.to_text(), "io.systemd.credential.binary:kldload.operator=a2V5LD0K");
        let structure = credential.to_smbios(3);
        assert_eq!(structure[..5], [11, 5, 3, 0x0e, 1]);
        assert_eq!(structure[5..], *format!("{}\0\0", credential.to_text()).as_bytes());
        assert_eq!(format!("{credential:?}"), "Credential(kldload.operator, 6 bytes)");
    }
}

//! UEFI for the guest: OVMF as the distros ship it.

use std::path::{Path, PathBuf};

use crate::VmError;

/// Code and variable store, without Secure Boot, in the order they are preferred: Debian and Ubuntu, older Debian,
/// Fedora, Arch.
const KNOWN: &[(&str, &str)] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

/// A pair of flash images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Read-only code.
    pub code: PathBuf,
    /// Template of the variables; each guest gets a copy.
    pub vars: PathBuf,
}

impl Firmware {
    /// The first pair that is installed.
    ///
    /// # Errors
    /// [`VmError::NoFirmware`].
    pub fn find() -> Result<Self, VmError> {
        let installed = |(code, vars): &&(&str, &str)| Path::new(code).is_file() && Path::new(vars).is_file();
        let (code, vars) = KNOWN.iter().find(installed).ok_or(VmError::NoFirmware)?;
        Ok(Self { code: code.into(), vars: vars.into() })
    }
}

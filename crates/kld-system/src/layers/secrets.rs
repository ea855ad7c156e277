//! Secrets: names here, values only on the machine, encrypted by systemd-creds(1), readable by the service they are for.

use kld_manifest::names::SecretName;

use crate::context::Context;
use crate::draft::Draft;
use crate::system::{Because, Layer, SystemFile};

/// Where the encrypted values lie.
const DIRECTORY: &str = "/etc/kldload/secrets";

/// Adds the place for the values.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let mut spans: Vec<_> = context.appliance.secrets.iter().map(|secret| secret.name.span).collect();
    spans.sort();
    let Some(span) = spans.first() else { return };
    let because = Because::new(
        Layer::Secrets,
        *span,
        "secrets, made or given at first boot and encrypted by systemd-creds",
    );
    draft.file(SystemFile::directory(DIRECTORY, 0o700, because));
}

/// Where the encrypted value of a secret lies.
pub(crate) fn credential_file(name: &SecretName) -> String {
    format!("{DIRECTORY}/{name}.cred")
}

/// The value of `LoadCredentialEncrypted=`: the service finds the secret in `$CREDENTIALS_DIRECTORY/NAME`.
pub(crate) fn load_credential(name: &SecretName) -> String {
    format!("{name}:{}", credential_file(name))
}

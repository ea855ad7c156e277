//! Secrets: names here, values only on the machine, encrypted by systemd-creds(1), readable by the service they are for.

use kld_manifest::Spanned;
use kld_manifest::names::SecretName;

use crate::context::{Context, with_suffix};
use crate::draft::Draft;
use crate::system::{Because, Layer, SystemFile};

/// Where the encrypted values lie, each as `NAME.cred`.
pub const DIRECTORY: &str = "/etc/kldload/secrets";

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
pub fn secret_file(name: &SecretName) -> String {
    format!("{DIRECTORY}/{name}.cred")
}

/// The units that are started with a secret.
pub(crate) fn used_by(context: &Context<'_>, name: &SecretName) -> Vec<String> {
    let has_it = |secrets: &[Spanned<SecretName>]| secrets.iter().any(|secret| secret.value == *name);
    let services = context.services.iter().filter(|service| has_it(&service.secrets));
    let containers = context.appliance.containers.iter().filter(|container| has_it(&container.secrets));
    let units = services.map(|service| context.running_unit(service).0.to_string());
    let mut units: Vec<String> =
        units.chain(containers.map(|container| with_suffix(&container.name.value).to_string())).collect();
    units.sort();
    units
}

/// The value of `LoadCredentialEncrypted=`: the service finds the secret in `$CREDENTIALS_DIRECTORY/NAME`.
pub(crate) fn load_credential(name: &SecretName) -> String {
    format!("{name}:{}", secret_file(name))
}

//! The software bill of materials: SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use serde_json::{Value, json};

use crate::cache::hex;
use crate::lock::Lock;
use sha2::{Digest, Sha256};

/// The SPDX document of an image.
///
/// `created` is the image's own time (`SOURCE_DATE_EPOCH` of the build) in RFC 3339, so that the same image
/// has the same document.
pub(crate) fn render_spdx(name: &str, created: &str, lock: &Lock) -> Value {
    let packages: Vec<Value> = lock
        .packages
        .iter()
        .map(|p| {
            json!({
                "SPDXID": package_id(&p.name, &p.architecture),
                "name": p.name,
                "versionInfo": p.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "checksums": p.sha256.iter().map(|sum| json!({"algorithm": "SHA256", "checksumValue": sum})).collect::<Vec<_>>(),
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": format!("pkg:deb/{}/{}@{}?arch={}", lock.vendor(), p.name, percent(&p.version), p.architecture),
                }],
            })
        })
        .collect();
    let relationships: Vec<Value> = lock
        .packages
        .iter()
        .map(|p| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package_id(&p.name, &p.architecture),
            })
        })
        .collect();
    let digest = hex(&Sha256::digest(lock.render().as_bytes())[..16]);
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://kldload.invalid/spdx/{name}-{digest}"),
        "creationInfo": {"created": created, "creators": [format!("Tool: kldload-{}", env!("CARGO_PKG_VERSION"))]},
        "packages": packages,
        "relationships": relationships,
    })
}

/// SPDX ids hold letters, digits, `.` and `-` only.
fn package_id(name: &str, architecture: &str) -> String {
    let clean = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    format!("SPDXRef-{}-{}", clean(&name.replace('+', "plus")), clean(architecture))
}

/// Percent-encodes what a package URL keeps for itself.
fn percent(version: &str) -> String {
    version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E")
}

//! Encryption at rest, one key for each dataset that asks for it.
//!
//! A key cannot be in an image, so the dataset is not either: `kldload node init` makes both at first boot. The key is
//! kept with systemd-creds(1), which binds it to the TPM when there is one; a unit decrypts it to a RAM disk before the mount unit loads it.
//! A person can put a passphrase in its place: then that unit is skipped, and zfs-mount-generator(8) asks.
//! The properties `org.openzfs.systemd:*` stay on the dataset, so that the mount cache keeps them when it is rewritten.

use kld_manifest::names::DatasetName;

use crate::context::{Context, IDENTITY_UNIT, unit_escape};
use crate::draft::Draft;
use crate::layers::datasets::{algorithm, lineage, set};
use crate::node::NodeDatasetKey;
use crate::system::{Because, Created, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile};

/// Where the keys of encrypted datasets lie sealed, in the boot environment.
pub const KEYS: &str = "/etc/kldload/keys";
/// Where the keys of encrypted datasets lie while the machine runs; a RAM disk.
pub const KEYS_IN_MEMORY: &str = "/run/kldload/keys";

/// How long a start waits for a person; what systemd waits for a disk, systemd-system.conf(5). The generated unit by itself asks three
/// times as long.
const ASKS_FOR: &str = "90s";

/// Adds what encrypted datasets need to be unlocked without a person.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let mut any = false;
    for wanted in &context.appliance.datasets {
        let Some(encryption) = &wanted.encryption else { continue };
        any = true;
        let key = key_of(wanted.name.value.path_in_pool(), algorithm(encryption.value));
        draft.file(key_unit(&key, wanted.name.value.as_str(), encryption.span));
        draft.file(load_after_unlock(&key, wanted.name.value.as_str(), encryption.span));
        let Some(dataset) = draft.datasets.get_mut(&wanted.name.value) else { continue };
        let mut add = |property: &str, value: &str, reason: &str| {
            set(dataset, property, value, Because::new(Layer::Encryption, encryption.span, reason));
        };
        add("encryption", &key.algorithm, "who has the disk does not have the data");
        add("keyformat", "raw", "32 random bytes, born on the machine; nothing to remember or to guess");
        add(
            "keylocation",
            &format!("file://{}", key.key_file),
            "the key is in memory only while the machine runs",
        );
        let units = format!("{IDENTITY_UNIT} {}", key.unit);
        add(
            "org.openzfs.systemd:after",
            &units,
            "the dataset is made, and its key unlocked, before it is mounted",
        );
        add("org.openzfs.systemd:requires", &key.unit, "without its key it cannot be mounted");
        add(
            "org.openzfs.systemd:nofail",
            "on",
            "a machine whose key is lost still boots, so that somebody can look",
        );
    }
    if any {
        let because = Because::always(
            Layer::Encryption,
            "the keys of encrypted datasets, each encrypted by systemd-creds",
        );
        draft.file(SystemFile::directory(KEYS, 0o700, because));
    }
    inherit_creation(draft);
}

/// What is inside an encrypted dataset is made on the machine as well.
fn inherit_creation(draft: &mut Draft) {
    let inside: Vec<_> = draft
        .datasets
        .values()
        .filter_map(|dataset| {
            let created =
                lineage(dataset, &draft.datasets).map(|d| d.created).find(|c| *c != Created::InImage)?;
            Some((dataset.name.clone(), created))
        })
        .collect();
    for (name, created) in inside {
        if let Some(dataset) = draft.datasets.get_mut(&name) {
            dataset.created = created;
        }
    }
}

/// Where everything about the key of a dataset is.
pub(crate) fn key_of(path_in_pool: &str, algorithm: &str) -> NodeDatasetKey {
    // `@` cannot be in a dataset name, so no two datasets share a file.
    let credential = path_in_pool.replace('/', "@");
    NodeDatasetKey {
        algorithm: algorithm.to_owned(),
        credential_file: format!("{KEYS}/{credential}.cred"),
        key_file: format!("{KEYS_IN_MEMORY}/{credential}"),
        credential,
        unit: format!("kldload-key-{}.service", unit_escape(path_in_pool)),
    }
}

/// The files that unlock a dataset with a key of its own at every start.
pub fn unlocking_files(dataset: &DatasetName) -> [String; 2] {
    // Their names do not depend on the algorithm.
    let key = key_of(dataset.path_in_pool(), "");
    [key_unit_path(&key), load_drop_in_path(dataset.as_str())]
}

fn key_unit_path(key: &NodeDatasetKey) -> String {
    format!("/etc/systemd/system/{}", key.unit)
}

fn load_drop_in_path(dataset: &str) -> String {
    format!("/etc/systemd/system/zfs-load-key@{}.service.d/50-kldload.conf", unit_escape(dataset))
}

/// The generated unit that loads a key requires ours, but is not ordered after it (zfs-mount-generator of OpenZFS 2.3).
fn load_after_unlock(key: &NodeDatasetKey, dataset: &str, span: kld_manifest::Span) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Encryption, span, reason);
    let mut unit = UnitFile::default();
    let after = format!("{IDENTITY_UNIT} {}", key.unit);
    unit.add(Section::Unit, "After", after, because("the key lies in memory before it is loaded"));
    // The generated units are ordered before zfs-mount.service, and that before everything else.
    let waits = because("a start without a person does not wait for a passphrase longer than for a disk");
    unit.add(Section::Service, "TimeoutStartSec", ASKS_FOR, waits);
    unit.into_file(
        load_drop_in_path(dataset),
        because(&format!("loads the key of {dataset} once it is unlocked")),
    )
}

fn key_unit(key: &NodeDatasetKey, dataset: &str, span: kld_manifest::Span) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Encryption, span, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Service, Unit};
    add(Unit, "Description", &format!("Unlock the key of {dataset}"), "what people read in the log");
    add(Unit, "DefaultDependencies", "no", "it runs before the file systems are mounted");
    add(Unit, "ConditionPathExists", &key.credential_file, "a dataset with a passphrase has none");
    add(Unit, "After", IDENTITY_UNIT, "first boot makes the key");
    add(Unit, "Requires", IDENTITY_UNIT, "first boot makes the key");
    add(Unit, "Conflicts", "shutdown.target", "without default dependencies this must be said");
    add(Unit, "Before", "shutdown.target", "without default dependencies this must be said");
    add(Service, "Type", "oneshot", "done when the key is in memory");
    add(Service, "RemainAfterExit", "yes", "the key is there until the machine stops");
    add(Service, "RuntimeDirectory", "kldload/keys", "a RAM disk, for root only");
    add(Service, "RuntimeDirectoryMode", "0700", "a RAM disk, for root only");
    add(Service, "RuntimeDirectoryPreserve", "yes", "other keys lie in the same directory");
    add(Service, "UMask", "0077", "nobody else reads the key");
    let command = format!(
        "/usr/bin/systemd-creds decrypt --name={} {} {}",
        key.credential, key.credential_file, key.key_file
    );
    add(
        Service,
        "ExecStart",
        &command,
        "decrypts with the machine's own key, and with its TPM when it has one",
    );
    for (name, value, reason) in super::hardening::KEY_UNLOCKER {
        add(Service, name, value, reason);
    }
    unit.into_file(key_unit_path(key), because(&format!("unlocks the key of {dataset} before it is mounted")))
}

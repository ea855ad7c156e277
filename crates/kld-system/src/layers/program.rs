//! The one-word commands: names of one program, which units start, too.

use crate::draft::Draft;
use crate::system::{Because, Layer, SystemFile};

/// Where the program is: an image brings it, a person puts it on a machine that kldload has not built.
pub const PATH: &str = "/usr/bin/kldload";
/// Names that it answers to.
const NAMES: [(&str, &str); 7] = [
    ("kbe", "keeps systems side by side"),
    ("kdf", "says where the space is"),
    ("kdir", "makes datasets for directories"),
    ("kpkg", "changes packages in a clone of the system"),
    ("ksnap", "makes and uses snapshots"),
    ("kst", "says whether all is well"),
    ("kupgrade", "upgrades a clone of the system, and keeps it when it is well"),
];

/// Adds the names.
pub(crate) fn add(draft: &mut Draft) {
    for (name, does) in NAMES {
        let because = Because::always(Layer::Boot, format!("`{name}` {does}"));
        draft.file(SystemFile::symlink(format!("/usr/bin/{name}"), "kldload", because));
    }
}

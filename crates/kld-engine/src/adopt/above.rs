//! The directories above one that is adopted. A dataset is mounted by its path, and ZFS follows a link that somebody has put in the
//! place of a directory: whoever may write above it could have root mount it on `/etc`.

use crate::host::{Entry, Host, HostError, Node};

/// Who but root, and the person who asks as root, may put something else into the place of a directory: why, and what to do; `None`:
/// nobody.
pub(super) fn is_of_others(
    host: &dyn Host,
    path: &str,
    person: Option<u32>,
) -> Result<Option<(String, String)>, HostError> {
    for (end, _) in path.match_indices('/') {
        let above = if end == 0 { "/" } else { &path[..end] };
        let (what, mend) = match host.entry(above)? {
            Some(Entry { node: Node::Directory, uid, .. }) if uid != 0 && Some(uid) != person => {
                ("does not belong to root", "chown root")
            }
            // Where it is sticky, only the owner of a thing gives it another name.
            Some(Entry { node: Node::Directory, mode, .. }) if mode & 0o022 != 0 && mode & 0o1000 == 0 => {
                ("can be written to by others than root", "chmod go-w")
            }
            Some(Entry { node: Node::Directory, .. }) => continue,
            _ => ("is no directory any more", "ls -ld"),
        };
        let reason = format!("`{above}` {what}, and whoever writes there could lead the mount elsewhere");
        let itself = match super::wish::check_name(above) {
            Ok(()) => format!(", or adopt `{above}` itself, with all that is in it"),
            Err(_) => String::new(),
        };
        return Ok(Some((reason, format!("`{mend} {above}`{itself}"))));
    }
    Ok(None)
}

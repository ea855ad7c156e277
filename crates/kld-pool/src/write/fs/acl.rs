//! The ACL that stands for a mode: every ZFS object has one, made of NFSv4-style entries.
//!
//! A mode that gives a later class more than an earlier one (0070, 0007, 0604 …) needs further entries, because an
//! evaluation of `owner@`, `group@`, `everyone@` in order would let the owner use the group's rights: denials, and
//! an early permission where a denial to the group would also hit the owner. The rule is the one OpenZFS uses when it
//! makes an ACL from a mode (`acl_trivial_access_masks`).

const READ_DATA: u32 = 0x1;
const WRITE_DATA: u32 = 0x2;
const APPEND_DATA: u32 = 0x4;
const READ_NAMED_ATTRS: u32 = 0x8;
const WRITE_NAMED_ATTRS: u32 = 0x10;
const EXECUTE: u32 = 0x20;
const DELETE_CHILD: u32 = 0x40;
const READ_ATTRIBUTES: u32 = 0x80;
const WRITE_ATTRIBUTES: u32 = 0x100;
const READ_ACL: u32 = 0x2_0000;
const WRITE_ACL: u32 = 0x4_0000;
const WRITE_OWNER: u32 = 0x8_0000;
const SYNCHRONIZE: u32 = 0x10_0000;

/// What everybody may do whatever the mode says.
const ANYONE: u32 = READ_ACL | READ_ATTRIBUTES | READ_NAMED_ATTRS | SYNCHRONIZE;
/// What the owner may do whatever the mode says.
const OWNER: u32 = ANYONE | WRITE_ATTRIBUTES | WRITE_OWNER | WRITE_ACL | WRITE_NAMED_ATTRS;

/// Whether an entry allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Allow,
    Deny,
}

/// Whom an entry speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    Group,
    Everyone,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ace {
    rule: Rule,
    who: Who,
    mask: u32,
}

/// Bytes of an entry.
pub(crate) const ACE: usize = 8;

impl Ace {
    /// An entry for an abstract user: type, flags, mask.
    pub(crate) fn to_bytes(self) -> [u8; ACE] {
        let kind: u16 = match self.rule {
            Rule::Allow => 0,
            Rule::Deny => 1,
        };
        let flags: u16 = match self.who {
            Who::Owner => 0x1000,
            // A group and an identifier of one.
            Who::Group => 0x2040,
            Who::Everyone => 0x4000,
        };
        let mut bytes = [0; ACE];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[4..].copy_from_slice(&self.mask.to_le_bytes());
        bytes
    }
}

/// The three to six entries for the permission bits of `mode`.
pub(crate) fn trivial_acl(mode: u32, is_dir: bool) -> Vec<Ace> {
    let rights =
        [(4, READ_DATA), (2, WRITE_DATA | APPEND_DATA | if is_dir { DELETE_CHILD } else { 0 }), (1, EXECUTE)];
    let (mut owner, mut group, mut everyone) = (OWNER, ANYONE, ANYONE);
    let (mut owner_first, mut owner_denied, mut group_denied) = (0, 0, 0);
    for (bit, mask) in rights {
        let (user_may, group_may, other_may) = (mode >> 6 & bit != 0, mode >> 3 & bit != 0, mode & bit != 0);
        if user_may {
            owner |= mask;
        }
        if group_may {
            group |= mask;
        }
        if other_may {
            everyone |= mask;
        }
        if !user_may && (group_may || other_may) {
            owner_denied |= mask;
        }
        if !group_may && other_may {
            group_denied |= mask;
            // The owner may be in the group: allowed before the group is denied.
            if user_may {
                owner_first |= mask;
            }
        }
    }
    let optional = [
        Ace { rule: Rule::Allow, who: Who::Owner, mask: owner_first },
        Ace { rule: Rule::Deny, who: Who::Owner, mask: owner_denied },
        Ace { rule: Rule::Deny, who: Who::Group, mask: group_denied },
    ];
    let always = [
        Ace { rule: Rule::Allow, who: Who::Owner, mask: owner },
        Ace { rule: Rule::Allow, who: Who::Group, mask: group },
        Ace { rule: Rule::Allow, who: Who::Everyone, mask: everyone },
    ];
    optional.into_iter().filter(|ace| ace.mask != 0).chain(always).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an evaluator decides: the first entry that speaks of a right for one of the classes decides it.
    fn may(acl: &[Ace], classes: &[Who], mask: u32) -> bool {
        acl.iter()
            .find(|ace| classes.contains(&ace.who) && ace.mask & mask != 0)
            .is_some_and(|ace| ace.rule == Rule::Allow)
    }

    #[test]
    fn every_mode_evaluates_to_itself() {
        for mode in 0..0o1000 {
            for is_dir in [false, true] {
                let acl = trivial_acl(mode, is_dir);
                for (bit, mask) in [(4, READ_DATA), (2, WRITE_DATA), (2, APPEND_DATA), (1, EXECUTE)] {
                    // An owner who is also in the group is bound by the owner's bits only.
                    let owner = may(&acl, &[Who::Owner, Who::Group, Who::Everyone], mask);
                    let group = may(&acl, &[Who::Group, Who::Everyone], mask);
                    let other = may(&acl, &[Who::Everyone], mask);
                    let expected = [mode >> 6, mode >> 3, mode].map(|bits| bits & bit != 0);
                    assert_eq!([owner, group, other], expected, "{mode:o} {bit}");
                }
            }
        }
    }

    #[test]
    fn known_modes() {
        let bytes = |mode, is_dir| {
            trivial_acl(mode, is_dir)
                .iter()
                .map(|ace| {
                    let b = ace.to_bytes();
                    format!(
                        "{}:{:02x}{:02x}:{:x}",
                        b[0],
                        b[3],
                        b[2],
                        u32::from_le_bytes([b[4], b[5], b[6], b[7]])
                    )
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(bytes(0o644, false), "0:1000:1e019f 0:2040:120089 0:4000:120089");
        assert_eq!(bytes(0o755, true), "0:1000:1e01ff 0:2040:1200a9 0:4000:1200a9");
        assert_eq!(bytes(0o070, false), "1:1000:27 0:1000:1e0198 0:2040:1200af 0:4000:120088");
        assert_eq!(bytes(0o007, false), "1:1000:27 1:2040:27 0:1000:1e0198 0:2040:120088 0:4000:1200af");
        assert_eq!(bytes(0o604, false), "0:1000:1 1:2040:1 0:1000:1e019f 0:2040:120088 0:4000:120089");
    }
}

//! A machine whose dataset is unlocked by a person.

use crate::vault::{a_person_has_the_key, lives};

#[test]
fn a_person_holds_the_key_and_gives_it_back() {
    lives("passphrase", a_person_has_the_key);
}

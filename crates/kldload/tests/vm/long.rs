//! What takes too long for every change: `cargo xtask test --long` runs it.

mod adopt;
mod bare;
mod bookworm;
mod crashes;
mod environments;
mod hooks;
mod kbe;
mod kernels;
mod passphrase;
mod upgrades;

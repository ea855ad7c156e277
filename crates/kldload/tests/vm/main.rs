//! Real machines: every promise of the README about a built image, proven on one that runs.
//!
//! An image is built once, booted once, and brought to health once; each test starts from a saved state of that
//! machine, so that a test costs seconds and not a boot. Tests of the boot itself pay for their own.

mod apply;
mod builds;
mod channel;
mod clones;
mod container;
mod contract;
mod core;
mod daily;
mod exercise;
mod failures;
mod first_boot;
mod fixture;
mod health;
mod kernel;
mod ksnap;
mod load;
mod long;
mod mesh;
mod pools;
mod procedures;
mod readme;
mod replaced;
mod secrets;
mod streams;
mod tools;
mod transcript;
mod turn;
mod vault;
mod vdevs;
mod webapp;

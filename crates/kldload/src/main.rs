//! kldload
fn main() {}

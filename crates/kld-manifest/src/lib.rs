//! Manifest text → [`Appliance`]: one checked model, with the place of every value.

pub mod model;
pub mod names;
mod span;

pub use model::Appliance;
pub use span::{Span, Spanned};

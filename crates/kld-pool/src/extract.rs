//! Takes file systems and volumes out of a pool: into a directory of the host, a tar, or an image.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kld_pool::extract::extract_dir;
//! use kld_pool::read::Pool;
//!
//! let image = std::fs::File::open("tank.img")?;
//! let pool = Pool::open(&[&image])?;
//! let filesystem = pool.filesystem("tank/home@install")?;
//! let report = extract_dir(&filesystem, "/alice", std::path::Path::new("alice"), 0, &())?;
//! for problem in &report.problems {
//!     println!("{problem}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The pool is not trusted: a name that no file can have is reported and left out, and nothing outside the directory is
//! ever written to. Damage is reported, and everything else is taken out: of a damaged file the bytes that cannot be read
//! become zeros. What the host does not permit (owners and devices without root) is left out and counted.

mod directory;
mod levels;
mod node;
mod report;
mod tar;
mod visit;
mod volume;

pub use directory::extract_dir;
pub use report::{ExtractError, LeftOut, Omission, Problem, Report, Trouble};
pub use tar::extract_tar;
pub use volume::extract_volume;

#[cfg(test)]
mod tests;

//! Records: the stored image and the operations on bins.

pub mod bin_operation;
pub mod bits;
pub mod cdt;
pub mod compression;
pub mod geo;
pub mod hll;
pub mod image;
pub mod operation;

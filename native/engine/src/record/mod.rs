//! Records: the stored image and the operations on bins.

pub mod compression;
pub mod image;
pub mod operation;

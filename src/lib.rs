//! hot-backup: two ordinary Linux machines keep one database.

pub mod base;
pub mod format;

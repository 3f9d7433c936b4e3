//! hot-backup: two ordinary Linux machines keep one database.
#![doc = ""]
#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
pub mod cli;
pub mod client;
pub mod doors;
pub mod engine;
pub mod format;
pub mod fuzzing;
pub mod io;
pub mod journal;
pub mod node;
pub mod pair;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod sys;

#[cfg(test)]
mod memory_tests;

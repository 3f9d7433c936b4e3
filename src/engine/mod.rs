//! The decisions: composes the rooms below into one node, without I/O, clock, threads or randomness.

pub mod admin;
pub mod effect;

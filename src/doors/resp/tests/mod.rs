//! Proves what a client of the door sees, with a small database in memory in place of the engine.

mod cold;
mod commands;
pub(crate) mod cost;
mod ends;
mod info;
mod limits;
mod order;
mod tools;
mod walks;

//! Proves what a client of the door sees, with a small database in memory in place of the engine.

mod commands;
mod cost;
mod ends;
mod limits;
mod order;
mod tools;
mod walks;

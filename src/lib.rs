//! hot-backup: two ordinary Linux machines keep one database.
//!
//! The command is what most people want: see the README. As a library the crate is for programs that hold a node, ask one,
//! or read what it wrote:
//!
//! | for | begin at | example |
//! |---|---|---|
//! | a node inside another program | [`node::setup::init`], [`node::serve::serve`] | at [`node::serve::serve`] |
//! | asking a node, as an operator | [`node::admin`], [`engine::admin`] | at [`node::admin`] |
//! | reading or writing its data | [`client::RespClient`], [`client::NbdClient`] | |
//! | reading its journal | [`format::segment`], [`format::batch`], [`journal::recover`] | at [`format::segment`] |
//! | decisions without disks and sockets | [`engine::Engine`] | `src/sim` drives a whole pair so |
//!
//! The other rooms are there for these. How all of it works, and why it is correct, follows.
#![doc = ""]
#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
pub mod cli;
pub mod client;
pub(crate) mod doors;
pub mod engine;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod io;
pub mod journal;
pub mod measure;
pub mod node;
pub mod pair;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod sys;
pub mod tape;

#[cfg(test)]
mod memory_tests;

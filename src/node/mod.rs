//! The daemon around the engine: config, keys, sockets, threads. It translates and carries out; it decides nothing
//! about the history.

pub mod config;
pub mod config_file;
pub mod identity;
pub mod layout;
pub mod setup;
pub mod tls;

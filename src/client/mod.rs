//! Clients of a node's doors, which block: for the command line, the demo, the load program and tests. They know the
//! formats and nothing of the node.

pub mod nbd;
pub mod resp;

pub use nbd::NbdClient;
pub use resp::{Pipeline, Reply, RespClient, RespError};

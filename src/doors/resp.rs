//! The RESP door.
use super::Backend;
use crate::base::{ConnId, Mono, Now};
use bytes::Bytes;
/// x
#[derive(Debug)]
pub struct RespConfig {
    /// x
    pub default_file: Option<String>,
    /// x
    pub password: Option<String>,
    /// x
    pub version: String,
}
/// x
#[derive(Debug)]
pub struct RespDoor;
/// x
#[derive(Debug)]
pub enum DoorOutput {
    /// x
    Send {
        /// x
        conn: ConnId,
        /// x
        bytes: Bytes,
    },
    /// x
    Receive {
        /// x
        conn: ConnId,
        /// x
        buffer: Vec<u8>,
    },
    /// x
    Close {
        /// x
        conn: ConnId,
    },
}
#[allow(missing_docs, reason = "x")]
impl RespDoor {
    pub fn new(_config: RespConfig) -> Self {
        Self
    }
    pub fn open(&mut self, _now: Now, _conn: ConnId, _trusted: bool) {}
    pub fn close(&mut self, _conn: ConnId) {}
    pub fn abandon(&mut self) {}
    pub fn input<B: Backend>(&mut self, _now: Now, _conn: ConnId, _bytes: Vec<u8>, _backend: &mut B) {}
    pub fn sent(&mut self, _conn: ConnId) {}
    pub fn release<B: Backend>(&mut self, _now: Now, _backend: &mut B) {}
    pub fn tick<B: Backend>(&mut self, _now: Now, _backend: &mut B) {}
    pub fn output(&mut self) -> Option<DoorOutput> {
        None
    }
    pub fn deadline(&self) -> Option<Mono> {
        None
    }
    pub fn clients(&self) -> usize {
        0
    }
}

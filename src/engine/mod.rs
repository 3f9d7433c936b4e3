//! The decisions: composes the rooms below into one node, without I/O, clock, threads or randomness.

pub mod admin;
pub mod config;
pub mod effect;

use crate::base::{Mono, Now};
use crate::store::StoreRead;
pub use config::{EngineConfig, PeerLoss, StartState};
pub use effect::{Effect, Event, Incident, Severity};

/// One node's decisions. Call [`Engine::input`] with each event, then take [`Engine::output`] until it is empty,
/// then wait for the next event or for [`Engine::deadline`].
#[derive(Debug)]
pub struct Engine<S: StoreRead> {
    _start: StartState<S>,
}

impl<S: StoreRead> Engine<S> {
    /// A node as found on disk; its first effects come out at the first [`Self::input`] (a [`Event::Tick`] will do).
    #[must_use]
    pub fn new(_config: EngineConfig, start: StartState<S>) -> Self {
        Self { _start: start }
    }

    /// Tells what happened.
    pub fn input(&mut self, _now: Now, _event: Event) {}

    /// The next thing to do.
    pub fn output(&mut self) -> Option<Effect> {
        None
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        None
    }
}

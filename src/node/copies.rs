//! The thread that reads for a peer that is given a copy: never the core, and behind everybody else's reads.

use super::apply::fault;
use super::inbox::{CoreEnded, Inbox};
use crate::engine::{CopyEffect, CopyEvent};
use crate::format::unless::settled;
use crate::store::{CopySource, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// Reads what is asked for until the core is gone or `stop` is set.
pub(crate) fn run(source: &impl CopySource, work: &Receiver<CopyEffect>, inbox: &Inbox, stop: &AtomicBool) {
    while let Ok(effect) = work.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let event = match effect {
            CopyEffect::Definitions { read } => {
                let read_all = source.definitions().map(|(at, definitions)| (at[0], definitions));
                let result = read_all.map_err(|error| told(&error));
                CopyEvent::Definitions { read, result, size: source.size() }
            }
            CopyEffect::Range { read, want } => {
                let result = source.range(&want).map(|chunk| settled(chunk, &want));
                CopyEvent::Range { read, result: result.map_err(|error| told(&error)) }
            }
        };
        if inbox.event(event) == Err(CoreEnded) {
            return;
        }
    }
}

fn told(error: &StoreError) -> crate::base::Fault {
    tracing::warn!("reading for a copy: {error}");
    fault(error)
}

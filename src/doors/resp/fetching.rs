//! Commands that read what is not in memory: the client stands aside while it is fetched, and others are served.
//!
//! A command of a single item has done nothing before its reads, so it is carried out again from its beginning. Walks,
//! commands of many keys and transactions go on where they stood, as after any interruption: what others changed
//! meanwhile is looked at then.

use super::refusal::Fail;
use super::session::Blocked;
use super::table::flag;
use super::turn::Turn;
use super::{FastHash, RespShared};
use crate::base::limits::FETCH_TRIES_MAX;
use crate::base::{ConnId, FileId};
use crate::doors::{Backend, FetchId, IfCold};
use crate::format::resp::Args;
use std::collections::HashMap;

/// Who waits for which fetch.
pub(super) type Fetches = HashMap<FetchId, ConnId, FastHash>;

/// What one client's command waits for.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    under_way: Vec<FetchId>,
    /// How often the command waited since it last came any further.
    tries: u32,
}

impl Fetching {
    /// Whether the client waits.
    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// One fetch is over. True if it was the last.
    pub(super) fn over(&mut self, fetch: FetchId) -> bool {
        let before = self.under_way.len();
        self.under_way.retain(|other| *other != fetch);
        before > 0 && self.under_way.is_empty()
    }

    /// The command came further, or is done.
    pub(super) fn progress(&mut self) {
        self.tries = 0;
    }

    /// The command is given up.
    pub(super) fn forget(&mut self, fetches: &mut Fetches) {
        for fetch in self.under_way.drain(..) {
            fetches.remove(&fetch);
        }
        self.tries = 0;
    }

    /// What the next read may cost.
    fn if_cold(&self) -> IfCold {
        if self.tries < FETCH_TRIES_MAX { IfCold::Fetch } else { IfCold::Wait }
    }
}

impl<B: Backend> Turn<'_, B> {
    /// What a read of this command may cost.
    pub(super) fn if_cold(&self) -> IfCold {
        if self.is_last_turn { IfCold::Wait } else { self.client.fetching.if_cold() }
    }

    /// The command goes on once this is fetched.
    pub(super) fn wait_for_fetch(&mut self, fetch: FetchId) {
        self.client.fetching.tries += 1;
        self.also_wait_for(fetch);
    }

    /// The command goes on once this is fetched, too.
    pub(super) fn also_wait_for(&mut self, fetch: FetchId) {
        let RespShared { fetches, .. } = &mut *self.shared;
        fetches.insert(fetch, self.client.conn);
        self.client.fetching.under_way.push(fetch);
    }

    /// The command waits anyway, and will read this item, too.
    pub(super) fn fetch_ahead(&mut self, (file, id): (FileId, &[u8])) {
        if let Some(fetch) = self.backend.fetch(file, id) {
            self.also_wait_for(fetch);
        }
    }

    /// What it read was fetched: carries the command out from its beginning.
    pub(super) fn again(&mut self, args: Args<'_>) -> Result<(), Fail> {
        match self.shared.lookup.find(args.at(0)) {
            Some(spec) => self.dispatch(spec, args),
            None => Err("ERR the command is not known any more".into()),
        }
    }

    /// What is left of a command that is to be carried out from its beginning.
    pub(super) fn left_to_begin_anew(&self, args: Args<'_>) -> Blocked {
        let spec = self.shared.lookup.find(args.at(0));
        Blocked::Again { may_change: spec.is_none_or(|spec| spec.has(flag::WRITE)) }
    }
}

//! What operators ask of the spool: one is begun, ended, looked at.

use super::admin::{AdminReply, SpoolView};
use super::config::{SpoolConfig, SpoolMode};
use super::core::Core;
use super::effect::SpoolEffect;
use super::incidents::Matter;
use super::spool::{Access, Trouble};
use crate::base::Fault;
use crate::format::socket::is_socket_place;
use crate::format::spool::PartHeader;
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    /// An operator wants a spool.
    pub(super) fn start_spool(&mut self, token: u64, place: String, always: bool) {
        let after = |kind: &str| place.strip_prefix(kind).is_some_and(|path| path.starts_with('/'));
        let named = after("file:") || after("tape:") || is_socket_place(&place);
        if !named {
            let message = format!("starting a spool: {place:?} is no place for one");
            let next = "name a directory on another disk, a drive, or a machine that listens: --to file:/mnt/spool, --to \
                        tape:/dev/nst0, --to tcp:HOST:PORT";
            return self.reply_no(token, message, next);
        }
        let other = self.spool.settings.is_on() && self.spool.settings.place != place;
        if other && !self.spool.parts.is_empty() {
            let message =
                format!("starting a spool: {} holds entries that are needed", self.spool.settings.place);
            return self.reply_no(token, message, "stop that one first: hot-backup spool stop");
        }
        let mode = if always { SpoolMode::Always } else { SpoolMode::Auto };
        if other || !self.spool.settings.is_on() {
            let settings = SpoolConfig { place, mode, ..self.spool.settings.clone() };
            self.spool.begin_anew(settings, Some(self.now.mono));
        }
        self.spool.settings.mode = mode;
        self.keep_spool(token);
    }

    /// An operator wants none. What is on it must not be needed, unless he says that it may be given up.
    pub(super) fn stop_spool(&mut self, token: u64, drop: bool) {
        if self.spool.access == Access::Off {
            return self.reply_no(
                token,
                "stopping the spool: none is in use",
                "hot-backup spool start begins one",
            );
        }
        let reach = self.replicated().spool_reach();
        if let Some((from, end)) = reach
            && !drop
            && !self.may_unspool(end.seq)
        {
            let message = format!(
                "stopping the spool: the peer lacks entries {} to {} on it",
                from.seq.next(),
                end.seq
            );
            let next = "bring the peer back first; with --drop it will need a full copy";
            return self.reply_no(token, message, next);
        }
        self.spool_for_nobody();
        if let Some((_, last)) = self.replicated().spool_numbers() {
            self.replicated_mut().unspool(last);
        }
        self.settled(&[Matter::SpoolFull, Matter::SpoolFailed, Matter::ReelWanted, Matter::TapeFailed]);
        let settings = SpoolConfig { mode: SpoolMode::Off, ..self.spool.settings.clone() };
        self.spool.begin_anew(settings, None);
        self.keep_spool(token);
    }

    fn keep_spool(&mut self, token: u64) {
        self.dirty = true;
        self.spool.asked.push_back(token);
        let SpoolConfig { place, mode, .. } = &self.spool.settings;
        let (place, mode) = (place.clone(), *mode);
        self.effect(SpoolEffect::Keep { place, mode });
    }

    pub(super) fn spool_kept(&mut self, result: Result<(), Fault>) {
        let Some(token) = self.spool.asked.pop_front() else { return };
        match result {
            Ok(()) => {
                let view = self.spool_view();
                self.reply_value(token, view);
            }
            Err(fault) => {
                let message = format!(
                    "keeping the choice of the spool for the next start: {fault}; it holds until then"
                );
                let next = "let the node write into its directory, then say it again".to_owned();
                self.reply(token, AdminReply::Error { message, next });
            }
        }
    }

    pub(super) fn spool_view(&self) -> SpoolView {
        let spool = &self.spool;
        let (high, low) = self.marks();
        let waits = spool.trouble == Some(Trouble::Reel) || spool.reels.wanted().is_some();
        let state = match (spool.access, spool.trouble, spool.copying.front()) {
            (Access::Off, ..) => "off",
            _ if waits => "waits",
            (_, Some(Trouble::Limit | Trouble::Disk(Fault::NoSpace)), _) => "full",
            (_, Some(_), _) => "failed",
            (Access::Wanted(_) | Access::Opening(_), ..) => "opening",
            (.., Some(_)) => "copying",
            _ if spool.parts.is_empty() => "empty",
            _ => "holding",
        };
        if state == "off" {
            return SpoolView { state: state.to_owned(), ..SpoolView::default() };
        }
        let limit = spool.settings.limit_bytes;
        let allowed = if limit > 0 { limit.saturating_sub(spool.limited_bytes()) } else { u64::MAX };
        let room = spool.free.unwrap_or(0).min(allowed);
        let journal = self.quota().saturating_sub(self.replicated().disk_use().0);
        let rate = spool.rate.per_second(self.now.mono);
        let on_reels = || spool.parts.iter().take(spool.reels.parts);
        SpoolView {
            state: state.to_owned(),
            place: spool.settings.place.clone(),
            mode: spool.settings.mode.name().to_owned(),
            when_full: spool.settings.full.name().to_owned(),
            parts: spool.parts.len() as u64,
            bytes: spool.bytes(),
            limit_bytes: limit,
            free_bytes: spool.free.unwrap_or(0),
            from: spool.parts.first().map_or(0, |part| part.first().0),
            to: spool.parts.last().map_or(0, |part| part.end.seq.0),
            strays: spool.strays.len() as u64,
            high_bytes: high,
            low_bytes: low,
            rate,
            room_bytes: room + journal,
            seconds_left: self.lasts(room + journal, rate),
            tape: spool.settings.second().unwrap_or_default().to_owned(),
            reel_parts: on_reels().count() as u64,
            reel_bytes: on_reels().map(PartHeader::file_bytes).sum(),
            reel_wanted: spool.reels.wanted().unwrap_or_default().to_owned(),
        }
    }
}

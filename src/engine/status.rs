//! What this node says of itself.

use super::admin::{
    AccountView, AtRisk, FileView, JournalView, PairWatermarks, PeerView, ReplayView, Status, TroubleView,
    VolumeView,
};
use super::core::Core;
use super::effect::Severity;
use super::incidents::{Matter, Trouble};
use super::meters::Meters;
use super::peer_door;
use super::progress::PeerState;
use super::roles::{Stage, seconds};
use crate::base::limits::{BLOCK_U64, VOLUMES_SHOWN};
use crate::base::{AckLevel, FileId, Mono};
use crate::doors::nbd::VolumeTraffic;
use crate::doors::{BlockBackend as _, ReplicationView, Volume};
use crate::format::dptr::LoggingMode;
use crate::store::StoreRead;

pub(super) fn mode_name(mode: LoggingMode) -> &'static str {
    match mode {
        LoggingMode::DlOnly => "dl-only",
        LoggingMode::All => "all",
        LoggingMode::Paused => "paused",
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn peer_state(&self) -> PeerState {
        if !self.link.is_up() {
            return PeerState::Away;
        }
        if !self.is_primary() || !self.link.is_streaming() {
            return PeerState::Connected;
        }
        let end = self.replicated().pace().durable;
        let age = self.now.mono.since(self.lacking_since());
        self.link.progress.state(self.now.mono, self.link.acked, end, age)
    }

    /// Since when the peer lacks the oldest of what it lacks; what an earlier process sealed is of no age.
    fn lacking_since(&self) -> Mono {
        self.lag.oldest().unwrap_or(Mono(0))
    }

    /// When a peer that does not move has to be told of.
    pub(super) fn stuck_deadline(&self) -> Option<Mono> {
        if !self.link.is_streaming() || self.peer_state() == PeerState::Stuck {
            return None;
        }
        let end = self.replicated().pace().durable;
        self.link.progress.deadline(self.link.acked, end, self.lacking_since())
    }

    /// Tells when a connected peer gets on no more, and when it does again.
    pub(super) fn watch_peer(&mut self) {
        match self.peer_state() {
            PeerState::Stuck => {
                let text =
                    "the peer is connected and neither takes nor acknowledges anything any more".to_owned();
                self.incident_once(Severity::Warning, Matter::PeerStuck, text);
            }
            // It is told that it is lost, and it may still be stuck when it is back.
            PeerState::Away => self.settled(&[Matter::PeerStuck]),
            _ => self.incident_over(Matter::PeerStuck, "peer-moves", "the peer gets on again".to_owned()),
        }
    }

    pub(super) fn status(&self, clients: u64) -> Status {
        let pace = self.replicated().pace();
        let local = self.journals[1].pace();
        let marks = self.marks();
        let level = self.config.ack_level;
        let committed = match level {
            AckLevel::Local => marks.replicated[0],
            AckLevel::Received => marks.replicated[1],
            AckLevel::Durable => marks.replicated[2],
            AckLevel::Applied => marks.replicated[3],
        };
        let (bytes, segments) = self.replicated().disk_use();
        let primary = self.is_primary();
        let behind = if primary { pace.appended.0.saturating_sub(self.link.retained.0) } else { 0 };
        let (risk_bytes, risk_age) =
            if primary { (self.lag.bytes(), seconds(self.lag.age(self.now.mono))) } else { (0, 0.0) };
        let (refused, condition) = (self.refused, self.condition());
        Status {
            name: self.config.name.clone(),
            role: self.control.role.name().to_owned(),
            state: condition.word.to_owned(),
            reason: condition.reason,
            next: condition.next.to_owned(),
            replay: self.replay_view(),
            troubles: self.trouble_views(),
            epoch: self.control.epoch.0,
            ack_level: level.name().to_owned(),
            degraded: self.degraded.is_some() && level > AckLevel::Local,
            logging: mode_name(self.namespace.mode()).to_owned(),
            positions: PairWatermarks {
                appended: pace.appended.0,
                durable: pace.durable.0,
                received: self.link.acked.received.0,
                acked: self.link.acked.durable.0,
                committed: committed.0,
                applied: self.applied_seq(crate::base::JournalKind::Replicated).0,
            },
            peer: PeerView {
                name: self.link.peer_name.clone(),
                connected: self.link.is_up(),
                state: self.peer_state().name().to_owned(),
                lag_entries: behind,
                lag_bytes: risk_bytes,
                lag_seconds: risk_age,
                silence_seconds: seconds(self.now.mono.since(self.link.heard)),
                applied: self.link.acked.applied.0,
            },
            journal: JournalView {
                bytes,
                quota_bytes: self.config.quota_bytes,
                oldest_seq: self.replicated().oldest().0,
                segments,
                local_appended: local.appended.0,
                local_durable: local.durable.0,
            },
            gap: self.gap(),
            lowered: self.lowered_promises(),
            at_risk: AtRisk { entries: behind, bytes: risk_bytes, seconds: risk_age },
            link: self.link_view(),
            announced: self.announced().0,
            scrub: self.scrub_view(),
            clients,
            incidents: self.incidents.count(),
            refused,
            last_incident: self.incidents.recent().next_back().map(|incident| incident.text.clone()),
            uptime_seconds: seconds(self.now.mono.0),
            ..Status::default()
        }
    }

    fn replay_view(&self) -> Option<ReplayView> {
        let (done, total) = self.replayed();
        let stage = "replaying the journal into the store";
        let replaying = matches!(self.state.step, Stage::Replaying);
        replaying.then(|| ReplayView::new(stage, "entries", done, total, self.now.mono.0 / 1000))
    }

    fn trouble_views(&self) -> Vec<TroubleView> {
        let view = |trouble: &Trouble| TroubleView {
            kind: trouble.code.to_owned(),
            severity: trouble.severity.name().to_owned(),
            text: trouble.text.clone(),
            next: Matter::of(trouble.code).map_or("", |matter| matter.row().advice).to_owned(),
            seconds: seconds(self.now.mono.since(trouble.since)),
        };
        self.incidents.troubles().iter().map(view).collect()
    }

    /// The volumes, those in use first, with what `traffic` and `meters` tell of them.
    pub(super) fn volume_views(
        &self,
        traffic: impl Fn(FileId) -> VolumeTraffic,
        meters: &Meters,
    ) -> Vec<VolumeView> {
        let view = |volume: Volume| {
            let traffic = traffic(volume.file);
            let rates = meters.rates(self.now.mono, volume.file, &traffic);
            VolumeView {
                name: volume.name.replacen('/', ",", 1),
                bytes: volume.bytes,
                writable: volume.writable,
                clients: traffic.clients,
                reads_per_second: rates.reads,
                writes_per_second: rates.writes,
                read_bytes_per_second: rates.read_bytes,
                written_bytes_per_second: rates.written_bytes,
                dirty_extents: self.extents.of(volume.file) as u64,
            }
        };
        let mut views: Vec<VolumeView> = self.volumes().into_iter().map(view).collect();
        views.sort_by_key(|view| view.clients == 0);
        views.truncate(VOLUMES_SHOWN);
        views
    }

    pub(super) fn account_views(&self) -> Vec<AccountView> {
        self.namespace
            .accounts()
            .map(|(id, info)| AccountView {
                name: info.name.clone(),
                flags: info.dptr.flags.to_string(),
                files: self.namespace.files_of(id).count() as u64,
                id: id.0,
            })
            .collect()
    }

    pub(super) fn file_views(&self, account: Option<&str>) -> Vec<FileView> {
        let wanted = account.map(|name| format!("{name},"));
        self.namespace
            .files()
            .filter(|(_, info)| wanted.as_ref().is_none_or(|prefix| info.key.starts_with(prefix.as_str())))
            .map(|(id, info)| FileView {
                name: info.key.clone(),
                kind: info.dptr.kind,
                flags: info.dptr.flags.to_string(),
                replicated: info.replicated,
                state: info.dptr.state,
                ack: info.dptr.ack,
                bytes: info.dptr.blocks * BLOCK_U64,
                clients: 0,
                id: id.0,
            })
            .collect()
    }

    pub(super) fn replication_view(&self) -> ReplicationView {
        let acked = self.link.acked;
        ReplicationView {
            name: self.config.name.clone(),
            primary: matches!(self.state.step, Stage::Serving),
            epoch: self.control.epoch.0,
            appended: self.replicated().pace().appended,
            applied: self.applied_seq(crate::base::JournalKind::Replicated),
            peer_connected: self.link.is_up(),
            peer_door: self.link.peer_door.and_then(|told| peer_door::shown(told, &self.config.peer_host)),
            peer: [acked.received, acked.durable, acked.applied],
            peer_silence_s: self.now.mono.since(self.link.heard) / 1_000_000,
            lag_s: self.lag.age(self.now.mono) / 1_000_000,
        }
    }
}

//! What this node says of itself.

use super::admin::{
    AccountView, AtRisk, FileView, JournalView, PairWatermarks, PeerView, ReplayView, Status, TroubleView,
    VolumeView,
};
use super::core::Core;
use super::incidents::{Matter, Trouble};
use super::meters::Meters;
use super::roles::Stage;
use crate::base::limits::{BLOCK_U64, VOLUMES_SHOWN};
use crate::base::{AckLevel, FileId, Seq};
use crate::doors::nbd::VolumeTraffic;
use crate::doors::{BlockBackend as _, ReplicationView, Volume};
use crate::format::dptr::LoggingMode;
use crate::format::frame::FEATURE_DIGESTS;
use crate::store::StoreRead;

/// Seconds from microseconds, for people.
pub(super) fn seconds(micros: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an age for people to read")]
    let micros = micros as f64;
    micros / 1_000_000.0
}

pub(super) fn mode_name(mode: LoggingMode) -> &'static str {
    match mode {
        LoggingMode::DlOnly => "dl-only",
        LoggingMode::All => "all",
        LoggingMode::Paused => "paused",
    }
}

impl<S: StoreRead> Core<S> {
    /// The last entry that may be answered to who asked for `level`.
    pub(super) fn committed(&self, level: AckLevel) -> Seq {
        let [local, received, durable, applied] = self.commit_watermarks().replicated;
        match level {
            AckLevel::Local => local,
            AckLevel::Received => received,
            AckLevel::Durable => durable,
            AckLevel::Applied => applied,
        }
    }

    pub(super) fn status(&self, clients: u64) -> Status {
        let pace = self.replicated().pace();
        let local = self.journals[1].pace();
        let level = self.config.ack_level;
        let (bytes, segments) = self.replicated().disk_use();
        let primary = self.is_primary();
        let behind = if primary { pace.appended.0.saturating_sub(self.peer.retained().0) } else { 0 };
        let (risk_bytes, risk_age) = if primary {
            (self.peer.lag_bytes(), seconds(self.peer.lag_age(self.now.mono)))
        } else {
            (0, 0.0)
        };
        let (refused, condition) = (self.link.refused(), self.condition());
        Status {
            name: self.config.name.clone(),
            role: self.control.role().name().to_owned(),
            state: condition.word.to_owned(),
            reason: condition.reason,
            next: condition.next.to_owned(),
            replay: self.replay_view(),
            troubles: self.trouble_views(),
            epoch: self.control.epoch().0,
            ack_level: level.name().to_owned(),
            degraded: self.ack_promise.is_lowered() && level > AckLevel::Local,
            logging: mode_name(self.namespace.mode()).to_owned(),
            positions: self.pair_watermarks(),
            peer: PeerView {
                name: self.peer.name().to_owned(),
                connected: self.link.is_up(),
                state: self.peer_state().name().to_owned(),
                lag_entries: behind,
                lag_bytes: risk_bytes,
                lag_seconds: risk_age,
                silence_seconds: seconds(self.peer.silence(self.now.mono)),
                applied: self.peer.acked().applied.0,
                incomplete: self.peer.is_incomplete(),
                digests: self.peer.features() & FEATURE_DIGESTS != 0 && self.peer.on_disk().0 > 0,
            },
            journal: JournalView {
                bytes,
                quota_bytes: self.config.quota_bytes,
                oldest_seq: self.replicated().oldest().0,
                segments,
                local_appended: local.appended.0,
                local_durable: local.durable.0,
            },
            spool: self.spool_view(),
            gap: self.gap(),
            copy: self.copy_view(),
            switchover: self.roles.last_switchover(),
            lowered: self.lowered_promises(),
            at_risk: self.at_risk(behind, risk_bytes, risk_age),
            link: self.link_view(),
            lease: self.lease_in_status(),
            announced: self.announced().0,
            scrub: self.scrub_view(),
            compare: self.compare_view(),
            clients,
            incidents: self.incidents.count(),
            refused,
            last_incident: self.incidents.recent().next_back().map(|incident| incident.text.clone()),
            uptime_seconds: seconds(self.now.mono.0),
            health: Some(self.health_view()),
            ..Status::default()
        }
    }

    /// How far updates are on both nodes.
    fn pair_watermarks(&self) -> PairWatermarks {
        let pace = self.replicated().pace();
        PairWatermarks {
            appended: pace.appended.0,
            durable: pace.durable.0,
            received: self.peer.acked().received.0,
            acked: self.peer.acked().durable.0,
            committed: self.committed(self.config.ack_level).0,
            applied: self.applied_seq(crate::base::JournalKind::Replicated).0,
        }
    }

    /// A peer that is being given a copy has nothing that counts.
    fn at_risk(&self, entries: u64, bytes: u64, seconds: f64) -> AtRisk {
        let everything = self.is_primary() && self.peer.is_incomplete();
        let entries = if everything { self.replicated().pace().appended.0 } else { entries };
        AtRisk { entries, bytes, seconds, everything }
    }

    fn replay_view(&self) -> Option<ReplayView> {
        let (done, total) = self.replayed();
        let stage = "replaying the journal into the store";
        let replaying = self.roles.stage() == Stage::Replaying;
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
        let acked = self.peer.acked();
        ReplicationView {
            name: self.config.name.clone(),
            primary: self.roles.stage() == Stage::Serving && self.has_lease(),
            epoch: self.control.epoch().0,
            appended: self.replicated().pace().appended,
            applied: self.applied_seq(crate::base::JournalKind::Replicated),
            peer_connected: self.link.is_up(),
            peer_door: self.peer.door_shown(&self.config.peer_host),
            peer: [acked.received, acked.durable, acked.applied],
            peer_silence_s: self.peer.silence(self.now.mono) / 1_000_000,
            lag_s: self.peer.lag_age(self.now.mono) / 1_000_000,
        }
    }
}

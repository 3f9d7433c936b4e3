//! What this node says of itself.

use super::admin::{AccountView, AtRisk, FileView, JournalView, PeerView, Positions, Status, VolumeView};
use super::core::Core;
use super::meters::Meters;
use super::roles::{Step, seconds};
use crate::base::limits::{BLOCK_U64, VOLUMES_SHOWN};
use crate::base::{AckLevel, FileId};
use crate::doors::nbd::VolumeTraffic;
use crate::doors::{BlockBackend as _, ReplicationView, Volume};
use crate::format::dptr::LoggingMode;
use crate::store::StoreRead;

/// A lag older than this, while nothing is acknowledged, is called stuck (microseconds).
const STUCK_AFTER: u64 = 5_000_000;
/// A lag older than this is called lagging (microseconds).
const LAGGING_AFTER: u64 = 1_000_000;

pub(super) fn mode_name(mode: LoggingMode) -> &'static str {
    match mode {
        LoggingMode::DlOnly => "dl-only",
        LoggingMode::All => "all",
        LoggingMode::Paused => "paused",
    }
}

impl<S: StoreRead> Core<S> {
    /// Idle, busy, lagging, stuck and away are different states.
    fn peer_state(&self) -> &'static str {
        let pace = self.replicated().pace();
        if !self.link.is_up() {
            return "away";
        }
        if !self.is_primary() {
            return "connected";
        }
        let behind = pace.durable.0.saturating_sub(self.link.acked.durable.0);
        let age = self.risk.age(self.now.mono);
        match behind {
            0 => "idle",
            _ if self.now.mono.since(self.link.progress_at) > STUCK_AFTER && age > STUCK_AFTER => "stuck",
            _ if age > LAGGING_AFTER => "lagging",
            _ => "busy",
        }
    }

    /// Raises the incident when a connected peer stops acknowledging.
    pub(super) fn watch_peer(&mut self) {
        if self.peer_state() == "stuck" {
            let text = "the peer is connected but acknowledges nothing any more".to_owned();
            self.incident_once(super::effect::Severity::Warning, "peer-stuck", text);
        } else {
            self.incident_over("peer-stuck", "peer-moves", "the peer acknowledges again".to_owned());
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
            if primary { (self.risk.bytes(), seconds(self.risk.age(self.now.mono))) } else { (0, 0.0) };
        let refused = self.refused;
        Status {
            name: self.config.name.clone(),
            role: self.control.role.name().to_owned(),
            state: if self.replicated().has_failed() || self.journals[1].has_failed() {
                "read-only".to_owned()
            } else {
                self.state.word().to_owned()
            },
            reason: self.state.reason(),
            epoch: self.control.epoch.0,
            ack_level: level.name().to_owned(),
            degraded: self.degraded.is_some() && level > AckLevel::Local,
            logging: mode_name(self.namespace.mode()).to_owned(),
            positions: Positions {
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
                state: self.peer_state().to_owned(),
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
            announced: self.announced().0,
            volumes: Vec::new(),
            clients,
            incidents: self.incident_count,
            refused,
            last_incident: self.incidents.back().map(|incident| incident.text.clone()),
            uptime_seconds: seconds(self.now.mono.0),
        }
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
            primary: matches!(self.state.step, Step::Serving),
            epoch: self.control.epoch.0,
            appended: self.replicated().pace().appended,
            applied: self.applied_seq(crate::base::JournalKind::Replicated),
            peer_connected: self.link.is_up(),
            peer_host: self.config.peer_host.clone(),
            peer_port: self.config.peer_port,
            peer: [acked.received, acked.durable, acked.applied],
            peer_silence_s: self.now.mono.since(self.link.heard) / 1_000_000,
            lag_s: self.risk.age(self.now.mono) / 1_000_000,
        }
    }
}

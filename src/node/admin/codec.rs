//! Requests and answers as lines of JSON. Nothing else between the engine and the command line reads or writes JSON.

use crate::engine::admin::{
    AccountView, AdminAnswer, AdminReply, AdminRequest, CompareView, DoneView, FileView, IncidentView,
    LeaseView, LogEntryView, LoggingView, ProofView, QueueView, ReceiptView, RecordView, ScrubView,
    SpoolView, StartView, StatsView, Status, SwitchoverView, TakeoverAccount, TargetView, ViewView, WouldGo,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// A reply as it comes over the socket, its value not yet understood.
#[derive(Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum Received {
    Ok { value: Value },
    No { message: String, next: String },
    Error { message: String, next: String },
}

/// A request as a line, without its end.
pub(super) fn encode_request(request: &AdminRequest) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(request)
}

/// A request from a line.
pub(super) fn decode_request(line: &[u8]) -> Result<AdminRequest, Error> {
    serde_json::from_slice(line)
}

/// A reply as a line, with its end. The fields of a value stand in the order of their names.
pub(super) fn encode_reply(reply: &AdminReply) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(&serde_json::to_value(reply)?)?;
    line.push(b'\n');
    Ok(line)
}

/// The reply to `request` from a line.
pub(super) fn decode_reply(request: &AdminRequest, line: &[u8]) -> Result<AdminReply, Error> {
    Ok(match serde_json::from_slice(line)? {
        Received::Ok { value } => AdminReply::Ok { value: answer_to(request, value)? },
        Received::No { message, next } => AdminReply::No { message, next },
        Received::Error { message, next } => AdminReply::Error { message, next },
    })
}

/// Which answer each request has.
fn answer_to(request: &AdminRequest, value: Value) -> Result<AdminAnswer, Error> {
    use AdminRequest as Asked;
    match request {
        Asked::Status => read::<Status>(value),
        Asked::Incidents => read::<Vec<IncidentView>>(value),
        Asked::IncidentRecords => read::<Vec<RecordView>>(value),
        Asked::IncidentAck { .. } => read::<RecordView>(value),
        Asked::NotifyList => read::<Vec<TargetView>>(value),
        Asked::NotifyTest { .. } => read::<Vec<ProofView>>(value),
        Asked::Takeover { .. } => read::<TakeoverAccount>(value),
        Asked::Switchover { .. } => read::<SwitchoverView>(value),
        Asked::StartAlone | Asked::StartAloneAcceptLoss => read::<StartView>(value),
        Asked::AccountCreate { .. } | Asked::AccountRename { .. } => read::<AccountView>(value),
        Asked::AccountList | Asked::SetDptr { accounts: true, .. } => read::<Vec<AccountView>>(value),
        Asked::AccountDelete { dry_run: true, .. }
        | Asked::FileDelete { dry_run: true, .. }
        | Asked::FileClear { dry_run: true, .. } => read::<WouldGo>(value),
        Asked::FileCreate { .. } | Asked::FileClear { .. } | Asked::FileGrow { .. } => {
            read::<FileView>(value)
        }
        Asked::FileList { .. } | Asked::SetDptr { .. } => read::<Vec<FileView>>(value),
        Asked::AccountDelete { .. } | Asked::FileDelete { .. } | Asked::FileRename { .. } => {
            read::<DoneView>(value)
        }
        Asked::Resync { .. } | Asked::Save { .. } => read::<DoneView>(value),
        Asked::Logging { .. } | Asked::LoggingResume => read::<LoggingView>(value),
        Asked::LogShow { .. } => read::<Vec<LogEntryView>>(value),
        Asked::Stats => read::<StatsView>(value),
        Asked::Queue => read::<QueueView>(value),
        Asked::Receipt { .. } => read::<ReceiptView>(value),
        Asked::SpoolStart { .. } | Asked::SpoolStop { .. } => read::<SpoolView>(value),
        Asked::DivergedList => read::<Vec<String>>(value),
        Asked::ViewOpen(_) | Asked::ViewClose { .. } => read::<ViewView>(value),
        Asked::ViewList => read::<Vec<ViewView>>(value),
        Asked::Scrub { .. } | Asked::ScrubStop => read::<ScrubView>(value),
        Asked::Lease { .. } => read::<LeaseView>(value),
        Asked::Compare { .. } | Asked::CompareQuery { .. } | Asked::CompareStop | Asked::CompareResult => {
            read::<CompareView>(value)
        }
    }
}

fn read<T: DeserializeOwned + Into<AdminAnswer>>(value: Value) -> Result<AdminAnswer, Error> {
    serde_json::from_value::<T>(value).map(Into::into)
}

/// Reads any bytes as a request, and as a reply to each kind of them.
pub fn fuzz_admin(bytes: &[u8]) {
    if let Ok(request) = decode_request(bytes) {
        let again = encode_request(&request).map(|line| decode_request(&line).ok());
        assert_eq!(again.ok().flatten(), Some(request), "a request reads back");
    }
    let name = || "app,x".to_owned();
    let all = [
        AdminRequest::Status,
        AdminRequest::Incidents,
        AdminRequest::IncidentRecords,
        AdminRequest::IncidentAck { id: 1, who: name() },
        AdminRequest::NotifyList,
        AdminRequest::NotifyTest { name: None },
        AdminRequest::StartAlone,
        AdminRequest::AccountList,
        AdminRequest::FileList { account: None },
        AdminRequest::FileDelete { name: name(), dry_run: true },
        AdminRequest::FileDelete { name: name(), dry_run: false },
        AdminRequest::LoggingResume,
        AdminRequest::LogShow { limit: 1 },
        AdminRequest::DivergedList,
        AdminRequest::Stats,
        AdminRequest::Queue,
        AdminRequest::Receipt { seq: 1, epoch: None },
        AdminRequest::ScrubStop,
        AdminRequest::SpoolStop { drop: false },
        AdminRequest::Switchover { dry_run: true },
        AdminRequest::CompareResult,
        AdminRequest::ViewList,
        AdminRequest::ViewClose { name: name() },
        AdminRequest::Takeover { peer_is_down: true, dry_run: true, accept_loss: false, now: false },
    ];
    for request in &all {
        let _ = decode_reply(request, bytes);
    }
}

//! What goes over the admin socket stays as scripts and older commands know it: each field, at its place, as it was.

use super::codec::{decode_reply, encode_reply};
use crate::engine::admin::*;
use crate::format::dptr::LoggingMode;
use serde_json::Value;

const GOLDEN: &str = include_str!("../../../tests/data/admin-answers-v1.jsonl");

fn ok(value: impl Into<AdminAnswer>) -> AdminReply {
    AdminReply::Ok { value: value.into() }
}

fn status() -> Status {
    Status {
        name: "a".to_owned(),
        role: "primary".to_owned(),
        state: "replaying".to_owned(),
        replay: Some(ReplayView::new("reading", "bytes", 1, 4, 2000)),
        troubles: vec![TroubleView { kind: "degraded".to_owned(), seconds: 1.5, ..TroubleView::default() }],
        epoch: 7,
        positions: PairWatermarks {
            appended: 6,
            durable: 5,
            received: 4,
            acked: 3,
            committed: 2,
            applied: 1,
        },
        peer: PeerView { name: "b".to_owned(), connected: true, lag_seconds: 0.25, ..PeerView::default() },
        gap: Some(GapView { here: true, from: 3, to: 4, full_copy: false, text: "3 to 4".to_owned() }),
        lowered: vec![LoweredView { file: "app,x".to_owned(), level: "durable".to_owned() }],
        volumes: vec![VolumeView { name: "app,d".to_owned(), bytes: 4096, ..VolumeView::default() }],
        refused: 9,
        last_incident: Some("it is".to_owned()),
        ..Status::default()
    }
}

fn queue() -> QueueView {
    QueueView {
        first: 4,
        last: 9,
        entries: 6,
        bytes: 700,
        oldest_seconds: 0.5,
        rates: crate::node::kept_stats::sample().rates,
        seconds_left: None,
        connected: true,
        peer: "busy".to_owned(),
        note: String::new(),
    }
}

fn receipt() -> ReceiptView {
    ReceiptView {
        seq: 4,
        epoch: 2,
        state: "kept".to_owned(),
        durable_here: true,
        applied_here: true,
        text: "entry 4".to_owned(),
        ..ReceiptView::default()
    }
}

fn replies() -> Vec<(AdminRequest, AdminReply)> {
    let account = AccountView { name: "app".to_owned(), flags: "L".to_owned(), files: 2, id: 1 };
    let file = FileView {
        name: "app,x".to_owned(),
        kind: crate::format::dptr::DptrKind::Blocks,
        flags: "LT".to_owned(),
        replicated: true,
        state: crate::format::dptr::FileState::Whole,
        ack: Some(crate::base::AckLevel::Durable),
        bytes: 8192,
        clients: 1,
        id: 3,
    };
    let incident = crate::engine::Incident {
        severity: crate::engine::Severity::Warning,
        kind: "peer-lost",
        text: "\"b\" is away".to_owned(),
        wall_ms: 5,
        lasts: true,
    };
    let entry = LogEntryView {
        seq: 4,
        epoch: 2,
        kind: "put".to_owned(),
        file: "app,x".to_owned(),
        item: "1".to_owned(),
        bytes: 5,
    };
    let takeover = TakeoverAccount {
        name: "b".to_owned(),
        epoch: 3,
        incomplete_files: vec!["app,x".to_owned()],
        seconds: 0.5,
        ..TakeoverAccount::default()
    };
    let name = || "app,x".to_owned();
    let would = WouldGo {
        account: true,
        at_least: true,
        dry_run: true,
        files: 2,
        items: 10_000,
        node: "a".to_owned(),
        role: "primary".to_owned(),
    };
    let list = AdminRequest::FileList { account: None };
    let grow = AdminRequest::FileGrow { name: name(), bytes: 8192 };
    let rename = AdminRequest::AccountRename { name: "old".to_owned(), to: "app".to_owned() };
    let (peer_is_down, dry_run, accept_loss, now, incomplete) = (true, false, false, false, false);
    let takes = AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now, incomplete, epoch: None };
    let delete = |dry_run| AdminRequest::FileDelete { name: name(), dry_run };
    let started = StartView { state: "starting-epoch".to_owned() };
    let logging = LoggingView { logging: "dl-only".to_owned() };
    vec![
        (AdminRequest::Status, ok(status())),
        (AdminRequest::Incidents, ok(vec![IncidentView::from(&incident)])),
        (takes, ok(takeover)),
        (AdminRequest::StartAlone, ok(started)),
        (rename, ok(account.clone())),
        (AdminRequest::AccountList, ok(vec![account])),
        (grow, ok(file.clone())),
        (list, ok(vec![file])),
        (delete(true), ok(would)),
        (AdminRequest::Logging { mode: LoggingMode::DlOnly }, ok(logging)),
        (delete(false), ok(AdminAnswer::done())),
        (AdminRequest::LogShow { limit: 9 }, ok(vec![entry])),
        (AdminRequest::DivergedList, ok(vec!["1.jsonl".to_owned()])),
        (AdminRequest::Status, AdminReply::No { message: "m".to_owned(), next: "n".to_owned() }),
        (AdminRequest::Status, AdminReply::Error { message: "m".to_owned(), next: String::new() }),
    ]
}

/// Of what a node counts, and of records of incidents and the notify list.
fn more_replies() -> Vec<(AdminRequest, AdminReply)> {
    vec![
        (AdminRequest::Stats, ok(crate::node::kept_stats::sample())),
        (AdminRequest::Queue, ok(queue())),
        (AdminRequest::Receipt { seq: 4, epoch: None }, ok(receipt())),
        (AdminRequest::IncidentRecords, ok(vec![record()])),
        (AdminRequest::IncidentAck { id: 4, who: "ann".to_owned() }, ok(record())),
        (AdminRequest::NotifyList, ok(vec![target()])),
        (AdminRequest::NotifyTest { name: None }, ok(vec![proof()])),
    ]
}

fn record() -> RecordView {
    RecordView {
        id: 4,
        severity: "warning".to_owned(),
        code: "peer-lost".to_owned(),
        what: "the peer is away".to_owned(),
        why: "it hung up".to_owned(),
        next: "look".to_owned(),
        since_ms: 5,
        last_ms: 6,
        count: 2,
        ended_ms: Some(7),
        end: "it follows".to_owned(),
        acked_ms: Some(6),
        acked_by: "ann".to_owned(),
    }
}

fn target() -> TargetView {
    TargetView {
        name: "ops".to_owned(),
        kind: "mail".to_owned(),
        to: "ann@example.org by mail:25".to_owned(),
        severity: "warning".to_owned(),
        quiet: "22:00-07:00".to_owned(),
        queued: 1,
        dropped: 2,
        delivered: 3,
        last_ok_ms: Some(4),
        failing_since_ms: Some(5),
        last_error: "refused".to_owned(),
    }
}

fn proof() -> ProofView {
    ProofView { name: "ops".to_owned(), ok: true, text: "250 taken".to_owned(), ms: 12 }
}

/// Whether everything of the older value is in the newer one, which may have more fields.
fn includes(newer: &Value, older: &Value) -> bool {
    match (newer, older) {
        (Value::Object(newer), Value::Object(older)) => {
            older.iter().all(|(key, old)| newer.get(key).is_some_and(|new| includes(new, old)))
        }
        (Value::Array(newer), Value::Array(older)) => {
            newer.len() == older.len() && newer.iter().zip(older).all(|(new, old)| includes(new, old))
        }
        _ => newer == older,
    }
}

#[test]
fn each_answer_goes_over_the_socket_as_it_always_did_and_reads_back() {
    let lines: Vec<&str> = GOLDEN.lines().collect();
    let mut replies = replies();
    replies.extend(more_replies());
    assert_eq!(lines.len(), replies.len());
    for (line, (request, reply)) in lines.iter().zip(&replies) {
        let bytes = encode_reply(reply).unwrap();
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1), "one line each");
        let (now, then) = (serde_json::from_slice(&bytes).unwrap(), serde_json::from_str(line).unwrap());
        assert!(includes(&now, &then), "{now}\n{then}");
        assert_eq!(
            decode_reply(request, line.as_bytes()).unwrap(),
            *reply,
            "from a program that lacks new fields"
        );
        assert_eq!(decode_reply(request, &bytes).unwrap(), *reply);
    }
}

#[test]
fn an_answer_to_another_request_is_not_understood() {
    for (request, _) in replies() {
        let other = br#"{"answer":"ok","value":{"role":7}}"#;
        assert!(decode_reply(&request, other).is_err(), "{request:?}");
    }
    assert!(decode_reply(&AdminRequest::Status, b"{\"answer\":\"perhaps\"}").is_err());
}

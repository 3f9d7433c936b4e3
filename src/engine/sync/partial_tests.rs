//! A takeover with a part of a copy: refused first, then done on an operator's word; what is whole is not made that unasked.

use super::{Pair, takeover};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, TakeoverAccount};
use crate::engine::config::OnDiverged;
use crate::engine::roles::Stage;
use crate::format::control::Role;

const LARGE: usize = 32 << 10;

/// The second node, which was away for too long, is given a copy of three MiB, of which a part came when the wire is cut.
fn with_a_part() -> Pair {
    let mut pair = Pair::new(OnDiverged::Rewind);
    pair.cut = true;
    pair.runs(6_000);
    pair.file(0, "app,large");
    for n in 0..96 {
        pair.sets(0, "app,large", &format!("{n:03}"), &"v".repeat(LARGE));
    }
    pair.nodes[0].engine.core.config.quota_bytes = 1;
    pair.sets(0, "app,orders", "last", "1");
    pair.nodes[0].lives(20_000);
    pair.cut = false;
    while pair.nodes[1].engine.core.copy_view().is_none_or(|copy| copy.bytes <= 1 << 20) {
        if !(0..2).any(|n| pair.step(n)) {
            (0..2).for_each(|n| pair.nodes[n].passes(50));
        }
    }
    pair.cut = true;
    pair.runs(6_000);
    assert_eq!((pair.stage(0), pair.stage(1)), (Stage::Serving, Stage::Incomplete));
    pair
}

fn refused(reply: AdminReply) -> (String, String) {
    match reply {
        AdminReply::Ok { value } => panic!("it was done: {value:?}"),
        AdminReply::No { message, next } | AdminReply::Error { message, next } => (message, next),
    }
}

fn account(reply: AdminReply) -> TakeoverAccount {
    match reply {
        AdminReply::Ok { value: AdminAnswer::Takeover(account) } => *account,
        other => panic!("no account: {other:?}"),
    }
}

/// .. and takes over with that.
fn taken_over() -> Pair {
    let mut pair = with_a_part();
    let epoch = pair.nodes[1].engine.core.epoch_to_open(true).unwrap().0;
    let account = account(pair.nodes[1].asks(takeover(true, Some(epoch))));
    assert!(
        account.partial && account.incomplete_files == ["app,disk", "app,large (behind item 030)"]
            || account.incomplete_files.iter().any(|name| name.starts_with("app,large (behind item ")),
        "{account:?}"
    );
    assert_eq!((pair.stage(1), account.epoch), (Stage::Serving, epoch));
    assert!(pair.nodes[1].control.peer.partial);
    pair.sets(1, "app,orders", "since", "1");
    pair
}

fn large(pair: &Pair, n: usize) -> usize {
    pair.content(n).get("app,large").map_or(0, Vec::len)
}

#[test]
fn a_takeover_with_a_part_of_a_copy_needs_the_word_and_the_epoch_and_names_what_is_missing() {
    let mut pair = with_a_part();
    let (said, next) = refused(pair.nodes[1].asks(takeover(false, None)));
    assert!(said.contains("is incomplete") && said.contains("files are not whole"), "{said}");
    for choice in ["wait until the copy is whole", "restore a save", "--incomplete"] {
        assert!(next.contains(choice), "{next}");
    }
    let epoch = pair.nodes[1].engine.core.epoch_to_open(true).unwrap().0;
    for wrong in [None, Some(epoch - 1), Some(epoch + 2)] {
        let (said, _) = refused(pair.nodes[1].asks(takeover(true, wrong)));
        assert!(said.contains(&format!("begins epoch {epoch}")), "{said}");
    }
    assert_eq!((pair.stage(1), pair.nodes[1].control.role), (Stage::Incomplete, Role::Incomplete));
    let dry = AdminRequest::Takeover {
        peer_is_down: true,
        dry_run: true,
        accept_loss: false,
        now: true,
        incomplete: true,
        epoch: None,
    };
    let dry = account(pair.nodes[1].asks(dry));
    assert!(dry.partial && dry.dry_run && dry.epoch == epoch, "{dry:?}");
    assert!(dry.incomplete_files.iter().any(|name| name == "app,disk"), "{dry:?}");
    let pair = taken_over();
    assert!(large(&pair, 1) < 96 && pair.nodes[1].engine.core.serving());
}

#[test]
fn the_old_primary_keeps_what_it_has_and_can_take_over_again_and_the_part_is_made_whole() {
    let mut pair = taken_over();
    // It gave the copy of which a part came.
    assert_eq!(pair.times(0, "copying"), 1);
    pair.meets();
    assert_eq!((pair.stage(0), pair.stage(1)), (Stage::Diverged, Stage::Serving), "{:?}", pair.nodes[0].told);
    assert!(pair.nodes[0].control.peer.spared);
    assert_eq!((large(&pair, 0), pair.times(0, "copying"), pair.times(0, "rewinding")), (96, 1, 0));
    let (_, text) = pair.nodes[0].told.iter().find(|(kind, _)| *kind == "diverged").unwrap();
    for choice in ["takeover --peer-is-down", "resync --accept-incomplete"] {
        assert!(text.contains(choice), "{text}");
    }
    // Ordinary words change nothing of that.
    pair.does(0, super::RESYNC);
    pair.does(1, super::RESYNC);
    pair.runs(10_000);
    assert_eq!((pair.stage(0), large(&pair, 0)), (Stage::Diverged, 96));
    // Back to what is whole: the other one is stopped meanwhile.
    pair.cut = true;
    pair.runs(6_000);
    let back = account(pair.nodes[0].asks(takeover(false, None)));
    assert!(!back.partial && back.incomplete_files.is_empty(), "{back:?}");
    pair.cut = false;
    pair.runs(10_000);
    assert_eq!((pair.stage(0), pair.stage(1)), (Stage::Serving, Stage::Standby), "{:?}", pair.nodes[1].told);
    assert_eq!(pair.content(0), pair.content(1));
    assert_eq!(large(&pair, 1), 96);
    for n in 0..2 {
        let peer = pair.nodes[n].engine.core.peer.record();
        assert!(!peer.partial && !peer.spared, "node {n}");
    }
    let saved = String::from_utf8(pair.nodes[1].saved.clone()).unwrap();
    assert!(saved.contains("\"since\""), "{saved}");
}

#[test]
fn on_an_operators_word_the_old_primary_is_made_what_the_other_one_has() {
    let mut pair = taken_over();
    pair.meets();
    let accept = AdminRequest::Resync { rate: None, full: false, accept_incomplete: true };
    let (said, _) = refused(pair.nodes[1].asks(accept.clone()));
    assert!(said.contains("keeps nothing"), "{said}");
    pair.does(0, accept);
    pair.runs(10_000);
    assert_eq!((pair.stage(0), pair.stage(1)), (Stage::Standby, Stage::Serving), "{:?}", pair.nodes[0].told);
    assert_eq!(pair.content(0), pair.content(1));
    assert!(large(&pair, 0) < 96);
    for n in 0..2 {
        let peer = pair.nodes[n].engine.core.peer.record();
        assert!(!peer.partial && !peer.spared, "node {n}");
    }
}

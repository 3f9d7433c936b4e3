//! What a sender keeps and sends again, rule by rule; tokens. Whole machines stand in `tests/tape_socket.rs`.

use super::send::{Kept, Wrong};
use super::{Side, SocketKeys};
use crate::node::tls::SecureLink;
use crate::tape::Key;
use bytes::Bytes;

fn kept(window: u64) -> Kept {
    let mut kept = Kept::default();
    kept.resume(0, window).unwrap();
    (0..4).for_each(|byte| kept.push(Bytes::from(vec![byte; 10])));
    kept
}

/// Sends all that may be sent; where each block stood.
fn send(kept: &mut Kept) -> Vec<(u64, usize)> {
    let mut all = Vec::new();
    while let Some((offset, bytes)) = kept.may_send() {
        kept.was_sent();
        all.push((offset, bytes.len()));
    }
    all
}

#[test]
fn what_does_not_count_is_kept_and_no_more_is_sent_than_the_window_allows() {
    let mut kept = kept(25);
    assert_eq!(send(&mut kept), [(0, 10), (10, 10)]);
    kept.counts(5).unwrap();
    assert_eq!(send(&mut kept), [(20, 10)]);
    // A word that is older takes nothing back, and one for what was not sent is refused.
    kept.counts(0).unwrap();
    assert_eq!(kept.counts(31), Err(Wrong::Beyond(31)));
    kept.counts(30).unwrap();
    assert_eq!(send(&mut kept), [(30, 10)]);
    assert_eq!(kept.may_send(), None);
}

#[test]
fn a_window_that_is_smaller_than_a_block_lets_one_block_through_at_a_time() {
    let mut kept = kept(1);
    for at in 0..4 {
        assert_eq!(send(&mut kept), [(at * 10, 10)]);
        kept.counts(at * 10 + 10).unwrap();
    }
}

#[test]
fn after_a_cut_it_goes_on_where_the_receiver_says_and_nothing_is_sent_twice() {
    let mut kept = kept(100);
    assert_eq!(send(&mut kept).len(), 4);
    kept.counts(10).unwrap();
    // The receiver has a part of the third block.
    kept.resume(23, 100).unwrap();
    assert_eq!(send(&mut kept), [(23, 7), (30, 10)]);
    // It was killed, and has no more than what counted.
    kept.resume(10, 100).unwrap();
    assert_eq!(send(&mut kept), [(10, 10), (20, 3), (23, 7), (30, 10)]);
    // It has all.
    kept.resume(40, 100).unwrap();
    assert_eq!(send(&mut kept), []);
    kept.counts(25).unwrap();
    assert_eq!(kept.resume(24, 100), Err(Wrong::Lost { from: 24, counts: 25 }));
    assert_eq!(kept.resume(41, 100), Err(Wrong::Beyond(41)));
}

/// Carries what both sides say until neither says anything more; whether both believe the other.
fn meet(sender: &SocketKeys, listener: &SocketKeys) -> bool {
    let mut dial = SecureLink::dial(&sender.identity(Side::Send).unwrap()).unwrap();
    let mut accept = SecureLink::accept(&listener.identity(Side::Listen).unwrap()).unwrap();
    for _ in 0..8 {
        for part in dial.take_wire() {
            let _ = accept.wire_input(&part);
        }
        for part in accept.take_wire() {
            let _ = dial.wire_input(&part);
        }
    }
    dial.is_established() && accept.is_established()
}

#[test]
fn a_token_lets_in_who_has_it_and_nobody_else() {
    let keys = |digit: &str| SocketKeys::Token(Key::parse(&digit.repeat(64)).unwrap());
    assert!(meet(&keys("a"), &keys("a")));
    assert!(!meet(&keys("a"), &keys("b")));
    assert_eq!(keys("a").pair().unwrap(), None);
    assert!(!format!("{:?}", keys("a")).contains("aaaa"));
}

//! From the greeting to the choice of an export.

use super::*;

/// A client that was greeted and told its flags.
fn greeted(tls: Tls) -> World {
    let mut world = World::new(1 << 20);
    world.open(ONE, tls);
    world.send(ONE, &[0, 0, 0, 3]);
    world.take(ONE);
    world
}

impl World {
    /// The kinds of the replies to an option.
    fn kinds(&mut self, bytes: &[u8]) -> Vec<u32> {
        self.send(ONE, bytes);
        option_replies(&self.take(ONE)).into_iter().map(|(_, kind, _)| kind).collect()
    }
}

fn export_flags(world: &mut World, structured: bool) -> u16 {
    if structured {
        world.kinds(&option(nbd::OPT_STRUCTURED_REPLY, b""));
    }
    world.send(ONE, &option(nbd::OPT_INFO, &info(NAME, &[])));
    let replies = option_replies(&world.take(ONE));
    u16::from_be_bytes(number(&replies[0].2, 10))
}

#[test]
fn the_greeting_is_that_of_a_fixed_newstyle_server() {
    let mut world = World::new(1);
    world.open(ONE, Tls::Off);
    assert_eq!(world.take(ONE), b"NBDMAGICIHAVEOPT\0\x03");
}

#[test]
fn unknown_client_flags_end_the_connection() {
    let mut world = World::new(1);
    world.open(ONE, Tls::Off);
    world.send(ONE, &[0, 0, 0, 7]);
    assert!(world.peer(ONE).closed && !world.door.knows(ONE));
}

#[test]
fn a_wrong_magic_of_an_option_ends_the_connection() {
    let mut world = greeted(Tls::Off);
    world.send(ONE, &[0; 16]);
    assert!(world.peer(ONE).closed);
}

#[test]
fn an_unknown_option_is_refused_and_others_go_on() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(99, b"data")), [nbd::REP_ERR_UNSUP]);
    assert_eq!(world.kinds(&option(nbd::OPT_LIST, b"")), [nbd::REP_SERVER, nbd::REP_ACK]);
}

#[test]
fn list_names_every_volume_and_takes_no_data() {
    let mut world = greeted(Tls::Off);
    world.send(ONE, &option(nbd::OPT_LIST, b""));
    let replies = option_replies(&world.take(ONE));
    assert_eq!(replies[0], (nbd::OPT_LIST, nbd::REP_SERVER, string(NAME)));
    assert_eq!(world.kinds(&option(nbd::OPT_LIST, b"x")), [nbd::REP_ERR_INVALID]);
}

#[test]
fn go_tells_the_size_and_what_was_asked_for_and_begins() {
    let mut world = greeted(Tls::Off);
    let wanted = [nbd::INFO_NAME, nbd::INFO_BLOCK_SIZE, nbd::INFO_DESCRIPTION];
    world.send(ONE, &option(nbd::OPT_GO, &info("", &wanted)));
    let replies = option_replies(&world.take(ONE));
    assert_eq!(replies.len(), 4);
    assert_eq!(u64::from_be_bytes(number(&replies[0].2, 2)), 1 << 20);
    assert_eq!(replies[1].2, [b"\0\x01", NAME.as_bytes()].concat());
    assert_eq!(replies[2].2, [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]);
    assert_eq!(replies[3], (nbd::OPT_GO, nbd::REP_ACK, Vec::new()));
    assert_eq!(world.door.traffic(DISK).clients, 1);
    world.ask(ONE, nbd::CMD_CACHE, 0, 5, (0, 1));
    assert_eq!(world.replies(ONE), [(5, 0)]);
}

#[test]
fn info_tells_and_does_not_begin() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(nbd::OPT_INFO, &info(NAME, &[]))), [nbd::REP_INFO, nbd::REP_ACK]);
    assert_eq!(world.kinds(&option(nbd::OPT_LIST, b"")), [nbd::REP_SERVER, nbd::REP_ACK]);
    assert_eq!(world.door.traffic(DISK).clients, 0);
}

#[test]
fn an_unknown_name_and_malformed_data_are_refused() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(nbd::OPT_GO, &info("acc/none", &[]))), [nbd::REP_ERR_UNKNOWN]);
    assert_eq!(world.kinds(&option(nbd::OPT_GO, b"\0\0\0\x09abc\0\0")), [nbd::REP_ERR_INVALID]);
}

#[test]
fn the_empty_name_means_nothing_among_two_volumes() {
    let mut world = greeted(Tls::Off);
    world.model.volumes.push(Volume { file: FileId(9), name: "b/c".to_owned(), bytes: 1, writable: true });
    assert_eq!(world.kinds(&option(nbd::OPT_GO, &info("", &[]))), [nbd::REP_ERR_UNKNOWN]);
}

#[test]
fn export_flags_tell_what_is_there() {
    let mut world = greeted(Tls::Off);
    assert_eq!(export_flags(&mut world, false), 0b1101_0110_1101);
    assert_eq!(export_flags(&mut world, true), 0b1101_1110_1101);
    world.model.volumes[0].writable = false;
    assert_eq!(export_flags(&mut world, true), 0b1101_1110_1111);
}

#[test]
fn export_name_begins_with_zeros_for_those_who_did_not_do_without() {
    for (flags, len) in [(3, 10), (1, 134)] {
        let mut world = World::new(1 << 20);
        world.open(ONE, Tls::Off);
        world.send(ONE, &[0, 0, 0, flags]);
        world.take(ONE);
        world.send(ONE, &option(nbd::OPT_EXPORT_NAME, NAME.as_bytes()));
        let reply = world.take(ONE);
        assert_eq!((u64::from_be_bytes(number(&reply, 0)), reply.len()), (1 << 20, len));
        world.ask(ONE, nbd::CMD_CACHE, 0, 5, (0, 1));
        assert_eq!(world.replies(ONE), [(5, 0)]);
    }
}

#[test]
fn export_name_of_nothing_ends_the_connection() {
    let mut world = greeted(Tls::Off);
    world.send(ONE, &option(nbd::OPT_EXPORT_NAME, b"acc/none"));
    assert!(world.peer(ONE).closed);
}

#[test]
fn abort_is_acknowledged_and_ends_the_connection() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(nbd::OPT_ABORT, b"bye")), [nbd::REP_ACK]);
    assert!(world.peer(ONE).closed);
}

#[test]
fn without_tls_starttls_is_against_the_policy() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(nbd::OPT_STARTTLS, b"")), [nbd::REP_ERR_POLICY]);
    assert!(!world.peer(ONE).tls);
}

#[test]
fn where_tls_is_required_nothing_else_is_told() {
    let mut world = greeted(Tls::Required);
    for other in [nbd::OPT_LIST, nbd::OPT_GO, nbd::OPT_INFO, nbd::OPT_STRUCTURED_REPLY, 99] {
        assert_eq!(world.kinds(&option(other, b"")), [nbd::REP_ERR_TLS_REQD]);
    }
    assert_eq!(world.kinds(&option(nbd::OPT_LIST, &[0; 9000])), [nbd::REP_ERR_TLS_REQD]);
    world.send(ONE, &option(nbd::OPT_EXPORT_NAME, NAME.as_bytes()));
    assert!(world.peer(ONE).closed);
}

#[test]
fn after_tls_options_begin_anew_and_without_a_greeting() {
    let mut world = greeted(Tls::Required);
    assert_eq!(world.kinds(&option(nbd::OPT_STARTTLS, b"")), [nbd::REP_ACK]);
    assert!(world.peer(ONE).tls && world.peer(ONE).wanted.is_none());
    world.door.secured(ONE);
    assert_eq!(world.kinds(&option(nbd::OPT_STARTTLS, b"")), [nbd::REP_ERR_INVALID]);
    assert_eq!(world.kinds(&option(nbd::OPT_GO, &info(NAME, &[]))), [nbd::REP_INFO, nbd::REP_ACK]);
}

#[test]
fn tls_forgets_structured_replies() {
    let mut world = greeted(Tls::Offered);
    world.kinds(&option(nbd::OPT_STRUCTURED_REPLY, b""));
    world.kinds(&option(nbd::OPT_STARTTLS, b""));
    world.door.secured(ONE);
    assert_eq!(export_flags(&mut world, false) & nbd::FLAG_SEND_DF, 0);
}

#[test]
fn bytes_sent_ahead_of_tls_end_the_connection() {
    let mut world = greeted(Tls::Offered);
    let both = [option(nbd::OPT_STARTTLS, b""), option(nbd::OPT_LIST, b"")].concat();
    world.send(ONE, &both);
    assert!(world.peer(ONE).closed && !world.peer(ONE).tls);
}

#[test]
fn metadata_needs_structured_replies() {
    let mut world = greeted(Tls::Off);
    let all = option(nbd::OPT_LIST_META_CONTEXT, &meta(NAME, &[]));
    assert_eq!(world.kinds(&all), [nbd::REP_ERR_INVALID]);
    world.kinds(&option(nbd::OPT_STRUCTURED_REPLY, b""));
    assert_eq!(world.kinds(&all), [nbd::REP_META_CONTEXT, nbd::REP_ACK]);
}

#[test]
fn only_the_allocation_is_told_as_metadata() {
    let mut world = greeted(Tls::Off);
    world.kinds(&option(nbd::OPT_STRUCTURED_REPLY, b""));
    let (list, set) = (nbd::OPT_LIST_META_CONTEXT, nbd::OPT_SET_META_CONTEXT);
    let both = vec![nbd::REP_META_CONTEXT, nbd::REP_ACK];
    let none = vec![nbd::REP_ACK];
    for (asked, queries, found) in [
        (list, &["base:"][..], &both),
        (list, &["base:allocation"], &both),
        (list, &["qemu:"], &none),
        (set, &["base:allocation", "base:allocation"], &both),
        (set, &["base:"], &none),
        (set, &[], &none),
    ] {
        assert_eq!(world.kinds(&option(asked, &meta(NAME, queries))), *found, "{queries:?}");
    }
    assert_eq!(world.kinds(&option(set, &meta("acc/none", &[]))), [nbd::REP_ERR_UNKNOWN]);
}

#[test]
fn an_option_with_too_much_data_is_refused_and_one_with_absurdly_much_ends_the_connection() {
    let mut world = greeted(Tls::Off);
    assert_eq!(world.kinds(&option(nbd::OPT_INFO, &[0; 100_000])), [nbd::REP_ERR_TOO_BIG]);
    assert_eq!(world.kinds(&option(nbd::OPT_LIST, b"")), [nbd::REP_SERVER, nbd::REP_ACK]);
    let mut head = Vec::new();
    nbd::OptionHeader { option: nbd::OPT_INFO, len: u32::MAX }.encode(&mut head);
    world.send(ONE, &head);
    assert!(world.peer(ONE).closed);
}

#[test]
fn options_cut_anywhere_are_understood() {
    let mut world = World::new(1 << 20);
    world.open(ONE, Tls::Off);
    world.take(ONE);
    let options = [option(nbd::OPT_LIST, b""), option(nbd::OPT_GO, &info(NAME, &[3]))].concat();
    for byte in [&[0, 0, 0, 3][..], &options].concat() {
        world.send(ONE, &[byte]);
    }
    assert_eq!(option_replies(&world.take(ONE)).len(), 5);
}

#[test]
fn a_client_that_does_not_choose_in_time_is_closed() {
    let mut world = greeted(Tls::Off);
    let deadline = world.door.deadline().expect("one");
    assert_eq!(deadline, Mono(30_000_000));
    world.now.mono = deadline;
    world.run();
    assert!(world.peer(ONE).closed && world.door.deadline().is_none());
}

#[test]
fn a_client_that_has_chosen_has_no_deadline() {
    let mut world = World::new(1);
    world.client(ONE, false);
    assert_eq!(world.door.deadline(), None);
}

#[test]
fn a_client_that_is_denied_what_it_came_for_is_told_of_and_one_that_is_served_has_proved_itself() {
    let mut world = World::new(1 << 20);
    world.client(ONE, true);
    assert!(world.peer(ONE).proven && world.peer(ONE).refused.is_empty());
    let cases: [(&str, Tls, Vec<u8>, &str); 5] = [
        ("no such volume", Tls::Off, option(nbd::OPT_GO, &info("acc/other", &[])), "no such file"),
        ("the old way", Tls::Off, option(nbd::OPT_EXPORT_NAME, b"acc/other"), "no such file"),
        ("no TLS", Tls::Required, option(nbd::OPT_GO, &info(NAME, &[])), "does not use TLS"),
        (
            "no TLS in the old way",
            Tls::Required,
            option(nbd::OPT_EXPORT_NAME, NAME.as_bytes()),
            "does not use TLS",
        ),
        ("a browser", Tls::Off, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "is not NBD"),
    ];
    for (at, (case, tls, bytes, why)) in (10..).zip(cases) {
        let conn = ConnId(at);
        world.open(conn, tls);
        world.send(conn, &[&[0, 0, 0, 3], &bytes[..]].concat());
        let peer = world.peer(conn);
        assert!(!peer.proven, "{case}");
        assert_eq!(peer.refused.len(), 1, "{case}: {:?}", peer.refused);
        assert!(peer.refused[0].contains(why), "{case}: {:?}", peer.refused);
    }
    // One that says nothing until its time is over.
    world.open(TWO, Tls::Off);
    world.now.mono = world.now.mono.plus_ms(crate::base::limits::NBD_HANDSHAKE_MS);
    world.run();
    assert!(world.peer(TWO).refused[0].contains("chose no volume"), "{:?}", world.peer(TWO).refused);
}

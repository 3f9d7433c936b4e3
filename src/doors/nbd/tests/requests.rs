//! What a client asks of an export, and what it hears.

use super::*;

const MIB: u64 = 1 << 20;

fn world(structured: bool) -> World {
    let mut world = World::new(1 << 20);
    world.client(ONE, structured);
    world
}

/// The one reply to a request, which has no content.
fn error(world: &mut World, command: u16, flags: u16, range: (u64, u32)) -> u32 {
    world.ask(ONE, command, flags, 1, range);
    let replies = world.replies(ONE);
    assert_eq!(replies.len(), 1);
    replies[0].1
}

#[test]
fn a_write_is_replied_to_before_it_is_safe() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE, 0, 4, (100, 10));
    assert_eq!(world.replies(ONE), [(4, 0)]);
    assert_eq!(world.model.did, [Did::Write { offset: 100, len: 10, owned: false }]);
}

#[test]
fn a_write_with_fua_is_replied_to_when_it_is_safe() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 4, (100, 10));
    assert_eq!(world.replies(ONE), []);
    world.safe(1);
    assert_eq!(world.replies(ONE), [(4, 0)]);
}

#[test]
fn a_flush_waits_for_what_any_client_wrote() {
    let mut world = world(false);
    world.client(TWO, false);
    world.ask(TWO, nbd::CMD_WRITE, 0, 4, (100, 10));
    world.ask(ONE, nbd::CMD_FLUSH, 0, 5, (0, 0));
    assert_eq!(world.replies(ONE), []);
    world.safe(1);
    assert_eq!(world.replies(ONE), [(5, 0)]);
}

#[test]
fn a_flush_of_what_is_safe_is_replied_to_at_once() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_FLUSH, 0, 5, (0, 0));
    assert_eq!(world.replies(ONE), [(5, 0)]);
}

#[test]
fn requests_behind_a_flush_go_on() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 10));
    world.ask(ONE, nbd::CMD_FLUSH, 0, 2, (0, 0));
    world.ask(ONE, nbd::CMD_WRITE, 0, 3, (0, 10));
    assert_eq!(world.replies(ONE), [(1, 0), (3, 0)]);
}

#[test]
fn trim_and_zeros_reach_the_backend_with_their_wish_for_space() {
    let mut world = world(false);
    let fast = nbd::CMD_FLAG_FAST_ZERO;
    assert_eq!(error(&mut world, nbd::CMD_TRIM, 0, (0, 5)), 0);
    assert_eq!(error(&mut world, nbd::CMD_WRITE_ZEROES, fast, (5, 6)), 0);
    assert_eq!(error(&mut world, nbd::CMD_WRITE_ZEROES, nbd::CMD_FLAG_NO_HOLE, (11, 7)), 0);
    let zero = |offset, len, hole| Did::Zero { offset, len, hole };
    assert_eq!(world.model.did, [zero(0, 5, true), zero(5, 6, true), zero(11, 7, false)]);
}

#[test]
fn zeros_with_fua_are_replied_to_when_they_are_safe() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE_ZEROES, nbd::CMD_FLAG_FUA, 4, (0, 10));
    world.ask(ONE, nbd::CMD_TRIM, nbd::CMD_FLAG_FUA, 5, (0, 10));
    world.safe(1);
    assert_eq!(world.replies(ONE), [(4, 0)]);
    world.safe(2);
    assert_eq!(world.replies(ONE), [(5, 0)]);
}

#[test]
fn a_simple_read_is_a_reply_with_its_bytes() {
    let mut world = world(false);
    world.model.content.get_mut(&DISK).expect("there")[5000..5003].copy_from_slice(b"abc");
    world.ask(ONE, nbd::CMD_READ, 0, 9, (4096, 9000));
    assert_eq!(world.take(ONE), b"");
    world.answer();
    let reply = world.take(ONE);
    assert_eq!(simple(&reply), (9, 0));
    assert_eq!(reply[16..], world.model.content[&DISK][4096..13096]);
}

#[test]
fn a_structured_read_is_chunks_of_bytes_and_holes() {
    let mut world = world(true);
    world.model.content.get_mut(&DISK).expect("there")[4096] = 1;
    world.ask(ONE, nbd::CMD_READ, 0, 9, (0, 12288));
    world.answer();
    let chunks = chunks(&world.take(ONE));
    let seen: Vec<_> = chunks.iter().map(|chunk| (chunk.done, chunk.kind, chunk.data.len())).collect();
    let (data, hole) = (nbd::REPLY_TYPE_OFFSET_DATA, nbd::REPLY_TYPE_OFFSET_HOLE);
    assert_eq!(seen, [(false, hole, 12), (false, data, 8 + 4096), (true, hole, 12)]);
    assert_eq!(chunks[1].data[..9], [0, 0, 0, 0, 0, 0, 16, 0, 1]);
    assert_eq!(chunks[2].data, [0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 16, 0]);
}

#[test]
fn short_zeros_and_bytes_side_by_side_are_one_chunk_so_that_chunks_are_no_longer_than_the_bytes() {
    let mut world = world(true);
    world.ask(ONE, nbd::CMD_READ, 0, 9, (0, 8192));
    let (token, _) = world.model.reads.pop_front().expect("one");
    let pair = [Piece::Data(Bytes::from_static(b"x")), Piece::Zeros(1)];
    world.door.read_done(world.now, token, Ok(pair.iter().cloned().cycle().take(8192).collect()));
    world.run();
    let reply = world.take(ONE);
    assert!(reply.len() <= 8192 + nbd::READ_CHUNK_HEAD);
    let chunks = chunks(&reply);
    assert_eq!((chunks.len(), chunks[0].done, &chunks[0].data[8..12]), (1, true, &b"x\0x\0"[..]));
}

#[test]
fn a_read_that_must_not_be_cut_is_one_chunk() {
    let mut world = world(true);
    world.model.content.get_mut(&DISK).expect("there")[4096] = 1;
    world.ask(ONE, nbd::CMD_READ, nbd::CMD_FLAG_DF, 9, (1, 12287));
    world.answer();
    let chunks = chunks(&world.take(ONE));
    assert_eq!((chunks.len(), chunks[0].done, chunks[0].cookie), (1, true, 9));
    assert_eq!(chunks[0].data[8..], world.model.content[&DISK][1..12288]);
}

#[test]
fn reads_are_replied_to_in_the_order_of_their_answers() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 1));
    world.ask(ONE, nbd::CMD_READ, 0, 2, (0, 1));
    let (token, pieces) = world.model.reads.pop_back().expect("the second");
    world.door.read_done(world.now, token, Ok(pieces));
    world.run();
    assert_eq!(simple(&world.take(ONE)), (2, 0));
}

#[test]
fn a_read_that_fails_is_an_error_in_the_form_that_was_negotiated() {
    for structured in [false, true] {
        let mut world = world(structured);
        world.ask(ONE, nbd::CMD_READ, 0, 9, (0, 10));
        let (token, _) = world.model.reads.pop_front().expect("one");
        world.door.read_done(world.now, token, Err(Refusal::Store("ouch".to_owned())));
        world.run();
        let reply = world.take(ONE);
        if structured {
            let chunk = &chunks(&reply)[0];
            assert_eq!((chunk.done, chunk.kind), (true, nbd::REPLY_TYPE_ERROR));
            assert!(chunk.data.ends_with(b"ouch") && chunk.data.starts_with(&[0, 0, 0, 5]));
        } else {
            assert_eq!((simple(&reply), reply.len()), ((9, nbd::EIO), 16));
        }
    }
}

#[test]
fn an_answer_of_another_length_is_an_error() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_READ, 0, 9, (0, 10));
    let (token, _) = world.model.reads.pop_front().expect("one");
    world.door.read_done(world.now, token, Ok(vec![Piece::Zeros(9)]));
    world.run();
    assert_eq!(world.replies(ONE), [(9, nbd::EIO)]);
}

#[test]
fn beyond_the_end_each_command_has_its_error() {
    let mut world = world(false);
    for range in [(MIB, 1), (MIB - 1, 2), (u64::MAX, 2)] {
        assert_eq!(error(&mut world, nbd::CMD_READ, 0, range), nbd::EINVAL);
        assert_eq!(error(&mut world, nbd::CMD_WRITE, 0, range), nbd::ENOSPC);
        assert_eq!(error(&mut world, nbd::CMD_WRITE_ZEROES, 0, range), nbd::ENOSPC);
        assert_eq!(error(&mut world, nbd::CMD_TRIM, 0, range), nbd::EINVAL);
        assert_eq!(error(&mut world, nbd::CMD_CACHE, 0, range), nbd::EINVAL);
    }
    assert!(world.model.did.is_empty() && world.model.reads.is_empty());
}

#[test]
fn a_volume_that_has_grown_is_written_where_it_grew() {
    let mut world = world(false);
    world.model.volumes[0].bytes += 10;
    world.model.content.get_mut(&DISK).expect("there").resize((1 << 20) + 10, 0);
    assert_eq!(error(&mut world, nbd::CMD_WRITE, 0, (MIB, 10)), 0);
}

#[test]
fn a_volume_that_is_gone_is_a_shutdown() {
    let mut world = world(false);
    world.model.volumes.clear();
    assert_eq!(error(&mut world, nbd::CMD_WRITE, 0, (0, 10)), nbd::ESHUTDOWN);
    assert_eq!(error(&mut world, nbd::CMD_READ, 0, (0, 10)), nbd::ESHUTDOWN);
}

#[test]
fn changes_of_a_read_only_volume_are_not_permitted() {
    let mut world = world(false);
    world.model.volumes[0].writable = false;
    for command in [nbd::CMD_WRITE, nbd::CMD_TRIM, nbd::CMD_WRITE_ZEROES] {
        assert_eq!(error(&mut world, command, 0, (0, 10)), nbd::EPERM);
    }
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 1));
    assert_eq!(world.model.reads.len(), 1);
}

#[test]
fn refusals_of_the_backend_have_their_errors() {
    let mut world = world(false);
    for (refusal, number) in [
        (Refusal::ReadOnly, nbd::EPERM),
        (Refusal::NoSpace, nbd::ENOSPC),
        (Refusal::NotServing(String::new()), nbd::ESHUTDOWN),
        (Refusal::DiskFailed, nbd::EIO),
        (Refusal::DiskHangs, nbd::EIO),
    ] {
        world.model.refuse = Some(refusal);
        assert_eq!(error(&mut world, nbd::CMD_WRITE, 0, (0, 10)), number);
        assert_eq!(error(&mut world, nbd::CMD_TRIM, 0, (0, 10)), number);
        assert_eq!(error(&mut world, nbd::CMD_FLUSH, 0, (0, 0)), number);
        assert_eq!(error(&mut world, nbd::CMD_READ, 0, (0, 10)), number);
    }
}

#[test]
fn unknown_commands_and_flags_are_invalid_and_the_session_goes_on() {
    let mut world = world(false);
    let invalid = [
        (99, 0),
        (nbd::CMD_READ, nbd::CMD_FLAG_DF),
        (nbd::CMD_WRITE, nbd::CMD_FLAG_NO_HOLE),
        (nbd::CMD_TRIM, nbd::CMD_FLAG_FAST_ZERO),
        (nbd::CMD_WRITE_ZEROES, 1 << 15),
        (nbd::CMD_BLOCK_STATUS, 0),
    ];
    for (command, flags) in invalid {
        assert_eq!(error(&mut world, command, flags, (0, 10)), nbd::EINVAL);
    }
    assert_eq!(error(&mut world, nbd::CMD_FLUSH, 0, (0, 10)), nbd::EINVAL);
    assert_eq!(error(&mut world, nbd::CMD_CACHE, nbd::CMD_FLAG_FUA, (0, 10)), 0);
}

#[test]
fn requests_of_no_bytes_do_nothing_and_succeed() {
    let mut world = world(false);
    for command in [nbd::CMD_READ, nbd::CMD_WRITE, nbd::CMD_TRIM, nbd::CMD_WRITE_ZEROES, nbd::CMD_CACHE] {
        assert_eq!(error(&mut world, command, 0, (MIB, 0)), 0);
    }
    assert!(world.model.did.is_empty() && world.model.reads.is_empty());
}

#[test]
fn a_structured_read_of_no_bytes_is_an_empty_chunk() {
    let mut world = world(true);
    world.ask(ONE, nbd::CMD_READ, 0, 3, (0, 0));
    let none = Chunk { done: true, kind: nbd::REPLY_TYPE_NONE, cookie: 3, data: Vec::new() };
    assert_eq!(chunks(&world.take(ONE)), [none]);
}

#[test]
fn block_status_tells_extents_of_the_allocation() {
    let mut world = world(true);
    world.ask(ONE, nbd::CMD_BLOCK_STATUS, 0, 3, (0, 4096));
    world.answer();
    let chunk = &chunks(&world.take(ONE))[0];
    assert_eq!((chunk.done, chunk.kind), (true, nbd::REPLY_TYPE_BLOCK_STATUS));
    assert_eq!(chunk.data, [0, 0, 0, 1, 0, 0, 8, 0, 0, 0, 0, 3, 0, 0, 8, 0, 0, 0, 0, 0]);
}

#[test]
fn block_status_of_one_extent_tells_one() {
    let mut world = world(true);
    world.ask(ONE, nbd::CMD_BLOCK_STATUS, nbd::CMD_FLAG_REQ_ONE, 3, (0, 4096));
    world.answer();
    assert_eq!(chunks(&world.take(ONE))[0].data, [0, 0, 0, 1, 0, 0, 8, 0, 0, 0, 0, 3]);
}

#[test]
fn extents_never_reach_beyond_what_was_asked_and_are_not_too_many() {
    let mut world = world(true);
    for (parts, len, told) in [(1, u64::MAX, 1), (20_000, 1, 8192)] {
        world.ask(ONE, nbd::CMD_BLOCK_STATUS, 0, 3, (0, 30_000));
        let (token, _) = world.model.allocations.pop_front().expect("one");
        let parts = (0..parts).map(|at| Allocation { len, hole: at % 2 == 1 });
        world.door.allocation_done(world.now, token, Ok(parts.collect()));
        world.run();
        let data = chunks(&world.take(ONE)).remove(0).data;
        assert_eq!((data.len() - 4) / 8, told);
        assert!(u32::from_be_bytes(number(&data, 4)) <= 30_000);
    }
}

#[test]
fn extents_side_by_side_of_one_kind_are_told_as_one_and_also_where_only_one_is_asked_for() {
    let mut world = world(true);
    for (flags, told) in [
        (0, &[0, 0, 4, 0, 0, 0, 0, 3, 0, 0, 12, 0, 0, 0, 0, 0][..]),
        (nbd::CMD_FLAG_REQ_ONE, &[0, 0, 4, 0, 0, 0, 0, 3]),
    ] {
        world.ask(ONE, nbd::CMD_BLOCK_STATUS, flags, 3, (0, 4096));
        let (token, _) = world.model.allocations.pop_front().expect("one");
        let parts = [(512, true), (0, false), (512, true), (1024, false), (9000, false)];
        let parts = parts.map(|(len, hole)| Allocation { len, hole });
        world.door.allocation_done(world.now, token, Ok(parts.to_vec()));
        world.run();
        assert_eq!(chunks(&world.take(ONE))[0].data[4..], *told);
    }
}

#[test]
fn block_status_needs_a_context_of_this_export() {
    let mut world = World::new(1 << 20);
    let other = Volume { file: FileId(9), name: "b/c".to_owned(), bytes: 1, writable: true };
    world.model.volumes.push(other);
    world.open(ONE, Tls::Off);
    let mut bytes = vec![0, 0, 0, 3];
    bytes.extend(option(nbd::OPT_STRUCTURED_REPLY, b""));
    bytes.extend(option(nbd::OPT_SET_META_CONTEXT, &meta("b/c", &["base:allocation"])));
    bytes.extend(option(nbd::OPT_GO, &info(NAME, &[])));
    world.send(ONE, &bytes);
    world.take(ONE);
    world.ask(ONE, nbd::CMD_BLOCK_STATUS, 0, 3, (0, 4096));
    assert_eq!(chunks(&world.take(ONE))[0].kind, nbd::REPLY_TYPE_ERROR);
}

#[test]
fn a_wrong_magic_ends_the_connection() {
    let mut world = world(false);
    world.send(ONE, &[7; 28]);
    assert!(world.peer(ONE).closed);
}

#[test]
fn a_goodbye_waits_for_the_replies_in_flight() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 1, (0, 10));
    world.ask(ONE, nbd::CMD_READ, 0, 2, (0, 1));
    world.ask(ONE, nbd::CMD_DISC, 0, 3, (0, 0));
    world.safe(1);
    assert!(!world.peer(ONE).closed);
    world.answer();
    assert!(world.peer(ONE).closed);
    assert_eq!(world.take(ONE).len(), 16 + 17);
    assert_eq!(world.door.traffic(DISK).clients, 0);
}

#[test]
fn small_replies_of_one_turn_leave_together() {
    let mut world = world(false);
    let mut bytes = Vec::new();
    for cookie in 0..50 {
        Request { flags: 0, command: nbd::CMD_CACHE, cookie, offset: 0, len: 1 }.encode(&mut bytes);
    }
    let before = world.peer(ONE).sends;
    world.send(ONE, &bytes);
    assert_eq!(world.replies(ONE).len(), 50);
    assert_eq!(world.peer(ONE).sends - before, 1);
}

#[test]
fn traffic_is_counted() {
    let mut world = world(false);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 10));
    world.ask(ONE, nbd::CMD_READ, 0, 2, (0, 20));
    world.answer();
    world.ask(ONE, nbd::CMD_TRIM, 0, 3, (0, 30));
    world.ask(ONE, nbd::CMD_FLUSH, 0, 4, (0, 0));
    let told = world.door.traffic(DISK);
    assert_eq!((told.clients, told.reads, told.writes, told.zeros, told.flushes), (1, 1, 1, 1, 1));
    assert_eq!((told.read_bytes, told.written_bytes), (20, 10));
}

#[test]
fn who_waits_when_the_node_steps_down_is_told_so_and_ended_and_no_others() {
    let mut world = world(false);
    world.client(TWO, false);
    world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 1, (0, 10));
    world.door.abandon(&Refusal::NotServing("it steps down".to_owned()), None);
    world.run();
    assert!(world.peer(ONE).closed && !world.peer(TWO).closed);
    assert_eq!(world.replies(ONE), [(1, nbd::ESHUTDOWN)]);
}

#[test]
fn requests_that_wait_for_a_disk_that_hangs_fail_and_their_client_stays() {
    let mut world = world(false);
    world.client(TWO, false);
    world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 1, (0, 10));
    world.door.abandon(&Refusal::DiskHangs, Some([Seq(u64::MAX); 2]));
    world.run();
    assert_eq!(world.replies(ONE), [], "what it waits for is durable here, and waits for the peer");
    world.ask(TWO, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 2, (0, 10));
    world.ask(TWO, nbd::CMD_FLUSH, 0, 3, (0, 0));
    world.door.abandon(&Refusal::DiskHangs, Some([Seq(0); 2]));
    world.run();
    assert_eq!(world.replies(ONE), [(1, nbd::EIO)]);
    assert_eq!(world.replies(TWO), [(2, nbd::EIO), (3, nbd::EIO)]);
    assert!(!world.peer(ONE).closed && !world.peer(TWO).closed);
}

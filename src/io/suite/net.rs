//! Sockets: echo in all sizes, accepting, connecting, ends, cancellations, many operations at once.

use super::*;

on_both_drivers! {
    a_fill_takes_what_comes_in_pieces_behind_what_is_there_and_no_byte_more,
    a_fill_that_asks_for_little_ends_with_what_came_and_keeps_within_its_most,
    what_is_sent_over_tcp_comes_back,
    what_is_sent_over_unix_sockets_comes_back,
    a_large_send_waits_for_a_slow_tcp_reader,
    a_large_send_waits_for_a_slow_unix_reader,
    a_send_of_sixty_four_mebibytes_arrives_whole,
    many_connections_are_accepted,
    unix_connections_are_accepted,
    a_connection_is_made,
    a_refused_connection_says_so,
    after_the_peer_closed_a_receive_has_no_bytes,
    data_before_a_close_is_not_lost,
    the_end_is_seen_though_nothing_is_received_and_takes_no_byte_away,
    an_end_that_was_there_already_is_seen,
    a_cancel_ends_a_wait_for_the_end,
    a_reset_is_an_error,
    a_send_to_a_closed_peer_is_an_error_without_a_signal,
    a_cancel_ends_a_receive_that_waits,
    a_cancel_ends_an_accept_that_waits,
    a_cancel_ends_a_send_that_waits,
    a_cancel_leaves_other_sockets_alone,
    a_reused_descriptor_number_starts_anew,
    a_thousand_operations_wait_at_once,
    a_descriptor_that_is_no_socket_is_an_error,
    both_directions_of_a_socket_wait_at_once,
}

/// Cuts `bytes` into parts of irregular sizes, some empty.
fn cut(bytes: &[u8], seed: u64, largest: u64) -> Vec<Bytes> {
    let mut prng = Prng::new(seed);
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let len = usize::try_from(prng.below(largest)).expect("small").min(rest.len());
        parts.push(rest.split_to(len));
    }
    parts
}

fn echo(rig: &mut Rig, socket: &Arc<OwnedFd>, peer: impl Read + Write + Send + 'static) {
    let mut peer = peer;
    let total: usize = 40 * 3000 + (2 << 20);
    let thread = thread::spawn(move || {
        let mut buffer = vec![0; 10_000];
        let mut left = total;
        while left > 0 {
            let count = peer.read(&mut buffer).expect("connected");
            peer.write_all(&buffer[..count]).expect("connected");
            left -= count;
        }
    });
    for round in 0..40 {
        let bytes = noise(round, 3000);
        let token = rig.start(Op::Send(Arc::clone(socket), cut(&bytes, round, 20)));
        assert_eq!(rig.receive_all(socket, bytes.len(), 777), bytes);
        rig.sent(token).expect("sent");
    }
    // More ranges than one call takes, while the echo comes back.
    let bytes = noise(99, 2 << 20);
    let token = rig.start(Op::Send(Arc::clone(socket), cut(&bytes, 99, 1000)));
    assert_eq!(crc32c(&rig.receive_all(socket, bytes.len(), 65_536)), crc32c(&bytes));
    rig.sent(token).expect("sent");
    thread.join().expect("the echo ends");
}

fn what_is_sent_over_tcp_comes_back(rig: &mut Rig) {
    let (socket, peer) = tcp_pair();
    echo(rig, &socket, peer);
}

fn what_is_sent_over_unix_sockets_comes_back(rig: &mut Rig) {
    let (socket, peer) = unix_pair();
    echo(rig, &socket, peer);
}

/// The peer does not read before the send has been seen to wait, and then in dribs.
fn slow(rig: &mut Rig, socket: Arc<OwnedFd>, peer: impl Read + Send + 'static, len: usize) {
    let bytes = noise(len as u64, len);
    let expected = crc32c(&bytes);
    let parts = cut(&bytes, 5, 300_000);
    let (go, went) = mpsc::channel();
    let mut peer = peer;
    let thread = thread::spawn(move || {
        let _: () = went.recv().expect("the test runs");
        let mut all = vec![0; len];
        let (first, rest) = all.split_at_mut(100_000);
        for piece in first.chunks_mut(1000) {
            peer.read_exact(piece).expect("connected");
            thread::yield_now();
        }
        peer.read_exact(rest).expect("connected");
        assert_eq!(peer.read(&mut [0; 10]).expect("closed"), 0, "nothing is sent twice");
        crc32c(&all)
    });
    let token = rig.start(Op::Send(Arc::clone(&socket), parts));
    for _ in 0..20 {
        rig.wait(Duration::from_millis(2));
    }
    assert!(!rig.done.contains_key(&token), "it cannot be sent before the peer reads");
    go.send(()).expect("the thread lives");
    rig.sent(token).expect("sent");
    drop(socket);
    assert_eq!(thread.join().expect("the reader ends"), expected);
}

fn a_large_send_waits_for_a_slow_tcp_reader(rig: &mut Rig) {
    let (socket, peer) = tcp_pair();
    slow(rig, socket, peer, 16 << 20);
}

fn a_large_send_waits_for_a_slow_unix_reader(rig: &mut Rig) {
    let (socket, peer) = unix_pair();
    slow(rig, socket, peer, 1 << 20);
}

fn a_send_of_sixty_four_mebibytes_arrives_whole(rig: &mut Rig) {
    let (socket, peer) = tcp_pair();
    slow(rig, socket, peer, 64 << 20);
}

fn a_fill_takes_what_comes_in_pieces_behind_what_is_there_and_no_byte_more(rig: &mut Rig) {
    let (socket, mut peer) = tcp_pair();
    let bytes = noise(7, 900_010);
    let expected = bytes.clone();
    let thread = thread::spawn(move || {
        for piece in bytes.chunks(70_001) {
            peer.write_all(piece).expect("connected");
            thread::yield_now();
        }
        peer
    });
    let mut buffer = AlignedBuf::with_capacity(900_003);
    buffer.extend_from_slice(b"abc");
    let token = rig.start(Op::Fill(Arc::clone(&socket), buffer, Goal::all(900_003)));
    let buffer = rig.filled(token).expect("the peer sends");
    assert_eq!(buffer.as_ref(), [b"abc", &expected[..900_000]].concat());
    let token = rig.start(Op::Fill(Arc::clone(&socket), AlignedBuf::with_capacity(10), Goal::all(10)));
    assert_eq!(rig.filled(token).expect("the rest").as_ref(), &expected[900_000..]);
    // Full already.
    let token = rig.start(Op::Fill(Arc::clone(&socket), buffer, Goal::all(900_003)));
    assert_eq!(rig.filled(token).expect("nothing to do").len(), 900_003);
    drop(thread.join().expect("the writer ends"));
    let token = rig.start(Op::Fill(socket, AlignedBuf::with_capacity(10), Goal::all(10)));
    assert_eq!(rig.filled(token).expect_err("the stream ended").kind(), ErrorKind::UnexpectedEof);
}

fn a_fill_that_asks_for_little_ends_with_what_came_and_keeps_within_its_most(rig: &mut Rig) {
    let (socket, mut peer) = tcp_pair();
    let mut buffer = AlignedBuf::with_capacity(1000);
    buffer.extend_from_slice(b"abc");
    peer.write_all(b"defghi").expect("connected");
    let token = rig.start(Op::Fill(Arc::clone(&socket), buffer, Goal { least: 4, most: 5 }));
    let mut buffer = rig.filled(token).expect("the peer sent");
    assert!(buffer.len() <= 5, "no byte beyond the most");
    // The peer sends no more, and yet this ends.
    while buffer.len() < 9 {
        let goal = Goal { least: buffer.len() + 1, most: 1000 };
        let token = rig.start(Op::Fill(Arc::clone(&socket), buffer, goal));
        buffer = rig.filled(token).expect("the peer sent");
    }
    assert_eq!(buffer.as_ref(), b"abcdefghi");
    drop(peer);
    let token = rig.start(Op::Fill(socket, buffer, Goal { least: 10, most: 1000 }));
    assert_eq!(rig.filled(token).expect_err("the stream ended").kind(), ErrorKind::UnexpectedEof);
}

fn many_connections_are_accepted(rig: &mut Rig) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let listener = shared(listener);
    let mut accepts: Vec<_> = (0..8).map(|_| rig.start(Op::Accept(Arc::clone(&listener)))).collect();
    let thread = thread::spawn(move || {
        (0..200_u32)
            .map(|n| {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.write_all(&n.to_le_bytes()).expect("connected");
                stream
            })
            .collect::<Vec<_>>()
    });
    let mut seen = Vec::new();
    for _ in 0..200 {
        // Whichever of them the kernel gives the connection to.
        let token = accepts.remove(rig.first_of(&accepts));
        let socket = shared(rig.accepted(token).expect("somebody connects"));
        accepts.push(rig.start(Op::Accept(Arc::clone(&listener))));
        let bytes = rig.receive_all(&socket, 4, 4);
        seen.push(u32::from_le_bytes(bytes.try_into().expect("four bytes")));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    drop(thread.join().expect("the clients end"));
}

fn unix_connections_are_accepted(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("socket");
    let listener = shared(UnixListener::bind(&path).expect("writable"));
    for _ in 0..3 {
        let token = rig.start(Op::Accept(Arc::clone(&listener)));
        rig.flush();
        let mut client = UnixStream::connect(&path).expect("it listens");
        let socket = shared(rig.accepted(token).expect("somebody connects"));
        client.write_all(b"hello").expect("connected");
        assert_eq!(rig.receive_all(&socket, 5, 100), b"hello");
    }
}

fn a_connection_is_made(rig: &mut Rig) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let socket = tcp_socket();
    let token = rig.start(Op::Connect(Arc::clone(&socket), listener.local_addr().expect("bound")));
    rig.connected(token).expect("it listens");
    let (mut peer, _) = listener.accept().expect("connected");
    peer.write_all(b"welcome").expect("connected");
    assert_eq!(rig.receive_all(&socket, 7, 100), b"welcome");
    let token = rig.start(Op::Send(socket, vec![Bytes::from_static(b"thanks")]));
    rig.sent(token).expect("sent");
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).expect("connected");
    assert_eq!(&answer, b"thanks");
}

fn a_refused_connection_says_so(rig: &mut Rig) {
    // A port that was free a moment ago and that nobody was told.
    let address: SocketAddr = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        listener.local_addr().expect("bound")
    };
    let token = rig.start(Op::Connect(tcp_socket(), address));
    let error = rig.connected(token).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn after_the_peer_closed_a_receive_has_no_bytes(rig: &mut Rig) {
    let (socket, peer) = tcp_pair();
    let token = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
    rig.flush();
    drop(peer);
    assert!(rig.received(token).expect("an end is no error").is_empty());
    let token = rig.start(Op::Receive(socket, Vec::with_capacity(100)));
    assert!(rig.received(token).expect("it stays so").is_empty());
}

fn data_before_a_close_is_not_lost(rig: &mut Rig) {
    for (socket, mut peer) in [unix_pair(), unix_pair()] {
        peer.write_all(&[5; 250]).expect("connected");
        drop(peer);
        assert_eq!(rig.receive_all(&socket, 250, 100), [5; 250]);
        let token = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
        assert!(rig.received(token).expect("an end is no error").is_empty());
    }
    // A content that was in the buffer before is not part of what was received.
    let (socket, mut peer) = tcp_pair();
    peer.write_all(b"new").expect("connected");
    let token = rig.start(Op::Receive(socket, b"something old".to_vec()));
    assert_eq!(rig.received(token).expect("received"), b"new");
}

fn the_end_is_seen_though_nothing_is_received_and_takes_no_byte_away(rig: &mut Rig) {
    fn check<P: Write>(rig: &mut Rig, (socket, mut peer): (Arc<OwnedFd>, P), end: impl FnOnce(P)) {
        let token = rig.start(Op::AwaitEnd(Arc::clone(&socket)));
        peer.write_all(&[5; 25_000]).expect("connected");
        assert_eq!(rig.receive_all(&socket, 5000, 5000), [5; 5000]);
        assert_eq!(rig.wait(Duration::from_millis(20)), 0, "bytes are no end");
        assert!(!rig.done.contains_key(&token), "nothing has ended yet");
        end(peer);
        rig.ended(token);
        assert_eq!(rig.receive_all(&socket, 20_000, 3000), [5; 20_000]);
    }
    check(rig, tcp_pair(), drop);
    check(rig, unix_pair(), drop);
    // Half an end is one too: the other half stays open.
    let (socket, peer) = tcp_pair();
    let mut still_open = peer.try_clone().expect("a descriptor");
    check(rig, (Arc::clone(&socket), peer), |peer| peer.shutdown(Shutdown::Write).expect("connected"));
    let token = rig.start(Op::Send(socket, vec![Bytes::from_static(b"answer")]));
    rig.sent(token).expect("sent");
    still_open.read_exact(&mut [0; 6]).expect("it can still be read");
}

fn an_end_that_was_there_already_is_seen(rig: &mut Rig) {
    let (socket, peer) = tcp_pair();
    drop(peer);
    for _ in 0..2 {
        let token = rig.start(Op::AwaitEnd(Arc::clone(&socket)));
        rig.ended(token);
    }
    let (socket, peer) = tcp_pair();
    drop(peer);
    let receive = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
    assert!(rig.received(receive).expect("an end is no error").is_empty());
    let token = rig.start(Op::AwaitEnd(socket));
    rig.ended(token);
}

fn a_cancel_ends_a_wait_for_the_end(rig: &mut Rig) {
    let (unix, _unix_peer) = unix_pair();
    let (tcp, _tcp_peer) = tcp_pair();
    for socket in [unix, tcp] {
        let token = rig.start(Op::AwaitEnd(Arc::clone(&socket)));
        let receive = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
        rig.flush();
        assert!(!rig.done.contains_key(&token), "nothing has ended yet");
        rig.driver.cancel(socket.as_raw_fd());
        rig.ended(token);
        let _ = rig.received(receive);
    }
}

fn a_reset_is_an_error(rig: &mut Rig) {
    let (socket, mut peer) = tcp_pair();
    let token = rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::from_static(b"unread")]));
    rig.sent(token).expect("sent");
    let token = rig.start(Op::Receive(socket, Vec::with_capacity(100)));
    rig.flush();
    // Closing with unread data resets the connection; peek makes sure that it is there.
    peer.peek(&mut [0; 1]).expect("connected");
    peer.flush().expect("connected");
    drop(peer);
    let error = rig.received(token).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn a_send_to_a_closed_peer_is_an_error_without_a_signal(rig: &mut Rig) {
    let (socket, peer) = unix_pair();
    drop(peer);
    for parts in [1, 3] {
        let parts = vec![Bytes::from_static(b"anybody?"); parts];
        let token = rig.start(Op::Send(Arc::clone(&socket), parts));
        assert_eq!(rig.sent(token).expect_err("nobody is there").kind(), ErrorKind::BrokenPipe);
    }
}

fn a_cancel_ends_a_receive_that_waits(rig: &mut Rig) {
    for socket in [unix_pair().0, tcp_pair().0] {
        // The peers are dropped only here, so it really waits.
        let (waiting, _peer) = tcp_pair();
        for socket in [socket, waiting] {
            let token = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
            rig.flush();
            rig.driver.cancel(socket.as_raw_fd());
            if let Ok(bytes) = rig.received(token) {
                assert!(bytes.is_empty(), "an end of stream or an error");
            }
        }
    }
}

fn a_cancel_ends_an_accept_that_waits(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let unix = UnixListener::bind(dir.path().join("socket")).expect("writable");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    for listener in [shared(unix), shared(tcp)] {
        let token = rig.start(Op::Accept(Arc::clone(&listener)));
        rig.flush();
        rig.driver.cancel(listener.as_raw_fd());
        rig.accepted(token).expect_err("nobody came");
    }
}

fn a_cancel_ends_a_send_that_waits(rig: &mut Rig) {
    let (socket, _peer) = tcp_pair();
    let token = rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::from(vec![1; 64 << 20])]));
    rig.flush();
    rig.driver.cancel(socket.as_raw_fd());
    rig.sent(token).expect_err("it was not all sent");
}

fn a_cancel_leaves_other_sockets_alone(rig: &mut Rig) {
    let (socket, _peer) = unix_pair();
    let (other, mut other_peer) = unix_pair();
    let ended = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
    let waits = rig.start(Op::Receive(other, Vec::with_capacity(100)));
    rig.flush();
    rig.driver.cancel(socket.as_raw_fd());
    let _ = rig.received(ended);
    assert_eq!(rig.wait(Duration::from_millis(20)), 0);
    other_peer.write_all(b"still here").expect("connected");
    assert_eq!(rig.received(waits).expect("received"), b"still here");
    // A number that means nothing does no harm either.
    rig.driver.cancel(-1);
    rig.driver.cancel(1 << 20);
}

fn a_reused_descriptor_number_starts_anew(rig: &mut Rig) {
    // The lowest free number is given again, so successive sockets share theirs; tests beside this one may
    // take it now and then.
    for round in 0..50_u8 {
        let (socket, mut peer) = unix_pair();
        let token = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
        rig.flush();
        peer.write_all(&[round]).expect("connected");
        assert_eq!(rig.received(token).expect("received"), [round]);
        if round % 2 == 0 {
            rig.driver.cancel(socket.as_raw_fd());
        }
    }
}

fn a_thousand_operations_wait_at_once(rig: &mut Rig) {
    let pairs: Vec<_> = (0..100).map(|_| unix_pair()).collect();
    let mut tokens = Vec::new();
    for _ in 0..10 {
        for (socket, _) in &pairs {
            tokens.push(rig.start(Op::Receive(Arc::clone(socket), Vec::with_capacity(1))));
        }
    }
    rig.flush();
    assert!(rig.done.is_empty());
    for (mut peer, n) in pairs.iter().map(|(_, peer)| peer).zip(0..) {
        peer.write_all(&[n; 10]).expect("connected");
    }
    let mut counts = [0; 100];
    for token in tokens {
        let bytes = rig.received(token).expect("received");
        assert_eq!(bytes.len(), 1);
        counts[usize::from(bytes[0])] += 1;
    }
    assert_eq!(counts, [10; 100]);
}

fn a_descriptor_that_is_no_socket_is_an_error(rig: &mut Rig) {
    let file = shared(tempfile::tempfile().expect("a temporary file"));
    let receive = rig.start(Op::Receive(Arc::clone(&file), Vec::with_capacity(10)));
    let send = rig.start(Op::Send(Arc::clone(&file), vec![Bytes::from_static(b"x")]));
    let accept = rig.start(Op::Accept(file));
    rig.received(receive).expect_err("no socket");
    rig.sent(send).expect_err("no socket");
    rig.accepted(accept).expect_err("no socket");
}

fn both_directions_of_a_socket_wait_at_once(rig: &mut Rig) {
    let (socket, mut peer) = tcp_pair();
    let receive = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(100)));
    let send = rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::from(vec![3; 32 << 20])]));
    rig.flush();
    peer.write_all(b"first").expect("connected");
    assert_eq!(rig.received(receive).expect("received"), b"first");
    assert!(!rig.done.contains_key(&send), "the peer has read nothing");
    let thread = thread::spawn(move || {
        let mut all = vec![0; 32 << 20];
        peer.read_exact(&mut all).expect("connected");
        all.iter().all(|&byte| byte == 3)
    });
    rig.sent(send).expect("sent");
    assert!(thread.join().expect("the reader ends"));
}

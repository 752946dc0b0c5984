//! How connections with TLS end: said or unsaid, by garbage, by the clock, by a stop.

use super::*;

fn a_half_closed_peer_gets_its_answers(kind: LoopKind) {
    for says_so in [true, false] {
        let server = TlsServer::start(kind);
        let mut stream = server.connect(&version::TLS13);
        let echo = frame(ECHO, b"last words");
        stream
            .write_all(&[echo.clone(), frame(PARK, b"")].concat())
            .unwrap();
        stream.flush().unwrap();
        if says_so {
            stream.conn.send_close_notify();
            stream.conn.write_tls(&mut stream.sock).unwrap();
        } else {
            stream.sock.shutdown(Shutdown::Write).unwrap();
        }
        let conn = server.server.next_parked();
        std::thread::sleep(Duration::from_millis(20));
        server
            .server
            .mail(Mail::Answer(conn, frame(PARK, b"answer")));
        let expected = [echo, frame(PARK, b"answer")].concat();
        assert_eq!(read_exactly(&mut stream, expected.len()), expected);
        assert_ended_cleanly(&mut stream);
    }
}

fn a_reply_before_close_arrives_whole_and_ends_cleanly(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let mut stream = server.connect(&version::TLS13);
    let sent = [frame(ECHO, b"one"), frame(BYE, b"two")].concat();
    stream.write_all(&sent).unwrap();
    assert_eq!(read_exactly(&mut stream, sent.len()), sent);
    assert_ended_cleanly(&mut stream);

    let mut stream = server.connect(&version::TLS12);
    let request = frame(LARGE_BYE, &(32u32 << 20).to_le_bytes());
    stream.write_all(&request).unwrap();
    assert!(read_exactly(&mut stream, 32 << 20) == vec![7; 32 << 20]);
    assert_ended_cleanly(&mut stream);
}

fn stop_finishes_what_is_parked(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let mut idle = server.connect(&version::TLS13);
    exchange(&mut idle, &frame(ECHO, b"x"));
    let mut stream = server.connect(&version::TLS13);
    stream.write_all(&frame(PARK, b"")).unwrap();
    stream.flush().unwrap();
    let conn = server.server.next_parked();
    server.server.control.stop(Duration::from_secs(10));
    assert_ended_cleanly(&mut idle);
    let answer = frame(PARK, b"answer");
    server.server.mail(Mail::Answer(conn, answer.clone()));
    assert_eq!(read_exactly(&mut stream, answer.len()), answer);
    assert_ended_cleanly(&mut stream);
    server.server.join().unwrap();
}

fn what_is_no_tls_ends_its_connection_alone(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let mut other = server.connect(&version::TLS13);
    exchange(&mut other, &frame(ECHO, b"before"));
    let hello = [22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    // A request of the protocol behind it, text, a record of the wrong kind, an empty one, a hello of zeros.
    let mut garbage: Vec<Vec<u8>> = vec![
        vec![2, 1, 0, 0, 0, 0, 0, 5, b'n', b'o', b'd', b'e', b'\n'],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![23, 3, 3, 0, 5, 1, 2, 3, 4, 5],
        vec![22, 3, 1, 0, 0],
        [&hello[..], &[0; 194]].concat(),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..40 {
        let mut bytes = hello.to_vec();
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        garbage.push(bytes);
    }
    let count = garbage.len();
    for bytes in garbage {
        let mut raw = server.connect_raw();
        raw.write_all(&bytes).unwrap();
        // An alert, perhaps, and the end.
        let mut rest = Vec::new();
        let _ = raw.read_to_end(&mut rest);
        assert!(rest.len() < 64, "{bytes:?} was answered with {rest:?}");
    }
    server.server.wait_closed(count);
    until("all are counted", || {
        server.handshake_errors() == count as u64
    });
    exchange(&mut other, &frame(ECHO, b"after"));
    assert_eq!(server.opened(), 1);
}

fn a_record_that_was_tampered_with_ends_the_connection(kind: LoopKind) {
    for protocol in VERSIONS {
        let server = TlsServer::start(kind);
        let mut stream = server.connect(protocol);
        exchange(&mut stream, &frame(ECHO, b"before"));
        let mut records = records_of(&mut stream, &frame(ECHO, b"tampered with"));
        *records.last_mut().unwrap() ^= 1;
        stream.sock.write_all(&records).unwrap();
        let mut reply = [0; 1];
        assert!(stream.read(&mut reply).is_err(), "an alert, or a reset");
        server.server.wait_closed(1);
        assert_eq!(server.stats.errors.load(Ordering::SeqCst), 1);
        assert_eq!(server.server.shared.handled.load(Ordering::SeqCst), 1);
    }
}

fn a_peer_may_vanish_at_any_byte_of_its_handshake(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let client = server.authority.client(&version::TLS13, None);
    let name = ServerName::try_from(NAME).unwrap();
    let mut session = ClientConnection::new(client, name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    for cut in (0..hello.len()).step_by(7) {
        let mut raw = server.connect_raw();
        raw.write_all(&hello[..cut]).unwrap();
    }
    let count = hello.len().div_ceil(7);
    server.server.wait_closed(count);
    // One of them sent nothing, which is what checks of a port do.
    until("the others are counted", || {
        server.handshake_errors() == count as u64 - 1
    });
    exchange(&mut server.connect(&version::TLS13), &frame(ECHO, b"alive"));
}

fn a_handshake_that_takes_too_long_is_ended(kind: LoopKind) {
    let server = TlsServer::timed(kind, Duration::from_secs(1), |_| {}, |_| {});
    let mut done = server.connect(&version::TLS13);
    exchange(&mut done, &frame(ECHO, b"in time"));
    let mut silent = server.connect_raw();
    let mut slow = server.connect_raw();
    slow.write_all(&[22, 3, 1, 0, 200, 1]).unwrap();
    assert_ended(&mut silent);
    assert_ended(&mut slow);
    assert_eq!(server.handshake_errors(), 1, "the one that sent something");
    exchange(&mut done, &frame(ECHO, b"nobody minds"));
}

conformance!(
    a_half_closed_peer_gets_its_answers,
    a_reply_before_close_arrives_whole_and_ends_cleanly,
    stop_finishes_what_is_parked,
    what_is_no_tls_ends_its_connection_alone,
    a_record_that_was_tampered_with_ends_the_connection,
    a_peer_may_vanish_at_any_byte_of_its_handshake,
    a_handshake_that_takes_too_long_is_ended,
);

//! Connections that end: by their peer, their handler, a bound, the clock, a stop.

use super::*;

fn a_frame_over_the_input_bound_ends_the_connection(kind: LoopKind) {
    let server = Server::start(kind, |config| config.input_bytes_max = 100_000);
    let mut stream = server.connect();
    exchange(&mut stream, &frame(ECHO, &[1; 90_000]));
    let _ = stream.write_all(&frame(ECHO, &[1; 400_000]));
    server.wait_closed(1);
    assert_ended(&mut stream);
}

fn a_peer_that_never_reads_is_closed(kind: LoopKind) {
    let server = Server::start(kind, |config| {
        config.output_bytes_max = 64 << 10;
        config.slow_peer_timeout = Duration::from_millis(200);
    });
    let mut stream = server.connect();
    let mut other = server.connect();
    let sent = frame(ECHO, &[3; 10_000]).repeat(4000);
    write_until_stuck(&mut stream, &sent);
    server.wait_closed(1);
    exchange(&mut other, &frame(ECHO, b"still here"));
}

fn a_closing_connection_does_not_wait_for_ever_for_its_peer(kind: LoopKind) {
    let server = Server::start(kind, |config| {
        config.output_bytes_max = 64 << 10;
        config.slow_peer_timeout = Duration::from_millis(100);
    });
    let mut stream = server.connect();
    stream
        .write_all(&frame(LARGE_BYE, &(64u32 << 20).to_le_bytes()))
        .unwrap();
    server.wait_closed(1);
    std::thread::sleep(Duration::from_millis(500));
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        received += count;
    }
    assert!(received < 64 << 20, "it was cut off");
}

fn a_reply_before_close_arrives_whole(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let sent = [frame(ECHO, b"one"), frame(BYE, b"two")].concat();
    stream.write_all(&sent).unwrap();
    assert_eq!(read_exactly(&mut stream, sent.len()), sent);
    assert_ended(&mut stream);

    let mut stream = server.connect();
    stream
        .write_all(&frame(LARGE_BYE, &(32u32 << 20).to_le_bytes()))
        .unwrap();
    assert!(read_exactly(&mut stream, 32 << 20) == vec![7; 32 << 20]);
    assert_ended(&mut stream);
}

fn a_peer_may_vanish_while_a_send_is_in_flight(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    for round in 0..20 {
        let mut stream = server.connect();
        stream.write_all(&frame(PARK, b"")).unwrap();
        let conn = server.next_parked();
        server.mail(Mail::Output(conn, vec![1; 16 << 20]));
        read_exactly(&mut stream, 1000);
        match round % 3 {
            0 => drop(stream),
            1 => {
                server.mail(Mail::Close(conn));
                drop(stream);
            }
            _ => {
                stream.shutdown(Shutdown::Both).unwrap();
                server.mail(Mail::Close(conn));
            }
        }
        server.wait_closed(round + 1);
    }
    exchange(&mut server.connect(), &frame(ECHO, b"alive"));
}

fn a_half_closed_peer_gets_its_answers(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let echo = frame(ECHO, b"last words");
    stream
        .write_all(&[echo.clone(), frame(PARK, b"")].concat())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let conn = server.next_parked();
    std::thread::sleep(Duration::from_millis(20));
    server.mail(Mail::Answer(conn, frame(PARK, b"answer")));
    let expected = [echo, frame(PARK, b"answer")].concat();
    assert_eq!(read_exactly(&mut stream, expected.len()), expected);
    assert_ended(&mut stream);
}

fn a_stale_id_is_ignored(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut first = server.connect();
    first.write_all(&frame(PARK, b"")).unwrap();
    let stale = server.next_parked();
    server.mail(Mail::Close(stale));
    assert_ended(&mut first);
    let mut second = server.connect();
    exchange(&mut second, &frame(ECHO, b"1"));
    let fresh = *server.shared.opened.lock().last().unwrap();
    assert_eq!((fresh.index(), fresh != stale), (stale.index(), true));
    server.mail(Mail::Answer(stale, b"not for you".to_vec()));
    server.mail(Mail::Close(stale));
    until("the stale answer", || {
        server.shared.stale_outputs.load(Ordering::SeqCst) == 1
    });
    exchange(&mut second, &frame(ECHO, b"2"));
    assert_eq!(ConnId::from_bits(fresh.to_bits()), fresh);
}

fn stop_finishes_what_is_parked(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut idle = server.connect();
    let mut stream = server.connect();
    exchange(&mut idle, &frame(ECHO, b"x"));
    stream
        .write_all(&[frame(PARK, b""), frame(ECHO, b"behind")].concat())
        .unwrap();
    let conn = server.next_parked();
    server.control.stop(Duration::from_secs(10));
    assert_ended(&mut idle);
    server.mail(Mail::Answer(conn, frame(PARK, b"answer")));
    let expected = [frame(PARK, b"answer"), frame(ECHO, b"behind")].concat();
    assert_eq!(read_exactly(&mut stream, expected.len()), expected);
    assert_ended(&mut stream);
    server.join().unwrap();
}

fn stop_ends_at_its_deadline(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut parked = server.connect();
    parked.write_all(&frame(PARK, b"")).unwrap();
    server.next_parked();
    let mut unread = server.connect();
    unread
        .write_all(&frame(LARGE_BYE, &(64u32 << 20).to_le_bytes()))
        .unwrap();
    server.wait_closed(1);
    let begun = Instant::now();
    server.control.stop(Duration::from_millis(200));
    assert_ended(&mut parked);
    server.join().unwrap();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(190) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

fn an_idle_connection_is_closed_and_a_parked_one_is_not(kind: LoopKind) {
    let server = Server::start(kind, |config| {
        config.idle_timeout = Some(Duration::from_millis(150))
    });
    let mut parked = server.connect();
    parked.write_all(&frame(PARK, b"")).unwrap();
    let conn = server.next_parked();
    let mut idle = server.connect();
    assert_ended(&mut idle);
    std::thread::sleep(Duration::from_millis(100));
    server.mail(Mail::Output(conn, frame(ECHO, b"")));
    assert_eq!(read_exactly(&mut parked, 5), frame(ECHO, b""));
}

fn one_connection_too_many_is_refused(kind: LoopKind) {
    let server = Server::start(kind, |config| config.connections_max = 2);
    let mut kept = [server.connect(), server.connect()];
    for stream in &mut kept {
        exchange(stream, &frame(ECHO, b"in"));
    }
    assert_ended(&mut server.connect());
    drop(kept);
    server.wait_closed(2);
    until("a free slot", || {
        let mut stream = server.connect();
        let sent = frame(ECHO, b"again");
        let mut reply = vec![0; sent.len()];
        stream.write_all(&sent).is_ok() && stream.read_exact(&mut reply).is_ok()
    });
}

fn a_panicking_handler_leaves_nothing_with_the_kernel(kind: LoopKind) {
    let mut server = Server::start(kind, |_| {});
    let mut streams: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for stream in &mut streams[..5] {
        stream.write_all(&frame(PARK, b"")).unwrap();
        let conn = server.next_parked();
        server.mail(Mail::Output(conn, vec![1; 16 << 20]));
    }
    streams[9].write_all(&frame(PANIC, b"")).unwrap();
    assert!(
        server.thread.take().unwrap().join().is_err(),
        "the panic comes through"
    );
    for stream in &mut streams[5..] {
        assert_ended(stream);
    }
}

conformance!(
    a_frame_over_the_input_bound_ends_the_connection,
    a_peer_that_never_reads_is_closed,
    a_closing_connection_does_not_wait_for_ever_for_its_peer,
    a_reply_before_close_arrives_whole,
    a_peer_may_vanish_while_a_send_is_in_flight,
    a_half_closed_peer_gets_its_answers,
    a_stale_id_is_ignored,
    stop_finishes_what_is_parked,
    stop_ends_at_its_deadline,
    an_idle_connection_is_closed_and_a_parked_one_is_not,
    one_connection_too_many_is_refused,
    a_panicking_handler_leaves_nothing_with_the_kernel,
);

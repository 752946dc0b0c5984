//! What goes back and forth: frames in any pieces, parks and wakes, bounds.

use super::*;

fn pipelined_frames_come_back_in_order(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let mut sent = Vec::new();
    for number in 0..20_000u32 {
        sent.extend(frame(ECHO, &vec![number as u8; (number % 50) as usize]));
    }
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    assert!(read_exactly(&mut stream, sent.len()) == sent);
    thread.join().unwrap();
}

fn a_frame_may_arrive_byte_by_byte(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let sent = [frame(ECHO, b"abcdef"), frame(ECHO, b"gh")].concat();
    for byte in &sent {
        stream.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_exactly(&mut stream, sent.len()), sent);
}

fn a_frame_of_8_mib_passes_and_small_ones_after_it(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let body: Vec<u8> = (0..8 << 20)
        .map(|position| (position * 7 % 251) as u8)
        .collect();
    let large = frame(ECHO, &body);
    let mut writer = stream.try_clone().unwrap();
    let copy = large.clone();
    let thread = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    assert!(read_exactly(&mut stream, large.len()) == large);
    thread.join().unwrap();
    exchange(&mut stream, &frame(ECHO, b"small"));
}

fn a_slow_reader_bounds_the_output_and_loses_nothing(kind: LoopKind) {
    const BOUND: usize = 256 << 10;
    let server = Server::start(kind, |config| config.output_bytes_max = BOUND);
    let mut stream = server.connect();
    let one = frame(ECHO, &[3; 10_000]);
    let sent = one.repeat(4000);
    let mut written = write_until_stuck(&mut stream, &sent);
    let handled = server.shared.handled.load(Ordering::SeqCst);
    assert!(
        written < sent.len(),
        "the loop took {written} bytes from a peer that reads none"
    );
    assert!(
        handled < written / one.len(),
        "a blocked connection is offered no input"
    );
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        while written < copy.len() {
            written += writer.write(&copy[written..]).unwrap();
        }
    });
    assert!(read_exactly(&mut stream, sent.len()) == sent);
    thread.join().unwrap();
    let seen = server.shared.output_bytes_max_seen.load(Ordering::SeqCst);
    assert!(seen <= BOUND + one.len(), "{seen} bytes of output");
}

fn a_parked_connection_is_answered_from_another_thread(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let after = frame(ECHO, b"after");
    stream
        .write_all(&[frame(PARK, b""), after.clone()].concat())
        .unwrap();
    let conn = server.next_parked();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(
        server.shared.handled.load(Ordering::SeqCst),
        1,
        "nothing is offered while parked"
    );
    assert!(
        server.shared.ticks.load(Ordering::SeqCst) > 0,
        "parked requests have deadlines"
    );
    server.mail(Mail::Answer(conn, frame(PARK, b"answer")));
    let expected = [frame(PARK, b"answer"), after].concat();
    assert_eq!(read_exactly(&mut stream, expected.len()), expected);
}

fn many_parks_from_many_threads_are_all_answered(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut stream = server.connect();
                for _ in 0..200 {
                    stream.write_all(&frame(PARK, b"")).unwrap();
                    let conn = server.next_parked();
                    server.mail(Mail::Answer(conn, frame(PARK, b"x")));
                    read_exactly(&mut stream, 6);
                }
            });
        }
    });
    assert_eq!(server.shared.handled.load(Ordering::SeqCst), 4000);
}

fn a_parked_connection_is_not_received_from_without_bound(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    stream.write_all(&frame(PARK, b"")).unwrap();
    let conn = server.next_parked();
    let one = frame(ECHO, &[5; 1000]);
    let sent = one.repeat(64_000);
    let mut written = write_until_stuck(&mut stream, &sent);
    assert!(written < sent.len(), "all of {written} bytes were taken");
    server.mail(Mail::Answer(conn, frame(PARK, b"")));
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        while written < copy.len() {
            written += writer.write(&copy[written..]).unwrap();
        }
    });
    read_exactly(&mut stream, 5);
    assert!(read_exactly(&mut stream, sent.len()) == sent);
    thread.join().unwrap();
}

fn five_hundred_connections_open_talk_and_close(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    for _ in 0..3 {
        let mut streams: Vec<_> = (0..500).map(|_| server.connect()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream
                .write_all(&frame(ECHO, &(number as u32).to_le_bytes()))
                .unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let expected = frame(ECHO, &(number as u32).to_le_bytes());
            assert_eq!(read_exactly(stream, expected.len()), expected);
        }
    }
    server.wait_closed(1500);
    let highest = server
        .shared
        .opened
        .lock()
        .iter()
        .map(|conn| conn.index())
        .max()
        .unwrap();
    assert!(highest < 1500, "slots are used again");
}

/// More pieces at once than there are provided buffers: receives end with ENOBUFS and must come
/// back.
fn more_input_than_buffers_is_received_in_the_end(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut streams: Vec<_> = (0..400).map(|_| server.connect()).collect();
    let sent = frame(ECHO, &vec![4; 100_000]);
    // Everything lies in the sockets when the loop comes back.
    server
        .connect()
        .write_all(&frame(SLEEP, &500u32.to_le_bytes()))
        .unwrap();
    for stream in &mut streams {
        stream.write_all(&sent).unwrap();
    }
    for stream in &mut streams {
        assert!(read_exactly(stream, sent.len()) == sent);
    }
}

fn accepted_sockets_can_be_handed_to_another_loop(kind: LoopKind) {
    let second = Server::start(kind, |config| config.listener = None);
    let (shared, waker) = (second.shared.clone(), second.control.waker());
    let mut turn = 0;
    let first = Server::start(kind, move |config| {
        config.on_accept = Some(Box::new(move |socket| {
            turn += 1;
            if turn % 2 == 0 {
                return Some(socket);
            }
            shared.mail.lock().push(Mail::Adopt(socket));
            waker.wake();
            None
        }));
    });
    let mut streams: Vec<_> = (0..10).map(|_| first.connect()).collect();
    for stream in &mut streams {
        exchange(stream, &frame(ECHO, b"who"));
    }
    assert_eq!(first.shared.handled.load(Ordering::SeqCst), 5);
    assert_eq!(second.shared.handled.load(Ordering::SeqCst), 5);
}

fn a_long_answer_is_produced_as_it_drains(kind: LoopKind) {
    const TOTAL: usize = 20 << 20;
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    let after = frame(ECHO, b"after");
    let request = frame(STREAM, &(TOTAL as u32).to_le_bytes());
    stream
        .write_all(&[request, after.clone()].concat())
        .unwrap();
    assert_eq!(read_exactly(&mut stream, 6), b"stream");
    assert!(read_exactly(&mut stream, TOTAL) == vec![9; TOTAL]);
    assert_eq!(read_exactly(&mut stream, after.len()), after);
    let seen = server.shared.output_bytes_max_seen.load(Ordering::SeqCst);
    assert!(seen < 2 * STREAM_PIECE_BYTES);
}

fn no_wake_is_lost_and_an_idle_loop_sleeps(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    stream.write_all(&frame(PARK, b"")).unwrap();
    let conn = server.next_parked();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    server.mail(Mail::Output(conn, vec![1]));
                }
            });
        }
    });
    read_exactly(&mut stream, 20_000);
    let wakes = server.shared.wakes.load(Ordering::SeqCst);
    assert!((1..=20_000).contains(&wakes));
    server.mail(Mail::Answer(conn, vec![2]));
    read_exactly(&mut stream, 1);
    std::thread::sleep(Duration::from_millis(30));
    let ticks = server.shared.ticks.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(
        server.shared.ticks.load(Ordering::SeqCst),
        ticks,
        "nothing has a deadline"
    );
}

conformance!(
    pipelined_frames_come_back_in_order,
    a_frame_may_arrive_byte_by_byte,
    a_frame_of_8_mib_passes_and_small_ones_after_it,
    a_slow_reader_bounds_the_output_and_loses_nothing,
    a_parked_connection_is_answered_from_another_thread,
    many_parks_from_many_threads_are_all_answered,
    a_parked_connection_is_not_received_from_without_bound,
    five_hundred_connections_open_talk_and_close,
    more_input_than_buffers_is_received_in_the_end,
    accepted_sockets_can_be_handed_to_another_loop,
    a_long_answer_is_produced_as_it_drains,
    no_wake_is_lost_and_an_idle_loop_sleeps,
);

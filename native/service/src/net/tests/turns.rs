//! Long work beside requests. A turn of it here goes on until something has arrived, so what is not seen, or not sent before
//! the next turn, is waited for in vain.

use super::*;

conformance!(
    requests_are_answered_between_two_turns_of_long_work,
    a_wake_ends_a_turn,
    output_of_any_length_leaves_beside_long_work,
);

fn requests_are_answered_between_two_turns_of_long_work(kind: LoopKind) {
    const REQUESTS: usize = 50;
    let server = Server::start(kind, |_| {});
    let mut streams = [server.connect(), server.connect()];
    exchange(&mut streams[0], &frame(WORK, b""));
    for number in 0..REQUESTS {
        exchange(
            &mut streams[number % 2],
            &frame(ECHO, &number.to_le_bytes()),
        );
    }
    // Each request but the first has ended one.
    assert!(server.shared.turns.load(Ordering::SeqCst) >= REQUESTS);
    exchange(&mut streams[1], &frame(REST, b""));
}

fn a_wake_ends_a_turn(kind: LoopKind) {
    let server = Server::start(kind, |_| {});
    let mut stream = server.connect();
    stream.write_all(&frame(PARK, b"")).unwrap();
    let parked = server.next_parked();
    let mut other = server.connect();
    exchange(&mut other, &frame(WORK, b""));
    server.mail(Mail::Answer(parked, b"answer".to_vec()));
    assert_eq!(read_exactly(&mut stream, 6), b"answer");
    exchange(&mut other, &frame(REST, b""));
}

fn output_of_any_length_leaves_beside_long_work(kind: LoopKind) {
    const BYTES: usize = 3 << 20;
    let server = Server::start(kind, |_| {});
    let mut worker = server.connect();
    exchange(&mut worker, &frame(WORK, b""));
    let mut stream = server.connect();
    let body = (BYTES as u32).to_le_bytes();
    stream.write_all(&frame(LARGE_BYE, &body)).unwrap();
    assert_eq!(read_exactly(&mut stream, BYTES), vec![7; BYTES]);
    assert_ended(&mut stream);
    exchange(&mut worker, &frame(REST, b""));
}

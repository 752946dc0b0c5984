//! One suite for both loops, over real sockets.
//!
//! The handler speaks frames of `u32 length of the rest, u8 verb, body`; every reply is a frame
//! too. Fault model: peers that pipeline, dribble, do not read, half-close, vanish; a handler that
//! panics. Not modelled: a failing kernel.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;

const ECHO: u8 = b'e';
/// Parks; the test answers through the mailbox.
const PARK: u8 = b'p';
/// Replies, then closes.
const BYE: u8 = b'b';
/// Replies with as many bytes as the body's u32 says, then closes.
const LARGE_BYE: u8 = b'l';
/// Parks and streams as many bytes as the body's u32 says, piece by piece as they drain.
const STREAM: u8 = b's';
/// Keeps the loop busy for as many milliseconds as the body's u32 says.
const SLEEP: u8 = b'z';
const PANIC: u8 = b'!';

const STREAM_PIECE_BYTES: usize = 100_000;

enum Mail {
    Answer(ConnId, Vec<u8>),
    /// Without ending the park.
    Output(ConnId, Vec<u8>),
    Close(ConnId),
    Adopt(OwnedFd, SocketAddr),
}

#[derive(Default)]
struct Shared {
    mail: Mutex<Vec<Mail>>,
    parked: Mutex<Vec<ConnId>>,
    opened: Mutex<Vec<ConnId>>,
    closed: Mutex<Vec<ConnId>>,
    handled: AtomicUsize,
    ticks: AtomicUsize,
    wakes: AtomicUsize,
    stale_outputs: AtomicUsize,
    output_bytes_max_seen: AtomicUsize,
}

struct Frames {
    shared: Arc<Shared>,
    streams: Vec<(ConnId, usize)>,
}

fn frame(verb: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = ((body.len() + 1) as u32).to_le_bytes().to_vec();
    frame.push(verb);
    frame.extend_from_slice(body);
    frame
}

impl Handler for Frames {
    fn on_open(&mut self, conn: ConnId, _peer: SocketAddr) {
        self.shared.opened.lock().push(conn);
    }

    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        _reads: &mut Reads,
    ) -> Consumed {
        assert!(!input.is_empty());
        let Some(header) = input.first_chunk::<4>() else {
            return Consumed::more(0);
        };
        let end = 4 + u32::from_le_bytes(*header) as usize;
        let Some(whole) = input.get(..end) else {
            return Consumed::more(0);
        };
        self.shared.handled.fetch_add(1, Ordering::SeqCst);
        let count = |whole: &[u8]| u32::from_le_bytes(whole[5..9].try_into().unwrap()) as usize;
        let flow = match whole[4] {
            ECHO => {
                output.extend_from_slice(whole);
                Flow::Continue
            }
            PARK => {
                self.shared.parked.lock().push(conn);
                Flow::Park
            }
            BYE => {
                output.extend_from_slice(whole);
                Flow::Close
            }
            LARGE_BYE => {
                output.resize(output.len() + count(whole), 7);
                Flow::Close
            }
            STREAM => {
                self.streams.push((conn, count(whole)));
                output.extend_from_slice(b"stream");
                Flow::Park
            }
            SLEEP => {
                std::thread::sleep(Duration::from_millis(count(whole) as u64));
                Flow::Continue
            }
            PANIC => panic!("asked for"),
            verb => panic!("verb {verb}"),
        };
        self.shared
            .output_bytes_max_seen
            .fetch_max(output.len(), Ordering::SeqCst);
        Consumed { bytes: end, flow }
    }

    fn on_close(&mut self, conn: ConnId) {
        self.shared.closed.lock().push(conn);
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        self.shared.wakes.fetch_add(1, Ordering::SeqCst);
        for mail in std::mem::take(&mut *self.shared.mail.lock()) {
            match mail {
                Mail::Answer(conn, bytes) | Mail::Output(conn, bytes)
                    if net.output(conn).is_none() =>
                {
                    drop(bytes);
                    self.shared.stale_outputs.fetch_add(1, Ordering::SeqCst);
                    // Must change nothing either.
                    net.resume(conn);
                    net.close(conn);
                    assert_eq!(net.unsent(conn), 0);
                }
                Mail::Answer(conn, bytes) => {
                    net.output(conn).unwrap().extend_from_slice(&bytes);
                    net.resume(conn);
                }
                Mail::Output(conn, bytes) => {
                    net.output(conn).unwrap().extend_from_slice(&bytes);
                    assert!(net.unsent(conn) >= bytes.len());
                }
                Mail::Close(conn) => net.close(conn),
                Mail::Adopt(socket, peer) => net.adopt(socket, peer),
            }
        }
    }

    fn on_tick(&mut self, _net: &mut dyn Net) {
        self.shared.ticks.fetch_add(1, Ordering::SeqCst);
    }

    fn on_drained(&mut self, conn: ConnId, net: &mut dyn Net) {
        let Some(position) = self.streams.iter().position(|(it, _)| *it == conn) else {
            return;
        };
        let left = &mut self.streams[position].1;
        let piece = (*left).min(STREAM_PIECE_BYTES);
        *left -= piece;
        let ended = *left == 0;
        let output = net.output(conn).unwrap();
        output.resize(output.len() + piece, 9);
        if ended {
            self.streams.swap_remove(position);
            net.resume(conn);
        }
    }
}

struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    control: LoopControl,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    fn start(kind: LoopKind, adjust: impl FnOnce(&mut LoopConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = LoopConfig {
            listener: Some(listener),
            kind,
            tick: Duration::from_millis(5),
            ..LoopConfig::default()
        };
        adjust(&mut config);
        let shared = Arc::new(Shared::default());
        let control = LoopControl::new().unwrap();
        let mut handler = Frames {
            shared: shared.clone(),
            streams: Vec::new(),
        };
        let inside = control.clone();
        let thread = std::thread::spawn(move || run(config, &inside, &mut handler));
        Self {
            address,
            shared,
            control,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn mail(&self, mail: Mail) {
        self.shared.mail.lock().push(mail);
        self.control.waker().wake();
    }

    fn next_parked(&self) -> ConnId {
        let found = std::cell::Cell::new(None);
        until("a parked connection", || {
            found.set(self.shared.parked.lock().pop());
            found.get().is_some()
        });
        found.get().unwrap()
    }

    fn wait_closed(&self, count: usize) {
        until("closed connections", || {
            self.shared.closed.lock().len() >= count
        });
    }

    fn join(mut self) -> std::io::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.control.stop(Duration::ZERO);
        let result = thread.join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
            let mut opened = self.shared.opened.lock().clone();
            let mut closed = self.shared.closed.lock().clone();
            opened.sort_by_key(|conn| conn.to_bits());
            closed.sort_by_key(|conn| conn.to_bits());
            assert_eq!(opened, closed, "every open connection is closed once");
        }
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn exchange(stream: &mut TcpStream, sent: &[u8]) {
    stream.write_all(sent).unwrap();
    assert_eq!(read_exactly(stream, sent.len()), sent);
}

fn assert_ended(stream: &mut TcpStream) {
    let mut rest = [0; 1];
    match stream.read(&mut rest) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("the connection goes on: {other:?}"),
    }
}

/// Writes until the peer takes nothing for a while; returns how much it took.
fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(None).unwrap();
    written
}

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

fn a_frame_over_the_input_bound_ends_the_connection(kind: LoopKind) {
    let server = Server::start(kind, |config| config.input_bytes_max = 100_000);
    let mut stream = server.connect();
    exchange(&mut stream, &frame(ECHO, &[1; 90_000]));
    let _ = stream.write_all(&frame(ECHO, &[1; 400_000]));
    server.wait_closed(1);
    assert_ended(&mut stream);
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

fn accepted_sockets_can_be_handed_to_another_loop(kind: LoopKind) {
    let second = Server::start(kind, |config| config.listener = None);
    let (shared, waker) = (second.shared.clone(), second.control.waker());
    let mut turn = 0;
    let first = Server::start(kind, move |config| {
        config.on_accept = Some(Box::new(move |socket, peer| {
            turn += 1;
            if turn % 2 == 0 {
                return Some((socket, peer));
            }
            shared.mail.lock().push(Mail::Adopt(socket, peer));
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

macro_rules! conformance {
    ($($test:ident),+ $(,)?) => {
        mod epoll_loop {
            $(#[test] fn $test() { super::$test(super::LoopKind::Epoll); })+
        }
        mod uring_loop {
            $(#[test] fn $test() {
                match super::super::uring::probe() {
                    Ok(()) => super::$test(super::LoopKind::IoUring),
                    Err(reason) => eprintln!("not run: {reason}"),
                }
            })+
        }
    };
}
pub(super) use conformance;

conformance!(
    pipelined_frames_come_back_in_order,
    a_frame_may_arrive_byte_by_byte,
    a_frame_of_8_mib_passes_and_small_ones_after_it,
    a_frame_over_the_input_bound_ends_the_connection,
    a_slow_reader_bounds_the_output_and_loses_nothing,
    a_peer_that_never_reads_is_closed,
    a_closing_connection_does_not_wait_for_ever_for_its_peer,
    a_parked_connection_is_answered_from_another_thread,
    many_parks_from_many_threads_are_all_answered,
    a_parked_connection_is_not_received_from_without_bound,
    a_reply_before_close_arrives_whole,
    a_peer_may_vanish_while_a_send_is_in_flight,
    a_half_closed_peer_gets_its_answers,
    five_hundred_connections_open_talk_and_close,
    more_input_than_buffers_is_received_in_the_end,
    a_stale_id_is_ignored,
    stop_finishes_what_is_parked,
    stop_ends_at_its_deadline,
    an_idle_connection_is_closed_and_a_parked_one_is_not,
    one_connection_too_many_is_refused,
    accepted_sockets_can_be_handed_to_another_loop,
    a_long_answer_is_produced_as_it_drains,
    no_wake_is_lost_and_an_idle_loop_sleeps,
    a_panicking_handler_leaves_nothing_with_the_kernel,
);

//! One suite for both loops, over real sockets.
//!
//! The handler speaks frames of `u32 length of the rest, u8 verb, body`; every reply is a frame
//! too. Fault model: peers that pipeline, dribble, do not read, half-close, vanish; a handler that
//! panics. Not modelled: a failing kernel.

mod ends;
mod exchange;
mod tls;
mod turns;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
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
/// Long work begins, whose turns go on until something arrives.
const WORK: u8 = b'w';
/// It ends.
const REST: u8 = b'r';

const STREAM_PIECE_BYTES: usize = 100_000;

enum Mail {
    Answer(ConnId, Vec<u8>),
    /// Without ending the park.
    Output(ConnId, Vec<u8>),
    Close(ConnId),
    Adopt(PeerSocket),
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
    turns: AtomicUsize,
    stale_outputs: AtomicUsize,
    output_bytes_max_seen: AtomicUsize,
}

struct Frames {
    shared: Arc<Shared>,
    streams: Vec<(ConnId, usize)>,
    works: bool,
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
            ECHO | WORK | REST => {
                self.works = whole[4] == WORK || self.works && whole[4] == ECHO;
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
                Mail::Adopt(socket) => net.adopt(socket),
            }
        }
    }

    fn on_tick(&mut self, _net: &mut dyn Net) {
        self.shared.ticks.fetch_add(1, Ordering::SeqCst);
    }

    fn wants_turn(&self) -> bool {
        self.works
    }

    fn on_turn(&mut self, _net: &mut dyn Net, has_arrived: &mut dyn FnMut() -> bool) {
        self.shared.turns.fetch_add(1, Ordering::SeqCst);
        until("something that arrives during a turn", has_arrived);
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
            works: false,
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

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn exchange(stream: &mut (impl Read + Write), sent: &[u8]) {
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

macro_rules! conformance {
    ($($test:ident),+ $(,)?) => {
        mod epoll_loop {
            $(#[test] fn $test() { super::$test(crate::net::LoopKind::Epoll); })+
        }
        mod uring_loop {
            $(#[test] fn $test() {
                match crate::net::uring::probe() {
                    Ok(()) => super::$test(crate::net::LoopKind::IoUring),
                    Err(reason) => eprintln!("not run: {reason}"),
                }
            })+
        }
    };
}
pub(super) use conformance;

//! Device reads through both loops, on real files and on media without one.
//!
//! The handler takes frames of `u64 offset, u32 bytes, u32 reads`, asks for so many reads of these
//! bytes, and answers when all are over with `u32 failed, bytes of one of the good ones`.
//!
//! Fault model: reads that fail, end early or never end; a handler that panics, a loop that stops with
//! reads under way.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use perigee_engine::storage::RecordRead;
use perigee_engine::storage::medium::{
    AlignedBuf, Fault, FaultyMedium, FileMedium, Medium, MemoryMedium, PAGE_BYTES,
};

use super::*;

const PAGES: usize = 256;
const DEVICE_BYTES: usize = PAGES * PAGE_BYTES;
const REQUEST_BYTES: usize = 16;
/// An offset that makes the handler panic instead.
const PANIC: u64 = u64::MAX;

fn content(at: usize) -> u8 {
    (at / PAGE_BYTES * 31 + at % 251) as u8
}

fn contents(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(content).collect()
}

struct Asked {
    conn: ConnId,
    left: u32,
    failed: u32,
    bytes: Vec<u8>,
}

struct Reader {
    medium: Arc<dyn Medium>,
    asked: HashMap<u64, Asked>,
    next: u64,
    begun: Arc<AtomicUsize>,
}

impl Handler for Reader {
    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        _output: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Consumed {
        let Some(request) = input.first_chunk::<REQUEST_BYTES>() else {
            return Consumed::more(0);
        };
        let offset = u64::from_le_bytes(request[..8].try_into().unwrap());
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let (bytes, count) = (number(8) as usize, number(12));
        assert_ne!(offset, PANIC, "asked for");
        self.next += 1;
        for _ in 0..count {
            let medium = self.medium.clone();
            reads.submit(
                RecordRead {
                    medium,
                    offset,
                    bytes,
                },
                self.next,
            );
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        let asked = Asked {
            conn,
            left: count,
            failed: 0,
            bytes: Vec::new(),
        };
        self.asked.insert(self.next, asked);
        Consumed::park(REQUEST_BYTES)
    }

    fn on_read(&mut self, token: u64, bytes: &[u8], outcome: io::Result<()>, net: &mut dyn Net) {
        let asked = self
            .asked
            .get_mut(&token)
            .expect("a read that was asked for");
        asked.left -= 1;
        match outcome {
            Ok(()) if asked.bytes.is_empty() => asked.bytes = bytes.to_vec(),
            Ok(()) => assert!(asked.bytes == bytes),
            Err(_) => asked.failed += 1,
        }
        if asked.left > 0 {
            return;
        }
        let asked = self.asked.remove(&token).unwrap();
        if let (Some(out), _) = net.answering(asked.conn) {
            out.extend_from_slice(&asked.failed.to_le_bytes());
            out.extend_from_slice(&asked.bytes);
            net.resume(asked.conn);
        }
    }

    fn on_wake(&mut self, _net: &mut dyn Net) {}
}

struct Server {
    address: SocketAddr,
    control: LoopControl,
    begun: Arc<AtomicUsize>,
    pool: Arc<ReadPool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    fn start(kind: LoopKind, medium: Arc<dyn Medium>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = LoopConfig {
            listener: Some(listener),
            kind,
            ..LoopConfig::default()
        };
        let pool = config.read_pool.clone();
        let control = LoopControl::new().unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let mut handler = Reader {
            medium,
            asked: HashMap::new(),
            next: 0,
            begun: begun.clone(),
        };
        let inside = control.clone();
        let thread = std::thread::spawn(move || run(config, &inside, &mut handler));
        Server {
            address,
            control,
            begun,
            pool,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Waits until the loop was asked for so many reads, and has gone on since.
    fn wait_begun(&self, reads: usize) {
        while self.begun.load(Ordering::SeqCst) < reads {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(mut self) -> io::Result<()> {
        self.control.stop(Duration::from_millis(100));
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.control.stop(Duration::ZERO);
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

fn send(stream: &mut TcpStream, offset: u64, bytes: usize, reads: u32) {
    let mut request = offset.to_le_bytes().to_vec();
    request.extend((bytes as u32).to_le_bytes());
    request.extend(reads.to_le_bytes());
    stream.write_all(&request).unwrap();
}

/// How many of the reads failed, and what the others read.
fn receive(stream: &mut TcpStream, bytes: usize, reads: u32) -> (u32, Vec<u8>) {
    let mut failed = [0; 4];
    stream.read_exact(&mut failed).unwrap();
    let failed = u32::from_le_bytes(failed);
    let mut read = vec![0; if failed < reads { bytes } else { 0 }];
    stream.read_exact(&mut read).unwrap();
    (failed, read)
}

fn ask(stream: &mut TcpStream, offset: usize, bytes: usize) -> (u32, Vec<u8>) {
    send(stream, offset as u64, bytes, 1);
    receive(stream, bytes, 1)
}

/// A file medium with known contents, and its path; the name is taken away when it is dropped.
struct Disk {
    medium: Arc<FileMedium>,
    path: PathBuf,
}

impl Disk {
    fn new() -> Disk {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("perigee-reads-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let medium = FileMedium::open(&path, DEVICE_BYTES as u64).unwrap();
        medium.prepare().unwrap();
        fill(&medium);
        Disk {
            medium: Arc::new(medium),
            path,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn fill(medium: &dyn Medium) {
    let mut buffer = AlignedBuf::new(DEVICE_BYTES);
    buffer.copy_from_slice(&contents(0, DEVICE_BYTES));
    medium.write_at(0, &buffer).unwrap();
}

fn memory() -> Arc<MemoryMedium> {
    let medium = MemoryMedium::new(DEVICE_BYTES as u64).unwrap();
    fill(&medium);
    Arc::new(medium)
}

/// A medium over any file, which says what it is asked to say.
struct Odd {
    file: Option<Arc<File>>,
    /// XORed to every byte on the way out of the file.
    mask: u8,
}

impl Medium for Odd {
    fn len(&self) -> u64 {
        DEVICE_BYTES as u64
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("this medium is read through its file"))
    }

    fn write_at(&self, _offset: u64, _buffer: &[u8]) -> io::Result<()> {
        Err(io::Error::other("nothing is written here"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) {}

    fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    fn decode(&self, _offset: u64, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte ^= self.mask);
    }
}

/// A pipe that nobody has written to: a read of it never ends.
fn hanging() -> (Arc<Odd>, File) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors; the result is checked.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0);
    // SAFETY: fresh descriptors that nothing else owns.
    let [read, write] = ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) }));
    let medium = Odd {
        file: Some(Arc::new(read)),
        mask: 0,
    };
    (Arc::new(medium), write)
}

fn reads_from_many_connections_bring_what_is_stored(kind: LoopKind) {
    let disk = Disk::new();
    let media: [Arc<dyn Medium>; 2] = [disk.medium.clone(), memory()];
    for medium in media {
        let server = Server::start(kind, medium);
        std::thread::scope(|scope| {
            for client in 0..16 {
                let server = &server;
                scope.spawn(move || {
                    let mut stream = server.connect();
                    for round in 0..100 {
                        let page = (client * 37 + round * 13) % (PAGES - 40);
                        let pages = [1, 2, 1, 3, 1, 17, 40][round % 7];
                        let (from, bytes) = (page * PAGE_BYTES, pages * PAGE_BYTES);
                        let (failed, read) = ask(&mut stream, from, bytes);
                        assert!(failed == 0 && read == contents(from, bytes));
                    }
                });
            }
        });
    }
}

fn more_reads_than_may_be_under_way_have_their_turn(kind: LoopKind) {
    let disk = Disk::new();
    let server = Server::start(kind, disk.medium.clone());
    let mut stream = server.connect();
    // By number, and by their bytes: 40 of the whole device are over the bound.
    for (bytes, reads) in [(PAGE_BYTES, 3000), (DEVICE_BYTES, 40)] {
        send(&mut stream, 0, bytes, reads);
        let (failed, read) = receive(&mut stream, bytes, reads);
        assert!(failed == 0 && read == contents(0, bytes));
    }
}

fn a_read_that_fails_is_told_and_others_go_on(kind: LoopKind) {
    let faulty = Arc::new(FaultyMedium::new(memory(), 1));
    faulty.inject(Fault::FailRead { offset: 5000 });
    let directory = Odd {
        file: Some(Arc::new(File::open(std::env::temp_dir()).unwrap())),
        mask: 0,
    };
    let disk = Disk::new();
    let server = Server::start(kind, faulty);
    let mut stream = server.connect();
    assert_eq!(ask(&mut stream, PAGE_BYTES, PAGE_BYTES).0, 1);
    assert_eq!(
        ask(&mut stream, 0, PAGE_BYTES),
        (0, contents(0, PAGE_BYTES))
    );

    let server = Server::start(kind, Arc::new(directory));
    assert_eq!(ask(&mut server.connect(), 0, PAGE_BYTES).0, 1);

    let server = Server::start(kind, disk.medium.clone());
    let mut stream = server.connect();
    let last = DEVICE_BYTES - PAGE_BYTES;
    assert_eq!(
        ask(&mut stream, last, 2 * PAGE_BYTES).0,
        1,
        "beyond the end"
    );
    disk.medium.close();
    assert_eq!(ask(&mut stream, 0, PAGE_BYTES).0, 1, "closed");
}

/// What a file no longer holds reads as zero, as through the medium: no image, so damage.
fn a_read_past_the_end_of_a_file_that_was_cut_is_completed_with_zeroes(kind: LoopKind) {
    let disk = Disk::new();
    let end = 9 * PAGE_BYTES + 512;
    let file = File::options().write(true).open(&disk.path).unwrap();
    file.set_len(end as u64).unwrap();
    let server = Server::start(kind, disk.medium.clone());
    let mut stream = server.connect();
    let (failed, read) = ask(&mut stream, 8 * PAGE_BYTES, 4 * PAGE_BYTES);
    assert_eq!(failed, 0);
    let stored = end - 8 * PAGE_BYTES;
    assert!(read[..stored] == contents(8 * PAGE_BYTES, stored));
    assert!(read[stored..].iter().all(|byte| *byte == 0));
}

// A thread of the pool that hangs in a system call cannot be called back; a read in a ring can.
#[test]
fn a_stop_does_not_wait_for_a_device_that_hangs() {
    if let Err(reason) = uring::probe() {
        return eprintln!("not run: {reason}");
    }
    let (medium, _writer) = hanging();
    let server = Server::start(LoopKind::IoUring, medium.clone());
    let mut streams: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for stream in &mut streams {
        send(stream, 0, PAGE_BYTES, 2);
    }
    server.wait_begun(10);
    server.stop().unwrap();
    assert_eq!(
        Arc::strong_count(medium.file.as_ref().unwrap()),
        1,
        "every read has given its file back"
    );
}

#[test]
fn a_panic_with_reads_under_way_leaves_nothing_with_the_kernel() {
    if let Err(reason) = uring::probe() {
        return eprintln!("not run: {reason}");
    }
    let (medium, _writer) = hanging();
    let mut server = Server::start(LoopKind::IoUring, medium.clone());
    send(&mut server.connect(), 0, PAGE_BYTES, 10);
    server.wait_begun(10);
    send(&mut server.connect(), PANIC, 0, 0);
    assert!(server.thread.take().unwrap().join().is_err());
    assert_eq!(Arc::strong_count(medium.file.as_ref().unwrap()), 1);
}

fn a_closed_connection_does_not_disturb_its_read(kind: LoopKind) {
    let disk = Disk::new();
    let server = Server::start(kind, disk.medium.clone());
    for round in 0..50 {
        let mut stream = server.connect();
        send(&mut stream, 0, PAGE_BYTES, 20);
        server.wait_begun((round + 1) * 20);
    }
    let (failed, read) = ask(&mut server.connect(), 0, PAGE_BYTES);
    assert!(failed == 0 && read == contents(0, PAGE_BYTES));
}

fn a_closed_pool_refuses_reads(kind: LoopKind) {
    let server = Server::start(kind, memory());
    let mut stream = server.connect();
    assert_eq!(ask(&mut stream, 0, PAGE_BYTES).0, 0);
    server.pool.close();
    assert_eq!(ask(&mut stream, 0, PAGE_BYTES).0, 1);
}

#[test]
fn what_a_ring_reads_is_decoded_once() {
    if let Err(reason) = uring::probe() {
        return eprintln!("not run: {reason}");
    }
    let disk = Disk::new();
    let medium = Odd {
        file: disk.medium.file(),
        mask: 0x5A,
    };
    let server = Server::start(LoopKind::IoUring, Arc::new(medium));
    let (failed, read) = ask(&mut server.connect(), 0, 2 * PAGE_BYTES);
    assert_eq!(failed, 0);
    let masked: Vec<u8> = contents(0, 2 * PAGE_BYTES)
        .iter()
        .map(|byte| byte ^ 0x5A)
        .collect();
    assert!(read == masked);
}

super::tests::conformance!(
    reads_from_many_connections_bring_what_is_stored,
    more_reads_than_may_be_under_way_have_their_turn,
    a_read_that_fails_is_told_and_others_go_on,
    a_read_past_the_end_of_a_file_that_was_cut_is_completed_with_zeroes,
    a_closed_connection_does_not_disturb_its_read,
    a_closed_pool_refuses_reads,
);

//! A panic while a connection is served ends that connection, and not the node.
//!
//! No input is to cause one. Should one do all the same, nothing but its own request is lost if it was only decoded or
//! evaluated by then: what a panic leaves behind is dropped, locks are given up, the connection is closed and the thread goes
//! on. A background query, which no connection waits for, fails by it. A panic in the middle of a change, or one that is of
//! neither, goes through, and ends the process.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use perigee_engine::changing::is_changing;

use crate::net::{ConnId, Consumed, Handler, Net, Reads};

/// Bytes of a frame that are told of with a panic.
const HEAD_BYTES: usize = 64;

/// For whom a thread works, and how the frame begins that it works on.
#[derive(Clone, Copy)]
struct Work {
    conn: ConnId,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
}

thread_local! {
    static WORK: Cell<Option<Work>> = const { Cell::new(None) };
}

/// Held while a thread works for a connection that it was not just given input of.
#[must_use]
pub(crate) struct WorkingFor(());

/// What follows is done for a connection, whose frame this is as far as it is known.
pub(crate) fn working_for(conn: ConnId, frame: &[u8]) -> WorkingFor {
    let head_bytes = frame.len().min(HEAD_BYTES);
    let mut head = [0; HEAD_BYTES];
    head[..head_bytes].copy_from_slice(&frame[..head_bytes]);
    WORK.set(Some(Work {
        conn,
        head,
        head_bytes,
    }));
    WorkingFor(())
}

impl Drop for WorkingFor {
    fn drop(&mut self) {
        // Whoever catches the panic asks for whom it was.
        if !std::thread::panicking() {
            WORK.set(None);
        }
    }
}

/// A handler whose panics end the connection that they are of.
pub(crate) struct Contained<H>(pub H);

impl<H: Handler> Contained<H> {
    /// Calls the handler for whomever it finds work. The connection that it panicked for, if it did, is to be closed.
    fn attempt(
        &mut self,
        net: &mut dyn Net,
        call: impl FnOnce(&mut H, &mut dyn Net),
    ) -> Option<ConnId> {
        let text = caught(|| call(&mut self.0, net)).err()?;
        let Some(work) = WORK.take() else {
            resume_unwind(Box::new(text))
        };
        let head = &work.head[..work.head_bytes];
        self.0.panicked(work.conn, &text, head);
        net.close(work.conn);
        Some(work.conn)
    }
}

/// Runs `f`, whose panic, if it ends by one, is returned as what it says. What `f` had in hand is not to be used any more. A
/// panic in the middle of a change goes through.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match is_changing() {
        true => resume_unwind(panic),
        false => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or(panic.downcast_ref::<&str>().copied())
                .unwrap_or("no text")
                .to_owned()
        }
    })
}

impl<H: Handler> Handler for Contained<H> {
    fn on_open(&mut self, conn: ConnId, peer: SocketAddr) {
        self.0.on_open(conn, peer);
    }

    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Consumed {
        let before = output.len();
        caught(|| self.0.on_input(conn, input, output, reads)).unwrap_or_else(|text| {
            WORK.set(None);
            output.truncate(before);
            let head = &input[..input.len().min(HEAD_BYTES)];
            self.0.panicked(conn, &text, head);
            Consumed::close()
        })
    }

    fn on_close(&mut self, conn: ConnId) {
        self.0.on_close(conn);
    }

    fn on_read(&mut self, token: u64, bytes: &[u8], outcome: io::Result<()>, net: &mut dyn Net) {
        self.attempt(net, |handler, net| {
            handler.on_read(token, bytes, outcome, net)
        });
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        let mut closed = Vec::new();
        // Mail is left behind the one that it panicked at. Each takes what it works on out of its queue first, so the same
        // connection comes twice only if that is not so, and there would be no end.
        while let Some(conn) = self.attempt(net, |handler, net| handler.on_wake(net)) {
            assert!(
                !closed.contains(&conn),
                "a panic that comes again and again"
            );
            closed.push(conn);
        }
    }

    fn on_tick(&mut self, net: &mut dyn Net) {
        self.attempt(net, |handler, net| handler.on_tick(net));
    }

    fn wants_tick(&self) -> bool {
        self.0.wants_tick()
    }

    fn wants_turn(&self) -> bool {
        self.0.wants_turn()
    }

    fn on_turn(&mut self, net: &mut dyn Net, has_arrived: &mut dyn FnMut() -> bool) {
        self.attempt(net, |handler, net| handler.on_turn(net, has_arrived));
    }

    fn before_wait(&mut self) {
        self.0.before_wait();
    }

    fn on_drained(&mut self, conn: ConnId, net: &mut dyn Net) {
        self.attempt(net, |handler, net| {
            let _work = working_for(conn, &[]);
            handler.on_drained(conn, net);
        });
    }

    fn panicked(&mut self, conn: ConnId, text: &str, head: &[u8]) {
        self.0.panicked(conn, text, head);
    }
}

#[cfg(test)]
mod tests {
    //! Real sockets and both loops. Fault model: a handler that panics when it is told to, while it is given input or later,
    //! beside a change or within one.

    use super::*;
    use crate::net::{Flow, LoopConfig, LoopControl, LoopKind, run};
    use parking_lot::Mutex;
    use perigee_engine::changing::changing;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::JoinHandle;
    use std::time::Duration;

    /// Is sent back.
    const ECHO: u8 = b'e';
    const PANIC: u8 = b'!';
    /// Parks; the wake that follows panics.
    const LATER: u8 = b'l';
    /// Panics with a change begun.
    const CHANGE: u8 = b'c';

    /// What the handler was told of: text and first bytes.
    type Told = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

    struct Faulty {
        told: Told,
        later: Vec<ConnId>,
        control: LoopControl,
    }

    impl Handler for Faulty {
        fn on_input(
            &mut self,
            conn: ConnId,
            input: &[u8],
            output: &mut Vec<u8>,
            _reads: &mut Reads,
        ) -> Consumed {
            output.push(input[0]);
            let flow = match input[0] {
                PANIC => panic!("asked for {}", "at once"),
                CHANGE => {
                    let _changing = changing();
                    panic!("asked for within a change")
                }
                LATER => {
                    output.pop();
                    self.later.push(conn);
                    self.control.waker().wake();
                    Flow::Park
                }
                _ => Flow::Continue,
            };
            Consumed { bytes: 1, flow }
        }

        fn on_wake(&mut self, net: &mut dyn Net) {
            if let Some(conn) = self.later.pop() {
                let _work = working_for(conn, b"kept frame");
                if let Some(output) = net.output(conn) {
                    output.push(LATER);
                }
                panic!("asked for later");
            }
        }

        fn panicked(&mut self, _conn: ConnId, text: &str, head: &[u8]) {
            self.told.lock().push((text.to_owned(), head.to_vec()));
        }
    }

    struct Server {
        address: SocketAddr,
        control: LoopControl,
        told: Told,
        thread: JoinHandle<io::Result<()>>,
    }

    fn serve(kind: LoopKind) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let control = LoopControl::new().expect("an eventfd");
        let told = Told::default();
        let (inside, seen) = (control.clone(), told.clone());
        let thread = std::thread::spawn(move || {
            let config = LoopConfig {
                listener: Some(listener),
                kind,
                ..LoopConfig::default()
            };
            let mut handler = Contained(Faulty {
                told: seen,
                later: Vec::new(),
                control: inside.clone(),
            });
            run(config, &inside, &mut handler)
        });
        Server {
            address,
            control,
            told,
            thread,
        }
    }

    fn connect(server: &Server) -> TcpStream {
        let stream = TcpStream::connect(server.address).expect("a connection");
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).expect("a time limit");
        stream
    }

    fn echo(stream: &mut TcpStream) {
        stream.write_all(&[ECHO]).expect("it is sent");
        let mut reply = [0];
        stream.read_exact(&mut reply).expect("it comes back");
        assert_eq!(reply, [ECHO]);
    }

    /// What comes before the end.
    fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection goes on: {error}"),
        }
        rest
    }

    fn a_panic_ends_its_own_connection(kind: LoopKind) {
        let server = serve(kind);
        let mut healthy = connect(&server);
        echo(&mut healthy);
        for (verb, text, head) in [
            (PANIC, "asked for at once", &[PANIC, ECHO][..]),
            (LATER, "asked for later", b"kept frame"),
        ] {
            let mut broken = connect(&server);
            echo(&mut broken);
            broken.write_all(&[verb, ECHO]).expect("it is sent");
            let left = rest(&mut broken);
            assert!(!left.contains(&PANIC), "half a reply was sent: {left:?}");
            echo(&mut healthy);
            let told = server.told.lock().pop().expect("it was told of");
            assert_eq!((&told.0[..], &told.1[..]), (text, head));
        }
        echo(&mut healthy);
        server.control.stop(Duration::ZERO);
        let ended = server.thread.join().expect("the thread went on");
        ended.expect("until it was stopped");
    }

    fn a_panic_within_a_change_goes_through(kind: LoopKind) {
        let server = serve(kind);
        let mut broken = connect(&server);
        broken.write_all(&[CHANGE]).expect("it is sent");
        assert!(server.thread.join().is_err(), "the thread went on");
        assert!(server.told.lock().is_empty());
    }

    #[test]
    fn a_panic_ends_its_own_connection_in_either_loop() {
        for kind in [LoopKind::Epoll, LoopKind::Auto.resolve()] {
            a_panic_ends_its_own_connection(kind);
        }
    }

    #[test]
    fn a_panic_within_a_change_goes_through_either_loop() {
        for kind in [LoopKind::Epoll, LoopKind::Auto.resolve()] {
            a_panic_within_a_change_goes_through(kind);
        }
    }
}

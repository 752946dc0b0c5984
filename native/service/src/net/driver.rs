//! The loop itself: who is offered input, what is bounded by what, when a connection ends. The same
//! for both mechanisms.
//!
//! An iteration waits, takes the events of that wait one by one, then looks at the mailbox and the
//! clock, and gives a turn to long work, if there is any. After whatever happened to a connection, [`Driver::pump`] brings it to rest: offers input
//! if that is due, starts a send if there is output and none is under way, releases what is
//! finished, and starts or stops receiving.

mod ending;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{AcceptHook, INPUT_HELD_BYTES_MAX, PeerSocket, Transport};
use super::connection::{Connection, Phase, SlowPeer, Table};
use super::epoll::Epoll;
use super::links::Links;
use super::mechanism::{Event, Listener, Mechanism, Received};
use super::reads::{Reading, Reads};
use super::tls::TlsPort;
use super::uring::Uring;
use super::{ConnId, Flow, Handler, LoopConfig, LoopControl, LoopKind};

/// How long accepting rests after it failed: without descriptors a ready listener would spin the
/// loop.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Timeouts are looked at this often at most, and at least four times within each.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Runs a loop on the calling thread until [`LoopControl::stop`]. Fails when the loop cannot be set
/// up, or when waiting itself fails; every connection is closed by then.
pub fn run<H: Handler>(
    config: LoopConfig,
    control: &LoopControl,
    handler: &mut H,
) -> io::Result<()> {
    match config.kind.resolve() {
        LoopKind::Epoll => Driver::<Epoll, H>::new(config, control, handler)?.run(),
        LoopKind::IoUring | LoopKind::Auto => {
            Driver::<Uring, H>::new(config, control, handler)?.run()
        }
    }
}

/// What offering came to: bytes consumed, and the last flow.
struct Offered {
    bytes: usize,
    flow: Flow,
}

/// Offers `input` until the handler wants more than there is, parks, closes, or has produced too
/// much output.
fn offer<H: Handler>(
    handler: &mut H,
    connection: &mut Connection,
    input: &[u8],
    reads: &mut Reads,
    output_bytes_max: usize,
) -> Offered {
    let mut bytes = 0;
    loop {
        let rest = &input[bytes..];
        let output = &mut connection.outbox.filling;
        let consumed = handler.on_input(connection.id, rest, output, reads);
        assert!(
            consumed.bytes <= rest.len(),
            "consumed {} of {}",
            consumed.bytes,
            rest.len()
        );
        bytes += consumed.bytes;
        if connection.outbox.unsent() > output_bytes_max {
            connection.blocked = true;
            connection.offer_due = bytes < input.len();
        }
        let wants_more = consumed.bytes == 0 || bytes == input.len();
        if consumed.flow != Flow::Continue || wants_more || connection.blocked {
            return Offered {
                bytes,
                flow: consumed.flow,
            };
        }
    }
}

struct Driver<'a, M: Mechanism, H: Handler> {
    // Before `links`: fields drop in order, and the mechanism takes the kernel's hands off the
    // buffers in there.
    mechanism: M,
    links: Links,
    handler: &'a mut H,
    control: &'a LoopControl,
    on_accept: Option<AcceptHook>,
    tls: Option<Arc<TlsPort>>,
    input_bytes_max: usize,
    output_bytes_max: usize,
    slow_peer_timeout: Duration,
    idle_timeout: Option<Duration>,
    tick: Duration,
    connections_max: usize,
    now: Instant,
    /// Set while something wants ticks, so that the first comes a whole interval later.
    tick_at: Option<Instant>,
    sweep_interval: Duration,
    sweep_at: Instant,
    accept_again_at: Option<Instant>,
    /// Set once stopping has begun.
    stop_at: Option<Instant>,
    drained_spare: Vec<ConnId>,
}

impl<'a, M: Mechanism, H: Handler> Driver<'a, M, H> {
    fn new(
        mut config: LoopConfig,
        control: &'a LoopControl,
        handler: &'a mut H,
    ) -> io::Result<Self> {
        let plain = config.listener.take().map(|it| (it, Transport::Plain));
        let tls = config.tls_listener.take().map(|it| (it, Transport::Tls));
        let listeners = [plain, tls].into_iter().flatten();
        let listeners: Vec<_> = listeners
            .map(|(socket, transport)| Listener { socket, transport })
            .collect();
        let mut mechanism = M::open(listeners, control.event())?;
        mechanism.accept(true)?;
        let handshake_timeout = config.tls.as_ref().map(|port| port.handshake_timeout);
        let timeouts = [
            Some(config.slow_peer_timeout),
            config.idle_timeout,
            handshake_timeout,
        ];
        let shortest = timeouts.into_iter().flatten().min().unwrap_or_default();
        let sweep_interval = (shortest / 4).clamp(Duration::from_millis(1), SWEEP_INTERVAL_MAX);
        let now = Instant::now();
        let links = Links {
            table: Table::default(),
            open: 0,
            parked: 0,
            slow: 0,
            handshaking: 0,
            attention: Vec::new(),
            adopted: Vec::new(),
            drained: Vec::new(),
            reads: Reads::new(config.read_pool, control.waker()),
        };
        Ok(Self {
            mechanism,
            links,
            handler,
            control,
            on_accept: config.on_accept,
            tls: config.tls,
            input_bytes_max: config.input_bytes_max,
            output_bytes_max: config.output_bytes_max,
            slow_peer_timeout: config.slow_peer_timeout,
            idle_timeout: config.idle_timeout,
            tick: config.tick.max(Duration::from_millis(1)),
            connections_max: config.connections_max,
            now,
            tick_at: None,
            sweep_interval,
            sweep_at: now + sweep_interval,
            accept_again_at: None,
            stop_at: None,
            drained_spare: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let result = self.iterate();
        if result.is_err() {
            self.drop_all();
        }
        result
    }

    fn iterate(&mut self) -> io::Result<()> {
        loop {
            self.handler.before_wait();
            let may_block = !self.handler.wants_turn() && self.control.fall_asleep();
            let timeout = match may_block {
                true => self.timeout(),
                false => Some(Duration::ZERO),
            };
            let Links { table, reads, .. } = &mut self.links;
            self.mechanism.wait(table, reads, timeout)?;
            let woken = self.control.wake_up();
            self.now = Instant::now();

            loop {
                let Links { table, reads, .. } = &mut self.links;
                let Some(event) = self.mechanism.next(table, reads)? else {
                    break;
                };
                self.take(event)?;
            }
            if woken {
                while let Some((reading, outcome)) = self.links.reads.delegated() {
                    self.read(reading, outcome)?;
                }
                if self.stop_at.is_none()
                    && let Some(deadline) = self.control.stop_deadline()
                {
                    self.begin_stop(deadline)?;
                }
                self.handler.on_wake(&mut self.links);
                self.attend()?;
            }
            self.call_drained()?;
            self.keep_time()?;
            if self.handler.wants_turn() {
                self.take_turn()?;
            }
            if self.stop_at.is_some() && self.links.table.len() == 0 {
                return Ok(());
            }
        }
    }

    /// Lets the handler go on with long work. Who was just answered does not wait for it.
    fn take_turn(&mut self) -> io::Result<()> {
        let Links { table, reads, .. } = &mut self.links;
        self.mechanism.submit(table, reads)?;
        let mut has_arrived = || self.mechanism.has_arrived() || self.control.is_notified();
        self.handler.on_turn(&mut self.links, &mut has_arrived);
        self.attend()
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Accepted(socket) => {
                let kept = match &mut self.on_accept {
                    Some(hook) => hook(socket),
                    None => Some(socket),
                };
                if let Some(socket) = kept {
                    self.open(socket)?;
                }
            }
            Event::AcceptFailed(error) => {
                tracing::warn!(%error, "accepting rests");
                self.mechanism.accept(false)?;
                self.accept_again_at = Some(self.now + ACCEPT_REST);
            }
            Event::Received(id, received) => self.received(id, received)?,
            Event::Ended(id) => {
                if let Some(connection) = self.links.table.get(id) {
                    connection.input_ended = true;
                    self.pump(id)?;
                }
            }
            Event::Sent(id) => {
                if let Some(connection) = self.links.table.get(id) {
                    connection.active_at = self.now;
                    if connection.parked && connection.outbox.unsent() == 0 {
                        self.links.drained.push(id);
                    }
                    self.pump(id)?;
                }
            }
            Event::Failed(id, error) => {
                if let Some(connection) = self.links.table.get(id) {
                    tracing::debug!(peer = %connection.peer, %error, "connection failed");
                    self.drop_connection(id);
                }
            }
            Event::Released(id) => self.links.table.free(id),
            Event::Read(reading, outcome) => self.read(reading, outcome)?,
        }
        Ok(())
    }

    fn read(&mut self, mut reading: Reading, outcome: io::Result<()>) -> io::Result<()> {
        let token = reading.token;
        self.handler
            .on_read(token, reading.target(), outcome, &mut self.links);
        self.links.reads.end(reading);
        self.attend()
    }

    fn open(&mut self, socket: PeerSocket) -> io::Result<()> {
        let PeerSocket {
            socket,
            peer,
            transport,
        } = socket;
        if self.stop_at.is_some() || self.links.table.len() >= self.connections_max {
            tracing::debug!(%peer, limit = self.connections_max, "connection refused");
            return Ok(());
        }
        if let Err(error) = socket2::SockRef::from(&socket).set_tcp_nodelay(true) {
            // Not a TCP socket, or reset already: the next receive will tell.
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let session = match transport {
            Transport::Plain => None,
            Transport::Tls => match self.begin_session(peer) {
                None => return Ok(()),
                session => session,
            },
        };
        let id = self.links.table.insert(socket, peer, self.now);
        let connection = self.links.table.get(id).expect("just inserted");
        let shakes_hands = session.is_some();
        connection.tls = session;
        if let Err(error) = self.mechanism.attach(connection) {
            tracing::warn!(%peer, %error, "connection refused");
            self.links.table.free(id);
            return Ok(());
        }
        self.links.open += 1;
        self.links.handshaking += usize::from(shakes_hands);
        self.handler.on_open(id, peer);
        self.pump(id)
    }

    fn received(&mut self, id: ConnId, received: Received) -> io::Result<()> {
        let mut flow = Flow::Continue;
        let Links { table, reads, .. } = &mut self.links;
        if let Some(connection) = table.get(id).filter(|it| it.phase == Phase::Open) {
            connection.active_at = self.now;
            if connection.tls.is_some() {
                return self.received_records(id, received);
            }
            let bytes = self.mechanism.bytes(&received);
            if connection.inbox.is_empty() && connection.may_offer() {
                // The usual way: whole frames, handled where the kernel put them.
                let bytes_max = self.output_bytes_max;
                let offered = offer(self.handler, connection, bytes, reads, bytes_max);
                flow = offered.flow;
                connection.inbox.append(&bytes[offered.bytes..]);
            } else {
                connection.inbox.append(bytes);
                connection.offer_due = true;
            }
        }
        self.mechanism.recycle(received);
        self.follow(id, flow);
        self.pump(id)
    }

    fn follow(&mut self, id: ConnId, flow: Flow) {
        match flow {
            Flow::Continue => {}
            Flow::Park => {
                let connection = self.links.table.get(id).expect("it was offered input");
                connection.parked = true;
                self.links.parked += 1;
            }
            Flow::Close => self.begin_close(id),
        }
    }

    /// Brings a connection to rest after anything that happened to it.
    fn pump(&mut self, id: ConnId) -> io::Result<()> {
        loop {
            let Links { table, reads, .. } = &mut self.links;
            let Some(connection) = table.get(id) else {
                return Ok(());
            };
            if connection.phase == Phase::Gone {
                return Ok(());
            }
            if connection.offer_due && connection.may_offer() {
                connection.offer_due = false;
                let mut inbox = std::mem::take(&mut connection.inbox);
                let offered = offer(
                    self.handler,
                    connection,
                    inbox.unread(),
                    reads,
                    self.output_bytes_max,
                );
                inbox.consume(offered.bytes);
                let too_much = inbox.len() > self.input_bytes_max;
                connection.inbox = inbox;
                if offered.flow == Flow::Continue && !connection.blocked && too_much {
                    tracing::warn!(
                        peer = %connection.peer,
                        bytes_max = self.input_bytes_max,
                        "a request over the input bound"
                    );
                    self.drop_connection(id);
                    return Ok(());
                }
                self.follow(id, offered.flow);
            }

            let connection = self.links.table.get(id).expect("nothing has freed it");
            if connection.outbox.unsent() > 0 && !connection.kernel.sending {
                if let Err(error) = self.mechanism.send(connection) {
                    tracing::debug!(peer = %connection.peer, %error, "send failed");
                    self.drop_connection(id);
                    return Ok(());
                }
                if connection.parked && connection.outbox.unsent() == 0 {
                    self.links.drained.push(id);
                }
            }

            let unsent = connection.outbox.unsent();
            let was_blocked = connection.blocked;
            connection.blocked = match was_blocked {
                true => unsent > self.output_bytes_max / 2,
                false => unsent > self.output_bytes_max,
            };
            let unblocked = was_blocked && !connection.blocked;
            if !(unblocked && connection.offer_due && connection.may_offer()) {
                break;
            }
        }
        self.rest(id)
    }

    /// The end of a pump: starts or ends the slow-peer clock, releases what is finished, receives
    /// or not.
    fn rest(&mut self, id: ConnId) -> io::Result<()> {
        let stopping = self.stop_at.is_some();
        let connection = self.links.table.get(id).expect("pump has found it");
        let unsent = connection.outbox.unsent();
        let waits_for_peer = connection.blocked
            || unsent > 0 && (connection.phase == Phase::Closing || connection.input_ended);
        match (waits_for_peer, connection.slow.is_some()) {
            (true, false) => {
                let taken_before = connection.outbox.taken_total;
                connection.slow = Some(SlowPeer {
                    since: self.now,
                    taken_before,
                });
                self.links.slow += 1;
            }
            (false, true) => {
                connection.slow = None;
                self.links.slow -= 1;
            }
            _ => {}
        }

        let no_more_input = connection.input_ended || stopping;
        let finished = unsent == 0
            && (connection.phase == Phase::Closing || no_more_input && !connection.parked);
        if finished {
            if !connection.end_output() {
                self.drop_connection(id);
                return Ok(());
            }
            // Comes back here when the last words have left.
            if connection.phase == Phase::Open {
                self.begin_close(id);
            }
            return self.pump(id);
        }
        let holds = (connection.parked || connection.blocked)
            && connection.inbox.len() > INPUT_HELD_BYTES_MAX;
        let wanted = connection.phase == Phase::Open && !no_more_input && !holds;
        if wanted != connection.kernel.receive_wanted
            && let Err(error) = self.mechanism.receive(connection, wanted)
        {
            tracing::debug!(peer = %connection.peer, %error, "cannot receive");
            self.drop_connection(id);
        }
        Ok(())
    }

    /// Does what the handler asked for through [`Net`].
    fn attend(&mut self) -> io::Result<()> {
        let mut position = 0;
        // By position: pumping may call the handler, but only `Net` lists connections, and it is
        // not in reach there.
        while position < self.links.attention.len() {
            let id = self.links.attention[position];
            position += 1;
            let Some(connection) = self.links.table.get(id) else {
                continue;
            };
            connection.listed = false;
            if connection.close_asked && connection.phase == Phase::Open {
                self.begin_close(id);
            }
            self.pump(id)?;
        }
        self.links.attention.clear();
        for socket in std::mem::take(&mut self.links.adopted) {
            self.open(socket)?;
        }
        Ok(())
    }

    /// One round only: who is drained again by it waits for the next iteration, so that nobody
    /// keeps the loop.
    fn call_drained(&mut self) -> io::Result<()> {
        if self.links.drained.is_empty() {
            return Ok(());
        }
        let mut drained = std::mem::replace(
            &mut self.links.drained,
            std::mem::take(&mut self.drained_spare),
        );
        for id in drained.drain(..) {
            let still = self.links.open_connection(id);
            if still.is_some_and(|it| it.parked && it.outbox.unsent() == 0) {
                self.handler.on_drained(id, &mut self.links);
            }
        }
        self.drained_spare = drained;
        self.attend()
    }
}

//! The loops behind TLS, spoken to by rustls clients over real sockets.
//!
//! Fault model, besides that of the plain suite: peers that send no TLS, half a handshake, records
//! that were tampered with; that end without saying so; without a certificate, or with a stranger's.

mod certificates;
mod ends;

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};

use super::*;

type Stream = StreamOwned<ClientConnection, TcpStream>;

const NAME: &str = "node.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Issues certificates.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate with its key, in PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn issue(&self, common_name: &str, dns_name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![dns_name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let issuer = Issuer::from_params(&self.params, &self.key);
        Issued {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        roots
    }

    /// Settings of a client that trusts this authority.
    fn client(
        &self,
        protocol: &'static SupportedProtocolVersion,
        identity: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[protocol])
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let certificate = issued.certificate.as_bytes();
                let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        })
    }
}

/// A directory with the files of a TLS section.
struct Files(PathBuf);

impl Files {
    fn new(authority: &Authority) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("perigee-tls-{}-{number}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&files.0).unwrap();
        files.put("ca.pem", &authority.pem);
        files.issue(authority);
        files
    }

    /// Takes the place of what is there at once, as tools that renew certificates do.
    fn put(&self, name: &str, content: &str) {
        let path = self.0.join(name);
        std::fs::write(self.0.join("new"), content).unwrap();
        std::fs::rename(self.0.join("new"), path).unwrap();
    }

    fn issue(&self, authority: &Authority) {
        let issued = authority.issue(NAME, NAME);
        self.put("cert.pem", &issued.certificate);
        self.put("key.pem", &issued.key);
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            name: NAME.into(),
            cert_file: self.0.join("cert.pem"),
            key_file: self.0.join("key.pem"),
            ca_file: None,
            ca_path: None,
            protocols: vec![TlsProtocol::V12, TlsProtocol::V13],
            authenticate_client: false,
            client_names: Vec::new(),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct TlsServer {
    server: Server,
    address: SocketAddr,
    port: Arc<TlsPort>,
    stats: Arc<TlsStats>,
    authority: Authority,
    files: Files,
}

impl TlsServer {
    fn start(kind: LoopKind) -> Self {
        Self::adjusted(kind, |_| {}, |_| {})
    }

    fn adjusted(
        kind: LoopKind,
        adjust_tls: impl FnOnce(&mut TlsConfig),
        adjust: impl FnOnce(&mut LoopConfig),
    ) -> Self {
        Self::timed(kind, Duration::from_secs(10), adjust_tls, adjust)
    }

    fn timed(
        kind: LoopKind,
        handshake_timeout: Duration,
        adjust_tls: impl FnOnce(&mut TlsConfig),
        adjust: impl FnOnce(&mut LoopConfig),
    ) -> Self {
        let authority = Authority::new("authority");
        let files = Files::new(&authority);
        let mut config = files.config();
        adjust_tls(&mut config);
        let stats = Arc::new(TlsStats::default());
        let mut port = TlsPort::open(config, stats.clone()).unwrap();
        port.handshake_timeout = handshake_timeout;
        let port = Arc::new(port);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start(kind, |config| {
            config.tls_listener = Some(listener);
            config.tls = Some(port.clone());
            adjust(config);
        });
        Self {
            server,
            address,
            port,
            stats,
            authority,
            files,
        }
    }

    fn connect_raw(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn connect_as(&self, client: &Arc<ClientConfig>) -> Stream {
        let name = ServerName::try_from(NAME).unwrap();
        let session = ClientConnection::new(client.clone(), name).unwrap();
        StreamOwned::new(session, self.connect_raw())
    }

    fn connect(&self, protocol: &'static SupportedProtocolVersion) -> Stream {
        self.connect_as(&self.authority.client(protocol, None))
    }

    fn opened(&self) -> u64 {
        self.stats.opened.load(Ordering::SeqCst)
    }

    fn handshake_errors(&self) -> u64 {
        self.stats.handshake_errors.load(Ordering::SeqCst)
    }
}

/// The peer has ended the session as it should: it said so.
fn assert_ended_cleanly(stream: &mut Stream) {
    let mut rest = [0; 1];
    let count = stream.read(&mut rest).expect("an end with close_notify");
    assert_eq!(count, 0, "the connection goes on");
}

/// Nothing is answered any more, whichever way that shows.
fn assert_refused(stream: &mut Stream) {
    let sent = frame(ECHO, b"let me in");
    let mut reply = vec![0; sent.len()];
    let outcome = stream
        .write_all(&sent)
        .and_then(|()| stream.read_exact(&mut reply));
    assert!(outcome.is_err(), "the connection was served");
}

/// Encrypts `bytes` without sending them.
fn records_of(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    stream.conn.set_buffer_limit(None);
    stream.conn.writer().write_all(bytes).unwrap();
    let mut records = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut records).unwrap();
    }
    records
}

fn frames_of_all_sizes_pass(kind: LoopKind) {
    for protocol in VERSIONS {
        let server = TlsServer::start(kind);
        let mut stream = server.connect(protocol);
        let mut sent = Vec::new();
        for number in 0..20_000u32 {
            sent.extend(frame(ECHO, &vec![number as u8; (number % 50) as usize]));
        }
        stream.write_all(&sent).unwrap();
        assert!(read_exactly(&mut stream, sent.len()) == sent);
        let body: Vec<u8> = (0..8 << 20)
            .map(|position| (position * 7 % 251) as u8)
            .collect();
        let large = frame(ECHO, &body);
        stream.write_all(&large).unwrap();
        assert!(read_exactly(&mut stream, large.len()) == large);
        exchange(&mut stream, &frame(ECHO, b"small"));
        assert_eq!(server.opened(), 1);
    }
}

/// Handshake, requests and all: every byte in a segment of its own.
fn records_may_arrive_byte_by_byte(kind: LoopKind) {
    struct Dribble(TcpStream);
    impl Read for Dribble {
        fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(target)
        }
    }
    impl Write for Dribble {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_micros(200));
            self.0.write(&bytes[..bytes.len().min(1)])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let server = TlsServer::start(kind);
    for protocol in VERSIONS {
        let client = server.authority.client(protocol, None);
        let name = ServerName::try_from(NAME).unwrap();
        let session = ClientConnection::new(client, name).unwrap();
        let mut stream = StreamOwned::new(session, Dribble(server.connect_raw()));
        exchange(
            &mut stream,
            &[frame(ECHO, b"abcdef"), frame(ECHO, b"gh")].concat(),
        );
    }
}

fn plain_and_tls_are_served_side_by_side(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let mut plain = server.server.connect();
    let mut first = server.connect(&version::TLS13);
    let mut second = server.connect(&version::TLS12);
    for _ in 0..100 {
        exchange(&mut plain, &frame(ECHO, b"plain"));
        exchange(&mut first, &frame(ECHO, b"first"));
        exchange(&mut second, &frame(ECHO, b"second"));
    }
    drop(first);
    server.server.wait_closed(1);
    exchange(&mut plain, &frame(ECHO, b"still here"));
    exchange(&mut second, &frame(ECHO, b"still here"));
    until("the count of closed connections", || {
        server.stats.closed.load(Ordering::SeqCst) == 1
    });
    assert_eq!(server.opened(), 2);
}

fn many_connections_shake_hands_at_once(kind: LoopKind) {
    let server = TlsServer::start(kind);
    std::thread::scope(|scope| {
        for number in 0..8u32 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut stream = server.connect(VERSIONS[number as usize % 2]);
                    exchange(&mut stream, &frame(ECHO, &number.to_le_bytes()));
                }
            });
        }
    });
    assert_eq!((server.opened(), server.handshake_errors()), (160, 0));
}

fn a_slow_reader_bounds_the_output_and_loses_nothing(kind: LoopKind) {
    const BOUND: usize = 256 << 10;
    let server = TlsServer::adjusted(kind, |_| {}, |config| config.output_bytes_max = BOUND);
    let mut stream = server.connect(&version::TLS13);
    exchange(&mut stream, &frame(ECHO, b"hello"));
    let one = frame(ECHO, &[3; 10_000]);
    let sent = one.repeat(4000);
    let records = records_of(&mut stream, &sent);
    let mut raw = stream.sock.try_clone().unwrap();
    let mut written = write_until_stuck(&mut raw, &records);
    assert!(
        written < records.len(),
        "the loop took {written} bytes from a peer that reads none"
    );
    let thread = std::thread::spawn(move || {
        while written < records.len() {
            written += raw.write(&records[written..]).unwrap();
        }
    });
    assert!(read_exactly(&mut stream, sent.len()) == sent);
    thread.join().unwrap();
    let seen = server
        .server
        .shared
        .output_bytes_max_seen
        .load(Ordering::SeqCst);
    assert!(seen <= BOUND + one.len(), "{seen} bytes of output");
}

fn a_parked_connection_is_not_received_from_without_bound(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let mut stream = server.connect(&version::TLS13);
    stream.write_all(&frame(PARK, b"")).unwrap();
    stream.flush().unwrap();
    let conn = server.server.next_parked();
    let sent = frame(ECHO, &[5; 1000]).repeat(64_000);
    let records = records_of(&mut stream, &sent);
    let mut raw = stream.sock.try_clone().unwrap();
    let mut written = write_until_stuck(&mut raw, &records);
    assert!(written < records.len(), "all of {written} bytes were taken");
    server.server.mail(Mail::Answer(conn, frame(PARK, b"")));
    let thread = std::thread::spawn(move || {
        while written < records.len() {
            written += raw.write(&records[written..]).unwrap();
        }
    });
    read_exactly(&mut stream, 5);
    assert!(read_exactly(&mut stream, sent.len()) == sent);
    thread.join().unwrap();
}

fn a_long_answer_is_produced_as_it_drains(kind: LoopKind) {
    const TOTAL: usize = 20 << 20;
    let server = TlsServer::start(kind);
    let mut stream = server.connect(&version::TLS13);
    let after = frame(ECHO, b"after");
    let request = frame(STREAM, &(TOTAL as u32).to_le_bytes());
    stream
        .write_all(&[request, after.clone()].concat())
        .unwrap();
    assert_eq!(read_exactly(&mut stream, 6), b"stream");
    assert!(read_exactly(&mut stream, TOTAL) == vec![9; TOTAL]);
    assert_eq!(read_exactly(&mut stream, after.len()), after);
    let shared = &server.server.shared;
    assert!(shared.output_bytes_max_seen.load(Ordering::SeqCst) < 2 * STREAM_PIECE_BYTES);
}

fn sockets_handed_to_another_loop_speak_tls_there(kind: LoopKind) {
    let first = TlsServer::start(kind);
    let port = first.port.clone();
    let second = Server::start(kind, |config| {
        config.listener = None;
        config.tls = Some(port);
    });
    let without = Server::start(kind, |config| config.listener = None);
    let adopted = |server: &Server| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let raw = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        server.mail(Mail::Adopt(PeerSocket {
            socket: socket.into(),
            peer,
            transport: Transport::Tls,
        }));
        raw
    };
    let client = first.authority.client(&version::TLS13, None);
    let session = |raw| {
        let name = ServerName::try_from(NAME).unwrap();
        let session = ClientConnection::new(client.clone(), name).unwrap();
        StreamOwned::new(session, raw)
    };
    exchange(&mut session(adopted(&second)), &frame(ECHO, b"there"));
    assert_refused(&mut session(adopted(&without)));
}

conformance!(
    frames_of_all_sizes_pass,
    records_may_arrive_byte_by_byte,
    plain_and_tls_are_served_side_by_side,
    many_connections_shake_hands_at_once,
    a_slow_reader_bounds_the_output_and_loses_nothing,
    a_parked_connection_is_not_received_from_without_bound,
    a_long_answer_is_produced_as_it_drains,
    sockets_handed_to_another_loop_speak_tls_there,
);

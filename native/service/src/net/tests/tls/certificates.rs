//! Who is let in, and with which files: client certificates, resumed sessions, renewed certificates.

use super::*;

/// Settings under which clients have to show a certificate of the authority.
fn with_clients(config: &mut TlsConfig) {
    config.authenticate_client = true;
    config.ca_file = Some(config.cert_file.with_file_name("ca.pem"));
}

fn clients_show_a_certificate_of_the_authority_or_are_refused(kind: LoopKind) {
    let server = TlsServer::adjusted(kind, with_clients, |_| {});
    let stranger = Authority::new("stranger").issue("app", "app");
    let friend = server.authority.issue("app", "app");
    for (round, protocol) in VERSIONS.into_iter().enumerate() {
        let connect = |identity| server.connect_as(&server.authority.client(protocol, identity));
        assert_refused(&mut connect(None));
        assert_refused(&mut connect(Some(&stranger)));
        exchange(&mut connect(Some(&friend)), &frame(ECHO, b"welcome"));
        assert_eq!(server.opened(), round as u64 + 1);
        assert_eq!(server.handshake_errors(), 2 * (round as u64 + 1));
    }
    assert_eq!(server.server.shared.handled.load(Ordering::SeqCst), 2);
}

fn named_clients_carry_the_name_in_subject_or_dns_names(kind: LoopKind) {
    let names = |config: &mut TlsConfig| {
        with_clients(config);
        config.client_names = vec!["billing".into(), "Reports.example".into()];
    };
    let server = TlsServer::adjusted(kind, names, |_| {});
    let connect = |common_name: &str, dns_name: &str| {
        let identity = server.authority.issue(common_name, dns_name);
        server.connect_as(&server.authority.client(&version::TLS13, Some(&identity)))
    };
    exchange(&mut connect("billing", "x.example"), &frame(ECHO, b"1"));
    exchange(&mut connect("x", "reports.example"), &frame(ECHO, b"2"));
    assert_refused(&mut connect("bill", "billing.example"));
    assert_refused(&mut connect("x", "x.reports.example"));
    assert_eq!((server.opened(), server.handshake_errors()), (2, 2));
}

fn authorities_may_lie_in_a_directory(kind: LoopKind) {
    let directory = |config: &mut TlsConfig| {
        with_clients(config);
        let path = config.cert_file.with_file_name("authorities");
        std::fs::create_dir(&path).unwrap();
        std::fs::rename(config.ca_file.take().unwrap(), path.join("one.pem")).unwrap();
        std::fs::write(path.join("two.pem"), Authority::new("two").pem).unwrap();
        config.ca_path = Some(path);
    };
    let server = TlsServer::adjusted(kind, directory, |_| {});
    let friend = server.authority.issue("app", "app");
    let client = server.authority.client(&version::TLS12, Some(&friend));
    exchange(&mut server.connect_as(&client), &frame(ECHO, b"found"));
}

fn sessions_are_resumed_until_the_certificate_changes(kind: LoopKind) {
    for protocol in VERSIONS {
        let server = TlsServer::start(kind);
        let client = server.authority.client(protocol, None);
        let handshake = || {
            let mut stream = server.connect_as(&client);
            // Behind it the tickets have come too.
            exchange(&mut stream, &frame(ECHO, b"again"));
            stream.conn.handshake_kind()
        };
        assert_eq!(handshake(), Some(HandshakeKind::Full));
        assert_eq!(handshake(), Some(HandshakeKind::Resumed));
        assert_eq!(server.stats.resumed.load(Ordering::SeqCst), 1);
        server.files.issue(&server.authority);
        server.port.refresh();
        assert_eq!(handshake(), Some(HandshakeKind::Full));
    }
}

fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not(kind: LoopKind) {
    let server = TlsServer::start(kind);
    let shown = || {
        let mut stream = server.connect(&version::TLS13);
        exchange(&mut stream, &frame(ECHO, b"who"));
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let mut open = server.connect(&version::TLS13);
    exchange(&mut open, &frame(ECHO, b"before"));
    let first = shown();
    server.port.refresh();
    assert_eq!(shown(), first, "no file has changed");

    server.files.issue(&server.authority);
    assert_eq!(shown(), first, "nobody has looked");
    server.port.refresh();
    let second = shown();
    assert_ne!(second, first);

    // The key of another certificate: half of a renewal.
    let other = server.authority.issue(NAME, NAME);
    server.files.put("key.pem", &other.key);
    server.port.refresh();
    assert_eq!(shown(), second);
    server.files.put("cert.pem", &other.certificate);
    server.port.refresh();
    let third = shown();
    assert_ne!(third, second);

    server.files.put("cert.pem", "nonsense");
    server.port.refresh();
    assert_eq!(shown(), third);
    exchange(&mut open, &frame(ECHO, b"after all of it"));
}

conformance!(
    clients_show_a_certificate_of_the_authority_or_are_refused,
    named_clients_carry_the_name_in_subject_or_dns_names,
    authorities_may_lie_in_a_directory,
    sessions_are_resumed_until_the_certificate_changes,
    a_renewed_certificate_is_taken_over_and_a_broken_one_is_not,
);

#[test]
fn files_that_cannot_be_used_are_refused_with_the_reason() {
    let authority = Authority::new("authority");
    let refused = |break_it: &dyn Fn(&Files, &mut TlsConfig), says: &str| {
        let files = Files::new(&authority);
        let mut config = files.config();
        break_it(&files, &mut config);
        match TlsPort::open(config, Arc::default()) {
            Ok(_) => panic!("it was accepted; expected: {says}"),
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains(NAME) && message.contains(says),
                    "{message}"
                );
            }
        }
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    refused(
        &|_, config| config.cert_file = "/no/such.pem".into(),
        "/no/such.pem cannot be read: No such file",
    );
    refused(
        &|_, config| config.key_file = "/no/key.pem".into(),
        "/no/key.pem cannot be read: No such file",
    );
    refused(
        &|files, _| files.put("cert.pem", "nonsense"),
        "cert.pem holds no certificate in PEM",
    );
    refused(
        &|files, _| files.put("key.pem", "nonsense"),
        "key.pem holds no private key in PEM",
    );
    refused(
        &|files, _| files.put("key.pem", encrypted),
        "key.pem is encrypted",
    );
    let mangled = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    refused(
        &|files, _| files.put("cert.pem", mangled),
        "cert.pem is not PEM",
    );
    let stranger = authority.issue(NAME, NAME).key;
    refused(
        &|files, _| files.put("key.pem", &stranger),
        "is not that of the certificate in",
    );
    refused(
        &|_, config| config.authenticate_client = true,
        "no certificate to check those of clients against",
    );
    let without_authority = |files: &Files, config: &mut TlsConfig| {
        with_clients(config);
        files.put("ca.pem", "");
    };
    refused(&without_authority, "ca.pem holds no certificate in PEM");
}

//! From the files of a TLS section to the settings that connections begin with.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion, version,
};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::{TlsConfig, TlsError, TlsProtocol};

/// From when on the end of a certificate is warned about.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// What tells that a file is another one, or has other content; `None` for one that is not there.
pub(super) type FileStamp = Option<(PathBuf, u64, u64, i64, i64)>;

/// The state of every file that the settings are made from.
pub(super) fn stamps(config: &TlsConfig) -> Vec<FileStamp> {
    let single = [&config.cert_file, &config.key_file];
    let mut files: Vec<PathBuf> = single.into_iter().chain(&config.ca_file).cloned().collect();
    if let Some(directory) = &config.ca_path {
        files.extend(files_in(directory).unwrap_or_default());
    }
    let stamp = |file: PathBuf| {
        let state = fs::metadata(&file).ok()?;
        let (seconds, nanoseconds) = (state.mtime(), state.mtime_nsec());
        Some((file, state.ino(), state.len(), seconds, nanoseconds))
    };
    files.into_iter().map(stamp).collect()
}

/// In a fixed order.
fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// Reads the files and checks that they work together.
pub(super) fn load(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let refused = |source| TlsError::Refused {
        name: config.name.clone(),
        source,
    };
    let chain = certificates(config, &config.cert_file)?;
    warn_of_expiry(config, &chain);
    let key = private_key(config)?;
    let provider = Arc::new(default_provider());
    let versions: Vec<_> = config.protocols.iter().map(version_of).collect();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(refused)?;
    let builder = if config.authenticate_client {
        let roots = Arc::new(authorities(config)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|_| TlsError::NoAuthority {
                name: config.name.clone(),
            })?;
        builder.with_client_cert_verifier(Arc::new(NamedClients {
            verifier,
            names: config.client_names.clone(),
        }))
    } else {
        builder.with_no_client_auth()
    };
    let mut settings = builder
        .with_single_cert(chain, key)
        .map_err(|source| match source {
            Error::InconsistentKeys(_) => TlsError::KeyMismatch {
                name: config.name.clone(),
                cert_file: config.cert_file.clone(),
                key_file: config.key_file.clone(),
            },
            source => refused(source),
        })?;
    // Sessions are kept by clients, encrypted with a key that is made here and changed by the hour:
    // nothing is stored a client, and no lock is taken a handshake.
    settings.ticketer = Ticketer::new().map_err(refused)?;
    Ok(settings)
}

fn version_of(protocol: &TlsProtocol) -> &'static SupportedProtocolVersion {
    match protocol {
        TlsProtocol::V12 => &version::TLS12,
        TlsProtocol::V13 => &version::TLS13,
    }
}

fn unusable(config: &TlsConfig, file: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Unusable {
        name: config.name.clone(),
        file: file.to_owned(),
        problem: problem.into(),
    }
}

fn read(config: &TlsConfig, file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        name: config.name.clone(),
        file: file.to_owned(),
        source,
    };
    fs::read(file).map(Zeroizing::new).map_err(unreadable)
}

/// The certificates of a file, at least one.
fn certificates(config: &TlsConfig, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(config, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(config, file, "holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(config, file, format!("is not PEM: {error}"))),
    }
}

fn private_key(config: &TlsConfig) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = &config.key_file;
    let text = read(config, file)?;
    let is_encrypted = |text: &[u8]| {
        let marks: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
        let holds = |mark: &&[u8]| text.windows(mark.len()).any(|piece| piece == *mark);
        marks.iter().any(holds)
    };
    if is_encrypted(&text) {
        let problem = "is encrypted, which is not supported (openssl pkey -in FILE -out PLAIN)";
        return Err(unusable(config, file, problem));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(config, file, "holds no private key in PEM"),
        error => unusable(config, file, format!("is not PEM: {error}")),
    })
}

/// The certificates that those of clients are checked against.
fn authorities(config: &TlsConfig) -> Result<RootCertStore, TlsError> {
    let mut files: Vec<PathBuf> = config.ca_file.iter().cloned().collect();
    if let Some(directory) = &config.ca_path {
        let found = files_in(directory).map_err(|source| TlsError::Unreadable {
            name: config.name.clone(),
            file: directory.clone(),
            source,
        })?;
        files.extend(found);
    }
    let mut roots = RootCertStore::empty();
    for file in files {
        for certificate in certificates(config, &file)? {
            roots.add(certificate).map_err(|error| {
                unusable(
                    config,
                    &file,
                    format!("holds a certificate that cannot be an authority: {error}"),
                )
            })?;
        }
    }
    match roots.is_empty() {
        false => Ok(roots),
        true => Err(TlsError::NoAuthority {
            name: config.name.clone(),
        }),
    }
}

/// A node with a certificate that clients refuse is better than no node: some do not check.
fn warn_of_expiry(config: &TlsConfig, chain: &[CertificateDer<'_>]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs() as i64;
    let (name, file) = (&config.name, config.cert_file.display());
    for certificate in chain {
        let Some(parsed) = parse(certificate) else {
            // What cannot be parsed is refused when it is needed.
            continue;
        };
        let (begins, ends) = (parsed.validity().not_before, parsed.validity().not_after);
        let subject = parsed.subject();
        if ends.timestamp() < now {
            tracing::warn!(name, %file, %subject, %ends, "a certificate has expired: clients will refuse it");
        } else if begins.timestamp() > now {
            tracing::warn!(name, %file, %subject, %begins, "a certificate is not valid yet: clients will refuse it");
        } else if ends.timestamp() < now + EXPIRY_WARNING.as_secs() as i64 {
            tracing::warn!(name, %file, %subject, %ends, "a certificate will expire soon");
        }
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed)
}

#[derive(Debug, Error)]
#[error("the client's certificate carries none of the names {0:?}")]
struct OtherClient(Vec<String>);

/// Accepts certificates of the authorities; with names, only those that carry one of them.
#[derive(Debug)]
struct NamedClients {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl NamedClients {
    fn are_named(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let Some(parsed) = parse(certificate) else {
            return false;
        };
        let wanted = |name: &str| self.names.iter().any(|it| it.eq_ignore_ascii_case(name));
        let mut common_names = parsed.subject().iter_common_name();
        if common_names.any(|name| name.as_str().is_ok_and(wanted)) {
            return true;
        }
        let Ok(Some(alternative)) = parsed.subject_alternative_name() else {
            return false;
        };
        let mut names = alternative.value.general_names.iter();
        names.any(|name| matches!(name, GeneralName::DNSName(name) if wanted(name)))
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        if self.are_named(end_entity) {
            return Ok(verified);
        }
        let reason = OtherError(Arc::new(OtherClient(self.names.clone())));
        Err(Error::InvalidCertificate(CertificateError::Other(reason)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

//! TLS for the front door and for links: rustls with ring; certificates and keys from PEM files.
//!
//! **Operation**: a server reads its files again when they have changed, before the next handshake;
//! connections that are open keep what they began with. A client reads its files for each
//! connection. So a renewed certificate or revocation list needs no restart. A list that is over still
//! counts: a node that gets no newer one must not turn everybody away.

use crate::stamp::Stamp;
use citybrain_shared::config::{self, ClientName};
use citybrain_shared::words::with_causes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::VerifierBuilderError;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
pub use tokio_rustls::server::TlsStream as Stream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// The log tells of an address whose certificate is refused so often, ...
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// ... and of so many addresses within that time.
const TOLD_MAX: usize = 1_000;

/// Files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read `{path}` as PEM")]
    File { path: PathBuf, source: pem::Error },
    #[error("`{path}` has no certificate (`-----BEGIN CERTIFICATE-----`)")]
    Empty { path: PathBuf },
    #[error("`{path}` holds something that is no X.509 certificate")]
    NotX509 { path: PathBuf },
    #[error("the certificate in `{cert}` and the key in `{key}` do not belong together")]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("`{cert}` and `{key}` cannot be used")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the certificates in `{path}` cannot be used to verify others: {why}")]
    Ca { path: PathBuf, why: String },
    #[error("`{path}` has no revocation list that can be used: {why}")]
    Revoked { path: PathBuf, why: String },
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

impl Validity {
    pub fn holds(&self, at: SystemTime) -> bool {
        self.from <= at && at <= self.until
    }
}

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a server shows, and whom it wants to see.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    pub pair: Pair,
    /// Those who sign clients' certificates; without, clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// The revocation lists of those.
    pub client_crl: Option<PathBuf>,
    pub client_required: bool,
    pub client_name: ClientName,
}

impl ServerFiles {
    /// Of the API; `None`: it speaks no TLS. A client may show a token instead of a certificate.
    pub fn of_api(api: &config::Api) -> Option<ServerFiles> {
        let pair = Pair { cert: api.cert_file.clone()?, key: api.key_file.clone()? };
        Some(ServerFiles {
            pair,
            client_ca: api.client_ca_file.clone(),
            client_crl: api.client_crl_file.clone(),
            client_required: false,
            client_name: api.client_name,
        })
    }

    /// `None`: the listener speaks no TLS.
    pub fn of(listener: &config::Listener) -> Option<ServerFiles> {
        let pair = Pair { cert: listener.cert_file.clone()?, key: listener.key_file.clone()? };
        listener.protocol.is_tls().then(|| ServerFiles {
            pair,
            client_ca: listener.client_ca_file.clone(),
            client_crl: listener.client_crl_file.clone(),
            client_required: listener.client_required,
            client_name: listener.client_name,
        })
    }
}

/// Whom a client trusts, and what it shows.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    pub ca: PathBuf,
    pub pair: Option<Pair>,
}

impl ClientFiles {
    /// `None`: without a CA there is nobody to trust.
    pub fn of_parent(p: &config::Parent) -> Option<ClientFiles> {
        ClientFiles::of(&p.ca_file, &p.cert_file, &p.key_file)
    }

    /// As [`ClientFiles::of_parent`], for an outside broker.
    pub fn of_broker(b: &config::Broker) -> Option<ClientFiles> {
        ClientFiles::of(&b.ca_file, &b.cert_file, &b.key_file)
    }

    fn of(ca: &Option<PathBuf>, cert: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<ClientFiles> {
        Some(ClientFiles { ca: ca.clone()?, pair: Pair::of(cert, key) })
    }

    /// # Errors
    /// When the files cannot be read, or do not fit together.
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        client_config(roots(&self.ca)?, self.pair.as_ref())
    }
}

fn client_config(roots: RootCertStore, pair: Option<&Pair>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = pair.read()?;
            builder.with_client_auth_cert(chain, key).map_err(|e| pair.unfit(e))?
        }
    };
    Ok(Arc::new(config))
}

/// A client of our own, without a library for what it speaks.
#[derive(Clone)]
pub struct Client(TlsConnector);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// It trusts whom these certificates (DER) have signed, and shows `pair`.
    ///
    /// # Errors
    /// When the pair cannot be read, or does not fit together.
    pub fn new(trusted: Vec<Vec<u8>>, pair: Option<&Pair>) -> Result<Client, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.into_iter().map(CertificateDer::from));
        Ok(Client(TlsConnector::from(client_config(roots, pair)?)))
    }

    /// The handshake; `host` is the name or address that the server's certificate must have.
    ///
    /// # Errors
    /// What went wrong; see [`is_final`].
    pub async fn connect<S>(&self, host: &str, socket: S) -> io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no name of a host: {e}")))?;
        self.0.connect(name, socket).await
    }
}

/// Would the same certificates fail again, whenever it is tried?
pub fn is_final(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => true,
        // What the other side says of ours; it may have other troubles, which pass.
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired
        ),
        _ => false,
    }
}

impl Pair {
    /// `None` unless both are there.
    pub fn of(cert: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<Pair> {
        cert.clone().zip(key.clone()).map(|(cert, key)| Pair { cert, key })
    }

    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let chain = certificates(&self.cert)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|source| Error::File { path: self.key.clone(), source })?;
        Ok((chain, key))
    }

    fn unfit(&self, source: rustls::Error) -> Error {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        match source {
            rustls::Error::InconsistentKeys(_) => Error::Mismatch { cert, key },
            source => Error::Pair { cert, key, source },
        }
    }
}

/// One listener's side of TLS.
pub struct Server {
    files: ServerFiles,
    current: Mutex<(Stamps, TlsAcceptor)>,
    told: Told,
}

type Stamps = Vec<Option<Stamp>>;

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Server {
    /// # Errors
    /// When the files cannot be read, or do not fit together.
    pub fn open(files: ServerFiles) -> Result<Server, Error> {
        let stamps = files.stamps();
        let acceptor = files.acceptor()?;
        Ok(Server { files, current: Mutex::new((stamps, acceptor)), told: Told::default() })
    }

    /// For a new connection: with the files as they are now, if they are good.
    fn acceptor(&self) -> TlsAcceptor {
        let now = self.files.stamps();
        let mut current = self.current.lock();
        if now != current.0 {
            current.0 = now;
            match self.files.acceptor() {
                Ok(new) => {
                    tracing::info!(cert = %self.files.pair.cert.display(), "Read the TLS files again.");
                    current.1 = new;
                }
                // Half of a change may be there; the other half changes the files again.
                Err(error) => {
                    tracing::warn!(error = %with_causes(&error), "The changed TLS files are of no use; the ones before stay.")
                }
            }
        }
        current.1.clone()
    }

    /// Tells the log of a handshake that failed. Whoever shows a certificate means to come in, and somebody must know
    /// that he does not: such a line comes once a minute for each address, as a device tries again and again. Of all
    /// others, who may be anybody, only `debug` tells.
    pub fn tell_failed(&self, peer: IpAddr, error: &io::Error) {
        if is_refused_certificate(error) && self.told.is_news(peer) {
            tracing::warn!(%peer, %error, "A client's certificate was refused in the TLS handshake.");
        } else {
            tracing::debug!(%peer, %error, "A TLS or WebSocket handshake failed.");
        }
    }

    /// The handshake, and the name in the client's certificate if it has shown one.
    ///
    /// # Errors
    /// What went wrong; the client has been told, as far as TLS has a word for it.
    pub async fn accept<S>(&self, socket: S) -> io::Result<(Stream<S>, Option<Arc<str>>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor().accept(socket).await?;
        let name = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(certificate) => match client_name(certificate, self.files.client_name) {
                Some(name) => Some(name.into()),
                None => return Err(io::Error::other(Nameless)),
            },
        };
        Ok((stream, name))
    }
}

/// Addresses of whose refused certificates the log has lately told.
#[derive(Default)]
struct Told(Mutex<HashMap<IpAddr, Instant>>);

impl Told {
    fn is_news(&self, peer: IpAddr) -> bool {
        let mut told = self.0.lock();
        told.retain(|_, at| at.elapsed() < TOLD_EVERY);
        told.len() < TOLD_MAX && told.insert(peer, Instant::now()).is_none()
    }
}

/// Has the other side shown a certificate that is not taken?
fn is_refused_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref();
    let by_rustls =
        cause.and_then(|e| e.downcast_ref()).is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)));
    by_rustls || cause.is_some_and(|e| e.is::<Nameless>())
}

/// A certificate that names nobody is no user.
#[derive(Debug, thiserror::Error)]
#[error("the client's certificate has no name of the configured kind")]
struct Nameless;

impl ServerFiles {
    fn stamps(&self) -> Stamps {
        let files = [Some(&self.pair.cert), Some(&self.pair.key), self.client_ca.as_ref(), self.client_crl.as_ref()];
        files.into_iter().flatten().map(|path| Stamp::of(path)).collect()
    }

    /// # Errors
    /// When the files cannot be read, or do not fit together.
    fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| self.pair.unfit(e))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(path)?.into(), provider);
                let verifier = if self.client_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = match &self.client_crl {
                    None => verifier,
                    Some(path) => verifier.with_crls(revoked(path)?).only_check_end_entity_revocation(),
                };
                let verifier = verifier.build().map_err(|e| match (e, &self.client_crl) {
                    (VerifierBuilderError::InvalidCrl(e), Some(path)) => {
                        Error::Revoked { path: path.clone(), why: format!("{e:?}") }
                    }
                    (e, _) => Error::Ca { path: path.clone(), why: e.to_string() },
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = self.pair.read()?;
        let config = builder.with_single_cert(chain, key).map_err(|e| self.pair.unfit(e))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The one provider of cryptography, for whoever builds TLS elsewhere.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates in a PEM file, each as DER.
///
/// # Errors
/// When there is none, or it does not read.
pub fn trusted(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    Ok(certificates(path)?.iter().map(|c| c.to_vec()).collect())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let all = CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if all.is_empty() { Err(Error::Empty { path: path.to_owned() }) } else { Ok(all) }
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| Error::Ca { path: path.to_owned(), why: e.to_string() })?;
    }
    Ok(roots)
}

/// The revocation lists in a PEM file; at least one.
fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let lists = CertificateRevocationListDer::pem_file_iter(path).map_err(file)?;
    let lists = lists.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if lists.is_empty() {
        return Err(Error::Revoked { path: path.to_owned(), why: "no `-----BEGIN X509 CRL-----`".into() });
    }
    Ok(lists)
}

/// From when until when the revocation lists in the file are the newest: of several, what all are.
///
/// # Errors
/// When there is none.
pub fn lists_validity(path: &Path) -> Result<Validity, Error> {
    let time = |s: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(s).unwrap_or(0));
    let mut all = Validity { from: UNIX_EPOCH, until: time(i64::from(u32::MAX)) };
    for der in revoked(path)? {
        let (_, list) = CertificateRevocationList::from_der(&der)
            .map_err(|e| Error::Revoked { path: path.to_owned(), why: e.to_string() })?;
        all.from = all.from.max(time(list.last_update().timestamp()));
        all.until = all.until.min(list.next_update().map_or(all.until, |t| time(t.timestamp())));
    }
    Ok(all)
}

/// How long the first certificate in the file is good.
///
/// # Errors
/// When there is none.
pub fn validity(path: &Path) -> Result<Validity, Error> {
    let first = certificates(path)?.remove(0);
    let (_, certificate) = X509Certificate::from_der(&first).map_err(|_| Error::NotX509 { path: path.to_owned() })?;
    let time = |s: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(s).unwrap_or(0));
    let v = certificate.validity();
    Ok(Validity { from: time(v.not_before.timestamp()), until: time(v.not_after.timestamp()) })
}

/// The user that the first certificate in the file makes of its owner; `None`: it has no such name.
///
/// # Errors
/// When there is no certificate.
pub fn user_of(path: &Path, kind: ClientName) -> Result<Option<String>, Error> {
    Ok(client_name(&certificates(path)?.remove(0), kind))
}

/// The first name of that kind in a certificate.
fn client_name(certificate: &CertificateDer<'_>, kind: ClientName) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = match kind {
        ClientName::CommonName => certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned(),
        ClientName::Dns | ClientName::Email | ClientName::Uri => {
            let names = &certificate.subject_alternative_name().ok()??.value.general_names;
            let of_kind = |n: &GeneralName<'_>| match (kind, n) {
                (ClientName::Dns, GeneralName::DNSName(s))
                | (ClientName::Email, GeneralName::RFC822Name(s))
                | (ClientName::Uri, GeneralName::URI(s)) => Some((*s).to_owned()),
                _ => None,
            };
            names.iter().find_map(of_kind)?
        }
    };
    (!name.is_empty() && !name.contains('\0')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn made(params: &CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_client_is_called_what_config_says_its_certificate_calls_it() {
        let mut params = CertificateParams::new(vec!["lamp.example".to_owned(), "b.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://city/lamp".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("lamp@city".try_into().unwrap()));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "a city");
        assert_eq!(client_name(&made(&params), ClientName::CommonName), None);
        params.distinguished_name.push(DnType::CommonName, "灯-7");
        let made = made(&params);
        let name = |kind| client_name(&made, kind);
        assert_eq!(name(ClientName::CommonName).as_deref(), Some("灯-7"));
        assert_eq!(name(ClientName::Dns).as_deref(), Some("lamp.example"));
        assert_eq!(name(ClientName::Uri).as_deref(), Some("spiffe://city/lamp"));
        assert_eq!(name(ClientName::Email).as_deref(), Some("lamp@city"));
    }

    #[test]
    fn files_of_no_use_say_what_is_wrong_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(path("cert"), cert.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        std::fs::write(path("other"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        std::fs::write(path("rubbish"), "rubbish").unwrap();
        let open = |cert: &str, key: &str, ca: Option<&str>, crl: Option<&str>| {
            let pair = Pair { cert: path(cert), key: path(key) };
            let client_ca = ca.map(path);
            let client_crl = crl.map(path);
            let files =
                ServerFiles { pair, client_ca, client_crl, client_required: true, client_name: ClientName::CommonName };
            Server::open(files)
                .map(drop)
                .map_err(|e| with_causes(&e).replace(&format!("{}/", dir.path().display()), ""))
        };
        assert_eq!(open("cert", "key", Some("cert"), None), Ok(()));
        let no = |cert, key, ca| open(cert, key, ca, None).unwrap_err();
        assert_eq!(
            no("cert", "other", None),
            "the certificate in `cert` and the key in `other` do not belong together"
        );
        assert_eq!(no("rubbish", "key", None), "`rubbish` has no certificate (`-----BEGIN CERTIFICATE-----`)");
        assert!(no("cert", "rubbish", None).starts_with("cannot read `rubbish` as PEM: "));
        assert!(no("cert", "nowhere", None).starts_with("cannot read `nowhere` as PEM: "));
        assert!(no("cert", "key", Some("rubbish")).starts_with("`rubbish` has no certificate"));
        // A list that is none would be no list at all.
        for none in ["rubbish", "cert"] {
            let said = open("cert", "key", Some("cert"), Some(none)).unwrap_err();
            assert!(said.starts_with(&format!("`{none}` has no revocation list")), "{said}");
        }
        let v = validity(&path("cert")).unwrap();
        assert!(v.from < SystemTime::now() && v.until > SystemTime::now());
    }
}

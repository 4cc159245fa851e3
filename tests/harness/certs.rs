//! Certificates made for a test, and TLS and WebSocket connections with a client's own code.

use super::PATIENCE;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Bytes, Error, Message, WebSocket};

/// Who signs certificates, with a folder for the files.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    pub pem: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub fn new(dir: &Path, name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        let pem = dir.join(format!("{name}.pem"));
        std::fs::write(&pem, cert.pem()).expect("it is written");
        Ca { issuer: Issuer::new(params, key), dir: dir.to_owned(), pem }
    }

    /// A certificate of this common name, good for `localhost` and 127.0.0.1, in files called `file`.
    pub fn issue(&self, file: &str, common_name: &str) -> Pair {
        self.issue_until(file, common_name, 2100)
    }

    /// As [`Ca::issue`]; it ends with the year before `year`.
    pub fn issue_until(&self, file: &str, common_name: &str, year: i32) -> Pair {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(file, params)
    }

    /// A certificate that is good for this host alone.
    pub fn issue_for(&self, file: &str, host: &str) -> Pair {
        self.sign(file, CertificateParams::new(vec![host.to_owned()]).expect("a good name"))
    }

    /// A certificate with this serial number, to be revoked by it.
    pub fn issue_numbered(&self, file: &str, number: u64) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, file);
        params.serial_number = Some(number.into());
        self.sign(file, params)
    }

    /// The list of revoked numbers, in a file called `file`, good until the year before `year` ends.
    pub fn revoke(&self, file: &str, numbers: &[u64], year: i32) -> PathBuf {
        let revoked = |n: &u64| RevokedCertParams {
            serial_number: (*n).into(),
            revocation_time: rcgen::date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2000, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        let path = self.dir.join(format!("{file}.pem"));
        std::fs::write(&path, list.pem().expect("it is PEM")).expect("it is written");
        path
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair { cert: self.dir.join(format!("{file}.pem")), key: self.dir.join(format!("{file}-key.pem")) };
        std::fs::write(&pair.key, key.serialize_pem()).expect("it is written");
        std::fs::write(&pair.cert, cert.pem()).expect("it is written");
        pair
    }

    /// A client that trusts this CA, and shows `pair`.
    pub fn client(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.pem).expect("a certificate")).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots);
        let config = match pair {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_file(&pair.cert).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                config.with_client_auth_cert(vec![cert], key).expect("they fit")
            }
        };
        Arc::new(config)
    }
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands.
///
/// # Errors
/// What the client finds wrong with the server, or the server's alert.
pub fn tls(port: u16, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(config, name).expect("a good config");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(StreamOwned::new(connection, socket))
}

/// The bytes of a WebSocket's binary messages, each write being one message.
pub struct Web<S: Read + Write> {
    socket: WebSocket<S>,
    rest: Bytes,
}

/// # Errors
/// How the server refuses.
pub fn web<S: Read + Write>(
    stream: S,
    protocol: Option<&str>,
    origin: Option<&str>,
) -> Result<Web<S>, tungstenite::Error> {
    let mut request = "ws://localhost/mqtt".into_client_request()?;
    for (name, value) in [("Sec-WebSocket-Protocol", protocol), ("Origin", origin)] {
        if let Some(value) = value {
            request.headers_mut().insert(name, value.parse().expect("a header"));
        }
    }
    let mut shaking = tungstenite::client(request, stream);
    loop {
        match shaking {
            Ok((socket, _)) => return Ok(Web { socket, rest: Bytes::new() }),
            Err(tungstenite::HandshakeError::Failure(error)) => return Err(error),
            Err(tungstenite::HandshakeError::Interrupted(later)) => shaking = later.handshake(),
        }
    }
}

impl<S: Read + Write> Web<S> {
    pub fn send(&mut self, message: Message) {
        self.socket.send(message).expect("it is sent");
    }
}

impl<S: Read + Write> Read for Web<S> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.rest = bytes,
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => return Ok(0),
                Ok(_) => {}
                Err(Error::Io(e)) => return Err(e),
                Err(e) => return Err(std::io::Error::new(ErrorKind::InvalidData, e)),
            }
        }
        let n = self.rest.len().min(buf.len());
        buf[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

impl<S: Read + Write> Write for Web<S> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.socket.send(Message::Binary(Bytes::copy_from_slice(buf))).map_err(std::io::Error::other)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

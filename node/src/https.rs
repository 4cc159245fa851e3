//! The client's side of TLS: whom it trusts, and what it shows. For the CLI, webhooks and replays alike.

use citybrain_hub::tls::{self, Client, Pair};
use citybrain_shared::words::with_causes;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Whose certificates count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that this machine trusts.
    System,
    /// Those that are signed by the certificates in this PEM file.
    File(PathBuf),
    /// Whoever answers. Only for a node on this very machine that was found by its own folder: whoever
    /// could stand in its place there could read the folder, too.
    Anybody,
}

impl Trust {
    /// A file if there is one, else the machine.
    pub fn of(file: Option<&Path>) -> Trust {
        file.map_or(Trust::System, |file| Trust::File(file.to_owned()))
    }

    /// For an agent that asks `url`. Plain HTTP reads no certificates.
    ///
    /// # Errors
    /// In words, when nobody can be trusted: the file is of no use, or the machine has no such list.
    pub fn config(&self, url: &str) -> Result<TlsConfig, String> {
        self.config_showing(url, None)
    }

    /// As [`Trust::config`]; the agent shows the certificate of `pair`.
    ///
    /// # Errors
    /// As [`Trust::config`], or when the pair does not read.
    pub fn config_showing(&self, url: &str, pair: Option<&Pair>) -> Result<TlsConfig, String> {
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
        if !url.starts_with("https://") {
            return Ok(builder.build());
        }
        let builder = builder.client_cert(pair.map(shown).transpose()?);
        if *self == Trust::Anybody {
            return Ok(builder.disable_verification(true).build());
        }
        let roots = self.roots()?.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>();
        Ok(builder.root_certs(RootCerts::from(roots)).build())
    }

    /// For a broker at `mqtts://`.
    ///
    /// # Errors
    /// As [`Trust::config_showing`].
    pub fn client(&self, pair: Option<&Pair>) -> Result<Client, String> {
        Client::new(self.roots()?, pair).map_err(|e| e.to_string())
    }

    /// The certificates that sign those of others, as DER; at least one.
    fn roots(&self) -> Result<Vec<Vec<u8>>, String> {
        let roots: Vec<Vec<u8>> = match self {
            Trust::Anybody => Vec::new(),
            Trust::File(file) => tls::trusted(file).map_err(|e| with_causes(&e))?,
            Trust::System => rustls_native_certs::load_native_certs().certs.iter().map(|der| der.to_vec()).collect(),
        };
        if roots.is_empty() {
            return Err("this machine trusts no certificates (Debian: `apt-get install ca-certificates`)".into());
        }
        Ok(roots)
    }
}

/// Would the same certificates fail again, whenever it is tried? ureq hands on what rustls says inside an I/O error.
pub fn is_untrusted(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(e) if tls::is_final(e))
}

/// A web address without what stands behind or before its host: that may be a secret of who gave it, as a
/// token in a query is.
pub fn without_path(url: &str) -> String {
    let Some(host) = url.find("://").map(|at| at + 3) else { return url.to_owned() };
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    let from = url[host..end].rfind('@').map_or(host, |at| host + at + 1);
    let path = if matches!(&url[end..], "" | "/") { &url[end..] } else { "/…" };
    format!("{}{}{path}", &url[..host], &url[from..end])
}

fn shown(pair: &Pair) -> Result<ClientCert, String> {
    let chain = tls::trusted(&pair.cert).map_err(|e| with_causes(&e))?;
    let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let key = std::fs::read(&pair.key).map_err(|e| format!("cannot read `{}`: {e}", pair.key.display()))?;
    let key = PrivateKey::from_pem(&key).map_err(|e| format!("cannot use `{}`: {e}", pair.key.display()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_web_address_only_its_host_is_told() {
        for (url, told) in [
            ("https://oapi.example/robot/send?access_token=s3cret", "https://oapi.example/…"),
            ("http://me:pw@h:8080?x", "http://h:8080/…"),
            ("https://h/", "https://h/"),
            ("https://h:1", "https://h:1"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_path(url), told);
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named_and_plain_http_needs_none() {
        let none = Trust::File("/nowhere/ca.pem".into());
        assert!(none.config("https://h").unwrap_err().contains("/nowhere/ca.pem"));
        assert!(none.config("http://h").is_ok());
        assert!(Trust::Anybody.config("https://h").unwrap().disable_verification());
        assert_eq!(Trust::of(None), Trust::System);
    }
}

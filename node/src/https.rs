//! The client's side of HTTPS: whom it trusts. For the CLI, webhooks and replays alike.

use citybrain_hub::tls;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

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
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
        if !url.starts_with("https://") {
            return Ok(builder.build());
        }
        let roots: Vec<Certificate<'static>> = match self {
            Trust::Anybody => return Ok(builder.disable_verification(true).build()),
            Trust::File(file) => {
                let all = tls::trusted(file).map_err(|e| e.to_string())?;
                all.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
            }
            Trust::System => {
                let found = rustls_native_certs::load_native_certs();
                found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
            }
        };
        if roots.is_empty() {
            return Err("this machine trusts no certificates (Debian: `apt-get install ca-certificates`)".into());
        }
        Ok(builder.root_certs(RootCerts::from(roots)).build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_of_no_use_is_named_and_plain_http_needs_none() {
        let none = Trust::File("/nowhere/ca.pem".into());
        assert!(none.config("https://h").unwrap_err().contains("/nowhere/ca.pem"));
        assert!(none.config("http://h").is_ok());
        assert!(Trust::Anybody.config("https://h").unwrap().disable_verification());
        assert_eq!(Trust::of(None), Trust::System);
    }
}

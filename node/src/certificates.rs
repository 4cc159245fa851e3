//! The certificates and revocation lists that a config names: one list for whoever looks at them.

use citybrain_hub::tls::{self, Validity};
use citybrain_shared::config::Config;
use std::path::PathBuf;
use std::time::Duration;

/// One that ends within this time is worth a word: a month is what most who sign them renew in.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// A file of certificates, or of lists of those that were revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its key in the config, such as `listener.0.cert_file`.
    pub key: String,
    pub file: PathBuf,
    pub is_list: bool,
}

impl Named {
    /// # Errors
    /// When the file does not read, or has none.
    pub fn validity(&self) -> Result<Validity, tls::Error> {
        if self.is_list { tls::lists_validity(&self.file) } else { tls::validity(&self.file) }
    }
}

/// All that the config names, certificates first.
pub fn of(config: &Config) -> Vec<Named> {
    let listeners = || config.listener.iter().enumerate();
    let parent = config.parent.as_ref().and_then(|p| p.cert_file.as_ref());
    let certificates = listeners().map(|(n, l)| (format!("listener.{n}.cert_file"), l.cert_file.as_ref())).chain([
        ("api.cert_file".to_owned(), config.api.cert_file.as_ref()),
        ("broker.cert_file".to_owned(), config.broker.cert_file.as_ref()),
        ("parent.cert_file".to_owned(), parent),
    ]);
    let lists = listeners()
        .map(|(n, l)| (format!("listener.{n}.client_crl_file"), l.client_crl_file.as_ref()))
        .chain([("api.client_crl_file".to_owned(), config.api.client_crl_file.as_ref())]);
    let named = |is_list: bool| {
        move |(key, file): (String, Option<&PathBuf>)| Some(Named { key, file: file?.clone(), is_list })
    };
    certificates.filter_map(named(false)).chain(lists.filter_map(named(true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::config::{Variables, parse};

    #[test]
    fn every_certificate_and_list_of_a_config_is_named_by_its_key() {
        let text = "[node]\naddress = \"c/s\"\ndata = \"d\"\n[api]\ncert_file = \"a\"\nkey_file = \"k\"\n\
                    [parent]\nurl = \"mqtts://h:1\"\nca_file = \"ca\"\ncert_file = \"p\"\nkey_file = \"k\"\n\
                    [[listener]]\nlisten = \"127.0.0.1:1\"\nprotocol = \"mqtts\"\ncert_file = \"l\"\nkey_file = \"k\"\n\
                    client_ca_file = \"ca\"\nclient_crl_file = \"r\"\n";
        let all = of(&parse(text, &Variables::new()).config.unwrap());
        let keys: Vec<(&str, bool)> = all.iter().map(|n| (n.key.as_str(), n.is_list)).collect();
        assert_eq!(
            keys,
            [
                ("listener.0.cert_file", false),
                ("api.cert_file", false),
                ("parent.cert_file", false),
                ("listener.0.client_crl_file", true)
            ]
        );
    }
}

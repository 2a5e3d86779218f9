//! Who a RadSec peer is: the names in its certificate, and the name a configured client is known by.
//!
//! In: the certificate of a finished handshake, so its chain and dates hold and it was signed by our client authority. Out:
//! its names, the most specific first. Nothing here decides whether a certificate is valid.
//! Source: RFC 6614 section 2.3, RFC 5280 section 4.2.1.6.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::vocabulary::hex;

/// What a client's certificate is recognized by: `certificate = "dns:bng1.example.net"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// SHA-256 over the whole certificate: this certificate and no other.
    Sha256([u8; 32]),
    /// A URI among its alternative names, octet for octet.
    Uri(String),
    /// A DNS name among its alternative names, in small letters. A wildcard is only equal to itself.
    Dns(String),
    /// An address among its alternative names.
    Ip(IpAddr),
    /// The common name of its subject, octet for octet.
    CommonName(String),
}

/// A `certificate` that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateNameError {
    #[error("{0:?} does not say what to compare; write dns:NAME, ip:ADDRESS, uri:URI, cn:NAME or sha256:FINGERPRINT")]
    Form(String),
    #[error("{0:?} is no address")]
    Address(String),
    #[error("a SHA-256 fingerprint has 64 hexadecimal digits (colons may stand between), not {0}")]
    Fingerprint(usize),
}

impl FromStr for CertificateName {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || CertificateNameError::Form(text.chars().take(80).collect());
        let (kind, name) = text.split_once(':').ok_or_else(form)?;
        if name.is_empty() {
            return Err(form());
        }
        match kind {
            "dns" => Ok(Self::Dns(name.to_ascii_lowercase())),
            "ip" => name
                .parse::<IpAddr>()
                .map(|address| Self::Ip(address.to_canonical()))
                .map_err(|_| CertificateNameError::Address(name.chars().take(80).collect())),
            "uri" => Ok(Self::Uri(name.to_owned())),
            "cn" => Ok(Self::CommonName(name.to_owned())),
            "sha256" => {
                let digits: Vec<u8> = name.bytes().filter(|octet| *octet != b':').collect();
                let mut print = [0; 32];
                if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(CertificateNameError::Fingerprint(digits.len()));
                }
                for (octet, pair) in print.iter_mut().zip(digits.chunks_exact(2)) {
                    let digit = |at: usize| char::from(pair[at]).to_digit(16).unwrap_or(0);
                    *octet = u8::try_from(digit(0) * 16 + digit(1)).unwrap_or(0);
                }
                Ok(Self::Sha256(print))
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(print) => write!(f, "sha256:{}", hex(print)),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::CommonName(name) => write!(f, "cn:{name}"),
        }
    }
}

/// The certificate a peer showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Everything it can be recognized by; the fingerprint first, the common name last.
    pub names: Vec<CertificateName>,
    /// Whose it is, who signed it and until when it holds, for the log.
    summary: String,
}

impl Presented {
    /// Reads the names of a DER certificate. What cannot be read has its fingerprint only.
    pub fn read(der: &[u8]) -> Self {
        let print = CertificateName::Sha256(Sha256::digest(der).into());
        let Ok(certificate) = Certificate::from_der(der) else {
            return Self { names: vec![print], summary: "a certificate that cannot be read".to_owned() };
        };
        let content = &certificate.tbs_certificate;
        let mut names = vec![print];
        // A second such extension, or one that cannot be read, leaves the certificate without alternative names.
        if let Ok(Some((_, SubjectAltName(alternatives)))) = content.get::<SubjectAltName>() {
            names.extend(alternatives.iter().filter_map(alternative).take(NAMES_MAX));
        }
        names.extend(
            content
                .subject
                .0
                .iter()
                .flat_map(|part| part.0.iter())
                .filter(|part| part.oid == CN)
                .filter_map(|part| text(&part.value))
                .map(CertificateName::CommonName),
        );
        names.sort_by_key(rank);
        let summary = format!(
            "{}, signed by {}, valid until {}",
            or_nobody(&content.subject.to_string()),
            or_nobody(&content.issuer.to_string()),
            content.validity.not_after
        );
        Self { names, summary }
    }

    /// How the configuration would name it: the name an operator would choose.
    pub fn suggestion(&self) -> &CertificateName {
        // The fingerprint is always there; a name outlives the renewal of the certificate.
        self.names.get(1).unwrap_or(&self.names[0])
    }
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        write!(f, "{}; {}", self.summary, names.join(", "))
    }
}

fn rank(name: &CertificateName) -> u8 {
    match name {
        CertificateName::Sha256(_) => 0,
        CertificateName::Uri(_) => 1,
        CertificateName::Dns(_) => 2,
        CertificateName::Ip(_) => 3,
        CertificateName::CommonName(_) => 4,
    }
}

fn alternative(name: &GeneralName) -> Option<CertificateName> {
    match name {
        GeneralName::DnsName(name) => Some(CertificateName::Dns(name.as_str().to_ascii_lowercase())),
        GeneralName::UniformResourceIdentifier(uri) => Some(CertificateName::Uri(uri.as_str().to_owned())),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()?;
            Some(CertificateName::Ip(address.to_canonical()))
        }
        _ => None,
    }
}

/// A name's text in any of the string types certificates carry it in.
fn text(value: &x509_cert::der::Any) -> Option<String> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned());
    let teletex = || value.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| printable()).or_else(|_| teletex()).ok()
}

fn or_nobody(name: &str) -> &str {
    if name.is_empty() { "nobody" } else { name }
}

/// Alternative names looked at; more are not compared.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> CertificateName {
        text.parse().expect("a name")
    }

    #[test]
    fn names_are_read_as_the_configuration_writes_them() {
        assert_eq!(name("dns:BNG1.Example.net"), CertificateName::Dns("bng1.example.net".to_owned()));
        assert_eq!(name("ip:::ffff:192.0.2.1"), name("ip:192.0.2.1"));
        assert_eq!(name("uri:urn:nas:1"), CertificateName::Uri("urn:nas:1".to_owned()));
        assert_eq!(name(&format!("sha256:{}", ["0A"; 32].join(":"))), CertificateName::Sha256([10; 32]));
        for (wrong, says) in [
            ("bng1.example.net", "write dns:NAME"),
            ("dns:", "write dns:NAME"),
            ("name:x", "write dns:NAME"),
            ("ip:192.0.2", "is no address"),
            ("sha256:0a0b", "64 hexadecimal digits (colons may stand between), not 4"),
        ] {
            let error = wrong.parse::<CertificateName>().expect_err(wrong).to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let presented = Presented::read(&octets);
            prop_assert!(matches!(presented.names[0], CertificateName::Sha256(_)));
        }

        #[test]
        fn a_name_is_read_back_as_it_is_shown(print in any::<[u8; 32]>(), text in "[a-z0-9.:/-]{1,40}") {
            for name in [
                CertificateName::Sha256(print),
                CertificateName::Uri(text.clone()),
                CertificateName::Dns(text.clone()),
                CertificateName::CommonName(text),
            ] {
                prop_assert_eq!(name.to_string().parse::<CertificateName>(), Ok(name));
            }
        }
    }
}

//! Where a request of ours may go: the URL of an endpoint, and the guard of addresses that keeps it off our own network.
//!
//! A tenant writes the URL, so it must not reach what only this machine can reach. The guard judges addresses, not names:
//! a name is looked up once, and the address that passed is the one connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::vocabulary::Cidr;

/// The parts of an endpoint's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// Why a URL is none of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    #[error("must be a URL like https://billing.example/hook")]
    Shape,
    #[error("must begin with https://")]
    Scheme,
    #[error("must not hold a user name or password")]
    User,
    #[error("must not hold a fragment (#)")]
    Fragment,
    #[error("is longer than {URL_MAX} characters")]
    TooLong,
    #[error("names {0}, which is not on the public Internet")]
    Private(IpAddr),
    #[error("plain http is only for networks that the configuration allows")]
    Plain,
}

pub const URL_MAX: usize = 2000;

impl Target {
    /// Takes a URL apart. Host and port say nothing yet of whether they may be reached.
    ///
    /// **Errors**: the first thing wrong with it.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        if url.len() > URL_MAX {
            return Err(TargetError::TooLong);
        }
        // Everything a parser somewhere else could read in another way.
        if !url.is_ascii() || url.chars().any(|letter| letter.is_ascii_control() || matches!(letter, ' ' | '\\')) {
            return Err(TargetError::Shape);
        }
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Shape)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(TargetError::Scheme),
        };
        if rest.contains('#') {
            return Err(TargetError::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(TargetError::User);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (address, port) = bracketed.split_once(']').ok_or(TargetError::Shape)?;
                // A zone (`%eth0`) is no address.
                address.parse::<Ipv6Addr>().map_err(|_| TargetError::Shape)?;
                (address, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or(TargetError::Shape)?,
            None if port.is_empty() => default_port(secure),
            None => return Err(TargetError::Shape),
        };
        let named = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(named) || host.starts_with('-') {
            return Err(TargetError::Shape);
        }
        let path = match path.strip_prefix('?') {
            Some(_) => format!("/{path}"),
            None if path.is_empty() => "/".to_owned(),
            None => path.to_owned(),
        };
        Ok(Self { secure, host: host.to_ascii_lowercase(), port, path })
    }

    /// The value of `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Networks the configuration allows although they are not public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Cidr>);

impl Allowed {
    pub fn new(networks: Vec<Cidr>) -> Self {
        Self(networks)
    }

    /// Which of the addresses a name has may be connected to.
    ///
    /// **Errors**: none of them; the first is named.
    pub fn of(&self, target: &Target, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, TargetError> {
        let own = |address: &IpAddr| self.0.iter().any(|network| network.contains(address.to_canonical()));
        let passes = |address: &&IpAddr| own(address) || target.secure && is_public(**address);
        let good: Vec<IpAddr> = addresses.iter().filter(passes).copied().collect();
        match (good.is_empty(), addresses.first()) {
            (false, _) => Ok(good),
            (true, Some(first)) if is_public(*first) => Err(TargetError::Plain),
            (true, Some(first)) => Err(TargetError::Private(*first)),
            (true, None) => Err(TargetError::Shape),
        }
    }
}

/// Whether an address belongs to the public Internet: none of this machine, of a private or provider's own network, of a
/// link, of documentation; none that only carries another address (mapped, 6to4, Teredo, NAT64), for that one would not be
/// looked at; no group.
///
/// **Source**: the IANA special-purpose address registries (RFC 6890), RFC 4291, RFC 6052, RFC 8215.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, _, _)
    )
}

/// Only global unicast (2000::/3) is public, without what IETF protocols, documentation and 6to4 have of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = first & 0xe000 == 0x2000;
    // 2001::/23 holds Teredo (2001::/32), benchmarking and ORCHID.
    let reserved = first == 0x2001 && (second < 0x0200 || second == 0x0db8)
        || first == 0x2002
        || first == 0x3fff && second < 0x1000;
    global && !reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in
            ["8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2606:4700::1111", "2a00::1"]
        {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn urls_are_read_one_way_or_not_at_all() {
        let read = |url: &str| Target::parse(url).map(|target| (target.authority(), target.path));
        let good = |authority: &str, path: &str| Ok((authority.to_owned(), path.to_owned()));
        assert_eq!(read("https://Billing.example/hook?a=1"), good("billing.example", "/hook?a=1"));
        assert_eq!(read("https://billing.example"), good("billing.example", "/"));
        assert_eq!(read("https://billing.example?x"), good("billing.example", "/?x"));
        assert_eq!(read("HTTPS://[2606:4700::1]:8443/"), good("[2606:4700::1]:8443", "/"));
        assert_eq!(read("http://127.0.0.1:9/x"), good("127.0.0.1:9", "/x"));
        for (url, why) in [
            ("ftp://a.example/", TargetError::Scheme),
            ("https://user:pw@a.example/", TargetError::User),
            ("https://a.example@127.0.0.1/", TargetError::User),
            ("https://a.example/#x", TargetError::Fragment),
            ("https://", TargetError::Shape),
            ("https://a.example:0/", TargetError::Shape),
            ("https://a.example:99999/", TargetError::Shape),
            ("https://[fe80::1%25eth0]/", TargetError::Shape),
            ("https://[::1/", TargetError::Shape),
            ("https://a.example\\@127.0.0.1/", TargetError::Shape),
            ("https://a.example/\r\nHost: b", TargetError::Shape),
            ("https://ä.example/", TargetError::Shape),
            ("//a.example/", TargetError::Shape),
        ] {
            assert_eq!(Target::parse(url), Err(why), "{url}");
        }
        assert_eq!(Target::parse(&format!("https://a.example/{}", "x".repeat(URL_MAX))), Err(TargetError::TooLong));
    }

    #[test]
    fn a_name_reaches_only_addresses_that_pass() {
        let addresses =
            |list: &[&str]| list.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let secure = Target::parse("https://a.example/").expect("a URL");
        let plain = Target::parse("http://a.example/").expect("a URL");
        let nothing = Allowed::default();
        let mixed = addresses(&["10.0.0.1", "8.8.8.8"]);
        assert_eq!(nothing.of(&secure, &mixed), Ok(addresses(&["8.8.8.8"])), "the private one is left out");
        assert_eq!(nothing.of(&secure, &mixed[..1]), Err(TargetError::Private(mixed[0])));
        assert_eq!(nothing.of(&plain, &mixed[1..]), Err(TargetError::Plain));
        let local = Allowed::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        let loopback = addresses(&["127.0.0.1", "::ffff:127.0.0.1"]);
        assert_eq!(local.of(&plain, &loopback[..1]), Ok(loopback[..1].to_vec()));
        assert_eq!(local.of(&secure, &addresses(&["10.0.0.1"])), Err(TargetError::Private(mixed[0])));
    }
}

//! The first datagram of a transfer: opcode, name, mode, options. Parsed once, here; what comes out is safe to look up.

use std::time::Duration;

use super::{ACK, DATA, ERROR, ErrorCode, OACK, RRQ, WRQ, error_datagram, word};

/// A read request that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Without one leading `/`; no `..`, no backslash, no control characters. Case matters.
    pub name: String,
    pub options: Options,
}

/// What the client asked for and this server grants. `None` = not asked, or not in its range, and then not answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Octets a DATA datagram carries. RFC 2348: 8 to 65464; what was asked, at most `MOST_BLOCK_OCTETS`.
    pub block_octets: Option<u16>,
    /// RFC 2349: the time between retransmissions, 1 to 255 s.
    pub timeout: Option<Duration>,
    /// RFC 2349: the client wants to know the size.
    pub size: bool,
    /// RFC 7440: blocks sent before an ACK is awaited; what was asked, at most `MOST_WINDOW_BLOCKS`.
    pub window_blocks: Option<u16>,
}

/// A datagram that starts no transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Answer with this code and text.
    Answer(ErrorCode, &'static str),
    /// Say nothing: an ERROR, or bytes that are no TFTP at all.
    Silent,
}

/// The longest name, in octets.
pub const MOST_NAME_OCTETS: usize = 255;
/// Largest DATA payload granted: a whole Ethernet frame would do, RFC 2348's maximum is allowed for tests and links
/// that carry it.
pub const MOST_BLOCK_OCTETS: u16 = 65_464;
/// Largest window granted. Files are a few blocks; more would only let a forged request draw more traffic.
pub const MOST_WINDOW_BLOCKS: u16 = 16;

const LEAST_BLOCK_OCTETS: u16 = 8;

impl Refusal {
    /// The datagram to send, if any.
    pub fn datagram(&self) -> Option<Vec<u8>> {
        match self {
            Refusal::Answer(code, text) => Some(error_datagram(*code, text)),
            Refusal::Silent => None,
        }
    }
}

/// Reads the datagram that came to the server's well-known port.
///
/// **Errors**: `Refusal` says whether and what to answer.
pub fn parse_request(datagram: &[u8]) -> Result<Request, Refusal> {
    match word(datagram, 0) {
        Some(RRQ) => {}
        Some(WRQ) => return Err(Refusal::Answer(ErrorCode::Access, "this server is read-only")),
        Some(DATA | ACK | OACK) => return Err(Refusal::Answer(ErrorCode::UnknownTransfer, "unknown transfer")),
        Some(ERROR) | None => return Err(Refusal::Silent),
        Some(_) => return Err(Refusal::Answer(ErrorCode::Illegal, "unknown opcode")),
    }
    let malformed = Refusal::Answer(ErrorCode::Illegal, "malformed request");
    let Some(body) = datagram[2..].strip_suffix(&[0]) else { return Err(malformed) };
    let mut words = body.split(|octet| *octet == 0);
    let (Some(name), Some(mode)) = (words.next(), words.next()) else { return Err(malformed) };
    if !mode.eq_ignore_ascii_case(b"octet") {
        return Err(Refusal::Answer(ErrorCode::Illegal, "only octet mode is served"));
    }
    let name = clean_name(name).ok_or(Refusal::Answer(ErrorCode::Access, "file name not allowed"))?;
    let mut options = Options::default();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        options.grant(option, value);
    }
    Ok(Request { name, options })
}

/// A file name as it may be looked up, `None` when it must be refused.
pub fn clean_name(raw: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(raw).ok().filter(|name| name.len() <= MOST_NAME_OCTETS)?;
    let name = name.strip_prefix('/').unwrap_or(name);
    let forbidden = name.is_empty()
        || name.contains("..")
        || name.contains('\\')
        || name.starts_with('/')
        || name.chars().any(char::is_control);
    (!forbidden).then(|| name.to_owned())
}

impl Options {
    /// Takes an option over if it is known, in range and not yet given. Unknown ones are passed over. RFC 2347.
    fn grant(&mut self, option: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        let in_range = |least: u16, most: u16, granted: u16| {
            let asked =
                number().and_then(|number| u16::try_from(number).ok()).filter(|n| (least..=most).contains(n))?;
            Some(asked.min(granted))
        };
        match option.to_ascii_lowercase().as_slice() {
            b"blksize" if self.block_octets.is_none() => {
                self.block_octets = in_range(LEAST_BLOCK_OCTETS, 65_464, MOST_BLOCK_OCTETS);
            }
            b"timeout" if self.timeout.is_none() => {
                self.timeout = in_range(1, 255, 255).map(|seconds| Duration::from_secs(seconds.into()));
            }
            b"tsize" => self.size = self.size || number().is_some(),
            b"windowsize" if self.window_blocks.is_none() => {
                self.window_blocks = in_range(1, u16::MAX, MOST_WINDOW_BLOCKS);
            }
            _ => {}
        }
    }

    /// The OACK for a file of `size` octets, `None` when nothing was granted.
    pub(super) fn acknowledge(&self, size: usize) -> Option<Vec<u8>> {
        let granted = [
            ("blksize", self.block_octets.map(u64::from)),
            ("timeout", self.timeout.map(|timeout| timeout.as_secs())),
            ("tsize", self.size.then_some(size as u64)),
            ("windowsize", self.window_blocks.map(u64::from)),
        ];
        let mut out = OACK.to_be_bytes().to_vec();
        for (name, value) in granted {
            if let Some(value) = value {
                out.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
            }
        }
        (out.len() > 2).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Result<Request, Refusal> {
        parse_request(&[&[0, 1], text.as_bytes()].concat())
    }

    #[test]
    fn one_leading_slash_goes_and_the_mode_may_shout() {
        let parsed = request("/7-001122334455-abc.cm\0OcTeT\0").expect("served");
        assert_eq!(parsed, Request { name: "7-001122334455-abc.cm".to_owned(), options: Options::default() });
    }

    #[test]
    fn names_that_could_leave_the_house_are_refused() {
        let long = "a".repeat(256);
        for name in ["", "/", "//a", "../a", "a/../b", "a\\b", "a\u{1}b", "a\u{7f}", long.as_str()] {
            let answer = request(&format!("{name}\0octet\0"));
            assert_eq!(answer, Err(Refusal::Answer(ErrorCode::Access, "file name not allowed")), "{name:?}");
        }
    }

    #[test]
    fn other_modes_and_opcodes_get_their_error() {
        for mode in ["netascii", "mail", "NETASCII", ""] {
            assert!(matches!(request(&format!("a\0{mode}\0")), Err(Refusal::Answer(ErrorCode::Illegal, _))), "{mode}");
        }
        assert!(matches!(parse_request(b"\0\x02a\0octet\0"), Err(Refusal::Answer(ErrorCode::Access, _))));
        assert!(matches!(parse_request(b"\0\x04\0\x01"), Err(Refusal::Answer(ErrorCode::UnknownTransfer, _))));
        assert_eq!(parse_request(b"\0\x05\0\x01x\0"), Err(Refusal::Silent));
        assert_eq!(parse_request(b"\0"), Err(Refusal::Silent));
    }

    #[test]
    fn options_are_granted_in_their_range_and_never_above_what_was_asked() {
        let parsed = request("a\0octet\0BLKSIZE\x001448\0tsize\x000\0timeout\x003\0windowsize\x00400\0colour\0blue\0");
        let options = parsed.expect("served").options;
        assert_eq!(options.block_octets, Some(1448));
        assert_eq!(options.timeout, Some(Duration::from_secs(3)));
        assert_eq!(options.window_blocks, Some(MOST_WINDOW_BLOCKS));
        let oack = options.acknowledge(77).expect("options were granted");
        assert_eq!(oack, b"\0\x06blksize\x001448\0timeout\x003\0tsize\x0077\0windowsize\x0016\0");
        let refused = request("a\0octet\0blksize\x007\0timeout\x000\0windowsize\x000\0tsize\0x\0").expect("served");
        assert_eq!(refused.options, Options::default());
        assert_eq!(refused.options.acknowledge(1), None);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), read: bool) {
            let datagram = if read { [&[0, 1], bytes.as_slice()].concat() } else { bytes };
            if let Ok(request) = parse_request(&datagram) {
                prop_assert!(!request.name.contains("..") && !request.name.contains('\\'));
            }
        }
    }
}

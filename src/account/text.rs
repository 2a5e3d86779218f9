//! Checks of the texts an account document holds: each takes what was written and gives the value, or says what is wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::vocabulary::{Date, Exact, Timestamp};

pub(crate) const SHORT: usize = 64;
pub(crate) const NAME: usize = 128;
pub(crate) const LONG: usize = 256;
pub(crate) const SECRET_MAX: usize = 253;
const EMAIL_MAX: usize = 254;
const LOCAL_PART_MAX: usize = 64;
const LABEL_MAX: usize = 63;
const YEARS: std::ops::RangeInclusive<i16> = 1970..=2199;
const DECIMAL_MAX: usize = 24;

/// 1 to `max` characters, none of them a control character.
pub(crate) fn plain(text: &str, max: usize) -> Result<&str, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().count() > max {
        return Err(format!("is longer than {max} characters"));
    }
    if text.chars().any(is_hidden) {
        return Err("holds a control character".to_owned());
    }
    Ok(text)
}

/// A word the catalog or an operator uses as an identifier.
pub(crate) fn word(text: &str) -> Result<String, String> {
    plain(text, SHORT)?;
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))) {
        Some(c) => Err(format!("holds {c:?}; letters, digits, '-', '_', '.' and ':' are allowed")),
        None => Ok(text.to_owned()),
    }
}

/// `2026-11-01`.
pub(crate) fn date(text: &str) -> Result<Date, String> {
    let fail = || format!("{:?} is no date; write for example 2026-11-01", shown(text));
    if text.len() != 10 || !shape(text, "dddd-dd-dd") {
        return Err(fail());
    }
    let date: Date = text.parse().map_err(|_| fail())?;
    if !YEARS.contains(&date.year()) {
        return Err(format!("{text:?} is outside the years {} to {}", YEARS.start(), YEARS.end()));
    }
    Ok(date)
}

/// RFC 3339 s5.6 with any offset, kept to the microsecond.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    let fail = || format!("{:?} is no instant; write for example 2026-11-20T00:00:00Z", shown(text));
    let (day_and_time, rest) = text.split_at_checked(19).ok_or_else(fail)?;
    if !shape(day_and_time, "dddd-dd-ddTdd:dd:dd") || !is_fraction_and_offset(rest) {
        return Err(fail());
    }
    let instant: Timestamp = text.parse().map_err(|_| fail())?;
    date(&text[..10]).map_err(|_| fail())?;
    Timestamp::from_microsecond(instant.as_microsecond()).map_err(|_| fail())
}

/// An international telephone number (ITU-T E.164): plus and 7 to 15 digits, the first not zero.
pub(crate) fn phone(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or("");
    let good =
        (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if !good {
        return Err(format!("{:?} is no E.164 number; write for example +15125550100", shown(text)));
    }
    Ok(text.to_owned())
}

/// A mail address: dot-atom local part, host name with at least two labels (RFC 5321 s4.1.2). The domain is lower-cased.
pub(crate) fn email(text: &str) -> Result<String, String> {
    let fail = || format!("{:?} is no mail address", shown(text));
    let (local, domain) = text.rsplit_once('@').ok_or_else(fail)?;
    if text.len() > EMAIL_MAX || local.is_empty() || local.len() > LOCAL_PART_MAX {
        return Err(fail());
    }
    let atom = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || ATOM.contains(&b));
    if !local.split('.').all(atom) {
        return Err(fail());
    }
    Ok(format!("{local}@{}", host(domain).map_err(|_| fail())?))
}

/// A mailbox or alias of ours: a mail address, wholly in lower case, that is also safe as a directory name.
pub(crate) fn mailbox(text: &str) -> Result<String, String> {
    let address = email(text)?.to_ascii_lowercase();
    match address.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '@'))) {
        Some(c) => Err(format!("holds {c:?}; a mailbox has letters, digits, '.', '-', '_' and '+'")),
        None => Ok(address),
    }
}

/// A host name in lower case with at least two labels.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.contains('.') || !text.split('.').all(label) {
        return Err(format!("{:?} is no domain", shown(text)));
    }
    Ok(text.to_ascii_lowercase())
}

/// ISO 3166-1 alpha-2 in capitals.
pub(crate) fn country(text: &str) -> Result<String, String> {
    match text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => Err(format!("{:?} is no country; write two capitals, for example US", shown(text))),
    }
}

/// A language tag of letters, digits and hyphens (RFC 5646), for example `en` or `de-AT`.
pub(crate) fn language(text: &str) -> Result<String, String> {
    let mut subtags = text.split('-');
    let first = subtags.next().unwrap_or("");
    let good = (2..=3).contains(&first.len())
        && first.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags.all(|tag| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric()))
        && text.len() <= 35;
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!("{:?} is no language tag; write for example en or de-AT", shown(text))),
    }
}

/// An IPv4 address a host can have.
pub(crate) fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| format!("{:?} is no IPv4 address", shown(text)))?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || address.is_broadcast() {
        return Err(format!("{address} is no address for a subscriber"));
    }
    Ok(address)
}

pub(crate) fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    let address: Ipv6Addr = text.parse().map_err(|_| format!("{:?} is no IPv6 address", shown(text)))?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("{address} is no address for a subscriber"));
    }
    Ok(address)
}

/// An IPv6 prefix with no bits beyond its length, in its shortest spelling.
pub(crate) fn ipv6_prefix(text: &str) -> Result<String, String> {
    let fail = || format!("{:?} is no IPv6 prefix; write for example 2001:db8:1::/56", shown(text));
    let (address, length) = text.split_once('/').ok_or_else(fail)?;
    let address = ipv6(address).map_err(|_| fail())?;
    let length: u32 = length.parse().map_err(|_| fail())?;
    if !(8..=128).contains(&length) || length.to_string().len() + 1 != text.len() - text.find('/').unwrap_or(0) {
        return Err(fail());
    }
    if length < 128 && (address.to_bits() << length) != 0 {
        return Err(format!("{text:?} has bits beyond its length"));
    }
    Ok(format!("{address}/{length}"))
}

/// An amount or quantity as a decimal text, not negative, without rounding.
pub(crate) fn decimal(text: &str) -> Result<String, String> {
    let value: Exact = match text.len() <= DECIMAL_MAX {
        true => text.parse().map_err(|_| format!("{:?} is no decimal; write for example \"39.95\"", shown(text)))?,
        false => return Err(format!("is longer than {DECIMAL_MAX} characters")),
    };
    match value.is_negative() {
        true => Err("must not be negative".to_owned()),
        false => Ok(value.to_string()),
    }
}

const ATOM: &[u8] = b"!#$%&'*+-/=?^_`{|}~";

/// Control characters, and the marks that reorder or hide text on a terminal.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `d` stands for a digit, anything else for itself.
fn shape(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}

fn is_fraction_and_offset(rest: &str) -> bool {
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 9 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    offset == "Z" || shape(offset, "+dd:dd") || shape(offset, "-dd:dd")
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each<T>(check: impl Fn(&str) -> Result<T, String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(check(text).is_ok(), "{text:?} is good");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text:?} is bad");
        }
    }

    #[test]
    fn dates_and_instants_are_strict() {
        each(
            date,
            &["2026-11-01", "2028-02-29"],
            &[
                "",
                "2026-11-1",
                "2026-02-30",
                "2026-11-01T00:00:00",
                "20261101",
                "1066-10-14",
                "2026-11-01 ",
                "２０２６-11-01",
            ],
        );
        each(
            instant,
            &["2026-11-20T00:00:00Z", "2026-11-20T00:00:00.123456+01:00"],
            &[
                "2026-11-20",
                "2026-11-20T00:00:00",
                "2026-11-20 00:00:00Z",
                "2026-11-20T24:01:00Z",
                "2026-11-20T00:00Z",
                "1763596800",
                "2026-11-20T00:00:00[UTC]",
            ],
        );
    }

    #[test]
    fn phone_numbers_are_e164() {
        each(
            phone,
            &["+15125550100", "+4930123456"],
            &["15125550100", "+1 512 555", "+0123456789", "+1234567890123456", "+", ""],
        );
    }

    #[test]
    fn mail_addresses_and_domains() {
        each(
            email,
            &["ada@example.net", "a.b+c@x-y.example", "o'hara@example.net"],
            &[
                "ada",
                "@example.net",
                "ada@",
                "ada@localhost",
                "a..b@example.net",
                ".a@example.net",
                "ada@-x.example",
                "ada@exa mple.net",
                "a@b@example.net",
                "ada\n@example.net",
                "\"ada\"@example.net",
            ],
        );
        assert_eq!(email("Ada@EXAMPLE.net").as_deref(), Ok("Ada@example.net"));
        assert_eq!(mailbox("Ada@EXAMPLE.net").as_deref(), Ok("ada@example.net"));
        assert!(mailbox("a/../b@example.net").is_err());
    }

    #[test]
    fn addresses_are_ones_a_subscriber_can_have() {
        each(ipv4, &["192.0.2.7"], &["192.0.2", "192.0.2.256", "0.0.0.0", "224.0.0.1", "127.0.0.1", "2001:db8::1"]);
        each(
            ipv6_prefix,
            &["2001:db8:1::/56", "2001:db8::1/128"],
            &["2001:db8::/129", "2001:db8::1/56", "2001:db8::", "192.0.2.0/24", "2001:db8::/+56", "2001:db8::/056"],
        );
    }

    #[test]
    fn texts_hold_no_control_characters_and_have_a_bound() {
        each(|text| plain(text, 5).map(|_| ()), &["Ada", "Łódź"], &["", "a\nb", "a\u{0}b", "a\u{202e}b", "abcdef"]);
        each(decimal, &["0", "39.95"], &["-1", "1e3", "abc", ""]);
        each(country, &["US"], &["us", "USA"]);
        each(language, &["en", "de-AT"], &["", "e", "english", "en_US"]);
    }
}

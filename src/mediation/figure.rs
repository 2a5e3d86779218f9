//! Amounts, numbers, phone numbers and postal codes as people write them, turned into the forms of an account document.
//!
//! Each takes a text and gives the value, or says why it is none. A form that could mean two things is refused.

use crate::vocabulary::{Exact, MacAddress};

/// How numbers of one country are dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhonePlan {
    /// Without the plus: `1`, `44`.
    pub country_code: String,
    /// What stands before a national number when it is dialled at home: `1`, `0`, or nothing.
    pub trunk: String,
    /// What stands before a number of another country: `011`, `00`.
    pub international: String,
    /// Digits of a national number without its trunk prefix, least and most.
    pub digits: (usize, usize),
}

/// North America (NANP).
pub fn north_america() -> PhonePlan {
    PhonePlan { country_code: "1".to_owned(), trunk: "1".to_owned(), international: "011".to_owned(), digits: (10, 10) }
}

/// An E.164 number.
///
/// **Errors**: letters, extensions, or a number of digits the plan does not have: it could be anybody's.
pub fn phone(text: &str, plan: &PhonePlan) -> Result<String, String> {
    let refused = || format!("{:?} is no telephone number", shown(text));
    let mut digits = String::with_capacity(16);
    let trimmed = text.trim();
    for letter in trimmed.strip_prefix('+').unwrap_or(trimmed).chars() {
        match letter {
            '0'..='9' => digits.push(letter),
            ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}' => {}
            _ => return Err(refused()),
        }
    }
    let foreign = match trimmed.starts_with('+') {
        true => Some(digits.as_str()),
        false => digits.strip_prefix(plan.international.as_str()).filter(|_| !plan.international.is_empty()),
    };
    let fits = |digits: &str| (plan.digits.0..=plan.digits.1).contains(&digits.len());
    let whole = match foreign {
        Some(foreign) => foreign.to_owned(),
        None => {
            let national = match digits.strip_prefix(plan.trunk.as_str()) {
                Some(national) if !plan.trunk.is_empty() && fits(national) => national,
                _ => digits.as_str(),
            };
            if !fits(national) {
                return Err(refused());
            }
            format!("{}{national}", plan.country_code)
        }
    };
    if !(7..=15).contains(&whole.len()) || whole.starts_with('0') {
        return Err(refused());
    }
    Ok(format!("+{whole}"))
}

/// A postal code of the United States: `62701`, `62701-1234`, `627011234`, `62701-`.
pub fn zip(text: &str) -> Result<String, String> {
    let digits: String = text.trim().chars().filter(|letter| !matches!(letter, '-' | ' ')).collect();
    let good = digits.bytes().all(|byte| byte.is_ascii_digit());
    match (good, digits.len()) {
        (true, 5) => Ok(digits),
        (true, 9) if &digits[5..] == "0000" => Ok(digits[..5].to_owned()),
        (true, 9) => Ok(format!("{}-{}", &digits[..5], &digits[5..])),
        _ => Err(format!("{:?} is no ZIP code (a spreadsheet may have dropped its leading zeros)", shown(text))),
    }
}

/// A plain decimal from one with thousands separators, a currency sign, or brackets for a minus.
///
/// **Shape**: `point` is the decimal sign; separators are the other of `.` and `,`, blanks and apostrophes, and stand
/// before groups of three digits only.
pub fn decimal(text: &str, point: char) -> Result<String, String> {
    let refused = || format!("{:?} is no amount with a decimal {point:?}", shown(text));
    let other = if point == ',' { '.' } else { ',' };
    let mut rest = text.trim();
    let bracketed = rest.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let mut negative = bracketed.is_some();
    rest = bracketed.unwrap_or(rest);
    let signs = |letter: char| matches!(letter, '$' | '€' | '£' | '¥' | ' ' | '\u{a0}');
    rest = rest.trim_matches(signs);
    for (sign, minus) in [('-', true), ('+', false)] {
        let stripped = rest.strip_prefix(sign).or_else(|| rest.strip_suffix(sign));
        if let Some(unsigned) = stripped {
            if negative {
                return Err(refused());
            }
            negative = minus;
            rest = unsigned.trim_matches(signs);
            break;
        }
    }
    let (whole, fraction) = rest.split_once(point).unwrap_or((rest, ""));
    let mut digits = String::with_capacity(rest.len() + 1);
    let mut groups = whole.split([other, ' ', '\'', '\u{a0}']);
    let first = groups.next().unwrap_or_default();
    let mut grouped = false;
    digits.push_str(first);
    for group in groups {
        if group.len() != 3 {
            return Err(refused());
        }
        grouped = true;
        digits.push_str(group);
    }
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let sound = all_digits(&digits)
        && all_digits(fraction)
        && !(digits.is_empty() && fraction.is_empty())
        && (!grouped || (1..=3).contains(&first.len()))
        && digits.len() + fraction.len() <= 30;
    if !sound {
        return Err(refused());
    }
    let digits = if digits.is_empty() { "0" } else { digits.as_str() };
    let exact: Exact =
        format!("{digits}.{}", if fraction.is_empty() { "0" } else { fraction }).parse().map_err(|_| refused())?;
    let sign = if negative && !exact.is_zero() { "-" } else { "" };
    Ok(match fraction.is_empty() {
        true => format!("{sign}{}", plain_whole(digits)),
        false => format!("{sign}{}.{fraction}", plain_whole(digits)),
    })
}

fn plain_whole(digits: &str) -> &str {
    let stripped = digits.trim_start_matches('0');
    if stripped.is_empty() { "0" } else { stripped }
}

/// A whole number, without leading zeros.
pub fn whole(text: &str) -> Result<String, String> {
    let refused = || format!("{:?} is no whole number", shown(text));
    let plain = decimal(text, '.').map_err(|_| refused())?;
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    match fraction.bytes().all(|byte| byte == b'0') {
        true => Ok(whole.to_owned()),
        false => Err(refused()),
    }
}

/// A number with exactly `places` digits after the point.
///
/// **Errors**: digits would be lost, unless `round`: then half away from zero.
pub fn places(text: &str, places: u32, round: bool) -> Result<String, String> {
    let refused = |why: &str| format!("{:?} {why}", shown(text));
    let value: Exact = text.trim().parse().map_err(|_| refused("is no number"))?;
    let scale = 10i128.pow(places.min(18));
    let scaled = value.checked_mul(Exact::from_int(scale)).map_err(|_| refused("is too long"))?;
    let whole = match (scaled.denominator() == 1, round) {
        (true, _) => scaled.numerator(),
        (false, true) => {
            let half = Exact::ratio(1, 2).and_then(|half| match scaled.is_negative() {
                true => scaled.checked_sub(half),
                false => scaled.checked_add(half),
            });
            let half = half.map_err(|_| refused("is too long"))?;
            if half.is_negative() { half.ceil() } else { half.floor() }
        }
        (false, false) => return Err(refused(&format!("has more than {places} digits after the point"))),
    };
    let sign = if whole < 0 { "-" } else { "" };
    let (units, rest) = (whole.unsigned_abs() / scale.unsigned_abs(), whole.unsigned_abs() % scale.unsigned_abs());
    Ok(match places {
        0 => format!("{sign}{units}"),
        _ => format!("{sign}{units}.{rest:0width$}", width = places as usize),
    })
}

/// The number multiplied exactly; written as a terminating decimal.
pub fn times(text: &str, factor: Exact) -> Result<String, String> {
    let refused = |why: &str| format!("{:?} {why}", shown(text));
    let value: Exact = text.trim().parse().map_err(|_| refused("is no number"))?;
    let product = value.checked_mul(factor).map_err(|_| refused("is too long"))?;
    match product.decimal_places() {
        Some(_) => Ok(product.to_string()),
        None => Err(refused("does not divide into a decimal")),
    }
}

/// The address `steps` above a MAC address: many gateways have their MTA there.
pub fn mac_plus(text: &str, steps: u32) -> Result<String, String> {
    let mac: MacAddress = text.parse().map_err(|error: crate::vocabulary::MacError| error.to_string())?;
    let mut octets = mac.octets();
    let low = u32::from_be_bytes([0, octets[3], octets[4], octets[5]]);
    // The vendor's half must stay: a sum beyond it is another vendor's box.
    let sum = low.checked_add(steps).filter(|sum| *sum <= 0xff_ffff);
    let sum = sum.ok_or_else(|| format!("{mac} plus {steps} is another vendor's address"))?;
    octets[3..].copy_from_slice(&sum.to_be_bytes()[1..]);
    MacAddress::from_octets(octets).map(|mac| mac.to_string()).map_err(|error| error.to_string())
}

pub fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_become_e164_or_are_refused() {
        let home = north_america();
        for text in ["217 555 0114", "(217) 555-0114", "1-217-555-0114", "+1 217.555.0114", "01112175550114"] {
            assert_eq!(phone(text, &home).as_deref(), Ok("+12175550114"), "{text}");
        }
        for text in ["555-0114", "217-555-0114 x12", "1-800-FLOWERS", "", "+0123456789", "22175550114", "２１７5550114"]
        {
            assert!(phone(text, &home).is_err(), "{text}");
        }
        let britain = PhonePlan {
            country_code: "44".to_owned(),
            trunk: "0".to_owned(),
            international: "00".to_owned(),
            digits: (9, 10),
        };
        assert_eq!(phone("020 7946 0018", &britain).as_deref(), Ok("+442079460018"));
        assert_eq!(phone("00 1 217 555 0114", &britain).as_deref(), Ok("+12175550114"));
    }

    #[test]
    fn amounts_with_separators_become_plain_decimals() {
        for (text, point, read) in [
            ("1,029.95", '.', "1029.95"),
            ("49,95", ',', "49.95"),
            ("1.029,95", ',', "1029.95"),
            ("$ 1,000", '.', "1000"),
            ("(5.00)", '.', "-5.00"),
            ("-5.00", '.', "-5.00"),
            ("5.00-", '.', "-5.00"),
            ("$-5", '.', "-5"),
            ("007.50", '.', "7.50"),
            (".5", '.', "0.5"),
            ("12 345,6", ',', "12345.6"),
            ("-0.00", '.', "0.00"),
        ] {
            assert_eq!(decimal(text, point).as_deref(), Ok(read), "{text}");
        }
        for (text, point) in [
            ("49,95", '.'),
            ("1,02,995", '.'),
            ("1029,950.00.1", '.'),
            ("1e3", '.'),
            ("NaN", '.'),
            ("", '.'),
            ("-", '.'),
            ("(-5)", '.'),
            ("1234,567", '.'),
            ("--5", '.'),
            ("٣", '.'),
        ] {
            assert!(decimal(text, point).is_err(), "{text}");
        }
    }

    #[test]
    fn zip_codes_get_their_hyphen() {
        for (text, read) in
            [("62701", "62701"), ("627011234", "62701-1234"), ("62701-1234", "62701-1234"), ("62701-", "62701")]
        {
            assert_eq!(zip(text).as_deref(), Ok(read));
        }
        for text in ["2139", "6270112", "ABCDE", ""] {
            assert!(zip(text).is_err(), "{text}");
        }
    }

    #[test]
    fn digits_are_lost_only_when_asked_for() {
        assert_eq!(places("12.5", 2, false).as_deref(), Ok("12.50"));
        assert_eq!(places("-0.05", 2, false).as_deref(), Ok("-0.05"));
        assert!(places("12.505", 2, false).is_err());
        assert_eq!(places("12.505", 2, true).as_deref(), Ok("12.51"));
        assert_eq!(places("-12.505", 2, true).as_deref(), Ok("-12.51"));
        assert_eq!(places("7", 0, false).as_deref(), Ok("7"));
        let mebi = Exact::ratio(1, 1 << 20).expect("a ratio");
        assert_eq!(times("5368709120", mebi).as_deref(), Ok("5120"));
        assert!(times("1", Exact::ratio(1, 3).expect("a ratio")).is_err());
        assert_eq!(whole("3.00").as_deref(), Ok("3"));
        assert!(whole("3.5").is_err());
    }

    #[test]
    fn the_next_address_stays_with_its_vendor() {
        assert_eq!(mac_plus("02:00:5e:10:20:ff", 1).as_deref(), Ok("02:00:5e:10:21:00"));
        assert!(mac_plus("02:00:5e:ff:ff:ff", 1).is_err());
    }
}

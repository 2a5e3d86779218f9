//! Money: whole minor units of a currency, and the one place where an exact amount is rounded into them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::exact::{Exact, ExactError};

/// An ISO 4217 currency by its three-letter code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// An amount of money in whole minor units (cents).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

/// How an exact amount becomes whole units of its last place (CONTRACT §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// Half away from zero.
    #[default]
    HalfUp,
    HalfEven,
    /// Away from zero.
    Up,
    /// Toward zero.
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("{0:?} is no ISO 4217 currency code")]
    Currency(String),
    #[error("the amount does not fit 64 bits of minor units")]
    Overflow,
    #[error("{0} and {1} cannot be added")]
    Mixed(Currency, Currency),
}

/// Currencies whose minor unit is not a hundredth (ISO 4217 table A.1).
const NO_MINOR: [&str; 16] =
    ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XPF"];
const THREE_MINOR: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

impl Currency {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is made of ASCII letters")
    }

    /// Digits of the minor unit: 2 for USD, 0 for JPY, 3 for KWD.
    pub fn minor_digits(&self) -> u32 {
        match self.as_str() {
            "XOF" => 0,
            code if NO_MINOR.contains(&code) => 0,
            code if THREE_MINOR.contains(&code) => 3,
            _ => 2,
        }
    }

    /// A number of minor units in major units with all minor digits, for example `-12.50`; sums over many accounts may be
    /// more than `Money` holds.
    pub fn shown(&self, minor: i128) -> String {
        let digits = self.minor_digits();
        let (scale, magnitude) = (10u128.pow(digits), minor.unsigned_abs());
        let sign = if minor < 0 { "-" } else { "" };
        match digits {
            0 => format!("{sign}{magnitude}"),
            _ => format!("{sign}{}.{:0width$}", magnitude / scale, magnitude % scale, width = digits as usize),
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(|l| l.is_ascii_uppercase()) => Ok(Self([*a, *b, *c])),
            _ => Err(MoneyError::Currency(text.chars().take(20).collect())),
        }
    }
}
impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}
impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}
impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rounding {
    /// As a tariff writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rounding::HalfUp => "half_up",
            Rounding::HalfEven => "half_even",
            Rounding::Up => "up",
            Rounding::Down => "down",
        }
    }

    /// Rounds an exact value to a whole number.
    pub fn whole(self, value: Exact) -> i128 {
        self.whole_of(value.numerator(), value.denominator())
    }

    /// As `whole`, of a fraction that need not be reduced; `den` is above zero.
    fn whole_of(self, num: i128, den: i128) -> i128 {
        let floor = num.div_euclid(den);
        let rest = num.rem_euclid(den);
        if rest == 0 {
            return floor;
        }
        let ceil = floor.saturating_add(1);
        let half = rest.cmp(&(den - rest));
        match self {
            Rounding::Down => {
                if num < 0 {
                    ceil
                } else {
                    floor
                }
            }
            Rounding::Up => {
                if num < 0 {
                    floor
                } else {
                    ceil
                }
            }
            Rounding::HalfUp => match half {
                std::cmp::Ordering::Less => floor,
                std::cmp::Ordering::Greater => ceil,
                std::cmp::Ordering::Equal => {
                    if num < 0 {
                        floor
                    } else {
                        ceil
                    }
                }
            },
            Rounding::HalfEven => match half {
                std::cmp::Ordering::Less => floor,
                std::cmp::Ordering::Greater => ceil,
                std::cmp::Ordering::Equal => {
                    if floor % 2 == 0 {
                        floor
                    } else {
                        ceil
                    }
                }
            },
        }
    }
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Rounds an exact amount of major units at `places` digits (at most the currency's own). The only rounding of money.
    pub fn round(amount: Exact, currency: Currency, places: u32, rounding: Rounding) -> Result<Self, MoneyError> {
        let digits = currency.minor_digits();
        let places = places.min(digits);
        let scale = 10i128.pow(places);
        let whole = match amount.numerator().checked_mul(scale) {
            Some(scaled) => rounding.whole_of(scaled, amount.denominator()),
            // What the scale and the denominator share may still make it fit.
            None => {
                let scaled = amount.checked_mul(Exact::from_int(scale));
                rounding.whole(scaled.map_err(|_: ExactError| MoneyError::Overflow)?)
            }
        };
        let minor = whole
            .checked_mul(10i128.pow(digits - places))
            .and_then(|minor| i64::try_from(minor).ok())
            .ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, currency })
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed(self.currency, other.currency));
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, currency: self.currency })
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        let negated = other.minor.checked_neg().ok_or(MoneyError::Overflow)?;
        self.checked_add(Self { minor: negated, currency: other.currency })
    }

    /// The amount in major units, exact.
    pub fn exact(self) -> Exact {
        Exact::ratio(i128::from(self.minor), 10i128.pow(self.currency.minor_digits()))
            .expect("a power of ten is never zero")
    }
}

/// Major units with all minor digits, for example `-12.50`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.currency.shown(i128::from(self.minor)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(text: &str, rounding: Rounding) -> String {
        let usd: Currency = "USD".parse().expect("USD");
        Money::round(text.parse().expect("decimal"), usd, 2, rounding).expect("fits").to_string()
    }

    #[test]
    fn four_roundings_of_a_half_and_of_its_mirror() {
        for (rounding, plus, minus) in [
            (Rounding::HalfUp, "0.13", "-0.13"),
            (Rounding::HalfEven, "0.12", "-0.12"),
            (Rounding::Up, "0.13", "-0.13"),
            (Rounding::Down, "0.12", "-0.12"),
        ] {
            assert_eq!((rounded("0.125", rounding).as_str(), rounded("-0.125", rounding).as_str()), (plus, minus));
        }
        assert_eq!(rounded("0.121", Rounding::Up), "0.13");
        assert_eq!(rounded("0.12", Rounding::Up), "0.12");
    }

    #[test]
    fn minor_digits_follow_the_currency() {
        let yen: Currency = "JPY".parse().expect("JPY");
        assert_eq!(
            Money::round("12.5".parse().expect("decimal"), yen, 2, Rounding::HalfUp).expect("fits").to_string(),
            "13"
        );
        assert!("usd".parse::<Currency>().is_err());
    }

    #[test]
    fn sum_beyond_an_amount_is_shown_in_full() {
        let shown = |code: &str, minor: i128| code.parse::<Currency>().expect("a currency").shown(minor);
        assert_eq!(shown("USD", i128::from(i64::MAX) + 1), "92233720368547758.08");
        assert_eq!(shown("KWD", i128::from(i64::MIN) * 10), "-92233720368547758.080");
        assert_eq!((shown("JPY", -7), shown("USD", -7)), ("-7".to_owned(), "-0.07".to_owned()));
    }

    #[test]
    fn overflow_of_minor_units_is_an_error() {
        let usd: Currency = "USD".parse().expect("USD");
        let huge = Exact::from_int(i128::from(i64::MAX));
        assert_eq!(Money::round(huge, usd, 2, Rounding::HalfUp), Err(MoneyError::Overflow));
    }
}

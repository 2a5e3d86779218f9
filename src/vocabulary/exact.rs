//! Exact arithmetic for quantities and prices: a reduced fraction of two 128-bit integers that either holds the true value or fails.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An exact rational number. Never rounds by itself; overflow of 128 bits is an error, never a wrap.
///
/// **Shape**: `Display` prints the terminating decimal where there is one, else 20 digits after the point.
/// Parsing takes plain decimals (`-12.50`), at most 38 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exact {
    num: i128,
    den: i128,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExactError {
    #[error("{0:?} is no decimal number")]
    Form(String),
    #[error("the exact value does not fit 128 bits")]
    Overflow,
    #[error("division by zero")]
    DivisionByZero,
}

const SHOWN_DIGITS: usize = 20;
/// Digits after the point that surely fit 64 bits.
const MOST_OF_64: u32 = 19;

impl Exact {
    pub const ZERO: Exact = Exact { num: 0, den: 1 };
    pub const ONE: Exact = Exact { num: 1, den: 1 };

    pub fn from_int(value: i128) -> Self {
        Self { num: value, den: 1 }
    }

    pub fn ratio(num: i128, den: i128) -> Result<Self, ExactError> {
        if den == 0 {
            return Err(ExactError::DivisionByZero);
        }
        let divisor = gcd(num.unsigned_abs(), den.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| ExactError::Overflow)?;
        let (num, den) = (num / divisor, den / divisor);
        if den < 0 {
            let num = num.checked_neg().ok_or(ExactError::Overflow)?;
            let den = den.checked_neg().ok_or(ExactError::Overflow)?;
            return Ok(Self { num, den });
        }
        Ok(Self { num, den })
    }

    pub fn numerator(self) -> i128 {
        self.num
    }
    pub fn denominator(self) -> i128 {
        self.den
    }

    pub fn checked_add(self, other: Self) -> Result<Self, ExactError> {
        match (self.num, other.num) {
            (_, 0) => return Ok(self),
            (0, _) => return Ok(other),
            _ => {}
        }
        let divisor = as_i128(gcd(self.den.unsigned_abs(), other.den.unsigned_abs()))?;
        let (own, foreign) = (self.den / divisor, other.den / divisor);
        let left = self.num.checked_mul(foreign).ok_or(ExactError::Overflow)?;
        let right = other.num.checked_mul(own).ok_or(ExactError::Overflow)?;
        let num = left.checked_add(right).ok_or(ExactError::Overflow)?;
        // Of reduced fractions only the part both denominators share can be reduced in the sum (Knuth, 4.5.1).
        let common = as_i128(gcd(num.unsigned_abs(), divisor.unsigned_abs()))?;
        let den = own.checked_mul(other.den / common).ok_or(ExactError::Overflow)?;
        Ok(Self { num: num / common, den })
    }

    pub fn checked_neg(self) -> Result<Self, ExactError> {
        Ok(Self { num: self.num.checked_neg().ok_or(ExactError::Overflow)?, den: self.den })
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, ExactError> {
        self.checked_add(other.checked_neg()?)
    }

    pub fn checked_mul(self, other: Self) -> Result<Self, ExactError> {
        let cross = as_i128(gcd(self.num.unsigned_abs(), other.den.unsigned_abs()).max(1))?;
        let across = as_i128(gcd(other.num.unsigned_abs(), self.den.unsigned_abs()).max(1))?;
        let num = (self.num / cross).checked_mul(other.num / across).ok_or(ExactError::Overflow)?;
        let den = (self.den / across).checked_mul(other.den / cross).ok_or(ExactError::Overflow)?;
        // Nothing is left that numerator and denominator share.
        Ok(Self { num, den })
    }

    pub fn checked_div(self, other: Self) -> Result<Self, ExactError> {
        if other.num == 0 {
            return Err(ExactError::DivisionByZero);
        }
        self.checked_mul(Self::ratio(other.den, other.num)?)
    }

    /// The greatest integer not above the value.
    pub fn floor(self) -> i128 {
        self.num.div_euclid(self.den)
    }

    /// The least integer not below the value. Overflows only where the value itself is at the edge of 128 bits.
    pub fn ceil(self) -> i128 {
        let floor = self.floor();
        if self.num.rem_euclid(self.den) == 0 { floor } else { floor.saturating_add(1) }
    }

    pub fn is_zero(self) -> bool {
        self.num == 0
    }
    pub fn is_negative(self) -> bool {
        self.num < 0
    }

    /// Digits after the point of the terminating decimal, `None` where it does not terminate.
    pub fn decimal_places(self) -> Option<u32> {
        let den = Denominator::of(self.den);
        (den.rest == 1).then_some(den.twos.max(den.fives))
    }
}

/// A denominator that many numbers share, taken apart once, so that each of them is reduced without a search for what it
/// has in common with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denominator {
    value: i128,
    twos: u32,
    fives: u32,
    /// What is left without its twos and fives: 1 of a decimal.
    rest: i128,
}

impl Denominator {
    /// Of a number above zero.
    pub fn of(value: i128) -> Self {
        let twos = value.trailing_zeros();
        let (rest, fives) = without_fives(value >> twos, u32::MAX);
        Self { value, twos, fives, rest }
    }

    pub fn value(self) -> i128 {
        self.value
    }

    /// How many times one part of this denominator a number is; `None`: not a whole number of times, or beyond 128 bits.
    pub fn over(self, number: Exact) -> Option<i128> {
        if number.den == self.value {
            return Some(number.num);
        }
        let times = match (i64::try_from(self.value), i64::try_from(number.den)) {
            (Ok(whole), Ok(part)) => (whole % part == 0).then(|| i128::from(whole / part)),
            _ => (self.value % number.den == 0).then(|| self.value / number.den),
        };
        number.num.checked_mul(times?)
    }

    /// `num` over this denominator.
    pub fn under(self, num: i128) -> Exact {
        if num == 0 {
            return Exact::ZERO;
        }
        let twos = num.trailing_zeros().min(self.twos);
        let (num, fives) = without_fives(num >> twos, self.fives);
        let den = (self.rest << (self.twos - twos)) * FIVES[(self.fives - fives) as usize];
        if self.rest == 1 {
            return Exact { num, den };
        }
        // A common divisor is at most `rest`, which is an i128.
        let common = gcd(num.unsigned_abs(), self.rest.unsigned_abs()) as i128;
        Exact { num: num / common, den: den / common }
    }
}

/// The number without its factors of five, of which at most `most` are taken, and how many were.
fn without_fives(num: i128, most: u32) -> (i128, u32) {
    let most = most.min(FIVES.len() as u32 - 1);
    let mut fives = 0;
    match i64::try_from(num) {
        Ok(mut small) => {
            while fives < most && small % 5 == 0 {
                small /= 5;
                fives += 1;
            }
            (i128::from(small), fives)
        }
        Err(_) => {
            let mut num = num;
            while fives < most && num % 5 == 0 {
                num /= 5;
                fives += 1;
            }
            (num, fives)
        }
    }
}

/// The powers of five below 2^127.
const FIVES: [i128; 55] = {
    let mut powers = [1i128; 55];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 5;
        index += 1;
    }
    powers
};

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares by continued fractions, so that no product can overflow.
impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.den == other.den {
            return self.num.cmp(&other.num);
        }
        if let (Some(left), Some(right)) = (self.num.checked_mul(other.den), other.num.checked_mul(self.den)) {
            return left.cmp(&right);
        }
        let (mut a, mut b) = (*self, *other);
        loop {
            let (whole_a, whole_b) = (a.floor(), b.floor());
            if whole_a != whole_b {
                return whole_a.cmp(&whole_b);
            }
            let rest_a = a.num.rem_euclid(a.den);
            let rest_b = b.num.rem_euclid(b.den);
            match (rest_a, rest_b) {
                (0, 0) => return Ordering::Equal,
                (0, _) => return Ordering::Less,
                (_, 0) => return Ordering::Greater,
                _ => {}
            }
            // a < b with fractional parts ra/da, rb/db  <=>  da/ra > db/rb.
            let next_a = Exact { num: b.den, den: rest_b };
            let next_b = Exact { num: a.den, den: rest_a };
            (a, b) = (next_a, next_b);
        }
    }
}

impl FromStr for Exact {
    type Err = ExactError;

    fn from_str(text: &str) -> Result<Self, ExactError> {
        let form = || ExactError::Form(text.chars().take(60).collect());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !all_digits(whole)
            || !all_digits(fraction)
            || (digits.contains('.') && fraction.is_empty())
        {
            return Err(form());
        }
        let (mut num, mut den) = (0i128, 1i128);
        for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
            num = num
                .checked_mul(10)
                .and_then(|n| n.checked_add(i128::from(digit - b'0')))
                .ok_or(ExactError::Overflow)?;
            if index >= whole.len() {
                den = den.checked_mul(10).ok_or(ExactError::Overflow)?;
            }
        }
        Self::ratio(if negative { -num } else { num }, den)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.num < 0 { "-" } else { "" };
        let (num, den) = (self.num.unsigned_abs(), self.den.unsigned_abs());
        let places = self.decimal_places();
        if let (Some(places), Ok(small)) = (places.filter(|places| *places <= MOST_OF_64), u64::try_from(den)) {
            let (whole, rest) = (num / den, (num % den) as u64);
            return match places {
                0 => write!(f, "{sign}{whole}"),
                _ => {
                    write!(f, "{sign}{whole}.{:0digits$}", rest * (10u64.pow(places) / small), digits = places as usize)
                }
            };
        }
        let digits = places.map_or(SHOWN_DIGITS, |places| places as usize);
        let (whole, mut rest) = (num / den, num % den);
        write!(f, "{sign}{whole}")?;
        if digits > 0 {
            f.write_str(".")?;
            for _ in 0..digits {
                let (digit, left) = times_ten(rest, den);
                write!(f, "{digit}")?;
                rest = left;
            }
        }
        Ok(())
    }
}

/// One step of long division: `rest * 10` divided by `den`, without leaving 128 bits (`rest < den`).
fn times_ten(rest: u128, den: u128) -> (u8, u128) {
    let (mut digit, mut left) = (0u8, 0u128);
    for _ in 0..10 {
        // left + rest may pass den once; subtraction first keeps it inside 128 bits.
        if left >= den - rest {
            left -= den - rest;
            digit += 1;
        } else {
            left += rest;
        }
    }
    (digit, left)
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        if let (Ok(a), Ok(b)) = (u64::try_from(a), u64::try_from(b)) {
            return u128::from(gcd_of_64(a, b));
        }
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// Without a division: halves and differences (Stein).
fn gcd_of_64(mut a: u64, mut b: u64) -> u64 {
    if a == 0 || b == 0 {
        return (a | b).max(1);
    }
    let twos = (a | b).trailing_zeros();
    a >>= a.trailing_zeros();
    while b != 0 {
        b >>= b.trailing_zeros();
        (a, b) = (a.min(b), a.abs_diff(b));
    }
    a << twos
}

fn as_i128(value: u128) -> Result<i128, ExactError> {
    i128::try_from(value).map_err(|_| ExactError::Overflow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse().expect("a decimal of the test")
    }

    #[test]
    fn decimals_print_as_they_were_written_without_trailing_zeros() {
        for (text, shown) in [("12.50", "12.5"), ("-0.001", "-0.001"), ("0", "0"), ("100", "100"), ("0.10", "0.1")] {
            assert_eq!(exact(text).to_string(), shown);
        }
        assert_eq!(Exact::ratio(1, 3).expect("third").to_string(), "0.33333333333333333333");
        for text in ["", ".", "1.", ".5", "1e3", "+1", "1,0", "--1"] {
            assert!(text.parse::<Exact>().is_err(), "{text}");
        }
    }

    #[test]
    fn thirds_add_up_to_one() {
        let third = Exact::ratio(1, 3).expect("third");
        assert_eq!(third.checked_add(third).and_then(|two| two.checked_add(third)), Ok(Exact::ONE));
    }

    #[test]
    fn comparison_never_overflows() {
        let big = Exact::ratio(i128::MAX, i128::MAX - 1).expect("ratio");
        let bigger = Exact::ratio(i128::MAX - 1, i128::MAX - 2).expect("ratio");
        assert!(big < bigger);
        assert!(exact("-0.5") < exact("-0.25"));
    }

    /// The plain way, as slow as it is: what every shorter way must give.
    fn plain_gcd(a: u128, b: u128) -> u128 {
        if b == 0 { a.max(1) } else { plain_gcd(b, a % b) }
    }

    fn plain(num: i128, den: i128) -> Exact {
        let divisor = plain_gcd(num.unsigned_abs(), den.unsigned_abs()) as i128;
        Exact { num: num / divisor, den: den / divisor }
    }

    fn plain_text(value: Exact) -> String {
        let (num, den) = (value.num.unsigned_abs(), value.den.unsigned_abs());
        let digits = value.decimal_places().map_or(SHOWN_DIGITS, |places| places as usize);
        let mut text = format!("{}{}", if value.num < 0 { "-" } else { "" }, num / den);
        let mut rest = num % den;
        for place in 0..digits {
            let (digit, left) = times_ten(rest, den);
            text.push_str(&format!("{}{digit}", if place == 0 { "." } else { "" }));
            rest = left;
        }
        text
    }

    /// Numerators and denominators of all sizes: decimals, parts of days, anything.
    fn fraction() -> impl Strategy<Value = (i128, i128)> {
        let num = prop_oneof![-5i128..5, any::<i32>().prop_map(i128::from), any::<i64>().prop_map(i128::from)];
        let ten = (0u32..19).prop_map(|places| 10i128.pow(places));
        let den = prop_oneof![ten, Just(1i128 << 30), 1i128..400, (1i128..1 << 62)];
        (num, den)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn shorter_ways_give_what_the_plain_way_gives((a, b) in fraction(), (c, d) in fraction(), by in 1i128..1000) {
            let (left, right) = (plain(a, b), plain(c, d));
            prop_assert_eq!(Exact::ratio(a * by, b * by), Ok(left));
            prop_assert_eq!(Denominator::of(b).under(a), left);
            prop_assert_eq!(Denominator::of(b).over(left), Some(a));
            prop_assert_eq!(left.to_string(), plain_text(left));
            let low = |number: i128| number.unsigned_abs() < 1 << 60;
            if low(a) && low(b) && low(c) && low(d) {
                prop_assert_eq!(left.checked_add(right), Ok(plain(a * d + c * b, b * d)));
                prop_assert_eq!(left.checked_mul(right), Ok(plain(a * c, b * d)));
                prop_assert_eq!(left.cmp(&right), (a * d).cmp(&(c * b)));
            }
        }
    }

    #[test]
    fn overflow_is_an_error() {
        let big = Exact::from_int(i128::MAX);
        assert_eq!(big.checked_add(Exact::ONE), Err(ExactError::Overflow));
        assert_eq!(big.checked_mul(exact("2")), Err(ExactError::Overflow));
    }
}

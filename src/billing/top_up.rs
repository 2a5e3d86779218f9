//! What a posted top-up gives: so much allowance of one usage charge, for so long, at a price.
//!
//! In: the posting, the tariff of the service it is for, its day and calendar. Out: the amount in octets, seconds or
//! sessions, whose allowance it joins, and from when to when. It may be used in every billing period that its time touches,
//! as a whole: what was used earlier in the period of its first day is covered by it, and it ends with the period in which
//! its last day lies. So what it pays for does not depend on the order in which records and top-ups arrive.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan;

use super::calendar::{BillCycle, CalendarError};
use super::charges::Posting;
use super::tariff::{ChargeKind, Measured, Pool, Tariff, Usage, Validity};
use crate::vocabulary::{Date, Exact, Fault, Timestamp};

/// What a posting grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// Id of the usage charge.
    pub charge: String,
    pub pool: Pool,
    /// Octets, seconds or sessions.
    pub amount: i64,
    /// Of one piece; `None`: it costs nothing.
    pub price: Option<Exact>,
    pub from: Timestamp,
    pub until: Option<Timestamp>,
}

/// What `posting` grants a service on `tariff` on a day. **Errors**: what is wrong with it, with its place.
pub fn new_grant(posting: &Posting, tariff: &Tariff, cycle: &BillCycle, on: Date) -> Result<NewGrant, Fault> {
    let fault = |pointer: &str, detail: String| Fault { pointer: pointer.to_owned(), detail };
    let named = match &posting.top_up {
        Some(id) => Some(tariff.top_ups.iter().find(|known| known.id == *id).ok_or_else(|| {
            fault("/top_up", format!("tariff {} version {} has no top-up {id:?}", tariff.id, tariff.version))
        })?),
        None => None,
    };
    let charge = named.map(|named| named.charge.clone()).or_else(|| posting.charge.clone()).unwrap_or_default();
    let usage = match tariff.charge(&charge).map(|charge| &charge.kind) {
        Some(ChargeKind::Usage(usage)) if takes_top_ups(usage) => usage,
        Some(ChargeKind::Usage(_)) => {
            return Err(fault("/charge", format!("{charge:?} counts nothing that allowance can be used up by")));
        }
        _ => return Err(fault("/charge", format!("tariff {} has no usage charge {charge:?}", tariff.id))),
    };
    let each = match (named, &posting.grant) {
        (Some(named), _) => whole(named.amount, usage.unit_size()).map_err(|why| fault("/top_up", why))?,
        (None, Some(text)) => granted(text, usage).map_err(|why| fault("/grant", why))?,
        (None, None) => return Err(fault("/grant", "says how much is granted, for example \"50 GB\"".to_owned())),
    };
    let amount = each.checked_mul(i64::from(posting.quantity));
    let amount = amount.ok_or_else(|| fault("/quantity", "is more than can be counted".to_owned()))?;
    let valid = match &posting.valid {
        Some(text) => text.parse().map_err(|why| fault("/valid", why))?,
        None => named.map_or(Validity::Always, |named| named.valid),
    };
    let price = match &posting.amount {
        Some(text) => Some(text.parse().map_err(|_| fault("/amount", format!("{text:?} is no amount")))?),
        None => named.and_then(|named| named.price),
    };
    let no_time = |_: CalendarError| fault("/valid", "ends outside of the calendar".to_owned());
    let from = cycle.midnight(on).map_err(no_time)?;
    let until = ends(valid, cycle, on).map_err(no_time)?;
    if until.is_some_and(|until| until <= from) {
        return Err(fault("/valid", format!("ends before {on}")));
    }
    Ok(NewGrant { charge, pool: usage.pool(), amount, price, from, until })
}

/// Whether allowance of the charge can be used up: calls cost by destination, and a peak is no sum.
pub fn takes_top_ups(usage: &Usage) -> bool {
    use super::tariff::Meter;
    matches!(usage.meter, Meter::Octets | Meter::Seconds | Meter::Sessions)
}

/// The end of the billing period in which a validity that begins on a day ends.
fn ends(valid: Validity, cycle: &BillCycle, on: Date) -> Result<Option<Timestamp>, CalendarError> {
    let period = cycle.period_at(cycle.midnight(on)?)?;
    let last_day = match valid {
        Validity::Always => return Ok(None),
        Validity::Cycles(more) => {
            let last = cycle.ordinal(&period)? + i64::from(more);
            return Ok(Some(cycle.period(last)?.end));
        }
        Validity::Days(days) => on.checked_add((i64::from(days) - 1).days()),
        Validity::Until(until) => until.yesterday(),
    };
    let last_day = last_day.map_err(|_| CalendarError::OutOfRange)?;
    if last_day < on {
        return cycle.midnight(on).map(Some);
    }
    Ok(Some(cycle.period_at(cycle.midnight(last_day)?)?.end))
}

/// `50 GB`, or a number in the charge's own unit.
fn granted(text: &str, usage: &Usage) -> Result<i64, String> {
    let (amount, size) = match text.parse::<Measured>() {
        Ok(measured) if measured.unit.meter() == usage.meter.counted_as() => (measured.amount, measured.unit.size()),
        Ok(measured) => return Err(format!("{} is no unit of {}", measured.unit, usage.meter.as_str())),
        Err(why) => (text.parse().map_err(|_| why.to_string())?, usage.unit_size()),
    };
    whole(amount, size)
}

/// An amount in octets, seconds or sessions.
pub fn whole(amount: Exact, unit_size: u64) -> Result<i64, String> {
    let counted = amount.checked_mul(Exact::from_int(i128::from(unit_size))).map_err(|error| error.to_string())?;
    let sound = counted > Exact::ZERO && counted.denominator() == 1 && counted <= Exact::from_int(MOST);
    match i64::try_from(counted.numerator()) {
        Ok(counted) if sound => Ok(counted),
        _ => Err(format!("must be above zero, at most {MOST} octets, seconds or sessions, and a whole number of them")),
    }
}

impl FromStr for Validity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is none of \"period\", \"1 cycles\", \"30d\", or a day as 2026-12-31");
        if text == "period" {
            return Ok(Validity::Cycles(0));
        }
        let number = |digits: &str, most: u32| {
            digits.parse::<u32>().ok().filter(|number| (1..=most).contains(number)).ok_or_else(form)
        };
        if let Some(digits) = text.strip_suffix(" cycles").or_else(|| text.strip_suffix(" cycle")) {
            return number(digits, MOST_CYCLES).map(Validity::Cycles);
        }
        if let Some(digits) = text.strip_suffix('d') {
            return number(digits, MOST_DAYS).map(Validity::Days);
        }
        text.parse().map(Validity::Until).map_err(|_| form())
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Validity::Always => f.write_str("until it is used up"),
            Validity::Cycles(0) => f.write_str("period"),
            Validity::Cycles(more) => write!(f, "{more} cycles"),
            Validity::Days(days) => write!(f, "{days}d"),
            Validity::Until(day) => write!(f, "{day}"),
        }
    }
}

/// A petabyte: sums of thousands of them stay in 63 bits.
const MOST: i128 = 1_000_000_000_000_000;
const MOST_CYCLES: u32 = 120;
const MOST_DAYS: u32 = 3660;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::calendar::Every;
    use crate::vocabulary::Zone;

    const TARIFF: &str = r#"
id = "t"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
prepaid = true
[[charge]]
id = "calls"
type = "usage"
meter = "calls"
unit = "min"
rates = [{ prefix = "+", unit_amount = "0.1" }]
[[top_up]]
id = "boost"
charge = "data"
amount = "50"
price = "10.00"
valid = "30d"
"#;

    fn granted_by(body: serde_json::Value) -> Result<NewGrant, Fault> {
        let zone = Zone::get("America/Chicago").expect("a zone");
        let timezone = "America/Chicago".to_owned();
        let cycle = BillCycle { id: "c15".to_owned(), anchor_day: 15, every: Every::Month, zone, timezone };
        let tariff = Tariff::read("t.toml", TARIFF).expect("a sound tariff");
        let mut body = body;
        body["type"] = "top_up".into();
        let posting: Posting = serde_json::from_value(body).expect("a posting");
        new_grant(&posting, &tariff, &cycle, "2026-11-20".parse().expect("a day"))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn time_of_a_top_up_ends_with_the_period_it_ends_in() {
        let until = |valid: &str| {
            let grant = granted_by(serde_json::json!({"charge": "data", "grant": "50 GB", "valid": valid}));
            grant.expect("a grant").until.map(|until| until.to_string())
        };
        let december = Some("2026-12-15T06:00:00Z".to_owned());
        let january = Some("2027-01-15T06:00:00Z".to_owned());
        assert_eq!(
            [until("period"), until("1d"), until("25d")],
            [december.clone(), december.clone(), december.clone()]
        );
        assert_eq!(
            [until("1 cycles"), until("26d"), until("30d")],
            [january.clone(), january.clone(), january.clone()]
        );
        // The day itself is not in it.
        assert_eq!([until("2026-12-15"), until("2026-12-16")], [december, january]);
        let grant = granted_by(serde_json::json!({"charge": "data", "grant": "0.5", "quantity": 3})).expect("a grant");
        assert_eq!((grant.amount, grant.until, grant.from), (1_500_000_000, None, at("2026-11-20T06:00:00Z")));
        assert_eq!(grant.price, None);
    }

    #[test]
    fn named_top_up_has_the_amount_price_and_time_of_its_tariff() {
        let grant = granted_by(serde_json::json!({"top_up": "boost", "quantity": 2})).expect("a grant");
        assert_eq!((grant.charge.as_str(), grant.amount, grant.pool), ("data", 100_000_000_000, Pool::Service));
        assert_eq!((grant.price, grant.until), ("10.00".parse().ok(), Some(at("2027-01-15T06:00:00Z"))));
    }

    #[test]
    fn what_cannot_be_granted_is_named() {
        let why = |body: serde_json::Value| {
            let fault = granted_by(body).expect_err("a fault");
            format!("{} {}", fault.pointer, fault.detail)
        };
        assert!(why(serde_json::json!({"top_up": "none"})).starts_with("/top_up tariff t version 1 has no"));
        assert!(why(serde_json::json!({"charge": "voice", "grant": "1"})).starts_with("/charge tariff t has no usage"));
        assert!(why(serde_json::json!({"charge": "calls", "grant": "1 min"})).starts_with("/charge \"calls\" counts"));
        assert!(
            why(serde_json::json!({"charge": "data", "grant": "1 h"})).starts_with("/grant h is no unit of octets")
        );
        assert!(why(serde_json::json!({"charge": "data", "grant": "0.0000000001"})).starts_with("/grant must be"));
        assert!(why(serde_json::json!({"charge": "data", "grant": "1", "valid": "soon"})).starts_with("/valid"));
        assert!(why(serde_json::json!({"charge": "data", "grant": "1", "valid": "2026-11-20"})).starts_with("/valid"));
    }
}

//! Instants, days, zones and the clock that hands out "now"; nothing here reads the machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

pub use jiff::Timestamp;
pub use jiff::civil::Date;
pub use jiff::tz::TimeZone as Zone;
use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z, the form instants have in a database column.
pub fn to_micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant of a database column. `None` outside the calendar's years -9999 to 9999.
pub fn from_micros(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

/// An RFC 3339 instant (any offset) as it stands in a document.
pub fn parse_instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A half-open stretch of time `[start, end)`, cut in a named zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Period {
    pub start: Timestamp,
    pub end: Timestamp,
    /// IANA name of the zone the edges were cut in.
    pub timezone: String,
}

impl Period {
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

/// Where "now" comes from. The daemon builds it over the system clock; the demo and tests move it.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    shift_micros: Arc<AtomicI64>,
}

impl Clock {
    /// A clock over `source`, for example the system's.
    pub fn new(source: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), shift_micros: Arc::new(AtomicI64::new(0)) }
    }

    /// A clock that stands still at `at` until it is moved.
    pub fn fixed(at: Timestamp) -> Self {
        Self::new(move || at)
    }

    pub fn now(&self) -> Timestamp {
        let shift = self.shift_micros.load(Ordering::Relaxed);
        let micros = to_micros((self.source)()).saturating_add(shift);
        from_micros(micros).unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock and every copy of it by `micros` microseconds.
    pub fn advance_micros(&self, micros: i64) {
        self.shift_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

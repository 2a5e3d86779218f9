//! How fast the sessions of one client's NAS are asked about: everybody whose session ends comes back at once, and a NAS
//! bears only so many logins a second. Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::spread;
use crate::store::nas_control::LANE_BULK;

/// Two measures, so that a single push never waits behind bulk: single pushes may come in a burst of one second's worth,
/// bulk goes one by one, each gap between half and one and a half of the even one.
#[derive(Debug)]
pub struct Pace {
    per_second: u32,
    /// Single pushes that may go now.
    tokens: f64,
    filled_at: Instant,
    next_bulk_at: Instant,
}

impl Pace {
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: f64::from(per_second), filled_at: now, next_bulk_at: now }
    }

    /// Whether an order of this lane may go now; if so, it counts.
    pub fn admits(&mut self, lane: i64, now: Instant, random: u64) -> bool {
        if lane >= LANE_BULK {
            if now < self.next_bulk_at {
                return false;
            }
            let gap = spread(Duration::from_secs(1) / self.per_second, random);
            // What was missed while nothing was due is not made up for; what a late turn of the loop missed is.
            let from = self.next_bulk_at.max(now.checked_sub(CATCH_UP).unwrap_or(now));
            self.next_bulk_at = from + gap;
            return true;
        }
        let most = f64::from(self.per_second);
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        (self.tokens, self.filled_at) = ((self.tokens + passed * most).min(most), now);
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

/// The service looks for orders twice a second: so much is made up for.
const CATCH_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::nas_control::LANE_SINGLE;

    #[test]
    fn bulk_goes_at_its_rate_however_often_it_is_asked_for() {
        for step_ms in [1, 10, 500] {
            let start = Instant::now();
            let mut pace = Pace::new(20, start);
            let mut sent = 0;
            let mut random = 88_172_645_463_325_252u64;
            for step in 0..(30_000 / step_ms) {
                let now = start + Duration::from_millis(step * step_ms);
                while pace.admits(LANE_BULK, now, random) {
                    sent += 1;
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                }
            }
            assert!((540..=660).contains(&sent), "{sent} in 30 s at 20 a second, asked every {step_ms} ms");
        }
    }

    #[test]
    fn single_pushes_come_in_a_burst_and_never_wait_for_bulk() {
        let start = Instant::now();
        let mut pace = Pace::new(5, start);
        while pace.admits(LANE_BULK, start, 7) {}
        let burst = (0..100).filter(|_| pace.admits(LANE_SINGLE, start, 7)).count();
        assert_eq!(burst, 5);
        let later = start + Duration::from_secs(10);
        assert_eq!((0..100).filter(|_| pace.admits(LANE_SINGLE, later, 7)).count(), 5, "no more than a second's worth");
    }

    #[test]
    fn an_idle_hour_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(20, start);
        let later = start + Duration::from_secs(3600);
        let at_once = (0..1000).filter(|random| pace.admits(LANE_BULK, later, *random)).count();
        assert!(at_once <= 45, "{at_once} at once");
    }
}

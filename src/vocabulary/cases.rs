//! How many cases a property is tried with; part of the tests alone.

use proptest::prelude::ProptestConfig;

/// As many cases as usual; at least 10,000 where the long proofs are asked for (`LASTMILE_TESTS_LONG=1`); never more than
/// `PROPTEST_CASES`, which a run with planted faults lowers.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let long = std::env::var("LASTMILE_TESTS_LONG").is_ok_and(|value| value == "1");
    let wanted = if long { usual.max(LONG) } else { usual };
    let most = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(wanted);
    ProptestConfig::with_cases(wanted.min(most))
}

const LONG: u32 = 10_000;

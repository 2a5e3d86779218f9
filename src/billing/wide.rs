//! What is billed for an account as a whole rather than for one of its services: fees once an account, and what another
//! tenant's subscribers cost it.

use std::sync::Arc;

use super::count::Census;
use super::facts::{ServiceFacts, Stretch, TariffBook};
use super::tariff::Scope;
use crate::vocabulary::Timestamp;

/// The facts for charges that are due once an account: for each such tariff the time in which any service has it.
pub fn account_wide(services: &[ServiceFacts], book: &TariffBook) -> Vec<ServiceFacts> {
    let due = |versions: &[super::facts::KnownVersion]| {
        versions.iter().flat_map(|version| &version.tariff.charges).any(|charge| charge.scope() == Scope::Account)
    };
    let mut found = Vec::new();
    for (tariff, _) in book.iter().filter(|(_, versions)| due(versions)) {
        let of = |pick: fn(&ServiceFacts) -> &Vec<Stretch>| {
            let own = services.iter().filter(|service| service.scope == Scope::Service).flat_map(pick);
            united(own.filter(|stretch| stretch.tariff == *tariff).cloned().collect())
        };
        let (stretches, elsewhere) = (of(|service| &service.stretches), of(|service| &service.elsewhere));
        // Without any time it is there all the same, so that what was billed can be taken back.
        let began_at = stretches.iter().chain(&elsewhere).map(|stretch| stretch.from).min();
        found.push(ServiceFacts {
            addon: Some(format!("account {tariff}")),
            scope: Scope::Account,
            times: 1,
            stretches,
            elsewhere,
            began_at,
            ..ServiceFacts::default()
        });
    }
    found
}

/// The facts for what the subscribers of `census` cost by a tariff in `[from, until)`.
pub fn wholesale(census: Arc<Census>, tariff: &str, from: Timestamp, until: Option<Timestamp>) -> ServiceFacts {
    ServiceFacts {
        addon: Some(format!("tenant {}", census.tenant)),
        times: 1,
        stretches: vec![Stretch { from, until, tariff: tariff.to_owned() }],
        began_at: Some(from),
        census: Some(census),
        ..ServiceFacts::default()
    }
}

/// Stretches joined where they touch or lie over each other.
fn united(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_by_key(|stretch| stretch.from);
    let mut joined: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        match joined.last_mut() {
            Some(last) if last.until.is_none_or(|until| stretch.from <= until) => {
                last.until = match (last.until, stretch.until) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
            _ => joined.push(stretch),
        }
    }
    joined
}

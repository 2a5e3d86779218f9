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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::run::tests::{at, version};

    fn stretch(tariff: &str, from: &str, until: Option<&str>) -> Stretch {
        Stretch { from: at(from), until: until.map(at), tariff: tariff.to_owned() }
    }

    fn book() -> TariffBook {
        let tariff = |id: &str, per: &str| {
            let text = format!(
                "id = \"{id}\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"fee\"\n\
                 type = \"recurring\"\namount = \"1\"\nper = \"{per}\"\n"
            );
            (id.to_owned(), vec![version(&text, "2026-01-01T00:00:00Z")])
        };
        TariffBook::from([tariff("fee", "account"), tariff("own", "service")])
    }

    #[test]
    fn fee_of_an_account_is_due_while_any_of_its_services_has_the_tariff() {
        let one = ServiceFacts {
            stretches: vec![
                stretch("fee", "2026-11-10T00:00:00Z", Some("2026-11-20T00:00:00Z")),
                stretch("own", "2026-11-01T00:00:00Z", None),
            ],
            ..ServiceFacts::default()
        };
        let other = ServiceFacts {
            stretches: vec![
                stretch("fee", "2026-11-20T00:00:00Z", Some("2026-11-25T00:00:00Z")),
                stretch("fee", "2026-11-28T00:00:00Z", None),
            ],
            elsewhere: vec![stretch("fee", "2026-11-05T00:00:00Z", Some("2026-11-10T00:00:00Z"))],
            ..ServiceFacts::default()
        };
        let line = ServiceFacts {
            scope: Scope::Line,
            stretches: vec![stretch("fee", "2026-01-01T00:00:00Z", None)],
            ..ServiceFacts::default()
        };
        let found = account_wide(&[one, other, line], &book());
        assert_eq!(found.len(), 1);
        let facts = &found[0];
        assert_eq!((facts.id.as_str(), facts.addon.as_deref(), facts.times), ("", Some("account fee"), 1));
        assert_eq!((facts.scope, facts.began_at), (Scope::Account, Some(at("2026-11-05T00:00:00Z"))));
        assert_eq!(
            facts.stretches,
            [
                stretch("fee", "2026-11-10T00:00:00Z", Some("2026-11-25T00:00:00Z")),
                stretch("fee", "2026-11-28T00:00:00Z", None)
            ]
        );
        assert_eq!(facts.elsewhere, [stretch("fee", "2026-11-05T00:00:00Z", Some("2026-11-10T00:00:00Z"))]);
        let none = account_wide(&[], &book());
        assert_eq!((none.len(), none[0].began_at), (1, None), "what was billed can be taken back");
    }

    #[test]
    fn tenant_is_billed_for_its_subscribers_from_its_first_day() {
        let census = Arc::new(Census { tenant: "small".to_owned(), members: Vec::new() });
        let (from, until) = (at("2026-11-01T00:00:00Z"), Some(at("2026-12-01T00:00:00Z")));
        let facts = wholesale(Arc::clone(&census), "bulk", from, until);
        assert_eq!((facts.addon.as_deref(), facts.times, facts.began_at), (Some("tenant small"), 1, Some(from)));
        assert_eq!(facts.stretches, [Stretch { from, until, tariff: "bulk".to_owned() }]);
        assert_eq!(facts.census, Some(census));
    }
}

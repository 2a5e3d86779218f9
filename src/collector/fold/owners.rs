//! Whose a session is: who held its user name when it began; where nobody ever held that, its
//! address, its prefix or its MAC.
//!
//! In: sessions without an owner, and who holds and held what. Out: an owner or none; usage without one is kept until
//! somebody holds what it came with.

use std::collections::{HashMap, HashSet};

use super::rules;
use crate::collector::NasTable;
use crate::store::fold::{self, Holder};
use crate::store::sessions::{Owner, StoredSession};
use crate::store::{StoreError, Tx};
use crate::vocabulary::TenantId;

/// The owner of each session, in order; `None` where nobody held anything that the session came with.
pub(super) async fn of(
    tx: &mut Tx,
    sessions: &[&StoredSession],
    nas: &NasTable,
) -> Result<Vec<Option<Owner>>, StoreError> {
    let mut held = Held::default();
    let names: HashSet<&str> = sessions.iter().filter_map(|session| session.user_name.as_deref()).collect();
    if !names.is_empty() {
        for holder in fold::holders_of(tx, &names.into_iter().collect::<Vec<_>>()).await? {
            held.by_name.entry(folded_case(&holder.value)).or_default().push(holder);
        }
    }
    let keys: HashSet<(&'static str, String)> = sessions
        .iter()
        .filter(|session| held.name_of(session).is_none())
        .flat_map(|session| keys_of(session))
        .collect();
    if !keys.is_empty() {
        let keys: Vec<(&str, &str)> = keys.iter().map(|(kind, value)| (*kind, value.as_str())).collect();
        for holder in fold::holders_keyed(tx, &keys).await? {
            held.by_key.entry((holder.kind.clone(), holder.value.clone())).or_default().push(holder);
        }
    }
    Ok(sessions.iter().map(|session| held.owner(session, rules::tenants(nas, &session.nas))).collect())
}

/// Who holds and held what a few sessions came with, each the oldest first.
#[derive(Default)]
struct Held {
    /// By user name without case.
    by_name: HashMap<String, Vec<Holder>>,
    /// By kind and value.
    by_key: HashMap<(String, String), Vec<Holder>>,
}

impl Held {
    /// Everybody who ever held the session's user name.
    fn name_of(&self, session: &StoredSession) -> Option<&Vec<Holder>> {
        self.by_name.get(&folded_case(session.user_name.as_deref()?))
    }

    /// `tenants`: whose subscribers can be behind the NAS; `None` is anybody's.
    fn owner(&self, session: &StoredSession, tenants: Option<&[TenantId]>) -> Option<Owner> {
        let allowed = |holder: &&Holder| {
            tenants.is_none_or(|tenants| tenants.iter().any(|tenant| tenant.as_str() == holder.tenant))
        };
        let (began_at, last_at) = (session.state.started_at(), session.state.last_at());
        if let Some(holders) = self.name_of(session) {
            // Whoever came with a name that is known is not somebody else with the same address.
            let allowed: Vec<&Holder> = holders.iter().filter(allowed).collect();
            return owner_at(&allowed, session.user_name.as_deref()?, began_at);
        }
        keys_of(session).into_iter().find_map(|(kind, value)| {
            let holders = self.by_key.get(&(kind.to_owned(), value.clone()))?;
            let allowed: Vec<&Holder> = holders.iter().filter(allowed).collect();
            match kind {
                // Before it was given to anybody an address was somebody else's.
                "address" if allowed.first().is_none_or(|first| last_at < first.from_at) => None,
                _ => owner_at(&allowed, &value, began_at),
            }
        })
    }
}

/// What else than its name may tell whose a session is, as holders hold it.
fn keys_of(session: &StoredSession) -> Vec<(&'static str, String)> {
    let address = session.framed_ip.map(|address| ("address", address.to_string()));
    let prefix = session.framed_prefix.clone().map(|prefix| ("address", prefix));
    let station = session.calling_station.clone().map(|station| ("mac", station));
    address.into_iter().chain(prefix).chain(station).collect()
}

/// Who owns a session that began at `started_at`: the exact name goes before the name without case; before the first
/// holder it is the first, afterwards whoever held the name then.
fn owner_at(holders: &[&Holder], name: &str, started_at: i64) -> Option<Owner> {
    let exact: Vec<&Holder> = holders.iter().copied().filter(|holder| holder.value == name).collect();
    let candidates = if exact.is_empty() { holders } else { &exact };
    let first = candidates.first()?;
    if started_at < first.from_at {
        return Some(first.owner);
    }
    let holder = candidates.iter().rev().find(|holder| holder.from_at <= started_at)?;
    holder.until_at.is_none_or(|until| started_at < until).then_some(holder.owner)
}

fn folded_case(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(user_name: &str, account_id: i64, from_at: i64, until_at: Option<i64>) -> Holder {
        let owner = Owner { account_id, service_id: account_id * 10 };
        Holder { kind: "username".into(), value: user_name.into(), owner, tenant: "acme".into(), from_at, until_at }
    }

    #[test]
    fn usage_follows_the_holder_of_the_time() {
        let held = [holder("ada", 1, 100, Some(200)), holder("ada", 2, 300, None), holder("ADA", 3, 50, None)];
        let held: Vec<&Holder> = held.iter().collect();
        let cases = [
            ("before anyone", 10, Some(1)),
            ("the first", 150, Some(1)),
            ("nobody", 250, None),
            ("the second", 300, Some(2)),
        ];
        for (name, at, account) in cases {
            assert_eq!(owner_at(&held, "ada", at).map(|owner| owner.account_id), account, "{name}");
        }
        assert_eq!(owner_at(&held, "ADA", 10).map(|owner| owner.account_id), Some(3), "the exact name goes first");
        assert_eq!(owner_at(&held[..2], "Ada", 310).map(|owner| owner.account_id), Some(2), "else case is ignored");
    }
}

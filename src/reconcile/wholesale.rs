//! Whom a wholesale line counted, beside whom the same filter counts in the snapshot: every difference has a name.

use std::collections::HashMap;

use super::report::{LISTED_MAX, WholesaleCount};
use crate::account::{Account, ServiceType, Status};

/// One count as it goes on; names are `SOURCE/ACCOUNT`, or `SOURCE/ACCOUNT/SERVICE` where services are counted.
#[derive(Debug, Clone)]
pub struct Counting {
    line: String,
    charge: String,
    rule: String,
    days: String,
    filter: Filter,
    members: HashMap<String, bool>,
    theirs: u64,
    only_theirs: Vec<String>,
}

/// Who counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Services; else accounts with at least one service that counts.
    pub services: bool,
    /// Empty: of every type.
    pub types: Vec<ServiceType>,
    /// Empty: on every plan.
    pub plans: Vec<String>,
    pub statuses: Vec<Status>,
}

impl Counting {
    /// `names`: line, charge, rule and days. Members of other sources are left out, for the snapshot has none of them.
    pub fn new(names: [&str; 4], filter: Filter, source: &str, members: impl IntoIterator<Item = String>) -> Self {
        let [line, charge, rule, days] = names.map(str::to_owned);
        let ours = |member: &String| member.strip_prefix(source).is_some_and(|rest| rest.starts_with('/'));
        let members = members.into_iter().filter(ours).map(|member| (member, false)).collect();
        Self { line, charge, rule, days, filter, members, theirs: 0, only_theirs: Vec::new() }
    }

    /// An account of the snapshot; each is told once.
    pub fn told(&mut self, source: &str, id: &str, account: &Account) {
        let filter = &self.filter;
        let counts = account.services.iter().filter(|service| {
            filter.statuses.contains(&account.status_of(service))
                && (filter.types.is_empty() || filter.types.contains(&service.service_type))
                && (filter.plans.is_empty() || filter.plans.contains(&service.plan))
        });
        let names: Vec<String> = match filter.services {
            true => counts.map(|service| format!("{source}/{id}/{}", service.id)).collect(),
            false => counts.take(1).map(|_| format!("{source}/{id}")).collect(),
        };
        for name in names {
            self.theirs += 1;
            match self.members.get_mut(&name) {
                Some(seen) => *seen = true,
                None => self.only_theirs.push(name),
            }
            // What comes behind in the alphabet is not listed: the same lists give the same report.
            if self.only_theirs.len() > 2 * LISTED_MAX {
                self.only_theirs.sort();
                self.only_theirs.truncate(LISTED_MAX);
            }
        }
    }

    pub fn finish(mut self) -> WholesaleCount {
        let counted = self.members.len() as u64;
        let mut only_counted: Vec<String> =
            self.members.into_iter().filter(|(_, seen)| !seen).map(|(name, _)| name).collect();
        for names in [&mut only_counted, &mut self.only_theirs] {
            names.sort();
            names.truncate(LISTED_MAX);
        }
        WholesaleCount {
            line: self.line,
            charge: self.charge,
            rule: self.rule,
            days: self.days,
            counted,
            theirs: self.theirs,
            only_counted,
            only_theirs: self.only_theirs,
            worth: None,
            currency: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_difference_is_told() {
        let account = |status: &str, plan: &str| -> Account {
            serde_json::from_value(serde_json::json!({
                "status": status, "kind": "person", "bill_cycle": "c1",
                "services": [{ "id": "i", "type": "internet", "plan": plan }, { "id": "v", "type": "voice", "plan": "v" }],
            }))
            .expect("an account")
        };
        let filter = Filter {
            services: false,
            types: vec![ServiceType::Internet],
            plans: vec!["a".to_owned()],
            statuses: vec![Status::Active],
        };
        let members = ["s/1", "s/2", "other/9", "sx/1"].map(str::to_owned);
        let mut counting =
            Counting::new(["line", "subscribers", "any", "2026-11-01..2026-11-30"], filter, "s", members);
        for (id, status, plan) in
            [("1", "active", "a"), ("3", "active", "a"), ("4", "suspended", "a"), ("5", "active", "b")]
        {
            counting.told("s", id, &account(status, plan));
        }
        let found = counting.finish();
        assert_eq!((found.counted, found.theirs), (2, 2));
        assert_eq!((found.only_counted, found.only_theirs), (vec!["s/2".to_owned()], vec!["s/3".to_owned()]));
    }
}

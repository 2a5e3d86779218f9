//! Changes of a service that wait for their day: when that is, and what the account is once it has come.
//!
//! The stored document stays as it was pushed; what is provisioned and billed follows from it and an instant. So a push
//! that is repeated after the day takes nothing back.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::facts::ServiceFacts;
use super::model::{Account, Due, Moment, Scheduled, ScheduledAt, Status};
use super::patch::merge;
use crate::vocabulary::{Timestamp, Zone};

impl Account {
    /// The account with every waiting change laid over it whose day has come.
    pub fn at(&self, now: Timestamp) -> Cow<'_, Account> {
        let due = |change: &Scheduled| change.due.is_some_and(|due| due.at <= now);
        if !self.services.iter().flat_map(|service| &service.scheduled).any(due) {
            return Cow::Borrowed(self);
        }
        let mut account = self.clone();
        for service in &mut account.services {
            let waiting = service.scheduled.clone();
            for change in in_order(&waiting).filter(|change| due(change)) {
                // The change was checked with the service when it was pushed.
                if let Some(changed) = patched(service, &change.set_on_its_day()) {
                    *service = changed;
                }
            }
        }
        Cow::Owned(account)
    }

    /// When the next waiting change is due after `now`.
    pub fn next_scheduled(&self, now: Timestamp) -> Option<Timestamp> {
        let changes = self.services.iter().flat_map(|service| &service.scheduled);
        changes.filter_map(|change| Some(change.due?.at)).filter(|at| *at > now).min()
    }

    /// Works out when each waiting change is due. One that `before` says too keeps its day: `next_cycle` means the first
    /// period that began after it was heard of.
    pub fn settle_schedule(&mut self, before: Option<&Account>, zone: &Zone, next_cycle: Option<Timestamp>) {
        for service in &mut self.services {
            let known = before.and_then(|before| before.service(&service.id)).map(|known| known.scheduled.as_slice());
            for change in &mut service.scheduled {
                let same = known.unwrap_or_default().iter().find(|old| old.at == change.at && old.set == change.set);
                change.due = match (same.and_then(|old| old.due), &change.at) {
                    (Some(due), _) => Some(due),
                    (None, ScheduledAt::Moment(Moment::Day(day))) => {
                        Some(Due { at: Moment::Day(*day).at(zone), on: *day })
                    }
                    (None, ScheduledAt::Moment(Moment::Instant(at))) => Some(due_at(*at, zone)),
                    (None, ScheduledAt::Word(_)) => next_cycle.map(|at| due_at(at, zone)),
                };
            }
        }
    }
}

impl ServiceFacts {
    /// These facts after each of their waiting changes that is due in `(from, until)`, in order.
    pub fn scheduled_between(&self, from: Timestamp, until: Option<Timestamp>) -> Vec<(Timestamp, ServiceFacts)> {
        let mut current = self.clone();
        let mut found = Vec::new();
        for change in in_order(&self.scheduled) {
            let Some(due) = change.due else { continue };
            if due.at <= from || until.is_some_and(|until| until <= due.at) {
                continue;
            }
            let mut set = change.set_on_its_day();
            if let Some(map) = set.as_object_mut() {
                map.retain(|key, value| BILLED.contains(&key.as_str()) && (key != "status" || !value.is_null()));
                // The account's own end is not taken back by one of its services.
                if current.status == Status::Terminated {
                    map.shift_remove("status");
                }
            }
            if let Some(changed) = patched(&current, &set) {
                current = changed;
                found.push((due.at, current.clone()));
            }
        }
        found
    }
}

impl Scheduled {
    /// The patch; a price of the subscriber's own without a first day has the day of the change.
    fn set_on_its_day(&self) -> Value {
        let mut set = self.set.clone();
        if let (Some(due), Some(own)) = (self.due, set.get_mut("price_override").and_then(Value::as_object_mut)) {
            own.entry("from").or_insert_with(|| Value::String(due.on.to_string()));
        }
        set
    }
}

fn in_order(changes: &[Scheduled]) -> impl Iterator<Item = &Scheduled> {
    let mut ordered: Vec<&Scheduled> = changes.iter().collect();
    ordered.sort_by_key(|change| change.due.map(|due| due.at));
    ordered.into_iter()
}

fn patched<T: Serialize + DeserializeOwned>(value: &T, set: &Value) -> Option<T> {
    serde_json::from_value(merge(&serde_json::to_value(value).ok()?, set)).ok()
}

fn due_at(at: Timestamp, zone: &Zone) -> Due {
    Due { at, on: at.to_zoned(zone.clone()).date() }
}

/// What of a change concerns billing.
const BILLED: [&str; 8] =
    ["plan", "status", "billing_from", "billing_until", "tax_jurisdiction", "price_override", "addons", "promos"];

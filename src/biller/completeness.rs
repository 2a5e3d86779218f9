//! What accounting may have missed, account by account, in octets and in money: modems that were online while no session
//! told of it, and sessions that were silent.
//!
//! In: silences found in the records, leases and answers of modems, prices. Out: findings with an estimate each. An
//! estimate is the account's own rate in the period; its price is what the next octets would have cost.

use std::collections::BTreeMap;

use super::BillerError;
use crate::account::ServiceType;
use crate::billing::facts::{AccountFacts, RunContext};
use crate::billing::simulate::marginal;
use crate::store::billing::{self, BilledAccount};
use crate::store::completeness as outside;
use crate::store::simulate::recorded_period;
use crate::store::{Store, Tx, accounts, catalog, rating};
use crate::usage::{Silence, SilenceKind};
use crate::vocabulary::{Clock, Money, Timestamp, from_micros, to_micros};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub what: What,
    pub source: String,
    pub account: String,
    pub service: Option<String>,
    /// The session, or the device.
    pub subject: String,
    /// NAS or CMTS.
    pub place: String,
    pub from: Timestamp,
    pub until: Timestamp,
    /// Without a report, less than from `from` to `until` where sessions were in between.
    pub seconds: i64,
    pub octets: i128,
    /// What the octets would have cost; `None`: they are counted, or nothing meters them.
    pub amount: Option<Money>,
}

/// Why something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A session reported late: its octets are counted, only when they were used is not known.
    Between,
    /// A session ended without a Stop, or is silent still.
    AfterLast,
    /// A modem had an address while no session of its account told of it.
    Online,
    /// A modem answered in a period in which its account has no session at all.
    Answered,
}

impl What {
    pub fn as_str(self) -> &'static str {
        match self {
            What::Between => SilenceKind::Between.as_str(),
            What::AfterLast => SilenceKind::After.as_str(),
            What::Online => "online_without_accounting",
            What::Answered => "answered_without_accounting",
        }
    }
}

/// A silence with whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedSilence {
    pub service_id: i64,
    pub nas: String,
    pub session: String,
    pub silence: Silence,
}

/// What is to be looked through.
#[derive(Debug, Clone)]
pub struct Question {
    pub tenant: String,
    /// The cycle and period, as a run has them.
    pub context: RunContext,
    /// So long a modem may be online without a report.
    pub patience_seconds: i64,
}

/// The periods that are looked through: of one cycle, or of each that has a period of that name.
pub async fn periods(
    store: &Store,
    clock: &Clock,
    tenant: &str,
    cycle: Option<&str>,
    period: &str,
) -> Result<Vec<RunContext>, BillerError> {
    let mut tx = store.read().await?;
    let known = catalog::in_force(&mut tx, tenant).await?;
    let known = known.ok_or_else(|| rating::RatingError::NoTenant(tenant.to_owned()))?;
    let names: Vec<String> = match cycle {
        Some(cycle) => vec![cycle.to_owned()],
        None => known.catalog.cycles.keys().cloned().collect(),
    };
    let mut found = Vec::new();
    for name in names {
        match rating::context(&mut tx, tenant, &name, Some(period), clock.now()).await {
            Ok(context) => found.push(context),
            Err(rating::RatingError::Calendar(_)) if cycle.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Looks through the accounts of a cycle. `watch` gets each finding, and how many accounts of how many are done.
pub async fn missing(
    store: &Store,
    question: &Question,
    silences: &BTreeMap<i64, Vec<OwnedSilence>>,
    watch: &mut (dyn FnMut(Option<Missing>, u64, u64) + Send),
) -> Result<(), BillerError> {
    let mut tx = store.read().await?;
    let plans = catalog::plan_tariffs(&mut tx, &question.tenant).await?;
    let cycle = &question.context.cycle.id;
    let total = u64::try_from(billing::count_accounts(&mut tx, &question.tenant, cycle).await?).unwrap_or(0);
    tx.rollback().await?;
    let (mut after, mut done) = (0, 0);
    loop {
        let mut tx = store.read_snapshot().await?;
        let chunk = billing::accounts(&mut tx, &question.tenant, cycle, after, super::build::CHUNK).await?;
        let Some(last) = chunk.last() else { return Ok(()) };
        after = last.id;
        for account in &chunk {
            let own = silences.get(&account.id).map(Vec::as_slice).unwrap_or_default();
            let look = Look { question, account, silences: own, plans: &plans };
            for found in look.run(&mut tx).await? {
                watch(Some(found), done, total);
            }
            done += 1;
            watch(None, done, total.max(done));
        }
        tx.rollback().await?;
    }
}

struct Look<'l> {
    question: &'l Question,
    account: &'l BilledAccount,
    silences: &'l [OwnedSilence],
    plans: &'l crate::billing::history::PlanTariffs,
}

impl Look<'_> {
    async fn run(&self, tx: &mut Tx) -> Result<Vec<Missing>, BillerError> {
        let context = &self.question.context;
        let id = self.account.id;
        let (start, end) = (to_micros(context.period.start), to_micros(context.period.end.min(context.now)));
        let leases = outside::leases(tx, id, start, end).await?;
        let answers = outside::answers(tx, id, start, end).await?;
        let mut online = Vec::new();
        if !leases.is_empty() || !answers.is_empty() {
            let spans = outside::session_spans(tx, id, start, end).await?;
            let patience = self.question.patience_seconds.saturating_mul(1_000_000);
            for lease in leases {
                let within = (lease.since_at.max(start), lease.seen_at.min(end));
                let bare = uncovered(within, &spans, patience);
                let micros: i64 = bare.iter().map(|(from, until)| until - from).sum();
                if let (Some(first), Some(last)) = (bare.first(), bare.last())
                    && micros > patience
                {
                    online.push((What::Online, lease.mac, lease.cmts, first.0, last.1, micros));
                }
            }
            for (mac, at) in answers.into_iter().filter(|_| spans.is_empty()) {
                if !online.iter().any(|(_, known, ..)| *known == mac) {
                    online.push((What::Answered, mac, String::new(), at, at, 0));
                }
            }
        }
        if online.is_empty() && self.silences.is_empty() {
            return Ok(Vec::new());
        }
        let services = accounts::services(tx, id).await?;
        let internet = services.iter().find(|service| service.service_type == ServiceType::Internet);
        let read = recorded_period(tx, self.account, &self.question.tenant, &[context], self.plans, true).await?;
        // An account that cannot be rated has no price; its bill says why.
        let facts = read.ok().map(|read| read.facts);
        let mut found = Vec::new();
        for owned in self.silences {
            let service = services.iter().find(|service| service.id == owned.service_id);
            let service = service.map(|service| service.external_id.clone());
            let Silence { kind, from, until, octets } = owned.silence;
            let what = if kind == SilenceKind::Between { What::Between } else { What::AfterLast };
            let amount = match (&service, kind) {
                (Some(service), SilenceKind::After) => self.price(facts.as_ref(), service, octets),
                _ => None,
            };
            let (subject, place) = (owned.session.clone(), owned.nas.clone());
            found.extend(self.finding(what, service, (subject, place), (from, until, until - from), octets, amount));
        }
        for (what, mac, cmts, from, until, micros) in online {
            let service = internet.map(|service| service.external_id.clone());
            let services = facts.iter().flat_map(|facts| &facts.services);
            let own = services.filter(|known| known.addon.is_none()).find(|known| Some(&known.id) == service.as_ref());
            let entries = own.map(|service| service.usage.as_slice()).unwrap_or_default();
            let sum = |count: fn(&crate::billing::facts::UsageEntry) -> i64| {
                entries.iter().map(|entry| i128::from(count(entry))).sum::<i128>()
            };
            let used = sum(|entry| entry.in_octets) + sum(|entry| entry.out_octets);
            let seconds = sum(|entry| entry.seconds);
            let octets = if seconds > 0 { used.max(0) * i128::from(micros / 1_000_000) / seconds } else { 0 };
            let amount = match &service {
                Some(service) => self.price(facts.as_ref(), service, octets),
                None => None,
            };
            found.extend(self.finding(what, service, (mac, cmts), (from, until, micros), octets, amount));
        }
        Ok(found)
    }

    fn price(&self, facts: Option<&AccountFacts>, service: &str, octets: i128) -> Option<Money> {
        marginal(facts?, &self.question.context, service, octets).unwrap_or_default()
    }

    fn finding(
        &self,
        what: What,
        service: Option<String>,
        (subject, place): (String, String),
        (from, until, micros): (i64, i64, i64),
        octets: i128,
        amount: Option<Money>,
    ) -> Option<Missing> {
        Some(Missing {
            what,
            source: self.account.source.clone(),
            account: self.account.external_id.clone(),
            service,
            subject,
            place,
            from: from_micros(from)?,
            until: from_micros(until)?,
            seconds: micros / 1_000_000,
            octets,
            amount,
        })
    }
}

/// The parts of `within` that lie in no span; each span reaches `patience` beyond its last report.
fn uncovered(within: (i64, i64), spans: &[(i64, i64)], patience: i64) -> Vec<(i64, i64)> {
    let mut bare = Vec::new();
    let mut at = within.0;
    let mut ordered = spans.to_vec();
    ordered.sort_unstable();
    for (from, until) in ordered {
        if from > at && at < within.1 {
            bare.push((at, from.min(within.1)));
        }
        at = at.max(until.saturating_add(patience));
    }
    if at < within.1 {
        bare.push((at, within.1));
    }
    bare.retain(|(from, until)| until > from);
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_sessions_is_uncovered_beyond_their_patience() {
        let spans = [(30, 40), (10, 20), (12, 15), (80, 90)];
        assert_eq!(uncovered((0, 100), &spans, 5), [(0, 10), (25, 30), (45, 80), (95, 100)]);
        assert_eq!(uncovered((13, 22), &spans, 5), []);
        assert_eq!(uncovered((50, 60), &[], 5), [(50, 60)]);
        assert_eq!(uncovered((5, 5), &[], 5), []);
    }
}

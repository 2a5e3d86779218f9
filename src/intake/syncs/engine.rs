//! Reconciles one list: reads both sides in batches, has each account decided, adds up, and keeps what differs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::ToSpan;
use sha2::{Digest, Sha256};

use super::read::{self, Reading, Record, Survey};
use super::{Form, Input, Order, Progress, Reconciler, SyncError, facts, no_catalog};
use crate::account::{Account, Pushed, SecretDigests};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::deeds::secret_digest;
use crate::reconcile::{
    Action, Class, Finding, Guard, Kind, KindRow, Ours, Plan, PlanSummary, Proof, Report, Tally, Theirs, Told, Verdict,
    classify, effects,
};
use crate::store::accounts::{self, AccountRow};
use crate::store::{audit, catalog, events, secrets, syncs};
use crate::vocabulary::{AccountKey, Timestamp, Zone, hex};

/// What was found, and what applying it needs besides.
#[derive(Debug)]
pub struct Found {
    pub report: Report,
    /// Rows of the accounts that the plan closes.
    pub(super) absent: Vec<i64>,
    pub(super) survey: Survey,
}

/// One account that is to be changed.
#[derive(Debug)]
pub(super) struct Wanted {
    pub key: AccountKey,
    pub pushed: Pushed,
    pub action: Action,
    /// The revision that is stored.
    pub known_revision: Option<i64>,
}

/// Accounts of one question to the database.
pub(super) const ACCOUNTS_AT_ONCE: usize = 256;
/// Findings that are kept in one transaction.
const FINDINGS_AT_ONCE: usize = 1024;
const ROWS_AT_ONCE: i64 = 20_000;
/// A list that tells so many accounts more than once is none.
const REPEATED_MAX: usize = 100_000;
const DAY_SECONDS: i64 = 24 * 3600;

impl Reconciler {
    /// Compares a list with what is stored, and keeps the findings under the order's name.
    ///
    /// **Errors**: a list that cannot be read at all, a tenant without a catalog, the store.
    pub async fn reconcile(
        &self,
        order: &Order,
        input: &Input,
        form: &Arc<Form>,
        progress: &Progress,
    ) -> Result<Found, SyncError> {
        let found = self.compare(order, input, form, progress).await?;
        self.keep(order, &found.report).await?;
        Ok(found)
    }

    /// The same, without a word about it.
    pub(super) async fn compare(
        &self,
        order: &Order,
        input: &Input,
        form: &Arc<Form>,
        progress: &Progress,
    ) -> Result<Found, SyncError> {
        let survey = read::survey(input, form, &self.store).await.map_err(SyncError::List)?;
        let mut comparison = Comparison::begin(self, order, &survey, Findings::Kept).await?;
        comparison.compare_told(input, form, &survey, progress).await?;
        let absent = comparison.compare_absent(progress).await?;
        comparison.keep(0).await?;
        let (report, catalog_version) = comparison.report(&survey).await?;
        tracing::debug!(catalog.version = catalog_version, "List compared.");
        let absent = if report.plan.deletes > 0 { absent } else { Vec::new() };
        Ok(Found { report, absent, survey })
    }

    /// The report, the audit and the event, in one transaction.
    pub(super) async fn keep(&self, order: &Order, report: &Report) -> Result<(), SyncError> {
        let (now, tenant) = (self.clock.now(), order.tenant.as_str());
        let mut tx = self.store.write().await?;
        syncs::planned(&mut tx, &order.sync, report, now).await?;
        let detail = serde_json::json!({ "report": report.id, "plan": report.plan.hash });
        let subject = format!("{}/{}", order.tenant, order.source);
        let entry = audit::Entry {
            tenant: Some(tenant),
            actor: &order.actor,
            action: "sync.reconcile",
            account_id: None,
            subject: &subject,
            detail: &detail,
        };
        audit::append(&mut tx, &entry, now).await?;
        let payload = serde_json::json!({
            "sync": order.sync, "report": report.id, "source": order.source, "as_of": report.as_of,
            "differs": report.differs(), "subscribers": report.subscribers, "services": report.services,
            "plan": report.plan,
        });
        let event = events::NewEvent {
            tenant,
            kind: events::EventType::ReconcileCompleted,
            subject: order.source.as_str(),
            payload: &payload,
        };
        events::append(&mut tx, &event, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// One comparison as it goes on.
pub(super) struct Comparison<'a> {
    desk: &'a Reconciler,
    order: &'a Order,
    pub(super) catalog: Arc<TenantCatalog>,
    /// Before this a change here is known to the list.
    settled_before: Timestamp,
    tally: Tally,
    plan: Plan,
    proof: Proof,
    /// Records that do not say whose they are.
    unnamed: u64,
    seen: HashSet<i64>,
    digests: Vec<[u8; 16]>,
    findings: Vec<(i64, Finding)>,
    counting: Vec<facts::Charged>,
    keeping: Findings,
}

/// What becomes of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Findings {
    /// In the store.
    Kept,
    /// They are there from before.
    Dropped,
}

/// The rows of one account in the list.
type Rows = Vec<Result<Pushed, String>>;

impl<'a> Comparison<'a> {
    pub(super) async fn begin(
        desk: &'a Reconciler,
        order: &'a Order,
        survey: &Survey,
        keeping: Findings,
    ) -> Result<Self, SyncError> {
        let mut tx = desk.store.read().await?;
        let catalog = desk.catalogs.current(&mut tx, &order.tenant).await.map_err(no_catalog(&order.tenant))?;
        let counting = facts::counting(&mut tx, order).await?;
        tx.rollback().await?;
        if keeping == Findings::Kept {
            let mut tx = desk.store.write().await?;
            syncs::clear_findings(&mut tx, &order.sync).await?;
            tx.commit().await?;
        }
        let grace = order.grace_seconds.seconds();
        Ok(Self {
            desk,
            order,
            catalog,
            settled_before: order.as_of.checked_sub(grace).unwrap_or(Timestamp::MIN),
            tally: Tally::default(),
            plan: Plan::default(),
            proof: proof(order, survey),
            unnamed: 0,
            seen: HashSet::new(),
            digests: Vec::new(),
            findings: Vec::new(),
            counting,
            keeping,
        })
    }

    pub(super) fn reading(&self) -> Reading {
        Reading {
            tenant: self.order.tenant.clone(),
            source: self.order.source.clone(),
            known: Arc::new(self.catalog.known.clone()),
        }
    }

    /// Everybody the list tells.
    async fn compare_told(
        &mut self,
        input: &Input,
        form: &Arc<Form>,
        survey: &Survey,
        progress: &Progress,
    ) -> Result<(), SyncError> {
        let mut batches = read::accounts(input, form, &self.desk.store, &self.reading());
        let mut repeated: BTreeMap<String, Rows> = BTreeMap::new();
        let mut done = 0;
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(SyncError::List)?;
            done += batch.len() as u64;
            let singles = self.sort_out(batch, survey, &mut repeated)?;
            self.compare(singles).await?;
            self.keep(FINDINGS_AT_ONCE).await?;
            progress("comparing", done, survey.records);
        }
        let mut repeated = repeated.into_iter().collect::<Vec<_>>();
        while !repeated.is_empty() {
            let some = repeated.split_off(repeated.len().saturating_sub(ACCOUNTS_AT_ONCE));
            self.compare(some).await?;
            self.keep(FINDINGS_AT_ONCE).await?;
        }
        Ok(())
    }

    /// Those that are told once; the others wait until all of their rows are there.
    pub(super) fn sort_out(
        &mut self,
        batch: Vec<Record>,
        survey: &Survey,
        repeated: &mut BTreeMap<String, Rows>,
    ) -> Result<Vec<(String, Rows)>, SyncError> {
        let mut singles = Vec::with_capacity(batch.len());
        for Record { number, id, row } in batch {
            match (id, row) {
                (Some(id), row) if survey.repeats(&id) => {
                    repeated.entry(id).or_default().push(row);
                    if repeated.len() > REPEATED_MAX {
                        let detail = format!("it tells more than {REPEATED_MAX} accounts more than once");
                        return Err(SyncError::List(detail));
                    }
                }
                (Some(id), row) => singles.push((id, vec![row])),
                (None, row) => {
                    let reason = row.err().unwrap_or_else(|| "it does not say whose it is".to_owned());
                    let told = Told::Unreadable { rows: 1, reason };
                    self.unnamed += 1;
                    self.tally.told(&told);
                    let verdict = classify(&format!("(record {number})"), &told, None);
                    self.count(verdict);
                }
            }
        }
        Ok(singles)
    }

    /// Compares accounts of the list, and says which are to be changed.
    pub(super) async fn compare(&mut self, told: Vec<(String, Rows)>) -> Result<Vec<Wanted>, SyncError> {
        let mut keys = Vec::with_capacity(told.len());
        for (id, _) in &told {
            let (tenant, source) = (self.order.tenant.clone(), self.order.source.clone());
            keys.push(AccountKey { tenant, source, external_id: id.clone() });
        }
        let mut tx = self.desk.store.read().await?;
        let rows = accounts::these(&mut tx, &keys.iter().collect::<Vec<_>>()).await?;
        let names_secrets = |rows: &Rows| rows.iter().flatten().any(|pushed| !pushed.secrets.is_empty());
        let naming: HashSet<&str> =
            told.iter().filter(|(_, rows)| names_secrets(rows)).map(|(id, _)| id.as_str()).collect();
        let named = rows.iter().filter(|row| naming.contains(row.external_id.as_str()));
        let with_secrets: Vec<i64> = named.map(|row| row.id).collect();
        let mut digests =
            if with_secrets.is_empty() { HashMap::new() } else { secrets::digests(&mut tx, &with_secrets).await? };
        tx.rollback().await?;
        let mut ours = HashMap::with_capacity(rows.len());
        let mut living = Vec::with_capacity(rows.len());
        for row in rows {
            if row.closed_at.is_none() {
                self.seen.insert(row.id);
                living.push(row.id);
            }
            let digests = digests.remove(&row.id).unwrap_or_default();
            let id = row.id;
            ours.insert(row.external_id.clone(), (id, self.stored(row, digests)));
        }
        self.count_billed(&living, ours.values().map(|(id, ours)| (*id, ours))).await?;
        let sealer = self.desk.store.sealer();
        let mut decided = Vec::with_capacity(told.len());
        for ((id, rows), key) in told.into_iter().zip(keys) {
            let said = said(&rows, &key, sealer);
            let stored = ours.get(&id).map(|(_, ours)| ours);
            self.tell(&said, &id, stored);
            let verdict = classify(&id, &said, stored);
            decided.push((key, rows, said, verdict));
        }
        self.wait_for_jobs(
            decided.iter_mut().map(|(key, _, said, verdict)| (&*key.external_id, &*said, verdict)),
            &mut ours,
        )
        .await?;
        let mut wanted = Vec::new();
        for (key, rows, _, verdict) in decided {
            let action = self.wanted(&verdict);
            self.count(verdict);
            // Where several rows are planned they say the same; the newest is the one that was compared.
            let newest = rows.into_iter().flatten().max_by_key(|pushed| pushed.source_revision);
            if let (Some(action), Some(pushed)) = (action, newest) {
                let known_revision = ours.get(&key.external_id).and_then(|(_, ours)| ours.source_revision);
                wanted.push(Wanted { key, pushed, action, known_revision });
            }
        }
        Ok(wanted)
    }

    /// Everybody of ours whom the list does not tell. Returns the rows of those that a proven list closes.
    async fn compare_absent(&mut self, progress: &Progress) -> Result<Vec<i64>, SyncError> {
        let (tenant, source) = (self.order.tenant.as_str(), self.order.source.as_str());
        let (mut after, mut done, mut absent) = (0, 0, Vec::new());
        loop {
            let mut tx = self.desk.store.read().await?;
            let ids = syncs::living(&mut tx, tenant, source, after, ROWS_AT_ONCE).await?;
            tx.rollback().await?;
            let Some(last) = ids.last() else { return Ok(absent) };
            after = *last;
            done += ids.len() as u64;
            let unseen: Vec<i64> = ids.into_iter().filter(|id| !self.seen.contains(id)).collect();
            for some in unseen.chunks(ACCOUNTS_AT_ONCE) {
                absent.extend(self.compare_unseen(some).await?.into_iter().map(|(id, _)| id));
                self.keep(FINDINGS_AT_ONCE).await?;
            }
            progress("looking for whom the list does not tell", done, done);
        }
    }

    /// Accounts that the list does not tell: (row, key and what its tag is) of those that a proven list closes.
    pub(super) async fn compare_unseen(&mut self, ids: &[i64]) -> Result<Vec<(i64, (AccountKey, Action))>, SyncError> {
        let mut tx = self.desk.store.read().await?;
        let rows = accounts::these_by_id(&mut tx, ids).await?;
        tx.rollback().await?;
        let mut ours = HashMap::with_capacity(rows.len());
        let living: Vec<i64> = rows.iter().filter(|row| row.closed_at.is_none()).map(|row| row.id).collect();
        let mut names = Vec::with_capacity(rows.len());
        for row in rows {
            names.push((row.id, row.external_id.clone()));
            let id = row.id;
            ours.insert(row.external_id.clone(), (id, self.stored(row, SecretDigests::new())));
        }
        self.count_billed(&living, ours.values().map(|(id, ours)| (*id, ours))).await?;
        let mut decided = Vec::with_capacity(names.len());
        for (row, id) in names {
            let stored = ours.get(&id).map(|(_, ours)| ours);
            self.tell(&Told::Nothing, &id, stored);
            let verdict = classify(&id, &Told::Nothing, stored);
            decided.push((row, id, verdict));
        }
        let nothing = Told::Nothing;
        self.wait_for_jobs(decided.iter_mut().map(|(_, id, verdict)| (&**id, &nothing, verdict)), &mut ours).await?;
        let mut closing = Vec::new();
        for (row, id, verdict) in decided {
            let action = self.wanted(&verdict);
            self.count(verdict);
            if let Some(action) = action {
                let (tenant, source) = (self.order.tenant.clone(), self.order.source.clone());
                closing.push((row, (AccountKey { tenant, source, external_id: id }, action)));
            }
        }
        Ok(closing)
    }

    /// What differs while a job of the last day is under way is in flight.
    async fn wait_for_jobs<'v>(
        &self,
        decided: impl Iterator<Item = (&'v str, &'v Told, &'v mut Verdict)>,
        ours: &mut HashMap<String, (i64, Ours)>,
    ) -> Result<(), SyncError> {
        let differs = |verdict: &Verdict| verdict.findings.iter().any(|finding| finding.class.is_difference());
        let differing: Vec<_> = decided.filter(|(_, _, verdict)| differs(verdict)).collect();
        let ids: Vec<i64> = differing.iter().filter_map(|(id, ..)| Some(ours.get(*id)?.0)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let since = self.settled_before.checked_sub(DAY_SECONDS.seconds()).unwrap_or(Timestamp::MIN);
        let mut tx = self.desk.store.read().await?;
        // Without a time of grace nothing waits.
        let busy = match self.order.grace_seconds {
            0 => HashSet::new(),
            _ => syncs::with_new_jobs(&mut tx, &ids, since).await?,
        };
        tx.rollback().await?;
        for (id, told, verdict) in differing {
            let Some((row, ours)) = ours.get_mut(id) else { continue };
            if busy.contains(&*row) && ours.fresh.is_none() {
                ours.fresh = Some("a job is under way");
                *verdict = classify(id, told, Some(&*ours));
            }
        }
        Ok(())
    }

    fn stored(&mut self, row: AccountRow, secrets: SecretDigests) -> Ours {
        let changed = row.closed_at.unwrap_or(row.updated_at);
        if row.closed_at.is_none() {
            let digest = Sha256::digest(format!("{}\u{0}{}", row.external_id, row.etag).as_bytes());
            self.digests.push(digest[..16].try_into().expect("sixteen of thirty-two octets"));
        }
        let mut ours = Ours::new(row.document, row.etag);
        ours.source_revision = row.source_revision;
        ours.closed = row.closed_at.is_some();
        ours.fresh = (changed > self.settled_before).then_some("changed here at about the time of the list");
        ours.secrets = secrets;
        ours
    }

    fn tell(&mut self, told: &Told, id: &str, stored: Option<&Ours>) {
        self.tally.told(told);
        if !self.counting.is_empty()
            && let Some(first) = told.first()
        {
            let source = self.order.source.as_str();
            self.counting.iter_mut().for_each(|charged| charged.counting.told(source, id, first.account()));
        }
        if let Some(ours) = stored.filter(|ours| !ours.closed) {
            self.tally.stored(ours.account());
        }
    }

    async fn count_billed<'o>(
        &mut self,
        living: &[i64],
        ours: impl Iterator<Item = (i64, &'o Ours)>,
    ) -> Result<(), SyncError> {
        let mut tx = self.desk.store.read().await?;
        let billed = syncs::billed(&mut tx, living, self.order.as_of).await?;
        tx.rollback().await?;
        if billed.is_empty() {
            return Ok(());
        }
        for (id, ours) in ours {
            let Some(billed) = billed.get(&id) else { continue };
            let account: &Account = ours.account();
            for service in account.services.iter().filter(|service| billed.contains(&service.id)) {
                self.tally.billed(Kind::of(account, service));
            }
        }
        Ok(())
    }

    /// What is to be done about it, if that step is asked for.
    fn wanted(&self, verdict: &Verdict) -> Option<Action> {
        let wants = |action: &&Action| self.order.only.as_ref().is_none_or(|only| only.holds(action.step()));
        verdict.action.as_ref().filter(wants).cloned()
    }

    fn count(&mut self, verdict: Verdict) {
        if let (Some(action), Some(first)) = (&verdict.action, verdict.findings.first()) {
            match self.wanted(&verdict) {
                Some(action) => self.plan.add(&first.account, &action),
                None => self.plan.pass(action),
            }
        }
        for (number, finding) in (0..).zip(verdict.findings) {
            self.tally.add(&finding);
            let listed = finding.class != Class::Matched || self.order.with_matched;
            if listed && self.keeping == Findings::Kept {
                self.findings.push((number, finding));
            }
        }
    }

    /// Keeps findings when there are more than `most`.
    async fn keep(&mut self, most: usize) -> Result<(), SyncError> {
        if self.findings.len() <= most {
            return Ok(());
        }
        for some in std::mem::take(&mut self.findings).chunks(FINDINGS_AT_ONCE) {
            let mut tx = self.desk.store.write().await?;
            syncs::add_findings(&mut tx, &self.order.sync, some).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn report(&mut self, survey: &Survey) -> Result<(Report, i64), SyncError> {
        // Whoever seems to be absent may be one of these.
        if self.unnamed > 0 && self.proof.is_proven() {
            self.proof = Proof::Refuted(format!("{} of its records do not say whose they are", self.unnamed));
        }
        let (order, tally) = (self.order, &self.tally);
        let mut tx = self.desk.store.read().await?;
        let in_force = catalog::in_force(&mut tx, order.tenant.as_str()).await?;
        let in_force = in_force.ok_or_else(|| SyncError::NoCatalog(order.tenant.clone()))?;
        let zone: Zone = in_force.catalog.zone.clone();
        let day = order.as_of.to_zoned(zone).date();
        let since = self.desk.clock.now().checked_sub(DAY_SECONDS.seconds()).unwrap_or(Timestamp::MIN);
        let used = syncs::losses(&mut tx, order.tenant.as_str(), order.source.as_str(), since).await?;
        let ring = facts::ring(&mut tx, order, &in_force.catalog).await?;
        tx.rollback().await?;
        self.digests.sort_unstable();
        let mut digest = Sha256::new();
        self.digests.iter().for_each(|one| digest.update(one));
        let ours_digest = hex(digest.finalize());
        let guard = Guard::new(tally.subscribers.ours, used, order.allow_deletions);
        let plan = PlanSummary {
            hash: self.plan.hash(order.tenant.as_str(), order.source.as_str(), &self.proof),
            creates: self.plan.creates,
            updates: self.plan.updates,
            deletes: self.plan.deletes(&self.proof),
            removes: self.plan.removes,
            absent: self.plan.absent,
            only: order.only.clone(),
            refused: guard.refusal(self.plan.losses(&self.proof)),
            guard,
        };
        let (as_of, proof) = (order.as_of.to_string(), self.proof.to_string());
        let catalog_digest = in_force.catalog.bundle.digest();
        let inputs = [
            "lastmile report 1",
            order.tenant.as_str(),
            order.source.as_str(),
            &as_of,
            &proof,
            &survey.digest,
            &ours_digest,
            &catalog_digest,
        ];
        let report = Report {
            id: Report::identify(&inputs),
            tenant: order.tenant.to_string(),
            source: order.source.to_string(),
            as_of: order.as_of,
            day,
            timezone: in_force.catalog.timezone.clone(),
            rule: format!("active_on {day} ({}), each service once, each status by itself", in_force.catalog.timezone),
            records: survey.records,
            theirs_digest: survey.digest.clone(),
            ours_digest,
            proof: self.proof.clone(),
            subscribers: tally.subscribers.clone(),
            services: tally.services.clone(),
            kinds: tally.kinds.iter().map(|(kind, cell)| KindRow { kind: kind.clone(), cell: cell.clone() }).collect(),
            invariants: tally.invariants(),
            effects: effects(&tally.kinds, &facts::rates(&in_force.catalog, day))?,
            wholesale: std::mem::take(&mut self.counting)
                .into_iter()
                .map(facts::Charged::finish)
                .collect::<Result<_, _>>()?,
            ring,
            plan,
        };
        Ok((report, in_force.version))
    }
}

fn proof(order: &Order, survey: &Survey) -> Proof {
    match order.told_records.filter(|told| *told != survey.records) {
        Some(told) => Proof::Refuted(format!("the manifest tells of {told} records, and {} came", survey.records)),
        None => Proof::of(&survey.completeness, order.said_complete.as_deref()),
    }
}

/// What the list says of one account.
fn said(rows: &Rows, key: &AccountKey, sealer: &crate::store::Sealer) -> Told {
    let mut told = Vec::with_capacity(rows.len());
    for row in rows {
        match row {
            Err(reason) => return Told::Unreadable { rows: rows.len() as u64, reason: reason.clone() },
            Ok(pushed) => {
                let secrets = pushed
                    .secrets
                    .iter()
                    .map(|change| ((change.service.clone(), change.field.clone()), secret_digest(change, key, sealer)));
                told.push(Theirs::new(pushed.account.clone(), pushed.source_revision, secrets.collect()));
            }
        }
    }
    Told::Rows(told)
}

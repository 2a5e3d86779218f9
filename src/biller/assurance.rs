//! Goes through all accounts and says where each octet of their ledgers went on their lines.
//!
//! In: ledgers, lines, tariffs, a bounded number of accounts at once, each as of one moment. Out: sums by tenant, cycle
//! and period, and every line that is not what its ledger entries make of it, a bounded number of them in words.

use std::collections::{BTreeMap, HashSet};

use crate::billing::assurance::{Calendar, Fault, Terms, account_terms};
use crate::billing::calendar::BillCycle;
use crate::billing::facts::TariffBook;
use crate::store::assurance::{self, ProvenAccount};
use crate::store::{Store, StoreError, Tx, billing, catalog};
use crate::vocabulary::{from_micros, to_micros};

/// What was found in ledgers and lines.
#[derive(Debug, Default)]
pub struct Proof {
    /// By tenant, cycle and start of the period in microseconds; `None`: all time of accounts that changed their cycle.
    pub sums: BTreeMap<(String, String, Option<i64>), Terms>,
    pub accounts: u64,
    pub lines: u64,
    /// All faults; the first [`FAULTS_MAX`] of them are listed.
    pub faults: u64,
    pub listed: Vec<ProofFault>,
}

/// A line or an account that does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFault {
    pub tenant: String,
    pub account: String,
    /// `None`: it is about the account.
    pub fault: Option<Fault>,
    pub detail: String,
}

/// Proves every account; `moved` are those whose usage is summed over all time.
///
/// **Errors**: the database. An account that cannot be computed is a fault.
pub async fn prove(
    store: &Store,
    moved: &HashSet<i64>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Proof, StoreError> {
    let mut proof = Proof::default();
    let mut tenants: BTreeMap<String, Ground> = BTreeMap::new();
    let mut tx = store.read().await?;
    let total = u64::try_from(assurance::count_accounts(&mut tx).await?).unwrap_or(0);
    tx.rollback().await?;
    let mut after = 0;
    loop {
        let mut tx = store.read_snapshot().await?;
        let accounts = assurance::accounts_after(&mut tx, after, ACCOUNTS_AT_ONCE).await?;
        let Some(last) = accounts.last() else { return Ok(proof) };
        after = last.id;
        for account in &accounts {
            if !tenants.contains_key(&account.tenant) {
                let ground = Ground::of(&mut tx, &account.tenant).await?;
                tenants.insert(account.tenant.clone(), ground);
            }
            let ground = &tenants[&account.tenant];
            prove_account(&mut tx, account, ground, moved.contains(&account.id), &mut proof).await?;
            proof.accounts += 1;
            progress(proof.accounts, total.max(proof.accounts));
        }
        tx.rollback().await?;
    }
}

/// What is the same for all accounts of a tenant.
struct Ground {
    book: TariffBook,
    cycles: BTreeMap<String, (BillCycle, HashSet<i64>)>,
}

impl Ground {
    async fn of(tx: &mut Tx, tenant: &str) -> Result<Self, StoreError> {
        let mut cycles = BTreeMap::new();
        if let Some(known) = catalog::in_force(tx, tenant).await? {
            for (id, cycle) in known.catalog.cycles {
                let closed = billing::closures(tx, tenant, &id).await?.into_keys().map(to_micros).collect();
                cycles.insert(id, (cycle.calendar, closed));
            }
        }
        Ok(Self { book: catalog::tariff_book(tx, tenant).await?, cycles })
    }
}

async fn prove_account(
    tx: &mut Tx,
    account: &ProvenAccount,
    ground: &Ground,
    moved: bool,
    proof: &mut Proof,
) -> Result<(), StoreError> {
    let found = assurance::account_ledger(tx, account.id).await?;
    proof.lines += found.lines.len() as u64;
    let name = format!("{}/{}", account.source, account.external_id);
    let fault = |fault: Option<Fault>, detail: String| ProofFault {
        tenant: account.tenant.clone(),
        account: name.clone(),
        fault,
        detail,
    };
    let (strays, octets) = assurance::stray_entries(tx, account.id).await?;
    if strays > 0 {
        let detail =
            format!("{strays} ledger entries with {octets} octets are of sessions or calls that are not there");
        proof.note(fault(None, detail));
    }
    let Some((cycle, closed)) = ground.cycles.get(&account.bill_cycle) else {
        proof.note(fault(None, format!("its cycle {} is not in the catalog", account.bill_cycle)));
        return Ok(());
    };
    let period_start = |at: i64| {
        let period = cycle.period_at(from_micros(at)?).ok()?;
        (!moved).then(|| to_micros(period.start))
    };
    let calendar = Calendar { period_start: &period_start, is_closed: &|start| closed.contains(&start) };
    match account_terms(&found, &ground.book, &calendar) {
        Ok((terms, faults)) => {
            for (period, terms) in terms {
                let key = (account.tenant.clone(), account.bill_cycle.clone(), period);
                proof.sums.entry(key).or_default().add(&terms);
            }
            for found in faults {
                let detail = found.detail.clone();
                proof.note(fault(Some(found), detail));
            }
        }
        Err(error) => proof.note(fault(None, format!("it cannot be computed: {error}"))),
    }
    Ok(())
}

impl Proof {
    fn note(&mut self, fault: ProofFault) {
        self.faults += 1;
        if self.listed.len() < FAULTS_MAX {
            self.listed.push(fault);
        }
    }
}

/// Faults that are told one by one.
pub const FAULTS_MAX: usize = 100;
const ACCOUNTS_AT_ONCE: i64 = 100;

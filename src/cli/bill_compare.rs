//! `bill compare`: reads another system's lines from a CSV file and ours from the store, and tells every difference.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::bill::{PeriodArguments, refused};
use super::bill_month::print_findings;
use super::context::Context;
use super::exit::{CliError, Exit};
use crate::biller::{Order, Watch, close_period};
use crate::billing::calendar::BillCycle;
use crate::billing::compare::{Key, Nature, Ours, Theirs, compare};
use crate::billing::lines::{LineKind, StoredLine};
use crate::store::billing::{self, LineFilter};
use crate::store::findings::{self, Origin, Place, StoredFinding};
use crate::store::{Store, StoreError, catalog};
use crate::vocabulary::{Currency, Exact, Rows, parse_instant};

/// What the other system calls its columns. A column that its file does not have is not compared.
#[derive(Args)]
pub struct Columns {
    #[arg(long, default_value = "account", value_name = "HEADING")]
    account: String,
    #[arg(long, default_value = "service", value_name = "HEADING")]
    service: String,
    #[arg(long, default_value = "charge", value_name = "HEADING")]
    charge: String,
    /// The line's own period, by its first day, its month or its start.
    #[arg(long, default_value = "period", value_name = "HEADING")]
    line_period: String,
    /// Net of exclusive taxes, as ours.
    #[arg(long, default_value = "amount", value_name = "HEADING")]
    amount: String,
    #[arg(long, default_value = "tax", value_name = "HEADING")]
    tax: String,
}

/// Which of the optional columns the file has.
#[derive(Debug, Clone, Copy)]
struct Told {
    service: bool,
    charge: bool,
    period: bool,
}

/// `bill compare`.
pub async fn run(file: &Path, of: PeriodArguments, columns: &Columns, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let Some(in_force) = catalog::in_force(&mut tx, &of.tenant).await? else {
        return Ok(context.not_found(&format!("There is no tenant {}.", of.tenant)));
    };
    drop(tx);
    let Some(cycle) = in_force.catalog.cycles.get(&of.cycle).map(|cycle| cycle.calendar.clone()) else {
        return Ok(context.not_found(&format!("Tenant {} has no bill cycle {}.", of.tenant, of.cycle)));
    };
    let now = context.clock().now();
    let period = match &of.period {
        Some(name) => cycle.named(name),
        None => cycle.latest_ended(now),
    };
    let period = period.map_err(|error| CliError::usage(error.to_string()))?;
    let currency = in_force.catalog.currency;
    let (theirs, told) = read(file, columns, &cycle, currency)?;

    let mut ours = Gathered { cycle: cycle.clone(), told, currency, lines: Vec::new(), foreign: 0 };
    if !of_batches(&store, &of, period.start, &mut ours).await? {
        // Nothing was closed yet: what a run would bill now is compared.
        let order = Order {
            tenant: of.tenant.clone(),
            cycle: of.cycle.clone(),
            period: Some(cycle.name(&period)),
            dry_run: true,
            rerate: false,
        };
        if let Err(exit) = refused(close_period(&store, &context.clock(), &order, &mut ours).await, context)? {
            return Ok(exit);
        }
    }
    if ours.foreign > 0 {
        eprintln!("{} of our lines are not in {currency} and were not compared.", ours.foreign);
    }
    let found = compare(&theirs, &ours.lines, currency)?;

    let mut tx = store.write().await?;
    let place = Place { tenant: &of.tenant, cycle: &of.cycle, period_start: period.start };
    findings::replace(&mut tx, place, Origin::Comparison, &found, now).await?;
    let listed = findings::list(&mut tx, place, Some(Origin::Comparison), now, LIST_MAX).await?;
    tx.commit().await?;
    let open: Vec<&StoredFinding> = listed.iter().filter(|finding| finding.waived.is_none()).collect();
    if context.json {
        context.print_json(&json!({
            "period": period, "their_lines": theirs.len(), "our_lines": ours.lines.len(), "open": open.len(),
            "findings": listed,
        }))?;
    } else {
        print_findings(&listed, context)?;
        context.print(&format!(
            "{} of their lines and {} of ours: {} differences, {} not accepted.\n",
            theirs.len(),
            ours.lines.len(),
            listed.len(),
            open.len()
        ))?;
    }
    Ok(if open.is_empty() { Exit::Done } else { Exit::No })
}

/// Our lines, with as much of a key as theirs have.
struct Gathered {
    cycle: BillCycle,
    told: Told,
    currency: Currency,
    lines: Vec<Ours>,
    /// Lines in another currency than the tenant's.
    foreign: usize,
}

impl Gathered {
    fn take(&mut self, stored: &StoredLine) {
        let line = &stored.line;
        if line.currency != self.currency.as_str() {
            self.foreign += 1;
            return;
        }
        let key = Key {
            account: line.account.clone(),
            service: self.told.service.then(|| line.service.clone().unwrap_or_default()),
            charge: self.told.charge.then(|| line.charge.clone()),
            period: self.told.period.then(|| self.cycle.day_of(line.period.start).to_string()),
        };
        let nature = match line.kind {
            LineKind::Recurring => {
                Nature::Recurring { share: stored.basis.share.0, days: self.cycle.days(&line.period) }
            }
            _ if line.usage.is_some() => Nature::Usage,
            _ => Nature::Other,
        };
        let exclusive = line.tax.iter().filter(|tax| !tax.inclusive).map(|tax| tax.amount_minor());
        self.lines.push(Ours {
            key,
            amount: line.amount_minor(),
            tax: exclusive.sum(),
            exact: line.amount_exact.parse().unwrap_or(Exact::ZERO),
            nature,
        });
    }
}

impl Watch for Gathered {
    fn account(&mut self, _done: u64, _of: u64) {}
    fn line(&mut self, line: &StoredLine) {
        self.take(line);
    }
}

/// Takes the lines of every batch of the period. `false`: there is none.
async fn of_batches(
    store: &Store,
    of: &PeriodArguments,
    period_start: crate::vocabulary::Timestamp,
    ours: &mut Gathered,
) -> Result<bool, StoreError> {
    let mut tx = store.read_snapshot().await?;
    let batches = billing::batches_of(&mut tx, &of.tenant, &of.cycle, period_start).await?;
    for batch in &batches {
        let mut filter = LineFilter {
            tenant: Some(of.tenant.clone()),
            batch: Some(batch.id.clone()),
            drafts: true,
            limit: PAGE,
            ..LineFilter::default()
        };
        loop {
            let page = billing::lines(&mut tx, &filter).await?;
            page.iter().for_each(|line| ours.take(line));
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => filter.after = Some(last.line.id.clone()),
                _ => break,
            }
        }
    }
    Ok(!batches.is_empty())
}

fn read(
    file: &Path,
    columns: &Columns,
    cycle: &BillCycle,
    currency: Currency,
) -> Result<(Vec<Theirs>, Told), CliError> {
    let unreadable = |error: csv::Error| CliError::failed(format!("{} cannot be read: {error}", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| unreadable(error.into()))?;
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(Rows::new(opened));
    let headings = rows.headers().map_err(unreadable)?.clone();
    let place = |heading: &str| headings.iter().position(|found| found == heading);
    let needed = |heading: &str| {
        let said = || CliError::usage(format!("{} has no column {heading:?}; name it with a flag", file.display()));
        place(heading).ok_or_else(said)
    };
    let (account, amount) = (needed(&columns.account)?, needed(&columns.amount)?);
    let (service, charge) = (place(&columns.service), place(&columns.charge));
    let (period, tax) = (place(&columns.line_period), place(&columns.tax));
    let told = Told { service: service.is_some(), charge: charge.is_some(), period: period.is_some() };
    let mut theirs = Vec::new();
    let mut bad = Bad::default();
    for row in rows.records() {
        // A row that is no row ends the reading: where the next one begins is not known for certain.
        let row = match row {
            Ok(row) => row,
            Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => return Err(unreadable(error)),
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                bad.add(line, error.to_string());
                continue;
            }
        };
        let line = row.position().map_or(0, csv::Position::line);
        let text = |place: usize| row.get(place).unwrap_or("");
        let own = |place: Option<usize>| place.map(|place| text(place).to_owned());
        let mut minor = |text: &str| {
            let found = minor(text, currency);
            if found.is_none() {
                bad.add(line, format!("{text:?} is no amount in whole minor units of {currency}"));
            }
            found
        };
        let (amount, tax) = (minor(text(amount)), tax.map(|place| minor(text(place))));
        let period = own(period).map(|name| {
            let found = day(&name, cycle);
            if found.is_none() {
                bad.add(line, format!("{name:?} is no period of the cycle"));
            }
            found
        });
        if let (Some(amount), None | Some(Some(_)), None | Some(Some(_))) = (amount, tax, &period) {
            let key = Key {
                account: text(account).to_owned(),
                service: own(service),
                charge: own(charge),
                period: period.flatten(),
            };
            theirs.push(Theirs { key, amount, tax: tax.flatten() });
        }
    }
    bad.settle(file)?;
    Ok((theirs, told))
}

/// What is wrong with the rows of a file: the first `NAMED_MAX` are named, the others counted.
#[derive(Default)]
struct Bad {
    named: Vec<String>,
    rest: usize,
}

impl Bad {
    fn add(&mut self, line: u64, what: String) {
        match self.named.len() < NAMED_MAX {
            true => self.named.push(format!("line {line}: {what}")),
            false => self.rest += 1,
        }
    }

    /// **Errors**: everything that is wrong, each on a line of its own.
    fn settle(self, file: &Path) -> Result<(), CliError> {
        if self.named.is_empty() {
            return Ok(());
        }
        let more = if self.rest > 0 { format!("\nand {} more", self.rest) } else { String::new() };
        let all = self.named.len() + self.rest;
        let named = self.named.join("\n");
        Err(CliError::failed(format!("{}: {all} faults; nothing was compared:\n{named}{more}", file.display())))
    }
}

/// Faults of a file that are named.
const NAMED_MAX: usize = 100;

/// First day of the period that a text names.
fn day(name: &str, cycle: &BillCycle) -> Option<String> {
    let start = match parse_instant(name) {
        Some(start) => start,
        None => cycle.named(name).ok()?.start,
    };
    Some(cycle.day_of(start).to_string())
}

fn minor(text: &str, currency: Currency) -> Option<i64> {
    let amount: Exact = text.parse().ok()?;
    let minor = amount.checked_mul(Exact::from_int(10i128.pow(currency.minor_digits()))).ok()?;
    (minor.denominator() == 1).then(|| i64::try_from(minor.numerator()).ok())?
}

/// Lines read at once.
const PAGE: i64 = 1000;
const LIST_MAX: i64 = 1_000_000;

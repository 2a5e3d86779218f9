//! `tariff simulate`: a tariff over recorded history, account by account, and the cheapest plan for what was used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use super::tariff::{read, tell};
use crate::biller::{BillerError, Simulated, Simulation, simulate};
use crate::billing::simulate::{BestPlan, Comparison};
use crate::store::catalog;
use crate::store::rating::RatingError;
use crate::vocabulary::{Currency, Money};

/// What `tariff simulate` is told.
#[derive(Args)]
pub struct SimulateArguments {
    /// A tariff with the id of one that is in use; it takes the place of all its versions.
    #[arg(required_unless_present = "best_plan")]
    file: Option<PathBuf>,
    #[arg(long)]
    tenant: String,
    /// The period by its first day, `2026-11-15`, or its month, `2026-11`.
    #[arg(long)]
    period: String,
    /// Only this cycle; else every cycle that has a period of that name.
    #[arg(long)]
    cycle: Option<String>,
    /// Name for each service the cheapest plan of its type for what was used.
    #[arg(long)]
    best_plan: bool,
}

/// Runs it.
pub async fn run(arguments: SimulateArguments, context: &Context) -> Result<Exit, CliError> {
    let SimulateArguments { file, tenant, period, cycle, best_plan } = arguments;
    let tariff = match file.as_deref().map(read).transpose()? {
        None => None,
        Some(Ok(tariff)) => Some(tariff),
        Some(Err(faults)) => {
            tell(&faults);
            return Ok(Exit::Failed);
        }
    };
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let book = catalog::tariff_book(&mut tx, &tenant).await?;
    let known = catalog::in_force(&mut tx, &tenant).await?;
    tx.rollback().await?;
    if let (Some(tariff), Some(known)) = (&tariff, &known) {
        if !book.contains_key(&tariff.id) {
            return Ok(context.not_found(&format!("There is no tariff {} of {tenant}.", tariff.id)));
        }
        if tariff.currency != known.catalog.currency {
            return Err(CliError::failed(format!(
                "tariff {} is in {}, and {tenant} bills in {}",
                tariff.id, tariff.currency, known.catalog.currency
            )));
        }
    }
    let order = Simulation { tenant, cycle, period, tariff, best_plan };
    let bar = context.progress(0, "accounts");
    let mut sink = Sink::new(context, &order);
    let result = simulate(&store, &context.clock(), &order, &mut |simulated, done, of| {
        bar.set_length(of);
        bar.set_position(done);
        sink.take(&simulated);
    })
    .await;
    bar.finish_and_clear();
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(BillerError::Rating(error @ (RatingError::NoTenant(_) | RatingError::NoCycle { .. }))) => {
            return Ok(context.not_found(&format!("{error}.")));
        }
        Err(BillerError::Rating(error @ RatingError::Calendar(_))) => return Err(CliError::usage(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if outcome.periods.is_empty() {
        return Err(CliError::usage(format!("no cycle of {} has a period called {}", order.tenant, order.period)));
    }
    sink.end(&outcome.periods)
}

/// Prints each account as it comes, and keeps sums alone.
struct Sink<'c> {
    context: &'c Context,
    order: &'c Simulation,
    fault: Option<CliError>,
    begun: bool,
    printed: u64,
    sums: Sums,
}

#[derive(Default)]
struct Sums {
    accounts: u64,
    compared: u64,
    pay_more: u64,
    pay_less: u64,
    /// (before, after) in minor units.
    totals: BTreeMap<Currency, (i128, i128)>,
    saved: BTreeMap<Currency, i128>,
    checked: u64,
    differ: u64,
    failed: u64,
}

impl<'c> Sink<'c> {
    fn new(context: &'c Context, order: &'c Simulation) -> Self {
        Self { context, order, fault: None, begun: false, printed: 0, sums: Sums::default() }
    }

    fn take(&mut self, simulated: &Simulated) {
        self.sums.add(simulated);
        if let Some(reason) = &simulated.failed {
            eprintln!("Account {}/{} cannot be rated: {reason}", simulated.source, simulated.account);
        }
        for difference in simulated.control.iter().flatten() {
            eprintln!("Account {}/{}, control: {difference}", simulated.source, simulated.account);
        }
        let text = if self.context.json { Some(self.element(simulated)) } else { rows(simulated) };
        if let (None, Some(text)) = (&self.fault, text) {
            self.fault = self.context.print(&text).err();
        }
    }

    /// One element of the JSON document's list of accounts.
    fn element(&mut self, simulated: &Simulated) -> String {
        let head = if self.begun { ",\n    " } else { "{\n  \"accounts\": [\n    " };
        self.begun = true;
        self.printed += 1;
        format!("{head}{}", account(simulated))
    }

    fn end(mut self, periods: &[(String, String)]) -> Result<Exit, CliError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let sums = &self.sums;
        if self.context.json {
            let head = if self.begun { "\n  ]" } else { "{\n  \"accounts\": []" };
            let named: Vec<Value> =
                periods.iter().map(|(cycle, start)| json!({ "cycle": cycle, "start": start })).collect();
            let tariff = self
                .order
                .tariff
                .as_ref()
                .map(|tariff| json!({ "id": tariff.id, "version": tariff.version, "digest": tariff.digest }));
            self.context.print(&format!(
                "{head},\n  \"tariff\": {},\n  \"periods\": {},\n  \"totals\": {},\n  \"best_plan\": {},\n  \"control\": {}\n}}\n",
                json!(tariff),
                json!(named),
                sums.totals_document(),
                sums.saved_document(),
                json!({ "accounts": sums.checked, "differ": sums.differ, "failed": sums.failed }),
            ))?;
        } else {
            self.context.print(&sums.page(self.order))?;
        }
        Ok(if sums.failed > 0 { Exit::Failed } else { Exit::Done })
    }
}

impl Sums {
    fn add(&mut self, simulated: &Simulated) {
        self.accounts += 1;
        self.failed += u64::from(simulated.failed.is_some());
        if let Some(differences) = &simulated.control {
            self.checked += 1;
            self.differ += u64::from(!differences.is_empty());
        }
        if let Some(Comparison { before, after, .. }) = &simulated.comparison {
            self.compared += 1;
            self.pay_more += u64::from(after.minor > before.minor);
            self.pay_less += u64::from(after.minor < before.minor);
            let sum = self.totals.entry(before.currency).or_default();
            sum.0 += i128::from(before.minor);
            sum.1 += i128::from(after.minor);
        }
        for best in &simulated.best {
            *self.saved.entry(best.cost.currency).or_default() += i128::from(best.cost.minor - best.best_cost.minor);
        }
    }

    fn totals_document(&self) -> Value {
        let total = |(currency, (before, after)): (&Currency, &(i128, i128))| {
            json!({
                "currency": currency.as_str(),
                "before": currency.shown(*before),
                "after": currency.shown(*after),
                "difference": currency.shown(after - before),
            })
        };
        json!({
            "accounts": self.accounts,
            "compared": self.compared,
            "pay_more": self.pay_more,
            "pay_less": self.pay_less,
            "amounts": self.totals.iter().map(total).collect::<Vec<_>>(),
        })
    }

    fn saved_document(&self) -> Value {
        let saved = |(currency, minor): (&Currency, &i128)| json!({ "currency": currency.as_str(), "would_have_saved": currency.shown(*minor) });
        json!(self.saved.iter().map(saved).collect::<Vec<_>>())
    }

    fn page(&self, order: &Simulation) -> String {
        let mut page = String::new();
        if let Some(tariff) = &order.tariff {
            page.push_str(&format!(
                "tariff {} version {}: {} of {} accounts have it, {} would pay more, {} less\n",
                tariff.id, tariff.version, self.compared, self.accounts, self.pay_more, self.pay_less
            ));
        }
        for (currency, (before, after)) in &self.totals {
            page.push_str(&format!(
                "total {} before, {} after, difference {} {currency}\n",
                currency.shown(*before),
                currency.shown(*after),
                currency.shown(after - before)
            ));
        }
        for (currency, minor) in &self.saved {
            page.push_str(&format!("the cheapest plans would have saved {} {currency}\n", currency.shown(*minor)));
        }
        page.push_str(&format!(
            "control: the issued lines of {} accounts were replayed at the prices in force, {} differ\n",
            self.checked, self.differ
        ));
        page
    }
}

fn account(simulated: &Simulated) -> Value {
    let mut document = json!({
        "source": simulated.source,
        "account": simulated.account,
        "cycle": simulated.cycle,
        "period": simulated.period,
    });
    if let Some(Comparison { before, after, items }) = &simulated.comparison {
        let money = |minor: i64| Money::new(minor, before.currency).to_string();
        document["before"] = json!(before.to_string());
        document["after"] = json!(after.to_string());
        document["difference"] = json!(before.currency.shown(i128::from(after.minor) - i128::from(before.minor)));
        document["currency"] = json!(before.currency.as_str());
        let item = |item: &crate::billing::simulate::ItemDifference| {
            json!({
                "service": item.service, "addon": item.addon, "charge": item.charge,
                "before": money(item.before), "after": money(item.after),
            })
        };
        document["items"] = json!(items.iter().map(item).collect::<Vec<_>>());
    }
    if !simulated.best.is_empty() {
        let best = |best: &BestPlan| {
            json!({
                "service": best.service, "plan": best.plan, "cost": best.cost.to_string(),
                "best_plan": best.best_plan, "best_cost": best.best_cost.to_string(),
                "would_have_saved": best.cost.currency.shown(i128::from(best.cost.minor) - i128::from(best.best_cost.minor)),
                "currency": best.cost.currency.as_str(),
            })
        };
        document["best_plans"] = json!(simulated.best.iter().map(best).collect::<Vec<_>>());
    }
    document["control"] = json!(simulated.control);
    document["failed"] = json!(simulated.failed);
    document
}

/// An account's lines on paper; `None`: it has nothing to tell.
fn rows(simulated: &Simulated) -> Option<String> {
    let mut rows = String::new();
    let name = format!("{}/{}", simulated.source, simulated.account);
    if let Some(Comparison { before, after, items }) = &simulated.comparison {
        let difference = before.currency.shown(i128::from(after.minor) - i128::from(before.minor));
        rows.push_str(&format!(
            "{name:<32} {:>14} -> {:>14}  {difference:>14} {}\n",
            before.to_string(),
            after.to_string(),
            before.currency
        ));
        for item in items {
            let (from, to) = (Money::new(item.before, before.currency), Money::new(item.after, before.currency));
            rows.push_str(&format!("    {} {}: {from} -> {to}\n", item.service, item.charge));
        }
    }
    for best in &simulated.best {
        let saves = best.cost.currency.shown(i128::from(best.cost.minor) - i128::from(best.best_cost.minor));
        rows.push_str(&if best.plan == best.best_plan {
            format!("{name:<32} {} is on the cheapest plan, {}: {}\n", best.service, best.plan, best.cost)
        } else {
            format!(
                "{name:<32} {} on {} paid {}; {} would have cost {}, saving {saves} {}\n",
                best.service, best.plan, best.cost, best.best_plan, best.best_cost, best.cost.currency
            )
        });
    }
    (!rows.is_empty()).then_some(rows)
}

//! `audit completeness`: what accounting may have missed, as seen from outside of it. Exit 3: something was found.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::biller::BillerError;
use crate::biller::completeness::{Missing, OwnedSilence, Question, What, missing, periods};
use crate::collector::fold::{SilenceOrder, silent_sessions};
use crate::daemon::nas_table;
use crate::store::rating::RatingError;
use crate::vocabulary::{Currency, to_micros};

/// What `audit completeness` is told.
#[derive(Args)]
pub struct CompletenessArguments {
    #[arg(long)]
    tenant: String,
    /// The period by its first day, `2026-11-15`, or its month, `2026-11`.
    #[arg(long)]
    period: String,
    /// Only this cycle; else every cycle that has a period of that name.
    #[arg(long)]
    cycle: Option<String>,
    /// So many reporting intervals of its NAS a session may be silent.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    intervals: u32,
    /// So long a modem may be online without a session that tells of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(i64).range(1..))]
    patience: i64,
}

/// Runs it.
pub async fn run(arguments: CompletenessArguments, context: &Context) -> Result<Exit, CliError> {
    let CompletenessArguments { tenant, period, cycle, intervals, patience } = arguments;
    let config = context.config()?;
    let store = context.store().await?;
    let contexts = match periods(&store, &context.clock(), &tenant, cycle.as_deref(), &period).await {
        Ok(contexts) => contexts,
        Err(BillerError::Rating(error @ (RatingError::NoTenant(_) | RatingError::NoCycle { .. }))) => {
            return Ok(context.not_found(&format!("{error}.")));
        }
        Err(BillerError::Rating(error @ RatingError::Calendar(_))) => return Err(CliError::usage(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if contexts.is_empty() {
        return Err(CliError::usage(format!("no cycle of {tenant} has a period called {period}")));
    }
    let within = contexts.iter().map(|run| {
        let end = run.period.end.min(run.now);
        (run.cycle.id.clone(), (to_micros(run.period.start), to_micros(end)))
    });
    let order = SilenceOrder { tenant: tenant.clone(), periods: within.collect(), intervals };
    let bar = context.progress(1, "Looking for silence");
    let nas = Arc::new(nas_table(&config));
    let found = silent_sessions(&store, &context.clock(), &nas, &order, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let (silent, more) = found?;
    let mut silences: BTreeMap<i64, Vec<OwnedSilence>> = BTreeMap::new();
    for one in silent {
        let owned =
            OwnedSilence { service_id: one.service_id, nas: one.nas, session: one.session, silence: one.silence };
        silences.entry(one.account_id).or_default().push(owned);
    }
    let mut listed: Vec<Missing> = Vec::new();
    let mut sums = Sums { more, ..Sums::default() };
    for run in contexts {
        let bar = context.progress(0, "accounts");
        let question = Question { tenant: tenant.clone(), context: run, patience_seconds: patience };
        let looked = missing(&store, &question, &silences, &mut |found, done, of| {
            bar.set_length(of);
            bar.set_position(done);
            if let Some(found) = found {
                sums.add(&found);
                if listed.len() < LISTED_MAX {
                    listed.push(found);
                }
            }
        })
        .await;
        bar.finish_and_clear();
        looked?;
    }
    store.close().await;
    print(&listed, &sums, context)?;
    Ok(if sums.count == 0 { Exit::Done } else { Exit::No })
}

#[derive(Default)]
struct Sums {
    count: u64,
    /// Silences beyond what is kept; not priced.
    more: u64,
    /// Findings, seconds and octets of each kind.
    kinds: BTreeMap<What, (u64, i128, i128)>,
    amounts: BTreeMap<Currency, i128>,
}

impl Sums {
    fn add(&mut self, found: &Missing) {
        self.count += 1;
        let sum = self.kinds.entry(found.what).or_default();
        *sum = (sum.0 + 1, sum.1 + i128::from(found.seconds), sum.2 + found.octets);
        if let Some(amount) = found.amount {
            *self.amounts.entry(amount.currency).or_default() += i128::from(amount.minor);
        }
    }
}

fn print(listed: &[Missing], sums: &Sums, context: &Context) -> Result<(), CliError> {
    if context.json {
        let kind = |(what, (count, seconds, octets)): (&What, &(u64, i128, i128))| {
            let document = json!({ "findings": count, "seconds": number(*seconds), "octets": number(*octets) });
            (what.as_str().to_owned(), document)
        };
        let amount = |(currency, minor): (&Currency, &i128)| json!({ "currency": currency.as_str(), "amount": currency.shown(*minor) });
        return context.print_json(&json!({
            "findings": listed.iter().map(document).collect::<Vec<_>>(),
            "count": sums.count,
            "not_priced": sums.more,
            "kinds": sums.kinds.iter().map(kind).collect::<serde_json::Map<_, _>>(),
            "amounts": sums.amounts.iter().map(amount).collect::<Vec<_>>(),
        }));
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|found| {
            vec![
                found.what.as_str().to_owned(),
                format!("{}/{}", found.source, found.account),
                found.service.clone().unwrap_or_default(),
                found.subject.clone(),
                found.place.clone(),
                found.from.to_string(),
                found.until.to_string(),
                found.seconds.to_string(),
                found.octets.to_string(),
                found.amount.map(|amount| format!("{amount} {}", amount.currency)).unwrap_or_default(),
            ]
        })
        .collect();
    let headings = ["what", "account", "service", "of", "at", "from", "until", "seconds", "octets", "worth"];
    context.print_table(&headings, &rows)?;
    let mut page = String::new();
    for (what, (count, seconds, octets)) in &sums.kinds {
        page.push_str(&format!("{}: {count}, {seconds} s, about {octets} octets\n", what.as_str()));
    }
    for (currency, minor) in &sums.amounts {
        page.push_str(&format!("worth about {} {currency} at the price of the next octets\n", currency.shown(*minor)));
    }
    if sums.more > 0 {
        page.push_str(&format!("and {} more silences, not priced\n", sums.more));
    }
    if sums.count == 0 {
        page.push_str("Nothing is missing.\n");
    }
    context.print(&page)
}

fn document(found: &Missing) -> Value {
    json!({
        "what": found.what.as_str(),
        "source": found.source,
        "account": found.account,
        "service": found.service,
        "subject": found.subject,
        "place": found.place,
        "from": found.from,
        "until": found.until,
        "seconds": found.seconds,
        "octets": number(found.octets),
        "counted": found.what == What::Between,
        "amount": found.amount.map(|amount| amount.to_string()),
        "currency": found.amount.map(|amount| amount.currency),
    })
}

fn number(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| json!(value.to_string()), |value| json!(value))
}

/// Findings that are told one by one; all are counted.
const LISTED_MAX: usize = 10_000;

//! `session list`, `session show` and `session disconnect`: RADIUS sessions as folded from the journal.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::noc::sessions_seen;
use super::record::{dictionary, read};
use super::session_control::{Meant, disconnect, said};
use crate::daemon::config::Config;
use crate::radius::{Decoded, Dictionary, PacketView, decode};
use crate::store::journal::{self, JournalRow, SessionKey};
use crate::store::ledger;
use crate::store::nas_control::{self, OrderView};
use crate::store::usage::{self, SessionFilter, SessionView, accounts_named};
use crate::store::{Store, accounts};
use crate::vocabulary::{Timestamp, from_micros};

/// The commands of `lastmile session`.
#[derive(Subcommand)]
pub enum SessionCommand {
    /// List sessions in the order they were first heard of.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those of accounts of this source.
        #[arg(long)]
        source: Option<String>,
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// Only those of this user name.
        #[arg(long)]
        user: Option<String>,
        /// Only those of this NAS identity.
        #[arg(long)]
        nas: Option<String>,
        /// Only those in this state: open, stale, stopped, closed.
        #[arg(long)]
        state: Option<String>,
        /// Only the sessions nobody owns.
        #[arg(long)]
        unattributed: bool,
        /// The number of the case it is for, with --account or --user; it stands in the audit.
        #[arg(long)]
        case: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one session with its ledger entries and its records: by its number, or by its Acct-Session-Id.
    Show {
        /// The number `session list` gives, or an Acct-Session-Id (all its incarnations).
        session: String,
        /// At most so many of its records, decoded by the dictionaries; 0 for none.
        #[arg(long, default_value_t = 100)]
        records: usize,
        /// The number of the case it is for; it stands in the audit.
        #[arg(long)]
        case: Option<String>,
    },
    /// Ask the NAS to end a live session (RFC 5176); what the login may do stays as it is.
    Disconnect {
        /// The number `session list` gives, or an Acct-Session-Id.
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        session: Option<String>,
        /// Every live session of this user name instead.
        #[arg(long)]
        user: Option<String>,
        /// Only this tenant's.
        #[arg(long, requires = "user")]
        tenant: Option<String>,
        /// Wait so many seconds for what the NAS says.
        #[arg(long, default_value_t = 10)]
        wait: u64,
    },
}

/// Runs one of them.
pub async fn run(command: SessionCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        SessionCommand::List { tenant, source, account, user, nas, state, unattributed, case, limit } => {
            let mut filter = SessionFilter { tenant, user, nas, state, unattributed, ..SessionFilter::default() };
            if let Some(account) = account {
                let mut tx = store.read().await?;
                let found = accounts_named(&mut tx, &account, filter.tenant.as_deref(), source.as_deref(), 2).await?;
                let [(id, ..)] = found.as_slice() else {
                    return which_account(&account, found.len(), context);
                };
                filter.account_id = Some(*id);
            }
            if filter.account_id.is_some() || filter.user.is_some() {
                seen(&store, filter.account_id, case.as_deref(), context).await?;
            }
            filter.source = source;
            list(&store, filter, limit, context).await
        }
        SessionCommand::Disconnect { session, user, tenant, wait } => {
            let meant = match (session, user) {
                (Some(session), _) => Meant::Session(session),
                (None, Some(name)) => Meant::User { name, tenant },
                (None, None) => return Err(CliError::usage("name a session or a --user".to_owned())),
            };
            disconnect(&store, meant, Duration::from_secs(wait), context).await
        }
        SessionCommand::Show { session, records, case } => {
            show(&store, &session, records, case.as_deref(), context).await
        }
    }
}

/// Notes that somebody looks at the sessions of an account, or of a user.
async fn seen(store: &Store, account: Option<i64>, case: Option<&str>, context: &Context) -> Result<(), CliError> {
    let row = match account {
        Some(id) => accounts::by_id(&mut store.read().await?, id).await?,
        None => None,
    };
    sessions_seen(store, row.as_ref(), case, context).await
}

/// Says that an account is not there, or that several are.
pub(super) fn which_account(account: &str, found: usize, context: &Context) -> Result<Exit, CliError> {
    if found == 0 {
        return Ok(context.not_found(&format!("There is no account {account}.")));
    }
    Err(CliError::usage(format!("Several tenants or sources have an account {account}; add --tenant or --source.")))
}

async fn list(store: &Store, mut filter: SessionFilter, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let mut listed: Vec<SessionView> = Vec::new();
    while listed.len() < limit {
        // A transaction a page: a long list must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        filter.limit = PAGE.min(i64::try_from(limit - listed.len()).unwrap_or(PAGE));
        let page = usage::list(&mut tx, &filter).await?;
        tx.rollback().await?;
        let Some(last) = page.last() else { break };
        filter.after = last.id;
        listed.extend(page);
    }
    if context.json {
        context.print_json(&listed)?;
    } else {
        let headings = ["ID", "USER", "SESSION", "NAS", "STATE", "STARTED", "ENDED", "IN", "OUT", "ACCOUNT", "FLAGS"];
        let rows: Vec<Vec<String>> = listed.into_iter().map(row).collect();
        context.print_table(&headings, &rows)?;
    }
    Ok(Exit::Done)
}

async fn show(
    store: &Store,
    name: &str,
    limit: usize,
    case: Option<&str>,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let filter = SessionFilter { session: Some(name.to_owned()), limit: INCARNATIONS, ..SessionFilter::default() };
    let mut ids: Vec<i64> = usage::list(&mut tx, &filter).await?.into_iter().map(|view| view.id).collect();
    if ids.is_empty() {
        ids.extend(name.parse::<i64>().ok());
    }
    let mut shown = Vec::new();
    for id in ids {
        let Some((view, stored)) = usage::one(&mut tx, id).await? else { continue };
        seen(store, stored.owner.map(|owner| owner.account_id), case, context).await?;
        let entries = match stored.owner {
            Some(owner) => ledger::of_session(&mut tx, owner.account_id, id).await?,
            None => Vec::new(),
        };
        let pending = stored.state.pending().total().unwrap_or_default();
        let orders = nas_control::of_session(&mut tx, id, ORDERS).await?;
        shown.push((view, entries, pending, orders));
    }
    tx.rollback().await?;
    let keys: BTreeSet<(String, String)> =
        shown.iter().map(|(view, ..)| (view.nas.clone(), view.session.clone())).collect();
    let mut records = Vec::new();
    if limit > 0 {
        let config = context.config()?;
        let dictionary = dictionary(&config);
        for (nas, session) in &keys {
            records.extend(records_of(store, &config, &dictionary, (nas, session), limit).await?);
        }
    }
    if shown.is_empty() {
        return Ok(context.not_found(&format!("There is no session {name}.")));
    }
    if context.json {
        let documents: Vec<serde_json::Value> = shown
            .iter()
            .map(|(view, entries, pending, orders)| {
                let entries: Vec<_> = entries.iter().map(entry_document).collect();
                let pending = json!({ "in_octets": pending.in_octets, "out_octets": pending.out_octets });
                let mut document = json!(view);
                document["pending"] = pending;
                document["ledger"] = json!(entries);
                document["control"] = json!(orders);
                let own = records.iter().filter(|record| (&record.nas, &record.session) == (&view.nas, &view.session));
                document["records"] = json!(own.collect::<Vec<_>>());
                document
            })
            .collect();
        context.print_json(&documents)?;
        return Ok(Exit::Done);
    }
    for (view, entries, pending, orders) in shown {
        let facts = [
            ("id", view.id.to_string()),
            ("user", text(view.user.as_ref())),
            ("session", format!("{} (incarnation {})", view.session, view.incarnation)),
            ("nas", view.nas.clone()),
            ("state", view.state.clone()),
            ("started", view.started_at.to_string()),
            ("last report", view.last_event_at.to_string()),
            ("ended", text(view.ended_at)),
            ("in / out octets", format!("{} / {}", view.in_octets, view.out_octets)),
            ("seconds", view.seconds.to_string()),
            ("not in the ledger yet", format!("{} / {}", pending.in_octets, pending.out_octets)),
            ("account", owner(&view)),
            ("address", text(view.framed_ip.as_ref())),
            ("prefix", text(view.framed_prefix.as_ref())),
            ("calling station", text(view.calling_station.as_ref())),
            ("terminate cause", text(view.terminate_cause)),
            ("flags", view.flags.join(" ")),
            ("asked of the NAS", orders.first().map_or_else(|| "nothing".to_owned(), asked)),
        ];
        let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        context.print_table(&["SESSION", ""], &rows)?;
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                vec![
                    entry.sequence.to_string(),
                    text(from_micros(entry.from_at)),
                    text(from_micros(entry.until_at)),
                    entry.in_octets.to_string(),
                    entry.out_octets.to_string(),
                    entry.cause.clone(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            context.print_table(&["SEQUENCE", "FROM", "UNTIL", "IN", "OUT", "CAUSE"], &rows)?;
        }
    }
    for record in &records {
        let mut page = format!("Record {}, arrived {}\n", record.record, record.arrived_at);
        for found in &record.attributes {
            page.push_str(&format!("  {}  {}\n", found.name, found.value));
        }
        context.print(&page)?;
    }
    Ok(Exit::Done)
}

/// A journalled record of a session, as a person reads it.
#[derive(Serialize)]
struct SessionRecord {
    record: String,
    #[serde(skip)]
    nas: String,
    #[serde(skip)]
    session: String,
    arrived_at: Timestamp,
    attributes: Vec<Decoded>,
}

/// The oldest records of a session id that the journal holds, of all its incarnations.
async fn records_of(
    store: &Store,
    config: &Config,
    dictionary: &Dictionary,
    (nas, session): (&str, &str),
    limit: usize,
) -> Result<Vec<SessionRecord>, CliError> {
    // An identity is the client's name, or begins with it where the client is many NAS.
    let known = config.radius.iter().flat_map(|radius| &radius.nas).any(|client| client.name == nas);
    let client = if known { nas } else { nas.split_once('/').map_or(nas, |(client, _)| client) };
    let key = SessionKey::new(client, session);
    let mut tx = store.read_journal().await?;
    let until = journal::lanes(&mut tx).await?.into_iter().map(|lane| (lane, i64::MAX)).collect();
    let mut rows: Vec<JournalRow> = journal::of_session(&mut tx, &key, i64::MIN, &until, limit).await?.rows;
    tx.rollback().await?;
    rows.sort_by_key(|row| (row.entry.arrived_at, row.lane, row.seq));
    let mut records = Vec::new();
    for row in rows {
        let Ok(view) = PacketView::parse(&row.entry.packet) else { continue };
        let is_own = read(config, &row, &view).is_ok_and(|record| record.nas == nas && record.session == session);
        if is_own && records.len() < limit {
            records.push(SessionRecord {
                record: format!("{}:{}", row.lane, row.seq),
                nas: nas.to_owned(),
                session: session.to_owned(),
                arrived_at: row.entry.arrived_at,
                attributes: decode(&view, dictionary),
            });
        }
    }
    Ok(records)
}

/// The newest order about a session: why, when, and what became of it.
fn asked(order: &OrderView) -> String {
    let at = order.sent_at.unwrap_or(order.asked_at);
    format!("{}, because {} ({at:.0})", said(order), order.cause)
}

fn entry_document(entry: &ledger::LedgerEntry) -> serde_json::Value {
    json!({
        "sequence": entry.sequence,
        "from": from_micros(entry.from_at),
        "until": from_micros(entry.until_at),
        "in_octets": entry.in_octets,
        "out_octets": entry.out_octets,
        "seconds": entry.seconds,
        "cause": entry.cause,
        "recorded_at": from_micros(entry.recorded_at),
    })
}

fn row(view: SessionView) -> Vec<String> {
    let account = owner(&view);
    vec![
        view.id.to_string(),
        text(view.user),
        view.session,
        view.nas,
        view.state,
        view.started_at.to_string(),
        text(view.ended_at),
        view.in_octets.to_string(),
        view.out_octets.to_string(),
        account,
        view.flags.join(" "),
    ]
}

fn owner(view: &SessionView) -> String {
    match (&view.tenant, &view.account, &view.service) {
        (Some(tenant), Some(account), Some(service)) => format!("{tenant} {account} {service}"),
        _ => "-".to_owned(),
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Rows read in one go.
const PAGE: i64 = 1000;
/// Orders to its NAS shown with a session.
const ORDERS: i64 = 10;
/// Incarnations of one id shown at once.
const INCARNATIONS: i64 = 100;

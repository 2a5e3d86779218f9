//! `webhook`: outlets as they are — endpoints, export files, mail —, what waits for them, and what an operator does about it.

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::intake::{delivery_view, new_secret, try_webhook, webhook_view};
use crate::store::outlets::{self, DeliveryRow, OutletKind, OutletRow, REPLAY_MAX, Replayed};
use crate::store::{Store, Tx, audit};
use crate::vocabulary::{TenantId, Timestamp};

/// The commands of `lastmile webhook`.
#[derive(Subcommand)]
pub enum WebhookCommand {
    /// List webhooks, without their secrets, and the outlets of the configuration.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// List events that were not delivered at their first attempt.
    Deliveries {
        webhook: String,
        /// Only pending, delivered or dead ones.
        #[arg(long)]
        state: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Send events again: one, a range, or all that were given up.
    Replay {
        webhook: String,
        /// The number of one event.
        #[arg(long, conflicts_with_all = ["from", "dead"])]
        event: Option<i64>,
        /// The first number.
        #[arg(long, requires = "to", conflicts_with = "dead")]
        from: Option<i64>,
        /// The last number.
        #[arg(long, requires = "from")]
        to: Option<i64>,
        /// All that were given up.
        #[arg(long)]
        dead: bool,
    },
    /// Give a webhook a new secret and print it; it is shown only now.
    Rotate {
        webhook: String,
        /// For so many hours the old secret signs too.
        #[arg(long, default_value_t = 24)]
        keep_hours: u32,
    },
    /// Send a webhook.test event to one webhook.
    Test { webhook: String },
}

/// Runs one of them.
pub async fn run(command: WebhookCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let done = match command {
        WebhookCommand::List { tenant } => list(&store, tenant.as_ref(), context).await,
        WebhookCommand::Deliveries { webhook, state, limit } => {
            deliveries(&store, &webhook, state.as_deref(), limit, context).await
        }
        WebhookCommand::Replay { webhook, event, from, to, dead } => {
            let what = match (event, from, to, dead) {
                (Some(event), ..) => Replayed::Range { from: event, to: event },
                (_, Some(from), Some(to), _) if from <= to && to - from < REPLAY_MAX => Replayed::Range { from, to },
                (None, None, None, true) => Replayed::Dead,
                _ => {
                    return Err(CliError::usage(format!(
                        "name --event, or --from and --to (at most {REPLAY_MAX} numbers), or --dead"
                    )));
                }
            };
            replay(&store, &webhook, what, context).await
        }
        WebhookCommand::Rotate { webhook, keep_hours } => rotate(&store, &webhook, keep_hours, context).await,
        WebhookCommand::Test { webhook } => test(&store, &webhook, context).await,
    };
    store.close().await;
    done
}

async fn list(store: &Store, tenant: Option<&TenantId>, context: &Context) -> Result<Exit, CliError> {
    let tenant = tenant.map(TenantId::as_str);
    let rows = outlets::all(&mut store.read().await?, tenant).await?;
    if context.json {
        let shown = |row: &OutletRow| {
            let mut shown = webhook_view(row);
            shown["tenant"] = json!(row.tenant);
            shown["kind"] = json!(row.kind.as_str());
            shown
        };
        context.print_json(&rows.iter().map(shown).collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    let text = |row: &OutletRow| {
        let state = match (&row.because, row.enabled) {
            (Some(because), false) => format!("disabled: {because}"),
            (_, enabled) => (if enabled { "enabled" } else { "disabled" }).to_owned(),
        };
        vec![
            row.id.clone(),
            row.kind.as_str().to_owned(),
            row.tenant.clone(),
            row.url.clone(),
            if row.types.is_empty() { "all".to_owned() } else { row.types.join(" ") },
            state,
            row.position.to_string(),
            row.delivered.to_string(),
            row.failures.to_string(),
            row.last_delivered_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
        ]
    };
    let headings = ["OUTLET", "KIND", "TENANT", "URL", "TYPES", "STATE", "UP TO", "DELIVERED", "FAILURES", "LAST"];
    context.print_table(&headings, &rows.iter().map(text).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

async fn deliveries(
    store: &Store,
    webhook: &str,
    state: Option<&str>,
    limit: i64,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let row = found(&mut tx, webhook).await?;
    let rows = outlets::deliveries(&mut tx, &row.id, 0, state, limit).await?;
    if context.json {
        context.print_json(&rows.iter().map(|delivery| delivery_view(&row, delivery)).collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    let text = |delivery: &DeliveryRow| {
        vec![
            delivery.sequence.to_string(),
            delivery.subject.clone(),
            delivery.state.clone(),
            delivery.attempts.to_string(),
            delivery.next_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
            delivery.detail.clone().unwrap_or_default(),
        ]
    };
    let headings = ["EVENT", "SUBJECT", "STATE", "ATTEMPTS", "NEXT", "LAST ANSWER"];
    context.print_table(&headings, &rows.iter().map(text).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

async fn replay(store: &Store, webhook: &str, what: Replayed, context: &Context) -> Result<Exit, CliError> {
    let now = context.clock().now();
    let mut tx = store.write().await?;
    let row = found(&mut tx, webhook).await?;
    let count = outlets::replay(&mut tx, &row, what, now).await?;
    note(&mut tx, &row, "webhook.replay", &json!({ "count": count }), now).await?;
    tx.commit().await?;
    match context.json {
        true => context.print_json(&json!({ "replayed": count }))?,
        false => eprintln!("{count} events are sent again."),
    }
    Ok(if count == 0 { Exit::No } else { Exit::Done })
}

async fn rotate(store: &Store, webhook: &str, keep_hours: u32, context: &Context) -> Result<Exit, CliError> {
    let now = context.clock().now();
    let secret = new_secret().map_err(|error| CliError::failed(format!("no randomness for a secret: {error}")))?;
    let until = now.checked_add(jiff::SignedDuration::from_hours(i64::from(keep_hours))).unwrap_or(Timestamp::MAX);
    let mut tx = store.write().await?;
    let row = found_webhook(&mut tx, webhook).await?;
    let sealed = store.sealer().seal(&outlets::secret_place(&row.tenant, &row.id), &secret)?;
    outlets::rotate(&mut tx, (&row.tenant, &row.id), &sealed, until, now).await?;
    note(&mut tx, &row, "webhook.rotate", &json!({ "keep_hours": keep_hours }), now).await?;
    tx.commit().await?;
    match context.json {
        true => context.print_json(&json!({ "webhook": row.id, "secret": secret.expose() }))?,
        false => {
            context.print(&format!("{}\n", secret.expose()))?;
            eprintln!("This secret is shown only now; until {until:.0} the old one signs too.");
        }
    }
    Ok(Exit::Done)
}

async fn test(store: &Store, webhook: &str, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    let row = found_webhook(&mut tx, webhook).await?;
    let sequence = try_webhook(&mut tx, &row, context.clock().now()).await?;
    tx.commit().await?;
    let event = format!("{}.{sequence}", row.tenant);
    match context.json {
        true => context.print_json(&json!({ "event": event }))?,
        false => eprintln!("Event {event} is sent to it; see `lastmile webhook list`."),
    }
    Ok(Exit::Done)
}

async fn found(tx: &mut Tx, id: &str) -> Result<OutletRow, CliError> {
    outlets::by_id(tx, id).await?.ok_or_else(|| CliError::no(format!("there is no webhook or other outlet {id}")))
}

async fn found_webhook(tx: &mut Tx, id: &str) -> Result<OutletRow, CliError> {
    let row = found(tx, id).await?;
    match row.kind {
        OutletKind::Webhook => Ok(row),
        _ => Err(CliError::no(format!("{id} is no webhook"))),
    }
}

async fn note(tx: &mut Tx, row: &OutletRow, action: &str, detail: &Value, now: Timestamp) -> Result<(), CliError> {
    let entry = audit::Entry {
        tenant: Some(&row.tenant),
        actor: "command line",
        action,
        account_id: None,
        subject: &row.id,
        detail,
    };
    Ok(audit::append(tx, &entry, now).await?)
}

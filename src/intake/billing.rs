//! Billing over HTTP: runs, batches, lines and their explanation, an account's running period; below it drafts and what
//! is looked at before they are closed.
//!
//! Runs are made by the biller, a service of its own; `Biller` is how the daemon lends it to this room.

mod drafts;
mod orders;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orders::PeriodOrder;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{BILLERS, Caller, READERS};
use super::idempotency::{Once, again};
use super::problem::Problem;
use super::request::{Asked, At, Document, limit, page};
use crate::billing::lines::StoredLine;
use crate::store::billing::{self, BatchRow, BilledAccount, LineFilter, Place};
use crate::store::{Store, StoreError, Tx, accounts, audit, catalog, rating, running};
use crate::vocabulary::{AccountKey, SourceId, TenantId, Timestamp, parse_instant};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(run))
        .routes(routes!(show_run))
        .routes(routes!(list_lines))
        .routes(routes!(explain_line))
        .routes(routes!(list_batches))
        .routes(routes!(show_batch))
        .routes(routes!(batch_lines))
        .routes(routes!(acknowledge))
        .routes(routes!(balance))
        .merge(drafts::routes())
}

/// A run that was asked for.
#[derive(Debug, Clone)]
pub struct BillOrder {
    pub tenant: String,
    pub cycle: String,
    pub period: Option<String>,
    pub dry_run: bool,
}

/// What the biller is asked for.
#[derive(Debug, Clone)]
pub enum BillAsk {
    Run(BillOrder),
    Check { tenant: String, cycle: String, period: Option<String> },
    Approve { tenant: String, batch: String, by: String },
    Discard { tenant: String, batch: String },
}

/// Why a run was not made.
#[derive(Debug)]
pub enum BillRefusal {
    /// No such tenant or cycle.
    NotFound,
    /// The period's name means nothing.
    Period(String),
    /// The period still runs, or another process closes the cycle.
    Conflict(String),
    Store(StoreError),
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, BillRefusal>> + Send>>;

/// The biller as this room sees it: a request in, what the command of the same name prints with `--json` out.
#[derive(Clone, Default)]
pub struct Biller(Option<Arc<dyn Fn(BillAsk) -> Answer + Send + Sync>>);

impl Biller {
    pub fn new(run: impl Fn(BillAsk) -> Answer + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(run)))
    }

    async fn ask(&self, ask: BillAsk) -> Result<Value, Problem> {
        let Some(biller) = self.0.clone() else {
            return Err(Problem::unavailable("This daemon makes no bill runs."));
        };
        biller(ask).await.map_err(refused)
    }
}

/// Closes a period, or previews it with `dry_run`. Safe to repeat: a second run has nothing to say.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/bill-runs",
    params(("tenant" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "cycle, period (its first day or month), dry_run"),
    responses((status = 200, description = "The batch, its lines and totals; batch is null when nothing was due"),
        (status = 404, description = "No such cycle"), (status = 409, description = "The period still runs"),
        (status = 422, description = "Every fault of the body")))]
async fn run(State(app): State<App>, caller: Caller, once: Once, body: Document) -> Result<Response, Problem> {
    caller.may(BILLERS)?;
    let asking = once.of(&body.octets);
    if let Some(kept) = asking.answered(&mut app.store.read().await?, caller.tenant.as_str()).await? {
        return Ok(again(kept));
    }
    let asked = PeriodOrder::read(&body.value, true)?;
    let tenant = caller.tenant.to_string();
    let cycle = asked.cycle.clone();
    let order = BillOrder { tenant, cycle: asked.cycle, period: asked.period, dry_run: asked.dry_run };
    let answer = app.biller.ask(BillAsk::Run(order)).await?;
    if !asked.dry_run {
        let mut tx = app.store.write().await?;
        let now = app.clock.now();
        let detail = json!({ "batch": answer["batch"], "period": answer["period"] });
        note(&mut tx, &caller, "bill.run", &cycle, &detail, now).await?;
        asking.keep(&mut tx, caller.tenant.as_str(), StatusCode::OK.as_u16(), &answer.to_string(), now).await?;
        tx.commit().await?;
    }
    Ok(Json(answer).into_response())
}

/// Notes a deed of billing in the audit.
async fn note(
    tx: &mut Tx,
    caller: &Caller,
    action: &str,
    subject: &str,
    detail: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenant = Some(caller.tenant.as_str());
    let entry = audit::Entry { tenant, actor: &caller.actor, action, account_id: None, subject, detail };
    audit::append(tx, &entry, now).await
}

fn refused(refusal: BillRefusal) -> Problem {
    match refusal {
        BillRefusal::NotFound => Problem::not_found(),
        BillRefusal::Period(detail) => Problem::bad_request(detail),
        BillRefusal::Conflict(detail) => Problem::conflict("bill-run", "The period cannot be closed now", detail),
        BillRefusal::Store(error) => error.into(),
    }
}

/// A run, by the id of its batch.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/bill-runs/{id}", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The run"), (status = 404, description = "No such run")))]
async fn show_run(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let batch = billing::batch(&mut tx, caller.tenant.as_str(), &path.1).await?;
    Ok(Json(shown(&batch.ok_or_else(Problem::not_found)?)))
}

fn shown(batch: &BatchRow) -> Value {
    let (totals, handshakes) = batch.sums();
    json!({
        "id": batch.id,
        "cycle": batch.cycle,
        "period": batch.period,
        "run": batch.run,
        "state": batch.state,
        "lines": batch.lines,
        "totals": totals,
        "handshakes": handshakes,
        "sha256": batch.digest,
        "closed_sha256": batch.closed_digest,
        "created_at": batch.created_at,
        "closed_at": batch.closed_at,
        "acknowledged_at": batch.acknowledged_at,
        "checked_at": batch.checked_at,
        "approved_at": batch.approved_at,
        "approved_by": batch.approved_by,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineQuery {
    cycle: Option<String>,
    period: Option<String>,
    account: Option<String>,
    under: Option<String>,
    source: Option<String>,
    batch: Option<String>,
    /// Also when `batch` is still a draft.
    #[serde(default)]
    drafts: bool,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Invoice lines of closed batches, in the order in which the batches were closed: whoever goes on from `cursor` later misses
/// none; `under` takes an account with everything below it. `next` is null on the last page, `cursor` is always a place to go on from. With `drafts=true` also those of `batch` while it is a draft. `period` is the lines' own, by its first day, month or start.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/invoice-lines",
    params(("tenant" = String, Path), ("cycle" = Option<String>, Query), ("period" = Option<String>, Query),
        ("account" = Option<String>, Query), ("under" = Option<String>, Query), ("source" = Option<String>, Query),
        ("batch" = Option<String>, Query), ("drafts" = Option<bool>, Query), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of lines")))]
async fn list_lines(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<LineQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let mut tx = app.store.read().await?;
    let mut filter = LineFilter {
        tenant: Some(caller.tenant.to_string()),
        cycle: query.cycle.clone(),
        batch: query.batch,
        drafts: query.drafts,
        after: query.cursor,
        limit,
        ..LineFilter::default()
    };
    if let Some(id) = &query.account {
        let key = caller.account(query.source.as_deref(), id)?;
        filter.account_id = Some(accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?.id);
    }
    if let Some(id) = &query.under {
        let key = caller.account(query.source.as_deref(), id)?;
        accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?;
        filter.under = Some((key.source.to_string(), key.external_id));
    }
    if let Some(name) = &query.period {
        filter.period_start = Some(match (parse_instant(name), &query.cycle) {
            (Some(start), _) => start,
            (None, None) => return Err(Problem::bad_request("period needs cycle.")),
            (None, Some(cycle)) => {
                let known = catalog::in_force(&mut tx, caller.tenant.as_str()).await?.ok_or_else(Problem::not_found)?;
                let cycle = known.catalog.cycles.get(cycle).ok_or_else(Problem::not_found)?;
                cycle.calendar.named(name).map_err(|error| Problem::bad_request(error.to_string()))?.start
            }
        });
    }
    if query.drafts {
        let lines = billing::lines(&mut tx, &filter).await?;
        let last = lines.last().map(|stored| stored.line.id.clone());
        let items = with_tags(&mut tx, &lines.iter().collect::<Vec<_>>()).await?;
        return Ok(Json(page(items, limit, last)));
    }
    let after: Place = match filter.after.take() {
        None => Place::default(),
        Some(text) => text.parse().map_err(|_| Problem::bad_request("cursor must be the `next` of a page."))?,
    };
    let lines = billing::pull(&mut tx, &filter, &after).await?;
    let last = lines.last().map_or_else(|| after.to_string(), |pulled| pulled.place.to_string());
    let items = with_tags(&mut tx, &lines.iter().map(|pulled| &pulled.stored).collect::<Vec<_>>()).await?;
    let mut answer = page(items, limit, Some(last.clone()));
    answer["cursor"] = json!(last);
    Ok(Json(answer))
}

/// Lines with their accounts' tags, as they are now.
async fn with_tags(tx: &mut Tx, lines: &[&StoredLine]) -> Result<Vec<Value>, Problem> {
    let mut keys = BTreeSet::new();
    for stored in lines {
        let tenant = TenantId::parse(&stored.line.tenant).map_err(|_| Problem::internal())?;
        let source = SourceId::parse(&stored.basis.source).map_err(|_| Problem::internal())?;
        keys.insert(AccountKey { tenant, source, external_id: stored.line.account.clone() });
    }
    let rows = accounts::these(tx, &keys.iter().collect::<Vec<_>>()).await?;
    let tags: HashMap<(&str, &str), _> =
        rows.iter().map(|row| ((row.source.as_str(), row.external_id.as_str()), &row.document.tags)).collect();
    let shown = lines.iter().map(|stored| {
        let mut item = json!(stored.line);
        let tags = tags.get(&(stored.basis.source.as_str(), stored.line.account.as_str()));
        if let Some(tags) = tags.filter(|tags| !tags.is_empty()) {
            item["tags"] = json!(tags);
        }
        item
    });
    Ok(shown.collect())
}

/// A line's whole computation from its ledger entries, recomputed and compared.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/invoice-lines/{id}/explain",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The computation"), (status = 404, description = "No such line")))]
async fn explain_line(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let found = rating::explain(&mut tx, Some(caller.tenant.as_str()), &path.1).await.map_err(unrated)?;
    Ok(Json(json!(found.ok_or_else(Problem::not_found)?)))
}

fn unrated(error: rating::RatingError) -> Problem {
    match error {
        rating::RatingError::Store(error) => error.into(),
        rating::RatingError::NoTenant(_) | rating::RatingError::NoCycle { .. } => Problem::not_found(),
        other => {
            tracing::error!("A line or balance could not be computed: {other}. The caller got an internal error.");
            Problem::internal()
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchQuery {
    #[serde(default)]
    drafts: bool,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Closed batches; with `drafts=true` also those that wait for a check and an approval.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/batches",
    params(("tenant" = String, Path), ("drafts" = Option<bool>, Query), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of batches")))]
async fn list_batches(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<BatchQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let mut tx = app.store.read().await?;
    let rows = billing::batches(&mut tx, caller.tenant.as_str(), query.cursor.as_deref(), query.drafts, limit).await?;
    let last = rows.last().map(|batch| batch.id.clone());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

/// One closed batch with its manifest: how many lines, sums by currency, `sha256` of what `lines` of it gives, and of a
/// wholesale bill the hash of each counted tenant's services of the day that counts.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/batches/{id}", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The batch"), (status = 404, description = "No such closed batch")))]
async fn show_batch(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let batch = billing::batch(&mut app.store.read().await?, caller.tenant.as_str(), &path.1).await?;
    Ok(Json(shown(&batch.filter(is_closed).ok_or_else(Problem::not_found)?)))
}

fn is_closed(batch: &BatchRow) -> bool {
    matches!(batch.state.as_str(), "closed" | "acknowledged")
}

/// All lines of a closed batch as JSON lines, by id: the same octets every time, whose SHA-256 is the batch's `sha256`.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/batches/{id}/lines", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The lines, each a Line as JSON", body = String,
            content_type = "application/x-ndjson"),
        (status = 404, description = "No such closed batch")))]
async fn batch_lines(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Response, Problem> {
    caller.may(READERS)?;
    let batch = billing::batch(&mut app.store.read().await?, caller.tenant.as_str(), &path.1).await?;
    let batch = batch.filter(is_closed).ok_or_else(Problem::not_found)?;
    let (send, pages) = tokio::sync::mpsc::channel(2);
    let store = app.store.clone();
    tokio::spawn(async move {
        if let Err(error) = send_lines(&store, &batch.id, &send).await {
            tracing::warn!(
                "The lines of batch {} could not all be read: {error}. The answer was broken off.",
                batch.id
            );
            // An answer that ends early must not look whole.
            let _ = send.send(Err(std::io::Error::other("the lines could not all be read"))).await;
        }
    });
    let body = axum::body::Body::new(Pages(pages));
    Ok(([(axum::http::header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn send_lines(
    store: &Store,
    batch: &str,
    send: &tokio::sync::mpsc::Sender<PageOctets>,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let page = billing::texts(&mut store.read().await?, batch, &after, LINES_AT_ONCE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after.clone_from(last);
        let text: String = page.iter().flat_map(|(_, text)| [text.as_str(), "\n"]).collect();
        // Whoever asked went away.
        if send.send(Ok(text.into())).await.is_err() {
            return Ok(());
        }
    }
}

type PageOctets = Result<axum::body::Bytes, std::io::Error>;

/// A body made of pages as they come.
struct Pages(tokio::sync::mpsc::Receiver<PageOctets>);

impl hyper::body::Body for Pages {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        self.0.poll_recv(context).map(|page| page.map(|page| page.map(hyper::body::Frame::data)))
    }
}

const LINES_AT_ONCE: i64 = 500;

/// The billing system has taken a batch. Again is no fault.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/batches/{id}/ack",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The batch"), (status = 404, description = "No such batch")))]
async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(BILLERS)?;
    let mut tx = app.store.write().await?;
    let (tenant, now) = (caller.tenant.as_str(), app.clock.now());
    let before = billing::batch(&mut tx, tenant, &path.1).await?;
    billing::acknowledge(&mut tx, tenant, &path.1, now).await?;
    if before.is_some_and(|batch| batch.state == "closed") {
        note(&mut tx, &caller, "bill.acknowledge", &path.1, &json!({}), now).await?;
    }
    let batch = billing::batch(&mut tx, caller.tenant.as_str(), &path.1).await?;
    let batch = batch.filter(is_closed).ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(Json(shown(&batch)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceQuery {
    source: Option<String>,
}

/// The running period so far: used, allowance left, charge so far.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts/{id}/balance",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query)),
    responses((status = 200, description = "What was used and charged"), (status = 404, description = "No such account")))]
async fn balance(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<SourceQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let mut tx = app.store.read_snapshot().await?;
    let row = accounts::find(&mut tx, &key).await?.filter(|row| row.closed_at.is_none());
    let row = row.ok_or_else(Problem::not_found)?;
    let account = BilledAccount {
        id: row.id,
        source: row.source.clone(),
        external_id: row.external_id.clone(),
        bill_cycle: row.document.bill_cycle.clone(),
    };
    let prices = app.prices.of(&mut tx, caller.tenant.as_str()).await?.ok_or_else(Problem::not_found)?;
    let found = running::balance(&mut tx, &prices, &row.document.bill_cycle, &account, app.clock.now()).await;
    Ok(Json(json!(found.map_err(unrated)?)))
}

//! The usage ledger as TMF635 reads it: an account's entries, and one.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::services::{Pairs, named};
use super::{list, listing, selection, shown};
use crate::intake::App;
use crate::intake::caller::{Party, READERS};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At};
use crate::store::faces::{self, Counted, LedgerRow, Part};
use crate::store::{Tx, accounts};
use crate::tmf::{self, ItemId, Used};
use crate::vocabulary::AccountKey;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_all)).routes(routes!(show))
}

const FILTERS: [&str; 6] =
    ["relatedParty.id", "usageDate", "usageType", "status", "usageSpecification.id", "ratedProductUsage.productRef.id"];

/// The entries of an account's usage ledger, in their order; `relatedParty.id` names the account and must be there.
#[utoipa::path(get, path = "/tmf-api/usageManagement/v4/usage",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("source" = Option<String>, Query), ("relatedParty.id" = Option<String>, Query),
        ("usageDate" = Option<String>, Query), ("usageDate.gte" = Option<String>, Query),
        ("usageDate.lt" = Option<String>, Query), ("usageType" = Option<String>, Query),
        ("status" = Option<String>, Query), ("usageSpecification.id" = Option<String>, Query),
        ("ratedProductUsage.productRef.id" = Option<String>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn list_all(State(app): State<App>, party: Party, Asked(pairs): Asked<Pairs>) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let listing = listing(&pairs, &FILTERS)?;
    let account = listing.value("relatedParty.id");
    let account = account.ok_or_else(|| Problem::bad_request("Name one account: relatedParty.id=ACCOUNT."))?;
    let mut tx = app.store.read_snapshot().await?;
    let search = match AccountKey::parse_external_id(account) {
        Ok(account) => Search::of(caller.account(listing.source.as_deref(), &account)?, &mut tx).await?,
        Err(_) => None,
    };
    list(search.map(super::Search::Usage), &listing, &["relatedParty.id"], app.clock.now(), &mut tx).await
}

/// One entry, by its account and number: `account:number`.
#[utoipa::path(get, path = "/tmf-api/usageManagement/v4/usage/{usage}",
    params(("usage" = String, Path, description = "account:number"), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The entry"), (status = 404, description = "No such entry")))]
async fn show(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let selection = selection(&pairs)?;
    let (id, key) = named(&caller, &id)?;
    // A number has one way to be written, too.
    let sequence: i64 = id.item.parse().map_err(|_| Problem::not_found())?;
    if sequence.to_string() != id.item {
        return Err(Problem::not_found());
    }
    let mut tx = app.store.read_snapshot().await?;
    let search = Search::of(key, &mut tx).await?.ok_or_else(Problem::not_found)?;
    let entry = faces::ledger_entry(&mut tx, search.account_id, sequence).await?.ok_or_else(Problem::not_found)?;
    Ok(shown(search.usage(entry), &selection))
}

/// An account's entries.
pub(super) struct Search {
    key: AccountKey,
    account_id: i64,
    counted: Vec<Counted>,
}

impl Search {
    async fn of(key: AccountKey, tx: &mut Tx) -> Result<Option<Self>, Problem> {
        let Some(row) = accounts::find(tx, &key).await? else { return Ok(None) };
        let counted = faces::counted(tx, row.id).await?;
        Ok(Some(Self { key, account_id: row.id, counted }))
    }

    pub(super) async fn count(&self, tx: &mut Tx) -> Result<i64, Problem> {
        Ok(faces::count_ledger(tx, self.account_id).await?)
    }

    pub(super) async fn part(&self, part: Part, tx: &mut Tx) -> Result<Vec<Value>, Problem> {
        let entries = faces::ledger(tx, self.account_id, part).await?;
        Ok(entries.into_iter().map(|entry| self.usage(entry)).collect())
    }

    fn usage(&self, entry: LedgerRow) -> Value {
        let id = |item: String| ItemId { source: self.key.source.clone(), account: self.key.external_id.clone(), item };
        tmf::usage(&Used {
            billed: self.counted.iter().any(|counted| counted.has(&entry)),
            id: id(entry.sequence.to_string()),
            service: id(entry.service),
            service_type: entry.service_type,
            from: entry.from_at,
            until: entry.until_at,
            in_octets: entry.in_octets,
            out_octets: entry.out_octets,
            seconds: entry.seconds,
            sessions: entry.sessions,
            cause: entry.cause,
            recorded_at: entry.recorded_at,
        })
    }
}

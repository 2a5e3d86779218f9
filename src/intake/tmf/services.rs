//! Services as TMF640 and TMF638 read them: the list, and one.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{list, listing, selection, shown};
use crate::intake::App;
use crate::intake::caller::{Caller, Party, READERS};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At};
use crate::intake::view;
use crate::provision::{Content, ElementState};
use crate::store::accounts::{self, AccountRow};
use crate::store::elements::{self, ElementRow};
use crate::store::faces::{self, Part, ServiceScope};
use crate::store::{Tx, jobs};
use crate::tmf::{self, ACTIVATION, INVENTORY, ItemId, Listing, Seen, Standing};
use crate::vocabulary::{AccountKey, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(activation_list))
        .routes(routes!(activation_show))
        .routes(routes!(inventory_list))
        .routes(routes!(inventory_show))
}

/// What a list can be asked about.
const FILTERS: [&str; 11] = [
    "id",
    "name",
    "category",
    "state",
    "serviceType",
    "serviceSpecification.id",
    "relatedParty.id",
    "supportingResource.id",
    "isServiceEnabled",
    "hasStarted",
    "serviceDate",
];
/// What of it the database answers alone.
const BY_DATABASE: [&str; 3] = ["relatedParty.id", "serviceSpecification.id", "serviceType"];

pub(super) type Pairs = Vec<(String, String)>;

/// Services, in the order they came; those that have ended are not among them. `relatedParty.id` is the account's.
#[utoipa::path(get, path = "/tmf-api/ServiceActivationAndConfiguration/v4/service",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("source" = Option<String>, Query), ("id" = Option<String>, Query), ("name" = Option<String>, Query),
        ("category" = Option<String>, Query), ("state" = Option<String>, Query), ("serviceType" = Option<String>, Query),
        ("serviceSpecification.id" = Option<String>, Query), ("relatedParty.id" = Option<String>, Query),
        ("supportingResource.id" = Option<String>, Query), ("isServiceEnabled" = Option<bool>, Query),
        ("hasStarted" = Option<bool>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn activation_list(
    State(app): State<App>,
    party: Party,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    list_by(&app, &party, &pairs, ACTIVATION).await
}

/// One service.
#[utoipa::path(get, path = "/tmf-api/ServiceActivationAndConfiguration/v4/service/{service}",
    params(("service" = String, Path, description = "account:service"), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The service"), (status = 404, description = "No such service")))]
async fn activation_show(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    show_by(&app, &party, &id, &pairs, ACTIVATION).await
}

/// Services, in the order they came; those that have ended are not among them. `relatedParty.id` is the account's.
#[utoipa::path(get, path = "/tmf-api/serviceInventory/v4/service",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("source" = Option<String>, Query), ("id" = Option<String>, Query), ("name" = Option<String>, Query),
        ("category" = Option<String>, Query), ("state" = Option<String>, Query), ("serviceType" = Option<String>, Query),
        ("serviceSpecification.id" = Option<String>, Query), ("relatedParty.id" = Option<String>, Query),
        ("supportingResource.id" = Option<String>, Query), ("isServiceEnabled" = Option<bool>, Query),
        ("hasStarted" = Option<bool>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn inventory_list(State(app): State<App>, party: Party, Asked(pairs): Asked<Pairs>) -> Result<Response, Problem> {
    list_by(&app, &party, &pairs, INVENTORY).await
}

/// One service.
#[utoipa::path(get, path = "/tmf-api/serviceInventory/v4/service/{service}",
    params(("service" = String, Path, description = "account:service"), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The service"), (status = 404, description = "No such service")))]
async fn inventory_show(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    show_by(&app, &party, &id, &pairs, INVENTORY).await
}

async fn list_by(app: &App, party: &Party, pairs: &Pairs, base: &'static str) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let listing = listing(pairs, &FILTERS)?;
    let mut tx = app.store.read_snapshot().await?;
    let search = search(&caller, &listing, base, &mut tx).await?.map(super::Search::Services);
    list(search, &listing, &BY_DATABASE, app.clock.now(), &mut tx).await
}

async fn show_by(app: &App, party: &Party, id: &str, pairs: &Pairs, base: &'static str) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let selection = selection(pairs)?;
    let mut tx = app.store.read_snapshot().await?;
    let (id, key) = named(&caller, id)?;
    let found = one(&key, &id, base, app.clock.now(), &mut tx).await?;
    Ok(shown(found.ok_or_else(Problem::not_found)?, &selection))
}

/// The account and service that an id names. **Errors**: 404 for what is no id.
pub(super) fn named(caller: &Caller, id: &str) -> Result<(ItemId, AccountKey), Problem> {
    let id: ItemId = id.parse().map_err(|_| Problem::not_found())?;
    let key = caller.account(Some(id.source.as_str()), &id.account).map_err(|_| Problem::not_found())?;
    Ok((id, key))
}

/// The row of the account that a list is about. `Ok(None)`: no account, so that nothing is listed.
pub(super) async fn account_of(
    caller: &Caller,
    source: Option<&str>,
    id: &str,
    tx: &mut Tx,
) -> Result<Option<i64>, Problem> {
    if AccountKey::parse_external_id(id).is_err() {
        return Ok(None);
    }
    let key = caller.account(source, id)?;
    Ok(accounts::find(tx, &key).await?.map(|row| row.id))
}

/// A list of services.
pub(super) struct Search {
    scope: ServiceScope,
    base: &'static str,
}

async fn search(
    caller: &Caller,
    listing: &Listing,
    base: &'static str,
    tx: &mut Tx,
) -> Result<Option<Search>, Problem> {
    let mut scope = ServiceScope {
        tenant: caller.tenant.to_string(),
        source: caller.source(listing.source.as_deref())?.map(|source| source.to_string()),
        account_id: None,
        plan: listing.value("serviceSpecification.id").map(str::to_owned),
        service_type: listing.value("serviceType").map(str::to_owned),
    };
    if let Some(id) = listing.value("relatedParty.id") {
        let Some(account_id) = account_of(caller, listing.source.as_deref(), id, tx).await? else { return Ok(None) };
        scope.account_id = Some(account_id);
    }
    Ok(Some(Search { scope, base }))
}

impl Search {
    pub(super) async fn count(&self, tx: &mut Tx) -> Result<i64, Problem> {
        Ok(faces::count_services(tx, &self.scope).await?)
    }

    pub(super) async fn part(&self, part: Part, now: Timestamp, tx: &mut Tx) -> Result<Vec<Value>, Problem> {
        let places = faces::services(tx, &self.scope, part).await?;
        let ids: BTreeSet<i64> = places.iter().map(|place| place.account_id).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        let rows: HashMap<i64, AccountRow> =
            accounts::by_ids(tx, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
        let mut of: HashMap<i64, Vec<ElementRow>> = HashMap::new();
        for element in elements::of_accounts(tx, &ids).await? {
            of.entry(element.account_id).or_default().push(element);
        }
        let active: HashMap<i64, i64> = jobs::active_of_accounts(tx, &ids).await?.into_iter().collect();
        let shown = places.iter().filter_map(|place| {
            let row = rows.get(&place.account_id)?;
            let elements = of.get(&row.id).map_or(&[][..], Vec::as_slice);
            let jobs: Vec<(i64, i64)> =
                elements.iter().filter_map(|element| Some((element.id, *active.get(&element.id)?))).collect();
            let id = id_of(row, &place.external_id)?;
            service(row, &id, Some(place.created_at), elements, &jobs, self.base, now)
        });
        Ok(shown.collect())
    }
}

/// The id of a service of an account; `None`: the account is of a source that cannot be.
pub(super) fn id_of(row: &AccountRow, service: &str) -> Option<ItemId> {
    let source = row.source.parse().ok()?;
    Some(ItemId { source, account: row.external_id.clone(), item: service.to_owned() })
}

/// One service of a living account.
pub(super) async fn one(
    key: &AccountKey,
    id: &ItemId,
    base: &str,
    now: Timestamp,
    tx: &mut Tx,
) -> Result<Option<Value>, Problem> {
    let Some(row) = accounts::find(tx, key).await?.filter(|row| row.closed_at.is_none()) else { return Ok(None) };
    let created_at = faces::created_at(tx, row.id, &id.item).await?;
    let elements = elements::of_account(tx, row.id).await?;
    let jobs = jobs::active_of_account(tx, row.id).await?;
    Ok(service(&row, id, created_at, &elements, &jobs, base, now))
}

/// A service from the rows of its account; `None`: the account's document has none of this id.
fn service(
    row: &AccountRow,
    id: &ItemId,
    created_at: Option<Timestamp>,
    elements: &[ElementRow],
    jobs: &[(i64, i64)],
    base: &str,
    now: Timestamp,
) -> Option<Value> {
    let account = row.document.at(now);
    let found = account.service(&id.item)?;
    let gone = |element: &ElementRow| element.desired == Content::Absent && element.state == ElementState::Gone;
    let serves = |element: &&ElementRow| !gone(element) && element.services.contains(&id.item);
    let needed: Vec<_> = elements
        .iter()
        .filter(serves)
        .map(|element| {
            let standing = Standing { desired: &element.desired, applied: element.applied.as_ref() };
            (element.kind, element.key.as_str(), standing)
        })
        .collect();
    let seen = Seen {
        id,
        account: &account,
        service: found,
        created_at,
        elements: &needed,
        provisioning: &view::provisioning(&id.item, elements, jobs),
    };
    Some(tmf::service(&seen, base))
}

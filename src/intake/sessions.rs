//! One session over HTTP, with what its NAS was asked about it; and asking the NAS to end it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::history::Case;
use super::problem::Problem;
use super::request::At;
use crate::store::nas_control::{self, Wish};
use crate::store::sessions::StoredSession;
use crate::store::usage::{self, SessionView};
use crate::store::{Tx, audit};
use crate::vocabulary::Role;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(disconnect))
}

/// May end a subscriber's session.
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
/// Orders shown with a session, the newest first.
const ORDERS: i64 = 10;

/// One session of the tenant's subscribers. `control` is what its NAS was asked, the newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/sessions/{session}",
    params(("tenant" = String, Path), ("session" = String, Path), ("Lastmile-Case" = Option<String>, Header)),
    responses((status = 200, description = "The session"), (status = 404, description = "No such session")))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    case: Case,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.write().await?;
    let (view, stored) = own(&mut tx, &caller, &path.1).await?;
    let of = (stored.owner.map(|owner| owner.account_id), &*format!("session {}", view.id));
    case.look(&app, &mut tx, &caller, "history.sessions", of, &json!({})).await?;
    let orders = nas_control::of_session(&mut tx, view.id, ORDERS).await?;
    tx.commit().await?;
    let mut document = json!(view);
    document["control"] = json!(orders);
    Ok(Json(document))
}

/// Asks the NAS to end a live session (RFC 5176). What the login may do stays as it is: the subscriber may come back.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/sessions/{session}/disconnect",
    params(("tenant" = String, Path), ("session" = String, Path)),
    responses((status = 202, description = "It is asked for; the session's `control` tells what became of it"),
        (status = 404, description = "No such session"), (status = 409, description = "It has ended")))]
async fn disconnect(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.may(OPERATORS)?;
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    let (view, stored) = own(&mut tx, &caller, &path.1).await?;
    if view.ended_at.is_some() {
        return Err(Problem::conflict("session-ended", "The session has ended", "There is nothing to end any more."));
    }
    let account_id = stored.owner.map(|owner| owner.account_id);
    let cause = format!("asked for by {}", caller.actor);
    let wish = Wish {
        tenant: Some(caller.tenant.as_str()),
        account_id,
        session_id: view.id,
        username: view.user.as_deref(),
        cause: &cause,
    };
    let request = nas_control::wish(&mut tx, &wish, now).await?;
    let entry = audit::Entry {
        tenant: Some(caller.tenant.as_str()),
        actor: &caller.actor,
        action: "session.disconnect",
        account_id,
        subject: &format!("session {}", view.id),
        detail: &json!({ "nas": view.nas, "session": view.session, "request": request }),
    };
    audit::append(&mut tx, &entry, now).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "session": view.id, "nas": view.nas, "request": request }))))
}

/// The session, if it is one of the tenant's subscribers'; of the caller's source only, where the key is bound to one.
async fn own(tx: &mut Tx, caller: &Caller, id: &str) -> Result<(SessionView, StoredSession), Problem> {
    let id: i64 = id.parse().map_err(|_| Problem::not_found())?;
    let (view, stored) = usage::one(tx, id).await?.ok_or_else(Problem::not_found)?;
    let source = caller.source.as_ref().map(|source| source.as_str());
    let is_own = view.tenant.as_deref() == Some(caller.tenant.as_str())
        && source.is_none_or(|source| view.source.as_deref() == Some(source));
    if is_own { Ok((view, stored)) } else { Err(Problem::not_found()) }
}

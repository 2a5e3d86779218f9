//! `session disconnect`: asks the NAS of live sessions to end them, and tells what the NAS said.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::store::nas_control::{self, OrderView, Outcome, Wish};
use crate::store::usage::{self, SessionFilter, SessionView};
use crate::store::{Store, Tx, accounts, audit};
use crate::vocabulary::{AccountKey, SourceId, TenantId};

/// Which sessions are meant.
pub(super) enum Meant {
    /// By the number `session list` gives, or by Acct-Session-Id.
    Session(String),
    User {
        name: String,
        tenant: Option<String>,
    },
}

/// Asks for each, and waits at most `wait` for what becomes of it.
pub(super) async fn disconnect(
    store: &Store,
    meant: Meant,
    wait: Duration,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let live = live(&mut tx, &meant).await?;
    tx.rollback().await?;
    if live.is_empty() {
        let what = match meant {
            Meant::Session(session) => format!("There is no live session {session}."),
            Meant::User { name, .. } => format!("{name} has no live session."),
        };
        return Ok(context.not_found(&what));
    }
    let mut asked = Vec::new();
    let now = context.clock().now();
    let mut tx = store.write().await?;
    for view in &live {
        let account_id = account_of(&mut tx, view).await?;
        let wish = Wish {
            tenant: view.tenant.as_deref(),
            account_id,
            session_id: view.id,
            username: view.user.as_deref(),
            cause: "asked for by command line",
        };
        let request = nas_control::wish(&mut tx, &wish, now).await?;
        let entry = audit::Entry {
            tenant: view.tenant.as_deref(),
            actor: "command line",
            action: "session.disconnect",
            account_id,
            subject: &format!("session {}", view.id),
            detail: &json!({ "nas": view.nas, "session": view.session, "request": request }),
        };
        audit::append(&mut tx, &entry, now).await?;
        asked.push(request);
    }
    tx.commit().await?;
    let answers = answers(store, &asked, wait).await?;
    show(&live, &asked, &answers, context)
}

async fn live(tx: &mut Tx, meant: &Meant) -> Result<Vec<SessionView>, CliError> {
    let mut found = match meant {
        Meant::Session(session) => {
            let filter = SessionFilter { session: Some(session.clone()), limit: SESSIONS, ..SessionFilter::default() };
            let mut found = usage::list(tx, &filter).await?;
            if found.is_empty()
                && let Ok(id) = session.parse::<i64>()
            {
                found.extend(usage::one(tx, id).await?.map(|(view, _)| view));
            }
            found
        }
        Meant::User { name, tenant } => {
            let mut found: Vec<SessionView> = Vec::new();
            // Ended sessions of many years stand before the live ones.
            for state in ["open", "stale"] {
                let filter = SessionFilter {
                    user: Some(name.clone()),
                    tenant: tenant.clone(),
                    state: Some(state.to_owned()),
                    limit: SESSIONS,
                    ..SessionFilter::default()
                };
                found.extend(usage::list(tx, &filter).await?);
            }
            found
        }
    };
    found.retain(|view| view.ended_at.is_none());
    Ok(found)
}

async fn account_of(tx: &mut Tx, view: &SessionView) -> Result<Option<i64>, CliError> {
    let (Some(tenant), Some(source), Some(account)) = (&view.tenant, &view.source, &view.account) else {
        return Ok(None);
    };
    let key =
        AccountKey { tenant: TenantId::parse(tenant)?, source: SourceId::parse(source)?, external_id: account.clone() };
    Ok(accounts::find(tx, &key).await?.map(|row| row.id))
}

/// The order of each request, once it is finished or the time is over.
async fn answers(store: &Store, asked: &[i64], wait: Duration) -> Result<Vec<Option<OrderView>>, CliError> {
    let end = Instant::now() + wait;
    loop {
        let mut tx = store.read().await?;
        let mut answers = Vec::new();
        for request in asked {
            answers.push(nas_control::of_request(&mut tx, *request).await?.into_iter().next());
        }
        tx.rollback().await?;
        let all = answers.iter().all(|order| order.as_ref().is_some_and(|order| order.outcome.is_some()));
        if all || Instant::now() >= end {
            return Ok(answers);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(
    live: &[SessionView],
    asked: &[i64],
    answers: &[Option<OrderView>],
    context: &Context,
) -> Result<Exit, CliError> {
    let refused =
        |order: &OrderView| !matches!(order.outcome, None | Some(Outcome::Ack | Outcome::Ended | Outcome::Unknown));
    let failed = answers.iter().flatten().any(refused);
    if context.json {
        let shown = |((view, request), order): ((&SessionView, &i64), &Option<OrderView>)| -> Value {
            json!({ "session": view.id, "user": view.user, "nas": view.nas, "request": request, "order": order })
        };
        let documents: Vec<Value> = live.iter().zip(asked).zip(answers).map(shown).collect();
        context.print_json(&documents)?;
    } else {
        let row = |(view, order): (&SessionView, &Option<OrderView>)| {
            let said = order.as_ref().map_or_else(|| "asked; the daemon takes it up when it runs".to_owned(), said);
            vec![view.id.to_string(), view.user.clone().unwrap_or_default(), view.nas.clone(), said]
        };
        let rows: Vec<Vec<String>> = live.iter().zip(answers).map(row).collect();
        context.print_table(&["ID", "USER", "NAS", "WHAT BECAME OF IT"], &rows)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// An order in a sentence.
pub(super) fn said(order: &OrderView) -> String {
    let asked = match order.action {
        nas_control::Action::Disconnect => "to end it",
        nas_control::Action::Coa => "to change it",
    };
    let next = order.next_at.map(|at| format!("; asked again at {at:.0}")).unwrap_or_default();
    match (order.outcome, &order.detail) {
        (Some(_), Some(detail)) => format!("asked {asked}: {detail}{next}"),
        _ => format!("is to be asked {asked}"),
    }
}

const SESSIONS: i64 = 1000;
const LOOK_EVERY: Duration = Duration::from_millis(200);

//! An account as the API shows it: the stored document without secrets, and how far each service is provisioned.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::provision::{Content, ElementState};
use crate::store::accounts::AccountRow;
use crate::store::elements::ElementRow;
use crate::store::holds::HoldRow;
use crate::store::{StoreError, Tx, elements, holds, jobs};

/// Reads what the answer needs besides the row.
pub async fn account(tx: &mut Tx, row: &AccountRow) -> Result<Value, StoreError> {
    let elements = elements::of_account(tx, row.id).await?;
    let jobs = jobs::active_of_account(tx, row.id).await?;
    let holds = holds::living(tx, row.id).await?;
    Ok(shown(row, &elements, &jobs, &holds))
}

/// As `account`, for many.
pub async fn accounts(tx: &mut Tx, rows: &[&AccountRow]) -> Result<Vec<Value>, StoreError> {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let mut of: HashMap<i64, Vec<ElementRow>> = HashMap::new();
    for element in elements::of_accounts(tx, &ids).await? {
        of.entry(element.account_id).or_default().push(element);
    }
    let jobs: HashMap<i64, i64> = jobs::active_of_accounts(tx, &ids).await?.into_iter().collect();
    let holds = holds::living_of(tx, &ids).await?;
    let shown = rows.iter().map(|row| {
        let mut elements = of.remove(&row.id).unwrap_or_default();
        elements.sort_by(|a, b| (a.kind.as_str(), &a.key).cmp(&(b.kind.as_str(), &b.key)));
        let active = elements.iter().filter_map(|element| Some((element.id, *jobs.get(&element.id)?)));
        shown(row, &elements, &active.collect::<Vec<_>>(), holds.get(&row.id).map_or(&[], Vec::as_slice))
    });
    Ok(shown.collect())
}

/// An account with its elements, by kind and key, (element, job) of their jobs, and its operators' holds.
pub fn shown(row: &AccountRow, elements: &[ElementRow], jobs: &[(i64, i64)], holds: &[HoldRow]) -> Value {
    let mut view = document(row, elements, jobs);
    if !holds.is_empty() {
        let shown = |held: &HoldRow| {
            let mut hold = json!(held.held.hold);
            hold["service"] = json!(held.held.service);
            hold["placed_by"] = json!(held.placed_by);
            hold
        };
        view["operator_holds"] = holds.iter().map(shown).collect();
    }
    view
}

fn document(row: &AccountRow, elements: &[ElementRow], jobs: &[(i64, i64)]) -> Value {
    let mut view = json!({
        "id": row.external_id,
        "tenant": row.tenant,
        "source": row.source,
        "source_revision": row.source_revision,
        "revision": row.revision,
    });
    let stored = json!(row.document);
    if let (Some(view), Value::Object(stored)) = (view.as_object_mut(), stored) {
        view.extend(stored);
    }
    if let Some(services) = view["services"].as_array_mut() {
        for service in services {
            let id = service["id"].as_str().unwrap_or_default().to_owned();
            service["provisioning"] = provisioning(&id, elements, jobs);
        }
    }
    view["created_at"] = json!(row.created_at);
    view["updated_at"] = json!(row.updated_at);
    view["close_at"] = json!(row.close_at);
    view
}

/// All elements of a service as one: the worst state, the farthest desired, the least applied.
pub(super) fn provisioning(service: &str, elements: &[ElementRow], jobs: &[(i64, i64)]) -> Value {
    let gone = |element: &ElementRow| element.desired == Content::Absent && element.state == ElementState::Gone;
    let mine: Vec<&ElementRow> = elements
        .iter()
        .filter(|element| !gone(element) && element.services.iter().any(|served| served == service))
        .collect();
    let state = mine.iter().map(|element| element.state).max_by_key(|state| severity(*state));
    let evidence: Vec<&str> = mine.iter().filter_map(|element| element.evidence.as_deref()).collect();
    let job =
        mine.iter().find_map(|element| jobs.iter().find(|(of, _)| *of == element.id)).map(|(_, job)| job.to_string());
    let applied = mine.iter().map(|element| element.applied_revision).min().flatten();
    json!({
        "state": state.map_or("applied", |state| match state {
            ElementState::Gone => "applied",
            other => other.as_str(),
        }),
        "desired_revision": mine.iter().map(|element| element.desired_revision).max(),
        "applied_revision": applied,
        "evidence": if evidence.is_empty() { None } else { Some(evidence.join("; ")) },
        "job": job,
        "last_error": mine.iter().find_map(|element| element.last_error.as_deref()),
    })
}

fn severity(state: ElementState) -> u8 {
    match state {
        ElementState::Gone => 0,
        ElementState::Applied => 1,
        ElementState::Pending => 2,
        ElementState::Offline => 3,
        ElementState::Failed => 4,
    }
}

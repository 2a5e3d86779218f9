//! Who calls: the key of a request, the tenant of its address, the roles a route asks for, the source it acts for.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::App;
use super::problem::Problem;
use crate::store::keys::KeyRow;
use crate::vocabulary::{AccountKey, Role, SourceId, TenantId};

/// A request's caller; an extractor that every route below `/v1/tenants/{tenant}` begins with. Another tenant's address
/// is 404, a missing or wrong key 401, a used-up one 429.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub role: Role,
    /// The one source the key is bound to.
    pub source: Option<SourceId>,
    /// For the audit: the person `Lastmile-Actor` names, and the key.
    pub actor: String,
}

/// May read whatever the tenant has.
pub const READERS: &[Role] = &[Role::Push, Role::Read, Role::Csr, Role::Operator, Role::Billing, Role::Admin];
/// May push accounts.
pub const PUSHERS: &[Role] = &[Role::Push, Role::Admin];
/// May suspend, resume, provision again.
pub const HANDLERS: &[Role] = &[Role::Push, Role::Csr, Role::Operator, Role::Admin];
/// May boot devices and move them by the thousand.
pub const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
/// May post charges and credits.
pub const CHARGERS: &[Role] = &[Role::Push, Role::Csr, Role::Billing, Role::Admin];
/// May ask who had an address and what happened with an account.
pub const TRACERS: &[Role] = &[Role::Csr, Role::Operator, Role::Admin];
/// May read the audit, forget people, and say what leaves the house.
pub const ADMINS: &[Role] = &[Role::Admin];
/// May run what bills.
pub const BILLERS: &[Role] = &[Role::Billing, Role::Admin];

const ACTOR_MAX: usize = 128;

impl Caller {
    /// Lets only these roles pass; `platform` passes everywhere.
    pub fn may(&self, roles: &[Role]) -> Result<(), Problem> {
        allowed(self.role, roles)
    }

    /// The account a request is about; `source` is the query's.
    pub fn account(&self, source: Option<&str>, external_id: &str) -> Result<AccountKey, Problem> {
        let source = self.source(source)?.unwrap_or_default();
        let external_id = AccountKey::parse_external_id(external_id)
            .map_err(|error| Problem::bad_request(format!("The account's id {error}.")))?;
        Ok(AccountKey { tenant: self.tenant.clone(), source, external_id })
    }

    /// The source a request is about, which a bound key cannot leave. `None`: not named, not bound.
    pub fn source(&self, source: Option<&str>) -> Result<Option<SourceId>, Problem> {
        let named = match source {
            Some(text) => {
                Some(SourceId::parse(text).map_err(|error| Problem::bad_request(format!("The source {error}.")))?)
            }
            None => None,
        };
        match (&self.source, named) {
            (Some(bound), Some(named)) if *bound != named => Err(Problem::not_found()),
            (Some(bound), _) => Ok(Some(bound.clone())),
            (None, named) => Ok(named),
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = key(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app).await.map_err(|_| Problem::not_found())?;
        let asked = params.iter().find(|(name, _)| *name == "tenant").map(|(_, value)| value.to_owned());
        let asked = asked.and_then(|text| TenantId::parse(&text).ok()).ok_or_else(Problem::not_found)?;
        let caller = Self::of(&key, asked)?;
        // Whoever stands before another's wall is told so, and nothing else.
        Ok(caller.on_behalf_of(person(parts)?))
    }
}

impl Caller {
    /// Who calls with this key for a tenant. **Errors**: 404 when the key is another tenant's.
    fn of(key: &KeyRow, tenant: TenantId) -> Result<Self, Problem> {
        if key.tenant.as_ref().is_some_and(|own| *own != tenant) {
            return Err(Problem::not_found());
        }
        let of = key.source.as_ref().map_or_else(String::new, |source| format!(", source {source}"));
        let name = if key.name.is_empty() { String::new() } else { format!("{}, ", key.name) };
        let by_key = format!("key {} ({name}{}{of})", key.id, key.role);
        Ok(Self { tenant, role: key.role, source: key.source.clone(), actor: by_key })
    }

    fn on_behalf_of(self, person: Option<String>) -> Self {
        match person {
            None => self,
            Some(person) => Self { actor: format!("{person} by {}", self.actor), ..self },
        }
    }
}

/// A caller whose address names no tenant: its key does, or, where the key is everybody's, the request. An extractor.
#[derive(Debug, Clone)]
pub struct Party {
    key: Arc<KeyRow>,
    person: Option<String>,
    /// The tenant that the header names.
    named: Option<TenantId>,
}

/// Names the tenant where neither key nor address does.
pub const TENANT_HEADER: &str = "lastmile-tenant";

impl FromRequestParts<App> for Party {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = key(parts, app).await?;
        let named = match parts.headers.get(TENANT_HEADER) {
            None => None,
            Some(value) => {
                let tenant = value.to_str().ok().and_then(|text| TenantId::parse(text.trim()).ok());
                Some(tenant.ok_or_else(Problem::not_found)?)
            }
        };
        if let (Some(own), Some(named)) = (&key.tenant, &named)
            && own != named
        {
            return Err(Problem::not_found());
        }
        Ok(Self { person: person(parts)?, key, named })
    }
}

impl Party {
    /// As `Caller::may`, before it is clear for which tenant.
    pub fn may(&self, roles: &[Role]) -> Result<(), Problem> {
        allowed(self.key.role, roles)
    }

    pub fn caller(&self) -> Result<Caller, Problem> {
        self.caller_for(None)
    }

    /// As `caller`; `told` is the tenant that the body names. **Errors**: 404 for another tenant's, 400 when nothing names one.
    pub fn caller_for(&self, told: Option<&TenantId>) -> Result<Caller, Problem> {
        let names = [self.named.as_ref(), told, self.key.tenant.as_ref()];
        let mut names = names.into_iter().flatten();
        let Some(tenant) = names.next() else {
            return Err(Problem::bad_request("This key is no tenant's: name one in the header Lastmile-Tenant."));
        };
        if names.any(|other| other != tenant) {
            return Err(Problem::not_found());
        }
        Ok(Caller::of(&self.key, tenant.clone())?.on_behalf_of(self.person.clone()))
    }
}

/// The key of a request, its requests counted.
async fn key(parts: &Parts, app: &App) -> Result<Arc<KeyRow>, Problem> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let text = header.and_then(bearer).ok_or_else(Problem::unauthorized)?.to_owned();
    let key = app.keyring.open(&text, &app.store).await?;
    app.keyring.admit(&key)?;
    Ok(key)
}

/// The person a request is made for.
fn person(parts: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = parts.headers.get("lastmile-actor") else { return Ok(None) };
    let person = actor(value.to_str().ok());
    let wrong = || Problem::bad_request(format!("Lastmile-Actor must be 1 to {ACTOR_MAX} visible characters."));
    person.map(Some).ok_or_else(wrong)
}

fn allowed(role: Role, roles: &[Role]) -> Result<(), Problem> {
    if role == Role::Platform || roles.contains(&role) {
        return Ok(());
    }
    Err(Problem::forbidden(format!("A key with the role {role} may not do this.")))
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, text) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text.trim())
}

fn actor(text: Option<&str>) -> Option<String> {
    let text = text?.trim();
    let good = (1..=ACTOR_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

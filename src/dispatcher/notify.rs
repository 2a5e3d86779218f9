//! People who are told: mail to an account's address or to the operator, short messages through an HTTP gateway.
//!
//! Each mail and message is sent at most once by itself: that it is being sent is written down before, and one of which
//! nobody knows whether it arrived waits for a person.

use std::sync::Arc;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::client::{Client, Pool, Post};
use super::smtp::Relay;
use crate::outgoing::{Answer, Letter, LetterError, Letters, Mail, Mailbox, Medium, Target, filled};
use crate::store::accounts::{self, AccountRow};
use crate::store::events::Event;
use crate::store::outlets::OutletKind;
use crate::store::{Store, StoreError, catalog};
use crate::vocabulary::{AccountKey, SourceId, TenantId, Timestamp};

/// Who is told of which events, and how.
#[derive(Clone)]
pub struct Notify {
    pub letters: Arc<Letters>,
    pub relay: Option<Relay>,
    pub from: Mailbox,
    /// Types that go to the account's own address.
    pub to_account: Vec<String>,
    pub operator: Option<Mailbox>,
    /// Types that go to the operator.
    pub to_operator: Vec<String>,
    pub gateway: Option<Gateway>,
}

/// A gateway for short messages, as the configuration describes it.
#[derive(Clone)]
pub struct Gateway {
    pub target: Target,
    pub content_type: String,
    pub headers: Vec<(String, crate::vocabulary::Secret)>,
    /// A template with `phone`, `text` and `id`.
    pub body: String,
    pub types: Vec<String>,
}

/// Whom one outlet tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Account,
    Operator,
    Phone,
}

/// One outlet of a tenant: its way to people.
pub struct Teller {
    notify: Arc<Notify>,
    whom: Whom,
    /// To the gateway.
    pool: Option<(Client, Pool)>,
}

impl Whom {
    pub const ALL: [Whom; 3] = [Whom::Account, Whom::Operator, Whom::Phone];

    /// The id of its outlet in a tenant.
    pub fn id(self, tenant: &str) -> String {
        match self {
            Whom::Account => format!("mail.{tenant}.account"),
            Whom::Operator => format!("mail.{tenant}.operator"),
            Whom::Phone => format!("sms.{tenant}.account"),
        }
    }

    pub fn kind(self) -> OutletKind {
        match self {
            Whom::Account | Whom::Operator => OutletKind::Mail,
            Whom::Phone => OutletKind::Sms,
        }
    }
}

impl Notify {
    /// Types of events that are told so; `None`: nobody is told so.
    pub fn types(&self, whom: Whom) -> Option<&[String]> {
        let types = match whom {
            Whom::Account => self.relay.as_ref().map(|_| &self.to_account),
            Whom::Operator => self.relay.as_ref().and(self.operator.as_ref()).map(|_| &self.to_operator),
            Whom::Phone => self.gateway.as_ref().map(|gateway| &gateway.types),
        };
        types.map(Vec::as_slice).filter(|types| !types.is_empty())
    }
}

impl Teller {
    pub fn new(notify: Arc<Notify>, whom: Whom, client: &Client) -> Self {
        let gateway = notify.gateway.as_ref().filter(|_| whom == Whom::Phone);
        let pool = gateway.map(|gateway| (client.clone(), Pool::new(gateway.target.clone())));
        Self { notify, whom, pool }
    }

    /// For the log: no person's name or address.
    pub fn place(&self) -> &'static str {
        match self.whom {
            Whom::Account => "accounts by mail",
            Whom::Operator => "the operator by mail",
            Whom::Phone => "accounts by short message",
        }
    }

    pub async fn send(&self, event: &Event, store: &Store, now: Timestamp) -> Answer {
        match self.try_send(event, store, now).await {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn try_send(&self, event: &Event, store: &Store, now: Timestamp) -> Result<Answer, StoreError> {
        let mut tx = store.read().await?;
        let row = account(&mut tx, event).await?;
        let name = catalog::tenant_name(&mut tx, &event.tenant).await?.unwrap_or_else(|| event.tenant.clone());
        tx.rollback().await?;
        let document = row.as_ref().map(|row| &row.document);
        let facts = json!({
            "event": { "id": event.id(), "type": event.kind, "at": event.occurred_at },
            "tenant": { "id": event.tenant, "name": name },
            "account": document.map(|account| json!({ "name": account.name, "language": account.language })),
            "data": event.payload,
        });
        let language = document.and_then(|account| account.language.as_deref());
        let write = |medium, language| self.notify.letters.write(medium, &event.kind, &event.tenant, language, &facts);
        let id = format!("{}.{}", event.id(), self.whom.id(&event.tenant));
        // Whoever has no address is not told.
        Ok(match self.whom {
            Whom::Account => match document.and_then(|account| account.email.as_deref()).map(str::parse::<Mailbox>) {
                Some(Ok(to)) => self.mail(&to, write(Medium::Mail, language), &id, now).await,
                Some(Err(error)) => Answer::Refused(format!("the account's email {error}")),
                None => Answer::Taken,
            },
            Whom::Operator => match &self.notify.operator {
                Some(to) => self.mail(to, write(Medium::Mail, None), &id, now).await,
                None => Answer::Taken,
            },
            Whom::Phone => match document.and_then(|account| account.phone.as_deref()) {
                Some(phone) => self.short_message(phone, write(Medium::Sms, language), &id, now).await,
                None => Answer::Taken,
            },
        })
    }

    async fn mail(&self, to: &Mailbox, letter: Result<Letter, LetterError>, id: &str, at: Timestamp) -> Answer {
        let (letter, relay) = match (letter, &self.notify.relay) {
            (Ok(letter), Some(relay)) => (letter, relay),
            (Err(error), _) => return Answer::Refused(error.to_string()),
            (_, None) => return Answer::Failed("the configuration names no relay".to_owned()),
        };
        let Letter { subject, text } = &letter;
        relay.send(&Mail { from: &self.notify.from, to, subject, text, id, at }).await
    }

    async fn short_message(
        &self,
        phone: &str,
        letter: Result<Letter, LetterError>,
        id: &str,
        now: Timestamp,
    ) -> Answer {
        let (Some((client, pool)), Some(gateway)) = (&self.pool, &self.notify.gateway) else {
            return Answer::Failed("the configuration names no gateway".to_owned());
        };
        let facts = |letter: Letter| json!({ "phone": phone, "text": letter.text, "id": id });
        let body = match letter.and_then(|letter| filled(&gateway.body, &facts(letter))) {
            Ok(body) => body,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let Some(post) = post(gateway, body) else {
            return Answer::Refused("the gateway's headers cannot be sent".to_owned());
        };
        match client.send(pool, &post, now).await {
            // It may have been taken.
            Answer::Failed(why) if why.starts_with("the connection ended") || why.starts_with("no answer within") => {
                Answer::Refused(format!("{why}; the message may have been taken"))
            }
            other => other,
        }
    }
}

fn post(gateway: &Gateway, body: String) -> Option<Post> {
    let mut headers = Vec::new();
    for (name, value) in &gateway.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        headers.push((name, value));
    }
    let content_type = HeaderValue::from_str(&gateway.content_type).ok()?;
    Some(Post { method: Method::POST, headers, content_type, body: Bytes::from(body) })
}

/// The living account an event is about.
async fn account(tx: &mut crate::store::Tx, event: &Event) -> Result<Option<AccountRow>, StoreError> {
    let text = |name: &str| event.payload.get(name).and_then(Value::as_str);
    let (Some(source), Some(external_id)) = (text("source"), text("account")) else { return Ok(None) };
    let (Ok(tenant), Ok(source)) = (TenantId::parse(&event.tenant), SourceId::parse(source)) else { return Ok(None) };
    let key = AccountKey { tenant, source, external_id: external_id.to_owned() };
    Ok(accounts::find(tx, &key).await?.filter(|row| row.closed_at.is_none()))
}

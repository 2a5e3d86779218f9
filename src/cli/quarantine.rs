//! `quarantine list|release`: addresses and numbers that were given up and are kept from others for a while.

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::deed::person;
use super::exit::{CliError, Exit};
use crate::store::holders::HeldKind;
use crate::store::quarantine::{self, Kept, KeptFilter};
use crate::store::{Store, audit};
use crate::vocabulary::Timestamp;

/// The commands of `lastmile quarantine`.
#[derive(Subcommand)]
pub enum QuarantineCommand {
    /// List what is kept, by kind and value.
    List {
        /// Only what accounts of this tenant gave up.
        #[arg(long)]
        tenant: Option<String>,
        /// Only `mailbox` addresses, only `number`s, or only static `address`es.
        #[arg(long, value_parser = kind)]
        kind: Option<HeldKind>,
        /// Also what is over or released.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// End it early: everybody may have the address or number from now on.
    Release {
        /// A mail address, a phone number, or a static address.
        value: String,
        /// Whoever gets the address next gets the mail in it too, as when a subscriber moves to another account.
        #[arg(long)]
        with_mail: bool,
        /// Who decided it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: QuarantineCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let now = context.clock().now();
    match command {
        QuarantineCommand::List { tenant, kind, all, limit } => {
            let filter = KeptFilter { tenant, kind, all, after: None, limit: PAGE };
            list(&store, filter, limit, now, context).await
        }
        QuarantineCommand::Release { value, with_mail, by } => {
            let by = person(by);
            release(&store, &value, with_mail, &by, now, context).await
        }
    }
}

async fn list(
    store: &Store,
    mut filter: KeptFilter,
    limit: usize,
    now: Timestamp,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut listed: Vec<Kept> = Vec::new();
    while listed.len() < limit {
        let page = quarantine::list(&mut store.read().await?, &filter, now).await?;
        let more = page.len() as i64 == filter.limit;
        filter.after = page.last().map(|kept| (kept.kind.as_str().to_owned(), kept.value.clone()));
        listed.extend(page);
        if !more {
            break;
        }
    }
    listed.truncate(limit);
    if context.json {
        context.print_json(&listed.iter().map(document).collect::<Vec<_>>())?;
    } else {
        let headings = ["KIND", "VALUE", "TENANT", "ACCOUNT", "GIVEN UP", "UNTIL", "RELEASED"];
        context.print_table(&headings, &listed.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

async fn release(
    store: &Store,
    value: &str,
    with_mail: bool,
    by: &str,
    now: Timestamp,
    context: &Context,
) -> Result<Exit, CliError> {
    let kind = match value {
        value if value.contains('@') => HeldKind::Mailbox,
        value if value.contains(['.', ':']) => HeldKind::Address,
        _ => HeldKind::Number,
    };
    if with_mail && kind != HeldKind::Mailbox {
        return Err(CliError::usage("--with-mail is for a mail address".to_owned()));
    }
    let value = value.to_ascii_lowercase();
    let mut tx = store.write().await?;
    let Some(kept) = quarantine::of(&mut tx, kind, &value).await? else {
        return Ok(context.not_found(&format!("{value} is not in quarantine.")));
    };
    if !quarantine::release(&mut tx, kind, &value, by, with_mail, now).await? {
        return Err(CliError::no(format!("{value} is free already")));
    }
    let entry = audit::Entry {
        tenant: Some(&kept.tenant),
        actor: by,
        action: "quarantine.release",
        account_id: Some(kept.account_id),
        subject: &value,
        detail: &json!({ "kind": kind.as_str(), "until_at": kept.until_at, "with_mail": with_mail }),
    };
    audit::append(&mut tx, &entry, now).await?;
    let released = quarantine::of(&mut tx, kind, &value).await?;
    tx.commit().await?;
    match released.filter(|_| context.json) {
        Some(kept) => context.print_json(&document(&kept))?,
        None => {
            let mail = match (kind, with_mail) {
                (HeldKind::Mailbox, true) => " Whoever gets it next gets its mail too.",
                (HeldKind::Mailbox, false) => " The mail in it is nobody's: the next mailbox of this address is empty.",
                _ => "",
            };
            context.print(&format!("{value} is free.{mail}\n"))?;
        }
    }
    Ok(Exit::Done)
}

/// One as `--json` shows it.
fn document(kept: &Kept) -> Value {
    json!({
        "kind": kept.kind.as_str(),
        "value": kept.value,
        "tenant": kept.tenant,
        "source": kept.source,
        "account": kept.account,
        "from_at": kept.from_at,
        "until_at": kept.until_at,
        "released_at": kept.released_at,
        "released_by": kept.released_by,
        "with_mail": kept.with_mail,
    })
}

fn row(kept: &Kept) -> Vec<String> {
    let released = kept.released_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    vec![
        kept.kind.as_str().to_owned(),
        kept.value.clone(),
        kept.tenant.clone(),
        format!("{}/{}", kept.source, kept.account),
        format!("{:.0}", kept.from_at),
        format!("{:.0}", kept.until_at),
        released,
    ]
}

fn kind(text: &str) -> Result<HeldKind, String> {
    [HeldKind::Mailbox, HeldKind::Number, HeldKind::Address]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| format!("{text:?} is not kept; kinds are mailbox, number, address"))
}

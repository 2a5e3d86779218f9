//! `mail check|show|sql|purge`: the mail host's tables as they are, what they lack, and folders left behind.

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::deed::note;
use super::exit::{CliError, Exit};
use crate::provisioner::doveadm::QuotaUse;
use crate::provisioner::mailbox::MailHost;
use crate::store::StoreError;
use crate::store::foreign::mail::{Access, LeftMaildir, MailDatabase, Standing};
use crate::vocabulary::{from_micros, to_micros};

/// The commands of `lastmile mail`.
#[derive(Subcommand)]
pub enum MailCommand {
    /// Look whether the mail host's tables have what [mail] names, and make our own list beside them.
    Check,
    /// Show what stands in the mail host's tables for an address, and how full the mailbox is.
    Show { address: String },
    /// Print the SQL that a database administrator runs where the daemon's user may not create tables (PostgreSQL).
    Sql {
        /// The daemon's user in the mail database.
        #[arg(long, default_value = "lastmile")]
        user: String,
    },
    /// Folders of mailboxes that are gone; removing them is the mail host's operator's to do.
    #[command(subcommand)]
    Purge(PurgeCommand),
}

/// The commands of `lastmile mail purge`.
#[derive(Subcommand)]
pub enum PurgeCommand {
    /// List the folders that may be removed now, as the mailbox table named them.
    List {
        /// Also those whose days of grace are not over.
        #[arg(long)]
        all: bool,
    },
    /// Tell that folders were removed from the disk: their names may be used again.
    Done {
        #[arg(required = true)]
        maildir: Vec<String>,
    },
}

const OCTETS_PER_MB: i64 = 1024 * 1024;

/// Runs one of them.
pub async fn run(command: MailCommand, context: &Context) -> Result<Exit, CliError> {
    if let MailCommand::Sql { user } = &command {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if user.is_empty() || !user.chars().all(plain) {
            return Err(CliError::usage(format!("{user:?} is no user name of letters, digits and _")));
        }
        let sql = MailDatabase::sql_of_ours(user);
        if context.json {
            context.print_json(&json!({ "sql": sql }))?;
        } else {
            context.print(&sql)?;
        }
        return Ok(Exit::Done);
    }
    let config = context.config()?;
    let Some(mail) = &config.mail else {
        return Err(CliError::no("the configuration has no [mail]".to_owned()));
    };
    let host = mail.host()?;
    match command {
        MailCommand::Sql { .. } => Ok(Exit::Done),
        MailCommand::Check => check(&host, context).await,
        MailCommand::Show { address } => show(&host, &address.to_ascii_lowercase(), context).await,
        MailCommand::Purge(PurgeCommand::List { all }) => list(&host, all, context).await,
        MailCommand::Purge(PurgeCommand::Done { maildir }) => done(&host, &maildir, context).await,
    }
}

async fn check(host: &MailHost, context: &Context) -> Result<Exit, CliError> {
    let faults: Vec<String> = match host.database.prepare().await {
        Ok(()) => Vec::new(),
        Err(StoreError::Configuration(reason)) => reason.split("; ").map(str::to_owned).collect(),
        Err(error) => return Err(error.into()),
    };
    if context.json {
        context.print_json(&json!({ "ok": faults.is_empty(), "faults": faults }))?;
    } else {
        context.print(&faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())?;
        if faults.is_empty() {
            eprintln!("The mail host's tables are as the configuration says.");
        }
    }
    Ok(if faults.is_empty() { Exit::Done } else { Exit::No })
}

async fn show(host: &MailHost, address: &str, context: &Context) -> Result<Exit, CliError> {
    let Some(standing) = host.database.standing(address).await? else {
        return Ok(context.not_found(&format!("There is no mailbox {address} in the mail host's tables.")));
    };
    let used = match &host.doveadm {
        Some(doveadm) => Some(doveadm.quota(address).await.map_err(|error| error.to_string())),
        None => None,
    };
    if context.json {
        context.print_json(&document(address, &standing, used.as_ref()))?;
        return Ok(Exit::Done);
    }
    let list = |all: &[String]| if all.is_empty() { "-".to_owned() } else { all.join(", ") };
    let aliases: Vec<String> = standing.aliases.iter().map(|alias| alias.address.clone()).collect();
    let quota = standing.quota_bytes.map_or_else(|| "-".to_owned(), |octets| format!("{} MB", octets / OCTETS_PER_MB));
    let facts = [
        ("login", login(standing.access).to_owned()),
        ("quota", quota),
        ("used", used.as_ref().map_or_else(|| "-".to_owned(), said)),
        ("mail goes to", list(standing.goto.as_deref().unwrap_or_default())),
        ("aliases", list(&aliases)),
        ("folder", standing.maildir.clone()),
        ("owner", if standing.owner.is_empty() { "-".to_owned() } else { standing.owner.clone() }),
    ];
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.print_table(&["MAILBOX", address], &rows)?;
    Ok(Exit::Done)
}

type Used = Result<Option<QuotaUse>, String>;

fn said(used: &Used) -> String {
    match used {
        Ok(Some(used)) => format!("{} MB in {} messages", used.octets / OCTETS_PER_MB, used.messages),
        Ok(None) => "Dovecot does not count it".to_owned(),
        Err(reason) => reason.clone(),
    }
}

fn login(access: Access) -> &'static str {
    match access {
        Access::Open => "allowed",
        Access::Locked => "refused; mail is taken in",
        Access::Shut => "refused; mail is refused",
    }
}

fn document(address: &str, standing: &Standing, used: Option<&Used>) -> Value {
    let quota_use = used
        .and_then(|used| used.as_ref().ok())
        .and_then(Option::as_ref)
        .map(|used| json!({ "octets": used.octets, "messages": used.messages, "limit_octets": used.limit_octets }));
    json!({
        "address": address,
        "login": matches!(standing.access, Access::Open),
        "takes_mail": !matches!(standing.access, Access::Shut),
        "quota_octets": standing.quota_bytes,
        "used": quota_use,
        "used_error": used.and_then(|used| used.as_ref().err()),
        "goto": standing.goto,
        "aliases": standing.aliases.iter().map(|alias| {
            json!({ "address": alias.address, "goto": alias.goto, "former": alias.former })
        }).collect::<Vec<_>>(),
        "maildir": standing.maildir,
        "owner": standing.owner,
    })
}

async fn list(host: &MailHost, all: bool, context: &Context) -> Result<Exit, CliError> {
    let now = to_micros(context.clock().now());
    let mut left = host.database.left_maildirs().await?;
    left.retain(|one| all || one.remove_at <= now);
    if context.json {
        context.print_json(&left.iter().map(left_document).collect::<Vec<_>>())?;
    } else {
        let instant = |at: i64| from_micros(at).map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let row = |one: &LeftMaildir| {
            vec![
                one.maildir.clone(),
                one.address.clone(),
                one.owner.clone(),
                instant(one.left_at),
                instant(one.remove_at),
            ]
        };
        let headings = ["FOLDER", "ADDRESS", "OWNER", "LEFT", "REMOVE FROM"];
        context.print_table(&headings, &left.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

fn left_document(left: &LeftMaildir) -> Value {
    json!({
        "maildir": left.maildir,
        "address": left.address,
        "owner": left.owner,
        "left_at": from_micros(left.left_at),
        "remove_at": from_micros(left.remove_at),
    })
}

async fn done(host: &MailHost, maildirs: &[String], context: &Context) -> Result<Exit, CliError> {
    let mut unknown = Vec::new();
    for maildir in maildirs {
        if !host.database.maildir_removed(maildir).await? {
            unknown.push(maildir.clone());
        }
    }
    // A folder bears an address: the audit counts them.
    let detail = json!({ "folders": maildirs.len() - unknown.len() });
    note(&context.store().await?, None, "mail.purge", "folders", &detail, context).await?;
    if context.json {
        context.print_json(&json!({ "done": maildirs.len() - unknown.len(), "unknown": unknown }))?;
    }
    match unknown.is_empty() {
        true => Ok(Exit::Done),
        false => Ok(context.not_found(&format!("Not in the list: {}.", unknown.join(", ")))),
    }
}

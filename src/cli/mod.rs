//! The command line: one file per group of commands, each an enum of its commands and a `run`.
//!
//! Data goes to stdout, messages to stderr, `--json` turns every table into JSON, and `Exit` is what scripts test.

mod account;
mod archive;
mod audit;
mod audit_trail;
mod backup;
mod balance_sheet;
mod bill;
mod bill_compare;
mod bill_month;
mod catalog;
mod check_config;
mod completeness;
mod context;
mod deed;
mod demo;
mod device;
mod docsis;
mod drift;
mod event;
mod exception;
mod exit;
mod export;
mod handshake;
mod held;
mod import;
mod ingest;
mod job;
mod journal;
mod key;
mod line;
mod mail;
mod migrate;
mod nas;
mod noc;
mod pack;
mod privacy;
mod profile;
mod quarantine;
mod reconcile;
mod record;
mod replayed;
mod rollout;
mod serve;
mod session;
mod session_control;
mod shell;
mod simulate;
mod source;
mod sync;
mod tariff;
mod tree;
mod usage;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::{Context, DEFAULT_CONFIG};
pub use exit::{CliError, Exit};

/// Provisions subscribers and bills their usage: the daemon and its command line.
#[derive(Parser)]
#[command(name = "lastmile", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, env = "LASTMILE_CONFIG", default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub config: PathBuf,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Every command there is.
#[derive(Subcommand)]
pub enum Command {
    /// Run the main job in one go on a temporary database, and check every step.
    Demo {
        /// MACs, octets and prices derive from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the daemon.
    Serve,
    /// Check the configuration file: all faults with their place. Touches nothing.
    CheckConfig,
    /// Bring the database to this version.
    Migrate {
        /// Only tell what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show modems: what each must have, was offered, and fetched.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Differences between what is desired and what is there.
    #[command(subcommand)]
    Drift(drift::DriftCommand),
    /// Show and steer provisioning jobs.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Show and settle what a person must look at.
    #[command(subcommand)]
    Exception(exception::ExceptionCommand),
    /// What happened, in the order a billing system would be told.
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Webhooks: who is told, what waits, what was given up.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Subscriber accounts as they are stored.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Mailboxes as the mail host's tables have them.
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Addresses and numbers that were given up and are kept from others for a while.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Turn a modem's or MTA's configuration file into readable TOML and back.
    #[command(subcommand)]
    Docsis(docsis::DocsisCommand),
    /// Apply a tenant's catalog, or show the one in force.
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Close periods of a bill cycle, and check, approve and compare their bills.
    #[command(subcommand)]
    Bill(bill::BillCommand),
    /// Show invoice lines and how they were computed.
    #[command(subcommand)]
    Line(line::LineCommand),
    /// The hash by which two companies know that their books say the same.
    #[command(subcommand)]
    Handshake(handshake::HandshakeCommand),
    /// Compare a billing system's list of all its accounts with ours, and perhaps apply the plan.
    Reconcile(Box<reconcile::ReconcileCommand>),
    /// Reconciliations of before, also those of lists that came over HTTP or into a watched folder.
    #[command(subcommand)]
    Sync(sync::SyncCommand),
    /// Source profiles: how billing systems write accounts and want their lines.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// What billing systems sent, and what of it was put aside.
    #[command(subcommand)]
    Ingest(ingest::IngestCommand),
    /// Changes that would take too much away and wait for an operator.
    #[command(subcommand)]
    Held(held::HeldCommand),
    /// Billing systems: how they come in, what they would have changed, epochs of their revisions.
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Check a tariff file, price quantities by it, or simulate it over recorded history.
    #[command(subcommand)]
    Tariff(tariff::TariffCommand),
    /// Show RADIUS sessions.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Show who sends accounting, and who is late.
    #[command(subcommand)]
    Nas(nas::NasCommand),
    /// Many modems moved with care: canary, rate, window, rollback.
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Show what subscribers used.
    #[command(subcommand)]
    Usage(usage::UsageCommand),
    /// Tell whose an address was: by DHCP, by RADIUS, as a static address.
    Who {
        /// The address.
        address: std::net::IpAddr,
        /// When, with its offset from UTC; absent: now.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// The number of the case it is for; it stands in the audit.
        #[arg(long)]
        case: Option<String>,
    },
    /// Find anything by its id or name: account, service, MAC, login, mailbox, number, address, session, line, batch.
    Find {
        /// The word; only when nothing is called so, a word of accounts' documents.
        any: String,
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<crate::vocabulary::TenantId>,
        /// Only this source's.
        #[arg(long)]
        source: Option<crate::vocabulary::SourceId>,
    },
    /// Write out sessions or usage, as CSV or JSON lines.
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// Bring in accounting that was recorded elsewhere; safe to repeat.
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Copy the databases into one file, also while the daemon runs.
    Backup { file: PathBuf },
    /// Put a backup's databases where the configuration says they are.
    Restore { file: PathBuf },
    /// Who did what, and the proofs: the audit's chain, what is derived from the accounting journal, accounting against
    /// the plant.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Show what the accounting journal holds, and read its archives.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Look at one accounting record in the journal.
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Print shell completions.
    Completions { shell: clap_complete::Shell },
    /// Print the manual page.
    Man,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, on stdout with exit 0; everything else is a usage error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let context = Context { config_path: cli.config, json: cli.json, clock: crate::daemon::clock::system() };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lastmile: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(cli.command, &context)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("lastmile: {}", exit::visible(&error.message));
            error.exit.into()
        }
    }
}

async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Demo { seed } => demo::run(seed, context).await,
        Command::Serve => serve::run(context).await,
        Command::CheckConfig => check_config::run(context),
        Command::Migrate { dry_run } => migrate::run(dry_run, context).await,
        Command::Device(command) => device::run(command, context).await,
        Command::Drift(command) => drift::run(command, context).await,
        Command::Job(command) => job::run(command, context).await,
        Command::Exception(command) => exception::run(command, context).await,
        Command::Event(command) => event::run(command, context).await,
        Command::Webhook(command) => webhook::run(command, context).await,
        Command::Account(command) => account::run(command, context).await,
        Command::Mail(command) => mail::run(command, context).await,
        Command::Quarantine(command) => quarantine::run(command, context).await,
        Command::Key(command) => key::run(command, context).await,
        Command::Docsis(command) => docsis::run(command, context),
        Command::Catalog(command) => catalog::run(command, context).await,
        Command::Bill(command) => bill::run(command, context).await,
        Command::Line(command) => line::run(command, context).await,
        Command::Profile(command) => profile::run(command, context),
        Command::Ingest(command) => ingest::run(command, context).await,
        Command::Held(command) => held::run(command, context).await,
        Command::Source(command) => source::run(command, context).await,
        Command::Tariff(command) => tariff::run(command, context).await,
        Command::Session(command) => session::run(command, context).await,
        Command::Nas(command) => nas::run(command, context).await,
        Command::Rollout(command) => rollout::run(command, context).await,
        Command::Usage(command) => usage::run(command, context).await,
        Command::Who { address, at, case } => noc::who(address, at, case, context).await,
        Command::Find { any, tenant, source } => noc::find(&any, tenant, source, context).await,
        Command::Export(command) => export::run(command, context).await,
        Command::Import(command) => import::run(command, context).await,
        Command::Backup { file } => backup::backup(&file, context).await,
        Command::Restore { file } => backup::restore(&file, context),
        Command::Audit(command) => audit::run(command, context).await,
        Command::Journal(command) => journal::run(command, context).await,
        Command::Handshake(command) => handshake::run(command, context).await,
        Command::Reconcile(command) => reconcile::run(*command, context).await,
        Command::Sync(command) => sync::run(command, context).await,
        Command::Record(command) => record::run(command, context).await,
        Command::Completions { shell } => shell::completions(shell, context),
        Command::Man => shell::man(context),
    }
}

/// Who a decision is noted under: the one that is named, or the user of this shell.
fn who_acts(by: Option<String>) -> String {
    by.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "command line".to_owned())
}

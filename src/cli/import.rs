//! `import`: accounting recorded elsewhere comes into the journal; safe to repeat, also while the daemon runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::deed::note;
use super::exit::{CliError, Exit};
use crate::collector::dictionaries;
use crate::collector::import::{
    CallSummary, Counts, DetailReader, FlowChoice, Folding, Importer, NasChoice, RadacctReader, Summary,
    attribute_calls, import_calls, import_detail, import_radacct_csv, import_radacct_table, import_samis, is_database,
};
use crate::daemon::config::{Config, text_of};
use crate::daemon::nas_table;
use crate::usage::CallProfile;
use crate::vocabulary::Zone;

/// The commands of `lastmile import`.
#[derive(Subcommand)]
pub enum ImportCommand {
    /// FreeRADIUS's detail files.
    Detail {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        nas: NasOptions,
        /// Time zone of the server that wrote dates, for example America/Chicago; UTC needs none.
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        #[command(flatten)]
        options: ImportOptions,
    },
    /// FreeRADIUS's radacct table: a live database, or CSV dumps with the column names in the first line.
    Radacct {
        /// sqlite:///path/file.db, postgres://user@host/db, or a CSV file.
        #[arg(required = true, value_name = "URL|FILE")]
        sources: Vec<String>,
        #[command(flatten)]
        nas: NasOptions,
        /// Time zone of instants that stand there without an offset, for example America/Chicago.
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        #[command(flatten)]
        options: ImportOptions,
    },
    /// Telephone calls (CSV), attributed by number; calls that waited for a holder are given to theirs, too.
    Cdr {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How the files are written: columns, form of times, zone, numbers (TOML).
        #[arg(long, value_name = "FILE")]
        profile: PathBuf,
        #[command(flatten)]
        options: ImportOptions,
    },
    /// SAMIS usage records of a CMTS (IPDR XML).
    Samis {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A service class that counts, besides those of [samis] in the configuration; * stands for all.
        #[arg(long = "service-class", value_name = "NAME")]
        service_classes: Vec<String>,
        /// What the CMTS counts as an octet, instead of [samis] octets.
        #[arg(long, value_parser = ["L2", "L3"])]
        octets: Option<String>,
        /// Time zone of instants that stand there without an offset; the standard has them in UTC.
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        #[command(flatten)]
        options: ImportOptions,
    },
}

/// What every import can be told.
#[derive(clap::Args)]
pub struct ImportOptions {
    /// Only tell what would come in.
    #[arg(long)]
    dry_run: bool,
}

/// Which NAS records came from, where they do not tell.
#[derive(clap::Args)]
pub struct NasOptions {
    /// The [[radius.nas]] that every record came from; otherwise the packet's source or NAS-IP-Address decides.
    #[arg(long, value_name = "NAME")]
    nas: Option<String>,
    /// NAS-Identifier of records that have none.
    #[arg(long, value_name = "ID")]
    nas_identifier: Option<String>,
}

/// Runs one of them.
pub async fn run(command: ImportCommand, context: &Context) -> Result<Exit, CliError> {
    if let ImportCommand::Cdr { files, profile, options } = &command {
        return calls(files, profile, options.dry_run, context).await;
    }
    let config = context.config()?;
    let nas = nas_table(&config);
    let (ImportCommand::Detail { options, .. }
    | ImportCommand::Radacct { options, .. }
    | ImportCommand::Cdr { options, .. }
    | ImportCommand::Samis { options, .. }) = &command;
    let dry_run = options.dry_run;
    let store = context.store().await?;
    let mut importer = Importer::new(&store, &nas, context.clock(), dry_run);
    let spinner = context.spinner("importing");
    match &command {
        ImportCommand::Detail { files, nas: options, timezone, .. } => {
            let choice = choice(options, &nas)?;
            let zone = zone(timezone.as_deref())?;
            let dictionary = dictionary(&config)?;
            let reader = DetailReader { nas: &nas, dictionary: &dictionary, choice: &choice, zone: zone.as_ref() };
            for file in files {
                import_detail(&mut importer, &reader, file).await?;
            }
        }
        ImportCommand::Radacct { sources, nas: options, timezone, .. } => {
            let choice = choice(options, &nas)?;
            let zone = zone(timezone.as_deref())?;
            let dictionary = dictionary(&config)?;
            let reader = RadacctReader { nas: &nas, dictionary: &dictionary, choice: &choice, zone: zone.as_ref() };
            for source in sources {
                match is_database(source) {
                    true => import_radacct_table(&mut importer, &reader, source).await?,
                    false => import_radacct_csv(&mut importer, &reader, Path::new(source)).await?,
                }
            }
        }
        ImportCommand::Cdr { .. } => {}
        ImportCommand::Samis { files, service_classes, octets, timezone, .. } => {
            let choice = flows(&config, service_classes, octets.as_deref(), zone(timezone.as_deref())?)?;
            for file in files {
                import_samis(&mut importer, &choice, file).await?;
            }
        }
    }
    let (summary, folding) = importer.finish().await?;
    spinner.finish_and_clear();
    if !dry_run {
        let total = summary.total();
        let files: Vec<&str> = summary.files.iter().map(|file| file.name.as_str()).collect();
        let detail = json!({ "files": files, "read": total.read, "new": total.new, "refused": total.refused });
        note(&store, None, "import", "accounting", &detail, context).await?;
    }
    store.close().await;
    report(context, &summary, folding, dry_run)
}

/// Calls need no NAS and no journal: they stand in the database when the command ends.
async fn calls(files: &[PathBuf], profile: &Path, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let name = profile.display().to_string();
    let text = text_of(profile).map_err(|error| CliError::usage(format!("cannot read {name}: {error}")))?;
    let profile = CallProfile::read(&name, &text).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        CliError::usage(lines.join("\n"))
    })?;
    let store = context.store().await?;
    let clock = context.clock();
    let spinner = context.spinner("importing");
    let mut summary = CallSummary::default();
    for file in files {
        import_calls(&store, &clock, &profile, file, dry_run, &mut summary).await?;
    }
    if !dry_run {
        attribute_calls(&store, &clock, &mut summary).await?;
        let detail = json!({ "read": summary.read, "new": summary.new, "refused": summary.refused });
        note(&store, None, "import", "calls", &detail, context).await?;
    }
    spinner.finish_and_clear();
    store.close().await;
    for fault in &summary.faults {
        eprintln!("lastmile: {}:{}: {}", fault.file, fault.line, fault.detail);
    }
    if context.json {
        let mut document = serde_json::to_value(&summary).map_err(|error| CliError::failed(error.to_string()))?;
        document["dry_run"] = json!(dry_run);
        context.print_json(&document)?;
    } else {
        let numbers =
            [summary.read, summary.new, summary.known, summary.unanswered, summary.refused, summary.attributed];
        let row = numbers.map(|number| number.to_string()).to_vec();
        context.print_table(&["read", "new", "known", "unanswered", "refused", "attributed"], &[row])?;
        let next =
            if dry_run { "Nothing was changed." } else { "`lastmile usage unattributed` lists calls nobody owns." };
        eprintln!("{next}");
    }
    Ok(if summary.refused > 0 { Exit::Failed } else { Exit::Done })
}

/// The dictionaries of the configuration: names decide here, so that a broken one stops the import.
fn dictionary(config: &Config) -> Result<crate::radius::Dictionary, CliError> {
    let paths = config.radius.as_ref().map_or(&[][..], |radius| &radius.dictionaries);
    dictionaries::load(paths).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        CliError::failed(lines.join("\n"))
    })
}

fn choice(options: &NasOptions, nas: &crate::collector::NasTable) -> Result<NasChoice, CliError> {
    match &options.nas {
        Some(name) if nas.named(name).is_none() => {
            Err(CliError::usage(format!("the configuration has no [[radius.nas]] named {name:?}")))
        }
        _ => Ok(NasChoice { client: options.nas.clone(), identifier: options.nas_identifier.clone() }),
    }
}

/// Which flows count. Nothing counts by itself: management and voice flows are nobody's usage.
fn flows(
    config: &Config,
    classes: &[String],
    octets: Option<&str>,
    zone: Option<Zone>,
) -> Result<FlowChoice, CliError> {
    let configured = config.samis.as_ref();
    let service_classes: BTreeSet<String> =
        configured.iter().flat_map(|samis| &samis.service_classes).chain(classes).cloned().collect();
    if service_classes.is_empty() {
        return Err(CliError::usage(
            "no service class counts: name them in [samis] service_classes or with --service-class",
        ));
    }
    let octets = octets.or(configured.map(|samis| samis.octets.as_str())).unwrap_or("L2").to_owned();
    Ok(FlowChoice { service_classes, octets, zone })
}

fn zone(name: Option<&str>) -> Result<Option<Zone>, CliError> {
    name.map(|name| Zone::get(name).map_err(|_| CliError::usage(format!("{name:?} is no time zone")))).transpose()
}

fn report(context: &Context, summary: &Summary, folding: Folding, dry_run: bool) -> Result<Exit, CliError> {
    let total = summary.total();
    for fault in &summary.faults {
        eprintln!("lastmile: {}:{}: {}", fault.file, fault.line, fault.detail);
    }
    let untold = total.refused.saturating_sub(summary.faults.len() as u64);
    if untold > 0 {
        eprintln!("lastmile: {untold} more were refused");
    }
    for (name, times) in &summary.left_out {
        eprintln!("lastmile: {name}: no dictionary explains it; {times} records came in without it");
    }
    for (reason, times) in &summary.skipped {
        eprintln!("lastmile: {times} records passed over: {reason}");
    }
    let next = match (dry_run, folding) {
        (true, _) => "Nothing was changed.",
        (false, Folding::Nothing) => "Nothing new.",
        (false, Folding::Done) => "Everything new is in the sessions and the ledger.",
        (false, Folding::Going) => "The daemon is folding what is new.",
        (false, Folding::Waiting) => "No daemon folds now: what is new waits in the journal for its next start.",
    };
    if context.json {
        context.print_json(&json!({
            "read": total.read,
            "new": total.new,
            "older": total.older,
            "known": total.known,
            "refused": total.refused,
            "files": summary.files,
            "faults": summary.faults,
            "skipped": summary.skipped,
            "left_out": summary.left_out,
            "dry_run": dry_run,
            "folding": match (dry_run, folding) {
                (true, _) | (_, Folding::Nothing) => "nothing",
                (_, Folding::Done) => "done",
                (_, Folding::Going) => "going",
                (_, Folding::Waiting) => "waiting",
            },
        }))?;
    } else {
        let row = |name: &str, counts: &Counts| {
            [counts.read, counts.new, counts.known, counts.refused].iter().fold(vec![name.to_owned()], |mut row, n| {
                row.push(n.to_string());
                row
            })
        };
        let mut rows: Vec<Vec<String>> = summary.files.iter().map(|file| row(&file.name, file)).collect();
        if rows.len() > 1 {
            rows.push(row("together", &total));
        }
        context.print_table(&["file", "read", "new", "known", "refused"], &rows)?;
        if total.older > 0 {
            eprintln!(
                "{} of the new ones are older than their session remembers: the fold compares them.",
                total.older
            );
        }
        eprintln!("{next}");
    }
    Ok(if total.refused > 0 { Exit::Failed } else { Exit::Done })
}

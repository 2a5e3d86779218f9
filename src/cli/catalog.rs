//! `catalog apply` and `catalog show`: a tenant's plans, cycles and tariffs as files under version control.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::catalog::{Bundle, Catalog, Effect, bundles_of_folder, named_files, read};
use crate::daemon::config;
use crate::store::catalog::{Applied, ApplyError, apply, assess, in_force, tenants};
use crate::vocabulary::Fault;

/// The commands of `lastmile catalog`.
#[derive(Subcommand)]
pub enum CatalogCommand {
    /// Make a catalog the one in force: all of it or nothing.
    Apply {
        /// A file with `[tenant]`, or a folder of them with the tariff files they name.
        path: PathBuf,
        /// Only tell what would change: prices, accounts, modems that must boot.
        #[arg(long)]
        dry_run: bool,
        /// Leave the accounts it changes on the catalog before, until `rollout start --held` moves them; prices count at once.
        #[arg(long)]
        hold: bool,
    },
    /// Print the catalog in force, as it was applied.
    Show {
        /// One tenant; all of them when it is not named.
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// Runs one of them.
pub async fn run(command: CatalogCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        CatalogCommand::Apply { path, dry_run, hold } => apply_path(&path, dry_run, hold, context).await,
        CatalogCommand::Show { tenant } => show(tenant, context).await,
    }
}

async fn apply_path(path: &Path, dry_run: bool, hold: bool, context: &Context) -> Result<Exit, CliError> {
    let bundles = match bundles(path)? {
        Ok(bundles) => bundles,
        Err(faults) => return refused(&faults, context),
    };
    let mut catalogs: Vec<Catalog> = Vec::new();
    let mut faults = Vec::new();
    for bundle in &bundles {
        match read(bundle) {
            Ok(catalog) => catalogs.push(catalog),
            Err(mut own) => faults.append(&mut own),
        }
    }
    for (index, catalog) in catalogs.iter().enumerate() {
        if catalogs[..index].iter().any(|other| other.tenant == catalog.tenant) {
            let detail = format!("tenant {} has two catalogs", catalog.tenant);
            faults.push(Fault { pointer: catalog.bundle.main.clone(), detail });
        }
    }
    if !faults.is_empty() {
        return refused(&faults, context);
    }
    let store = context.store().await?;
    let now = context.clock().now();
    let mut assessed = Vec::new();
    let mut tx = store.read().await?;
    for catalog in &catalogs {
        match assess(&mut tx, catalog, now).await {
            Ok(done) => assessed.push(done),
            Err(ApplyError::Refused(mut own)) => faults.append(&mut own),
            Err(ApplyError::Store(error)) => return Err(error.into()),
        }
    }
    drop(tx);
    if !faults.is_empty() {
        return refused(&faults, context);
    }
    if dry_run {
        return tell(&assessed, dry_run, context);
    }
    let mut tx = store.write().await?;
    let mut applied = Vec::new();
    for (catalog, assessed) in catalogs.iter().zip(assessed) {
        match apply(&mut tx, catalog, assessed, hold, "cli", now).await {
            Ok(done) => applied.push(done),
            Err(ApplyError::Refused(mut own)) => faults.append(&mut own),
            Err(ApplyError::Store(error)) => return Err(error.into()),
        }
    }
    if !faults.is_empty() {
        tx.rollback().await?;
        return refused(&faults, context);
    }
    tx.commit().await?;
    tell(&applied, dry_run, context)
}

fn tell(applied: &[Applied], dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    if context.json {
        let items: Vec<Value> = applied
            .iter()
            .map(|done| json!({ "tenant": done.effect.tenant, "version": done.version, "effect": done.effect }))
            .collect();
        context.print_json(&json!({ "dry_run": dry_run, "applied": items }))?;
        return Ok(Exit::Done);
    }
    for done in applied {
        context.print(&sentence(done, dry_run))?;
    }
    Ok(Exit::Done)
}

fn sentence(done: &Applied, dry_run: bool) -> String {
    let Effect { tenant, unchanged, .. } = &done.effect;
    if *unchanged {
        return format!("{tenant}: nothing changed, version {} stays in force\n", done.version);
    }
    let verb = if dry_run { "would become" } else { "is in force as" };
    let mut text = format!("{tenant}: the catalog {verb} version {}\n", done.version);
    let effect = &done.effect;
    for (what, list) in [
        ("new tariff versions", &effect.new_tariff_versions),
        ("new plans", &effect.added_plans),
        ("plans taken away", &effect.removed_plans),
        ("new bill cycles", &effect.added_cycles),
        ("bill cycles taken away", &effect.removed_cycles),
    ] {
        if !list.is_empty() {
            text.push_str(&format!("  {what}: {}\n", list.join(", ")));
        }
    }
    if !effect.mail_domains_elsewhere.is_empty() {
        let domains = effect.mail_domains_elsewhere.join(", ");
        text.push_str(&format!("  mail domains of another tenant, in which addresses are refused: {domains}\n"));
    }
    for change in &effect.changed_plans {
        text.push_str(&format!(
            "  plan {}: {} services, touches {}\n",
            change.plan,
            change.services,
            change.touches.join(", ")
        ));
    }
    text.push_str(&format!(
        "  {} accounts; {} modems must boot to take it, {} of them with voice; none is reset for it\n",
        effect.accounts, effect.reboots, effect.reboots_with_voice
    ));
    text
}

async fn show(tenant: Option<String>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let names = match tenant {
        Some(name) => vec![name],
        None => tenants(&mut tx).await?,
    };
    let mut shown = Vec::new();
    for name in names {
        let Some(current) = in_force(&mut tx, &name).await? else {
            return Ok(context.not_found(&format!("There is no tenant {name}.")));
        };
        shown.push((name, current));
    }
    if context.json {
        let items: Vec<Value> = shown
            .iter()
            .map(|(name, current)| {
                json!({
                    "tenant": name,
                    "version": current.version,
                    "digest": current.catalog.bundle.digest(),
                    "applied_at": current.applied_at,
                    "applied_by": current.applied_by,
                    "main": current.catalog.bundle.main,
                    "files": current.catalog.bundle.files,
                })
            })
            .collect();
        context.print_json(&json!({ "items": items }))?;
        return Ok(Exit::Done);
    }
    for (name, current) in shown {
        let head =
            format!("# {name}, version {}, applied {} by {}", current.version, current.applied_at, current.applied_by);
        context.print(&format!("{head}\n"))?;
        for (file, text) in &current.catalog.bundle.files {
            context.print(&format!("# ---- {file}\n{}\n", text.trim_end()))?;
        }
    }
    Ok(Exit::Done)
}

/// The catalogs of a file or a folder, with the files they name.
fn bundles(path: &Path) -> Result<Result<Vec<Bundle>, Vec<Fault>>, CliError> {
    if path.is_dir() {
        let mut files = BTreeMap::new();
        gather(path, path, &mut files)?;
        return Ok(bundles_of_folder(&files));
    }
    let text = text_of(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut bundle = Bundle::single(path.display().to_string(), &text);
    for name in named_files(&text) {
        let file = folder.join(&name);
        // A missing file is a fault with the place where it is named.
        if file.is_file() {
            bundle.files.insert(name, text_of(&file)?);
        }
    }
    Ok(Ok(vec![bundle]))
}

fn gather(top: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        if path.is_dir() {
            gather(top, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.strip_prefix(top).unwrap_or(&path).to_string_lossy().into_owned();
            files.insert(name, text_of(&path)?);
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, CliError> {
    config::text_of(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot read {}: {error}", path.display()))
}

fn refused(faults: &[Fault], context: &Context) -> Result<Exit, CliError> {
    for fault in faults {
        eprintln!("{}: {}", fault.pointer, fault.detail);
    }
    if context.json {
        context.print_json(&json!({ "errors": faults }))?;
    }
    eprintln!("The catalog was not applied; mend these and apply it again.");
    Ok(Exit::Failed)
}

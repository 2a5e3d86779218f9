//! `backup` and `restore`: the databases of an installation in one file, taken while the daemon runs.
//!
//! On SQLite FILE is a tar archive of both database files, the state first and the accounting journal second. On
//! PostgreSQL FILE is `pg_dump`'s custom format. The key that seals secrets is not in it: a backup that can be read by
//! whoever finds it is no backup. Keep the key elsewhere.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::archive::{Reader, Writer};
use super::context::Context;
use super::exit::{CliError, Exit};
use crate::store::Store;
use crate::store::backup::sqlite_files;

/// Writes FILE; one that exists is never overwritten.
pub async fn backup(file: &Path, context: &Context) -> Result<Exit, CliError> {
    let url = context.config()?.database.url;
    let store = context.open_store().await?;
    if file.exists() {
        return Err(CliError::failed(format!("{} exists; a backup is never overwritten", file.display())));
    }
    if store.sqlite_file().is_some_and(|database| !database.exists()) {
        return Err(CliError::unreachable(format!("there is no database at {url}")));
    }
    let bar = context.spinner("Copying the databases");
    let names = match copy_beside(&store, file).await? {
        Some((folder, copies)) => {
            let packed = pack(file, &copies);
            fs::remove_dir_all(&folder)?;
            packed?
        }
        None => {
            dump(&url, file)?;
            vec!["pg_dump".to_owned()]
        }
    };
    bar.finish_and_clear();
    let octets = fs::metadata(file)?.len();
    if context.json {
        context.print_json(&json!({ "file": file, "bytes": octets, "entries": names }))?;
    } else {
        eprintln!("{} holds {octets} bytes. The key of the secrets is not in it; keep it elsewhere.", file.display());
    }
    Ok(Exit::Done)
}

/// Puts the databases of FILE where the configuration says they are; nothing that exists is touched.
pub fn restore(file: &Path, context: &Context) -> Result<Exit, CliError> {
    let url = context.config()?.database.url;
    // Opening the store would make a new key, and the secrets of the backup could not be read with it.
    match sqlite_files(&url) {
        Some(targets) => {
            if let Some(there) = targets.iter().find(|target| target.exists()) {
                let text = format!("{} exists; stop the daemon and move it away first", there.display());
                return Err(CliError::failed(text));
            }
            unpack(file, &targets)?;
        }
        None => load(&url, file)?,
    }
    eprintln!("Restored. Put the key back, then start the daemon; it continues from the journal of the backup.");
    Ok(Exit::Done)
}

/// Copies next to FILE, so that a full disk is noticed where the backup is meant to be.
async fn copy_beside(store: &Store, file: &Path) -> Result<Option<(PathBuf, Vec<PathBuf>)>, CliError> {
    let mut folder = file.as_os_str().to_owned();
    folder.push(format!(".{}.part", std::process::id()));
    let folder = PathBuf::from(folder);
    if store.sqlite_file().is_none() {
        return Ok(None);
    }
    fs::create_dir(&folder)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    match store.copy_into(&folder).await {
        Ok(copies) => Ok(copies.map(|copies| (folder, copies))),
        Err(error) => {
            fs::remove_dir_all(&folder)?;
            Err(error.into())
        }
    }
}

fn pack(file: &Path, copies: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let written = (|| {
        let mut archive = Writer::create(file)?;
        for (copy, name) in copies.iter().zip(ENTRIES) {
            let mut content = File::open(copy)?;
            archive.append(name, content.metadata()?.len(), &mut content)?;
        }
        archive.finish()
    })();
    if let Err(error) = written {
        // Half a backup must not look like one.
        let _ = fs::remove_file(file);
        return Err(CliError::failed(format!("{} was not written: {error}", file.display())));
    }
    Ok(ENTRIES.iter().map(|name| (*name).to_owned()).collect())
}

fn unpack(file: &Path, targets: &[PathBuf]) -> Result<(), CliError> {
    let mut archive = Reader::open(file)?;
    let mut done = 0;
    let mut parts = Vec::new();
    while let Some((name, size)) = archive.next()? {
        let Some(at) = ENTRIES.iter().position(|entry| *entry == name) else {
            return Err(CliError::failed(format!("{} holds {name:?}, which is no part of a backup", file.display())));
        };
        let part = targets[at].with_extension("restoring");
        let mut out = private_file(&part)?;
        archive.content(size, &mut out)?;
        out.sync_all()?;
        parts.push((part, &targets[at]));
        done += 1;
    }
    if done != ENTRIES.len() {
        return Err(CliError::failed(format!("{} is not complete: {done} of {} parts", file.display(), ENTRIES.len())));
    }
    for (part, target) in parts {
        fs::rename(part, target)?;
    }
    Ok(())
}

fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn dump(url: &str, file: &Path) -> Result<(), CliError> {
    let mut command = Command::new("pg_dump");
    command.arg("--format=custom").arg("--file").arg(file);
    finish(postgres(command, url), "pg_dump")
}

fn load(url: &str, file: &Path) -> Result<(), CliError> {
    let mut command = Command::new("pg_restore");
    command.args(["--exit-on-error", "--no-owner", "--single-transaction"]);
    let mut command = postgres(command, url);
    command.arg(file);
    finish(command, "pg_restore")
}

/// The password goes by the environment: arguments are everybody's to read.
fn postgres(mut command: Command, url: &str) -> Command {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let without = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, password)) => {
                command.env("PGPASSWORD", password);
                format!("{user}@{host}")
            }
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    command.arg(format!("--dbname={scheme}://{without}{path}"));
    command
}

fn finish(mut command: Command, program: &str) -> Result<(), CliError> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::failed(format!("{program} ended with {status}; its message is above"))),
        Err(error) => {
            Err(CliError::failed(format!("{program} (Debian package postgresql-client) did not run: {error}")))
        }
    }
}

/// Names inside the archive, whatever the files are called where they lie.
const ENTRIES: [&str; 2] = ["lastmile.db", "lastmile-accounting.db"];

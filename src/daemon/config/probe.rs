//! Looks at the files a configuration names: who may read a secret, whether a dictionary can be read, whether TLS files are fit.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::reader::{Found, Reader};
use crate::collector::dictionaries;
use crate::tls::{TlsFault, TlsFiles};

const OTHERS_READ: u32 = 0o004;

/// Warns when everyone on the machine may read a secret's file.
pub fn secret_mode(reader: &Reader<'_>, found: &Found<&str>, path: &Path) {
    if let Some(mode) = world_readable(path) {
        let detail = format!("every user may read {} (mode {mode:04o}); chmod 0600 it", path.display());
        reader.warn(found.at, &found.key, detail);
    }
}

/// Warns when a secret stands in a configuration file that everyone may read.
pub fn inline_secret(reader: &Reader<'_>, found: &Found<&str>) {
    let path = reader.file();
    if let Some(mode) = world_readable(path) {
        let detail = format!("stands in a file every user may read (mode {mode:04o}); use {}_file", last(&found.key));
        reader.warn(found.at, &found.key, detail);
    }
}

/// Notes every fault of a dictionary file or folder.
pub fn dictionary(reader: &Reader<'_>, found: &Found<&str>, path: &Path) {
    for fault in dictionaries::load(&[path.to_path_buf()]).err().into_iter().flatten() {
        reader.fault(found.at, &found.key, format!("{}: {}", fault.pointer, fault.detail));
    }
}

/// Notes what stands in the way of a folder that is made when it is first needed.
pub fn folder(reader: &Reader<'_>, found: &Found<&str>, path: &Path) {
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    if let Some(there) = there.filter(|there| !there.is_dir()) {
        reader.fault(found.at, &found.key, format!("{} is no folder", there.display()));
    }
}

/// Notes what makes the TLS files unfit for serving; `keys` are the places where they are named.
pub fn tls(reader: &Reader<'_>, keys: &[&Found<&str>], files: &TlsFiles) {
    if let Err(TlsFault { key, path, reason }) = files.check()
        && let Some(found) = keys.iter().find(|found| last(&found.key) == key)
    {
        reader.fault(found.at, &found.key, format!("{path} {reason}"));
    }
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn world_readable(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & OTHERS_READ != 0).then_some(mode)
}

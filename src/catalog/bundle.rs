//! The files a catalog is made of: the one with `[tenant]` and those it names with `file =`, kept together as one document.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::vocabulary::{Fault, Faults, hex};

/// A catalog's texts, as they are stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Name of the file with `[tenant]`.
    pub main: String,
    /// Texts by the names under which `file =` finds them, relative to the main file; the main file among them.
    pub files: BTreeMap<String, String>,
}

impl Bundle {
    /// A catalog that names no other file.
    pub fn single(name: impl Into<String>, text: impl Into<String>) -> Self {
        let main = name.into();
        Self { files: BTreeMap::from([(main.clone(), text.into())]), main }
    }

    pub fn main_text(&self) -> &str {
        self.files.get(&self.main).map_or("", String::as_str)
    }

    /// SHA-256 of names and texts, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, text) in &self.files {
            for part in [name, text] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex(hash.finalize())
    }
}

/// The names a catalog's `[[tariff]] file =` uses. Wrong ones are found when the catalog is read.
pub fn named_files(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let tariffs = table.get("tariff").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    tariffs.iter().filter_map(|tariff| tariff.get("file")?.as_str().map(str::to_owned)).collect()
}

/// Sorts the files of a folder into catalogs. `files` holds texts by path relative to the folder, with `/`.
///
/// **Errors**: a folder without a catalog, and every file that no catalog names.
pub fn bundles_of_folder(files: &BTreeMap<String, String>) -> Result<Vec<Bundle>, Vec<Fault>> {
    let mut faults = Faults::new();
    let mut named = BTreeSet::new();
    let mut bundles = Vec::new();
    for (path, text) in files {
        // A file that is no TOML may be a catalog; reading it tells what is wrong.
        let table = text.parse::<toml::Table>();
        let is_catalog = table.as_ref().is_ok_and(|table| table.contains_key("tenant"));
        if !is_catalog {
            continue;
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut bundle = Bundle::single(path, text);
        for name in named_files(text) {
            if let Some(full) = joined(folder, &name) {
                if let Some(text) = files.get(&full) {
                    bundle.files.insert(name, text.clone());
                }
                named.insert(full);
            }
        }
        named.insert(path.clone());
        bundles.push(bundle);
    }
    for (path, text) in files.iter().filter(|(path, _)| !named.contains(*path)) {
        match text.parse::<toml::Table>() {
            Ok(_) => faults.add(path.clone(), "no catalog names this file; name it with `file =` or take it away"),
            Err(error) => faults.add(path.clone(), format!("is no TOML: {}", error.message())),
        }
    }
    if bundles.is_empty() && faults.is_empty() {
        faults.add("", "there is no catalog here: none of the files has a [tenant]");
    }
    faults.settle(bundles)
}

/// `name` seen from `folder`, with `.` and `..` resolved; `None` where it leaves the top.
fn joined(folder: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

//! The last known good plant in a file, so that modems boot while the database is away.
//!
//! **Shape**: JSON of all devices with the secrets of their lines, sealed with the installation's key; mode 0600, replaced atomically.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::plant::Device;
use crate::store::Sealer;

const PLACE: &str = "plant snapshot 2";

/// Where the snapshot lies beside a SQLite database: `lastmile.db` → `lastmile-plant.sealed`.
pub fn beside(database: &Path) -> PathBuf {
    named_beside(database, "plant.sealed")
}

/// A file of ours beside a SQLite database: `lastmile.db` → `lastmile-NAME`.
pub fn named_beside(database: &Path, name: &str) -> PathBuf {
    let stem = database.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    database.with_file_name(format!("{stem}-{name}"))
}

/// The devices of the file; none when there is no file.
pub(super) fn read(path: &Path, sealer: &Sealer) -> Result<Vec<Device>, String> {
    let sealed = match fs::read(path) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let clear = sealer.open_bytes(PLACE, &sealed).map_err(|_| "it was sealed with another key or is damaged")?;
    serde_json::from_slice(&clear).map_err(|error| format!("it was written by another version ({error})"))
}

/// Replaces the file: a crash leaves the old or the new one whole.
pub(super) fn write(path: &Path, sealer: &Sealer, devices: &[Device]) -> Result<(), String> {
    let clear = serde_json::to_vec(devices).map_err(|error| error.to_string())?;
    let sealed = sealer.seal_bytes(PLACE, &clear).map_err(|error| error.to_string())?;
    replace(path, &sealed).map_err(|error| format!("{}: {error}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Two daemons over one folder must not write into one another's new file.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Secrets in clear, for the JSON that is sealed at once.
pub(super) mod opened {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::provisioner::mta::OpenedSecrets;
    use crate::vocabulary::Secret;

    pub fn serialize<S: Serializer>(secrets: &OpenedSecrets, serializer: S) -> Result<S::Ok, S::Error> {
        let clear: Vec<(&str, &str, &str)> =
            secrets.iter().map(|((service, field), secret)| (&**service, &**field, secret.expose())).collect();
        clear.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OpenedSecrets, D::Error> {
        let clear: Vec<(String, String, Secret)> = Vec::deserialize(deserializer)?;
        Ok(clear.into_iter().map(|(service, field, secret)| ((service, field), secret)).collect())
    }
}

//! Reads the profile files that the configuration names, over the shipped ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::radius::{Dictionary, Profiles, Source};
use crate::vocabulary::Fault;

/// Adds the profiles of a file, or of every `*.toml` of a directory. One with the name of a known profile takes its place.
///
/// **Errors**: every fault with `file:line:column`, an unreadable file among them; nothing was added.
pub fn load(path: &Path, dictionary: &Dictionary, profiles: &mut Profiles) -> Result<(), Vec<Fault>> {
    let unreadable = |path: &Path, error: std::io::Error| Fault {
        pointer: path.display().to_string(),
        detail: format!("cannot be read: {error}"),
    };
    let files = files_of(path).map_err(|error| vec![unreadable(path, error)])?;
    let mut texts = Vec::with_capacity(files.len());
    let mut faults = Vec::new();
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => texts.push((file.display().to_string(), text)),
            Err(error) => faults.push(unreadable(&file, error)),
        }
    }
    let sources: Vec<Source<'_>> = texts.iter().map(|(file, text)| Source { file, text }).collect();
    // Also when a file cannot be read, what is wrong with the others is told.
    let mut read = profiles.clone();
    faults.extend(read.extend(&sources, dictionary).err().into_iter().flatten());
    if !faults.is_empty() {
        return Err(faults);
    }
    *profiles = read;
    Ok(())
}

fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_adds_profiles_and_its_faults_name_their_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
        let read = || {
            let mut profiles = Profiles::shipped().clone();
            load(directory.path(), &Dictionary::standard(), &mut profiles).map(|()| profiles)
        };
        write("acme.toml", "name = \"acme\"\ninput = \"to-user\"\n");
        write("README", "not a profile");
        assert!(read().expect("no faults").named("acme").is_some_and(|profile| profile.swapped));
        write("broken.toml", "name = \"broken\"\n[[counters]]\ninput = [{ octets = \"Nobody\" }]\n");
        let faults = read().expect_err("a broken profile");
        let places: Vec<&str> = faults.iter().filter_map(|fault| fault.pointer.rsplit('/').next()).collect();
        assert_eq!(places, ["broken.toml:3:21", "broken.toml:2:1"], "{faults:?}");
    }
}

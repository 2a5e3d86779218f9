//! Reads RADIUS dictionaries in FreeRADIUS' syntax from the folders and files the configuration names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::radius::{Dictionary, Source};

/// The built-in dictionary with everything `paths` hold on top of it, and every fault as one sentence.
///
/// **Shape**: a folder is read by its `dictionary` file if it has one (which includes the others), else every
/// `dictionary.*` in the order of the names.
pub fn load(paths: &[PathBuf]) -> (Dictionary, Vec<String>) {
    let mut dictionary = Dictionary::standard();
    let mut faults = Vec::new();
    for path in paths {
        match files(path) {
            Ok(files) => files.iter().for_each(|file| add(&mut dictionary, file, &mut faults)),
            Err(error) => faults.push(format!("cannot read {}: {error}", path.display())),
        }
    }
    (dictionary, faults)
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let main = path.join("dictionary");
    if main.is_file() {
        return Ok(vec![main]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("dictionary.") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn add(dictionary: &mut Dictionary, file: &Path, faults: &mut Vec<String>) {
    let name = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => {
            let beside = |include: &str| fs::read_to_string(file.with_file_name(include)).ok();
            if let Err(found) = dictionary.extend(&[Source { file: &name, text: &text }], &beside) {
                faults.extend(found.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)));
            }
        }
        Err(error) => faults.push(format!("cannot read {name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_dictionaries_have_no_fault() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dictionaries");
        let (dictionary, faults) = load(&[folder]);
        assert_eq!(faults, Vec::<String>::new());
        assert!(dictionary.len() > Dictionary::standard().len());
    }

    #[test]
    fn faulty_dictionary_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("dictionary.acme");
        fs::write(&file, "VENDOR Acme 4242\nATTRIBUTE Acme-Plan one string\n").expect("a file");
        let (_, faults) = load(&[folder.path().to_path_buf(), folder.path().join("none")]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("dictionary.acme:2"), "{faults:?}");
    }
}

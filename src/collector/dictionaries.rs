//! Reads the dictionary files that the configuration names, over the built-in dictionary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::radius::{Dictionary, Source};
use crate::vocabulary::{Fault, Faults};

/// The built-in dictionary and every file of `paths`. A file is read as it is; of a directory its file `dictionary` (which
/// includes the others, as FreeRADIUS has it), else every `dictionary.*` in the order of names. `$INCLUDE` is relative to
/// the file's directory.
///
/// **Errors**: every fault with `file:line`, an unreadable file or directory among them.
pub fn load(paths: &[PathBuf]) -> Result<Dictionary, Vec<Fault>> {
    let mut dictionary = Dictionary::standard();
    let mut faults = Faults::new();
    for path in paths {
        let files = match files_of(path) {
            Ok(files) => files,
            Err(error) => {
                faults.add(path.display().to_string(), format!("cannot be read: {error}"));
                continue;
            }
        };
        for file in files {
            let name = file.display().to_string();
            let text = match read(&file) {
                Ok(text) => text,
                Err(error) => {
                    faults.add(name, format!("cannot be read: {error}"));
                    continue;
                }
            };
            let directory = file.parent().unwrap_or(Path::new("."));
            let include = |named: &str| read(&directory.join(named)).ok();
            for fault in dictionary.extend(&[Source { file: &name, text: &text }], &include).err().into_iter().flatten()
            {
                faults.add(fault.pointer, fault.detail);
            }
        }
    }
    faults.settle(dictionary)
}

fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let main = path.join("dictionary");
    if main.is_file() {
        return Ok(vec![main]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("dictionary.") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Vendors' files are not always UTF-8; only comments are.
fn read(path: &Path) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_and_faults_name_file_and_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
        write("dictionary.a", "VENDOR Acme 65000\n$INCLUDE parts\n");
        write("parts", "BEGIN-VENDOR Acme\nATTRIBUTE Acme-Rate 1 string\nEND-VENDOR Acme\n");
        write("README", "not a dictionary");
        let dictionary = load(&[directory.path().to_owned()]).expect("no faults");
        assert_eq!(dictionary.number("Acme-Rate"), Some((65000, 1)));
        write("dictionary.b", "\nATTRIBUTE Broken 1x string\n");
        let missing = directory.path().join("missing");
        let faults = load(&[directory.path().to_owned(), missing]).expect_err("two faults");
        let told: Vec<&str> = faults.iter().map(|fault| fault.detail.as_str()).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(faults[0].pointer.ends_with("dictionary.b:2"), "{faults:?}");
        write("dictionary", "$INCLUDE dictionary.a\n");
        assert!(load(&[directory.path().to_owned()]).is_ok(), "dictionary.b is not included");
    }
}

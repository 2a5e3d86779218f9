//! `lastmile docsis` on the reference files: no database, no configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::temp_dir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/docsis").join(name)
}

/// Runs the binary with a configuration that is not there.
fn lastmile(arguments: &[&str], files: &[&Path]) -> Output {
    configured(Path::new("/nonexistent/lastmile.toml"), arguments, files)
}

fn configured(config: &Path, arguments: &[&str], files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastmile"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .args(files)
        .env_remove("LASTMILE_CONFIG")
        .output()
        .expect("lastmile runs")
}

#[test]
fn every_reference_file_comes_back_with_and_without_the_secret() {
    let dir = temp_dir();
    let (text, bytes) = (dir.path().join("file.toml"), dir.path().join("file.cm"));
    let secret = golden("key.txt");
    for name in ["v1_res_100_20_d30.cm", "v3_disabled.cm", "v5_mta_na.bin"] {
        for known in [true, false] {
            let secret = if known { vec![Path::new("--secret-file"), secret.as_path()] } else { Vec::new() };
            let decoded = lastmile(&["docsis", "decode"], &[&[golden(name).as_path()], secret.as_slice()].concat());
            assert!(decoded.status.success(), "{decoded:?}");
            std::fs::write(&text, &decoded.stdout).expect("written");
            let target = [text.as_path(), Path::new("-o"), bytes.as_path()];
            let encoded = lastmile(&["docsis", "encode"], &[&target, secret.as_slice()].concat());
            assert!(encoded.status.success(), "{encoded:?}");
            let (made, reference) =
                (std::fs::read(&bytes).expect("made"), std::fs::read(golden(name)).expect("reference"));
            assert_eq!(made, reference, "{name}, secret known: {known}");
        }
    }
}

#[test]
fn a_broken_file_ends_with_exit_1_and_names_the_place() {
    let dir = temp_dir();
    let (text, bytes) = (dir.path().join("file.toml"), dir.path().join("file.cm"));
    std::fs::write(&text, "kind = \"cm\"\ntlv = [ { MaxCPE = 0 } ]\n").expect("written");
    let secret = golden("key.txt");
    let files = [text.as_path(), Path::new("-o"), &bytes, Path::new("--secret-file"), &secret];
    let refused = lastmile(&["docsis", "encode"], &files);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("18 (MaxCPE): must be 1 to 254, is 0"), "{said}");
    assert!(said.contains("3 (NetworkAccess): is missing and must be present"), "{said}");
    assert!(!bytes.exists());
    std::fs::write(&bytes, [24, 9, 1]).expect("written");
    let cut = lastmile(&["docsis", "decode"], &[&bytes]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&cut.stderr).contains("TLV 24 at byte 0"), "{cut:?}");
}

#[test]
fn a_file_of_another_secret_names_the_cmts_it_is_signed_for() {
    let dir = temp_dir();
    let config = dir.path().join("lastmile.toml");
    let text = "[database]\nurl = \"sqlite:///tmp/unused.db\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
        [docsis]\nshared_secret = \"another\"\n[[cmts]]\nname = \"cmts1\"\nnetworks = [\"10.0.0.0/8\"]\n\
        shared_secret = \"newest\"\nprevious_shared_secret = \"example-secret-1\"\n";
    std::fs::write(&config, text).expect("a configuration");
    let shown = configured(&config, &["docsis", "decode"], &[&golden("v3_disabled.cm")]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(said.contains("signed with previous_shared_secret of cmts1"), "{said}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("does not verify"), "{shown:?}");
}

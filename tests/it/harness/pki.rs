//! Authorities and certificates, made by the `openssl` program as an operator makes them.

use std::path::Path;

use super::run;

/// Makes `<name>.pem` and `<name>.key` of a new authority.
pub fn authority(folder: &Path, name: &str) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let (key_file, cert_file) = (file(folder, name, "key"), file(folder, name, "pem"));
    let subject = format!("/CN={name}");
    let out = ["-keyout", &key_file, "-out", &cert_file, "-days", "2", "-subj", &subject];
    openssl(&[&["req", "-x509"][..], &key, &out].concat());
}

/// Issues `<name>.pem` and `<name>.key` by an authority: with this common name and these alternative names
/// (`DNS:…,IP:…,URI:…`; empty for none).
pub fn certificate(folder: &Path, authority: &str, name: &str, common_name: &str, alternatives: &str) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let (key_file, request) = (file(folder, name, "key"), file(folder, name, "csr"));
    let subject = format!("/CN={common_name}");
    let out = ["-keyout", &key_file, "-out", &request, "-subj", &subject];
    openssl(&[&["req"][..], &key, &out].concat());
    let alternatives = if alternatives.is_empty() { String::new() } else { format!("subjectAltName={alternatives}\n") };
    let extensions = folder.join("extensions");
    std::fs::write(&extensions, format!("{alternatives}basicConstraints=CA:FALSE\n")).expect("a file");
    let (ca, ca_key) = (file(folder, authority, "pem"), file(folder, authority, "key"));
    let (extensions, cert_file) = (extensions.display().to_string(), file(folder, name, "pem"));
    let by = ["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
    openssl(&[&["x509", "-req", "-in", &request][..], &by, &["-extfile", &extensions, "-out", &cert_file]].concat());
}

fn file(folder: &Path, name: &str, ending: &str) -> String {
    folder.join(format!("{name}.{ending}")).display().to_string()
}

fn openssl(arguments: &[&str]) {
    let output = run("openssl", "openssl", arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

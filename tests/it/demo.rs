//! `lastmile demo` for more than one seed, and the example installation the README walks through.

use std::process::Command;

use super::harness::daemon::Site;
use super::harness::repository;

fn demo(seed: &str) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_lastmile"))
        .args(["--json", "demo", "--seed", seed])
        .output()
        .expect("lastmile runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "seed {seed}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn demo_checks_every_step_for_any_seed() {
    let [first, second] = ["1", "20261122"].map(demo);
    assert_eq!(first["ok"], true);
    assert_eq!(second["ok"], true);
    assert_ne!(first["inputs"]["heavy"]["mac"], second["inputs"]["heavy"]["mac"]);
    assert_ne!(first["lines"][0]["amount"], second["lines"][0]["amount"]);
}

#[test]
fn example_installation_takes_its_account() {
    let site = Site::sqlite();
    let example = repository().join("examples/acme");
    site.succeed(&["migrate"]);
    site.succeed(&["catalog", "apply", &example.join("catalog").display().to_string()]);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let text = std::fs::read_to_string(example.join("accounts/100234.json")).expect("the example account");
    let account = serde_json::from_str(&text).expect("JSON");
    let answer = daemon.api(&key, "PUT", "acme/accounts/100234", Some(&account));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let output = Command::new(env!("CARGO_BIN_EXE_lastmile"))
        .arg("--config")
        .arg(example.join("lastmile.toml"))
        .arg("check-config")
        .output()
        .expect("lastmile runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    daemon.stop();
}

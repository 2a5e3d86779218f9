//! Our own OpenAPI document against the program: schemathesis (PyPI) finds no server error and no answer whose status, content
//! type, headers or body the document does not tell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::daemon::Site;
use crate::harness::long_or;
use crate::walls::{ROWS, Walls, key_of};

const VERSION: &str = "4.32.5";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance,unsupported_method,allow_header_conformance,ignored_auth";

/// The program in a virtual environment of the target folder, made once; `None`: PyPI cannot be reached.
fn schemathesis() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let program = folder.join("bin").join("schemathesis");
    let works = |program: &Path| {
        let told = Command::new(program).arg("--version").output().ok()?;
        String::from_utf8_lossy(&told.stdout).contains(VERSION).then(|| program.to_path_buf())
    };
    if let Some(program) = works(&program) {
        return Some(program);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
    assert!(made.is_ok_and(|made| made.status.success()), "python3 -m venv failed: Debian package python3-venv");
    let package = format!("schemathesis=={VERSION}");
    let pip = folder.join("bin").join("pip");
    Command::new(pip).args(["install", "-q", "--disable-pip-version-check", &package]).output().ok()?;
    works(&program)
}

/// `[[operations]]` with ids of things that are there, one for each route that has ids.
fn settings(ids: Option<&BTreeMap<String, String>>) -> String {
    let mut text = "[parameters]\n\"path.tenant\" = \"acme\"\n".to_owned();
    for row in ids.map_or(&[][..], |_| ROWS).iter().filter(|row| row.route.contains('{')) {
        let (method, path) = row.route.split_once(' ').expect("a method and a path");
        text.push_str(&format!(
            "\n[[operations]]\ninclude-method = \"{method}\"\ninclude-path = \"/v1/tenants/{{tenant}}{path}\"\n\
             [operations.parameters]\n\"path.tenant\" = \"acme\"\n"
        ));
        for (place, id) in ids.into_iter().flatten().filter(|(place, _)| path.contains(place.as_str())) {
            text.push_str(&format!("\"path.{}\" = \"{id}\"\n", key_of(place).trim_matches(['{', '}'])));
        }
    }
    text
}

#[test]
fn schemathesis_finds_no_server_error_and_no_undocumented_answer() {
    let Some(program) = schemathesis() else {
        println!("NOT RUN: schemathesis {VERSION} could not be installed from PyPI");
        return;
    };
    for site in [Site::sqlite(), Site::postgres()] {
        try_every_route(&program, &Walls::over(site));
    }
}

fn try_every_route(program: &Path, walls: &Walls) {
    let own = walls.ids_of_acme();
    let document = format!("http://127.0.0.1:{}/openapi.json", walls.site.http_port);
    for (what, ids) in [("made-up ids", None), ("ids that are there", Some(&own))] {
        let config = walls.site.path("schemathesis.toml");
        std::fs::write(&config, settings(ids)).expect("a file");
        let told = Command::new(program)
            .current_dir(&walls.site.folder)
            .arg("--config-file")
            .arg(&config)
            .args(["run", &document, "--seed", "1", "--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
            .args(["--checks", CHECKS, "--workers", "1", "--request-timeout", "60", "--suppress-health-check", "all"])
            .args(["--max-examples", &long_or(100, 5).to_string()])
            .args(["--header", &format!("Authorization: Bearer {}", walls.keys["admin"])])
            .output()
            .expect("schemathesis runs");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success(), "{what}:\n{text}\n{}", String::from_utf8_lossy(&told.stderr));
        let last: Vec<&str> = text.lines().filter(|line| line.contains("generated")).collect();
        println!("{what}: {last:?}");
        assert!(!last.is_empty(), "{text}");
    }
}

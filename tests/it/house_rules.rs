//! The map in `src/lib.rs` cannot drift: floors import only downwards, crates have one owner, every file says what it is.

use std::fs;
use std::path::{Path, PathBuf};

/// The pure rooms and what each may import besides the vocabulary.
const FLOOR_1: &[(&str, &[&str])] = &[
    ("account", &["docsis"]),
    ("audit", &[]),
    ("usage", &[]),
    ("docsis", &[]),
    ("tftp", &[]),
    ("dhcp", &[]),
    ("provision", &["account", "docsis"]),
    ("radius", &["usage"]),
    ("billing", &["account", "usage"]),
    ("catalog", &["account", "billing", "docsis", "provision"]),
    ("mediation", &["account"]),
    ("outgoing", &[]),
    ("reconcile", &["account", "mediation"]),
    ("tmf", &["account", "billing", "provision"]),
];
/// Services never import one another.
const FLOOR_3: &[&str] = &["intake", "collector", "provisioner", "nas_control", "biller", "custodian", "dispatcher"];

/// What a room may import besides the vocabulary; `None`: it is not on the map.
fn may_import(room: &str) -> Option<Vec<&'static str>> {
    let pure: Vec<&str> = FLOOR_1.iter().map(|(room, _)| *room).collect();
    let below_services = [&pure[..], &["store", "telemetry", "tls"]].concat();
    match room {
        "vocabulary" | "telemetry" | "tls" => Some(vec![]),
        "store" => Some(pure),
        "daemon" => Some([&below_services[..], FLOOR_3].concat()),
        "cli" => Some([&below_services[..], FLOOR_3, &["daemon"]].concat()),
        service if FLOOR_3.contains(&service) => Some(below_services),
        _ => FLOOR_1.iter().find(|(pure, _)| *pure == room).map(|(_, imports)| imports.to_vec()),
    }
}

/// Words that only some rooms may say: (word, rooms or files that may).
const OWNED: &[(&str, &[&str])] = &[
    ("sqlx::", &["store"]),
    ("axum::", &["intake"]),
    ("UdpSocket", &["collector", "provisioner", "nas_control", "daemon", "cli"]),
    ("TcpListener", &["intake", "collector", "provisioner", "daemon", "cli"]),
    ("Timestamp::now", &["daemon/clock.rs"]),
    ("SystemTime::now", &["daemon/clock.rs"]),
    ("Zoned::now", &["daemon/clock.rs"]),
];

#[test]
fn a_room_imports_only_the_rooms_below_it() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        if room == "main" || room == "lib" {
            continue;
        }
        let Some(imports) = may_import(&room) else {
            broken.push(format!("{path}: room {room} is not on the map"));
            continue;
        };
        for (number, line) in product_lines(&text) {
            for other in named_rooms(line) {
                if other != room && other != "vocabulary" && !imports.contains(&other.as_str()) {
                    broken.push(format!("{path}:{number}: {room} must not import {other}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn sql_http_sockets_and_the_clock_have_one_owner() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        for (number, line) in product_lines(&text) {
            for (word, owners) in OWNED {
                let owned = owners.iter().any(|owner| *owner == room || path.ends_with(owner));
                if line.contains(word) && !owned {
                    broken.push(format!("{path}:{number}: {word} belongs to {owners:?}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_opens_with_its_sentence_and_stays_readable() {
    const LINES_MAX: usize = 900;
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            broken.push(format!("{path}: does not open with `//!`"));
        }
        if text.lines().count() > LINES_MAX {
            broken.push(format!("{path}: longer than {LINES_MAX} lines; it has become two rooms"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn twin_migrations_come_in_pairs() {
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder))
                .expect("a folder of migrations")
                .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
                .collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

/// Lines of the product itself: comments and everything from the test module on are left out.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Rooms named on a line as `crate::room`.
fn named_rooms(line: &str) -> Vec<String> {
    line.match_indices("crate::")
        .filter_map(|(at, word)| {
            let rest = &line[at + word.len()..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let room = &rest[..end];
            // `$crate::` in macros and `pub(in crate::room)` name the room itself; items of lib.rs do not exist.
            room.chars().next().is_some_and(char::is_lowercase).then(|| room.to_owned())
        })
        .collect()
}

fn room_of(path: &str) -> String {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    found.sort();
    found
}

//! What journeys need: temporary folders, free ports, a throw-away PostgreSQL, the daemon as a process, a small HTTP client.

pub mod acme;
pub mod cable;
pub mod chaos;
pub mod daemon;
pub mod desk;
pub mod disk;
pub mod dynauth;
pub mod http;
pub mod inside;
pub mod kea;
pub mod mailhost;
pub mod modem;
pub mod nas;
pub mod pki;
pub mod postfixadmin;
pub mod postgres;
pub mod radiusd;
pub mod realnas;
pub mod receiver;
pub mod segment;
pub mod truth;

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A folder that every user may enter (PostgreSQL, Dovecot and Postfix run as users of their own).
pub fn temp_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("lastmile-it-").tempdir().expect("a temporary folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    dir
}

/// A TCP port nobody listens on now.
pub fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A UDP port nobody listens on now.
pub fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Runs a program of the machine to its end; a missing one fails with its Debian package's name.
pub fn run(package: &str, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} (Debian package {package}) did not run: {error}"))
}

/// A machine may be so much slower than the one a limit was written on; a test that passes never waits for it.
const SLOWER: u32 = 3;

/// Waits until `done` gives something, at most `limit`; panics naming `what` otherwise.
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let (start, limit) = (Instant::now(), limit * SLOWER);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether this is `tests/run --long`.
pub fn is_long() -> bool {
    std::env::var("LASTMILE_TESTS_LONG").as_deref() == Ok("1")
}

/// `long` in `tests/run --long`, `usual` otherwise.
pub fn long_or(long: u32, usual: u32) -> u32 {
    if is_long() { long } else { usual }
}

/// A program of this crate's release build, which `tests/run --long` makes, for example `lastmile`.
pub fn release_program(name: &str) -> PathBuf {
    let debug = PathBuf::from(env!("CARGO_BIN_EXE_lastmile"));
    let target = debug.ancestors().nth(2).expect("target/PROFILE/lastmile");
    let program = target.join("release").join(name);
    assert!(program.exists(), "{} is not built: cargo build --release --bins --examples", program.display());
    program
}

/// A program of this crate beside the daemon's binary, for example `examples/accounting_load`. Plain `cargo test` builds
/// the examples, `--all-targets` does not.
pub fn program(name: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_lastmile"));
    let program = binary.parent().expect("a folder").join(name);
    assert!(program.exists(), "{} is not built: cargo build --examples", program.display());
    program
}

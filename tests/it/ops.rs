//! The daemon under a service manager: readiness, watchdog, reload, stop, the unit's hardening, metrics.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::daemon::Site;
use super::harness::{free_tcp_port, http, repository, run};

/// systemd's side of `$NOTIFY_SOCKET`, and the daemon that writes to it.
struct Manager {
    socket: UnixDatagram,
    child: Child,
}

impl Manager {
    fn start(site: &Site, watchdog: Option<Duration>) -> Self {
        let path = site.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a notify socket");
        socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        let log = std::fs::File::options().create(true).append(true).open(site.log()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lastmile"));
        command.arg("--config").arg(&site.config).arg("serve").env("NOTIFY_SOCKET", &path).env("NO_COLOR", "1");
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("lastmile runs");
        Self { socket, child }
    }

    /// Waits for a message that holds `text`; panics when none comes.
    fn expect(&self, text: &str) -> String {
        let start = Instant::now();
        let mut octets = [0u8; 4096];
        while start.elapsed() < Duration::from_secs(20) {
            let length = match self.socket.recv(&mut octets) {
                Ok(length) => length,
                // A process that is stopped and goes on is told so; nothing was lost.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("no {text}: {error}"),
            };
            let message = String::from_utf8_lossy(&octets[..length]).into_owned();
            if message.contains(text) {
                return message;
            }
        }
        panic!("no {text} in 20 s");
    }

    fn signal(&self, name: &str) {
        run("procps", "kill", &[&format!("-{name}"), &self.child.id().to_string()]);
    }

    fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.signal("TERM");
        self.expect("STOPPING=1");
        let status = self.child.wait().expect("the daemon stops");
        assert!(status.success(), "stopped with {status}");
        start.elapsed()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ready_is_said_when_the_sockets_answer_and_stop_takes_less_than_five_seconds() {
    let site = Site::sqlite();
    let manager = Manager::start(&site, None);
    let message = manager.expect("READY=1");
    assert!(message.contains(&format!("STATUS=Serving HTTP on 127.0.0.1:{}", site.http_port)), "{message}");
    let answer = http::request(site.http_port, "GET", "/healthz", &[], None).expect("the API answers");
    assert_eq!(answer.status, 200);
    assert!(manager.stop() < Duration::from_secs(5));
}

#[test]
fn watchdog_is_fed_while_every_loop_turns() {
    let site = Site::sqlite();
    let manager = Manager::start(&site, Some(Duration::from_secs(4)));
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    manager.expect("WATCHDOG=1");
}

#[test]
fn reload_with_a_fault_keeps_the_old_configuration() {
    let site = Site::sqlite();
    let manager = Manager::start(&site, None);
    manager.expect("READY=1");
    site.edit("level = \"info\"", "level = \"loud\"\nlevle = 1");
    manager.signal("HUP");
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    let log = site.log_text();
    assert!(log.contains("not reloaded") && log.contains("log.levle: is an unknown key; did you mean level?"), "{log}");
    assert_eq!(http::request(site.http_port, "GET", "/healthz", &[], None).expect("still here").status, 200);
    manager.stop();
}

#[test]
fn reload_changes_the_log_level() {
    let site = Site::sqlite();
    let manager = Manager::start(&site, None);
    manager.expect("READY=1");
    site.edit("level = \"info\"", "level = \"debug\"");
    manager.signal("HUP");
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    assert!(site.log_text().contains("The configuration was reloaded."), "{}", site.log_text());
    manager.stop();
}

#[test]
fn database_that_is_away_is_waited_for_with_503() {
    let site = Site::new(super::harness::temp_dir(), &format!("postgres://nobody@127.0.0.1:{}/none", free_tcp_port()));
    let manager = Manager::start(&site, Some(Duration::from_secs(20)));
    let message = manager.expect("READY=1");
    assert!(message.contains("STATUS=Waiting for the database."), "{message}");
    assert_eq!(http::request(site.http_port, "GET", "/readyz", &[], None).expect("the API answers").status, 503);
    assert_eq!(http::request(site.http_port, "GET", "/healthz", &[], None).expect("the API answers").status, 200);
    manager.expect("WATCHDOG=1");
    manager.stop();
}

#[test]
fn taken_port_is_named_and_the_daemon_fails() {
    let site = Site::sqlite();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", site.http_port)).expect("the port");
    let output = site.lastmile(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains(&format!("[api] listen 127.0.0.1:{} cannot be bound", site.http_port)), "{message}");
}

#[test]
fn metrics_pass_promtool() {
    let site = Site::sqlite();
    let daemon = site.start();
    let page = http::request(site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    let file = site.path("metrics.txt");
    std::fs::write(&file, &page).expect("a file");
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).expect("the file"))
        .output()
        .unwrap_or_else(|error| panic!("promtool (Debian package prometheus) did not run: {error}"));
    assert!(check.status.success(), "{}\n{page}", String::from_utf8_lossy(&check.stderr));
    assert!(page.contains("lastmile_build_info{") && page.contains("lastmile_database_up 1"), "{page}");
    daemon.stop();
}

#[test]
fn check_config_names_every_fault_and_touches_nothing() {
    let site = Site::sqlite();
    site.edit("address = \"127.0.0.0/8\"", "address = \"127.0.0.1/8\"\nidentty = \"client\"");
    let output = site.lastmile(&["check-config"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("lastmile.toml:11:11: radius.nas[0].address:"), "{text}");
    assert!(
        text.contains("lastmile.toml:12:1: radius.nas[0].identty: is an unknown key; did you mean identity?"),
        "{text}"
    );
    assert!(!site.path("lastmile.db").exists());
}

#[test]
fn unit_is_hardened_and_without_faults() {
    let unit = repository().join("systemd/lastmile.service");
    let path = unit.display().to_string();
    let security = run("systemd", "systemd-analyze", &["security", "--offline=yes", "--threshold=15", &path]);
    assert!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
    let folder = super::harness::temp_dir();
    let copy = folder.path().join("lastmile.service");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    // The machine of the tests has the binary elsewhere; everything else is checked as it is.
    std::fs::write(&copy, text.replace("/usr/bin/lastmile", env!("CARGO_BIN_EXE_lastmile"))).expect("a copy");
    let copy = copy.display().to_string();
    let verify = run("systemd", "systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", &copy]);
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
    let users = repository().join("systemd/sysusers.d/lastmile.conf").display().to_string();
    let sysusers = run("systemd", "systemd-sysusers", &["--dry-run", &users]);
    assert!(sysusers.status.success(), "{}", String::from_utf8_lossy(&sysusers.stderr));
}

#[test]
fn backup_taken_while_serving_is_restored_whole() {
    let site = Site::sqlite();
    let daemon = site.start();
    let archive = site.path("backup.tar");
    let name = archive.display().to_string();
    site.succeed(&["backup", &name]);
    assert_eq!(site.lastmile(&["backup", &name]).status.code(), Some(1), "a backup is never overwritten");
    assert_eq!(site.lastmile(&["restore", &name]).status.code(), Some(1), "a database that exists is never touched");
    daemon.stop();
    for file in ["lastmile.db", "lastmile-accounting.db"] {
        std::fs::remove_file(site.path(file)).expect("the database file");
    }
    site.succeed(&["restore", &name]);
    assert_eq!(site.json(&["migrate", "--dry-run"])["migrations"].as_array().map(Vec::len), Some(0));
    site.start().stop();
}

#[test]
fn unreachable_database_is_exit_4() {
    let site = Site::new(super::harness::temp_dir(), &format!("postgres://nobody@127.0.0.1:{}/none", free_tcp_port()));
    assert_eq!(site.lastmile(&["migrate"]).status.code(), Some(4));
}

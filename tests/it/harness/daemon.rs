//! The daemon as operators run it: the real binary with a configuration file, stopped or killed by its own pid.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::http::{self, Answer};
use super::{free_tcp_port, free_udp_port, wait_for};

/// Secret every test NAS shares with the collector.
pub const NAS_SECRET: &str = "testing123";
/// Shared secret of the test plant's CMTS.
pub const CMTS_SECRET: &str = "example-secret-1";

/// Everything a configuration of a test consists of, with ports of its own.
pub struct Site {
    pub folder: PathBuf,
    pub config: PathBuf,
    pub http_port: u16,
    pub radius_port: u16,
    pub tftp_port: u16,
    /// `sqlite://…` or `postgres://…` of the mail tables.
    pub mail_url: String,
    pub aaa_url: String,
    _keep: Option<tempfile::TempDir>,
}

/// A running daemon; killed by its pid when dropped.
pub struct Daemon {
    child: Child,
    pub http_port: u16,
}

impl Site {
    /// A site over a SQLite database of its own.
    pub fn sqlite() -> Self {
        let dir = super::temp_dir();
        let url = format!("sqlite://{}", dir.path().join("lastmile.db").display());
        Self::new(dir, &url)
    }

    /// A site over a new PostgreSQL database.
    pub fn postgres() -> Self {
        Self::new(super::temp_dir(), &super::postgres::database())
    }

    /// A site over the given database.
    pub fn new(dir: tempfile::TempDir, url: &str) -> Self {
        let folder = dir.path().to_path_buf();
        let (http_port, radius_port, tftp_port) = (free_tcp_port(), free_udp_port(), free_udp_port());
        let mail_url = format!("sqlite://{}", folder.join("mail.db").display());
        let aaa_url = format!("sqlite://{}", folder.join("aaa.db").display());
        let key_file = folder.join("key");
        std::fs::write(&key_file, "0123456789abcdef".repeat(4)).expect("a key file");
        let mut permissions = std::fs::metadata(&key_file).expect("the key file").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&key_file, permissions).expect("permissions");
        let config = folder.join("lastmile.toml");
        let text = format!(
            r#"[database]
url = "{url}"
[secrets]
key_file = "{key}"
[api]
listen = "127.0.0.1:{http_port}"
[radius]
accounting = ["127.0.0.1:{radius_port}"]
[[radius.nas]]
name = "bng1"
address = "127.0.0.0/8"
secret = "{NAS_SECRET}"
identity = "nas-identifier"
[tftp]
listen = "127.0.0.1:{tftp_port}"
[docsis]
shared_secret = "{CMTS_SECRET}"
[mail]
driver = "postfixadmin"
url = "{mail_url}"
[aaa]
driver = "freeradius-sql"
url = "{aaa_url}"
[log]
format = "text"
level = "info"
"#,
            key = key_file.display()
        );
        std::fs::write(&config, text).expect("a configuration file");
        Self { folder, config, http_port, radius_port, tftp_port, mail_url, aaa_url, _keep: Some(dir) }
    }

    /// Another daemon's site on the same database, with ports of its own.
    pub fn twin(&self) -> Self {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        let url = text.lines().find(|line| line.starts_with("url = ")).and_then(|line| line.split('"').nth(1));
        let twin = Self::new(super::temp_dir(), url.expect("the database's URL"));
        // The backends are outside: both daemons write to the same.
        twin.edit(&twin.mail_url, &self.mail_url);
        twin.edit(&twin.aaa_url, &self.aaa_url);
        twin
    }

    /// Replaces a piece of the configuration's text; panics when it is not there.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        assert!(text.contains(from), "{from:?} is not in the configuration");
        std::fs::write(&self.config, text.replacen(from, to, 1)).expect("the configuration");
    }

    /// Runs a command of the command line to its end.
    pub fn lastmile(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lastmile"))
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("lastmile runs")
    }

    /// Runs a command that must succeed and gives its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.lastmile(arguments);
        assert!(
            output.status.success(),
            "lastmile {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// As `succeed`, with `--json`, parsed.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let text = self.succeed(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// Creates the schema and applies a catalog given as text.
    pub fn prepare(&self, catalog: &str) {
        self.succeed(&["migrate"]);
        let path = self.folder.join("catalog.toml");
        std::fs::write(&path, catalog).expect("a catalog file");
        self.succeed(&["catalog", "apply", &path.display().to_string()]);
    }

    /// Makes an API key.
    pub fn key(&self, tenant: &str, role: &str) -> String {
        let made = self.json(&["key", "create", "--tenant", tenant, "--role", role]);
        made["key"].as_str().expect("a key").to_owned()
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&self) -> Daemon {
        let daemon = self.spawn();
        wait_for("the daemon is ready", Duration::from_secs(20), || {
            http::request(self.http_port, "GET", "/readyz", &[], None).ok().filter(|answer| answer.status == 200)
        });
        daemon
    }

    /// Starts the daemon without waiting.
    pub fn spawn(&self) -> Daemon {
        let config = self.config.display().to_string();
        self.spawn_program(Path::new(env!("CARGO_BIN_EXE_lastmile")), &["--config", &config, "serve"])
    }

    /// Starts another program in the daemon's place, without waiting.
    pub fn spawn_program(&self, program: &Path, arguments: &[&str]) -> Daemon {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let child = Command::new(program)
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("the program runs");
        Daemon { child, http_port: self.http_port }
    }

    /// File the daemon's log goes to.
    pub fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }
}

impl Drop for Site {
    /// A test that fails shows what the daemon said last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<&str> = log.lines().collect();
            println!("the daemon's log ended so:\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
}

/// Lines of a daemon's log that a failing test shows.
const LAST_LINES: usize = 20;

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request with a bearer key below `/v1/tenants/`.
    pub fn api(&self, key: &str, method: &str, path: &str, body: Option<&serde_json::Value>) -> Answer {
        let bearer = format!("Bearer {key}");
        let body = body.map(ToString::to_string);
        http::request(
            self.http_port,
            method,
            &format!("/v1/tenants/{path}"),
            &[("Authorization", bearer.as_str())],
            body.as_deref(),
        )
        .expect("the API answers")
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("the daemon is killed");
        self.child.wait().expect("the daemon is gone");
    }

    /// `kill -9`, and nothing of it runs or holds a port any more; it is reaped when it is dropped.
    ///
    /// A thread that waits for the disk dies when the disk has answered, and until then every socket stays bound: what is
    /// started in its place before that cannot bind.
    pub fn end(&self) {
        self.signal("KILL");
        let tasks = format!("/proc/{}/task", self.child.id());
        super::wait_for("the killed daemon is gone", Duration::from_secs(60), || {
            let mut tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
            // Threads vanish when they have ended; the first one stays for whoever reaps.
            tasks
                .all(|task| {
                    stat(task).is_none_or(|stat| stat.rsplit(") ").next().is_some_and(|of| of.starts_with('Z')))
                })
                .then_some(())
        });
    }

    /// Stops it where it stands: once this returns no code of it runs. What the kernel does for it goes on.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        super::wait_for("the daemon stands still", Duration::from_secs(5), || {
            let tasks = std::fs::read_dir(&tasks).expect("the daemon's threads");
            let still = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['T', 'D']));
            // A thread that has ended meanwhile runs nothing.
            let mut stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            stats.all(still).then_some(())
        });
    }

    /// SIGTERM; gives how long it took to stop.
    pub fn stop(mut self) -> Duration {
        let start = std::time::Instant::now();
        super::run("procps", "kill", &["-TERM", &self.child.id().to_string()]);
        let status = self.child.wait().expect("the daemon stops");
        assert!(status.success(), "the daemon stopped with {status}");
        start.elapsed()
    }

    /// Sends a signal by name to the daemon's pid.
    pub fn signal(&self, name: &str) {
        super::run("procps", "kill", &[&format!("-{name}"), &self.child.id().to_string()]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

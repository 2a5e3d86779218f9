//! A throw-away PostgreSQL for this test process: started at first use, ended by its pid when the process is gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::free_tcp_port;

/// A running cluster: data folder and TCP port on loopback.
pub struct Cluster {
    pub folder: PathBuf,
    pub port: u16,
    _keep: Option<tempfile::TempDir>,
}

static SHARED: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// URL of a new, empty database in the cluster all tests share.
pub fn database() -> String {
    SHARED.get_or_init(|| Cluster::start(&[])).database()
}

impl Cluster {
    /// Initialises and starts a cluster; `settings` are added to its command line (`-c name=value`).
    pub fn start(settings: &[&str]) -> Self {
        let dir = super::temp_dir();
        let folder = dir.path().to_path_buf();
        let port = free_tcp_port();
        let binaries = newest_binaries();
        as_postgres(&["chown", "postgres"], &folder);
        let data = folder.join("data");
        let initdb = unprivileged(&binaries.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let mut cluster = Self { folder, port, _keep: Some(dir) };
        cluster.launch(settings);
        cluster.leave_a_watcher();
        cluster
    }

    /// Starts the server of an initialised cluster (again).
    pub fn launch(&mut self, settings: &[&str]) {
        let folder = self.folder.display();
        let mut options = format!("-p {} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off", self.port);
        for setting in settings {
            options.push_str(" -c ");
            options.push_str(setting);
        }
        let start = unprivileged(&newest_binaries().join("pg_ctl"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-w", "-t", "30", "-l"])
            .arg(self.folder.join("log"))
            .args(["-o", &options, "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        assert!(
            start.success(),
            "PostgreSQL did not start:\n{}",
            std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }

    /// Ends the server at once, as a crash would.
    pub fn crash(&self) {
        let data = self.folder.join("data");
        let stop = unprivileged(&newest_binaries().join("pg_ctl"))
            .arg("-D")
            .arg(data)
            .args(["-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        assert!(stop.success(), "PostgreSQL did not stop");
    }

    /// `kill -9` of the whole server. Returns when every process of it is gone, so that it can be launched again.
    pub fn kill_9(&self) {
        // Stopped first: a child it made after the list was read would hold the shared memory.
        signal("STOP", &self.pids()[..1]);
        let pids = self.pids();
        signal("KILL", &pids);
        super::wait_for("PostgreSQL's processes are gone", std::time::Duration::from_secs(20), || {
            pids.iter().all(|pid| parent_of(*pid).is_none()).then_some(())
        });
        // Their pids are known to be free; other processes may have them when the next server looks.
        let _ = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
        let _ = std::fs::remove_file(self.folder.join(format!(".s.PGSQL.{}.lock", self.port)));
    }

    /// `kill -9` of one backend that serves a client; the server then ends all others and recovers.
    pub fn kill_a_backend(&self) {
        let serving =
            self.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'lastmile' LIMIT 1");
        signal("KILL", &[serving.parse().expect("a backend of ours")]);
    }

    /// Sends a signal to every process of the server, for example `STOP` and `CONT`.
    pub fn signal_all(&self, name: &str) {
        signal(name, &self.pids());
    }

    /// The postmaster's pid, then its children's.
    fn pids(&self) -> Vec<u32> {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("a running server");
        let postmaster: u32 = file.lines().next().and_then(|line| line.parse().ok()).expect("its pid");
        let all = std::fs::read_dir("/proc").expect("processes").filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            (parent_of(pid)? == postmaster).then_some(pid)
        });
        std::iter::once(postmaster).chain(all).collect()
    }

    /// URL of a new, empty database.
    pub fn database(&self) -> String {
        let name = format!("it{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL through psql and gives its unaligned answer.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let output = super::run(
            "postgresql-client",
            "psql",
            &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", database, "-XAtqc", sql],
        );
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A shell that ends the server by its pid once this process is gone, however it went.
    fn leave_a_watcher(&self) {
        let script = "(while kill -0 $0 2>/dev/null; do sleep 1; done; \
                      kill -INT $(head -n1 \"$1/data/postmaster.pid\"); sleep 1; rm -rf \"$1\") 2>/dev/null &";
        let left = Command::new("sh")
            .args(["-c", script, &std::process::id().to_string()])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("sh runs");
        assert!(left.success(), "no watcher was left");
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let mut arguments = vec![format!("-{name}")];
    arguments.extend(pids);
    // One that has ended meanwhile is fine.
    super::run("procps", "kill", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The parent of a process; `None` when it is gone or only waits to be reaped.
fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = status.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

fn is_root() -> bool {
    String::from_utf8_lossy(&super::run("coreutils", "id", &["-u"]).stdout).trim() == "0"
}

/// PostgreSQL refuses to run as root: there it runs as its own user.
fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn as_postgres(command: &[&str], folder: &Path) {
    if is_root() {
        let status = Command::new(command[0]).args(&command[1..]).arg(folder).status().expect("chown runs");
        assert!(status.success(), "{command:?} {}", folder.display());
    }
}

fn newest_binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (Debian package postgresql)")
        .map(|entry| entry.expect("a folder").path().join("bin"))
        .collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL (Debian package postgresql)")
}

//! A mail host nobody here wrote: Debian's Dovecot (IMAP, LMTP) and Postfix (SMTP) reading the tables the daemon fills,
//! on loopback ports of their own, ended by their pids.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{free_tcp_port, run, temp_dir, wait_for};

/// curl(1), exit codes.
const CURL_TIMED_OUT: i32 = 28;

/// Dovecot and Postfix over one database.
pub struct MailHost {
    folder: PathBuf,
    pub imap_port: u16,
    pub smtp_port: u16,
    dovecot: Child,
    _keep: tempfile::TempDir,
}

/// `doveadm_api_key` of the test's Dovecot.
pub const DOVEADM_KEY: &str = "doveadm-secret";

/// An IMAP client that is logged in and waits.
pub struct Session(std::net::TcpStream);

impl Session {
    /// Whether the server ends the session within `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        use std::io::Read;
        self.0.set_read_timeout(Some(limit)).expect("a timeout");
        let mut said = Vec::new();
        self.0.read_to_end(&mut said).is_ok()
    }
}

/// What a mail client was told.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    Accepted,
    Denied,
}

impl MailHost {
    /// Starts both over the database of a `[mail] url`, doveadm's HTTP on a port of which `DOVEADM_KEY` opens it.
    pub fn start(url: &str, doveadm_port: u16) -> Self {
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        let (imap_port, lmtp_port, smtp_port) = (free_tcp_port(), free_tcp_port(), free_tcp_port());
        for name in ["mail", "pq", "pd", "run"] {
            std::fs::create_dir(folder.join(name)).expect("a folder");
        }
        run("coreutils", "chown", &["mail:mail", &text(&folder.join("mail"))]);
        run("coreutils", "chown", &["postfix", &text(&folder.join("pd"))]);
        let lookup = Lookup::of(url);
        write(&folder, "dovecot-sql.conf", &dovecot_sql(&folder, &lookup));
        write(&folder, "dovecot.conf", &dovecot_conf(&folder, imap_port, lmtp_port, doveadm_port));
        write(&folder, "master.cf", &MASTER.replace("SMTP", &format!("127.0.0.1:{smtp_port}")));
        write(&folder, "main.cf", &main_cf(&folder, &lookup, lmtp_port));
        for (name, query) in [
            ("domains", "SELECT domain FROM domain WHERE domain='%s' AND "),
            ("mailboxes", "SELECT maildir FROM mailbox WHERE username='%s' AND "),
            ("aliases", "SELECT goto FROM alias WHERE address='%s' AND "),
        ] {
            write(&folder, &format!("pf-{name}.cf"), &format!("{}query = {query}{}\n", lookup.postfix, lookup.active));
        }
        let dovecot = Command::new("dovecot")
            .args(["-F", "-c", &text(&folder.join("dovecot.conf"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("dovecot.err")).expect("a log file"))
            .spawn()
            .expect("dovecot runs (Debian packages dovecot-imapd, dovecot-lmtpd)");
        let started = run("postfix", "postfix", &["-c", &text(&folder), "start"]);
        assert!(started.status.success(), "postfix: {}", String::from_utf8_lossy(&started.stderr));
        for port in [imap_port, lmtp_port, smtp_port, doveadm_port] {
            wait_for("the mail host answers", Duration::from_secs(20), || {
                std::net::TcpStream::connect(("127.0.0.1", port)).ok()
            });
        }
        Self { folder, imap_port, smtp_port, dovecot, _keep: keep }
    }

    /// A login over IMAP with curl.
    pub fn login(&self, address: &str, password: &str) -> Login {
        let output = self.imap(address, password, "NOOP");
        match output.status.code() {
            Some(0) => Login::Accepted,
            Some(67) => Login::Denied,
            _ => panic!("curl: {}\n{}", String::from_utf8_lossy(&output.stderr), self.logs()),
        }
    }

    /// A client that logs in and stays.
    pub fn stay(&self, address: &str, password: &str) -> Session {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.imap_port)).expect("IMAP");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        write!(stream, "a LOGIN {address} {password}\r\n").expect("written");
        let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        let answer = lines.find_map(|line| line.ok().filter(|line| line.starts_with("a "))).expect("an answer");
        assert!(answer.starts_with("a OK"), "{answer}");
        Session(stream)
    }

    /// Folder of a mailbox's mail, by the row's `maildir`.
    pub fn maildir(&self, maildir: &str) -> PathBuf {
        self.folder.join("mail").join(maildir)
    }

    /// What an IMAP command answers after a login.
    pub fn ask(&self, address: &str, password: &str, command: &str) -> String {
        let output = self.imap(address, password, command);
        assert!(output.status.success(), "curl: {}\n{}", String::from_utf8_lossy(&output.stderr), self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Postfix goes away; what it has is in its queue.
    pub fn stop_postfix(&self) {
        let stopped = run("postfix", "postfix", &["-c", &text(&self.folder), "stop"]);
        assert!(stopped.status.success(), "postfix: {}", String::from_utf8_lossy(&stopped.stderr));
    }

    /// And comes back.
    pub fn start_postfix(&self) {
        let started = run("postfix", "postfix", &["-c", &text(&self.folder), "start"]);
        assert!(started.status.success(), "postfix: {}", String::from_utf8_lossy(&started.stderr));
    }

    /// Every message that lies in a mailbox, as it lies there.
    pub fn letters(&self) -> Vec<String> {
        let (mut found, mut folders) = (Vec::new(), vec![self.folder.join("mail")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let is_delivered = folder.ends_with("new") || folder.ends_with("cur");
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(_) if is_delivered => found.extend(std::fs::read_to_string(entry.path())),
                    _ => {}
                }
            }
        }
        found
    }

    /// Whether a message with this subject lies in the inbox.
    pub fn has(&self, address: &str, password: &str, subject: &str) -> bool {
        let url = format!("imap://127.0.0.1:{}/INBOX?SUBJECT%20{subject}", self.imap_port);
        let output = run("curl", "curl", &["-sS", "-m", "20", "-u", &format!("{address}:{password}"), &url]);
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        found.strip_prefix("* SEARCH").is_some_and(|numbers| !numbers.trim().is_empty())
    }

    /// Sends a message by SMTP; `Err` with the server's words when a recipient is refused.
    pub fn send(&self, to: &str, subject: &str) -> Result<(), String> {
        let message = self.folder.join("message");
        std::fs::write(
            &message,
            format!("From: tester@example.org\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nhello\r\n"),
        )
        .expect("a message");
        let url = format!("smtp://127.0.0.1:{}/example.org", self.smtp_port);
        let file = text(&message);
        let arguments = ["-sv", "-m", "20", &url, "--mail-from", "tester@example.org", "--mail-rcpt", to, "-T", &file];
        // A sender whose connection hung tries again.
        let mut output = run("curl", "curl", &arguments);
        if output.status.code() == Some(CURL_TIMED_OUT) {
            output = run("curl", "curl", &arguments);
        }
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// What both servers logged, for a failing test.
    pub fn logs(&self) -> String {
        ["dovecot.log", "dovecot.err", "postfix.log"]
            .map(|name| format!("== {name}\n{}", std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()))
            .concat()
    }

    fn imap(&self, address: &str, password: &str, command: &str) -> std::process::Output {
        let url = format!("imap://127.0.0.1:{}/", self.imap_port);
        run("curl", "curl", &["-sS", "-m", "20", "-u", &format!("{address}:{password}"), &url, "-X", command])
    }
}

impl Drop for MailHost {
    fn drop(&mut self) {
        let _ = Command::new("postfix").args(["-c", &text(&self.folder), "stop"]).output();
        let _ = Command::new("kill").args(["-TERM", &self.dovecot.id().to_string()]).output();
        let _ = self.dovecot.wait();
    }
}

/// How the servers reach the database.
struct Lookup {
    driver: &'static str,
    connect: String,
    postfix: String,
    /// The condition that a row is active: PostfixAdmin's column is a boolean on PostgreSQL, a number on SQLite.
    active: &'static str,
}

impl Lookup {
    fn of(url: &str) -> Self {
        if let Some(path) = url.strip_prefix("sqlite://") {
            return Self {
                driver: "sqlite",
                connect: path.to_owned(),
                postfix: format!("dbpath = {path}\n"),
                active: "active=1",
            };
        }
        let rest = url.strip_prefix("postgres://").expect("a database of one kind or the other");
        let (user, rest) = rest.split_once('@').expect("a user");
        let (host, database) = rest.split_once('/').expect("a database");
        let (address, port) = host.split_once(':').expect("a port");
        Self {
            driver: "pgsql",
            connect: format!("host={address} port={port} dbname={database} user={user}"),
            postfix: format!("hosts = {address}:{port}\nuser = {user}\ndbname = {database}\n"),
            active: "active",
        }
    }
}

fn dovecot_sql(folder: &Path, lookup: &Lookup) -> String {
    let Lookup { driver, connect, active, .. } = lookup;
    let home = format!("'{}/mail/' || maildir", folder.display());
    format!(
        "driver = {driver}\n\
         connect = {connect}\n\
         password_query = SELECT username AS user, password, {home} AS userdb_home, 'mail' AS userdb_uid, \
         'mail' AS userdb_gid, '*:bytes=' || quota AS userdb_quota_rule FROM mailbox WHERE username='%u' AND {active}\n\
         user_query = SELECT {home} AS home, 'mail' AS uid, 'mail' AS gid, '*:bytes=' || quota AS quota_rule \
         FROM mailbox WHERE username='%u' AND {active}\n"
    )
}

fn dovecot_conf(folder: &Path, imap_port: u16, lmtp_port: u16, doveadm_port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"protocols = imap lmtp
listen = 127.0.0.1
base_dir = {folder}/run
log_path = {folder}/dovecot.log
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_plugins = quota
auth_mechanisms = plain login
passdb {{
  driver = sql
  args = {folder}/dovecot-sql.conf
}}
userdb {{
  driver = prefetch
}}
userdb {{
  driver = sql
  args = {folder}/dovecot-sql.conf
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
protocol imap {{
  mail_plugins = quota imap_quota
}}
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
doveadm_api_key = {DOVEADM_KEY}
auth_cache_size = 1M
service doveadm {{
  inet_listener http {{
    port = {doveadm_port}
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
"#
    )
}

fn main_cf(folder: &Path, lookup: &Lookup, lmtp_port: u16) -> String {
    let (folder, driver) = (folder.display(), lookup.driver);
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/pq\n\
         data_directory = {folder}/pd\n\
         maillog_file = {folder}/postfix.log\n\
         maillog_file_prefixes = {folder}\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         myhostname = mx.example.net\n\
         mydestination =\n\
         smtpd_relay_restrictions = permit_mynetworks reject_unauth_destination\n\
         smtpd_recipient_restrictions = reject_unlisted_recipient permit_mynetworks reject\n\
         mynetworks = 127.0.0.0/8\n\
         virtual_mailbox_domains = {driver}:{folder}/pf-domains.cf\n\
         virtual_mailbox_maps = {driver}:{folder}/pf-mailboxes.cf\n\
         virtual_alias_maps = {driver}:{folder}/pf-aliases.cf\n\
         virtual_transport = lmtp:inet:127.0.0.1:{lmtp_port}\n\
         alias_maps =\n\
         alias_database =\n\
         smtpd_error_sleep_time = 0\n\
         biff = no\n"
    )
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("a configuration file");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

const MASTER: &str = "\
SMTP inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

//! Debian's FreeRADIUS over the tables the daemon fills, proxying accounting to the daemon; and clients for it.

use std::io::Write;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use md5::{Digest, Md5};

use super::daemon::NAS_SECRET;
use super::{free_udp_port, temp_dir, wait_for};

/// A running FreeRADIUS, ended by its pid.
pub struct FreeRadius {
    folder: PathBuf,
    pub auth_port: u16,
    pub accounting_port: u16,
    child: Child,
    _keep: tempfile::TempDir,
}

/// How a password travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Pap,
    Chap,
}

/// RFC 2865 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Reject,
}

/// False, with the reason printed, where this user may not read Debian's FreeRADIUS configuration.
pub fn may_run() -> bool {
    match std::fs::read(QUERIES) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("NOT RUN: {QUERIES} may not be read by this user");
            false
        }
        Err(error) => panic!("{QUERIES} (Debian package freeradius): {error}"),
        Ok(_) => true,
    }
}

impl FreeRadius {
    /// Starts it over the database of an `[aaa] url`; accounting goes on to `collector_port`.
    pub fn start(url: &str, collector_port: u16) -> Self {
        Self::start_at(url, collector_port, ("127.0.0.1", "127.0.0.0/8"), [free_udp_port(), free_udp_port()])
    }

    /// As `start`, listening on another address for NAS of another network, with given ports for logins and accounting.
    pub fn start_at(url: &str, collector_port: u16, (listen, network): (&str, &str), ports: [u16; 2]) -> Self {
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        let [auth_port, accounting_port] = ports;
        let config = CONFIG
            .replace("FOLDER", &folder.display().to_string())
            .replace("SQL_DRIVER", &sql_driver(url))
            .replace("AUTH_PORT", &auth_port.to_string())
            .replace("ACCOUNTING_PORT", &accounting_port.to_string())
            .replace("COLLECTOR_PORT", &collector_port.to_string())
            .replace("LISTEN", listen)
            .replace("NETWORK", network)
            .replace("SECRET", NAS_SECRET);
        std::fs::write(folder.join("radiusd.conf"), config).expect("a configuration file");
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let child = Command::new("freeradius")
            .args(["-fxx", "-l", "stdout", "-n", "radiusd", "-d"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("freeradius runs (Debian packages freeradius, freeradius-postgresql)");
        let server = Self { folder, auth_port, accounting_port, child, _keep: keep };
        wait_for("FreeRADIUS is ready", Duration::from_secs(20), || {
            let log = server.log();
            assert!(!log.contains("Errors reading or parsing") && !log.contains("Failed parsing"), "{log}");
            log.contains("Ready to process requests").then_some(())
        });
        server
    }

    /// What it logged, for a failing test.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Runs Debian's `radclient` with attributes as text and gives what it printed.
    pub fn radclient(&self, command: &str, attributes: &str) -> String {
        let port = if command == "acct" { self.accounting_port } else { self.auth_port };
        let mut child = Command::new("radclient")
            .args(["-x", "-r", "3", "-t", "3", &format!("127.0.0.1:{port}"), command, NAS_SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("radclient runs (Debian package freeradius-utils)");
        child.stdin.take().expect("its input").write_all(attributes.as_bytes()).expect("attributes are read");
        let output = child.wait_with_output().expect("radclient ends");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// A login with any octets in name and password; `radclient` reads some of them its own way.
    pub fn login(&self, user: &str, password: &str, method: Method) -> Verdict {
        let authenticator = [0x5a; 16];
        let mut attributes = attribute(1, user.as_bytes());
        attributes.extend(match method {
            Method::Pap => attribute(2, &hidden(password.as_bytes(), &authenticator)),
            Method::Chap => {
                let digest = Md5::new().chain_update([7]).chain_update(password).chain_update(authenticator).finalize();
                attribute(3, &[&[7], digest.as_slice()].concat())
            }
        });
        let length = u16::try_from(20 + attributes.len()).expect("a short packet").to_be_bytes();
        let packet = [&[1, 9], &length, authenticator.as_slice(), &attributes].concat();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket.send_to(&packet, ("127.0.0.1", self.auth_port)).expect("sent");
        let mut answer = [0u8; 4096];
        socket.recv(&mut answer).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        match answer[0] {
            2 => Verdict::Accept,
            3 => Verdict::Reject,
            code => panic!("answer code {code}"),
        }
    }
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len() + 2).expect("a short attribute");
    [&[kind, length], value].concat()
}

/// RFC 2865 section 5.2.
fn hidden(password: &[u8], authenticator: &[u8; 16]) -> Vec<u8> {
    let mut padded = password.to_vec();
    padded.resize(password.len().div_ceil(16).max(1) * 16, 0);
    let mut last = authenticator.to_vec();
    let mut out = Vec::new();
    for block in padded.chunks(16) {
        let mask = Md5::new().chain_update(NAS_SECRET).chain_update(&last).finalize();
        last = block.iter().zip(mask).map(|(octet, mask)| octet ^ mask).collect();
        out.extend_from_slice(&last);
    }
    out
}

fn sql_driver(url: &str) -> String {
    if let Some(path) = url.strip_prefix("sqlite://") {
        return format!(
            "dialect = \"sqlite\"\n    driver = \"rlm_sql_sqlite\"\n    sqlite {{\n      filename = \"{path}\"\n      \
             busy_timeout = 2000\n    }}\n    $INCLUDE /etc/freeradius/3.0/mods-config/sql/main/sqlite/queries.conf"
        );
    }
    let rest = url.strip_prefix("postgres://").expect("a database of one kind or the other");
    let (user, rest) = rest.split_once('@').expect("a user");
    let (host, database) = rest.split_once('/').expect("a database");
    let (address, port) = host.split_once(':').expect("a port");
    format!(
        "dialect = \"postgresql\"\n    driver = \"rlm_sql_postgresql\"\n    server = \"{address}\"\n    port = {port}\n    \
         login = \"{user}\"\n    radius_db = \"{database}\"\n    \
         $INCLUDE /etc/freeradius/3.0/mods-config/sql/main/postgresql/queries.conf"
    )
}

const QUERIES: &str = "/etc/freeradius/3.0/mods-config/sql/main/sqlite/queries.conf";
const CONFIG: &str = r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = FOLDER
run_dir = FOLDER
confdir = FOLDER
modconfdir = /etc/freeradius/3.0/mods-config
name = lastmile
pidfile = FOLDER/radiusd.pid
max_request_time = 10
max_requests = 4096
proxy_requests = yes
security {
  allow_core_dumps = no
  max_attributes = 200
  reject_delay = 0
  status_server = yes
}
log {
  destination = stdout
}
client lo {
  ipaddr = NETWORK
  secret = SECRET
}
home_server lastmile {
  type = acct
  ipaddr = 127.0.0.1
  port = COLLECTOR_PORT
  secret = SECRET
  status_check = status-server
  check_interval = 6
  check_timeout = 4
  num_answers_to_alive = 1
  zombie_period = 1
  response_window = 1
}
home_server_pool lastmile {
  type = fail-over
  home_server = lastmile
}
realm LASTMILE {
  acct_pool = lastmile
}
modules {
  pap { }
  chap { }
  expr { }
  always ok {
    rcode = ok
  }
  sql {
    acct_table1 = "radacct"
    acct_table2 = "radacct"
    postauth_table = "radpostauth"
    authcheck_table = "radcheck"
    groupcheck_table = "radgroupcheck"
    authreply_table = "radreply"
    groupreply_table = "radgroupreply"
    usergroup_table = "radusergroup"
    read_groups = yes
    client_table = "nas"
    group_attribute = "SQL-Group"
    pool {
      start = 1
      min = 1
      max = 4
      spare = 1
    }
    SQL_DRIVER
  }
}
server front {
  listen {
    type = auth
    ipaddr = LISTEN
    port = AUTH_PORT
  }
  listen {
    type = acct
    ipaddr = LISTEN
    port = ACCOUNTING_PORT
  }
  authorize {
    chap
    sql
    pap
  }
  authenticate {
    Auth-Type PAP {
      pap
    }
    Auth-Type CHAP {
      chap
    }
  }
  preacct {
    update control {
      &Proxy-To-Realm := "LASTMILE"
    }
  }
  accounting {
    ok
  }
}
"#;

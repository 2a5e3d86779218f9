//! NAS that take Disconnect- and CoA-Requests (RFC 5176): Debian's FreeRADIUS as a CoA server, and one whose manners a
//! test sets.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use md5::{Digest, Md5};

use super::{free_udp_port, temp_dir, wait_for};

/// FreeRADIUS that obeys: a session `unknown…` is not known (503), `forbidden…` may not be touched (501), `stubborn…`
/// may be ended and not changed (405).
pub struct Coa {
    folder: PathBuf,
    pub port: u16,
    child: Child,
    _keep: tempfile::TempDir,
}

impl Coa {
    pub fn start(secret: &str) -> Self {
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        let port = free_udp_port();
        let config = CONFIG
            .replace("FOLDER", &folder.display().to_string())
            .replace("COA_PORT", &port.to_string())
            .replace("SECRET", secret);
        std::fs::write(folder.join("radiusd.conf"), config).expect("a configuration file");
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let child = Command::new("freeradius")
            .args(["-fxx", "-l", "stdout", "-n", "radiusd", "-d"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("freeradius runs (Debian package freeradius)");
        let server = Self { folder, port, child, _keep: keep };
        wait_for("FreeRADIUS takes requests", Duration::from_secs(20), || {
            let log = server.log();
            assert!(!log.contains("Errors reading or parsing") && !log.contains("Failed parsing"), "{log}");
            log.contains("Ready to process requests").then_some(())
        });
        server
    }

    /// Every packet it accepted, attribute by attribute.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Coa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a `FakeNas` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripted {
    Silent,
    Ack,
}

/// A NAS on loopback that keeps every datagram it gets.
pub struct FakeNas {
    pub port: u16,
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    scripted: Arc<Mutex<Scripted>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeNas {
    pub fn start(secret: &str, scripted: Scripted) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let port = socket.local_addr().expect("an address").port();
        let packets: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let scripted = Arc::new(Mutex::new(scripted));
        let stop = Arc::new(AtomicBool::new(false));
        let secret = secret.to_owned();
        let (kept, script, stopped) = (packets.clone(), scripted.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                kept.lock().expect("no panic").push(datagram[..length].to_vec());
                if *script.lock().expect("no panic") == Scripted::Ack {
                    socket.send_to(&ack(&datagram[..length], &secret), from).expect("sent");
                }
            }
        });
        Self { port, packets, scripted, stop, thread: Some(thread) }
    }

    pub fn packets(&self) -> Vec<Vec<u8>> {
        self.packets.lock().expect("no panic").clone()
    }

    pub fn script(&self, scripted: Scripted) {
        *self.scripted.lock().expect("no panic") = scripted;
    }
}

impl Drop for FakeNas {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The ACK to a Disconnect- or CoA-Request: its code and one. RFC 5176 section 2.3.
pub fn ack(request: &[u8], secret: &str) -> Vec<u8> {
    answer(request, request[0] + 1, &[], secret)
}

/// An answer with attributes, signed.
pub fn answer(request: &[u8], code: u8, attributes: &[u8], secret: &str) -> Vec<u8> {
    let length = u16::try_from(20 + attributes.len()).expect("a short packet").to_be_bytes();
    let header = [code, request[1], length[0], length[1]];
    let signed = Md5::new()
        .chain_update(header)
        .chain_update(&request[4..20])
        .chain_update(attributes)
        .chain_update(secret)
        .finalize();
    [&header[..], signed.as_slice(), attributes].concat()
}

const CONFIG: &str = r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = FOLDER
run_dir = FOLDER
confdir = FOLDER
modconfdir = /etc/freeradius/3.0/mods-config
name = nas
pidfile = FOLDER/radiusd.pid
max_request_time = 10
max_requests = 4096
security {
  allow_core_dumps = no
  max_attributes = 200
  reject_delay = 0
}
log {
  destination = stdout
}
client lo {
  ipaddr = 127.0.0.0/8
  secret = SECRET
  require_message_authenticator = yes
}
modules {
  expr { }
  always ok {
    rcode = ok
  }
  always reject {
    rcode = reject
  }
}
server coa {
  listen {
    type = coa
    ipaddr = 127.0.0.1
    port = COA_PORT
  }
  recv-coa {
    if (&Acct-Session-Id =~ /^unknown/) {
      update reply {
        Error-Cause := Session-Context-Not-Found
      }
      reject
    }
    elsif (&Acct-Session-Id =~ /^forbidden/) {
      update reply {
        Error-Cause := Administratively-Prohibited
      }
      reject
    }
    elsif ((&Acct-Session-Id =~ /^stubborn/) && &Mikrotik-Rate-Limit) {
      update reply {
        Error-Cause := Unsupported-Service
      }
      reject
    }
    else {
      ok
    }
  }
  send-coa {
    ok
  }
}
"#;

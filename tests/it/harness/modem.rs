//! A cable modem made of real parts: Debian's snmpd with its answers in files, and a TFTP fetch whenever it is reset.
//!
//! `snmpd` passes the modem's objects to small shell scripts that read one file an object; what is set is written down.
//! A thread sees a reset, lets the modem be silent for its boot, fetches the file that DHCP would name and comes up.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait_for;

pub const COMMUNITY: &str = "plant-community";
/// SNMPv3 user of every test modem.
pub const USER: &str = "noc";
pub const AUTH_PASSWORD: &str = "auth-password-1";
pub const PRIVACY_PASSWORD: &str = "privacy-password-1";

pub const RESET_NOW: &str = "1.3.6.1.2.1.69.1.1.3.0";
pub const CONFIG_FILE: &str = "1.3.6.1.2.1.69.1.4.5.0";
pub const BOOT_STATE: &str = "1.3.6.1.2.1.69.1.4.1.0";
/// pktcMtaDevConfigFile.0 and pktcMtaDevConfigHash.0 of North American MTAs.
pub const MTA_FILE: &str = "1.3.6.1.4.1.4491.2.2.1.1.2.5.0";
pub const MTA_HASH: &str = "1.3.6.1.4.1.4491.2.2.1.1.2.7.0";
pub const CM3_STATUS: &str = "1.3.6.1.4.1.4491.2.1.20.1.1.1.1.2";

/// An SNMP agent of a modem or CMTS on an address of its own.
pub struct Agent {
    child: Child,
    folder: PathBuf,
    _keep: tempfile::TempDir,
    pub address: Ipv4Addr,
}

/// One modem: its agent and its life.
pub struct Modem {
    pub agent: Arc<Agent>,
    boots: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    life: Option<JoinHandle<()>>,
}

/// What a modem does when it boots.
#[derive(Clone)]
pub struct Behaviour {
    pub tftp: SocketAddr,
    /// The file's name that DHCP would hand out now.
    pub file: Arc<dyn Fn() -> String + Send + Sync>,
    pub boot: Duration,
    /// docsIf3CmStatusValue after a boot with network access on.
    pub operational: i64,
    /// Whether it comes up with the file at all; a CMTS with another secret refuses it.
    pub registers: Arc<AtomicBool>,
}

impl Agent {
    /// Starts snmpd on `address:port` with the objects given; only an object that is there can be set.
    pub fn start(address: Ipv4Addr, port: u16, objects: &[(&str, &str, &str)]) -> Self {
        Self::inside(None, address, port, objects)
    }

    /// As `start`, in a network namespace.
    pub fn inside(namespace: Option<&str>, address: Ipv4Addr, port: u16, objects: &[(&str, &str, &str)]) -> Self {
        let keep = super::temp_dir();
        let folder = keep.path().to_path_buf();
        std::fs::create_dir_all(folder.join("objects")).expect("a folder");
        std::fs::write(folder.join("pass.sh"), PASS).expect("a script");
        let passes: String = ["1.3.6.1.2.1.69", "1.3.6.1.2.1.10.127", "1.3.6.1.4.1"]
            .map(|oid| {
                format!("pass_persist .{oid} /bin/sh {} {}\n", folder.join("pass.sh").display(), folder.display())
            })
            .concat();
        let text = format!(
            "rwcommunity {COMMUNITY}\nagentaddress udp:{address}:{port}\ncreateUser {USER} SHA-256 \"{AUTH_PASSWORD}\" AES \
             \"{PRIVACY_PASSWORD}\"\nrwuser {USER} priv\n{passes}"
        );
        std::fs::write(folder.join("snmpd.conf"), text).expect("a configuration");
        let log = std::fs::File::create(folder.join("snmpd.log")).expect("a log file");
        let mut command = match namespace {
            None => Command::new("snmpd"),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "snmpd"]);
                command
            }
        };
        let child = command
            .args(["-f", "-Lo", "-C", "-c"])
            .arg(folder.join("snmpd.conf"))
            .env("SNMP_PERSISTENT_DIR", &folder)
            .env("MIBS", "")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("snmpd (Debian package snmpd) runs");
        let agent = Self { child, folder, _keep: keep, address };
        for (oid, kind, value) in objects {
            agent.set(oid, kind, value);
        }
        wait_for("snmpd listens", Duration::from_secs(10), || {
            std::fs::read_to_string(agent.folder.join("snmpd.log")).ok().filter(|log| log.contains("NET-SNMP version"))
        });
        agent
    }

    /// Gives an object a value; `kind` as snmpd's `pass` names it: integer, string, gauge, counter, timeticks.
    pub fn set(&self, oid: &str, kind: &str, value: &str) {
        let path = self.folder.join("objects").join(oid);
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("{kind}\n{value}\n")).expect("an object");
        std::fs::rename(fresh, path).expect("an object");
    }

    /// What was set from outside, in order: object and value.
    pub fn sets(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.folder.join("sets")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(oid, value)| (oid.to_owned(), value.to_owned()))
            .collect()
    }

    /// Lets the agent take a set and not answer it, until this is called again.
    pub fn hold_answers(&self, hold: bool) {
        let path = self.folder.join("hold");
        let done = if hold { std::fs::write(path, "") } else { std::fs::remove_file(path) };
        done.expect("a file");
    }

    /// How often it was told to reset.
    pub fn resets(&self) -> usize {
        self.sets().iter().filter(|(oid, _)| oid == RESET_NOW).count()
    }

    /// Lets the agent be silent, as a modem that is booting or off; one that took a reset is silent by itself until it is
    /// told to speak again.
    pub fn silence(&self, silent: bool) {
        if !silent {
            let _ = std::fs::remove_file(self.folder.join("booting"));
        }
        let signal = if silent { "-STOP" } else { "-CONT" };
        super::run("procps", "kill", &[signal, &self.child.id().to_string()]);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Modem {
    /// A modem that is off; `boot` turns it on.
    pub fn new(address: Ipv4Addr, port: u16, behaviour: Behaviour) -> Self {
        let agent = Arc::new(Agent::start(
            address,
            port,
            &[(RESET_NOW, "integer", "2"), (BOOT_STATE, "integer", "1"), (CONFIG_FILE, "string", "")],
        ));
        agent.silence(true);
        let (boots, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let life = {
            let (agent, boots, stop) = (Arc::clone(&agent), Arc::clone(&boots), Arc::clone(&stop));
            std::thread::spawn(move || live(&agent, &behaviour, &boots, &stop))
        };
        Self { agent, boots, stop, life: Some(life) }
    }

    /// Turns it on, or off and on.
    pub fn power_cycle(&self) {
        std::fs::write(self.agent.folder.join("power"), "").expect("a file");
    }

    /// How often it booted.
    pub fn boots(&self) -> u64 {
        self.boots.load(Ordering::SeqCst)
    }
}

impl Drop for Modem {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(life) = self.life.take() {
            let _ = life.join();
        }
    }
}

fn live(agent: &Agent, behaviour: &Behaviour, boots: &AtomicU64, stop: &AtomicBool) {
    let mut resets = 0;
    while !stop.load(Ordering::SeqCst) {
        let asked = agent.resets();
        let power = agent.folder.join("power");
        if asked == resets && !power.exists() {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        resets = asked;
        let _ = std::fs::remove_file(power);
        agent.silence(true);
        boots.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(behaviour.boot);
        while !stop.load(Ordering::SeqCst) {
            let name = (behaviour.file)();
            // A modem that does not get its file begins again.
            let Some(bytes) = fetch(agent.address, behaviour.tftp, &name) else {
                std::thread::sleep(behaviour.boot);
                continue;
            };
            if behaviour.registers.load(Ordering::SeqCst) {
                come_up(agent, behaviour.operational, &name, &bytes);
            }
            break;
        }
    }
    agent.silence(false);
}

/// What the modem tells once it runs a file.
pub fn come_up(agent: &Agent, operational: i64, name: &str, bytes: &[u8]) {
    // TLV 3 is the first of our files.
    let forwards = bytes.starts_with(&[3, 1, 1]);
    agent.set(CONFIG_FILE, "string", name);
    agent.set(CM3_STATUS, "integer", &if forwards { operational } else { 20 }.to_string());
    agent.set(BOOT_STATE, "integer", if forwards { "1" } else { "8" });
    agent.silence(false);
}

/// Fetches a file from an address of the modem's own, as its TFTP client would; `None` when it is refused.
pub fn fetch(from: Ipv4Addr, server: SocketAddr, name: &str) -> Option<Vec<u8>> {
    fetch_until_last(from, server, name, || ())
}

/// As `fetch`; `before_last` runs when the modem has the whole file and has not acknowledged its last block.
pub fn fetch_until_last(from: Ipv4Addr, server: SocketAddr, name: &str, before_last: impl FnOnce()) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((from, 0)).expect("an address of the modem");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    let request = [&[0, 1], name.as_bytes(), &[0], b"octet", &[0]].concat();
    let (mut blocks, mut buffer) = (BTreeMap::new(), [0u8; 1024]);
    let begun = Instant::now();
    socket.send_to(&request, server).ok()?;
    while begun.elapsed() < Duration::from_secs(10) {
        let Ok((octets, peer)) = socket.recv_from(&mut buffer) else {
            socket.send_to(&request, server).ok()?;
            continue;
        };
        match &buffer[..octets] {
            [0, 3, high, low, data @ ..] => {
                blocks.insert([*high, *low], data.to_vec());
                let is_last = data.len() < 512;
                if is_last {
                    before_last();
                    // Where the server is gone nobody takes it.
                    let _ = socket.send_to(&[0, 4, *high, *low], peer);
                    return Some(blocks.into_values().flatten().collect());
                }
                socket.send_to(&[0, 4, *high, *low], peer).ok()?;
            }
            _ => return None,
        }
    }
    None
}

/// snmpd's `pass_persist` protocol, for `pass` remembers an answer for half a minute: `get`, object → object, type, value;
/// `set`, object, type and value → DONE.
const PASS: &str = r#"
folder=$1
while read -r command; do
  case $command in
    PING) echo PONG ;;
    # What snmpd sends to be set ends with an empty line.
    "") ;;
    get)
      read -r oid
      while [ -e "$folder/booting" ]; do sleep 0.05; done
      oid=${oid#.}
      if [ -f "$folder/objects/$oid" ]; then echo ".$oid"; cat "$folder/objects/$oid"; else echo NONE; fi ;;
    getnext) read -r oid; echo NONE ;;
    # A modem answers its reset and then nothing: whoever asks it meanwhile must not find the one before.
    set) read -r oid; read -r kind value
      case ${oid#.} in 1.3.6.1.2.1.69.1.1.3.0) : > "$folder/booting" ;; esac
      echo "${oid#.} $value" >> "$folder/sets"
      while [ -e "$folder/hold" ]; do sleep 0.05; done
      echo DONE ;;
    *) echo NONE ;;
  esac
done
"#;

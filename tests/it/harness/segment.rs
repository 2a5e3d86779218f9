//! A cable segment in network namespaces: the servers are on this side, then a CMTS that relays with ISC's `dhcrelay`, and
//! behind it modems that boot with Debian's `udhcpc` and `tftp` and answer SNMP with Debian's snmpd.
//!
//! ```text
//! this machine 10.N.0.1 ── 10.N.0.2 CMTS 10.N.1.1, 10.N.2.1 ── bridge ── modem, modem, MTA
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::modem::{Agent, BOOT_STATE, CONFIG_FILE, RESET_NOW, come_up};
use super::{run, temp_dir};

/// The wires, and the CMTS at their middle; everything is gone when it is dropped.
pub struct Segment {
    /// The second octet of every address.
    pub net: u8,
    name: String,
    relay: Option<Child>,
    devices: u8,
}

/// A modem or MTA in a namespace of its own.
pub struct Device {
    namespace: String,
    class: &'static str,
    server: Ipv4Addr,
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

/// What the DHCP client was told with its acknowledgement, by the names udhcpc gives it.
#[derive(Debug)]
pub struct Told(BTreeMap<String, String>);

/// A modem with an SNMP agent: it boots when it is told to reset.
pub struct LivingModem {
    pub device: Device,
    agent: Agent,
    resets: usize,
    pub boots: u32,
}

/// The networks tried: tests of other worktrees may run beside.
static NEXT_NET: AtomicU8 = AtomicU8::new(100);
const LAST_NET: u8 = 220;

impl Segment {
    /// `Err`: why this machine cannot have one.
    pub fn new() -> Result<Self, String> {
        if run("coreutils", "id", &["-u"]).stdout != b"0\n" {
            return Err("network namespaces need root".to_owned());
        }
        loop {
            let net = NEXT_NET.fetch_add(1, Ordering::Relaxed);
            // The name of the pair is taken while another run has this network.
            let (name, cmts) = (format!("lmseg{net}"), format!("lmseg{net}-cmts"));
            if let Err(reason) = ip(&format!("netns add {cmts}")) {
                if reason.contains("File exists") && net < LAST_NET {
                    continue;
                }
                return Err(reason);
            }
            let segment = Self { net, name, relay: None, devices: 0 };
            segment.wire()?;
            return Ok(segment);
        }
    }

    fn wire(&self) -> Result<(), String> {
        let (net, name, cmts) = (self.net, &self.name, self.cmts());
        for line in [
            format!("link add {name} type veth peer name up0 netns {cmts}"),
            format!("addr add 10.{net}.0.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {cmts} link set lo up"),
            format!("-n {cmts} addr add 10.{net}.0.2/24 dev up0"),
            format!("-n {cmts} link set up0 up"),
            format!("-n {cmts} link add cable0 type bridge"),
            format!("-n {cmts} addr add 10.{net}.1.1/24 dev cable0"),
            format!("-n {cmts} addr add 10.{net}.2.1/24 dev cable0"),
            format!("-n {cmts} link set cable0 up"),
            format!("route add 10.{net}.1.0/24 via 10.{net}.0.2"),
            format!("route add 10.{net}.2.0/24 via 10.{net}.0.2"),
        ] {
            ip(&line)?;
        }
        let forward = inside(&cmts, "sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]).output();
        match forward {
            Ok(done) if done.status.success() => Ok(()),
            other => Err(format!("the CMTS cannot forward: {other:?}")),
        }
    }

    /// Where the servers listen.
    pub fn server(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net, 0, 1)
    }

    /// The CMTS as it relays: giaddr.
    pub fn relay_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net, 1, 1)
    }

    /// The interface of this machine on the segment.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Starts ISC's relay agent, which adds option 82 and takes it off the answers.
    pub fn start_relay(&mut self, folder: &Path) {
        let log = std::fs::File::create(folder.join("dhcrelay.log")).expect("a log");
        let child = inside(&self.cmts(), "dhcrelay")
            .args(["-4", "-d", "-a", "--no-pid", "-id", "cable0", "-iu", "up0"])
            .arg(self.server().to_string())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dhcrelay runs (Debian package isc-dhcp-relay)");
        self.relay = Some(child);
    }

    /// A device on the cable, off.
    pub fn device(&mut self, mac: &str, class: &'static str) -> Device {
        self.devices += 1;
        let (cmts, number) = (self.cmts(), self.devices);
        let namespace = format!("{}-d{number}", self.name);
        for line in [
            format!("netns add {namespace}"),
            format!("-n {cmts} link add dev{number} type veth peer name eth0 address {mac} netns {namespace}"),
            format!("-n {cmts} link set dev{number} master cable0"),
            format!("-n {cmts} link set dev{number} up"),
            format!("-n {namespace} link set lo up"),
            format!("-n {namespace} link set eth0 up"),
        ] {
            ip(&line).expect("a device on the cable");
        }
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        std::fs::write(folder.join("script"), SCRIPT).expect("a script");
        let mut permissions = std::fs::metadata(folder.join("script")).expect("the script").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        std::fs::set_permissions(folder.join("script"), permissions).expect("permissions");
        Device { namespace, class, server: self.server(), folder, _keep: keep }
    }

    fn cmts(&self) -> String {
        format!("{}-cmts", self.name)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(relay) = &mut self.relay {
            let _ = relay.kill();
            let _ = relay.wait();
        }
        let _ = ip(&format!("link delete {}", self.name));
        for number in 1..=self.devices {
            let _ = ip(&format!("netns delete {}-d{number}", self.name));
        }
        let _ = ip(&format!("netns delete {}", self.cmts()));
    }
}

impl Told {
    /// A value by udhcpc's name for it, empty when it was not told.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn address(&self) -> Ipv4Addr {
        self.get("ip").parse().expect("an address")
    }
}

impl Device {
    /// DISCOVER, OFFER, REQUEST, ACK with `udhcpc`; `None`: nobody answered.
    pub fn dhcp(&self) -> Option<Told> {
        let lease = self.folder.join("lease");
        let _ = std::fs::remove_file(&lease);
        let _ = inside(&self.namespace, "ip").args(["addr", "flush", "dev", "eth0"]).output();
        let done = inside(&self.namespace, "udhcpc")
            .args(["-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-A", "1", "-V", self.class])
            .args(["-O", "tftp", "-O", "bootfile", "-O", "122"])
            // Option 43: a modem with serial number, software and model.
            .args(["-x", "43:020345434d0406532d343731310605312e322e330905544d343032"])
            .arg("-s")
            .arg(self.folder.join("script"))
            .env("LEASE", &lease)
            .output()
            .expect("udhcpc runs (Debian package udhcpc)");
        let text = std::fs::read_to_string(lease).ok().filter(|_| done.status.success())?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Some(Told(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// Fetches a file with Debian's `tftp` from the well-known port; `Err`: what it printed.
    pub fn fetch(&self, name: &str) -> Result<Vec<u8>, String> {
        let target = self.folder.join("fetched");
        let _ = std::fs::remove_file(&target);
        let server = self.server.to_string();
        let done = inside(&self.namespace, "tftp")
            .args(["-m", "binary", &server, "-c", "get", name])
            .arg(&target)
            .output()
            .expect("tftp runs (Debian package tftp-hpa)");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let bytes = std::fs::read(&target).unwrap_or_default();
        if bytes.is_empty() || !said.trim().is_empty() { Err(said.trim().to_owned()) } else { Ok(bytes) }
    }
}

impl LivingModem {
    /// A modem that is off, with an agent on the well-known port of whatever address it gets.
    pub fn new(device: Device) -> Self {
        let agent = Agent::inside(
            Some(&device.namespace),
            Ipv4Addr::UNSPECIFIED,
            161,
            &[(RESET_NOW, "integer", "2"), (BOOT_STATE, "integer", "1"), (CONFIG_FILE, "string", "")],
        );
        agent.silence(true);
        Self { device, agent, resets: 0, boots: 0 }
    }

    /// Whether it was told to reset since it booted last.
    pub fn is_told_to_reset(&self) -> bool {
        self.agent.resets() > self.resets
    }

    /// DHCP, TFTP, and it comes up: what it was told, and its file. `None`: it tries again later.
    pub fn boot(&mut self) -> Option<(Told, Vec<u8>)> {
        self.resets = self.agent.resets();
        self.agent.silence(true);
        self.boots += 1;
        let told = self.device.dhcp()?;
        let bytes = self.device.fetch(told.get("boot_file")).ok()?;
        come_up(&self.agent, 12, told.get("boot_file"), &bytes);
        Some((told, bytes))
    }
}

/// Runs `ip`; the words it fails with.
fn ip(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    let done = run("iproute2", "ip", &words);
    let said = || format!("ip {line}: {}", String::from_utf8_lossy(&done.stderr).trim());
    if done.status.success() { Ok(()) } else { Err(said()) }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).stdin(Stdio::null());
    command
}

/// What udhcpc runs at each turn of its life: the address is taken and what was told is written down.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/${mask:-24}" dev eth0
router=${router:-${ip%.*}.1}
ip route replace default via "${router%% *}"
for name in ip mask router siaddr boot_file sname tftp bootfile serverid lease opt122; do
  eval "echo \"$name=\$$name\""
done > "$LEASE.new"
mv "$LEASE.new" "$LEASE"
"#;

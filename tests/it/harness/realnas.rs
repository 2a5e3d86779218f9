//! A NAS and a subscriber that nobody here wrote, in network namespaces of their own: Debian's ocserv asks FreeRADIUS,
//! openconnect logs in and moves octets through it. ocserv has no RFC 5176 listener: a Disconnect-Request is taken here and
//! handed to `occtl`, its own operator's command.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lastmile::radius::PacketView;
use md5::{Digest, Md5};

use super::daemon::NAS_SECRET;
use super::dynauth::{ack, answer};
use super::{run, temp_dir, wait_for};

/// Where FreeRADIUS listens for the NAS.
pub const SERVER: &str = "10.231.77.1";
const NAS: &str = "10.231.77.2";
const DOOR: &str = "10.231.78.1";
const SUBSCRIBER: &str = "10.231.78.2";
/// A host behind the NAS that sends as much as it is asked for.
const CONTENT: &str = "198.18.77.1";
const CONTENT_PORT: u16 = 8077;

/// False, with the reason printed, where this machine cannot play NAS and subscriber.
pub fn may_run() -> bool {
    let reason = if run("coreutils", "id", &["-u"]).stdout != b"0\n" {
        "namespaces and tunnels need root"
    } else if std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        "/dev/net/tun cannot be opened"
    } else if !run("iproute2", "ip", &["netns", "add", PROBE]).status.success() {
        "network namespaces cannot be made here"
    } else {
        run("iproute2", "ip", &["netns", "delete", PROBE]);
        return true;
    };
    println!("NOT RUN: {reason}");
    false
}

const PROBE: &str = "lastmile-probe";

/// The namespaces, joined to this one and to each other.
pub struct Wires {
    nas: String,
    subscriber: String,
}

impl Wires {
    fn new() -> Self {
        let own = std::process::id();
        let wires = Self { nas: format!("lm-nas-{own}"), subscriber: format!("lm-cpe-{own}") };
        let (nas, subscriber) = (wires.nas.as_str(), wires.subscriber.as_str());
        for line in [
            format!("netns add {nas}"),
            format!("netns add {subscriber}"),
            "link add lmnas0 type veth peer name lmnas1".to_owned(),
            format!("link set lmnas1 netns {nas}"),
            format!("addr add {SERVER}/24 dev lmnas0"),
            "link set lmnas0 up".to_owned(),
            format!("-n {nas} addr add {NAS}/24 dev lmnas1"),
            format!("-n {nas} link set lmnas1 up"),
            format!("-n {nas} link set lo up"),
            format!("-n {nas} addr add {CONTENT}/32 dev lo"),
            format!("-n {nas} link add lmcpe0 type veth peer name lmcpe1"),
            format!("-n {nas} link set lmcpe1 netns {subscriber}"),
            format!("-n {nas} addr add {DOOR}/24 dev lmcpe0"),
            format!("-n {nas} link set lmcpe0 up"),
            format!("-n {subscriber} addr add {SUBSCRIBER}/24 dev lmcpe1"),
            format!("-n {subscriber} link set lmcpe1 up"),
            format!("-n {subscriber} link set lo up"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let done = run("iproute2", "ip", &words);
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        wires
    }

    fn inside(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]).stdin(Stdio::null());
        command
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // The pair goes with either end.
        let _ = Command::new("ip").args(["link", "delete", "lmnas0"]).output();
        for name in [&self.nas, &self.subscriber] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// ocserv in its namespace, with the host behind it and the bridge for Disconnect-Requests.
pub struct RealNas {
    folder: PathBuf,
    /// Where Disconnect-Requests go, on loopback.
    pub coa_port: u16,
    pin: String,
    ocserv: Child,
    content: Child,
    bridge: Option<Bridge>,
    wires: Wires,
    _keep: tempfile::TempDir,
}

/// A subscriber's router that is logged in, or was.
pub struct Subscriber {
    child: Child,
    log: PathBuf,
}

impl RealNas {
    /// The namespaces, with which `SERVER` is an address of this machine.
    pub fn wires() -> Wires {
        Wires::new()
    }

    /// A NAS that asks FreeRADIUS at `SERVER` and these ports.
    pub fn start(wires: Wires, auth_port: u16, accounting_port: u16) -> Self {
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        let at = |name: &str| folder.join(name).display().to_string();
        let made = run(
            "openssl",
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                &at("key.pem"),
                "-out",
                &at("cert.pem"),
                "-days",
                "30",
                "-subj",
                "/CN=nas.test",
                "-addext",
                &format!("subjectAltName=IP:{DOOR}"),
            ],
        );
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pin = format!("pin-sha256:{}", public_key_pin(&at("cert.pem")));
        let fill = |text: &str| {
            text.replace("FOLDER", &folder.display().to_string())
                .replace("AUTH_PORT", &auth_port.to_string())
                .replace("ACCT_PORT", &accounting_port.to_string())
                .replace("RADIUS_HOST", SERVER)
                .replace("DOOR", DOOR)
                .replace("SECRET", NAS_SECRET)
        };
        for (name, text) in
            [("radius.conf", RADIUS), ("servers", SERVERS), ("ocserv.conf", OCSERV), ("script", VPNC_SCRIPT)]
        {
            std::fs::write(folder.join(name), fill(text)).expect("a file");
        }
        mode(&folder.join("servers"), 0o600);
        mode(&folder.join("script"), 0o755);
        let log = std::fs::File::create(folder.join("ocserv.log")).expect("a log file");
        let ocserv = wires
            .inside(&wires.nas, "ocserv")
            .args(["-f", "-d", "1", "-c", &at("ocserv.conf")])
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("ocserv runs (Debian package ocserv)");
        let content = wires.inside(&wires.nas, "perl").args(["-e", CONTENT_SERVER]).spawn().expect("perl runs");
        let bridge = Bridge::start(&folder.join("occtl.sock"));
        let nas =
            Self { coa_port: bridge.port, pin, ocserv, content, bridge: Some(bridge), wires, folder, _keep: keep };
        wait_for("ocserv answers its operator", Duration::from_secs(20), || {
            nas.occtl(&["show", "status"]).status.success().then_some(())
        });
        nas
    }

    /// Logs a subscriber in and waits until the tunnel has its address; `None` when the NAS refused.
    pub fn login(&self, user: &str, password: &str) -> Option<Subscriber> {
        let log_path = self.folder.join("openconnect.log");
        let log = std::fs::File::create(&log_path).expect("a log file");
        let mut child = self
            .wires
            .inside(&self.wires.subscriber, "openconnect")
            .args(["--protocol=anyconnect", "--passwd-on-stdin", "--non-inter", "--reconnect-timeout", "5"])
            .args(["--user", user, "--servercert", &self.pin, "--interface", "lmtun0", "--script"])
            .arg(self.folder.join("script"))
            .arg(format!("https://{DOOR}:4443"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("openconnect runs (Debian package openconnect)");
        use std::io::Write;
        writeln!(child.stdin.take().expect("its input"), "{password}").expect("the password is read");
        let mut subscriber = Subscriber { child, log: log_path };
        let up = wait_for("openconnect is connected, or has given up", Duration::from_secs(40), || {
            if self.folder.join("address").exists() {
                return Some(true);
            }
            subscriber.has_ended().then_some(false)
        });
        up.then_some(subscriber)
    }

    /// The address the NAS gave the tunnel.
    pub fn address(&self) -> String {
        std::fs::read_to_string(self.folder.join("address")).unwrap_or_default().trim().to_owned()
    }

    /// Fetches octets from the host behind the NAS through the tunnel; says how many came.
    pub fn download(&self, octets: u64) -> u64 {
        let fetched = self
            .wires
            .inside(&self.wires.subscriber, "perl")
            .args(["-e", CONTENT_CLIENT, &octets.to_string()])
            .output()
            .expect("perl runs");
        let text = String::from_utf8_lossy(&fetched.stdout).into_owned();
        text.trim().parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&fetched.stderr)))
    }

    /// What the NAS says of itself, for a failing test.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("ocserv.log")).unwrap_or_default()
    }

    fn occtl(&self, arguments: &[&str]) -> Output {
        let socket = self.folder.join("occtl.sock").display().to_string();
        run("ocserv", "occtl", &[&["-s", &socket], arguments].concat())
    }
}

impl Drop for RealNas {
    fn drop(&mut self) {
        self.bridge.take();
        for child in [&mut self.content, &mut self.ocserv] {
            // ocserv's workers end with their parent's orderly end.
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).output();
            std::thread::sleep(Duration::from_millis(300));
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Subscriber {
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes Disconnect-Requests and lets `occtl` end the sessions of the user they name.
struct Bridge {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    fn start(occtl_socket: &Path) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let port = socket.local_addr().expect("an address").port();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, occtl) = (stop.clone(), occtl_socket.display().to_string());
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                if let Some(reply) = obey(&datagram[..length], &occtl) {
                    socket.send_to(&reply, from).expect("sent");
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a request that is signed with the secret; nothing else is answered.
fn obey(request: &[u8], occtl: &str) -> Option<Vec<u8>> {
    let view = PacketView::parse(request).ok()?;
    let signed = Md5::new()
        .chain_update(&request[..4])
        .chain_update([0; 16])
        .chain_update(&request[20..])
        .chain_update(NAS_SECRET)
        .finalize();
    if view.code() != 40 || view.authenticator() != signed.as_slice() {
        return None;
    }
    let user = String::from_utf8(view.first(1)?.to_vec()).ok()?;
    let ended = run("ocserv", "occtl", &["-s", occtl, "disconnect", "user", &user]);
    if ended.status.success() {
        return Some(ack(request, NAS_SECRET));
    }
    // Error-Cause: Session Context Not Found.
    Some(answer(request, 42, &[101, 6, 0, 0, 1, 247], NAS_SECRET))
}

fn public_key_pin(certificate: &str) -> String {
    let pipeline = format!(
        "openssl x509 -in {certificate} -pubkey -noout | openssl pkey -pubin -outform der | \
         openssl dgst -sha256 -binary | openssl base64"
    );
    let made = run("dash", "sh", &["-c", &pipeline]);
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
}

const RADIUS: &str = "nas-identifier ocserv-1
authserver RADIUS_HOST:AUTH_PORT
acctserver RADIUS_HOST:ACCT_PORT
servers FOLDER/servers
dictionary /etc/radcli/dictionary
default_realm
radius_timeout 5
radius_retries 2
bindaddr *
";
const SERVERS: &str = "RADIUS_HOST SECRET\n";
const OCSERV: &str = r#"auth = "radius[config=FOLDER/radius.conf,groupconfig=true]"
acct = "radius[config=FOLDER/radius.conf]"
listen-host = DOOR
tcp-port = 4443
udp-port = 4443
run-as-user = nobody
run-as-group = daemon
socket-file = FOLDER/ocserv.sock
pid-file = FOLDER/ocserv.pid
occtl-socket-file = FOLDER/occtl.sock
use-occtl = true
server-cert = FOLDER/cert.pem
server-key = FOLDER/key.pem
isolate-workers = false
max-clients = 16
max-same-clients = 2
rate-limit-ms = 0
keepalive = 300
dpd = 30
try-mtu-discovery = false
cert-user-oid = 0.9.2342.19200300.100.1.1
tls-priorities = "NORMAL:%SERVER_PRECEDENCE"
auth-timeout = 40
min-reauth-time = 1
max-ban-score = 0
cookie-timeout = 30
rekey-time = 172800
device = lmv
predictable-ips = true
default-domain = example.net
ipv4-network = 10.231.80.0
ipv4-netmask = 255.255.255.0
route = 198.18.77.0/255.255.255.0
stats-report-time = 10
cisco-client-compat = true
dtls-legacy = true
"#;
/// What openconnect calls when the tunnel comes and goes.
const VPNC_SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
connect)
  ip link set "$TUNDEV" up
  ip addr add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
  ip route add 198.18.77.0/24 dev "$TUNDEV"
  echo "$INTERNAL_IP4_ADDRESS" > FOLDER/address ;;
disconnect) rm -f FOLDER/address ;;
esac
"#;
const CONTENT_SERVER: &str = r#"use IO::Socket::INET; $SIG{CHLD} = "IGNORE";
my $s = IO::Socket::INET->new(LocalAddr => "198.18.77.1", LocalPort => 8077, Listen => 5, ReuseAddr => 1) or die $!;
while (my $c = $s->accept) { next if fork; my $n = <$c>; my $b = "x" x 65536;
while ($n > 0) { my $k = $n < 65536 ? $n : 65536; my $w = syswrite($c, $b, $k); last unless $w; $n -= $w; } exit; }"#;
const CONTENT_CLIENT: &str = r#"use IO::Socket::INET; my $n = shift;
my $s = IO::Socket::INET->new(PeerAddr => "198.18.77.1", PeerPort => 8077, Timeout => 20) or die $!;
syswrite($s, "$n\n"); my $t = 0; alarm 100; while (my $r = sysread($s, my $b, 65536)) { $t += $r; } print "$t\n";"#;

#[test]
fn the_content_host_is_where_the_scripts_say() {
    for script in [CONTENT_SERVER, CONTENT_CLIENT] {
        assert!(script.contains(CONTENT) && script.contains(&CONTENT_PORT.to_string()));
    }
}

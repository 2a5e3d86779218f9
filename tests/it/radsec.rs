//! RADIUS over TLS on the real daemon: `radsecproxy` as the NAS that works, a TLS client of our own for everything a broken
//! or hostile one does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lastmile::radius::RequestBuilder;
use lastmile::vocabulary::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::harness::acme::radclient_raw;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{free_tcp_port, free_udp_port, http, pki, run, wait_for};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn radsecproxy_delivers_accounting_and_its_watchdog_is_answered() {
    let (site, port) = site("");
    let daemon = site.start();
    let proxy = Radsecproxy::start(&site, port, "bng1");
    for (kind, seconds, octets) in [("Start", 0, 0), ("Interim-Update", 60, 4000), ("Stop", 120, 9000)] {
        let report = format!(
            "User-Name = \"ada@acme\"\nAcct-Session-Id = \"s1\"\nAcct-Status-Type = {kind}\nNAS-Identifier = \"bng1\"\n\
             Acct-Session-Time = {seconds}\nAcct-Input-Octets = {octets}\nAcct-Output-Octets = 5\n"
        );
        let said = radclient_raw(proxy.port, "acct", "of-the-proxy", &report);
        assert!(said.contains("Received Accounting-Response"), "{kind}: {said}\n{}", site.log_text());
    }
    let csv = wait_for("the session is folded", SOON, || {
        let csv = site.succeed(&["export", "sessions"]);
        csv.lines().nth(1).filter(|line| line.contains(",9000,5,")).map(ToOwned::to_owned)
    });
    assert!(csv.starts_with("ada@acme,s1,9000,5,"), "{csv}");
    // The proxy asks with Status-Server as soon as nothing else was sent for a while.
    let requests = || metric(&site, "lastmile_radius_requests_total{nas=\"bng1\",kind=\"status\"}");
    wait_for("the watchdog", Duration::from_secs(60), || (requests() > 0.0).then_some(()));
    let answered = || metric(&site, "lastmile_radius_responses_total{nas=\"bng1\"}");
    wait_for("every request is answered", SOON, || (answered() >= 4.0).then_some(()));
    assert_eq!(metric(&site, "lastmile_radsec_connections{nas=\"bng1\"}"), 1.0);
    assert!(daemon.stop() < Duration::from_secs(5));
}

#[test]
fn nas_is_known_by_any_name_its_certificate_has() {
    let (site, port) = site("");
    pki::certificate(&site.folder, "authority", "uri", "nobody", "DNS:x.example,URI:urn:nas:7");
    pki::certificate(&site.folder, "authority", "ip", "nobody", "IP:2001:db8::7");
    pki::certificate(&site.folder, "authority", "cn", "bng9", "");
    pki::certificate(&site.folder, "authority", "print", "nobody", "DNS:y.example");
    let print =
        run("openssl", "openssl", &["x509", "-noout", "-fingerprint", "-sha256", "-in", &path(&site, "print.pem")]);
    let print = String::from_utf8(print.stdout).expect("text");
    let print = print.trim().split_once('=').expect("a fingerprint").1.to_owned();
    let more = format!(
        "[[radius.nas]]\nname = \"by-uri\"\ncertificate = \"uri:urn:nas:7\"\n\
         [[radius.nas]]\nname = \"by-ip\"\ncertificate = [\"dns:unused.example\", \"ip:2001:db8::7\"]\n\
         [[radius.nas]]\nname = \"by-cn\"\ncertificate = \"cn:bng9\"\n\
         [[radius.nas]]\nname = \"by-print\"\ncertificate = \"sha256:{print}\"\n[tftp]"
    );
    site.edit("[tftp]", &more);
    let _daemon = site.start();
    for (file, name) in [("bng1", "bng1"), ("uri", "by-uri"), ("ip", "by-ip"), ("cn", "by-cn"), ("print", "by-print")] {
        let mut nas = Tls::connect(&site, port, file, &[]).expect(name);
        assert_eq!(nas.ask(&start(3)).expect("an answer")[..2], [5, 3], "{name}");
        assert_eq!(metric(&site, &format!("lastmile_radius_responses_total{{nas=\"{name}\"}}")), 1.0, "{name}");
    }
}

#[test]
fn stranger_is_refused_with_a_line_that_says_what_to_do() {
    let (site, port) = site("");
    pki::certificate(&site.folder, "authority", "mallory", "mallory", "DNS:mallory.example");
    pki::authority(&site.folder, "strangers");
    pki::certificate(&site.folder, "strangers", "foreign", "bng1", "DNS:bng1.example");
    let _daemon = site.start();
    let mut unknown = Tls::connect(&site, port, "mallory", &[]).expect("its authority is ours");
    assert!(matches!(unknown.ask(&start(1)).as_deref(), None | Some([52, ..])), "a stranger was answered");
    told(&site, "no [[radius.nas]] has its certificate (CN=mallory, signed by CN=authority, valid until ");
    told(&site, "write certificate = \"dns:mallory.example\" to that NAS and reload");

    // With TLS 1.3 the client may believe in its handshake before it is refused.
    for (file, says) in [
        (Some("foreign"), "its certificate was not signed by the authority in [radius] radsec_tls.client_ca"),
        (None, "it showed no certificate"),
    ] {
        let refused = match file {
            Some(file) => Tls::connect(&site, port, file, &[]),
            None => Tls::open(&site, port, config(&site, None, &[], rustls::DEFAULT_VERSIONS)),
        };
        assert!(refused.ok().and_then(|mut nas| nas.ask(&start(1))).is_none(), "{says}");
        // One such line a minute: the second cause is in the counter.
        wait_for(says, SOON, || {
            (metric(&site, "lastmile_radsec_refused_total{reason=\"handshake\"}") > 0.0).then_some(())
        });
    }
    told(&site, "its certificate was not signed by the authority in [radius] radsec_tls.client_ca");
    assert_eq!(metric(&site, "lastmile_radsec_refused_total{reason=\"handshake\"}"), 2.0);
    assert_eq!(metric(&site, "lastmile_radsec_refused_total{reason=\"unknown_certificate\"}"), 1.0);

    // Whoever does not speak TLS at all.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("the port");
    plain.write_all(&start(1)).expect("sent");
    plain.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut answer = Vec::new();
    // An alert or a reset: anything but an answer.
    let _ = plain.read_to_end(&mut answer);
    assert_ne!(answer.first(), Some(&5), "RADIUS without TLS was answered");
    assert_eq!(records(&site), 0.0);
}

#[test]
fn radius_1_1_is_agreed_on_by_alpn_and_can_be_required_or_forbidden() {
    let (site, port) = site("");
    let daemon = site.start();
    let both: &[&[u8]] = &[b"radius/1.0", b"radius/1.1"];
    let mut nas = Tls::connect(&site, port, "bng1", both).expect("a handshake");
    assert_eq!(nas.alpn().as_deref(), Some(&b"radius/1.1"[..]));
    let answer = nas.ask(&with_token(0xcafe_f00d, &start(1))).expect("an answer");
    assert_eq!((&answer[..4], &answer[4..8]), (&[5, 0, 0, 20][..], &0xcafe_f00d_u32.to_be_bytes()[..]));
    assert_eq!(answer[8..], [0; 12]);
    let mut old = Tls::connect(&site, port, "bng1", &[b"radius/1.0"]).expect("a handshake");
    assert_eq!((old.alpn().as_deref(), old.ask(&start(2)).expect("an answer")[0]), (Some(&b"radius/1.0"[..]), 5));
    let mut none = Tls::connect(&site, port, "bng1", &[]).expect("a handshake");
    assert_eq!((none.alpn(), none.ask(&start(3)).expect("an answer")[0]), (None, 5));
    assert!(Tls::connect(&site, port, "bng1", &[b"h2"]).is_err(), "a foreign protocol gets an alert");
    let old_tls = config(&site, Some("bng1"), &[b"radius/1.1"], &[&rustls::version::TLS12]);
    let mut old_tls = Tls::open(&site, port, old_tls).expect("a handshake");
    assert!(
        matches!(old_tls.ask(&with_token(1, &start(4))).as_deref(), None | Some([52, ..])),
        "RADIUS/1.1 needs TLS 1.3"
    );

    site.edit("radsec = [", "radius_1_1 = \"require\"\nradsec = [");
    reload(&site, &daemon, 1);
    let mut none = Tls::connect(&site, port, "bng1", &[]).expect("a handshake");
    let said = none.ask(&start(5)).unwrap_or_default();
    assert!(!said.starts_with(&[5]), "historic RADIUS is not served any more");
    told(&site, "it does not offer RADIUS/1.1, which [radius] radius_1_1 = \"require\" asks for");
    assert!(Tls::connect(&site, port, "bng1", &[b"radius/1.0"]).is_err(), "an alert");
    let mut new = Tls::connect(&site, port, "bng1", both).expect("a handshake");
    assert_eq!(new.ask(&with_token(9, &start(6))).expect("an answer")[..8], [5, 0, 0, 20, 0, 0, 0, 9]);

    site.edit("radius_1_1 = \"require\"", "radius_1_1 = \"forbid\"");
    reload(&site, &daemon, 2);
    assert!(Tls::connect(&site, port, "bng1", &[b"radius/1.1"]).is_err(), "an alert");
    let mut old = Tls::connect(&site, port, "bng1", both).expect("a handshake");
    assert_eq!((old.alpn().as_deref(), old.ask(&start(7)).expect("an answer")[0]), (Some(&b"radius/1.0"[..]), 5));
    // What stood before the reloads still stands, with what it agreed on.
    assert!(nas.ask(&with_token(2, &start(8))).is_some());
}

#[test]
fn connections_are_limited_and_bad_packets_end_theirs() {
    let (site, port) = site("radsec_connections = 4\nradsec_connections_per_nas = 2");
    pki::certificate(&site.folder, "authority", "bng2", "bng2", "DNS:bng2.example");
    site.edit("[tftp]", "[[radius.nas]]\nname = \"bng2\"\ncertificate = \"dns:bng2.example\"\n[tftp]");
    let _daemon = site.start();
    let mut first = Tls::connect(&site, port, "bng1", &[]).expect("a handshake");
    let mut second = Tls::connect(&site, port, "bng1", &[]).expect("a handshake");
    assert!(first.ask(&start(1)).is_some() && second.ask(&start(1)).is_some());
    let third = Tls::connect(&site, port, "bng1", &[]).ok().and_then(|mut nas| nas.ask(&start(1)));
    assert!(third.is_none_or(|answer| answer[0] != 5), "one NAS has two connections at most");
    told(&site, "NAS bng1 has 2 connections, as many as [radius] radsec_connections_per_nas allows");
    // Connections in their handshake count too. On a busy machine an attempt may come before they are counted, take
    // their place and leave it again; then they are made anew.
    let mut idle: Vec<TcpStream> = Vec::new();
    wait_for("the fifth is refused", SOON, || {
        idle.extend((0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the port")));
        std::thread::sleep(Duration::from_millis(50));
        let other = Tls::connect(&site, port, "bng2", &[]).ok().and_then(|mut nas| nas.ask(&start(1)));
        other.is_none_or(|answer| answer[0] != 5).then_some(())
    });
    told(&site, "4 connections are open, as many as [radius] radsec_connections allows");
    drop(idle);
    wait_for("their places are free again", SOON, || {
        let mut other = Tls::connect(&site, port, "bng2", &[]).ok()?;
        other.ask(&start(1)).filter(|answer| answer[0] == 5)
    });

    // The usual mistake: the secret of UDP inside TLS.
    let wrong = RequestBuilder::accounting(9).integer(40, 1).sign(&Secret::new("testing123")).expect("small");
    assert_eq!(first.ask(&wrong), None, "the connection is closed");
    told(&site, "RadSec connection of bng1 from 127.0.0.1:");
    told(&site, "(inside TLS the secret is \"radsec\")");
    assert!(second.ask(&start(2)).is_some(), "the other connection stands");
    wait_for("its place is free", SOON, || {
        let mut again = Tls::connect(&site, port, "bng1", &[]).ok()?;
        again.ask(&start(3)).filter(|answer| answer[0] == 5)
    });
}

#[test]
fn renewed_certificates_serve_new_connections_and_old_ones_stay() {
    let (site, port) = site("");
    let daemon = site.start();
    let mut kept = Tls::connect(&site, port, "bng1", &[]).expect("a handshake");
    assert!(kept.ask(&start(1)).is_some());
    // Everything from another authority: the server's certificate, the NAS' certificate and who may sign it.
    pki::authority(&site.folder, "authority");
    for (name, alternatives) in [("server", "IP:127.0.0.1"), ("bng2", "DNS:bng1.example")] {
        pki::certificate(&site.folder, "authority", name, name, alternatives);
    }
    reload(&site, &daemon, 1);
    assert!(kept.ask(&start(2)).is_some(), "the connection stands");
    let old = Tls::connect(&site, port, "bng1", &[]).ok().and_then(|mut nas| nas.ask(&start(3)));
    assert!(old.is_none(), "the authority of the old certificate is gone");
    let mut renewed = Tls::connect(&site, port, "bng2", &[]).expect("a handshake");
    assert!(renewed.ask(&start(4)).is_some());
    assert!(kept.ask(&start(5)).is_some());

    site.edit("certificate = \"dns:bng1.example\"", "certificate = \"dns:elsewhere.example\"");
    reload(&site, &daemon, 2);
    assert_eq!(kept.ask(&start(6)), None, "its NAS is gone");
    assert_eq!(records(&site), 4.0);
    assert!(daemon.stop() < Duration::from_secs(5));
}

#[test]
fn faults_are_named_with_their_place() {
    let (site, _) = site("");
    let whole = std::fs::read_to_string(&site.config).expect("the configuration");
    let tls = "radsec_tls = { cert = \"server.pem\", key = \"server.key\", client_ca = \"authority.pem\" }";
    for (from, to, says) in [
        (tls, "", "radius: radsec needs radsec_tls = { cert, key, client_ca }"),
        (", client_ca = \"authority.pem\"", "", "radius.radsec_tls.client_ca: is required"),
        ("client_ca = \"authority.pem\"", "client_ca = \"absent.pem\"", "radius.radsec_tls.client_ca: "),
        ("radsec_tls", "radius_1_1 = \"maybe\"\nradsec_tls", "is \"maybe\"; it can be allow, require, forbid"),
        ("radsec_tls", "radsec_connections = 0\nradsec_tls", "radius.radsec_connections: must be a whole number"),
        ("\"dns:bng1.example\"", "\"bng1.example\"", "does not say what to compare; write dns:NAME"),
        ("\"dns:bng1.example\"", "[\"dns:a\", \"dns:a\"]", "dns:a is already given as radius.nas[0].certificate"),
        ("\"dns:bng1.example\"", "\"dns:a\"\nsecret = \"x\"", "secret is for UDP, which needs address too"),
        (
            "\"dns:bng1.example\"",
            "\"dns:a\"\nsecret = \"radsec\"",
            "everybody knows and which protects only inside TLS",
        ),
        ("certificate = \"dns:bng1.example\"", "", "radius.nas[0].address: is required"),
        ("certificate = \"dns:bng1.example\"", "address = \"127.0.0.1\"", "a NAS needs secret or secret_file"),
    ] {
        std::fs::write(&site.config, whole.replacen(from, to, 1)).expect("the configuration");
        let checked = site.lastmile(&["check-config"]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(3), "{to}: {said}");
        let line = said.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{says:?} is not in {said}"));
        assert!(line.starts_with(&format!("{}:", site.config.display())) || line.contains("lastmile.toml:"), "{line}");
    }
    std::fs::write(&site.config, whole.replacen("radsec = [", "# [", 1)).expect("the configuration");
    let said = site.lastmile(&["check-config"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("but no radsec to listen on"), "{said:?}");
}

/// `radsecproxy` as a NAS: UDP from `radclient` on one side, RadSec to us on the other.
struct Radsecproxy {
    child: Child,
    port: u16,
}

impl Radsecproxy {
    fn start(site: &Site, port: u16, certificate: &str) -> Self {
        let udp = free_udp_port();
        let text = format!(
            "ListenUDP 127.0.0.1:{udp}\nLogLevel 2\nLogDestination file://{log}\n\
             tls default {{\n CACertificateFile {ca}\n CertificateFile {cert}\n CertificateKeyFile {key}\n}}\n\
             client radclient {{\n host 127.0.0.1\n type udp\n secret of-the-proxy\n}}\n\
             server lastmile {{\n host 127.0.0.1\n type tls\n port {port}\n secret radsec\n statusserver on\n}}\n\
             realm * {{\n server lastmile\n accountingserver lastmile\n}}\n",
            log = path(site, "radsecproxy.log"),
            ca = path(site, "authority.pem"),
            cert = path(site, &format!("{certificate}.pem")),
            key = path(site, &format!("{certificate}.key")),
        );
        std::fs::write(site.path("radsecproxy.conf"), text).expect("a file");
        let child = Command::new("radsecproxy")
            .args(["-f", "-c", &path(site, "radsecproxy.conf")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("radsecproxy runs (Debian package radsecproxy)");
        wait_for("radsecproxy is connected", SOON, || {
            (metric(site, "lastmile_radsec_connections{nas=\"bng1\"}") > 0.0).then_some(())
        });
        Self { child, port: udp }
    }
}

impl Drop for Radsecproxy {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TLS client that says whatever a test wants.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// **Errors**: what the handshake ended with.
    fn connect(site: &Site, port: u16, certificate: &str, alpn: &[&[u8]]) -> Result<Self, std::io::Error> {
        Self::open(site, port, config(site, Some(certificate), alpn, rustls::DEFAULT_VERSIONS))
    }

    fn open(_site: &Site, port: u16, config: ClientConfig) -> Result<Self, std::io::Error> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(SOON))?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a client");
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self(StreamOwned::new(session, socket)))
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.0.conn.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The next packet that comes after sending this one; `None` when the connection is closed instead.
    fn ask(&mut self, packet: &[u8]) -> Option<Box<[u8]>> {
        let began = Instant::now();
        // A connection that is closed already may fail here or while reading.
        self.0.write_all(packet).ok()?;
        let mut octets = vec![0; 4];
        let read = self.0.read_exact(&mut octets);
        assert!(began.elapsed() < SOON, "neither an answer nor the end of the connection");
        read.ok()?;
        octets.resize(usize::from(u16::from_be_bytes([octets[2], octets[3]])), 0);
        self.0.read_exact(&mut octets[4..]).ok()?;
        Some(octets.into())
    }
}

fn config(
    site: &Site,
    certificate: Option<&str>,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let found = CertificateDer::pem_file_iter(site.path(&format!("{name}.pem"))).expect("a file");
        found.collect::<Result<_, _>>().expect("certificates")
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("authority") {
        roots.add(authority).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(site.path(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(certificates(name), key).expect("a certificate with its key")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// A site whose only NAS is `bng1`, over RadSec, and the port it connects to. `more` are further keys of `[radius]`.
fn site(more: &str) -> (Site, u16) {
    let site = Site::sqlite();
    let port = free_tcp_port();
    let accounting = format!("accounting = [\"127.0.0.1:{}\"]", site.radius_port);
    let radsec = format!(
        "{accounting}\nradsec = [\"127.0.0.1:{port}\"]\n\
         radsec_tls = {{ cert = \"server.pem\", key = \"server.key\", client_ca = \"authority.pem\" }}\n{more}"
    );
    site.edit(&accounting, &radsec);
    site.edit("address = \"127.0.0.0/8\"\nsecret = \"testing123\"", "certificate = \"dns:bng1.example\"");
    site.edit("identity = \"nas-identifier\"\n", "");
    pki::authority(&site.folder, "authority");
    pki::certificate(&site.folder, "authority", "server", "collector", "IP:127.0.0.1");
    pki::certificate(&site.folder, "authority", "bng1", "bng1", "DNS:BNG1.example");
    site.succeed(&["migrate"]);
    (site, port)
}

fn start(identifier: u8) -> Vec<u8> {
    let session = format!("session-{identifier}");
    let builder = RequestBuilder::accounting(identifier).integer(40, 1).text(44, &session).text(32, "bng1");
    builder.sign(&Secret::new("radsec")).expect("small")
}

/// The same request as RADIUS/1.1 (RFC 9765 section 4.1).
fn with_token(token: u32, request: &[u8]) -> Vec<u8> {
    let mut octets = request.to_vec();
    octets[1] = 0;
    octets[4..20].fill(0);
    octets[4..8].copy_from_slice(&token.to_be_bytes());
    octets
}

fn reload(site: &Site, daemon: &Daemon, nth: usize) {
    daemon.signal("HUP");
    let reloads = || metric(site, "lastmile_reloads_total{result=\"applied\"}");
    wait_for("the reload", SOON, || (reloads() >= nth as f64).then_some(()));
}

fn told(site: &Site, what: &str) {
    wait_for(what, SOON, || site.log_text().contains(what).then_some(()));
}

fn records(site: &Site) -> f64 {
    metric(site, "lastmile_journal_records_total")
}

fn path(site: &Site, name: &str) -> String {
    site.path(name).display().to_string()
}

/// The value of a metric; 0 when it is not there.
fn metric(site: &Site, name: &str) -> f64 {
    let text = http::request(site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    value.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

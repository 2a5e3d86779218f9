//! HTTPS with certificates of the `openssl` program: TLS only, client certificates, renewal under load, unfit files.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{http, pki, run, wait_for};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn https_is_served_and_plain_http_on_that_port_is_not() {
    let site = site_with_tls("");
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = start(&site, &[]);
    let bearer = format!("Authorization: Bearer {key}");
    let body = internet(1).to_string();
    let url = format!("https://127.0.0.1:{}/v1/tenants/acme/accounts/a1", site.http_port);
    let json = "Content-Type: application/json";
    let pushed = curl(&site, &["-w", "\n%{http_code}", "-X", "PUT", "-H", &bearer, "-H", json, "-d", &body, &url]);
    assert!(text(&pushed).ends_with("\n201"), "{pushed:?}");
    let read = curl(&site, &["-H", &bearer, &url]);
    let account: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    assert_eq!(account["services"][0]["id"], "1-1", "{account:#}");

    let stranger = run("curl", "curl", &["-sS", "--max-time", "10", &url]);
    assert_eq!(stranger.status.code(), Some(60), "an unknown authority is not trusted: {stranger:?}");
    let plain = http::request(site.http_port, "GET", "/healthz", &[], None);
    assert!(plain.is_err(), "{plain:?}");
    assert!(daemon.stop() < Duration::from_secs(5));
}

#[test]
fn client_without_a_certificate_of_the_authority_is_turned_away() {
    let site = site_with_tls(", client_ca = \"clients.pem\"");
    authority(&site, "clients");
    authority(&site, "strangers");
    certificate(&site, "clients", "crm", "crm");
    certificate(&site, "strangers", "mallory", "mallory");
    let with = |name: &str| {
        let (cert, key) = (file(&site, &format!("{name}.pem")), file(&site, &format!("{name}.key")));
        ["--cert".to_owned(), cert, "--key".to_owned(), key]
    };
    let crm = with("crm");
    let crm: Vec<&str> = crm.iter().map(String::as_str).collect();
    let _daemon = start(&site, &crm);
    let url = health(&site);
    assert_eq!(text(&curl(&site, &[&crm[..], &["-o", "/dev/null", "-w", "%{http_code}", &url]].concat())), "200");
    let bare = curl(&site, &[&url]);
    assert!(!bare.status.success() && bare.stdout.is_empty(), "{bare:?}");
    let mallory = with("mallory");
    let mallory: Vec<&str> = mallory.iter().map(String::as_str).chain([url.as_str()]).collect();
    let refused = curl(&site, &mallory);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
}

#[test]
fn renewed_certificate_is_taken_without_dropping_a_connection() {
    let site = site_with_tls("");
    let daemon = start(&site, &[]);
    assert_eq!(served_name(&site), "first");
    // A client that stays connected over the reload.
    let mut kept = Kept::connect(&site);
    kept.ask(1);

    certificate(&site, "authority", "server", "renewed");
    daemon.signal("HUP");
    wait_for("the renewed certificate is served", SOON, || {
        let answer = curl(&site, &["-o", "/dev/null", "-w", "%{http_code}", &health(&site)]);
        assert_eq!(text(&answer), "200", "no request fails meanwhile: {answer:?}");
        (served_name(&site) == "renewed").then_some(())
    });
    kept.ask(2);

    // A renewal that went wrong changes nothing and is told with its place.
    std::fs::write(site.path("server.pem"), "half a certif").expect("a file");
    daemon.signal("HUP");
    wait_for("the fault is told", SOON, || site.log_text().contains("not reloaded").then_some(()));
    let log = site.log_text();
    assert!(log.contains("lastmile.toml:7:") && log.contains("api.tls.cert"), "{log}");
    assert_eq!(served_name(&site), "renewed");
    kept.ask(3);
}

#[test]
fn unfit_certificate_is_named_by_check_config_and_by_the_start() {
    let site = site_with_tls(", client_ca = \"authority.pem\"");
    let (good, key) = (read(&site, "server.pem"), read(&site, "server.key"));
    certificate(&site, "authority", "other", "other");
    let other = read(&site, "other.key");
    let cases: [(&str, Option<&str>, &str); 6] = [
        ("server.pem", None, "cannot be read: No such file"),
        ("server.pem", Some("not a certificate"), "holds no certificate"),
        ("server.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "no certificate"),
        ("server.key", Some(&good), "holds no private key"),
        ("server.key", Some(&other), "is not the key of the certificate"),
        ("authority.pem", Some(""), "holds no certificate"),
    ];
    let authority = read(&site, "authority.pem");
    for (name, content, expected) in cases {
        match content {
            Some(content) => std::fs::write(site.path(name), content).expect("a file"),
            None => std::fs::remove_file(site.path(name)).expect("the file"),
        }
        let checked = site.lastmile(&["check-config"]);
        let said = text(&checked);
        assert_eq!(checked.status.code(), Some(3), "{name}, {expected}: {checked:?}");
        assert!(said.contains("lastmile.toml:7:") && said.contains("api.tls.") && said.contains(name), "{said}");
        assert!(said.contains(expected), "{expected:?} is not in {said}");
        let served = site.lastmile(&["serve"]);
        let said = String::from_utf8_lossy(&served.stderr).into_owned();
        assert_eq!(served.status.code(), Some(1), "{name}, {expected}: {said}");
        assert!(said.contains("[api] tls.") && said.contains(name) && said.contains(expected), "{said}");
        assert!(!site.path("lastmile.db").exists(), "nothing is touched before");
        for (name, content) in [("server.pem", &good), ("server.key", &key), ("authority.pem", &authority)] {
            std::fs::write(site.path(name), content).expect("a file");
        }
    }
    assert_eq!(site.lastmile(&["check-config"]).status.code(), Some(0));
}

/// A connection of `openssl s_client` that asks more than once.
struct Kept {
    child: Child,
    answers: std::path::PathBuf,
}

impl Kept {
    fn connect(site: &Site) -> Self {
        let answers = site.path("kept");
        let output = std::fs::File::create(&answers).expect("a file");
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", site.http_port)])
            .args(["-CAfile", &file(site, "authority.pem")])
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs (Debian package openssl)");
        Self { child, answers }
    }

    fn ask(&mut self, nth: usize) {
        let input = self.child.stdin.as_mut().expect("its input");
        input.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the connection stands");
        wait_for("an answer on the kept connection", SOON, || {
            let answers = std::fs::read_to_string(&self.answers).expect("answers");
            (answers.matches("HTTP/1.1 200").count() == nth).then_some(())
        });
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site whose API has a certificate of its own authority; `more` are further keys of `tls`.
fn site_with_tls(more: &str) -> Site {
    let site = Site::sqlite();
    let listen = format!("listen = \"127.0.0.1:{}\"", site.http_port);
    site.edit(&listen, &format!("{listen}\ntls = {{ cert = \"server.pem\", key = \"server.key\"{more} }}"));
    authority(&site, "authority");
    certificate(&site, "authority", "server", "first");
    site
}

fn start(site: &Site, client: &[&str]) -> Daemon {
    let daemon = site.spawn();
    wait_for("HTTPS answers", SOON, || curl(site, &[client, &[&health(site)]].concat()).status.success().then_some(()));
    daemon
}

fn authority(site: &Site, name: &str) {
    pki::authority(&site.folder, name);
}

/// Issues `<file>.pem` and `<file>.key` for loopback, with `name` as its common name.
fn certificate(site: &Site, authority: &str, name: &str, common_name: &str) {
    pki::certificate(&site.folder, authority, name, common_name, "IP:127.0.0.1");
}

/// Common name of the certificate the daemon shows now.
fn served_name(site: &Site) -> String {
    let output = curl(site, &["-v", "-o", "/dev/null", &health(site)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let subject = said.lines().find_map(|line| line.split_once("subject: ")).map(|(_, subject)| subject);
    let subject = subject.unwrap_or_else(|| panic!("no certificate in {said}"));
    subject.trim_start_matches("CN").trim_start_matches([' ', '=']).trim().to_owned()
}

fn curl(site: &Site, arguments: &[&str]) -> Output {
    let authority = file(site, "authority.pem");
    run("curl", "curl", &[&["-sS", "--max-time", "10", "--cacert", &authority], arguments].concat())
}

fn health(site: &Site) -> String {
    format!("https://127.0.0.1:{}/healthz", site.http_port)
}

fn file(site: &Site, name: &str) -> String {
    site.path(name).display().to_string()
}

fn read(site: &Site, name: &str) -> String {
    std::fs::read_to_string(site.path(name)).expect("a file")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

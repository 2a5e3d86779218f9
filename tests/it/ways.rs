//! The ways in of billing systems: every sample through its profile to what is provisioned, who may send, what is put aside
//! and tried again, folders and connections; on both databases where the store decides.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastmile::tls::TlsFiles;
use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::http::{self, Answer};
use crate::harness::pki::{authority, certificate};
use crate::harness::{free_tcp_port, run, temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// What the shipped profiles' samples name.
const SAMPLED: &str = r#"
[quarantine]
mailbox_days = 0
number_days = 0
"#;
const INTERNET: [&str; 16] = [
    "NET25",
    "cable-100",
    "NET300",
    "I100",
    "silver",
    "gold",
    "NET100",
    "splynx-tariff-17",
    "home-50",
    "dsl-10",
    "res-25",
    "uisp-9",
    "biz",
    "I25",
    "HSD100",
    "tv",
];
const VOICE: [&str; 3] = ["POTSIP", "TEL1", "TEL"];
const CYCLES: [(&str, u8); 4] = [("monthly", 1), ("day-1", 1), ("day-15", 15), ("day-17", 17)];

/// The tenant's catalog with everything the samples buy.
fn catalog() -> String {
    let mut text =
        CATALOG.replace("mail_domains = [\"acme.example\"]", "mail_domains = [\"acme.example\", \"example.net\"]");
    for (id, day) in CYCLES {
        text.push_str(&format!(
            "\n[[bill_cycle]]\nid = \"{id}\"\nanchor_day = {day}\nevery = \"month\"\ntimezone = \"America/Chicago\"\nclose = \"manual\"\n"
        ));
    }
    for id in INTERNET {
        text.push_str(&format!(
            "\n[[plan]]\nid = \"{id}\"\nservice = \"internet\"\ntariff = \"res-100\"\ndocsis = {{ downstream = \"100M\", upstream = \"20M\", max_cpe = 2, version = \"3.0\" }}\nradius = {{ group = \"{id}\" }}\n"
        ));
    }
    for id in VOICE {
        text.push_str(&format!("\n[[plan]]\nid = \"{id}\"\nservice = \"voice\"\ntariff = \"voice-basic\"\n"));
    }
    text.push_str("\n[[plan]]\nid = \"mail\"\nservice = \"email\"\ntariff = \"mail-5g\"\n");
    text + SAMPLED
}

fn octets(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sources/in").join(name)).expect("a sample")
}

fn sample(name: &str) -> String {
    String::from_utf8(octets(name)).expect("a sample in UTF-8")
}

/// A request without a key below the tenant.
fn post(site: &Site, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let path = format!("/v1/tenants/acme/{path}");
    http::request(site.http_port, "POST", &path, headers, Some(body)).expect("an answer")
}

fn send(site: &Site, key: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    post(site, path, &[("Authorization", &bearer)], body)
}

fn get(daemon: &Daemon, key: &str, path: &str) -> Value {
    let answer = daemon.api(key, "GET", &format!("acme/{path}"), None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn both(journey: impl Fn(Site)) {
    journey(Site::sqlite());
    journey(Site::postgres());
}

fn sql(url: &str, statement: &str) -> String {
    let path = url.strip_prefix("sqlite://").expect("a file");
    let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", path, statement]);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// RADIUS group of a login, or nothing.
fn group(site: &Site, username: &str) -> String {
    if !site.path("aaa.db").exists() {
        return String::new();
    }
    sql(&site.aaa_url, &format!("SELECT groupname FROM radusergroup WHERE username = '{username}' ORDER BY 1"))
}

/// A billing system: what it sends in which order, then each account's status with its services, what is put aside, and a
/// login or a modem that must be there.
struct System {
    source: &'static str,
    sends: &'static [(&'static str, &'static str)],
    accounts: &'static [(&'static str, &'static str, &'static [&'static str])],
    aside: i64,
    login: Option<(&'static str, &'static str)>,
    modem: Option<&'static str>,
}

const SYSTEMS: &[System] = &[
    System {
        source: "billmax",
        sends: &[
            ("billmax-service", "billmax-service.new.env"),
            ("billmax-account", "billmax-account.change.env"),
            ("billmax-service", "billmax-service.unknown.env"),
        ],
        accounts: &[("20931", "active", &["40117", "40117-mail"])],
        aside: 1,
        login: Some(("jdoe", "cable-100")),
        modem: Some("02:00:5e:10:20:30"),
    },
    System {
        source: "icoms",
        sends: &[("icoms", "icoms.order.xml"), ("icoms", "icoms.disconnect.xml")],
        accounts: &[("26-104118503", "active", &["26-104118503-T1"])],
        aside: 0,
        login: None,
        modem: Some("02:00:5e:10:20:36"),
    },
    System {
        source: "glds",
        sends: &[("glds-wincable", "glds-wincable.report.csv")],
        accounts: &[
            ("101-00231", "active", &["101-00231/I100", "101-00231/TEL"]),
            ("101-00232", "active", &["101-00232/I25"]),
        ],
        aside: 1,
        login: None,
        modem: Some("02:00:5e:10:20:34"),
    },
    System {
        source: "omnia",
        sends: &[("omnia360", "omnia360.extract.csv")],
        accounts: &[("30044", "active", &["30044/NET100", "30044/POTSIP"]), ("30045", "active", &["30045/NET300"])],
        aside: 2,
        login: None,
        modem: Some("02:00:5e:10:20:37"),
    },
    System {
        source: "azar",
        sends: &[("azar", "azar.nightly.txt"), ("azar", "azar.faults.txt")],
        accounts: &[
            ("0000010044", "active", &["0000010044-1"]),
            ("0000010045", "terminated", &["0000010045-1"]),
            ("0000010049", "active", &["0000010049-1"]),
        ],
        aside: 3,
        login: None,
        modem: Some("02:00:5e:10:20:38"),
    },
    System {
        source: "grown",
        sends: &[
            ("homegrown-csv", "homegrown-csv.customers.csv"),
            ("homegrown-fixed", "homegrown-fixed.subscribers.txt"),
        ],
        accounts: &[("A-17", "active", &["A-17-1"]), ("00000901", "active", &["00000901-1"])],
        aside: 2,
        login: None,
        modem: None,
    },
    System {
        source: "splynx",
        sends: &[
            ("splynx-customer", "splynx-customer.edit.json"),
            ("splynx-service", "splynx-service.create.json"),
            ("splynx-service", "splynx-service.other.json"),
        ],
        accounts: &[("311", "suspended", &["905"])],
        aside: 0,
        login: Some(("jdoe-905", "")),
        modem: None,
    },
    System {
        source: "sonar",
        sends: &[("sonar", "sonar.updated.json")],
        accounts: &[("4711", "suspended", &[])],
        aside: 0,
        login: None,
        modem: None,
    },
    System {
        source: "uisp",
        sends: &[
            ("uisp-client", "uisp-client.edit.json"),
            ("uisp-service", "uisp-service.edit.json"),
            ("uisp-service", "uisp-service.suspend.json"),
        ],
        accounts: &[("164", "active", &["324"])],
        aside: 0,
        login: None,
        modem: Some("02:00:5e:10:20:33"),
    },
    System {
        source: "powercode",
        sends: &[("powercode", "powercode.customers.json")],
        accounts: &[("7001", "active", &["7001-internet"]), ("7002", "suspended", &["7002-internet"])],
        aside: 0,
        login: Some(("jdoe", "")),
        modem: None,
    },
    System {
        source: "freeside",
        sends: &[
            ("freeside-acct", "freeside-acct.insert.form"),
            ("freeside-acct", "freeside-acct.suspend.form"),
            ("freeside-cable", "freeside-cable.insert.form"),
        ],
        accounts: &[("20931", "active", &["7712", "jdoe"])],
        aside: 0,
        login: None,
        modem: Some("02:00:5e:10:20:30"),
    },
    System {
        source: "platypus",
        sends: &[("platypus", "platypus.customers.xml")],
        accounts: &[("8812", "active", &["8812-inet"])],
        aside: 0,
        login: Some(("jdoe", "")),
        modem: None,
    },
    System {
        source: "whmcs",
        sends: &[("whmcs", "whmcs.create.json"), ("whmcs", "whmcs.suspend.json")],
        accounts: &[("551", "active", &["7001"])],
        aside: 0,
        login: None,
        modem: Some("02:00:5e:10:20:35"),
    },
    System {
        source: "azotel",
        sends: &[("azotel", "azotel.modify.json")],
        accounts: &[("jdoe01", "active", &["jdoe01-internet"])],
        aside: 0,
        login: Some(("jdoe", "")),
        modem: None,
    },
];

#[test]
fn every_sample_goes_through_its_profile_to_what_is_provisioned() {
    let site = Site::sqlite();
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let daemon = site.start();
    for system in SYSTEMS {
        let source = system.source;
        let mut aside = 0;
        for (profile, file) in system.sends {
            let (path, bearer) =
                (format!("/v1/tenants/acme/ingest/{profile}?source={source}"), format!("Bearer {key}"));
            let headers = [("Authorization", bearer.as_str())];
            let answer = http::request_octets(site.http_port, "POST", &path, &headers, Some(&octets(file)[..]))
                .expect("an answer");
            assert!(answer.header("lastmile-ingest").is_some(), "{file}: {} {}", answer.status, answer.body);
            let input = answer.header("lastmile-ingest").expect("its number").to_owned();
            let input = get(&daemon, &key, &format!("ingests/{input}"));
            assert_eq!(
                (input["state"].as_str(), input["profile"].as_str()),
                (Some("done"), Some(*profile)),
                "{input:#}"
            );
            aside += input["quarantined"].as_i64().expect("a number");
            let accepted = input["quarantined"] == 0;
            assert_eq!(
                answer.status < 300,
                accepted || answer.status == 202 || *profile == "icoms",
                "{file}: {}",
                answer.status
            );
        }
        let told = site.succeed(&["ingest", "list", "--tenant", "acme", "--source", source]);
        assert_eq!(aside, system.aside, "{source}: {told}");
        for (account, status, services) in system.accounts {
            let stored = get(&daemon, &key, &format!("accounts/{account}?source={source}"));
            assert_eq!(stored["status"], *status, "{source}/{account}: {stored:#}");
            let mut ids: Vec<&str> =
                stored["services"].as_array().expect("services").iter().filter_map(|one| one["id"].as_str()).collect();
            ids.sort_unstable();
            assert_eq!(ids, *services, "{source}/{account}");
        }
        if let Some((login, wanted)) = system.login {
            wait_for(&format!("{source}: login {login}"), SOON, || {
                let found = group(&site, login);
                (!found.is_empty() && (wanted.is_empty() || found == wanted)).then_some(())
            });
        }
        if let Some(mac) = system.modem {
            wait_for(&format!("{source}: modem {mac} has a file"), SOON, || {
                let devices = get(&daemon, &key, "devices?limit=1000");
                let mut all = devices["items"].as_array().expect("devices").iter();
                all.any(|one| one["mac"] == mac && one["config_file"].is_string()).then_some(())
            });
        }
        // Others have the same modems and numbers.
        let page = get(&daemon, &key, &format!("accounts?source={source}&limit=1000"));
        for account in page["items"].as_array().expect("accounts") {
            let id = account["id"].as_str().expect("an id");
            let closed = daemon.api(&key, "DELETE", &format!("acme/accounts/{id}?source={source}"), None);
            assert_eq!(closed.status, 202, "{}", closed.body);
            assert!(closed.json()["held"].is_null(), "{}", closed.body);
        }
    }
}

#[test]
fn a_suspended_login_is_found_by_its_name_and_another_service_is_left_alone() {
    both(|site| {
        site.prepare(&catalog());
        let key = site.key("acme", "push");
        let daemon = site.start();
        let path = "ingest/freeside-acct?source=fs";
        let insert =
            "action=insert&username=jdoe&password=sesame-42&prismid=20931&svcnum=77&name=Jane+Doe&plan=cable-100";
        assert_eq!(send(&site, &key, path, insert).body, "OK");
        let cable = sample("freeside-cable.insert.form");
        assert_eq!(send(&site, &key, "ingest/freeside-cable?source=fs", &cable).status, 200);
        // The event knows neither the account nor the service's number.
        assert_eq!(send(&site, &key, path, "action=suspend&username=jdoe").body, "OK");
        let status = |daemon: &Daemon| {
            let stored = get(daemon, &key, "accounts/20931?source=fs");
            let of = |id: &str| {
                let services = stored["services"].as_array().expect("services");
                services.iter().find(|one| one["id"] == id).map(|one| one["status"].clone()).unwrap_or_default()
            };
            (stored["status"].clone(), of("77"), of("7712"))
        };
        assert_eq!(status(&daemon), (json!("active"), json!("suspended"), Value::Null));
        // A change of something else wakes nothing.
        let replace =
            "action=replace&username=jdoe&password=sesame-43&prismid=20931&svcnum=77&name=Jane+Doe&plan=cable-100";
        assert_eq!(send(&site, &key, path, replace).body, "OK");
        assert_eq!(status(&daemon).1, "suspended");
        assert_eq!(send(&site, &key, path, "action=unsuspend&username=jdoe").body, "OK");
        assert_eq!(status(&daemon), (json!("active"), json!("active"), Value::Null));
        // Nobody of this source has that name, and another source's account is not its own.
        let stranger = send(&site, &key, path, "action=suspend&username=nobody");
        assert_eq!((stranger.status, stranger.body.as_str()), (422, "REFUSED"));
        let other = send(&site, &key, "ingest/freeside-acct?source=other", "action=suspend&username=jdoe");
        assert_eq!(other.status, 422);
        // A deletion is harmless however often it comes, also of what never was.
        for delete in ["action=delete&username=jdoe&prismid=20931&svcnum=77", "action=delete&username=nobody"] {
            for _ in 0..2 {
                assert_eq!(send(&site, &key, path, delete).body, "OK", "{delete}");
            }
        }
        let services = get(&daemon, &key, "accounts/20931?source=fs")["services"].clone();
        assert_eq!(services.as_array().map(Vec::len), Some(1), "{services:#}");
        let history = site.json(&["account", "history", "20931", "--tenant", "acme", "--source", "fs"]);
        let text = history.to_string();
        assert!(text.contains("freeside-acct") && text.contains("profile_digest"), "{text}");
        assert!(!text.contains("sesame"), "the audit has no secrets");
    });
}

#[test]
fn the_billmax_hook_provisions_changes_and_is_refused() {
    let site = Site::sqlite();
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let daemon = site.start();
    let hook = site.path("service_hook");
    std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hooks/billmax_hook"), &hook)
        .expect("a link");
    let key_file = site.path("hook_key");
    std::fs::write(&key_file, format!("header = \"Authorization: Bearer {key}\"\n")).expect("a key file");
    let conf = site.path("hook.conf");
    let url = format!("http://127.0.0.1:{}/v1/tenants/acme", site.http_port);
    std::fs::write(&conf, format!("LASTMILE_URL={url}\nLASTMILE_KEY_FILE={}\n", key_file.display()))
        .expect("a configuration");
    let fire = |file: &str| {
        let text = sample(file);
        let mut command = Command::new(&hook);
        command.env("LASTMILE_HOOK_CONF", &conf).env("SECRET_OF_THE_HOST", "never");
        for line in text.lines() {
            if let Some((name, value)) = line.split_once('=') {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).output().expect("the hook runs (Debian packages curl and grep)")
    };
    let fired = fire("billmax-service.new.env");
    assert!(fired.status.success(), "{}", String::from_utf8_lossy(&fired.stderr));
    wait_for("the login is there", SOON, || (group(&site, "jdoe") == "cable-100").then_some(()));
    let stored = get(&daemon, &key, "accounts/20931");
    assert_eq!(stored["services"].as_array().map(Vec::len), Some(2), "{stored:#}");
    assert!(fire("billmax-service.change.env").status.success());
    assert!(!fire("billmax-service.unknown.env").status.success(), "BillMax must undo what we refuse");
    assert!(fire("billmax-service.closed.env").status.success());
    let stored = get(&daemon, &key, "accounts/20931");
    assert_eq!(stored["services"].as_array().map(Vec::len), Some(0), "{stored:#}");
    let files = ["lastmile.db", "lastmile.db-wal"].map(|name| std::fs::read(site.path(name)).unwrap_or_default());
    let has = |needle: &[u8]| files.iter().any(|file| file.windows(needle.len()).any(|window| window == needle));
    assert!(has(b"billmax-service"), "what is not secret is found");
    assert!(!has(b"Tr0ub4dor"), "the password stands in no clear");
    assert!(!has(b"SECRET_OF_THE_HOST"));
}

/// HMAC-SHA1 by another program, in hexadecimal.
fn hmac_sha1(secret: &str, body: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha1", "-hmac", secret, "-hex"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("its input").write_all(body.as_bytes()).expect("a body");
    let output = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&output.stdout).trim().rsplit(' ').next().unwrap_or_default().to_owned()
}

/// A billing system that is asked back: it knows one event, and counts how often it was asked with the right key.
fn asked_back(event: String, path: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> (u16, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            match &tls {
                None => say_what_is_known(&mut stream, &event, path, &count),
                Some(tls) => {
                    let connection = rustls::ServerConnection::new(Arc::clone(tls)).expect("a connection");
                    say_what_is_known(&mut rustls::StreamOwned::new(connection, stream), &event, path, &count);
                }
            }
        }
    });
    (port, asked)
}

fn say_what_is_known(stream: &mut (impl Read + Write), event: &str, path: &str, count: &Mutex<u32>) {
    let mut head = Vec::new();
    let mut octet = [0u8];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).unwrap_or(0) == 1 {
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let known = head.starts_with(&format!("GET {path} ")) && head.to_lowercase().contains("x-auth-app-key: app-key-1");
    if known {
        *count.lock().expect("a number") += 1;
    }
    let (status, body) = if known { ("200 OK", event) } else { ("404 Not Found", "{}") };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.flush();
}

/// A key for the source goes over TLS to whom the configuration trusts, and to nobody else.
#[test]
fn a_source_is_asked_back_over_tls_when_its_authority_is_trusted() {
    let folder = temp_dir();
    authority(folder.path(), "crm-ca");
    certificate(folder.path(), "crm-ca", "crm", "crm.example", "IP:127.0.0.1");
    let file = |name: &str| folder.path().join(name);
    let files = TlsFiles { cert: file("crm.pem"), key: file("crm.key"), client_ca: None };
    let tls = Arc::new(files.server_config(rustls::DEFAULT_VERSIONS).expect("a server's settings"));
    let event = sample("uisp-client.edit.json");
    let uuid = serde_json::from_str::<Value>(&event).expect("JSON")["uuid"].as_str().expect("a uuid").to_owned();
    let path = Box::leak(format!("/crm/api/v1.0/webhook-events/{uuid}").into_boxed_str());
    let (port, asked) = asked_back(event.clone(), path, Some(tls));
    authority(folder.path(), "another-ca");
    for (ca, status, times) in [("another-ca", 503, 0), ("crm-ca", 200, 1)] {
        let site = Site::sqlite();
        let source = format!(
            "[[source]]\ntenant = \"acme\"\nsource = \"uisp\"\nprofile = \"uisp-client\"\ncallback = {{ url = \
             \"https://127.0.0.1:{port}/crm/api/v1.0\", header = \"X-Auth-App-Key\", secret = \"app-key-1\", ca = \"{}\" }}\n[log]",
            file(&format!("{ca}.pem")).display()
        );
        site.edit("[log]", &source);
        site.prepare(&catalog());
        let _daemon = site.start();
        let answer = post(&site, "ingest/uisp-client", &[], &event);
        assert_eq!((answer.status, *asked.lock().expect("a number")), (status, times), "{ca}: {}", answer.body);
    }
}

#[test]
fn a_source_proves_itself_as_its_profile_asks() {
    let site = Site::sqlite();
    let event = sample("uisp-client.edit.json");
    let uuid = serde_json::from_str::<Value>(&event).expect("JSON")["uuid"].as_str().expect("a uuid").to_owned();
    let (port, asked) =
        asked_back(event.clone(), Box::leak(format!("/crm/api/v1.0/webhook-events/{uuid}").into_boxed_str()), None);
    site.edit(
        "[log]",
        &format!(
            r#"[[source]]
tenant = "acme"
source = "splynx"
profile = ["splynx-customer", "splynx-service"]
secret = "hook-secret-1"
[[source]]
tenant = "acme"
source = "fs-one"
profile = "freeside-acct"
secret = "field-secret-1"
[[source]]
tenant = "acme"
source = "fs-two"
profile = "freeside-acct"
secret = "field-secret-2"
previous_secret = "field-secret-0"
[[source]]
tenant = "acme"
source = "uisp"
profile = "uisp-client"
callback = {{ url = "http://127.0.0.1:{port}/crm/api/v1.0", header = "X-Auth-App-Key", secret = "app-key-1" }}
[[source]]
tenant = "acme"
source = "here"
profile = "azotel"
addresses = ["127.0.0.0/8"]
[[source]]
tenant = "acme"
source = "elsewhere"
profile = "powercode"
addresses = ["192.0.2.0/24"]
[log]"#
        ),
    );
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let daemon = site.start();

    // A signature over the body.
    let body = sample("splynx-customer.edit.json");
    let signature = hmac_sha1("hook-secret-1", &body);
    let signed =
        |signature: &str, body: &str| post(&site, "ingest/splynx-customer", &[("X-Splynx-Signature", signature)], body);
    assert_eq!(signed(&hmac_sha1("hook-secret-2", &body), &body).status, 401, "another secret");
    assert_eq!(signed(&signature, &body.replace("311", "312")).status, 401, "another body");
    assert_eq!(post(&site, "ingest/splynx-customer", &[], &body).status, 401, "no signature");
    let good = signed(&signature, &body);
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(get(&daemon, &key, "accounts/311?source=splynx")["status"], "suspended");

    // A field: which of two sources it is, its secret tells.
    let form = |secret: &str, id: &str| {
        format!("action=insert&username=u{id}&password=p-{id}-long&prismid={id}&name=N&plan=cable-100&secret={secret}")
    };
    assert_eq!(post(&site, "ingest/freeside-acct", &[], &form("field-secret-1", "1")).status, 200);
    assert_eq!(post(&site, "ingest/freeside-acct", &[], &form("field-secret-2", "2")).status, 200);
    assert_eq!(
        post(&site, "ingest/freeside-acct", &[], &form("field-secret-0", "3")).status,
        200,
        "while it is rotated"
    );
    for bad in ["field-secret-9", "", "field-secret-1x"] {
        assert_eq!(post(&site, "ingest/freeside-acct", &[], &form(bad, "4")).status, 401, "{bad:?}");
    }
    assert_eq!(get(&daemon, &key, "accounts/1?source=fs-one")["status"], "active");
    assert_eq!(get(&daemon, &key, "accounts/2?source=fs-two")["status"], "active");
    assert_eq!(get(&daemon, &key, "accounts/3?source=fs-two")["status"], "active");

    // Asked back: what it says counts, not what came.
    let forged = event.replace("\"edit\"", "\"archive\"");
    assert_ne!(forged, event);
    let first = post(&site, "ingest/uisp-client", &[], &forged);
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(*asked.lock().expect("a number"), 1);
    assert_eq!(get(&daemon, &key, "accounts/164?source=uisp")["status"], "active", "it was not archived");
    let again = post(&site, "ingest/uisp-client", &[], &event);
    assert_eq!((again.status, again.json()["duplicate"].clone()), (200, json!(true)), "{}", again.body);
    let unknown = event.replace(&uuid, "00000000-0000-4000-8000-000000000000");
    assert_eq!(post(&site, "ingest/uisp-client", &[], &unknown).status, 401, "it knows nothing of it");
    let astray = event.replace(&uuid, "../webhook-events");
    assert_eq!(post(&site, "ingest/uisp-client", &[], &astray).status, 401);

    // An address.
    assert_eq!(post(&site, "ingest/azotel", &[], &sample("azotel.modify.json")).status, 200);
    assert_eq!(post(&site, "ingest/powercode", &[], &sample("powercode.customers.json")).status, 401);

    // Without proof nobody learns which profiles there are, and a key of another tenant or role is no proof.
    for path in ["ingest/whmcs", "ingest/no-such-profile"] {
        assert_eq!(post(&site, path, &[], "{}").status, 401, "{path}");
        let head =
            http::request(site.http_port, "HEAD", &format!("/v1/tenants/acme/{path}"), &[], None).expect("an answer");
        assert_eq!(head.status, 200);
    }
    assert_eq!(send(&site, &key, "ingest/no-such-profile", "{}").status, 404);
    let reader = site.key("acme", "read");
    assert_eq!(send(&site, &reader, "ingest/whmcs", &sample("whmcs.create.json")).status, 403);
    let metrics = http::request(site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    assert!(metrics.contains("lastmile_ingest_refused_total{reason=\"unproven\"}"), "{metrics}");
    let log = site.log_text();
    for secret in ["hook-secret", "field-secret", "app-key-1", "p-1-long"] {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}

/// A profile of the test's own; `plans` are its words.
fn own_profile(plans: &str) -> String {
    format!(
        r#"name = "mine"
format = "json"
mode = "event"
scope = "full"
[read]
each = "items"
[account]
id = "{{id}}"
status = "{{status}}"
bill_cycle = "c15"
name = "{{name}}"
[[service]]
id = "{{id}}-1"
type = "internet"
plan = "{{plan|vocab('plan')}}"
radius = {{ username = "{{id}}@acme", password = "{{secret}}" }}
[vocab.plan]
{plans}
"#
    )
}

fn item(id: &str, plan: &str, name: &str) -> Value {
    json!({ "id": id, "status": "active", "plan": plan, "name": name, "secret": "hush-hush-1" })
}

#[test]
fn what_is_put_aside_is_replayed_by_the_next_version_of_its_profile() {
    both(|site| {
        let folder = site.path("profiles");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("mine.toml"), own_profile("Gold = \"res-100\"")).expect("a profile");
        site.edit("[log]", &format!("[sources]\nprofiles = \"{}\"\n[log]", folder.display()));
        site.prepare(CATALOG);
        let key = site.key("acme", "push");
        let daemon = site.start();
        let items =
            json!({ "items": [item("a", "Gold", "Ada"), item("b", "Platinum", "Bob"), item("c", "Platinum", "Cy")] });
        let answer = send(&site, &key, "ingest/mine", &items.to_string());
        assert_eq!(answer.status, 202, "{}", answer.body);
        let told = answer.json();
        assert_eq!((told["changes"].clone(), told["quarantined"].clone()), (json!(1), json!(2)), "{told:#}");
        let aside = &told["results"][1];
        assert_eq!(aside["errors"][0]["pointer"], "/services/0/plan", "{told:#}");
        assert!(aside["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("Platinum")), "{told:#}");
        let id = told["ingest"].as_str().expect("a number").to_owned();
        let exceptions = get(&daemon, &key, "exceptions?kind=records-quarantined");
        assert_eq!(exceptions["items"].as_array().map(Vec::len), Some(1), "{exceptions:#}");

        // Nothing is better by the same version.
        assert_eq!(site.lastmile(&["ingest", "replay", &id]).status.code(), Some(3));
        // One of them comes again by itself, changed: what came before must not overwrite it.
        std::fs::write(folder.join("mine.toml"), own_profile("Gold = \"res-100\"\nPlatinum = \"res-300\""))
            .expect("a profile");
        wait_for("the new version is read", SOON, || {
            site.log_text().contains("Source profiles were read again").then_some(())
        });
        let newer = json!({ "items": [item("c", "Gold", "Cyrus")] });
        assert_eq!(send(&site, &key, "ingest/mine", &newer.to_string()).status, 200);
        let replayed = daemon.api(&key, "POST", &format!("acme/ingests/{id}/replay"), None);
        assert_eq!(replayed.status, 200, "{}", replayed.body);
        let told = replayed.json();
        assert_eq!((told["changes"].clone(), told["quarantined"].clone()), (json!(1), json!(1)), "{told:#}");
        assert_eq!(get(&daemon, &key, "accounts/b")["services"][0]["plan"], "res-300");
        assert_eq!(get(&daemon, &key, "accounts/c")["name"], "Cyrus", "the newer one stays");
        let shown = site.json(&["ingest", "show", &id]);
        assert_eq!(shown["open"], 1, "{shown:#}");
        assert!(!shown["put_aside"][0]["replayed_at"].is_null(), "{shown:#}");
        // By force it is done all the same.
        assert!(site.lastmile(&["ingest", "replay", &id, "--force"]).status.success());
        assert_eq!(get(&daemon, &key, "accounts/c")["name"], "Cy");
        let exceptions = get(&daemon, &key, "exceptions?kind=records-quarantined");
        assert_eq!(exceptions["items"].as_array().map(Vec::len), Some(0), "nothing is aside any more: {exceptions:#}");
        let versions: Vec<Value> = ["a", "b"]
            .iter()
            .map(|account| site.json(&["account", "history", account, "--tenant", "acme"])[0].clone())
            .collect();
        let digest = |row: &Value| row["detail"]["origin"]["profile_digest"].as_str().unwrap_or_default().to_owned();
        assert!(digest(&versions[0]).len() == 32 && digest(&versions[0]) != digest(&versions[1]), "{versions:#?}");
    });
}

#[test]
fn a_key_of_idempotence_makes_one_of_two() {
    both(|site| {
        site.prepare(&catalog());
        let key = site.key("acme", "push");
        let daemon = site.start();
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "once-7")];
        let body = sample("whmcs.create.json");
        assert_eq!(post(&site, "ingest/whmcs", &headers, &body).status, 200);
        let suspend = send(&site, &key, "ingest/whmcs", &sample("whmcs.suspend.json"));
        assert_eq!(suspend.status, 200, "{}", suspend.body);
        // The first one again, late: it must not undo what came after it.
        assert_eq!(post(&site, "ingest/whmcs", &headers, &body).status, 200);
        let stored = get(&daemon, &key, "accounts/551");
        assert_eq!(stored["services"][0]["status"], "suspended", "{stored:#}");
    });
}

/// The names in a folder, in order, without folders.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn files_of_a_folder_are_taken_once_and_partial_ones_never() {
    let site = Site::sqlite();
    let inbox = site.path("inbox");
    std::fs::create_dir(&inbox).expect("a folder");
    site.edit(
        "[log]",
        &format!(
            "[[source]]\ntenant = \"acme\"\nsource = \"grown\"\nprofile = \"homegrown-csv\"\ninbox = \"{}\"\n[log]",
            inbox.display()
        ),
    );
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let (done, refused) = (inbox.join("done"), inbox.join("refused"));
    let whole = sample("homegrown-csv.customers.csv");
    let daemon = site.start();
    // Half of it, under the name of something unfinished, and growing under a final name.
    std::fs::write(inbox.join("customers.csv.tmp"), &whole[..whole.len() / 2]).expect("a file");
    std::fs::write(inbox.join(".hidden.csv"), &whole).expect("a file");
    let mut growing = std::fs::File::create(inbox.join("growing.csv")).expect("a file");
    for piece in whole.as_bytes().chunks(whole.len() / 6) {
        growing.write_all(piece).expect("a piece");
        growing.sync_all().expect("on the disk");
        std::thread::sleep(Duration::from_millis(900));
    }
    drop(growing);
    assert_eq!(site.json(&["ingest", "list", "--tenant", "acme"]), json!([]), "nothing was read while it grew");
    wait_for("the file is done", SOON, || (names(&done) == ["growing.csv", "growing.csv.report.json"]).then_some(()));
    assert_eq!(get(&daemon, &key, "accounts/A-17?source=grown")["status"], "active");
    let report: Value =
        serde_json::from_slice(&std::fs::read(done.join("growing.csv.report.json")).expect("a report")).expect("JSON");
    assert_eq!(report["put_aside"][0]["line"], 4, "{report:#}");
    // Renamed: the same octets are not done twice, whatever they are called.
    std::fs::write(inbox.join("customers.csv.tmp"), &whole).expect("a file");
    std::fs::rename(inbox.join("customers.csv.tmp"), inbox.join("customers.csv")).expect("a name");
    wait_for("the copy is put away", SOON, || names(&done).contains(&"customers.csv".to_owned()).then_some(()));
    assert_eq!(site.json(&["ingest", "list", "--tenant", "acme"]).as_array().map(Vec::len), Some(1));
    // Of nothing anything could be made.
    std::fs::write(inbox.join("other.csv"), "Some;Other;Header\n1;2;3\n").expect("a file");
    wait_for("it is refused", SOON, || (names(&refused) == ["other.csv", "other.csv.report.json"]).then_some(()));
    // What was put aside is replayed from the folder.
    let id =
        site.json(&["ingest", "list", "--tenant", "acme", "--open"])[1]["id"].as_str().expect("a number").to_owned();
    assert_eq!(site.lastmile(&["ingest", "replay", &id]).status.code(), Some(3), "nothing changed meanwhile");
    assert_eq!(names(&inbox), [".hidden.csv"]);
    drop(daemon);
}

#[test]
fn a_daemon_killed_while_it_reads_a_file_goes_on_where_it_was() {
    both(|site| {
        let inbox = site.path("inbox");
        std::fs::create_dir(&inbox).expect("a folder");
        let folder = site.path("profiles");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("mine.toml"), own_profile("Gold = \"res-100\"")).expect("a profile");
        site.edit(
            "[log]",
            &format!(
                "[sources]\nprofiles = \"{}\"\nsettle_seconds = 1\n[[source]]\ntenant = \"acme\"\nprofile = \"mine\"\ninbox = \"{}\"\n[log]",
                folder.display(),
                inbox.display()
            ),
        );
        site.prepare(CATALOG);
        let key = site.key("acme", "push");
        let items: Vec<Value> = (0..240).map(|number| item(&format!("n{number:04}"), "Gold", "N")).collect();
        let path = inbox.join("many.json");
        std::fs::write(inbox.join("many.part"), json!({ "items": items }).to_string()).expect("a file");
        std::fs::rename(inbox.join("many.part"), &path).expect("a name");
        let mut kills = 0;
        loop {
            let daemon = site.start();
            let seen = || {
                let listed = site.json(&["ingest", "list", "--tenant", "acme"]);
                let one = listed[0].clone();
                (one["state"].as_str().unwrap_or_default().to_owned(), one["records"].as_i64().unwrap_or(0))
            };
            let before = seen().1;
            let (state, _) = wait_for("it goes on", Duration::from_secs(120), || {
                let (state, records) = seen();
                let over = state == "done" && !path.exists();
                (over || state != "done" && records > before + 80).then_some((state, records))
            });
            if state == "done" {
                let page = get(&daemon, &key, "accounts?limit=1000");
                assert_eq!(page["items"].as_array().map(Vec::len), Some(240));
                let one = site.json(&["ingest", "list", "--tenant", "acme"])[0].clone();
                assert_eq!(
                    (one["records"].clone(), one["changes"].clone()),
                    (json!(240), json!(240)),
                    "each once: {one:#}"
                );
                break;
            }
            daemon.kill();
            kills += 1;
            assert!(kills < 30, "it never ends");
        }
        assert!(kills > 0, "it was cut off at least once");
        assert_eq!(names(&inbox.join("done")), ["many.json"]);
    });
}

#[test]
fn a_gateway_is_answered_on_its_connection() {
    let site = Site::sqlite();
    let (port, elsewhere) = (free_tcp_port(), free_tcp_port());
    let source = |name: &str, address: &str, port: u16| {
        format!(
            "[[source]]\ntenant = \"acme\"\nsource = \"{name}\"\nprofile = \"icoms\"\naddresses = \"{address}\"\n\
             listen = \"127.0.0.1:{port}\"\n"
        )
    };
    let sources = [source("icoms", "127.0.0.1", port), source("elsewhere", "192.0.2.1", elsewhere), "[log]".to_owned()];
    site.edit("[log]", &sources.concat());
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let daemon = site.start();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    let answer = |stream: &mut TcpStream, wanted: &str| {
        let mut octets = vec![0u8; wanted.len()];
        stream.read_exact(&mut octets).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&octets), wanted);
    };
    let order = sample("icoms.order.xml");
    // In pieces, and the next one right behind.
    for piece in order.as_bytes().chunks(100) {
        stream.write_all(piece).expect("a piece");
        stream.flush().expect("on its way");
        std::thread::sleep(Duration::from_millis(5));
    }
    answer(&mut stream, "<response><status>OK</status></response>");
    assert_eq!(get(&daemon, &key, "accounts/26-104118503?source=icoms")["services"].as_array().map(Vec::len), Some(2));
    let unknown = order.replace("<action>IN</action>", "<action>XX</action>");
    stream.write_all(format!("{unknown}{order}").as_bytes()).expect("two messages");
    answer(&mut stream, "<response><status>BUSINESS</status></response>");
    answer(&mut stream, "<response><status>OK</status></response>");
    let listed = site.json(&["ingest", "list", "--tenant", "acme", "--source", "icoms"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed:#}");
    assert!(listed.as_array().expect("a list").iter().all(|one| one["way"] == "tcp"));
    // Nobody is heard who does not send from where the source is.
    let mut stranger = TcpStream::connect(("127.0.0.1", elsewhere)).expect("a connection");
    stranger.set_read_timeout(Some(SOON)).expect("a limit");
    let _ = stranger.write_all(order.as_bytes());
    let mut told = Vec::new();
    let _ = stranger.read_to_end(&mut told);
    assert_eq!(String::from_utf8_lossy(&told), "", "no answer");
    let heard = site.json(&["ingest", "list", "--tenant", "acme", "--source", "elsewhere"]);
    assert_eq!(heard.as_array().map(Vec::len), Some(0), "{heard:#}");
    // What has no end takes no memory.
    let mut endless = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while written < 8 * 1024 * 1024 && endless.write_all(&piece).is_ok() {
        written += piece.len();
    }
    wait_for("it is cut off", SOON, || site.log_text().contains("a message is longer than").then_some(()));
    stream.write_all(order.as_bytes()).expect("the other one goes on");
    answer(&mut stream, "<response><status>OK</status></response>");
}

#[test]
fn a_message_over_tcp_without_its_shared_field_is_not_heard() {
    let site = Site::sqlite();
    let port = free_tcp_port();
    let folder = site.path("profiles");
    std::fs::create_dir(&folder).expect("a folder");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/sources/icoms.toml");
    let profile = std::fs::read_to_string(shipped).expect("the shipped profile");
    let named = profile.replacen("name = \"icoms\"", "name = \"gateway\"", 1);
    let proving = named.replacen("by = \"address\"", "by = \"field\"\nvalue = \"{gateway/secret}\"", 1);
    assert!(named != profile && proving != named, "{proving}");
    std::fs::write(folder.join("gateway.toml"), proving).expect("a profile");
    site.edit(
        "[log]",
        &format!(
            "[sources]\nprofiles = \"{}\"\n[[source]]\ntenant = \"acme\"\nsource = \"gateway\"\nprofile = \"gateway\"\n\
             secret = \"between-us-two\"\nlisten = \"127.0.0.1:{port}\"\n[log]",
            folder.display()
        ),
    );
    site.prepare(&catalog());
    let key = site.key("acme", "push");
    let daemon = site.start();
    let order = sample("icoms.order.xml");
    let with = |secret: &str| {
        order.replace("</icomsOrder>", &format!("<gateway><secret>{secret}</secret></gateway></icomsOrder>"))
    };
    let ok = "<response><status>OK</status></response>";
    // A connection's answers to everything that is sent on it at once.
    let answered = |messages: &[&str]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        let _ = stream.write_all(messages.concat().as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        String::from_utf8_lossy(&told).into_owned()
    };
    let heard = || site.json(&["ingest", "list", "--tenant", "acme"]).as_array().map(Vec::len);
    for message in [&order, &with(""), &with("between-us-three"), &with("between-us-tw")] {
        assert_eq!(answered(&[message]), "", "no answer");
    }
    assert_eq!(heard(), Some(0));
    let path = "acme/accounts/26-104118503?source=gateway";
    assert_eq!(daemon.api(&key, "GET", path, None).status, 404);

    // One that is right opens nothing for the next: its connection ends.
    let right = with("between-us-two");
    assert_eq!(answered(&[&right, &with("between-us-three"), &right]), ok);
    assert_eq!(heard(), Some(1));
    let account = daemon.api(&key, "GET", path, None).json();
    assert_eq!(account["services"].as_array().map(Vec::len), Some(2), "{account:#}");
    assert!(site.log_text().contains("a message does not prove its sender"));
    assert!(!site.log_text().contains("between-us"), "no secret in the log");
}

#[test]
fn a_configuration_of_sources_names_every_fault() {
    let site = Site::sqlite();
    let folder = site.path("profiles");
    std::fs::create_dir(&folder).expect("a folder");
    site.edit(
        "[log]",
        r#"[[source]]
tenant = "acme"
profile = "splynx-customer"
[[source]]
tenant = "acme"
profile = "no-such"
mode = "sometimes"
[[source]]
tenant = "acme"
profile = ["uisp-client", "uisp-service"]
inbox = "/nowhere/at/all"
[[source]]
tenant = "acme"
profile = "sonar"
listen = "127.0.0.1:7001"
breaker = { percent = 101 }
[log]"#,
    );
    let output = site.lastmile(&["check-config"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    for words in [
        "secret or secret_file is required",
        "there is no profile \"no-such\"",
        "\"sometimes\"",
        "needs one profile",
        "is no folder",
        "has no [frame]",
        "needs `addresses`",
        "must be at most 100",
    ] {
        assert!(told.contains(words), "{words} is missing in {told}");
    }
    // A profile with a fault is one of the configuration.
    let site = Site::sqlite();
    let folder = site.path("profiles");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("bad.toml"), "name = \"bad\"\nformat = \"jsn\"\n").expect("a file");
    site.edit("[log]", &format!("[sources]\nprofiles = \"{}\"\n[log]", folder.display()));
    let output = site.lastmile(&["check-config"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && told.contains("bad.toml:2:"), "{told}");
}

//! RADIUS ports on the real daemon: IPv4 and IPv6, the addressed address answers, the longest prefix wins,
//! Message-Authenticator on request, secrets rotate under load.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lastmile::radius::{PacketView, RequestBuilder, response_is_genuine};
use lastmile::vocabulary::Secret;

use crate::harness::daemon::{NAS_SECRET, Site};
use crate::harness::{http, wait_for};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn wildcard_ports_answer_from_the_address_that_was_asked() {
    let site = Site::sqlite();
    let port = site.radius_port;
    site.edit(&format!("[\"127.0.0.1:{port}\"]"), &format!("[\"0.0.0.0:{port}\", \"[::]:{port}\"]"));
    site.edit("[tftp]", &format!("{}[tftp]", nas("six", "::1", "of-six", "")));
    let _daemon = site.start();
    for (from, asked, secret) in [
        ("127.0.0.1", "127.0.0.1", NAS_SECRET),
        ("127.0.0.1", "127.0.0.2", NAS_SECRET),
        ("127.0.0.9", "127.3.2.1", NAS_SECRET),
        ("::1", "::1", "of-six"),
    ] {
        let to = SocketAddr::new(address(asked), port);
        let (source, answer) = ask(from, to, &start(1, secret)).expect(asked);
        assert_eq!(source, to, "the answer comes from where the request went");
        assert!(genuine(&answer, &start(1, secret), secret));
    }
    assert_eq!(metric(&site, "lastmile_radius_requests_total{nas=\"bng1\",kind=\"start\"}"), 3.0);
    assert_eq!(metric(&site, "lastmile_radius_requests_total{nas=\"six\",kind=\"start\"}"), 1.0);
    // It is counted when it has gone out.
    wait_for("the answer is counted", SOON, || {
        (metric(&site, "lastmile_radius_responses_total{nas=\"six\"}") == 1.0).then_some(())
    });
}

#[test]
fn longest_prefix_decides_whose_secret_and_rules_hold() {
    let site = Site::sqlite();
    let port = site.radius_port;
    site.edit(&format!("[\"127.0.0.1:{port}\"]"), &format!("[\"127.0.0.1:{port}\", \"[::1]:{port}\"]"));
    let strict = "message_authenticator = \"require\"\n";
    let more = [
        nas("all-six", "::/0", "wide", ""),
        nas("one-six", "::1/128", "narrow", ""),
        nas("strict", "127.0.0.64/26", "of-strict", strict),
    ];
    site.edit("[tftp]", &format!("{}[tftp]", more.concat()));
    let _daemon = site.start();
    let (four, six) = (SocketAddr::new(address("127.0.0.1"), port), SocketAddr::new(address("::1"), port));
    // The wider network's secret does not count.
    assert_eq!(answered("::1", six, &[&start(2, "wide"), &start(1, "narrow")]), 1);
    assert!(ask("127.0.0.1", four, &start(1, NAS_SECRET)).is_some(), "optional elsewhere");
    let signed = RequestBuilder::accounting(2).message_authenticator().integer(40, 1).text(44, "s2");
    let signed = signed.sign(&Secret::new("of-strict")).expect("small");
    // Without a Message-Authenticator nothing is answered.
    assert_eq!(answered("127.0.0.70", four, &[&start(1, "of-strict"), &signed]), 2);
    let reason = "lastmile_radius_dropped_total{nas=\"strict\",reason=\"bad_message_authenticator\"}";
    assert_eq!(metric(&site, reason), 1.0);
    assert!(site.log_text().contains("it has no Message-Authenticator, which this NAS is required to send"));
}

#[test]
fn reloads_under_load_lose_no_packet_and_forget_no_copy() {
    let site = Site::sqlite();
    let daemon = site.start();
    let to = SocketAddr::new(address("127.0.0.1"), site.radius_port);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(to).expect("a route");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let asked_on = |request: &[u8]| {
        socket.send(request).expect("sent");
        let mut room = [0; 4096];
        let length = socket.recv(&mut room).expect("an answer");
        room[..length].to_vec()
    };
    let report = |nth: u32, secret: &str| {
        let builder = RequestBuilder::accounting(nth as u8).integer(40, 3).integer(46, nth).text(44, "under-load");
        builder.sign(&Secret::new(secret)).expect("small")
    };
    let first = report(0, NAS_SECRET);
    assert!(genuine(&asked_on(&first), &first, NAS_SECRET));
    // Every round turns the secrets round; both are good all the time.
    let (mut current, mut previous) = (NAS_SECRET.to_owned(), "other-secret".to_owned());
    site.edit(&format!("secret = \"{NAS_SECRET}\""), &pair(&current, &previous));
    let mut nth = 0;
    for round in 1..=10 {
        site.edit(&pair(&current, &previous), &pair(&previous, &current));
        std::mem::swap(&mut current, &mut previous);
        daemon.signal("HUP");
        while metric(&site, "lastmile_reloads_total{result=\"applied\"}") < f64::from(round) {
            nth += 1;
            let secret = if nth % 2 == 0 { &current } else { &previous };
            // Before the first reload only one of them is known.
            let secret = if round == 1 { NAS_SECRET } else { secret };
            let request = report(nth, secret);
            assert!(genuine(&asked_on(&request), &request, secret), "report {nth} of round {round}");
        }
    }
    assert!(genuine(&asked_on(&first), &first, NAS_SECRET), "the copy of a request before all reloads");
    assert_eq!(metric(&site, "lastmile_journal_records_total"), f64::from(nth + 1), "each once");
    assert_eq!(metric(&site, "lastmile_radius_duplicates_total{nas=\"bng1\"}"), 1.0);
    wait_for("the use of the previous secret is told", SOON, || {
        site.log_text().contains("NAS bng1 still signs with its previous secret").then_some(())
    });
}

#[test]
fn nas_list_tells_the_last_report_the_previous_secret_and_who_is_late() {
    let site = Site::sqlite();
    site.edit(&format!("secret = \"{NAS_SECRET}\""), &pair("new-secret", NAS_SECRET));
    site.edit("identity = \"nas-identifier\"", "interim_seconds = 1");
    site.edit("[tftp]", &format!("{}[tftp]", nas("silent", "192.0.2.1", "x", "")));
    let _daemon = site.start();
    let to = SocketAddr::new(address("127.0.0.1"), site.radius_port);
    let before = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    assert!(ask("127.0.0.1", to, &start(1, NAS_SECRET)).is_some());
    let limit = Duration::from_secs(60);
    // One second is its interval: after three without a report it is late.
    wait_for("the NAS is late", limit, || {
        (metric(&site, "lastmile_nas_reports_overdue{nas=\"bng1\"}") > 0.0).then_some(())
    });
    assert!(metric(&site, "lastmile_nas_last_report_age_seconds{nas=\"bng1\"}") > 3.0);
    assert_eq!(metric(&site, "lastmile_nas_sessions_open{nas=\"bng1\"}"), 1.0);
    assert!(metric(&site, "lastmile_nas_previous_secret_timestamp_seconds{nas=\"bng1\"}") > 1.7e9);
    assert!(site.log_text().contains("NAS bng1 has sent nothing for 0 min while 1 sessions are open"));
    let late = site.lastmile(&["--json", "nas", "list", "--overdue"]);
    assert_eq!(late.status.code(), Some(3), "{late:?}");
    let late: serde_json::Value = serde_json::from_slice(&late.stdout).expect("JSON");
    assert_eq!(late.as_array().expect("a list").len(), 1, "{late:#}");
    let instant = |value: &serde_json::Value| -> jiff::Timestamp {
        value.as_str().expect("an instant").parse().expect("an instant")
    };
    let now = jiff::Timestamp::now();
    for key in ["last_report_at", "previous_secret_used_at"] {
        let at = instant(&late[0][key]);
        assert!(before <= at && at <= now, "{key}: {late:#}");
    }
    let all = site.json(&["nas", "list"]);
    assert_eq!((&all[0]["nas"], &all[0]["reports"]), (&"bng1".into(), &"overdue".into()), "{all:#}");
    assert_eq!((&all[1]["nas"], &all[1]["reports"]), (&"silent".into(), &"never".into()), "{all:#}");

    let used = all[0]["previous_secret_used_at"].clone();
    let stop = RequestBuilder::accounting(2).integer(40, 2).text(44, "session-1").text(32, "bng1");
    assert!(ask("127.0.0.1", to, &stop.sign(&Secret::new("new-secret")).expect("small")).is_some());
    wait_for("it is on time again", limit, || {
        (metric(&site, "lastmile_nas_reports_overdue{nas=\"bng1\"}") == 0.0).then_some(())
    });
    wait_for("that is told", SOON, || site.log_text().contains("NAS bng1 reports again").then_some(()));
    let all = site.json(&["nas", "list"]);
    assert_eq!((&all[0]["reports"], &all[0]["open_sessions"]), (&"fresh".into(), &0.into()), "{all:#}");
    assert_eq!(all[0]["previous_secret_used_at"], used, "the current secret changes nothing");
}

fn pair(current: &str, previous: &str) -> String {
    format!("secret = \"{current}\"\nprevious_secret = \"{previous}\"")
}

/// The table of a NAS.
fn nas(name: &str, network: &str, secret: &str, more: &str) -> String {
    format!("[[radius.nas]]\nname = \"{name}\"\naddress = \"{network}\"\nsecret = \"{secret}\"\n{more}")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn start(identifier: u8, secret: &str) -> Vec<u8> {
    let session = format!("session-{identifier}");
    let builder = RequestBuilder::accounting(identifier).integer(40, 1).text(44, &session).text(32, "bng1");
    builder.sign(&Secret::new(secret)).expect("small")
}

/// Sends from an address and gives where the answer came from, and the answer.
fn ask(from: &str, to: SocketAddr, request: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
    let socket = UdpSocket::bind((address(from), 0)).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket.send_to(request, to).expect("sent");
    let mut room = [0; 4096];
    let (length, source) = socket.recv_from(&mut room).ok()?;
    Some((source, room[..length].to_vec()))
}

/// Sends requests one after the other, the last of which is good, and gives the identifier of the first that is answered.
fn answered(from: &str, to: SocketAddr, requests: &[&[u8]]) -> u8 {
    let socket = UdpSocket::bind((address(from), 0)).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    for request in requests {
        socket.send_to(request, to).expect("sent");
    }
    let mut room = [0; 4096];
    socket.recv(&mut room).expect("an answer");
    room[1]
}

fn genuine(answer: &[u8], request: &[u8], secret: &str) -> bool {
    let request = PacketView::parse(request).expect("our own packet");
    response_is_genuine(answer, request.identifier(), &request.authenticator(), &Secret::new(secret))
}

/// The value of a metric; 0 when it is not there.
fn metric(site: &Site, name: &str) -> f64 {
    let text = http::request(site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    value.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

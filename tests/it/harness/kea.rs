//! Kea 2.2 over a PostgreSQL of its own: in a network namespace of its own, joined to us by a pair of virtual interfaces, or
//! on this side of a cable segment.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::postgres::Cluster;
use super::run;
use super::segment::Segment;

/// A running Kea; everything of it is gone when it is dropped.
pub struct Kea {
    pub cluster: Cluster,
    pub database: String,
    child: Child,
    /// Namespace and pair of interfaces, when they are its own.
    wires: Option<(String, String)>,
}

/// What its configuration differs in.
struct Place {
    interface: String,
    relay: String,
    next_server: String,
    net: u8,
}

/// SQL of Debian's `kea-admin`, which makes the tables.
const SCHEMA: &str = "/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql";

impl Kea {
    /// Starts it with a `cm` subnet (id 1) 10.N.1.0/24 and an `mta` subnet (id 2) 10.N.2.0/24 behind relay 10.N.0.2, which is
    /// ours; Kea is 10.N.0.1. `None`: this machine gives no namespaces.
    pub fn start(folder: &Path, net: u8) -> Option<Self> {
        let (namespace, link) = (format!("lmkea{net}"), format!("lmk{net}"));
        let ip = |arguments: &str| {
            let words: Vec<&str> = arguments.split(' ').collect();
            run("iproute2", "ip", &words).status.success()
        };
        if !ip(&format!("netns add {namespace}")) {
            return None;
        }
        assert!(ip(&format!("link add {link} type veth peer name kea0 netns {namespace}")), "a pair of interfaces");
        assert!(ip(&format!("addr add 10.{net}.0.2/16 dev {link}")));
        assert!(ip(&format!("link set {link} up")));
        assert!(ip(&format!("-n {namespace} addr add 10.{net}.0.1/16 dev kea0")));
        assert!(ip(&format!("-n {namespace} link set kea0 up")));
        assert!(ip(&format!("-n {namespace} link set lo up")));
        let place = Place {
            interface: "kea0".to_owned(),
            relay: format!("10.{net}.0.2"),
            next_server: "127.0.0.1".to_owned(),
            net,
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, "kea-dhcp4"]);
        Some(Self::run(folder, &place, command, Some((namespace, link))))
    }

    /// Starts it as the server of a cable segment, with the same subnets.
    pub fn of_segment(folder: &Path, segment: &Segment) -> Self {
        let place = Place {
            interface: segment.interface().to_owned(),
            relay: segment.relay_address().to_string(),
            next_server: segment.server().to_string(),
            net: segment.net,
        };
        Self::run(folder, &place, Command::new("kea-dhcp4"), None)
    }

    fn run(folder: &Path, place: &Place, mut command: Command, wires: Option<(String, String)>) -> Self {
        let cluster = Cluster::start(&[]);
        let url = cluster.database();
        let database = url.rsplit('/').next().expect("a database").to_owned();
        let port = cluster.port.to_string();
        let arguments = ["-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", &database, "-f", SCHEMA];
        let made = run("postgresql", "psql", &arguments);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = folder.join("kea.json");
        std::fs::write(&config, configuration(folder, &cluster, &database, place)).expect("a configuration");
        let log = std::fs::File::create(folder.join("kea.log")).expect("a log");
        let child = command
            .arg("-c")
            .arg(&config)
            .env("KEA_PIDFILE_DIR", folder)
            .env("KEA_LOCKFILE_DIR", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("Kea runs");
        Self { cluster, database, child, wires }
    }

    /// URL of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.cluster.port, self.database)
    }

    pub fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.database, sql)
    }

    /// Makes an address ours, so that a modem can send from it.
    pub fn adopt(&self, address: std::net::Ipv4Addr) {
        let link = self.wires.as_ref().map_or("lo", |(_, link)| link);
        run("iproute2", "ip", &["addr", "add", &format!("{address}/32"), "dev", link]);
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some((namespace, link)) = &self.wires {
            run("iproute2", "ip", &["link", "del", link]);
            run("iproute2", "ip", &["netns", "del", namespace]);
        }
    }
}

fn configuration(folder: &Path, cluster: &Cluster, database: &str, place: &Place) -> String {
    let net = place.net;
    let store = serde_json::json!({
        "type": "postgresql", "name": database, "user": "postgres", "host": cluster.folder.display().to_string(),
        "port": cluster.port, "max-reconnect-tries": 1000, "reconnect-wait-time": 200, "on-fail": "serve-retry-continue",
    });
    serde_json::json!({"Dhcp4": {
        "interfaces-config": {"interfaces": [place.interface], "dhcp-socket-type": "udp"},
        "lease-database": store, "hosts-database": store,
        "host-reservation-identifiers": ["hw-address"],
        "store-extended-info": true,
        "valid-lifetime": 3600,
        "option-def": [
            {"space": "dhcp4", "name": "ccc", "code": 122, "type": "empty", "encapsulate": "ccc"},
            {"space": "ccc", "name": "dhcp1", "code": 1, "type": "ipv4-address"},
            {"space": "ccc", "name": "prov", "code": 3, "type": "binary"},
            {"space": "ccc", "name": "realm", "code": 6, "type": "binary"},
        ],
        "client-classes": [
            {"name": "cm", "test": "substring(option[60].hex,0,6)=='docsis'", "boot-file-name": "unprovisioned.cm",
             "next-server": place.next_server},
            {"name": "mta", "test": "substring(option[60].hex,0,4)=='pktc'"},
        ],
        "shared-networks": [{"name": "cmts1", "relay": {"ip-addresses": [place.relay]}, "subnet4": [
            {"id": 1, "subnet": format!("10.{net}.1.0/24"), "client-class": "cm",
             "pools": [{"pool": format!("10.{net}.1.10-10.{net}.1.200")}]},
            {"id": 2, "subnet": format!("10.{net}.2.0/24"), "client-class": "mta",
             "pools": [{"pool": format!("10.{net}.2.10-10.{net}.2.200")}]},
        ]}],
        "loggers": [{"name": "kea-dhcp4", "severity": "INFO",
            "output_options": [{"output": folder.join("kea4.log").display().to_string()}]}],
    }})
    .to_string()
}

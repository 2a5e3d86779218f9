//! Kea 2.2 in a network namespace of its own, over a PostgreSQL of its own, joined to us by a pair of virtual interfaces.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::postgres::Cluster;
use super::run;

/// A running Kea; everything of it is gone when it is dropped.
pub struct Kea {
    pub cluster: Cluster,
    pub database: String,
    child: Child,
    namespace: String,
    link: String,
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
        let cluster = Cluster::start(&[]);
        let url = cluster.database();
        let database = url.rsplit('/').next().expect("a database").to_owned();
        let port = cluster.port.to_string();
        let arguments = ["-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", &database, "-f", SCHEMA];
        let made = run("postgresql", "psql", &arguments);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = folder.join("kea.json");
        std::fs::write(&config, configuration(folder, &cluster, &database, net)).expect("a configuration");
        let log = std::fs::File::create(folder.join("kea.log")).expect("a log");
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace, "kea-dhcp4", "-c"])
            .arg(&config)
            .env("KEA_PIDFILE_DIR", folder)
            .env("KEA_LOCKFILE_DIR", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("Kea runs");
        Some(Self { cluster, database, child, namespace, link })
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
        run("iproute2", "ip", &["addr", "add", &format!("{address}/32"), "dev", &self.link]);
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        run("iproute2", "ip", &["link", "del", &self.link]);
        run("iproute2", "ip", &["netns", "del", &self.namespace]);
    }
}

fn configuration(folder: &Path, cluster: &Cluster, database: &str, net: u8) -> String {
    let store = serde_json::json!({
        "type": "postgresql", "name": database, "user": "postgres", "host": cluster.folder.display().to_string(),
        "port": cluster.port, "max-reconnect-tries": 1000, "reconnect-wait-time": 200, "on-fail": "serve-retry-continue",
    });
    serde_json::json!({"Dhcp4": {
        "interfaces-config": {"interfaces": ["kea0"], "dhcp-socket-type": "udp"},
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
             "next-server": "127.0.0.1"},
            {"name": "mta", "test": "substring(option[60].hex,0,4)=='pktc'"},
        ],
        "shared-networks": [{"name": "cmts1", "relay": {"ip-addresses": [format!("10.{net}.0.2")]}, "subnet4": [
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

//! The configuration file: the contract's example is read, and every fault is named with its place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::provisioner::cmts::ResetDriver;

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    Config::parse(Path::new("lastmile.toml"), text, None, false)
}

fn faults(text: &str) -> Vec<String> {
    match parse(text).expect_err("faults") {
        ConfigError::Faults { faults, .. } => faults.iter().map(ConfigFault::to_string).collect(),
        ConfigError::Unreadable { .. } => unreachable!("no file is read"),
    }
}

const LEAST: &str = "[database]\nurl = \"sqlite:///tmp/a.db\"\n[api]\nlisten = \"127.0.0.1:8080\"\n";

#[test]
fn database_and_api_are_enough() {
    let config = parse(LEAST).expect("valid").config;
    assert_eq!(config.api.listen.port(), 8080);
    assert!(config.radius.is_none() && config.tftp.is_none() && config.mail.is_none() && config.api.tls.is_none());
    assert_eq!(config.log, Log::default());
}

#[test]
fn whole_contract_is_read() {
    let text = r#"
[database]
url = "postgres://lastmile@db/lastmile"
[secrets]
key_file = "/run/credentials/lastmile/key"
[api]
listen = "[::1]:8080"
tls = { cert = "c.pem", key = "k.pem", client_ca = "ca.pem" }
rate_limit = { per_second = 200, burst = 400 }
[radius]
accounting = ["0.0.0.0:1813", "[::]:1813"]
dictionaries = ["dictionaries"]
[[radius.nas]]
name = "bng1"
address = "192.0.2.0/24"
secret = "s3cret"
previous_secret = "older"
profile = "default"
identity = "nas-identifier"
max_rate = "1G"
interim_seconds = 300
tenants = ["acme"]
[tftp]
listen = "0.0.0.0:69"
[docsis]
shared_secret = "DOCSIS"
[[cmts]]
name = "cmts1"
address = "192.0.2.200"
relays = ["10.10.0.1"]
networks = ["10.10.0.0/16", "10.11.0.0/16"]
shared_secret = "own"
previous_shared_secret = "older"
tftp_source_check = "enforce"
community = "private-enough"
reset = "casa"
resets_per_minute = 30
areas = ["78701", "787*"]
[[cmts]]
name = "cmts2"
[samis]
service_classes = ["gold", "silver"]
octets = "L3"
[snmp]
community = "public"
[dhcp]
driver = "none"
[mail]
driver = "postfixadmin"
url = "sqlite:///var/lib/lastmile/mail.db"
[aaa]
driver = "none"
[log]
format = "json"
level = "debug"
"#;
    let config = parse(text).expect("valid").config;
    let radius = config.radius.expect("radius");
    assert_eq!(radius.accounting.len(), 2);
    assert_eq!(radius.nas[0].identity, IdentityRule::NasIdentifier);
    assert_eq!(radius.nas[0].max_rate.to_string(), "1G");
    assert_eq!(radius.nas[0].previous_secret.as_ref().map(Secret::expose), Some("older"));
    assert!(config.cmts[0].tftp_source_check && config.cmts[0].address_in_file);
    assert!(config.cmts[0].areas[1].holds("78799") && config.cmts[0].reset == ResetDriver::Casa);
    assert!(!config.cmts[1].tftp_source_check && config.cmts[1].networks.is_empty());
    assert!(config.mail.is_some() && config.aaa.is_none() && config.dhcp.is_none());
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn every_fault_is_named_with_its_place() {
    let text = "[database]\nurl = \"mysql://db\"\n[api]\nlisten = 8080\nrate_limt = { per_second = 1 }\n\
                [radius]\n[[radius.nas]]\nname = \"a\"\naddress = \"192.0.2.9/24\"\nsecret = \"\"\n\
                [[radius.nas]]\nname = \"a\"\naddress = \"10.0.0.0/8\"\nmax_rate = \"fast\"\nidentity = \"ip\"\n[tfpt]\n";
    assert_eq!(
        faults(text),
        [
            "lastmile.toml:2:7: database.url: must begin with sqlite:// or postgres://",
            "lastmile.toml:4:10: api.listen: must be a string, not an integer",
            "lastmile.toml:5:1: api.rate_limt: is an unknown key; did you mean rate_limit?",
            "lastmile.toml:9:11: radius.nas[0].address: 192.0.2.9/24 has bits set beyond its prefix; the network is \
             192.0.2.0/24",
            "lastmile.toml:10:10: radius.nas[0].secret: must not be empty",
            "lastmile.toml:11:1: radius.nas[1]: a NAS needs secret or secret_file",
            "lastmile.toml:12:8: radius.nas[1].name: \"a\" is named twice, first as radius.nas[0].name",
            "lastmile.toml:14:12: radius.nas[1].max_rate: \"fast\" is no bit rate; write for example 64k, 100M, 2.5G",
            "lastmile.toml:15:12: radius.nas[1].identity: is \"ip\"; it can be client, nas-identifier, nas-ip",
            "lastmile.toml:16:2: tfpt: is an unknown key; did you mean tftp?",
        ]
    );
}

#[test]
fn profiles_of_a_directory_are_known_to_the_nas_and_their_faults_are_told() {
    let home = tempfile::tempdir().expect("directory");
    fs::create_dir(home.path().join("mine")).expect("directory");
    let config = home.path().join("lastmile.toml");
    let text = format!(
        "{LEAST}[radius]\nprofiles = [\"mine\"]\n[[radius.nas]]\nname = \"a\"\naddress = \"10.0.0.0/8\"\n\
         secret = \"s\"\nprofile = \"acme-bng\"\n"
    );
    let write = |text: &str| fs::write(home.path().join("mine/acme.toml"), text).expect("file");
    let read = || Config::parse(&config, &text, None, false);
    write("name = \"acme-bng\"\ninput = \"to-user\"\n");
    let radius = read().expect("valid").config.radius.expect("radius");
    assert!(radius.nas[0].profile.swapped);
    write("name = \"acme-bng\"\ninputs = \"to-user\"\n");
    let Err(ConfigError::Faults { faults, .. }) = read() else { panic!("a profile with an unknown key") };
    let told: Vec<String> = faults.iter().map(ConfigFault::to_string).collect();
    assert!(
        told[0].contains("radius.profiles[0]: ") && told[0].contains("mine/acme.toml:2:1: unknown key"),
        "{told:?}"
    );
    assert!(told[1].contains("radius.nas[0].profile: is \"acme-bng\"; it can be accel-ppp, "), "{told:?}");
}

#[test]
fn how_long_the_journal_keeps_records_is_read_and_its_faults_have_places() {
    let home = tempfile::tempdir().expect("directory");
    let config = home.path().join("lastmile.toml");
    let read =
        |radius: &str, probing: bool| Config::parse(&config, &format!("{LEAST}[radius]\n{radius}"), None, probing);
    let radius = read("", false).expect("valid").config.radius.expect("radius");
    assert_eq!((radius.keep_days, radius.archive), (400, None));
    let radius = read("keep_days = 30\narchive = \"old\"\n", true).expect("valid").config.radius.expect("radius");
    assert_eq!((radius.keep_days, radius.archive), (30, Some(home.path().join("old"))));
    fs::write(home.path().join("old"), "").expect("file");
    let Err(ConfigError::Faults { faults, .. }) = read("keep_days = 0\narchive = \"old/er\"\n", true) else {
        panic!("a file is no folder");
    };
    let told: Vec<String> = faults.iter().map(ConfigFault::to_string).collect();
    assert!(told[0].contains("radius.keep_days: must be a whole number of at least 1"), "{told:?}");
    assert!(told[1].contains("radius.archive: ") && told[1].contains("old is no folder"), "{told:?}");
}

#[test]
fn syntax_and_meaning_are_faulted_together() {
    let list = faults("[database]\nurl = sqlite\n[api]\nlisten = \"nowhere\"\n");
    assert!(list[0].starts_with("lastmile.toml:2:7: "), "{list:?}");
    assert!(list.iter().any(|fault| fault.contains("api.listen: \"nowhere\" is no address")), "{list:?}");
}

#[test]
fn missing_sections_are_named() {
    let list = faults("");
    assert_eq!(list.len(), 2, "{list:?}");
    assert!(list[0].contains("[database] is required") && list[1].contains("[api] is required"), "{list:?}");
}

#[test]
fn relative_secret_file_is_a_credential_first() {
    let home = tempfile::tempdir().expect("directory");
    let credentials = home.path().join("credentials");
    fs::create_dir(&credentials).expect("directory");
    fs::write(home.path().join("docsis"), "beside\n").expect("file");
    let config = home.path().join("lastmile.toml");
    let text = format!("{LEAST}[docsis]\nshared_secret_file = \"docsis\"\n");
    let read = |credentials: Option<PathBuf>| {
        let loaded = Config::parse(&config, &text, credentials, false).expect("valid");
        let secret = loaded.config.docsis.and_then(|docsis| docsis.shared_secret).expect("secret");
        secret.expose().to_owned()
    };
    assert_eq!(read(Some(credentials.clone())), "beside");
    fs::write(credentials.join("docsis"), "credential").expect("file");
    assert_eq!(read(Some(credentials)), "credential");
    assert_eq!(read(None), "beside");
}

#[test]
fn secret_file_everyone_may_read_is_a_warning() {
    let home = tempfile::tempdir().expect("directory");
    let file = home.path().join("docsis");
    fs::write(&file, "secret").expect("file");
    let text = format!("{LEAST}[docsis]\nshared_secret_file = \"docsis\"\n");
    let warnings = |mode: u32| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("mode");
        Config::parse(&home.path().join("lastmile.toml"), &text, None, false).expect("valid").warnings.len()
    };
    assert_eq!(warnings(0o644), 1);
    assert_eq!(warnings(0o600), 0);
}

#[test]
fn samis_names_its_classes_and_its_octets() {
    let samis = |section: &str| parse(&format!("{LEAST}[samis]\n{section}")).map(|loaded| loaded.config.samis);
    let told = samis("service_classes = [\"gold\"]\n").expect("valid").expect("a section");
    assert_eq!((told.service_classes, told.octets.as_str()), (vec!["gold".to_owned()], "L2"));
    let wrong = faults(&format!("{LEAST}[samis]\noctets = \"L4\"\n"));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong.iter().any(|fault| fault.contains("lastmile.toml:6:") && fault.contains("L4")), "{wrong:?}");
    assert!(wrong.iter().any(|fault| fault.contains("service_classes is required")), "{wrong:?}");
}

#[test]
fn cmts_that_cannot_be_told_apart_are_faulted() {
    let list = faults(&format!(
        "{LEAST}[[cmts]]\nname = \"a\"\nrelays = [\"10.1.0.1\"]\nnetworks = [\"10.1.0.0/16\"]\n\
         [[cmts]]\nname = \"a\"\nrelays = [\"10.1.0.1\", \"x\"]\nnetworks = [\"10.1.0.0/16\", \"10.2.0.1/16\"]\n\
         [[cmts]]\nname = \"c\"\naddress = \"cmts.example\"\nareas = [\"7?\"]\ntftp_source_check = \"enforce\"\nreset = \"huawei\"\naddress_in_file = \"on\"\n"
    ));
    for part in [
        "10:8: cmts[1].name: \"a\" is said twice, first as cmts[0].name",
        "11:11: cmts[1].relays[0]: \"10.1.0.1\" is said twice",
        "11:23: cmts[1].relays[1]: ",
        "12:13: cmts[1].networks[0]: \"10.1.0.0/16\" is said twice",
        "12:28: cmts[1].networks[1]: 10.2.0.1/16 has bits set",
        "13:1: cmts[2]: tftp_source_check needs networks or relays",
        "15:11: cmts[2].address: ",
        "16:10: cmts[2].areas[0]: ",
        "18:9: cmts[2].reset: is \"huawei\"; it can be none, cisco, casa, arris",
        "19:19: cmts[2].address_in_file: must be true or false, not a string",
    ] {
        assert!(list.iter().any(|fault| fault.contains(part)), "{part} is not in\n{}", list.join("\n"));
    }
    assert_eq!(list.len(), 10, "{}", list.join("\n"));
}

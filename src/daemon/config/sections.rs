//! Reads each section of the configuration file; one function a section, defaults beside their keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::coa::Around;
use super::devices::DEFAULT_SWEEP;
use super::radsec::Certificates;
use super::reader::{Found, Reader, Section};
use super::{
    AaaTables, Api, Config, Database, Docsis, Log, LogFormat, Nas, Radius, RateLimit, Samis, Secrets, Tftp, probe,
};
use crate::collector::{CertificateName, dictionaries, profiles};
use crate::daemon::log;
use crate::provisioner::PasswordStorage;
use crate::radius::{Dictionary, IdentityRule, Profile, Profiles};
use crate::tls::TlsFiles;
use crate::vocabulary::{BitRate, Cidr, Secret, TenantId};

/// The whole file. `None` where a required part is unusable; its fault is noted.
pub fn config(reader: &Reader<'_>, tree: &Spanned<DeTable<'_>>, path: &Path, probing: bool) -> Option<Config> {
    // In a half-written file what is missing says nothing: it may stand behind the place where reading stopped.
    let whole = reader.is_clean();
    let root = Section::root(reader, tree);
    let door = Door { reader, probing };
    let database = root.table("database").map(|section| door.database(section));
    if database.is_none() && whole && !tree.get_ref().contains_key("database") {
        root.fault("the section [database] is required");
    }
    let secrets = root.table("secrets").map(|section| door.secrets(section)).unwrap_or_default();
    let api = root.table("api").map(|section| door.api(section));
    if api.is_none() && whole && !tree.get_ref().contains_key("api") {
        root.fault("the section [api] is required");
    }
    let radius = root.table("radius").map(|section| door.radius(section));
    let tftp = root.table("tftp").map(|section| door.tftp(section));
    let tod = root.table("tod").map(|section| door.tod(section));
    let docsis = root.table("docsis").map(|section| door.docsis(section));
    let cmts = door.all_cmts(root.tables("cmts"));
    let snmp = root.table("snmp").map(|section| door.snmp(section));
    let sweep = root.table("sweep").map(|section| door.sweep(section));
    let reset = root.table("reset").map(|section| door.reset(section));
    let samis = root.table("samis").map(|section| door.samis(section));
    let dhcp = root.table("dhcp").map(|section| door.dhcp(section));
    door.about_addresses(&root, &cmts, tftp.is_some(), &dhcp);
    let mail = root.table("mail").map(|section| door.mail(section));
    let aaa = root.table("aaa").map(|section| door.aaa(section));
    let sources = door.sources(root.table("sources"), root.tables("source"));
    let webhooks = root.table("webhooks").map(|section| door.webhooks(section)).unwrap_or_default();
    let notify = root.table("notify").map(|section| door.notify(section));
    let exports = door.exports(root.tables("export"));
    let log = root.table("log").map(|section| door.log(section)).unwrap_or_default();
    root.close();
    Some(Config {
        path: path.to_path_buf(),
        database: database??,
        secrets,
        api: api??,
        radius: optional(radius)?,
        tftp: optional(tftp)?,
        tod: optional(tod)?,
        docsis,
        cmts: cmts?,
        snmp: optional(snmp)?,
        reset: optional(reset)?.unwrap_or_default(),
        sweep_every: sweep.unwrap_or(Some(DEFAULT_SWEEP)),
        samis: optional(samis)?,
        dhcp: optional(dhcp)?.flatten(),
        mail: mail.flatten(),
        aaa: aaa.flatten(),
        sources: sources?,
        webhooks,
        exports: exports?,
        notify: optional(notify)?,
        log,
    })
}

/// A section that is absent is fine, one that could not be read is not.
fn optional<T>(section: Option<Option<T>>) -> Option<Option<T>> {
    match section {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}

const DEFAULT_ACCOUNTING: &str = "0.0.0.0:1813";
const DEFAULT_TFTP: &str = "0.0.0.0:69";
const DEFAULT_MAX_RATE_BITS: u64 = 10_000_000_000;
const DEFAULT_INTERIM_SECONDS: u32 = 600;
const DEFAULT_KEEP_DAYS: u32 = 400;
const SECRET_FILE_MAX_BYTES: u64 = 4096;

pub(super) struct Door<'r, 't> {
    pub(super) reader: &'r Reader<'t>,
    /// Also read what the daemon reads at its start.
    pub(super) probing: bool,
}

impl Door<'_, '_> {
    fn database(&self, section: Section<'_, '_>) -> Option<Database> {
        let url = section.required("url").and_then(|found| self.url(&found));
        section.close();
        Some(Database { url: url? })
    }

    fn secrets(&self, section: Section<'_, '_>) -> Secrets {
        let key_file = section.string("key_file").map(|found| {
            let path = self.reader.credential(found.value);
            if self.probing {
                // Absent is fine: on SQLite the first start makes it.
                probe::secret_mode(self.reader, &found, &path);
            }
            path
        });
        section.close();
        Secrets { key_file }
    }

    fn api(&self, section: Section<'_, '_>) -> Option<Api> {
        let listen = section.required("listen").and_then(|found| self.address(&found));
        let tls = section.table("tls").map(|tls| {
            let (cert, key, client_ca) = (tls.required("cert"), tls.required("key"), tls.string("client_ca"));
            tls.close();
            self.tls_files(cert, key, client_ca)
        });
        let rate_limit = section.table("rate_limit").map(|limit| {
            let per_second = limit.number("per_second", 1);
            let burst = limit.number("burst", 1);
            if per_second.is_none() {
                limit.fault("per_second is required: requests a second and key");
            }
            limit.close();
            let per_second = per_second?;
            Some(RateLimit { per_second, burst: burst.unwrap_or(per_second) })
        });
        section.close();
        Some(Api { listen: listen?, tls: optional(tls)?, rate_limit: optional(rate_limit)? })
    }

    /// The PEM files of a table; they are read when the whole configuration is checked.
    pub(super) fn tls_files(
        &self,
        cert: Option<Found<&str>>,
        key: Option<Found<&str>>,
        client_ca: Option<Found<&str>>,
    ) -> Option<TlsFiles> {
        let path = |found: &Found<&str>| self.reader.credential(found.value);
        let files =
            TlsFiles { cert: path(cert.as_ref()?), key: path(key.as_ref()?), client_ca: client_ca.as_ref().map(path) };
        if self.probing {
            let keys: Vec<&Found<&str>> = cert.iter().chain(&key).chain(&client_ca).collect();
            probe::tls(self.reader, &keys, &files);
        }
        Some(files)
    }

    fn radius(&self, section: Section<'_, '_>) -> Option<Radius> {
        let accounting: Vec<SocketAddr> = match section.strings("accounting") {
            Some(list) => list.iter().filter_map(|found| self.address(found)).collect(),
            None => DEFAULT_ACCOUNTING.parse().into_iter().collect(),
        };
        let dictionaries: Vec<PathBuf> = match section.strings("dictionaries") {
            Some(list) => list.iter().map(|found| self.dictionary(found)).collect(),
            None => Vec::new(),
        };
        let profiles = self.profiles(section.strings("profiles").unwrap_or_default(), &dictionaries);
        let radsec = self.radsec(&section);
        let keep_days = section.number("keep_days", 1).unwrap_or(DEFAULT_KEEP_DAYS);
        let archive = section.string("archive").map(|found| {
            let path = self.reader.path(found.value);
            if self.probing {
                probe::folder(self.reader, &found, &path);
            }
            path
        });
        // What is wrong with a dictionary is told where it is named.
        let known = self.probing.then(|| dictionaries::load(&dictionaries).unwrap_or_default());
        let mut clients: Vec<(Found<&str>, Option<Found<Cidr>>)> = Vec::new();
        let mut certificates = Certificates::default();
        let mut nas = Vec::new();
        for client in section.tables("nas") {
            let name = client.required("name");
            let shown = self.certificates(&client, &mut certificates, matches!(radsec, Some(None)));
            // A NAS with a certificate may come from anywhere.
            let address = match shown.as_deref() {
                Some([]) => client.required("address"),
                Some(_) | None => client.string("address"),
            };
            let located = address.is_some();
            let address = address.and_then(|found| client.parse::<Cidr>(&found));
            if let Some(name) = &name {
                self.distinct(&clients, name, address.as_ref());
                clients.push((name.clone(), address.clone()));
            }
            // Outer `None`: it is given but unusable.
            let address = if located { address.map(|found| Some(found.value)) } else { Some(None) };
            let name = name.map(|found| found.value.to_owned());
            nas.push(self.nas(client, name, address, shown, &profiles, known.as_ref()));
        }
        section.close();
        Some(Radius {
            accounting,
            radsec: radsec?,
            dictionaries,
            keep_days,
            archive,
            nas: nas.into_iter().collect::<Option<_>>()?,
        })
    }

    fn nas(
        &self,
        client: Section<'_, '_>,
        name: Option<String>,
        address: Option<Option<Cidr>>,
        certificates: Option<Vec<CertificateName>>,
        profiles: &Profiles,
        dictionary: Option<&Dictionary>,
    ) -> Option<Nas> {
        let secret = self.udp_secret(&client, "secret", "secret_file");
        if let (Some(None), Some([])) = (&secret, certificates.as_deref()) {
            client.fault("a NAS needs secret or secret_file");
        }
        if let (Some(Some(_)), Some(None)) = (&secret, &address)
            && certificates.as_ref().is_some_and(|list| !list.is_empty())
        {
            client.fault("secret is for UDP, which needs address too; RadSec needs neither");
        }
        let previous_secret = self.udp_secret(&client, "previous_secret", "previous_secret_file");
        let message_authenticator =
            client.word("message_authenticator", &[("optional", false), ("require", true)]).unwrap_or(false);
        let profile = match client.string("profile") {
            None => Some(Arc::clone(Profile::standard())),
            Some(found) => self.profile(&found, profiles),
        };
        let identity = client.word(
            "identity",
            &[
                ("client", IdentityRule::Client),
                ("nas-identifier", IdentityRule::NasIdentifier),
                ("nas-ip", IdentityRule::NasIp),
            ],
        );
        let max_rate = client.parsed::<BitRate>("max_rate").map(|found| found.value);
        let interim_seconds = client.number("interim_seconds", 1);
        let tenants = client
            .strings("tenants")
            .map(|list| list.iter().filter_map(|found| client.parse(found)).map(|found| found.value).collect());
        let around = Around {
            network: address.flatten(),
            secret: secret.as_ref().and_then(Option::as_ref),
            identity: identity.unwrap_or_default(),
            dictionary,
        };
        let coa = self.coa(&client, &around);
        client.close();
        Some(Nas {
            name: name?,
            address: address?,
            secret: secret?,
            previous_secret: previous_secret?,
            certificates: certificates?,
            message_authenticator,
            profile: profile?,
            identity: identity.unwrap_or_default(),
            max_rate: max_rate.unwrap_or(BitRate::from_bits_per_second(DEFAULT_MAX_RATE_BITS)),
            interim_seconds: interim_seconds.unwrap_or(DEFAULT_INTERIM_SECONDS),
            tenants: tenants as Option<Vec<TenantId>>,
            coa: coa?,
        })
    }

    fn profile(&self, found: &Found<&str>, profiles: &Profiles) -> Option<Arc<Profile>> {
        let profile = profiles.named(found.value);
        if profile.is_none() {
            let known = profiles.names().collect::<Vec<_>>().join(", ");
            self.reader.fault(found.at, &found.key, format!("is {:?}; it can be {known}", found.value));
        }
        profile
    }

    /// The shipped profiles and those of the places named.
    fn profiles(&self, places: Vec<Found<&str>>, dictionaries: &[PathBuf]) -> Profiles {
        let mut profiles = Profiles::shipped().clone();
        if places.is_empty() {
            return profiles;
        }
        // What is wrong with a dictionary is told where it is named.
        let dictionary = dictionaries::load(dictionaries).unwrap_or_default();
        for found in places {
            let path = self.reader.path(found.value);
            for fault in profiles::load(&path, &dictionary, &mut profiles).err().into_iter().flatten() {
                self.reader.fault(found.at, &found.key, format!("{}: {}", fault.pointer, fault.detail));
            }
        }
        profiles
    }

    fn tftp(&self, section: Section<'_, '_>) -> Option<Tftp> {
        let listen = match section.string("listen") {
            Some(found) => self.address(&found),
            None => DEFAULT_TFTP.parse().ok(),
        };
        section.close();
        Some(Tftp { listen: listen? })
    }

    fn docsis(&self, section: Section<'_, '_>) -> Docsis {
        let shared_secret = self.secret(&section, "shared_secret", "shared_secret_file").flatten();
        section.close();
        Docsis { shared_secret }
    }

    fn samis(&self, section: Section<'_, '_>) -> Option<Samis> {
        let classes = section.strings("service_classes");
        if classes.is_none() {
            section.fault("service_classes is required: the names of the service classes that count");
        }
        let octets = section.word("octets", &[("L2", "L2"), ("L3", "L3")]).unwrap_or("L2");
        section.close();
        let service_classes = classes?.iter().map(|found| found.value.to_owned()).collect();
        Some(Samis { service_classes, octets: octets.to_owned() })
    }

    /// `None` when the driver is `none`.
    fn aaa(&self, section: Section<'_, '_>) -> Option<AaaTables> {
        let on = section.word("driver", &[("freeradius-sql", true), ("none", false)]).unwrap_or(true);
        let url = if on { section.required("url") } else { section.string("url") };
        let url = url.and_then(|found| self.url(&found));
        let words = [("crypt", PasswordStorage::Crypt), ("cleartext", PasswordStorage::Cleartext)];
        let password = section.word("password", &words).unwrap_or_default();
        section.close();
        on.then_some(AaaTables { url: url?, password })
    }

    fn log(&self, section: Section<'_, '_>) -> Log {
        let format = section.word(
            "format",
            &[
                ("auto", LogFormat::Auto),
                ("journald", LogFormat::Journald),
                ("text", LogFormat::Text),
                ("json", LogFormat::Json),
            ],
        );
        let level = section.string("level").map(|found| {
            if let Err(detail) = log::targets(found.value) {
                self.reader.fault(found.at, &found.key, detail);
            }
            found.value.to_owned()
        });
        section.close();
        Log { format: format.unwrap_or(LogFormat::Auto), level: level.unwrap_or_else(|| "info".to_owned()) }
    }

    /// A database's URL: a scheme we speak, and a path or host.
    pub(super) fn url(&self, found: &Found<&str>) -> Option<String> {
        let known = [("sqlite://", "a path, as in sqlite:///var/lib/lastmile/lastmile.db"), ("postgres://", "a host")];
        let scheme = known.iter().find(|(scheme, _)| found.value.starts_with(scheme));
        let detail = match scheme {
            Some((scheme, _)) if found.value.len() > scheme.len() => return Some(found.value.to_owned()),
            Some((_, rest)) => format!("lacks {rest}"),
            None if found.value.starts_with("postgresql://") => return Some(found.value.to_owned()),
            None => "must begin with sqlite:// or postgres://".to_owned(),
        };
        self.reader.fault(found.at, &found.key, detail);
        None
    }

    pub(super) fn address(&self, found: &Found<&str>) -> Option<SocketAddr> {
        match found.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let detail = format!("{:?} is no address with a port; write for example 127.0.0.1:8080", found.value);
                self.reader.fault(found.at, &found.key, detail);
                None
            }
        }
    }

    /// Two NAS of one name or one network cannot be told apart.
    fn distinct(&self, seen: &[(Found<&str>, Option<Found<Cidr>>)], name: &Found<&str>, address: Option<&Found<Cidr>>) {
        for (other_name, other_address) in seen {
            if other_name.value == name.value {
                self.reader.fault(
                    name.at,
                    &name.key,
                    format!("{:?} is named twice, first as {}", name.value, other_name.key),
                );
            }
            if let (Some(ours), Some(other)) = (address, other_address)
                && ours.value == other.value
            {
                let detail = format!("{} is already the network of {:?}", ours.value, other_name.value);
                self.reader.fault(ours.at, &ours.key, detail);
            }
        }
    }

    /// A secret or the file that holds it. Outer `None`: it is given but unusable; inner `None`: it is not given.
    pub(super) fn secret(
        &self,
        section: &Section<'_, '_>,
        name: &'static str,
        file: &'static str,
    ) -> Option<Option<Secret>> {
        let (inline, file) = (section.string(name), section.string(file));
        match (inline, file) {
            (Some(_), Some(file)) => {
                self.reader.fault(file.at, &file.key, format!("{name} is given too; keep one of them"));
                None
            }
            (Some(found), None) if found.value.is_empty() => {
                self.reader.fault(found.at, &found.key, "must not be empty");
                None
            }
            (Some(found), None) => {
                probe::inline_secret(self.reader, &found);
                Some(Some(Secret::new(found.value)))
            }
            (None, Some(found)) => self.secret_file(&found).map(Some),
            (None, None) => Some(None),
        }
    }

    fn secret_file(&self, found: &Found<&str>) -> Option<Secret> {
        let path = self.reader.credential(found.value);
        let text = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > SECRET_FILE_MAX_BYTES => {
                Err(format!("{} is longer than {SECRET_FILE_MAX_BYTES} bytes", path.display()))
            }
            Ok(_) => std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display())),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        match text {
            Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
                self.reader.fault(found.at, &found.key, format!("{} is empty", path.display()));
                None
            }
            Ok(text) => {
                probe::secret_mode(self.reader, found, &path);
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
            Err(detail) => {
                self.reader.fault(found.at, &found.key, detail);
                None
            }
        }
    }

    fn dictionary(&self, found: &Found<&str>) -> PathBuf {
        let path = self.reader.path(found.value);
        if self.probing {
            probe::dictionary(self.reader, found, &path);
        }
        path
    }
}

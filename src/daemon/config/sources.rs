//! Reads `[sources]` and `[[source]]`: billing systems, the profiles by which they are read, and how each comes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::Section;
use super::sections::Door;
use crate::intake::sources::{Breaker, Callback, RAW_DAYS, SETTLE_SECONDS, Shelf, Source, SourceSettings};
use crate::intake::ways::callback;
use crate::mediation::{Verify, Wanted};
use crate::tls;
use crate::vocabulary::{Cidr, SourceId, TenantId};

const DAYS_MAX: u32 = 3660;
const SETTLE_MAX: u32 = 86_400;

impl Door<'_, '_> {
    /// `None`: something is unusable, and noted.
    pub(super) fn sources(
        &self,
        common: Option<Section<'_, '_>>,
        each: Vec<Section<'_, '_>>,
    ) -> Option<SourceSettings> {
        let (mut profiles, mut raw_days, mut settle_seconds) = (Vec::new(), RAW_DAYS, SETTLE_SECONDS);
        let mut shelf = None;
        if let Some(common) = common {
            let named = common.one_or_more("profiles");
            profiles = named.iter().map(|found| self.reader.path(found.value)).collect();
            raw_days = self.at_most(&common, "raw_days", DAYS_MAX).unwrap_or(raw_days);
            settle_seconds = self.at_most(&common, "settle_seconds", SETTLE_MAX).unwrap_or(settle_seconds);
            match (Shelf::read(&profiles), named.first()) {
                (Ok(read), _) => shelf = Some(read),
                (Err(faults), Some(first)) => {
                    for fault in faults {
                        self.reader.fault(first.at, &first.key, format!("{} {}", fault.pointer, fault.detail));
                    }
                    return None;
                }
                (Err(_), None) => return None,
            }
            common.close();
        }
        let shelf = match shelf {
            Some(shelf) => shelf,
            None => Shelf::read(&profiles).ok()?,
        };
        let sources: Vec<Source> = each.into_iter().filter_map(|section| self.source(section, &shelf)).collect();
        let sources = self.alike(sources);
        Some(SourceSettings { profiles, raw_days, settle_seconds, sources, shelf: Arc::new(shelf) })
    }

    fn at_most(&self, section: &Section<'_, '_>, name: &'static str, most: u32) -> Option<u32> {
        let number = section.number(name, 0)?;
        if number > most {
            self.reader.fault(section.at(), &section.key(name), format!("must be at most {most}"));
            return None;
        }
        Some(number)
    }

    fn source(&self, section: Section<'_, '_>, shelf: &Shelf) -> Option<Source> {
        let tenant = section.required("tenant").and_then(|found| section.parse::<TenantId>(&found));
        let source = section.parsed::<SourceId>("source").map(|found| found.value).unwrap_or_default();
        let named = section.one_or_more("profile");
        let observe = section.word("mode", &[("live", false), ("observe", true)]);
        let breaker = section.table("breaker").map(|table| self.breaker(table));
        let secret = self.secret(&section, "secret", "secret_file").flatten();
        let previous_secret = self.secret(&section, "previous_secret", "previous_secret_file").flatten();
        let addresses: Vec<Cidr> = section
            .one_or_more("addresses")
            .iter()
            .filter_map(|found| section.parse::<Cidr>(found).map(|found| found.value))
            .collect();
        let callback = section.table("callback").and_then(|table| self.callback(table));
        let inbox = section.string("inbox").map(|found| (self.reader.path(found.value), found.at, found.key));
        let listen = section.string("listen").and_then(|found| Some((self.address(&found)?, found.at, found.key)));
        let mut profiles = Vec::new();
        for found in &named {
            match shelf.named(found.value) {
                Some(_) if profiles.contains(&found.value.to_owned()) => {
                    self.reader.fault(found.at, &found.key, "stands twice");
                }
                Some(shelved) => {
                    profiles.push(found.value.to_owned());
                    let wanted = shelved.profile.verify.as_ref().map(Verify::wanted);
                    let missing = match wanted {
                        Some(Wanted::Secret) if secret.is_none() => Some("secret or secret_file"),
                        Some(Wanted::Callback) if callback.is_none() => Some("callback"),
                        Some(Wanted::Addresses) if addresses.is_empty() => Some("addresses"),
                        _ => None,
                    };
                    // A file in a folder proves itself by standing there.
                    if let Some(missing) = missing.filter(|_| inbox.is_none()) {
                        let detail = format!("its profile {} verifies by it", found.value);
                        self.reader.fault(
                            section.at(),
                            &section.key("profile"),
                            format!("{missing} is required: {detail}"),
                        );
                    }
                    if let Some((_, at, key)) = &listen {
                        self.listening(&shelved.profile, addresses.is_empty(), *at, key);
                    }
                }
                None => {
                    let detail = format!(
                        "there is no profile {:?}: it is neither shipped nor in [sources] profiles",
                        found.value
                    );
                    self.reader.fault(found.at, &found.key, detail);
                }
            }
        }
        if profiles.len() != 1
            && let Some((at, key)) =
                inbox.as_ref().map(|(_, at, key)| (at, key)).or(listen.as_ref().map(|(_, at, key)| (at, key)))
            && named.len() != 1
        {
            self.reader.fault(*at, key, "needs one profile; write one [[source]] for each");
        }
        if let Some((path, at, key)) = &inbox
            && !path.is_dir()
        {
            self.reader.fault(*at, key, format!("{} is no folder", path.display()));
        }
        section.close();
        Some(Source {
            tenant: tenant?.value,
            source,
            profiles,
            secret,
            previous_secret,
            addresses,
            callback,
            observe: observe.unwrap_or(false),
            breaker: breaker.unwrap_or_default(),
            inbox: inbox.map(|(path, ..)| path),
            listen: listen.map(|(address, ..)| address),
        })
    }

    fn breaker(&self, table: Section<'_, '_>) -> Breaker {
        let usual = Breaker::default();
        let percent = self.at_most(&table, "percent", 100).unwrap_or(usual.percent);
        let accounts = table.number("accounts", 0).unwrap_or(usual.accounts);
        table.close();
        Breaker { percent, accounts }
    }

    fn callback(&self, table: Section<'_, '_>) -> Option<Callback> {
        let url = table.required("url");
        let place = url.as_ref().map(|found| (found, callback::parse(found.value)));
        if let Some((found, Err(detail))) = &place {
            self.reader.fault(found.at, &found.key, detail.clone());
        }
        let secure = matches!(&place, Some((_, Ok(place))) if place.secure);
        let ca = table.string("ca");
        if ca.is_some() && !secure {
            table.fault("ca goes with a url that begins with https://");
        }
        let mut tls = None;
        if secure {
            let path = ca.as_ref().map(|found| self.reader.credential(found.value));
            match (tls::client_config(path.as_deref()), &ca, &url) {
                (Ok(settings), ..) => tls = Some(Arc::new(settings)),
                (Err(fault), Some(found), _) | (Err(fault), None, Some(found)) => {
                    self.reader.fault(found.at, &found.key, format!("{} {}", fault.path, fault.reason));
                }
                (Err(_), None, None) => {}
            }
        }
        let header = table.string("header").map(|found| found.value.to_ascii_lowercase());
        let secret = self.secret(&table, "secret", "secret_file").flatten();
        if header.is_some() != secret.is_some() {
            table.fault("a header and its secret go together");
        }
        table.close();
        Some(Callback { url: url?.value.to_owned(), tls, header: header.zip(secret) })
    }

    fn listening(&self, profile: &crate::mediation::Profile, anywhere: bool, at: usize, key: &str) {
        if profile.frame.is_none() {
            self.reader.fault(
                at,
                key,
                format!("its profile {} has no [frame]: where a message ends is not known", profile.name),
            );
        }
        match &profile.verify {
            None if anywhere => {
                self.reader.fault(
                    at,
                    key,
                    "needs `addresses`: anybody could connect, and its profile verifies nothing",
                );
            }
            Some(Verify::Hmac { .. } | Verify::Header { .. } | Verify::Callback { .. }) => {
                self.reader.fault(at, key, format!("its profile {} verifies by what only a request has", profile.name));
            }
            _ => {}
        }
    }

    /// Blocks of one source say one thing about its mode and its breaker; the first that says something else than usual
    /// speaks for all.
    fn alike(&self, mut sources: Vec<Source>) -> Vec<Source> {
        let mut said: BTreeMap<(TenantId, SourceId), (bool, Breaker)> = BTreeMap::new();
        for source in &sources {
            let (observe, breaker) = said.entry((source.tenant.clone(), source.source.clone())).or_default();
            *observe |= source.observe;
            if *breaker == Breaker::default() {
                *breaker = source.breaker;
            }
        }
        for source in &mut sources {
            if let Some((observe, breaker)) = said.get(&(source.tenant.clone(), source.source.clone())) {
                (source.observe, source.breaker) = (*observe, *breaker);
            }
        }
        sources
    }
}

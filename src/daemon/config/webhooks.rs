//! Reads `[webhooks]`: which networks deliveries may reach besides the public Internet, and whom TLS trusts.

use super::Webhooks;
use super::reader::Section;
use super::sections::Door;
use crate::tls;
use crate::vocabulary::Cidr;

const AT_ONCE_MOST: u32 = 256;

impl Door<'_, '_> {
    pub(super) fn webhooks(&self, section: Section<'_, '_>) -> Webhooks {
        let usual = Webhooks::default();
        let networks = section.strings("allow").unwrap_or_default();
        let allow = networks.iter().filter_map(|found| section.parse::<Cidr>(found)).map(|found| found.value).collect();
        let ca = section.string("ca").map(|found| {
            let path = self.reader.credential(found.value);
            if self.probing
                && let Err(fault) = tls::client_config(Some(&path))
            {
                self.reader.fault(found.at, &found.key, format!("{}: {}", fault.path, fault.reason));
            }
            path
        });
        let at_once = section.number("at_once", 1).unwrap_or(usual.at_once);
        if at_once > AT_ONCE_MOST {
            section.fault(format!("at_once is at most {AT_ONCE_MOST}"));
        }
        section.close();
        Webhooks { allow, ca, at_once }
    }
}

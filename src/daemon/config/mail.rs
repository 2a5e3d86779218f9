//! Reads `[mail]`: where the mail host's tables are and what they are called, how mailboxes are treated, and doveadm.

use super::Mail;
use super::reader::{Scalar, Section};
use super::sections::Door;
use crate::provisioner::doveadm::{Doveadm, DoveadmUrl};
use crate::provisioner::mailbox::{MailRules, Suspended};
use crate::provisioner::password::Scheme;
use crate::store::foreign::mail::{Constant, MailMap, MailTable};

const MOST_DAYS: u32 = 3660;

impl Door<'_, '_> {
    /// `None`: the driver is `none`, or something is unusable and noted.
    pub(super) fn mail(&self, section: Section<'_, '_>) -> Option<Mail> {
        let on = section.word("driver", &[("postfixadmin", true), ("none", false)]).unwrap_or(true);
        let url = if on { section.required("url") } else { section.string("url") };
        let url = url.and_then(|found| self.url(&found));
        let usual = MailRules::default();
        let rules = MailRules {
            grace_days: self.days(&section, "grace_days").unwrap_or(usual.grace_days),
            former_days: self.days(&section, "former_address_days").unwrap_or(usual.former_days),
            suspended: section
                .word("suspended", &[("accept", Suspended::Accept), ("refuse", Suspended::Refuse)])
                .unwrap_or(usual.suspended),
            scheme: section
                .word("password_scheme", &[("sha512-crypt", Scheme::Sha512Crypt), ("argon2id", Scheme::Argon2id)])
                .unwrap_or(usual.scheme),
        };
        let mut map = MailMap::default();
        if let Some(tables) = section.table("tables") {
            self.tables(tables, &mut map);
        }
        if let Some(columns) = section.table("columns") {
            self.columns(columns, &mut map);
        }
        if let Some(constants) = section.table("constants") {
            self.constants(constants, &mut map);
        }
        let doveadm = section.table("doveadm").and_then(|section| self.doveadm(section));
        section.close();
        on.then_some(Mail { url: url?, map, rules, doveadm })
    }

    fn days(&self, section: &Section<'_, '_>, name: &'static str) -> Option<u32> {
        let days = section.number(name, 0)?;
        if days > MOST_DAYS {
            self.reader.fault(section.at(), &section.key(name), format!("must be at most {MOST_DAYS} days"));
            return None;
        }
        Some(days)
    }

    fn tables(&self, section: Section<'_, '_>, map: &mut MailMap) {
        for of in MailTable::ALL {
            if let Some(found) = section.string(of.as_str())
                && let Err(detail) = map.name_table(of, found.value)
            {
                self.reader.fault(found.at, &found.key, detail);
            }
        }
        section.close();
    }

    fn columns(&self, section: Section<'_, '_>, map: &mut MailMap) {
        for of in MailTable::ALL {
            let Some(columns) = section.table(of.as_str()) else { continue };
            // Those that are left out first, so that another may take the name.
            let mut named: Vec<_> =
                of.roles().iter().filter_map(|role| Some((role, columns.string(role.name)?))).collect();
            named.sort_by_key(|(_, found)| !found.value.is_empty());
            for (role, found) in named {
                if let Err(detail) = map.name_column(of, role.name, found.value) {
                    self.reader.fault(found.at, &found.key, detail);
                }
            }
            columns.close();
        }
        section.close();
    }

    fn constants(&self, section: Section<'_, '_>, map: &mut MailMap) {
        for of in MailTable::ALL.into_iter().filter(|of| *of != MailTable::Quota) {
            let Some(columns) = section.table(of.as_str()) else { continue };
            for found in columns.scalars() {
                let constant = match found.value {
                    Scalar::Text(text) => Constant::Text(text.to_owned()),
                    Scalar::Number(number) => Constant::Number(number),
                    Scalar::Flag(flag) => Constant::Flag(flag),
                };
                let column = found.key.rsplit('.').next().unwrap_or_default();
                if let Err(detail) = map.set_constant(of, column, constant) {
                    self.reader.fault(found.at, &found.key, detail);
                }
            }
        }
        section.close();
    }

    fn doveadm(&self, section: Section<'_, '_>) -> Option<Doveadm> {
        let url = section.required("url").and_then(|found| section.parse::<DoveadmUrl>(&found));
        let key = self.secret(&section, "key", "key_file");
        if key == Some(None) {
            section.fault("needs key or key_file: Dovecot's doveadm_api_key");
        }
        section.close();
        Some(Doveadm::new(url?.value, key.flatten()?))
    }
}

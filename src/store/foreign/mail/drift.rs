//! Tells in words how a mailbox's rows differ from what they must be.

use super::rows::{KEPT, answering, wanted_destinations};
use super::{Access, MailboxRow, NO_PASSWORD, Standing};

const OCTETS_PER_MB: i64 = 1024 * 1024;

impl MailboxRow {
    /// How what stands there differs; `None`: it does not. A password that somebody changed over there is that person's
    /// and no difference: only which of ours was written last is compared.
    pub fn differences(&self, standing: Option<&Standing>) -> Option<String> {
        let Some(standing) = standing else { return Some("its row is missing".to_owned()) };
        let mut told = Vec::new();
        if standing.access != self.access {
            told.push(format!("{} instead of {}", does(standing.access), does(self.access)));
        }
        if let Some(quota) = standing.quota_bytes.filter(|quota| *quota != self.quota_bytes) {
            told.push(format!("a quota of {} instead of {}", megabytes(quota), megabytes(self.quota_bytes)));
        }
        match &standing.password_digest {
            None => told.push("the row was not written by us".to_owned()),
            Some(digest) if digest == KEPT && self.password_digest == NO_PASSWORD => {}
            Some(digest) if *digest != self.password_digest => told.push("another password".to_owned()),
            Some(_) => {}
        }
        if !standing.owner.is_empty() && standing.owner != self.owner.text() {
            told.push("it belongs to another service".to_owned());
        }
        told.extend(self.other_destinations(standing));
        told.extend(self.other_aliases(standing));
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn other_destinations(&self, standing: &Standing) -> Option<String> {
        let Some(goto) = &standing.goto else {
            return (self.access != Access::Shut).then(|| "the alias row to itself is missing or inactive".to_owned());
        };
        if self.access == Access::Shut {
            // Told above where the mailbox itself is active.
            return (standing.access == Access::Shut).then(|| "mail is still taken in by its alias row".to_owned());
        }
        let machine = answering(&self.address);
        let mut found: Vec<&str> = goto.iter().map(String::as_str).filter(|one| !one.starts_with(&machine)).collect();
        let wanted = wanted_destinations(self);
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        (found != wanted).then(|| format!("mail goes to {} instead of {}", found.join(", "), wanted.join(", ")))
    }

    fn other_aliases(&self, standing: &Standing) -> Vec<String> {
        let mut told = Vec::new();
        for alias in &self.aliases {
            let found =
                standing.aliases.iter().find(|known| known.address == *alias).and_then(|known| known.goto.as_ref());
            match found {
                None if self.access == Access::Shut => {}
                None => told.push(format!("alias {alias} is missing or inactive")),
                Some(_) if self.access == Access::Shut => told.push(format!("alias {alias} is still active")),
                Some(goto) if *goto != self.address => told.push(format!("alias {alias} leads to {goto}")),
                Some(_) => {}
            }
        }
        for alias in standing.aliases.iter().filter(|alias| !alias.former && alias.goto.is_some()) {
            if !self.aliases.contains(&alias.address) {
                told.push(format!("alias {} still leads here", alias.address));
            }
        }
        told
    }
}

fn does(access: Access) -> &'static str {
    match access {
        Access::Open => "an open login",
        Access::Locked => "a refused login with mail taken in",
        Access::Shut => "a refused login with mail refused",
    }
}

fn megabytes(octets: i64) -> String {
    match octets {
        0 => "no limit".to_owned(),
        octets if octets % OCTETS_PER_MB == 0 => format!("{} MB", octets / OCTETS_PER_MB),
        octets => format!("{octets} octets"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Owner, StandingAlias};
    use super::*;

    type Change = fn(&mut Standing);

    fn wanted() -> MailboxRow {
        MailboxRow {
            owner: Owner { tenant: "acme".into(), account_id: 1, service: "m1".into() },
            address: "ada@acme.example".into(),
            access: Access::Open,
            quota_bytes: 10 * OCTETS_PER_MB,
            aliases: vec!["lovelace@acme.example".into()],
            forward_to: vec!["ada@example.org".into()],
            keep_copy: true,
            password_digest: "d1".into(),
            password: None,
        }
    }

    fn standing() -> Standing {
        Standing {
            access: Access::Open,
            quota_bytes: Some(10 * OCTETS_PER_MB),
            maildir: "acme.example/ada/".into(),
            password_digest: Some("d1".into()),
            owner: "acme/1/m1".into(),
            goto: Some(vec!["ada@example.org".into(), "ada@acme.example".into()]),
            aliases: vec![StandingAlias {
                address: "lovelace@acme.example".into(),
                goto: Some("ada@acme.example".into()),
                former: false,
            }],
        }
    }

    /// Each change of one thing alone is told in its words.
    #[test]
    fn each_difference_has_its_words() {
        assert_eq!(wanted().differences(Some(&standing())), None);
        assert_eq!(wanted().differences(None).as_deref(), Some("its row is missing"));
        let cases: [(&str, Change); 9] = [
            ("a refused login with mail refused instead of an open login", |row| row.access = Access::Shut),
            ("a quota of 20 MB instead of 10 MB", |row| row.quota_bytes = Some(20 * OCTETS_PER_MB)),
            ("another password", |row| row.password_digest = Some("d2".into())),
            ("the row was not written by us", |row| row.password_digest = None),
            ("it belongs to another service", |row| row.owner = "acme/1/m2".into()),
            ("mail goes to ada@acme.example instead of ada@acme.example, ada@example.org", |row| {
                row.goto = Some(vec!["ada@acme.example".into()]);
            }),
            ("the alias row to itself is missing or inactive", |row| row.goto = None),
            ("alias lovelace@acme.example is missing or inactive", |row| row.aliases[0].goto = None),
            ("alias lovelace@acme.example leads to eve@evil.example", |row| {
                row.aliases[0].goto = Some("eve@evil.example".into());
            }),
        ];
        for (words, change) in cases {
            let mut row = standing();
            change(&mut row);
            assert_eq!(wanted().differences(Some(&row)).as_deref(), Some(words));
        }
    }

    #[test]
    fn answering_machines_and_former_addresses_are_no_difference() {
        let mut row = standing();
        row.goto.as_mut().expect("it leads somewhere").push("ada#acme.example@autoreply.acme.example".into());
        row.aliases.push(StandingAlias {
            address: "countess@acme.example".into(),
            goto: Some("ada@acme.example".into()),
            former: true,
        });
        assert_eq!(wanted().differences(Some(&row)), None);
        row.aliases[1].former = false;
        let told = wanted().differences(Some(&row));
        assert_eq!(told.as_deref(), Some("alias countess@acme.example still leads here"));
    }
}

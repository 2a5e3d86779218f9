//! What of an account tells who its person is, and the account without it. An account in; words, or the rest, out.

use std::collections::BTreeSet;

use serde_json::Value;

use super::model::{Account, Address, Service, Status};

/// Shorter words stand in every text and tell nobody.
const WORD_LEAST: usize = 4;

impl Account {
    /// Every word that tells who the person is or where: names, addresses of any kind, numbers, logins, MACs, serial numbers.
    pub fn identity(&self) -> BTreeSet<String> {
        let mut words: Vec<Option<String>> = vec![self.name.clone(), self.email.clone(), self.phone.clone()];
        words.extend(place(self.billing_address.as_ref()));
        for device in &self.devices {
            words.push(Some(device.cm_mac.to_string()));
            words.push(device.mta_mac.map(|mac| mac.to_string()));
            words.push(device.serial.clone());
        }
        for service in &self.services {
            words.extend(of_service(service));
        }
        words.extend(self.tags.values().cloned().map(Some));
        words.into_iter().flatten().filter(|word| word.chars().count() >= WORD_LEAST).collect()
    }

    /// The account as bills need it: what it bought and when, of nobody.
    pub fn without_identity(&self) -> Self {
        let services = self.services.iter().map(|service| Service {
            device: None,
            max_cpe: None,
            static_ips: Vec::new(),
            radius: None,
            service_address: None,
            lines: Vec::new(),
            mailbox: None,
            network_from: None,
            attributes: None,
            ..service.clone()
        });
        Self {
            status: Status::Terminated,
            name: None,
            email: None,
            phone: None,
            language: None,
            billing_address: None,
            devices: Vec::new(),
            services: services.collect(),
            tags: Default::default(),
            ..self.clone()
        }
    }
}

fn of_service(service: &Service) -> Vec<Option<String>> {
    let mut words: Vec<Option<String>> = service.static_ips.iter().map(|address| Some(address.to_string())).collect();
    if let Some(radius) = &service.radius {
        words.push(Some(radius.username.clone()));
        words.push(radius.framed_ip.map(|address| address.to_string()));
        words.push(radius.ipv6_delegated.clone());
    }
    for line in &service.lines {
        words.push(Some(line.number.clone()));
        words.extend(line.sip.iter().flat_map(|sip| [Some(sip.user.clone()), sip.display_name.clone()]));
    }
    if let Some(mailbox) = &service.mailbox {
        words.push(Some(mailbox.address.clone()));
        words.extend(mailbox.aliases.iter().chain(&mailbox.forward_to).cloned().map(Some));
    }
    words.extend(place(service.service_address.as_ref()));
    service.attributes.iter().for_each(|attributes| told(attributes, &mut words));
    words
}

/// Texts of attributes, but for what names kinds and records of the sender's.
fn told(value: &Value, words: &mut Vec<Option<String>>) {
    match value {
        Value::String(text) => words.push(Some(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| told(item, words)),
        Value::Object(members) => {
            let kept = |key: &str| key.starts_with('@') || IMPERSONAL.contains(&key);
            members.iter().filter(|(key, _)| !kept(key)).for_each(|(_, value)| told(value, words));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Members of attributes whose texts tell nobody.
const IMPERSONAL: [&str; 9] =
    ["category", "href", "id", "relationshipType", "role", "serviceSpecification", "state", "valueType", "version"];

/// Country, region and town are those of many.
fn place(address: Option<&Address>) -> Vec<Option<String>> {
    address.map_or_else(Vec::new, |address| vec![Some(address.line1.clone()), address.line2.clone()])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Every text of a document that is the person's.
    fn account() -> (Account, Value) {
        let document = json!({
            "status": "active", "kind": "person", "name": "Ada Lovelace", "email": "ada@example.net",
            "phone": "+15125550100", "language": "en", "bill_cycle": "c15",
            "billing_address": {"line1": "1 Main St", "line2": "Flat 7", "city": "Austin", "region": "TX",
                "postal_code": "78701", "country": "US"},
            "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56", "serial": "SN-4711"}],
            "services": [
                {"id": "i", "type": "internet", "plan": "res-100", "device": "gw1", "static_ips": ["192.0.2.77"],
                 "radius": {"username": "ada@acme", "framed_ip": "192.0.2.78", "ipv6_delegated": "2001:db8:7::/48"},
                 "billing_from": "2026-11-01"},
                {"id": "v", "type": "voice", "plan": "voice-basic", "device": "gw1",
                 "service_address": {"line1": "2 Side St", "city": "Austin", "country": "US"},
                 "lines": [{"port": 1, "number": "+15125550101", "enabled": true,
                            "sip": {"user": "sipuser7", "display_name": "Countess"}}]},
                {"id": "m", "type": "email", "plan": "mail-5g",
                 "mailbox": {"address": "ada@acme.example", "aliases": ["lovelace@acme.example"],
                             "forward_to": ["ada@elsewhere.example"]}}
            ],
            "tags": {"nickname": "Enchantress"}
        });
        (serde_json::from_value(document.clone()).expect("an account"), document)
    }

    #[test]
    fn nothing_that_tells_the_person_stays_and_what_bills_need_does() {
        let (account, document) = account();
        let words = account.identity();
        for word in [
            "Ada Lovelace",
            "+15125550100",
            "00:11:22:33:44:56",
            "SN-4711",
            "1 Main St",
            "2 Side St",
            "192.0.2.77",
            "192.0.2.78",
            "2001:db8:7::/48",
            "ada@acme",
            "+15125550101",
            "sipuser7",
            "Countess",
            "lovelace@acme.example",
            "ada@elsewhere.example",
            "Enchantress",
        ] {
            assert!(words.contains(word), "{word}");
            assert!(document.to_string().contains(word), "{word}");
        }
        let rest = json!(account.without_identity()).to_string();
        for word in &words {
            assert!(!rest.contains(word.as_str()), "{word} stays in {rest}");
        }
        for kept in ["res-100", "2026-11-01", "c15", "terminated"] {
            assert!(rest.contains(kept), "{kept} is gone from {rest}");
        }
        let rest: Account = serde_json::from_str(&rest).expect("an account");
        assert!(rest.identity().is_empty());
    }
}

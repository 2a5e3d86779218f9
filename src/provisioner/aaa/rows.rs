//! Decides, purely, which rows a login takes in FreeRADIUS's tables.
//!
//! | access | radcheck | radreply | radusergroup |
//! |---|---|---|---|
//! | accept | the password | the plan's attributes, addresses | the plan's group |
//! | garden, blocked | the password | addresses | that group alone |
//! | reject | `Auth-Type := Reject`, the password | none | none |
//!
//! The password is `Crypt-Password`, or `Cleartext-Password` where CHAP needs it. In the garden the plan's attributes are
//! left out, lest a rate or filter of the plan win over the garden group's.

use std::net::IpAddr;

use crate::provision::{AaaAccess, AaaContent};
use crate::store::foreign::aaa::{AttributeRow, Password, UserRows};

/// The rows of a login.
pub(super) fn rows(content: &AaaContent, password: Password) -> UserRows {
    let mut check = Vec::new();
    let mut reply = Vec::new();
    let mut groups = Vec::new();
    if content.access == AaaAccess::Reject {
        check.push(row("Auth-Type", ":=", "Reject"));
    }
    match &content.access {
        AaaAccess::Accept => {
            for (attribute, values) in &content.reply {
                // Of several values each further one is added beside the first.
                let ops = std::iter::once("=").chain(std::iter::repeat("+="));
                reply.extend(values.iter().zip(ops).map(|(value, op)| row(attribute, op, value)));
            }
            groups.extend(content.group.clone());
        }
        AaaAccess::Garden { group } | AaaAccess::Blocked { group } => groups.push(group.clone()),
        AaaAccess::Reject => {}
    }
    if content.access != AaaAccess::Reject {
        if let Some(address) = content.framed_ip {
            let attribute = match address {
                IpAddr::V4(_) => "Framed-IP-Address",
                IpAddr::V6(_) => "Framed-IPv6-Address",
            };
            set(&mut reply, attribute, &address.to_string());
        }
        if let Some(prefix) = &content.ipv6_delegated {
            set(&mut reply, "Delegated-IPv6-Prefix", prefix);
        }
    }
    UserRows { username: content.username.clone(), check, password, reply, groups }
}

/// The subscriber's own value wins over the plan's for the same attribute.
fn set(reply: &mut Vec<AttributeRow>, attribute: &str, value: &str) {
    reply.retain(|row| !row.attribute.eq_ignore_ascii_case(attribute));
    reply.push(row(attribute, ":=", value));
}

fn row(attribute: &str, op: &'static str, value: &str) -> AttributeRow {
    AttributeRow { attribute: attribute.to_owned(), op, value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::SecretRef;

    fn content(access: AaaAccess) -> AaaContent {
        AaaContent {
            username: "ada@acme".to_owned(),
            access,
            group: Some("res-100".to_owned()),
            reply: [
                ("Cisco-AVPair".to_owned(), vec!["sub:a=1".to_owned(), "sub:b=2".to_owned()].into()),
                ("Mikrotik-Rate-Limit".to_owned(), "20M/100M".into()),
            ]
            .into(),
            framed_ip: Some("192.0.2.7".parse().expect("an address")),
            ipv6_delegated: Some("2001:db8:7::/56".to_owned()),
            chap: false,
            password: SecretRef { service: "1".to_owned(), field: "radius.password".to_owned(), digest: None },
        }
    }

    fn shown(access: AaaAccess) -> Vec<String> {
        let rows = rows(&content(access), Password::Missing);
        let text = |row: &AttributeRow| format!("{} {} {}", row.attribute, row.op, row.value);
        let groups = rows.groups.iter().map(|group| format!("group {group}"));
        rows.check.iter().chain(&rows.reply).map(text).chain(groups).collect()
    }

    #[test]
    fn accepted_user_has_the_plan_s_attributes_and_addresses() {
        assert_eq!(
            shown(AaaAccess::Accept),
            [
                "Cisco-AVPair = sub:a=1",
                "Cisco-AVPair += sub:b=2",
                "Mikrotik-Rate-Limit = 20M/100M",
                "Framed-IP-Address := 192.0.2.7",
                "Delegated-IPv6-Prefix := 2001:db8:7::/56",
                "group res-100"
            ]
        );
    }

    #[test]
    fn garden_and_blocked_have_their_own_group_alone() {
        let (garden, blocked) = ("garden".to_owned(), "blocked".to_owned());
        for (access, group) in [
            (AaaAccess::Garden { group: garden }, "group garden"),
            (AaaAccess::Blocked { group: blocked }, "group blocked"),
        ] {
            assert_eq!(
                shown(access),
                ["Framed-IP-Address := 192.0.2.7", "Delegated-IPv6-Prefix := 2001:db8:7::/56", group]
            );
        }
    }

    #[test]
    fn rejected_user_is_known_and_refused() {
        assert_eq!(shown(AaaAccess::Reject), ["Auth-Type := Reject"]);
    }

    #[test]
    fn own_address_wins_over_the_plan_s() {
        let mut content = content(AaaAccess::Accept);
        content.reply.insert("framed-ip-address".to_owned(), "255.255.255.254".into());
        let rows = rows(&content, Password::Missing);
        let addresses: Vec<&str> = rows
            .reply
            .iter()
            .filter(|row| row.attribute.eq_ignore_ascii_case("Framed-IP-Address"))
            .map(|row| row.value.as_str())
            .collect();
        assert_eq!(addresses, ["192.0.2.7"]);
    }
}

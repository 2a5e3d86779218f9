//! Brings one RADIUS login to what is desired, in FreeRADIUS's tables. Which rows that takes is decided here, purely.
//!
//! | access | radcheck | radreply | radusergroup |
//! |---|---|---|---|
//! | accept | `Cleartext-Password` (CHAP needs it in clear) | the plan's attributes, addresses | the plan's group |
//! | garden | `Cleartext-Password` | addresses | the garden's group alone |
//! | reject | `Auth-Type := Reject`, `Cleartext-Password` | none | none |
//!
//! In the garden the plan's attributes are left out, lest a rate or filter of the plan win over the garden group's.

use super::backend::{ApplyError, foreign, foreign_content, open_secret};
use crate::provision::{AaaAccess, AaaContent, Content, ElementState};
use crate::store::Store;
use crate::store::elements::{ElementRow, Progress};
use crate::store::foreign::aaa::{AaaDatabase, AttributeRow, UserRows};
use crate::vocabulary::{Secret, Timestamp};
use std::net::IpAddr;

const DATABASE: &str = "the AAA database";

pub(super) async fn apply(
    aaa: &AaaDatabase,
    store: &Store,
    element: &ElementRow,
    now: Timestamp,
) -> Result<Progress, ApplyError> {
    match &element.desired {
        Content::Aaa(content) => {
            let password = open_secret(store, element, &content.password).await?;
            aaa.replace(&rows(content, password.as_ref())).await.map_err(|error| foreign(DATABASE, error))?;
            let evidence = evidence(content, password.is_some(), now);
            Ok(Progress { state: ElementState::Applied, evidence, applied: true })
        }
        Content::Absent => {
            aaa.remove(&element.key).await.map_err(|error| foreign(DATABASE, error))?;
            let evidence = format!("removed from the AAA tables at {now:.0}");
            Ok(Progress { state: ElementState::Gone, evidence, applied: true })
        }
        other => Err(foreign_content(element, other)),
    }
}

/// The rows of a login.
fn rows(content: &AaaContent, password: Option<&Secret>) -> UserRows {
    let mut check = Vec::new();
    let mut reply = Vec::new();
    let mut groups = Vec::new();
    if content.access == AaaAccess::Reject {
        check.push(row("Auth-Type", ":=", "Reject"));
    }
    if let Some(password) = password {
        check.push(row("Cleartext-Password", ":=", password.expose()));
    }
    match &content.access {
        AaaAccess::Accept => {
            reply.extend(content.reply.iter().map(|(attribute, value)| row(attribute, "=", value)));
            groups.extend(content.group.clone());
        }
        AaaAccess::Garden { group } => groups.push(group.clone()),
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
    UserRows { username: content.username.clone(), check, reply, groups }
}

/// The subscriber's own value wins over the plan's for the same attribute.
fn set(reply: &mut Vec<AttributeRow>, attribute: &str, value: &str) {
    reply.retain(|row| !row.attribute.eq_ignore_ascii_case(attribute));
    reply.push(row(attribute, ":=", value));
}

fn row(attribute: &str, op: &'static str, value: &str) -> AttributeRow {
    AttributeRow { attribute: attribute.to_owned(), op, value: value.to_owned() }
}

fn evidence(content: &AaaContent, has_password: bool, now: Timestamp) -> String {
    let login = match (&content.access, has_password) {
        (AaaAccess::Reject, _) => "login refused".to_owned(),
        (_, false) => "login refused: no password is set".to_owned(),
        (AaaAccess::Garden { group }, true) => format!("login allowed into garden group {group}"),
        (AaaAccess::Accept, true) => match &content.group {
            Some(group) => format!("login allowed in group {group}"),
            None => "login allowed".to_owned(),
        },
    };
    format!("{login}; in the AAA tables since {now:.0}")
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
            reply: [("Mikrotik-Rate-Limit".to_owned(), "20M/100M".to_owned())].into(),
            framed_ip: Some("192.0.2.7".parse().expect("an address")),
            ipv6_delegated: Some("2001:db8:7::/56".to_owned()),
            password: SecretRef { service: "1".to_owned(), field: "radius.password".to_owned(), digest: None },
        }
    }

    fn shown(access: AaaAccess) -> Vec<String> {
        let rows = rows(&content(access), Some(&Secret::new("s3cret")));
        let text = |row: &AttributeRow| format!("{} {} {}", row.attribute, row.op, row.value);
        let groups = rows.groups.iter().map(|group| format!("group {group}"));
        rows.check.iter().chain(&rows.reply).map(text).chain(groups).collect()
    }

    #[test]
    fn accepted_user_has_the_plan_s_attributes_and_addresses() {
        assert_eq!(
            shown(AaaAccess::Accept),
            [
                "Cleartext-Password := s3cret",
                "Mikrotik-Rate-Limit = 20M/100M",
                "Framed-IP-Address := 192.0.2.7",
                "Delegated-IPv6-Prefix := 2001:db8:7::/56",
                "group res-100"
            ]
        );
    }

    #[test]
    fn garden_has_its_own_group_alone() {
        assert_eq!(
            shown(AaaAccess::Garden { group: "garden".to_owned() }),
            [
                "Cleartext-Password := s3cret",
                "Framed-IP-Address := 192.0.2.7",
                "Delegated-IPv6-Prefix := 2001:db8:7::/56",
                "group garden"
            ]
        );
    }

    #[test]
    fn rejected_user_is_known_and_refused() {
        assert_eq!(shown(AaaAccess::Reject), ["Auth-Type := Reject", "Cleartext-Password := s3cret"]);
    }

    #[test]
    fn own_address_wins_over_the_plan_s() {
        let mut content = content(AaaAccess::Accept);
        content.reply.insert("framed-ip-address".to_owned(), "255.255.255.254".to_owned());
        let rows = rows(&content, None);
        let addresses: Vec<&str> = rows
            .reply
            .iter()
            .filter(|row| row.attribute.eq_ignore_ascii_case("Framed-IP-Address"))
            .map(|row| row.value.as_str())
            .collect();
        assert_eq!(addresses, ["192.0.2.7"]);
    }
}

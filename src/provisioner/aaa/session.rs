//! What a login was authorized with before its rows were written, and is now: from rows to the values that decide about
//! its live sessions.

use std::collections::{BTreeMap, HashMap};

use super::rows::rows;
use crate::provision::{AaaAccess, AaaContent, Authorization, Content, Login};
use crate::store::elements::ElementRow;
use crate::store::foreign::aaa::{AttributeRow, FoundRow, GroupRows, Password, Replaced, Standing, UserRows};

/// Attributes that mean something to the AAA server or to a person only; no session is changed for them.
const WITHOUT_EFFECT: [&str; 2] = ["Fall-Through", "Reply-Message"];

/// What sessions were authorized with before, and from now on. `None`: nothing is known of before, so that nothing is
/// asked: an installation that is taken over must not lose all its sessions at once.
pub(super) fn change(element: &ElementRow, replaced: &Replaced) -> Option<(Authorization, Authorization)> {
    let applied = element.applied.as_ref()?;
    let wanted = content_of(&element.desired).map(|content| rows(content, Password::Missing));
    let after = wanted.as_ref().map_or_else(Authorization::refused, |rows| of_rows(rows, &element.desired, replaced));
    // An attempt before this one may have written the rows and then died: then what it found is told by what was in force.
    let is_new = match &wanted {
        Some(rows) => !stands(rows, &replaced.before),
        None => !replaced.before.is_empty(),
    };
    let before = match content_of(applied) {
        _ if is_new && !replaced.before.is_empty() => {
            of_standing(&replaced.before, [applied, &element.desired], replaced)
        }
        Some(content) => of_rows(&rows(content, Password::Missing), applied, replaced),
        None => Authorization::refused(),
    };
    Some((before, after))
}

fn content_of(content: &Content) -> Option<&AaaContent> {
    match content {
        Content::Aaa(content) => Some(content),
        _ => None,
    }
}

/// Whether what decides about a session stands already as it is wanted.
fn stands(wanted: &UserRows, standing: &Standing) -> bool {
    let same = |ours: &[AttributeRow], theirs: Vec<&FoundRow>| {
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(ours, theirs)| {
                ours.attribute == theirs.attribute && ours.op == theirs.op && ours.value == theirs.value
            })
    };
    let checks = standing.check.iter().filter(|row| !row.attribute.ends_with("-Password")).collect();
    same(&wanted.check, checks)
        && same(&wanted.reply, standing.reply.iter().collect())
        && wanted.groups == standing.groups
}

fn of_rows(rows: &UserRows, content: &Content, replaced: &Replaced) -> Authorization {
    let reply = rows.reply.iter().map(|row| (row.attribute.as_str(), row.op, row.value.as_str()));
    let login = match content_of(content).map(|content| &content.access) {
        Some(AaaAccess::Accept) => Login::Accepted,
        Some(AaaAccess::Garden { .. } | AaaAccess::Blocked { .. }) => Login::Restricted,
        Some(AaaAccess::Reject) | None => return Authorization::refused(),
    };
    authorization(login, reply, &rows.groups, &replaced.groups)
}

/// Rows as they were found; which groups restrict is told by the contents that name them.
fn of_standing(standing: &Standing, contents: [&Content; 2], replaced: &Replaced) -> Authorization {
    if standing.check.iter().any(|row| row.attribute == "Auth-Type" && row.value == "Reject") {
        return Authorization::refused();
    }
    let restricts = |content: &Content| match content_of(content).map(|content| &content.access) {
        Some(AaaAccess::Garden { group } | AaaAccess::Blocked { group }) => standing.groups.contains(group),
        _ => false,
    };
    let login = if contents.into_iter().any(restricts) { Login::Restricted } else { Login::Accepted };
    let reply = standing.reply.iter().map(|row| (row.attribute.as_str(), row.op.as_str(), row.value.as_str()));
    authorization(login, reply, &standing.groups, &replaced.groups)
}

/// What FreeRADIUS replies: the user's rows, then those of the groups, by their operators: `=` where there is none yet,
/// `:=` in place of what is there, `+=` beside it. It goes on to the next group only where one says `Fall-Through = Yes`.
fn authorization<'a>(
    login: Login,
    reply: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    groups: &[String],
    known: &BTreeMap<String, GroupRows>,
) -> Authorization {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut attributes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut put = |attribute: &str, op: &str, value: &str| {
        let name = names.entry(attribute.to_ascii_lowercase()).or_insert_with(|| attribute.to_owned()).clone();
        let values = attributes.entry(name).or_default();
        match op {
            "=" if values.is_empty() => values.push(value.to_owned()),
            ":=" => *values = vec![value.to_owned()],
            "+=" => values.push(value.to_owned()),
            _ => {}
        }
    };
    reply.for_each(|(attribute, op, value)| put(attribute, op, value));
    let mut unknown = None;
    for group in groups {
        let Some(rows) = known.get(group).filter(|rows| rows.exists) else {
            unknown = Some(group.clone());
            break;
        };
        rows.reply.iter().for_each(|row| put(&row.attribute, &row.op, &row.value));
        let goes_on = |row: &FoundRow| row.attribute == "Fall-Through" && row.value.eq_ignore_ascii_case("yes");
        if !rows.reply.iter().any(goes_on) {
            break;
        }
    }
    attributes.retain(|name, values| {
        !values.is_empty() && !WITHOUT_EFFECT.iter().any(|known| known.eq_ignore_ascii_case(name))
    });
    Authorization { login, group: unknown, attributes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::{ElementKind, ElementState, SecretRef};
    use crate::vocabulary::Timestamp;

    fn content(access: AaaAccess, group: &str, rate: &str) -> Content {
        Content::Aaa(AaaContent {
            username: "ada@acme".to_owned(),
            access,
            group: Some(group.to_owned()),
            reply: [("Rate".to_owned(), rate.into())].into(),
            framed_ip: None,
            ipv6_delegated: None,
            chap: false,
            password: SecretRef { service: "1".to_owned(), field: "radius.password".to_owned(), digest: None },
        })
    }

    fn element(applied: Option<Content>, desired: Content) -> ElementRow {
        ElementRow {
            id: 1,
            tenant: "acme".to_owned(),
            account_id: 1,
            kind: ElementKind::Aaa,
            key: "ada@acme".to_owned(),
            services: vec!["1".to_owned()],
            desired,
            previous: None,
            applied,
            desired_revision: 2,
            offered_revision: None,
            fetched_revision: None,
            confirmed_revision: None,
            applied_revision: None,
            state: ElementState::Pending,
            evidence: None,
            last_error: None,
            last_seen_at: None,
            last_seen_from: None,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn row(attribute: &str, op: &str, value: &str) -> FoundRow {
        FoundRow { attribute: attribute.to_owned(), op: op.to_owned(), value: value.to_owned() }
    }

    fn groups() -> BTreeMap<String, GroupRows> {
        let group = |reply: Vec<FoundRow>| GroupRows { exists: true, reply };
        BTreeMap::from([
            ("res-100".to_owned(), group(vec![row("Pool", "=", "a"), row("Reply-Message", "=", "hello")])),
            ("res-300".to_owned(), group(vec![row("Pool", "=", "b"), row("rate", ":=", "9M")])),
            ("garden".to_owned(), group(vec![row("Filter-Id", "=", "walled")])),
        ])
    }

    fn replaced(content: Option<&Content>) -> Replaced {
        let before = content.and_then(content_of).map(|content| {
            let rows = rows(content, Password::Missing);
            let found = |row: &AttributeRow| FoundRow {
                attribute: row.attribute.clone(),
                op: row.op.to_owned(),
                value: row.value.clone(),
            };
            Standing {
                check: rows.check.iter().map(found).chain([self::row("Crypt-Password", ":=", "$6$")]).collect(),
                reply: rows.reply.iter().map(found).collect(),
                groups: rows.groups,
                remembered: None,
            }
        });
        Replaced { before: before.unwrap_or_default(), groups: groups() }
    }

    fn shown(authorization: &Authorization) -> String {
        let attributes: Vec<String> =
            authorization.attributes.iter().map(|(name, values)| format!("{name}={}", values.join("+"))).collect();
        let group = authorization.group.as_deref().map(|group| format!(" in {group}")).unwrap_or_default();
        format!("{:?}{group} {}", authorization.login, attributes.join(" ")).trim().to_owned()
    }

    #[test]
    fn before_and_after_are_what_freeradius_replies() {
        let garden = AaaAccess::Garden { group: "garden".to_owned() };
        let plan = |rate| content(AaaAccess::Accept, "res-100", rate);
        let faster = content(AaaAccess::Accept, "res-300", "1M");
        let cases = [
            (plan("1M"), plan("2M"), "Accepted Pool=a Rate=1M", "Accepted Pool=a Rate=2M"),
            // A group's `:=` wins over the user's own row.
            (plan("1M"), faster, "Accepted Pool=a Rate=1M", "Accepted Pool=b Rate=9M"),
            (
                plan("1M"),
                content(garden.clone(), "res-100", "1M"),
                "Accepted Pool=a Rate=1M",
                "Restricted Filter-Id=walled",
            ),
            (content(garden, "res-100", "1M"), plan("1M"), "Restricted Filter-Id=walled", "Accepted Pool=a Rate=1M"),
            (plan("1M"), content(AaaAccess::Reject, "res-100", "1M"), "Accepted Pool=a Rate=1M", "Refused"),
            (plan("1M"), Content::Absent, "Accepted Pool=a Rate=1M", "Refused"),
            (Content::Absent, plan("1M"), "Refused", "Accepted Pool=a Rate=1M"),
            (
                plan("1M"),
                content(AaaAccess::Accept, "nobody", "1M"),
                "Accepted Pool=a Rate=1M",
                "Accepted in nobody Rate=1M",
            ),
        ];
        for (applied, desired, before, after) in cases {
            let replaced = replaced(Some(&applied));
            let found = change(&element(Some(applied), desired), &replaced).expect("a change");
            assert_eq!((shown(&found.0), shown(&found.1)), (before.to_owned(), after.to_owned()));
        }
    }

    #[test]
    fn rows_that_an_attempt_before_wrote_do_not_hide_the_change() {
        let (old, new) = (content(AaaAccess::Accept, "res-100", "1M"), content(AaaAccess::Accept, "res-100", "2M"));
        let found = change(&element(Some(old), new.clone()), &replaced(Some(&new))).expect("a change");
        assert_eq!(shown(&found.0), "Accepted Pool=a Rate=1M");
    }

    #[test]
    fn rows_that_somebody_else_wrote_are_what_sessions_began_with() {
        let ours = content(AaaAccess::Accept, "res-100", "1M");
        let theirs = content(AaaAccess::Accept, "res-100", "1G");
        let found = change(&element(Some(ours.clone()), ours), &replaced(Some(&theirs))).expect("a change");
        assert_eq!(
            (shown(&found.0), shown(&found.1)),
            ("Accepted Pool=a Rate=1G".into(), "Accepted Pool=a Rate=1M".into())
        );
    }

    #[test]
    fn a_login_that_is_new_to_us_asks_for_nothing() {
        let desired = content(AaaAccess::Accept, "res-100", "1M");
        let theirs = content(AaaAccess::Accept, "res-300", "1G");
        assert_eq!(change(&element(None, desired), &replaced(Some(&theirs))), None);
    }
}

//! What a login is authorized with, and what becomes of its live session when that changes: nothing, a Change of
//! Authorization, or a Disconnect. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether a login gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    Accepted,
    /// Into a group that holds it back: the garden, or the group of the blocked.
    Restricted,
    Refused,
}

/// What a session gets that begins now.
///
/// **Shape**: `attributes` are the reply's, by name, those of the group included; `group` is set only where the tables
/// say nothing of it, so that what it means is known to the AAA server alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    pub login: Login,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// What a NAS can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionMeans<'a> {
    Disconnect,
    /// These attributes can change while a session goes on; for everything else it must begin anew.
    Coa {
        attributes: &'a [String],
    },
}

/// What a session needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionPush {
    Nothing,
    /// It must end; when the subscriber comes back, what is desired is in force.
    Disconnect,
    /// It goes on with these attributes.
    Coa(BTreeMap<String, Vec<String>>),
}

impl Authorization {
    /// Of a login that is not there, or is refused.
    pub fn refused() -> Self {
        Self { login: Login::Refused, group: None, attributes: BTreeMap::new() }
    }

    /// What a session needs that began with `self` and should run with `target`.
    ///
    /// A login that was refused has no session to speak of. Into the garden and out of it always takes a new session: the
    /// router needs another address or other filters, and its lease must not outlive the change. Otherwise a Change of
    /// Authorization is enough when every attribute that differs can change that way and none is merely gone, which no
    /// packet can say; it then carries all attributes that can, so that one that was missed before is right again too.
    pub fn push(&self, target: &Authorization, means: SessionMeans<'_>) -> SessionPush {
        if self == target || self.login == Login::Refused {
            return SessionPush::Nothing;
        }
        if self.login != target.login || self.group != target.group {
            return SessionPush::Disconnect;
        }
        let SessionMeans::Coa { attributes } = means else { return SessionPush::Disconnect };
        let can = |name: &String| attributes.iter().any(|known| known.eq_ignore_ascii_case(name));
        let differs = |name: &&String| self.attributes.get(*name) != target.attributes.get(*name);
        let mut changed = self.attributes.keys().chain(target.attributes.keys()).filter(differs);
        if !changed.all(|name| can(name) && target.attributes.contains_key(name)) {
            return SessionPush::Disconnect;
        }
        let sent = target.attributes.iter().filter(|(name, _)| can(name));
        SessionPush::Coa(sent.map(|(name, values)| (name.clone(), values.clone())).collect())
    }

    /// Why a session of `self` is to run with `target`, for people.
    pub fn cause(&self, target: &Authorization) -> String {
        match (self.login, target.login) {
            (_, Login::Refused) => "the login is refused or removed".to_owned(),
            (_, Login::Restricted) if self.login != Login::Restricted => "the login is restricted".to_owned(),
            (Login::Restricted, Login::Accepted) => "the restriction is lifted".to_owned(),
            _ => {
                let differs = |name: &&String| self.attributes.get(*name) != target.attributes.get(*name);
                let names = target.attributes.keys().chain(self.attributes.keys()).filter(differs);
                let mut names: Vec<&str> = names.map(String::as_str).collect();
                names.sort_unstable();
                names.dedup();
                match names.as_slice() {
                    [] => "the login's group changed".to_owned(),
                    names => format!("{} changed", names.join(", ")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(login: Login, attributes: &[(&str, &str)]) -> Authorization {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        Authorization { login, group: None, attributes: attributes.collect() }
    }

    fn word(push: &SessionPush) -> String {
        match push {
            SessionPush::Nothing => "nothing".to_owned(),
            SessionPush::Disconnect => "disconnect".to_owned(),
            SessionPush::Coa(attributes) => {
                let said: Vec<String> =
                    attributes.iter().map(|(name, values)| format!("{name}={}", values.join("+"))).collect();
                format!("coa {}", said.join(" "))
            }
        }
    }

    #[test]
    fn every_change_has_its_push() {
        use Login::{Accepted, Refused, Restricted};
        let slow = &[("Rate", "1M"), ("Pool", "a")][..];
        let fast = &[("Rate", "9M"), ("Pool", "a")][..];
        let moved = &[("Rate", "9M"), ("Pool", "b")][..];
        let bare = &[("Pool", "a")][..];
        let other = &[("Rate", "1M"), ("Pool", "a"), ("Filter", "x")][..];
        // (from, to, with a NAS that only disconnects, with one that can change `rate` and `Filter`)
        let cases = [
            ((Accepted, slow), (Accepted, slow), "nothing", "nothing"),
            ((Accepted, slow), (Accepted, fast), "disconnect", "coa Rate=9M"),
            ((Accepted, slow), (Accepted, moved), "disconnect", "disconnect"),
            ((Accepted, slow), (Accepted, bare), "disconnect", "disconnect"),
            ((Accepted, bare), (Accepted, slow), "disconnect", "coa Rate=1M"),
            ((Accepted, slow), (Accepted, other), "disconnect", "coa Filter=x Rate=1M"),
            ((Accepted, slow), (Restricted, slow), "disconnect", "disconnect"),
            ((Restricted, slow), (Accepted, fast), "disconnect", "disconnect"),
            ((Restricted, slow), (Restricted, fast), "disconnect", "coa Rate=9M"),
            ((Accepted, slow), (Refused, &[][..]), "disconnect", "disconnect"),
            ((Restricted, slow), (Refused, &[][..]), "disconnect", "disconnect"),
            ((Refused, &[][..]), (Accepted, slow), "nothing", "nothing"),
            ((Refused, &[][..]), (Restricted, slow), "nothing", "nothing"),
            ((Refused, &[][..]), (Refused, &[][..]), "nothing", "nothing"),
        ];
        let changeable = ["rate".to_owned(), "Filter".to_owned()];
        for (from, to, plain, coa) in cases {
            let (from, to) = (authorization(from.0, from.1), authorization(to.0, to.1));
            assert_eq!(word(&from.push(&to, SessionMeans::Disconnect)), plain, "{from:?} to {to:?}");
            assert_eq!(word(&from.push(&to, SessionMeans::Coa { attributes: &changeable })), coa, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_group_that_only_the_server_knows_takes_a_new_session() {
        let mut from = authorization(Login::Accepted, &[("Rate", "1M")]);
        let mut to = from.clone();
        (from.group, to.group) = (Some("res-100".to_owned()), Some("res-300".to_owned()));
        let all = ["Rate".to_owned()];
        assert_eq!(from.push(&to, SessionMeans::Coa { attributes: &all }), SessionPush::Disconnect);
        assert_eq!(from.cause(&to), "the login's group changed");
    }

    #[test]
    fn causes_are_said_in_words() {
        let fast = authorization(Login::Accepted, &[("Rate", "9M")]);
        let slow = authorization(Login::Accepted, &[("Rate", "1M"), ("Pool", "a")]);
        let garden = authorization(Login::Restricted, &[]);
        for (from, to, cause) in [
            (&slow, &fast, "Pool, Rate changed"),
            (&slow, &garden, "the login is restricted"),
            (&garden, &slow, "the restriction is lifted"),
            (&slow, &Authorization::refused(), "the login is refused or removed"),
        ] {
            assert_eq!(from.cause(to), cause);
        }
    }
}

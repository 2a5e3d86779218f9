//! Which class of traffic a session is of: the first rule of the catalog that all of its words fit.
//!
//! A session's class is decided once, when its owner is found, and stays with every ledger entry of it, so that rating the
//! entries again gives the same lines.

use crate::account::ServiceType;

/// One `[[usage_class]]`: every list that is not empty must hold the session's word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassRule {
    /// What charges call it.
    pub id: String,
    /// RADIUS Class as it was sent; a trailing `*` stands for anything.
    pub classes: Vec<String>,
    /// Configured client, or the whole identity behind a proxy.
    pub nas: Vec<String>,
    /// In lower case.
    pub realms: Vec<String>,
    pub services: Vec<ServiceType>,
}

/// What is known of a session when its owner is found.
#[derive(Debug, Clone, Copy)]
pub struct SessionWords<'a> {
    pub class: Option<&'a str>,
    /// The NAS identity: `client`, or `client/inner`.
    pub nas: &'a str,
    pub user: Option<&'a str>,
    pub service: ServiceType,
}

/// The session's class; `None`: traffic like any other.
pub fn class_of<'r>(rules: &'r [ClassRule], session: &SessionWords<'_>) -> Option<&'r str> {
    rules.iter().find(|rule| rule.fits(session)).map(|rule| rule.id.as_str())
}

impl ClassRule {
    fn fits(&self, session: &SessionWords<'_>) -> bool {
        let class = |known: &String| {
            session.class.is_some_and(|class| match known.strip_suffix('*') {
                Some(beginning) => class.starts_with(beginning),
                None => class == known,
            })
        };
        let nas = |known: &String| {
            session.nas.strip_prefix(known.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let realm =
            |known: &String| session.user.is_some_and(|user| realm_of(user).is_some_and(|realm| realm == *known));
        (self.classes.is_empty() || self.classes.iter().any(class))
            && (self.nas.is_empty() || self.nas.iter().any(nas))
            && (self.realms.is_empty() || self.realms.iter().any(realm))
            && (self.services.is_empty() || self.services.contains(&session.service))
    }
}

/// The realm of `user@realm`, in lower case.
fn realm_of(user: &str) -> Option<String> {
    user.rsplit_once('@').map(|(_, realm)| realm.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> ClassRule {
        ClassRule { id: id.to_owned(), ..ClassRule::default() }
    }

    #[test]
    fn first_rule_that_fits_in_every_word_names_the_class() {
        let rules = [
            ClassRule { classes: vec!["cdn-*".to_owned()], nas: vec!["bng1".to_owned()], ..rule("zero-rated") },
            ClassRule { realms: vec!["guest".to_owned()], ..rule("guest") },
            ClassRule { services: vec![ServiceType::Voice], ..rule("voip") },
        ];
        let session = SessionWords { class: None, nas: "bng2", user: None, service: ServiceType::Internet };
        let cases = [
            (SessionWords { class: Some("cdn-7"), nas: "bng1/olt-3", ..session }, Some("zero-rated")),
            (SessionWords { class: Some("cdn-7"), nas: "bng12", ..session }, None),
            (SessionWords { class: Some("cdn"), nas: "bng1", ..session }, None),
            (SessionWords { user: Some("ada@GUEST"), ..session }, Some("guest")),
            (SessionWords { user: Some("guest"), ..session }, None),
            (SessionWords { service: ServiceType::Voice, user: Some("a@guest"), ..session }, Some("guest")),
            (SessionWords { service: ServiceType::Voice, ..session }, Some("voip")),
        ];
        for (session, expected) in cases {
            assert_eq!(class_of(&rules, &session), expected, "{session:?}");
        }
    }
}

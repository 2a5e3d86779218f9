//! What a push does, from values alone: the stored account, the push, the conditions of the request.

/// The stored account as far as the decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub tag: String,
    pub source_revision: Option<i64>,
    /// Closed accounts leave a tombstone that keeps older pushes from raising them again.
    pub closed: bool,
}

/// The request's conditions (RFC 9110 s13.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    pub if_match: Option<Tags>,
    pub if_none_match: Option<Tags>,
}

/// The tags of a condition header, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    Any,
    Listed(Vec<String>),
}

/// What to do with a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Create,
    Update,
    /// The content is what is stored. Only the source's revision may move.
    Unchanged,
    /// An older state than the one we have: answered, not applied.
    Stale,
    /// The same revision with other content: the source contradicts itself.
    RevisionReused,
    PreconditionFailed,
}

/// Decides one push.
///
/// A tombstone counts as absent for the conditions, and its revision as used: only a later one raises the account again.
/// A push without a revision cannot be old.
pub fn decide(stored: Option<&Stored>, tag: &str, source_revision: Option<i64>, conditions: &Conditions) -> Decision {
    let living = stored.filter(|stored| !stored.closed);
    if !conditions.hold(living.map(|stored| stored.tag.as_str())) {
        return Decision::PreconditionFailed;
    }
    let Some(stored) = stored else { return Decision::Create };
    let order = match (source_revision, stored.source_revision) {
        (Some(pushed), Some(known)) => Some(pushed.cmp(&known)),
        _ => None,
    };
    match (stored.closed, order) {
        (_, Some(std::cmp::Ordering::Less)) | (true, Some(std::cmp::Ordering::Equal)) => Decision::Stale,
        (true, _) => Decision::Create,
        (false, _) if stored.tag == tag => Decision::Unchanged,
        (false, Some(std::cmp::Ordering::Equal)) => Decision::RevisionReused,
        (false, _) => Decision::Update,
    }
}

impl Conditions {
    /// Whether the request may go on; `tag` is that of the living account, `None` where there is none.
    pub fn hold(&self, tag: Option<&str>) -> bool {
        let wanted = self.if_match.as_ref().is_none_or(|tags| tags.include(tag));
        let unwanted = self.if_none_match.as_ref().is_some_and(|tags| tags.include(tag));
        wanted && !unwanted
    }
}

impl Tags {
    fn include(&self, tag: Option<&str>) -> bool {
        match (self, tag) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            (Tags::Listed(tags), Some(tag)) => tags.iter().any(|listed| listed == tag),
        }
    }

    /// Reads a header such as `*`, `"abc"`, or `"abc", "def"`. A weak tag never matches strongly and is left out.
    pub fn parse(header: &str) -> Option<Self> {
        if header.trim() == "*" {
            return Some(Tags::Any);
        }
        let mut tags = Vec::new();
        for part in header.split(',').map(str::trim) {
            let (weak, quoted) = part.strip_prefix("W/").map_or((false, part), |rest| (true, rest));
            let tag = quoted.strip_prefix('"')?.strip_suffix('"')?;
            if !weak {
                tags.push(tag.to_owned());
            }
        }
        Some(Tags::Listed(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(revision: Option<i64>, closed: bool) -> Stored {
        Stored { tag: "aaa".to_owned(), source_revision: revision, closed }
    }

    #[test]
    fn every_push_meets_one_decision() {
        use Decision::*;
        let (seven, gone) = (stored(Some(7), false), stored(Some(7), true));
        for (known, tag, revision, wanted) in [
            (None, "aaa", None, Create),
            (None, "aaa", Some(1), Create),
            (Some(&seven), "aaa", Some(7), Unchanged),
            (Some(&seven), "aaa", Some(8), Unchanged),
            (Some(&seven), "aaa", None, Unchanged),
            (Some(&seven), "bbb", Some(8), Update),
            (Some(&seven), "bbb", None, Update),
            (Some(&seven), "bbb", Some(7), RevisionReused),
            (Some(&seven), "bbb", Some(6), Stale),
            (Some(&seven), "aaa", Some(6), Stale),
            (Some(&gone), "aaa", Some(6), Stale),
            (Some(&gone), "aaa", Some(7), Stale),
            (Some(&gone), "bbb", Some(8), Create),
            (Some(&gone), "bbb", None, Create),
        ] {
            assert_eq!(decide(known, tag, revision, &Conditions::default()), wanted, "{known:?} {tag} {revision:?}");
        }
    }

    #[test]
    fn conditions_come_first() {
        let seven = stored(Some(7), false);
        let with = |if_match: Option<&str>, if_none_match: Option<&str>| Conditions {
            if_match: if_match.and_then(Tags::parse),
            if_none_match: if_none_match.and_then(Tags::parse),
        };
        let failed = Decision::PreconditionFailed;
        assert_eq!(decide(Some(&seven), "bbb", Some(6), &with(Some("\"xxx\""), None)), failed);
        assert_eq!(decide(Some(&seven), "aaa", Some(7), &with(None, Some("*"))), failed);
        assert_eq!(decide(None, "aaa", None, &with(Some("\"aaa\""), None)), failed);
        assert_eq!(decide(None, "aaa", None, &with(None, Some("*"))), Decision::Create);
        assert_eq!(decide(Some(&seven), "bbb", Some(8), &with(Some("\"x\", \"aaa\""), None)), Decision::Update);
        assert_eq!(decide(Some(&seven), "bbb", Some(8), &with(Some("W/\"aaa\""), None)), failed);
        assert_eq!(decide(Some(&stored(Some(7), true)), "bbb", Some(8), &with(None, Some("*"))), Decision::Create);
    }
}

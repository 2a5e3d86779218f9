//! Which of the accounting streams of one subscriber is billed: several may tell of the same octets.
//!
//! In: a packet and a profile's rules. Out: the rule that makes it informative, or none.

use super::super::packet::PacketView;
use super::super::value::text;
use super::counters::Place;

/// A session that is kept and shown, and never billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRule {
    pub attribute: Place,
    pub condition: Condition,
    /// A sentence for people.
    pub because: String,
}

/// What the attribute must be for the rule to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Present,
    Absent,
    /// A pattern of the whole text; `*` is any number of characters, `?` one.
    Like(String),
    /// Both are there, and not the same: the session is tied to another one.
    DiffersFrom(Place),
    SameAs(Place),
}

/// What becomes of Tunnel-Link-Start and Tunnel-Link-Stop (RFC 2867): the sessions inside the tunnel tell of the same
/// octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TunnelLinks {
    /// Stays in the journal and is no session.
    #[default]
    Recorded,
    /// A session that is shown and not billed.
    Informative,
    /// A session like any other, for a NAS that reports tunnel links only.
    Billed,
}

impl StreamRule {
    pub fn holds(&self, view: &PacketView<'_>) -> bool {
        let first = self.attribute.first(view);
        match (&self.condition, first) {
            (Condition::Present, found) => found.is_some(),
            (Condition::Absent, found) => found.is_none(),
            (Condition::Like(pattern), Some(value)) => {
                let (pattern, value): (Vec<char>, Vec<char>) =
                    (pattern.chars().collect(), text(value).chars().collect());
                like(&pattern, &value)
            }
            (Condition::DiffersFrom(other), Some(value)) => other.first(view).is_some_and(|other| other != value),
            (Condition::SameAs(other), Some(value)) => other.first(view) == Some(value),
            (Condition::Like(_) | Condition::DiffersFrom(_) | Condition::SameAs(_), None) => false,
        }
    }
}

/// Whether `value` as a whole is as `pattern` says. Looks back to the last `*` only, so that it is bounded by the product
/// of both lengths.
fn like(pattern: &[char], value: &[char]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while here < value.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == value[here] => (at, here) = (at + 1, here + 1),
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                (at, here) = (behind + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let matches =
            |pattern: &str, value: &str| like(&pattern.chars().collect::<Vec<_>>(), &value.chars().collect::<Vec<_>>());
        for (pattern, value, expected) in [
            ("esm|*", "esm|ada", true),
            ("esm|*", "besm|ada", false),
            ("*:*", "17:18-1420000000", true),
            ("*:*", "17", false),
            ("a?c*", "abcd", true),
            ("a?c", "abcd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("", "", true),
            ("", "x", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }
}

//! What records hold that a profile does not look at, and words it has no meaning for: what is left to be agreed on.

use std::collections::BTreeMap;

use super::profile::Profile;
use super::tree::{Path, Step, Tree};

/// Places and words, with how often they came. Values are not kept: they may be secret.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    looked_at: Vec<Vec<String>>,
    ignored: Vec<Vec<String>>,
    unmapped: BTreeMap<String, u64>,
    words: BTreeMap<(String, String), u64>,
}

/// More different places than a person reads.
const PLACES_MAX: usize = 1_000;

impl Inventory {
    pub(super) fn new(profile: &Profile) -> Self {
        Self {
            looked_at: profile
                .looked_at()
                .iter()
                .flat_map(|path| [names(path)].into_iter().chain(chosen_by(path)))
                .collect(),
            ignored: profile.ignore.iter().map(names).collect(),
            ..Self::default()
        }
    }

    /// Places no template looks at.
    pub fn unmapped(&self) -> impl Iterator<Item = (&str, u64)> {
        self.unmapped.iter().map(|(place, count)| (place.as_str(), *count))
    }

    /// Vocabulary, word, and how often.
    pub fn words(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.words.iter().map(|((vocabulary, word), count)| (vocabulary.as_str(), word.as_str(), *count))
    }

    pub(super) fn add(&mut self, record: &Tree) {
        self.walk(record, &mut Vec::new());
    }

    pub(super) fn add_words(&mut self, words: &[(String, String)]) {
        for word in words {
            if self.words.len() < PLACES_MAX || self.words.contains_key(word) {
                *self.words.entry(word.clone()).or_default() += 1;
            }
        }
    }

    fn walk(&mut self, tree: &Tree, place: &mut Vec<String>) {
        match tree {
            Tree::Map(members) => {
                for (name, tree) in members {
                    place.push(name.to_string());
                    self.walk(tree, place);
                    place.pop();
                }
            }
            Tree::List(items) => {
                for item in items {
                    self.walk(item, place);
                }
            }
            Tree::Text(text) if text.trim().is_empty() => {}
            Tree::Null => {}
            Tree::Text(_) | Tree::Conflict => self.leaf(place),
        }
    }

    fn leaf(&mut self, place: &[String]) {
        // The rows of a record hold again what its columns hold.
        let place = match place {
            [rows, rest @ ..] if rows == super::ROWS => rest,
            whole => whole,
        };
        let covered = |known: &Vec<String>| {
            let known = match known.as_slice() {
                [rows, rest @ ..] if rows == super::ROWS => rest,
                whole => whole,
            };
            !known.is_empty()
                && known.len() <= place.len()
                && known.iter().zip(place).all(|(known, name)| known == name)
        };
        if self.looked_at.iter().any(covered) || self.ignored.iter().any(covered) {
            return;
        }
        let shown = place.join("/");
        if self.unmapped.len() < PLACES_MAX || self.unmapped.contains_key(&shown) {
            *self.unmapped.entry(shown).or_default() += 1;
        }
    }
}

/// Members that a path only looks at to choose an item.
fn chosen_by(path: &Path) -> Vec<Vec<String>> {
    let mut before = Vec::new();
    let mut chosen = Vec::new();
    for step in &path.steps {
        match step {
            Step::Member(name) => before.push(name.to_string()),
            Step::Index(_) => {}
            Step::Where(name, _) => {
                let whole = before.iter().cloned().chain([name.to_string()]);
                chosen.push(whole.collect());
            }
        }
    }
    chosen
}

/// The members of a path; which item of a list it takes makes no difference here.
fn names(path: &Path) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Member(name) => Some(name.to_string()),
        Step::Index(_) | Step::Where(..) => None,
    };
    path.steps.iter().filter_map(name).collect()
}

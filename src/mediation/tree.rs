//! A foreign record as it was read, whatever its format: texts, lists and members, and the paths that find them.
//!
//! Nothing is interpreted here: numbers keep the digits they were written with, and order is kept.

use std::collections::HashSet;
use std::sync::Arc;

/// One value of a foreign record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// Said to be nothing: JSON's `null`.
    Null,
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Arc<str>, Tree)>),
    /// Rows of one record say different things here; whoever needs the value must not guess.
    Conflict,
}

/// Where a value stands in a record.
///
/// **Shape**: steps split by `/`: `customer/name`, `rows[0]/c4`, `rows[-1]/c4`, `attributes[key=modemMac]/value`,
/// `@attribute` of XML; a leading `/` begins at the record where others begin at the item that is repeated. A step with
/// signs of the grammar in it stands in single quotes: `'Acct/No'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub absolute: bool,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Member(Box<str>),
    /// Negative: from the end.
    Index(i32),
    /// The items of a list whose member has this text.
    Where(Box<str>, Box<str>),
}

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// The record has no such place.
    Missing,
    /// The place is there and says nothing.
    Empty,
    One(&'t str),
    Many(Vec<&'t str>),
    /// Rows that must agree do not.
    Conflict,
    /// No text but a thing with members.
    Branch,
}

impl Tree {
    pub fn member(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Map(members) => members.iter().find(|(known, _)| **known == *name).map(|(_, tree)| tree),
            _ => None,
        }
    }

    /// The item of a list, or the thing itself where it stands alone (one repeated element of XML is no list).
    pub fn items(&self) -> &[Tree] {
        match self {
            Tree::List(items) => items,
            Tree::Null => &[],
            one => std::slice::from_ref(one),
        }
    }

    /// Adds a member; a name that is there already becomes a list.
    pub fn add(members: &mut Vec<(Arc<str>, Tree)>, name: Arc<str>, tree: Tree) {
        match members.iter_mut().find(|(known, _)| *known == name) {
            None => members.push((name, tree)),
            Some((_, Tree::List(items))) => items.push(tree),
            Some((_, known)) => {
                let first = std::mem::replace(known, Tree::Null);
                *known = Tree::List(vec![first, tree]);
            }
        }
    }
}

impl Path {
    /// The subtrees at the path: none, one, or as many as a list on the way has.
    pub fn trees<'t>(&self, record: &'t Tree, item: &'t Tree) -> Vec<&'t Tree> {
        let mut found = Vec::new();
        gather(if self.absolute { record } else { item }, &self.steps, &mut found);
        found
    }

    /// The text at the path; texts that are blank or one of `nothing` count as empty.
    pub fn find<'t>(&self, record: &'t Tree, item: &'t Tree, nothing: &HashSet<String>) -> Found<'t> {
        let mut at = if self.absolute { record } else { item };
        // Most paths are plain members of plain maps; only a list on the way needs more.
        for (index, step) in self.steps.iter().enumerate() {
            match (step, at) {
                (Step::Member(name), Tree::Map(_)) => match at.member(name) {
                    Some(next) => at = next,
                    None => return Found::Missing,
                },
                (_, Tree::List(_)) => {
                    let mut found = Vec::new();
                    gather(at, &self.steps[index..], &mut found);
                    return texts(&found, nothing);
                }
                (_, Tree::Conflict) => return Found::Conflict,
                (_, Tree::Null) => return Found::Empty,
                (Step::Member(_), Tree::Text(_)) => return Found::Missing,
                _ => {
                    let mut found = Vec::new();
                    gather(at, &self.steps[index..], &mut found);
                    return texts(&found, nothing);
                }
            }
        }
        match at {
            Tree::List(items) => texts(&items.iter().collect::<Vec<_>>(), nothing),
            one => text(one, nothing),
        }
    }
}

fn gather<'t>(at: &'t Tree, steps: &[Step], found: &mut Vec<&'t Tree>) {
    let Some((step, rest)) = steps.split_first() else {
        match at {
            Tree::List(items) => found.extend(items),
            one => found.push(one),
        }
        return;
    };
    match step {
        Step::Member(name) => {
            for item in at.items() {
                if let Some(next) = item.member(name) {
                    gather(next, rest, found);
                }
            }
        }
        Step::Index(index) => {
            let items = at.items();
            let at = match usize::try_from(*index) {
                Ok(index) => Some(index),
                Err(_) => items.len().checked_sub(index.unsigned_abs() as usize),
            };
            if let Some(item) = at.and_then(|index| items.get(index)) {
                gather(item, rest, found);
            }
        }
        Step::Where(name, wanted) => {
            for item in at.items() {
                if matches!(item.member(name), Some(Tree::Text(text)) if **text == **wanted) {
                    gather(item, rest, found);
                }
            }
        }
    }
}

fn text<'t>(tree: &'t Tree, nothing: &HashSet<String>) -> Found<'t> {
    match tree {
        Tree::Null => Found::Empty,
        Tree::Text(text) if is_nothing(text, nothing) => Found::Empty,
        Tree::Text(text) => Found::One(text),
        Tree::Conflict => Found::Conflict,
        Tree::Map(members) => match members.iter().find(|(name, _)| &**name == INNER_TEXT) {
            Some((_, inner)) => text(inner, nothing),
            // `<phone/>` and `{}` say that there is none.
            None if members.is_empty() => Found::Empty,
            None => Found::Branch,
        },
        Tree::List(items) if items.is_empty() => Found::Empty,
        Tree::List(_) => Found::Branch,
    }
}

fn texts<'t>(trees: &[&'t Tree], nothing: &HashSet<String>) -> Found<'t> {
    let mut found = Vec::with_capacity(trees.len());
    for tree in trees {
        match text(tree, nothing) {
            Found::One(text) => found.push(text),
            Found::Missing | Found::Empty => {}
            other => return other,
        }
    }
    match (found.as_slice(), trees.is_empty()) {
        ([], true) => Found::Missing,
        ([], false) => Found::Empty,
        ([one], _) => Found::One(one),
        _ => Found::Many(found),
    }
}

fn is_nothing(text: &str, nothing: &HashSet<String>) -> bool {
    let text = text.trim();
    text.is_empty() || !nothing.is_empty() && nothing.contains(text)
}

/// The name of an XML element's own text beside its attributes or elements.
pub const INNER_TEXT: &str = "#text";

impl std::str::FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (absolute, mut rest) = match text.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut steps = Vec::new();
        loop {
            let (name, after) = name(rest)?;
            if name.is_empty() && !after.starts_with('[') {
                return Err(format!("the path {text:?} has an empty step"));
            }
            if !name.is_empty() {
                steps.push(Step::Member(name.into()));
            }
            rest = after;
            while let Some(inside) = rest.strip_prefix('[') {
                let (choice, after) = inside.split_once(']').ok_or_else(|| format!("the path {text:?} lacks a ]"))?;
                steps.push(match (choice.parse(), choice.split_once('=')) {
                    (Ok(index), _) => Step::Index(index),
                    (_, Some((name, value))) if !name.is_empty() => Step::Where(name.into(), value.into()),
                    _ => return Err(format!("[{choice}] is neither an index nor member=text")),
                });
                rest = after;
            }
            match rest.strip_prefix('/') {
                Some(next) => rest = next,
                None if rest.is_empty() && steps.len() <= STEPS_MAX => return Ok(Self { absolute, steps }),
                None => return Err(format!("the path {text:?} cannot be read from {rest:?} on")),
            }
        }
    }
}

/// The name at the beginning, quoted or plain, and what follows.
fn name(text: &str) -> Result<(&str, &str), String> {
    if let Some(quoted) = text.strip_prefix('\'') {
        return quoted.split_once('\'').ok_or_else(|| format!("a quote in the path {text:?} is not closed"));
    }
    let end = text.find(['/', '[', ']', '\'']).unwrap_or(text.len());
    Ok(text.split_at(end))
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = !self.absolute;
        for step in &self.steps {
            match step {
                Step::Member(name) if first => write!(f, "{name}")?,
                Step::Member(name) => write!(f, "/{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Where(name, value) => write!(f, "[{name}={value}]")?,
            }
            first = false;
        }
        Ok(())
    }
}

const STEPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(members: &[(&str, Tree)]) -> Tree {
        Tree::Map(members.iter().map(|(name, tree)| (Arc::from(*name), tree.clone())).collect())
    }

    fn text(text: &str) -> Tree {
        Tree::Text(text.to_owned())
    }

    #[test]
    fn a_path_finds_members_items_and_lists_of_texts() {
        let pair = |key: &str, value: &str| map(&[("key", text(key)), ("value", text(value))]);
        let record = map(&[
            ("a b", map(&[("c/d", text("x")), ("none", text(" ")), ("null", Tree::Null)])),
            ("rows", Tree::List(vec![map(&[("v", text("1"))]), map(&[("v", text("NULL"))]), map(&[("v", text("3"))])])),
            ("attributes", Tree::List(vec![pair("mac", "m"), pair("user", "u")])),
            ("both", Tree::Conflict),
        ]);
        let nothing = HashSet::from(["NULL".to_owned()]);
        let find = |path: &str| path.parse::<Path>().expect(path).find(&record, &record, &nothing);
        assert_eq!(find("a b/'c/d'"), Found::One("x"));
        assert_eq!(find("a b/none"), Found::Empty);
        assert_eq!(find("a b/null"), Found::Empty);
        assert_eq!(find("a b/other"), Found::Missing);
        assert_eq!(find("a b"), Found::Branch);
        assert_eq!(find("rows/v"), Found::Many(vec!["1", "3"]));
        assert_eq!(find("rows[0]/v"), Found::One("1"));
        assert_eq!(find("rows[-1]/v"), Found::One("3"));
        assert_eq!(find("rows[7]/v"), Found::Missing);
        assert_eq!(find("attributes[key=user]/value"), Found::One("u"));
        assert_eq!(find("both"), Found::Conflict);
        let item = map(&[("v", text("inner"))]);
        let path: Path = "/a b/'c/d'".parse().expect("a path");
        assert_eq!(path.find(&record, &item, &nothing), Found::One("x"), "a leading / begins at the record");
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_refused() {
        for text in ["", "/", "a//b", "a/", "a[", "a[x]", "a[=b]", "'a", "a'b", "a]b"] {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }
}

//! One hash that two companies compute of the same services of a day, each from its own books: where it is equal there is
//! nothing to argue about, where it is not a few questions lead to the services that differ.
//!
//! ```text
//! line   source TAB account TAB service TAB plan TAB status TAB day, in UTF-8, for example
//!        default⇥100234⇥100234-1⇥res-100⇥active⇥2026-11-15
//! place  SHA-256 of "source TAB account TAB service", as 64 hexadecimal digits
//! leaf   SHA-256(0x00, line)
//! node   of a path of digits: of the lines whose place begins with it, sorted by place and line
//!        at most 16 lines   SHA-256(0x01, leaf, leaf, …)
//!        more               SHA-256(0x02, node of path + "0", …, node of path + "f")
//! root   the node of the empty path
//! ```
//! Every service that was not terminated counts, as it was at the end of the day. A service that only one side has changes
//! the nodes above its place and no others. The octet in front keeps leaves, buckets and inner nodes apart (RFC 6962 s2.1).
//! `examples/handshake.py` is the other side in twenty lines.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::count::Census;
use crate::account::Status;
use crate::vocabulary::{Date, Timestamp, hex};

/// The services of a day, by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// (place, line), sorted.
    rows: Vec<(String, String)>,
}

/// One node of a tree; either `children` or `items` say what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub path: String,
    pub hash: String,
    pub rows: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// The lines of a node that has few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    pub path: String,
    pub hash: String,
    pub rows: u64,
}

/// What two trees do not have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unlike {
    pub only_ours: Vec<String>,
    pub only_theirs: Vec<String>,
    /// Nodes that were asked for.
    pub questions: u64,
}

/// Lines of a node that is not divided.
const BUCKET: usize = 16;
const PLACE_DIGITS: usize = 64;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Tree {
    /// Everybody of a census as they were at an instant; of one source or of all.
    pub fn of(census: &Census, source: Option<&str>, at: Timestamp, day: Date) -> Self {
        let there = census.members.iter().filter(|member| {
            member.status != Status::Terminated && member.from <= at && member.until.is_none_or(|until| at < until)
        });
        let rows = there.filter_map(|member| {
            let (of, account) = member.account.split_once('/')?;
            let line = format!("{of}\t{account}\t{}\t{}\t{}\t{day}", member.service, member.plan, member.status);
            source.is_none_or(|source| source == of).then_some(line)
        });
        Self::sorted(rows.filter_map(|line| Some((place(&line)?, line))).collect())
    }

    /// The other side's lines.
    ///
    /// **Errors**: the number of a line that is none, from 1.
    pub fn of_lines<'l>(lines: impl Iterator<Item = &'l str>) -> Result<Self, usize> {
        let mut rows = Vec::new();
        for (number, line) in (1usize..).zip(lines) {
            let fields = line.split('\t').count();
            let place = place(line).filter(|_| fields == 6).ok_or(number)?;
            rows.push((place, line.to_owned()));
        }
        Ok(Self::sorted(rows))
    }

    fn sorted(mut rows: Vec<(String, String)>) -> Self {
        rows.sort();
        Self { rows }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The hash of everything. 64 hexadecimal digits.
    pub fn root(&self) -> String {
        hex(hash(&self.rows, 0))
    }

    /// The node of a path. `None`: that is no path of hexadecimal digits.
    pub fn node(&self, path: &str) -> Option<Node> {
        let good = path.len() <= PLACE_DIGITS && path.bytes().all(|digit| DIGITS.contains(&digit));
        if !good {
            return None;
        }
        let rows = self.below(path);
        let mut node = Node {
            path: path.to_owned(),
            hash: hex(hash(rows, path.len())),
            rows: rows.len() as u64,
            children: Vec::new(),
            items: Vec::new(),
        };
        if is_bucket(rows, path.len()) {
            node.items = rows.iter().map(|(_, line)| line.clone()).collect();
        } else {
            node.children = DIGITS
                .iter()
                .map(|digit| {
                    let path = format!("{path}{}", char::from(*digit));
                    let rows = self.below(&path);
                    Child { hash: hex(hash(rows, path.len())), rows: rows.len() as u64, path }
                })
                .collect();
        }
        Some(node)
    }

    /// The lines below a path.
    pub fn lines(&self, path: &str) -> impl Iterator<Item = &str> {
        self.below(path).iter().map(|(_, line)| line.as_str())
    }

    fn below(&self, path: &str) -> &[(String, String)] {
        let from = self.rows.partition_point(|(place, _)| place.as_str() < path);
        let length = self.rows[from..].partition_point(|(place, _)| place.starts_with(path));
        &self.rows[from..from + length]
    }

    /// Goes down to the lines that differ, through unequal nodes only.
    pub fn unlike(&self, theirs: &Tree) -> Unlike {
        let mut found = Unlike::default();
        let mut paths = vec![String::new()];
        while let Some(path) = paths.pop() {
            let (Some(own), Some(their)) = (self.node(&path), theirs.node(&path)) else { continue };
            found.questions += 1;
            if own.hash == their.hash {
                continue;
            }
            if own.children.is_empty() || their.children.is_empty() {
                let (own, their): (Vec<&str>, Vec<&str>) = (self.lines(&path).collect(), theirs.lines(&path).collect());
                found.only_ours.extend(own.iter().filter(|line| !their.contains(line)).map(|line| (*line).to_owned()));
                found
                    .only_theirs
                    .extend(their.iter().filter(|line| !own.contains(line)).map(|line| (*line).to_owned()));
            } else {
                let both = own.children.iter().zip(&their.children);
                paths.extend(both.filter(|(own, their)| own.hash != their.hash).map(|(own, _)| own.path.clone()));
            }
        }
        found.only_ours.sort();
        found.only_theirs.sort();
        found
    }
}

/// Where a line stands: its service's place, whatever its plan, status and day.
fn place(line: &str) -> Option<String> {
    let end = line.match_indices('\t').nth(2)?.0;
    Some(hex(Sha256::digest(&line.as_bytes()[..end])))
}

fn hash(rows: &[(String, String)], depth: usize) -> [u8; 32] {
    let mut node = Sha256::new();
    if is_bucket(rows, depth) {
        node.update([1]);
        for (_, line) in rows {
            node.update(Sha256::new().chain_update([0]).chain_update(line.as_bytes()).finalize());
        }
    } else {
        node.update([2]);
        let mut rest = rows;
        for digit in DIGITS {
            let length = rest.partition_point(|(place, _)| place.as_bytes()[depth] <= *digit);
            let (child, after) = rest.split_at(length);
            node.update(hash(child, depth + 1));
            rest = after;
        }
    }
    node.finalize().into()
}

fn is_bucket(rows: &[(String, String)], depth: usize) -> bool {
    rows.len() <= BUCKET || depth >= PLACE_DIGITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn line(number: u16, plan: u8) -> String {
        format!("default\ta{}\ts{number}\tp{plan}\tactive\t2026-11-15", number / 3)
    }

    fn tree(lines: &[String]) -> Tree {
        Tree::of_lines(lines.iter().map(String::as_str)).expect("lines")
    }

    #[test]
    fn hashes_of_small_trees_are_what_the_format_says() {
        let sha = |octets: &[u8]| -> [u8; 32] { Sha256::digest(octets).into() };
        let one = line(1, 0);
        assert_eq!(tree(&[]).root(), hex(sha(&[1])));
        let leaf = sha(&[&[0], one.as_bytes()].concat());
        assert_eq!(tree(&[one]).root(), hex(sha(&[&[1], leaf.as_slice()].concat())));
        let many = tree(&(0..40).map(|number| line(number, 0)).collect::<Vec<_>>());
        let children = many.node("").expect("the root").children;
        assert_eq!((children.len(), children.iter().map(|child| child.rows).sum::<u64>()), (16, 40));
        let parts: Vec<u8> = children
            .iter()
            .flat_map(|child| {
                (0..64).step_by(2).map(|at| u8::from_str_radix(&child.hash[at..at + 2], 16).expect("hex"))
            })
            .collect();
        assert_eq!(many.root(), hex(sha(&[&[2], parts.as_slice()].concat())));
        assert_eq!(many.node("xyz"), None);
    }

    #[test]
    fn one_difference_among_many_is_found_with_few_questions() {
        let mut lines: Vec<String> = (0..20_000).map(|number| line(number, 0)).collect();
        let ours = tree(&lines);
        lines[777] = line(777, 1);
        let gone = lines.remove(5000);
        let found = ours.unlike(&tree(&lines));
        assert_eq!(found.only_ours, {
            let mut both = vec![line(777, 0), gone];
            both.sort();
            both
        });
        assert_eq!(found.only_theirs, [line(777, 1)]);
        assert!(found.questions <= 12, "{} questions", found.questions);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn equal_roots_mean_equal_lines_and_unequal_ones_lead_to_every_difference(
            common in prop::collection::btree_set(0u16..200, 0..60),
            ours in prop::collection::btree_set((0u16..200, 0u8..2), 0..4),
            theirs in prop::collection::btree_set((0u16..200, 0u8..2), 0..4),
        ) {
            let all = |own: &BTreeSet<(u16, u8)>| -> BTreeSet<String> {
                let mut lines: BTreeSet<String> = common.iter().map(|number| line(*number, 0)).collect();
                lines.extend(own.iter().map(|(number, plan)| line(*number, *plan)));
                lines
            };
            let (ours, theirs) = (all(&ours), all(&theirs));
            let (one, other) =
                (tree(&ours.iter().cloned().collect::<Vec<_>>()), tree(&theirs.iter().rev().cloned().collect::<Vec<_>>()));
            prop_assert_eq!(one.root() == other.root(), ours == theirs);
            let found = one.unlike(&other);
            prop_assert_eq!(found.only_ours, ours.difference(&theirs).cloned().collect::<Vec<_>>());
            prop_assert_eq!(found.only_theirs, theirs.difference(&ours).cloned().collect::<Vec<_>>());
        }
    }
}

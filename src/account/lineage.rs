//! Which account stands under which, of any depth: a move that would put an account under itself is found before it is made.

use std::collections::HashMap;

/// The way from an account up to itself, were `child` put under `parent`; both ends are the child.
///
/// **Shape**: `edges` are (child, parent) as they stand, moves of the same time included. `None`: no loop. What stands in a
/// loop already, which nothing here makes, ends the search.
pub fn loop_of(child: &str, parent: &str, edges: &HashMap<String, String>) -> Option<Vec<String>> {
    let mut way = vec![child.to_owned(), parent.to_owned()];
    let mut at = parent;
    while at != child {
        at = edges.get(at)?;
        if way.len() > edges.len() + 2 {
            return None;
        }
        way.push(at.to_owned());
    }
    Some(way)
}

/// Sums of whole trees: each node's own value and those of everything below it.
///
/// **Shape**: `nodes` are (id, parent), a parent before its children; a parent that is not among them is the outside.
pub fn roll_up<T: Clone>(nodes: &[(&str, Option<&str>)], own: Vec<T>, add: impl Fn(&mut T, &T)) -> Vec<T> {
    let places: HashMap<&str, usize> = nodes.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
    let mut sums = own;
    for (place, (_, parent)) in nodes.iter().enumerate().rev() {
        if let Some(above) = parent.and_then(|parent| places.get(parent)).filter(|above| **above < place) {
            let below = sums[place].clone();
            add(&mut sums[*above], &below);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_hold_everything_below() {
        let nodes =
            [("hq", None), ("west", Some("hq")), ("east", Some("hq")), ("w1", Some("west")), ("w2", Some("west"))];
        let sums = roll_up(&nodes, vec![1, 10, 100, 1_000, 10_000], |sum, below| *sum += below);
        assert_eq!(sums, [11_111, 11_010, 100, 1_000, 10_000]);
    }

    #[test]
    fn a_loop_is_named_from_end_to_end() {
        let edges: HashMap<String, String> =
            [("b", "c"), ("c", "d"), ("x", "c")].map(|(child, parent)| (child.to_owned(), parent.to_owned())).into();
        assert_eq!(loop_of("d", "b", &edges), Some(["d", "b", "c", "d"].map(str::to_owned).to_vec()));
        assert_eq!(loop_of("d", "d", &edges), Some(["d", "d"].map(str::to_owned).to_vec()));
        assert_eq!(loop_of("b", "x", &edges), None);
        assert_eq!(loop_of("new", "b", &edges), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn moves_that_are_let_through_leave_a_forest(moves in prop::collection::vec((0u8..12, 0u8..12), 0..60)) {
            let mut edges: HashMap<String, String> = HashMap::new();
            let mut refused = 0;
            for (child, parent) in moves {
                let (child, parent) = (child.to_string(), parent.to_string());
                match loop_of(&child, &parent, &edges) {
                    Some(way) => {
                        refused += 1;
                        prop_assert_eq!((way.first(), way.last()), (Some(&child), Some(&child)));
                    }
                    None => {
                        edges.insert(child, parent);
                    }
                }
                for start in edges.keys() {
                    let mut at = start;
                    for _ in 0..=edges.len() {
                        match edges.get(at) {
                            Some(up) => at = up,
                            None => break,
                        }
                    }
                    prop_assert!(!edges.contains_key(at), "{} goes round ({} refused)", start, refused);
                }
            }
        }
    }
}

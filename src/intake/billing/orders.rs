//! What a bill run or a check is asked for: a period of a cycle, read from a body with every fault by its place.

use serde_json::Value;

use super::super::problem::Problem;
use crate::vocabulary::Faults;

/// A cycle, and one of its periods by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeriodOrder {
    pub cycle: String,
    pub period: Option<String>,
    pub dry_run: bool,
}

impl PeriodOrder {
    /// Reads a body; `dry_run`: whether that may be asked for.
    ///
    /// **Errors**: 422 with each field that is missing, not known or of another kind.
    pub fn read(body: &Value, dry_run: bool) -> Result<Self, Problem> {
        let mut faults = Faults::new();
        let mut order = Self { cycle: String::new(), period: None, dry_run: false };
        let Some(fields) = body.as_object() else {
            faults.add("", "must be an object with the `cycle`");
            return faults.settle(order).map_err(Problem::invalid);
        };
        let mut told = false;
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("cycle", Value::String(cycle)) if !cycle.is_empty() => {
                    told = true;
                    order.cycle.clone_from(cycle);
                }
                ("cycle", _) => {
                    told = true;
                    faults.add("/cycle", "must be the id of a bill cycle");
                }
                ("period", Value::String(period)) => order.period = Some(period.clone()),
                ("period", Value::Null) => {}
                ("period", _) => faults.add("/period", "must be the name of a period: its first day or its month"),
                ("dry_run", Value::Bool(wanted)) if dry_run => order.dry_run = *wanted,
                ("dry_run", _) if dry_run => faults.add("/dry_run", "must be true or false"),
                (other, _) => {
                    let place = other.replace('~', "~0").replace('/', "~1");
                    let known = if dry_run { "cycle, period, dry_run" } else { "cycle, period" };
                    faults.add(format!("/{place}"), format!("is not known here; there are {known}"));
                }
            }
        }
        if !told {
            faults.add("/cycle", "is required");
        }
        faults.settle(order).map_err(Problem::invalid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(body: Value, dry_run: bool) -> Vec<(String, String)> {
        let problem = PeriodOrder::read(&body, dry_run).expect_err("faults").document();
        assert_eq!(problem["status"], 422, "{problem}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let listed = problem["errors"].as_array().expect("faults").iter();
        listed.map(|fault| (text(&fault["pointer"]), text(&fault["detail"]))).collect()
    }

    #[test]
    fn every_fault_of_an_order_is_told_by_its_place_and_in_our_words() {
        let read = PeriodOrder::read(&json!({ "cycle": "c15", "period": null, "dry_run": true }), true);
        assert_eq!(read.ok(), Some(PeriodOrder { cycle: "c15".to_owned(), period: None, dry_run: true }));
        let found = faults(json!({ "period": 7, "dry_run": "yes", "cycel/": 1 }), true);
        let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["/period", "/dry_run", "/cycel~1", "/cycle"]);
        for (_, detail) in &found {
            assert!(!detail.contains("expected") && !detail.contains("line 1"), "{detail}");
        }
        assert_eq!(faults(json!({ "cycle": 15 }), true)[0].0, "/cycle");
        assert_eq!(faults(json!({ "cycle": "c15", "dry_run": true }), false)[0].0, "/dry_run");
        assert_eq!(faults(json!([]), false)[0].0, "");
    }
}

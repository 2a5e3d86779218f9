//! What a list is asked for: which resources (filters on attributes), which of them (`offset`, `limit`), which attributes
//! (`fields`). The query in, a test and a selection out.
//!
//! **Source**: TMF630 REST API design guidelines, "Query resources": `attribute=value`, values separated by commas are
//! alternatives, `.gt` `.gte` `.lt` `.lte` compare, `fields` selects attributes of the first level.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::vocabulary::{Exact, Timestamp};

/// A question to a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    pub offset: i64,
    pub limit: i64,
    /// The billing system meant, where there are several.
    pub source: Option<String>,
    fields: Option<Vec<String>>,
    filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    path: String,
    operator: Operator,
    /// Alternatives.
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 1000;
const OFFSET_MAX: i64 = 100_000_000;
const FILTERS_MAX: usize = 16;
const VALUES_MAX: usize = 100;

impl Listing {
    /// Reads a query. `paths` are the attributes that can be filtered on.
    ///
    /// **Errors**: a sentence that names the parameter.
    pub fn read(pairs: &[(String, String)], paths: &[&str]) -> Result<Self, String> {
        let mut listing = Self { limit: LIMIT_DEFAULT, ..Self::default() };
        for (key, value) in pairs {
            match key.as_str() {
                "offset" => listing.offset = number(key, value, 0..=OFFSET_MAX)?,
                "limit" => listing.limit = number(key, value, 1..=LIMIT_MAX)?,
                "source" => listing.source = Some(value.clone()),
                "fields" => {
                    let named = value.split(',').map(|name| name.split('.').next().unwrap_or_default().trim());
                    let named = named.filter(|name| !name.is_empty()).map(str::to_owned);
                    listing.fields.get_or_insert_default().extend(named);
                }
                _ => listing.filters.push(filter(key, value, paths)?),
            }
        }
        if listing.filters.len() > FILTERS_MAX {
            return Err(format!("The query has more than {FILTERS_MAX} filters."));
        }
        Ok(listing)
    }

    /// The one value an attribute must have; `None`: any, or one of several.
    pub fn value(&self, path: &str) -> Option<&str> {
        let mut of = self.filters.iter().filter(|filter| filter.path == path && filter.operator == Operator::Equal);
        match (of.next().map(|filter| filter.values.as_slice()), of.next()) {
            (Some([value]), None) => Some(value),
            _ => None,
        }
    }

    /// Whether nothing is asked for besides what `value` of these paths gives.
    pub fn is_about(&self, paths: &[&str]) -> bool {
        self.filters.iter().all(|filter| paths.contains(&filter.path.as_str()) && self.value(&filter.path).is_some())
    }

    /// Whether a resource is one of those asked for.
    pub fn takes(&self, resource: &Value) -> bool {
        self.filters.iter().all(|filter| {
            let mut found = Vec::new();
            walk(resource, &filter.path, &mut found);
            found.iter().any(|found| filter.values.iter().any(|value| filter.operator.holds(found, value)))
        })
    }

    /// The attributes asked for; the id is always among them.
    pub fn select(&self, resource: Value) -> Value {
        match (&self.fields, resource) {
            (Some(fields), Value::Object(members)) => {
                let asked = |key: &String| key == "id" || fields.contains(key);
                Value::Object(members.into_iter().filter(|(key, _)| asked(key)).collect::<Map<String, Value>>())
            }
            (_, resource) => resource,
        }
    }
}

fn number(key: &str, value: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{key} must be {} to {}.", range.start(), range.end()))
}

fn filter(key: &str, value: &str, paths: &[&str]) -> Result<Filter, String> {
    let (path, operator) = match key.rsplit_once('.') {
        Some((path, "gt")) => (path, Operator::Greater),
        Some((path, "gte")) => (path, Operator::GreaterOrEqual),
        Some((path, "lt")) => (path, Operator::Less),
        Some((path, "lte")) => (path, Operator::LessOrEqual),
        _ => (key, Operator::Equal),
    };
    if !paths.contains(&path) {
        let shown: String = path.chars().take(60).collect();
        let known = if paths.is_empty() { "nothing".to_owned() } else { paths.join(", ") };
        return Err(format!("{shown:?} cannot be asked for; this list knows fields, offset, limit, source, {known}."));
    }
    let values: Vec<String> = value.split(',').map(|value| value.trim().to_owned()).collect();
    if values.len() > VALUES_MAX {
        return Err(format!("{path} has more than {VALUES_MAX} values."));
    }
    if operator != Operator::Equal
        && let Some(wrong) = values.iter().find(|value| measure(value).is_none())
    {
        let shown: String = wrong.chars().take(60).collect();
        return Err(format!("{path}: {shown:?} is neither an instant nor a number."));
    }
    Ok(Filter { path: path.to_owned(), operator, values })
}

/// The values at a path; of a list those of each of its entries.
fn walk<'v>(value: &'v Value, path: &str, found: &mut Vec<&'v Value>) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| walk(item, path, found));
    }
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match (value, path.is_empty()) {
        (Value::Object(members), false) => members.get(first).into_iter().for_each(|inner| walk(inner, rest, found)),
        (Value::String(_) | Value::Number(_) | Value::Bool(_), true) => found.push(value),
        _ => {}
    }
}

/// What can be greater or less.
enum Measure {
    Instant(Timestamp),
    Number(Exact),
}

fn measure(text: &str) -> Option<Measure> {
    let instant = text.parse().ok().map(Measure::Instant);
    instant.or_else(|| text.parse().ok().map(Measure::Number))
}

impl Operator {
    fn holds(self, found: &Value, value: &str) -> bool {
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        let order = || match (measure(&text)?, measure(value)?) {
            (Measure::Instant(found), Measure::Instant(value)) => Some(found.cmp(&value)),
            (Measure::Number(found), Measure::Number(value)) => Some(found.cmp(&value)),
            _ => None,
        };
        match self {
            // An account `007` is not the account `7`; a number written otherwise is the same number.
            Operator::Equal => text == value || (found.is_number() && order() == Some(Ordering::Equal)),
            Operator::Greater => order() == Some(Ordering::Greater),
            Operator::GreaterOrEqual => matches!(order(), Some(Ordering::Greater | Ordering::Equal)),
            Operator::Less => order() == Some(Ordering::Less),
            Operator::LessOrEqual => matches!(order(), Some(Ordering::Less | Ordering::Equal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Listing, String> {
        let pairs: Vec<(String, String)> = query.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Listing::read(&pairs, &["state", "relatedParty.id", "usageDate", "taxExcludedAmount.value"])
    }

    #[test]
    fn filters_look_into_lists_and_compare_instants_and_numbers() {
        let resource = json!({
            "id": "1", "state": "active", "relatedParty": [{ "id": "a" }, { "id": "b" }],
            "usageDate": "2026-11-01T00:00:00Z", "taxExcludedAmount": { "value": 10 }
        });
        for (query, expected) in [
            (&[][..], true),
            (&[("state", "active")], true),
            (&[("state", "inactive,active")], true),
            (&[("state", "inactive")], false),
            (&[("relatedParty.id", "b")], true),
            (&[("relatedParty.id", "b"), ("relatedParty.id", "c")], false),
            (&[("usageDate.gte", "2026-11-01T01:00:00+01:00")], true),
            (&[("usageDate.gt", "2026-11-01T00:00:00Z")], false),
            (&[("usageDate.lt", "2026-11-02T00:00:00Z")], true),
            (&[("taxExcludedAmount.value.gt", "9.5")], true),
            (&[("taxExcludedAmount.value", "10.00")], true),
            (&[("relatedParty.id", "0b")], false),
            (&[("usageDate", "2026-11-01T00:00:00.0Z")], false),
            (&[("taxExcludedAmount.value.lte", "9")], false),
        ] {
            assert_eq!(read(query).expect("a query").takes(&resource), expected, "{query:?}");
        }
    }

    #[test]
    fn fields_leave_the_id_and_what_is_named() {
        let resource = json!({ "id": "1", "href": "/1", "state": "active", "@type": "Service" });
        let selected = |fields| read(&[("fields", fields)]).expect("a query").select(resource.clone());
        assert_eq!(selected("state"), json!({ "id": "1", "state": "active" }));
        assert_eq!(selected("href, state.x,unknown"), json!({ "id": "1", "href": "/1", "state": "active" }));
        assert_eq!(read(&[]).expect("a query").select(resource.clone()), resource);
    }

    #[test]
    fn what_a_list_does_not_know_is_named() {
        for (query, word) in [
            (("limit", "0"), "limit"),
            (("limit", "1001"), "limit"),
            (("offset", "-1"), "offset"),
            (("offset", "x"), "offset"),
            (("colour", "red"), "colour"),
            (("usageDate.gt", "yesterday"), "usageDate"),
            (("sort", "-state"), "sort"),
        ] {
            assert!(read(&[query]).expect_err("no query").contains(word), "{query:?}");
        }
        let many = vec![("state", "x"); FILTERS_MAX + 1];
        assert!(read(&many).is_err());
    }

    #[test]
    fn a_single_value_can_be_looked_up_elsewhere() {
        let listing = read(&[("relatedParty.id", "a"), ("state", "active,inactive")]).expect("a query");
        assert_eq!((listing.value("relatedParty.id"), listing.value("state")), (Some("a"), None));
        assert!(!listing.is_about(&["relatedParty.id", "state"]) && !listing.is_about(&["relatedParty.id"]));
        assert!(read(&[("state", "active")]).expect("a query").is_about(&["state"]));
    }
}

//! JSON Merge Patch (RFC 7396), for sources that know only a part of a service.

use serde_json::{Map, Value};

/// The target as the patch wants it: `null` removes a member, an object is merged, anything else replaces.
///
/// **Source**: RFC 7396 s2. Recursion is bounded by the depth of a document read by `json::read`.
pub fn merge(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_else(Map::new);
    for (key, value) in patch {
        match value {
            Value::Null => {
                merged.shift_remove(key);
            }
            _ => {
                let inner = merge(merged.get(key).unwrap_or(&Value::Null), value);
                merged.insert(key.clone(), inner);
            }
        }
    }
    Value::Object(merged)
}

/// As `merge`, for a service of a pushed document: a patch takes `null` out of the result, but for a password it means that
/// the stored one is removed.
pub fn merge_service(target: &Value, patch: &Value) -> Value {
    with_removed_secrets(merge(target, patch), patch)
}

fn with_removed_secrets(mut merged: Value, patch: &Value) -> Value {
    if let (Some(target), Some(patch)) = (merged.as_object_mut(), patch.as_object()) {
        for (key, value) in patch {
            if key == "password" && value.is_null() {
                target.insert(key.clone(), Value::Null);
            } else if value.is_object()
                && let Some(inner) = target.get_mut(key)
            {
                *inner = with_removed_secrets(inner.take(), value);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merge(&target, &patch), result, "{target} + {patch}");
        }
    }
}

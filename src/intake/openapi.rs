//! The OpenAPI document as it is served: what the handlers declare, completed with what holds for every route (who calls, how
//! it is refused) and with the shapes of bodies and answers, which stand in `openapi.json`. Routes in, one document out.

use serde_json::{Map, Value, json};

/// Shapes, and which route takes and answers which; a `?` before a body's name says that it may be left out.
const SHAPES: &str = include_str!("openapi.json");

/// What any route below a tenant may answer besides what it declares itself.
const ALWAYS: [(&str, &str); 6] = [
    ("400", "The address, a header or the body cannot be read"),
    ("401", "No valid key"),
    ("403", "A key of this role may not"),
    ("404", "Nothing of this tenant is at this address"),
    ("429", "The key has used up its requests"),
    ("503", "Not possible at the moment; nothing was stored"),
];
/// What a route with a body may answer.
const WITH_BODY: [(&str, &str); 2] =
    [("413", "The body is too long"), ("422", "Every fault of the body, each with its pointer")];

/// The document that is served.
pub fn document(declared: Value) -> Value {
    let mut document = declared;
    let mut shapes: Value = serde_json::from_str(SHAPES).unwrap_or_default();
    let schemas = shapes["schemas"].take();
    document["components"]["schemas"] = schemas.clone();
    document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        let face = face(path);
        // What senders try an address with; it says nothing.
        methods.as_object_mut().map(|methods| methods.remove("head"));
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            let route = format!("{} {path}", method.to_uppercase());
            match face {
                Some(face) => {
                    let answer = shapes["answers"][&route].as_str();
                    let is_list = answer.is_some_and(|name| schemas[name]["type"] == "array");
                    complete(operation, (face, is_list), answer, shapes["bodies"][&route].as_str());
                }
                None => plain(operation),
            }
        }
    }
    document
}

/// How a route's callers are told of what they may not, and who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    /// Below a tenant; problem documents.
    Own,
    /// TM Forum's.
    Tmf,
}

/// `None`: it is for nobody in particular.
fn face(path: &str) -> Option<Face> {
    match path {
        _ if path.starts_with("/v1/") => Some(Face::Own),
        _ if path.starts_with(super::tmf::BASE) => Some(Face::Tmf),
        _ => None,
    }
}

fn complete(operation: &mut Value, (face, is_list): (Face, bool), answer: Option<&str>, body: Option<&str>) {
    operation["security"] = json!([{ "key": [] }]);
    let parameters = operation["parameters"].as_array_mut().into_iter().flatten();
    for parameter in parameters {
        narrow(parameter);
    }
    let actor = json!({ "name": "Lastmile-Actor", "in": "header", "required": false,
        "description": "The person this is done for, for the audit: 1 to 128 visible characters",
        "schema": { "type": "string", "minLength": 1, "maxLength": 128 } });
    let tenant = json!({ "name": "Lastmile-Tenant", "in": "header", "required": false,
        "description": "The tenant meant, where the key is no tenant's", "schema": { "type": "string" } });
    let headers = [Some(actor), (face == Face::Tmf).then_some(tenant)].into_iter().flatten();
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.extend(headers),
        None => operation["parameters"] = headers.collect(),
    }
    if let Some(name) = body {
        let mut content = operation["requestBody"]["content"].as_object().cloned().unwrap_or_default();
        content.insert("application/json".to_owned(), json!({ "schema": reference(name.trim_start_matches('?')) }));
        operation["requestBody"] = json!({ "required": !name.starts_with('?'), "content": content });
    }
    let has_body = operation["requestBody"].is_object();
    let has_key = operation["parameters"].as_array().into_iter().flatten().any(|one| one["name"] == "Idempotency-Key");
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    let with_body = WITH_BODY.iter().filter(|(status, _)| match (face, *status) {
        // Their APIs know 400 alone.
        (Face::Tmf, "422") => false,
        (_, status) => has_body || (has_key && status == "422"),
    });
    for (status, description) in ALWAYS.iter().chain(with_body) {
        responses.entry(*status).or_insert_with(|| json!({ "description": description }));
    }
    // Whoever is answered in words of its own may be told ours too.
    let declared = responses.values_mut().filter_map(|response| response.get_mut("content")?.as_object_mut());
    for content in declared {
        for (kind, shape) in [("application/json", answer), ("application/problem+json", Some("Problem"))] {
            if let (Some(media), Some(shape)) = (content.get_mut(kind), shape) {
                media["schema"] = reference(shape);
            }
        }
    }
    for (status, response) in responses {
        if is_list && status.starts_with('2') {
            let count = |what: &str| json!({ "required": true, "description": what, "schema": { "type": "integer" } });
            response["headers"] =
                json!({ "X-Total-Count": count("How many there are"), "X-Result-Count": count("How many these are") });
        }
        let empty = matches!(status.as_str(), "204" | "304");
        let told = response.get_mut("content").and_then(Value::as_object_mut);
        for media in told.into_iter().flat_map(|content| content.values_mut()) {
            if let Some(name) = answer.filter(|_| status.starts_with('2') && !media["schema"].is_null()) {
                media["schema"] = reference(name);
            }
        }
        if !empty && response["content"].is_null() {
            response["content"] = match status.starts_with('2') {
                true => json!({ "application/json": { "schema": answer.map_or_else(|| json!({}), reference) } }),
                false if face == Face::Tmf => json!({ "application/json": { "schema": reference("TmfError") } }),
                false => json!({ "application/problem+json": { "schema": reference("Problem") } }),
            };
        }
    }
}

/// What a name alone tells of a parameter.
fn narrow(parameter: &mut Value) {
    let schema = match parameter["name"].as_str() {
        Some("offset") => json!({ "type": "integer", "minimum": 0, "maximum": 100_000_000 }),
        Some("limit") => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
        Some("since" | "from" | "to" | "at" | "as_of") if parameter["in"] == "query" && !is_date(parameter) => {
            json!({ "type": "string", "format": "date-time" })
        }
        Some("Idempotency-Key") => json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }),
        _ => return,
    };
    parameter["schema"] = schema;
    if parameter["in"] == "query" {
        parameter["required"] = json!(false);
    }
}

/// Days are declared as such by their handlers.
fn is_date(parameter: &Value) -> bool {
    parameter["schema"]["format"] == "date"
}

fn plain(operation: &mut Value) {
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, response) in responses {
        response["content"] = match status.starts_with('2') {
            true => json!({ "text/plain": { "schema": { "type": "string" } } }),
            false => json!({ "application/problem+json": { "schema": reference("Problem") } }),
        };
    }
}

fn reference(name: &str) -> Value {
    let mut reference = Map::new();
    reference.insert("$ref".to_owned(), json!(format!("#/components/schemas/{name}")));
    Value::Object(reference)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::declared;
    use super::*;

    #[test]
    fn every_route_tells_the_shape_of_its_answer_and_every_shape_is_some_routes() {
        let shapes: Value = serde_json::from_str(SHAPES).expect("JSON");
        let document = document(declared());
        let mut routes = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            let methods = methods.as_object().expect("methods").keys().filter(|_| face(path).is_some());
            routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        let told: BTreeSet<String> = shapes["answers"].as_object().expect("answers").keys().cloned().collect();
        assert_eq!(told, routes, "openapi.json tells the answer of each route");
        let bodies: BTreeSet<String> = shapes["bodies"].as_object().expect("bodies").keys().cloned().collect();
        assert!(bodies.is_subset(&routes), "{:?}", bodies.difference(&routes));
        for route in &routes {
            let (method, path) = route.split_once(' ').expect("a method and a path");
            let answers = document["paths"][path][method.to_lowercase()]["responses"].as_object().expect("answers");
            let good = answers.iter().filter(|(status, _)| status.starts_with('2'));
            let shown: Vec<&Value> = good.filter_map(|(_, answer)| answer.get("content")).collect();
            match shapes["answers"][route].as_str() {
                None => assert!(shown.is_empty(), "{route} answers something: {shown:?}"),
                Some(name) => {
                    let used = shown.iter().any(|content| content.to_string().contains(&format!("schemas/{name}\"")));
                    assert!(used, "{route} names {name} and answers {shown:?}");
                }
            }
            for (kind, media) in shown.iter().filter_map(|content| content.as_object()).flatten() {
                assert!(media["schema"].is_object(), "{route} does not say what its {kind} looks like");
            }
        }
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let text = document.to_string();
        for name in schemas.keys() {
            assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "nobody uses the shape {name}");
        }
        for (_, rest) in text.match_indices("#/components/schemas/").map(|(at, word)| (at, &text[at + word.len()..])) {
            let name = rest.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "there is no shape {name}");
        }
    }
}

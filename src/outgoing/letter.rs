//! What people are told of an event: a subject and a text in their language, from shipped templates or the tenant's own.
//!
//! In: an event's facts. Out: texts. A template is bounded in size and in the steps it may take, reaches no file and no
//! network, and never computes money: amounts are texts.

use std::collections::BTreeMap;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;
use thiserror::Error;

use crate::vocabulary::parse_instant;

/// By which way a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Medium {
    Mail,
    Sms,
}

/// A text for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Of a mail; one line.
    pub subject: String,
    pub text: String,
}

/// Why there is no text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LetterError {
    #[error("there is no template {0}")]
    None(String),
    #[error("template {name}: {detail}")]
    Template { name: String, detail: String },
}

/// Templates by their names: `LANGUAGE/TYPE.MEDIUM.txt`, and `TENANT/LANGUAGE/…` of one tenant, which come first.
#[derive(Debug, Clone)]
pub struct Letters {
    texts: BTreeMap<String, String>,
    /// The language of whoever has none that there is a template for.
    language: String,
}

/// Octets of a template.
pub const TEMPLATE_MAX: usize = 64 << 10;
/// Steps a template may take.
const FUEL: u64 = 100_000;
/// Characters of a text.
const MAIL_MAX: usize = 100_000;
const SMS_MAX: usize = 1_000;
const SUBJECT_MAX: usize = 200;
/// Objects within objects that are said.
const DEPTH_MAX: usize = 4;

impl Medium {
    fn word(self) -> &'static str {
        match self {
            Medium::Mail => "mail",
            Medium::Sms => "sms",
        }
    }
}

impl Letters {
    /// The shipped templates, and what a folder has besides or instead (`name → text`).
    ///
    /// **Errors**: every template that cannot be read.
    pub fn new(own: BTreeMap<String, String>, language: &str) -> Result<Self, Vec<LetterError>> {
        let mut texts: BTreeMap<String, String> =
            SHIPPED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        texts.extend(own);
        let mut faults = Vec::new();
        for (name, text) in &texts {
            let fault = |detail: String| LetterError::Template { name: name.clone(), detail };
            if text.len() > TEMPLATE_MAX {
                faults.push(fault(format!("has more than {TEMPLATE_MAX} octets")));
            } else if let Err(error) = environment().template_from_str(text) {
                faults.push(fault(told(&error)));
            }
        }
        match faults.is_empty() {
            true => Ok(Self { texts, language: language.to_owned() }),
            false => Err(faults),
        }
    }

    /// The text of an event; `facts` are what the template may name.
    pub fn write(
        &self,
        medium: Medium,
        kind: &str,
        tenant: &str,
        language: Option<&str>,
        facts: &Value,
    ) -> Result<Letter, LetterError> {
        let (name, text) = self.template(medium, kind, tenant, language)?;
        let fault = |error: &Error| LetterError::Template { name: name.clone(), detail: told(error) };
        let environment = for_people();
        let template = environment.template_from_str(text).map_err(|error| fault(&error))?;
        let written = template.render(facts).map_err(|error| fault(&error))?;
        let most = if medium == Medium::Mail { MAIL_MAX } else { SMS_MAX };
        let (subject, text) = match medium {
            Medium::Mail => written.split_once('\n').unwrap_or((&written, "")),
            Medium::Sms => ("", written.as_str()),
        };
        // A line's end in a subject would begin a header of its own.
        let subject = subject.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        let text = text.trim().chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'));
        Ok(Letter { subject: subject.take(SUBJECT_MAX).collect(), text: text.take(most).collect() })
    }

    /// The nearest there is: the tenant's own before ours, the language (`de-AT`, then `de`) before the usual one.
    fn template(
        &self,
        medium: Medium,
        kind: &str,
        tenant: &str,
        language: Option<&str>,
    ) -> Result<(String, &str), LetterError> {
        let asked = language.unwrap_or(&self.language).to_lowercase();
        let short = asked.split(['-', '_']).next().unwrap_or_default();
        let languages = [asked.as_str(), short, self.language.as_str(), "en"];
        let name = |language: &str| format!("{language}/{kind}.{}.txt", medium.word());
        for language in languages {
            for name in [format!("{tenant}/{}", name(language)), name(language)] {
                if let Some(text) = self.texts.get(&name) {
                    return Ok((name, text));
                }
            }
        }
        Err(LetterError::None(name(&self.language)))
    }
}

/// A text made of a template that stands alone, as the body of a request.
pub fn filled(template: &str, facts: &Value) -> Result<String, LetterError> {
    let fault = |error: Error| LetterError::Template { name: "body".to_owned(), detail: told(&error) };
    environment().render_str(template, facts).map_err(fault)
}

fn environment<'s>() -> Environment<'s> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("day", day);
    environment
}

/// Whatever a template shows a person is words: what is JSON, or a text of JSON, is said in words too.
fn for_people<'s>() -> Environment<'s> {
    let mut environment = environment();
    environment.set_formatter(|out, state, value| match said(value) {
        Some(words) => Ok(out.write_str(&words)?),
        None => minijinja::escape_formatter(out, state, value),
    });
    environment
}

/// Objects and lists in words; `None`: it is neither.
fn said(value: &minijinja::Value) -> Option<String> {
    let json: Value = match value.as_str() {
        Some(text) if text.trim_start().starts_with(['{', '[']) => serde_json::from_str(text).ok()?,
        Some(_) => return None,
        None if value.kind() == ValueKind::Map || value.kind() == ValueKind::Seq => serde_json::to_value(value).ok()?,
        None => return None,
    };
    matches!(json, Value::Object(_) | Value::Array(_)).then(|| words(&json, 0))
}

fn words(value: &Value, depth: usize) -> String {
    let inner = |value: &Value| match value {
        Value::Object(_) | Value::Array(_) if depth < DEPTH_MAX => format!("({})", words(value, depth + 1)),
        Value::Object(_) | Value::Array(_) => "…".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        plain => plain.to_string(),
    };
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{} {}", name.replace('_', " "), inner(value));
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(inner).collect::<Vec<_>>().join(", "),
        plain => inner(plain),
    }
}

/// The day of an instant, as the instant has it.
fn day(text: String) -> Result<String, Error> {
    match parse_instant(&text) {
        Some(at) => Ok(at.strftime("%Y-%m-%d").to_string()),
        None => Err(Error::new(ErrorKind::InvalidOperation, format!("{text:?} is no instant"))),
    }
}

/// On one line, without what the template was given.
fn told(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    format!("{line}{} {detail}", error.kind()).trim().to_owned()
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name)))),+]
    };
}

const SHIPPED: &[(&str, &str)] = files!(
    "de/exception.opened.mail.txt",
    "de/exception.opened.sms.txt",
    "de/hold.lifted.mail.txt",
    "de/hold.lifted.sms.txt",
    "de/hold.placed.mail.txt",
    "de/hold.placed.sms.txt",
    "de/reconcile.completed.mail.txt",
    "de/reconcile.completed.sms.txt",
    "de/service.failed.mail.txt",
    "de/service.failed.sms.txt",
    "de/usage.threshold.mail.txt",
    "de/usage.threshold.sms.txt",
    "en/exception.opened.mail.txt",
    "en/exception.opened.sms.txt",
    "en/hold.lifted.mail.txt",
    "en/hold.lifted.sms.txt",
    "en/hold.placed.mail.txt",
    "en/hold.placed.sms.txt",
    "en/reconcile.completed.mail.txt",
    "en/reconcile.completed.sms.txt",
    "en/service.failed.mail.txt",
    "en/service.failed.sms.txt",
    "en/usage.threshold.mail.txt",
    "en/usage.threshold.sms.txt",
    "es/exception.opened.mail.txt",
    "es/exception.opened.sms.txt",
    "es/hold.lifted.mail.txt",
    "es/hold.lifted.sms.txt",
    "es/hold.placed.mail.txt",
    "es/hold.placed.sms.txt",
    "es/reconcile.completed.mail.txt",
    "es/reconcile.completed.sms.txt",
    "es/service.failed.mail.txt",
    "es/service.failed.sms.txt",
    "es/usage.threshold.mail.txt",
    "es/usage.threshold.sms.txt",
    "fr/exception.opened.mail.txt",
    "fr/exception.opened.sms.txt",
    "fr/hold.lifted.mail.txt",
    "fr/hold.lifted.sms.txt",
    "fr/hold.placed.mail.txt",
    "fr/hold.placed.sms.txt",
    "fr/reconcile.completed.mail.txt",
    "fr/reconcile.completed.sms.txt",
    "fr/service.failed.mail.txt",
    "fr/service.failed.sms.txt",
    "fr/usage.threshold.mail.txt",
    "fr/usage.threshold.sms.txt",
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> Value {
        json!({
            "event": { "id": "acme.7", "type": "usage.threshold", "at": "2026-11-20T10:00:00Z" },
            "tenant": { "id": "acme", "name": "Acme Cable" },
            "account": { "name": "Ada\r\nBcc: all@example.net" },
            "data": {
                "account": "1", "source": "default", "service": "i1", "at": "80%", "used": "8", "unit": "GB",
                "threshold": "8", "period": { "end": "2026-12-01T00:00:00Z" }, "hold": { "until": null }, "kind": "k",
                "subject": "s\r\nX: y", "detail": "d", "reason": "r", "element": { "kind": "aaa", "key": "u" },
            },
        })
    }

    #[test]
    fn every_shipped_template_speaks_of_its_event_in_four_languages() {
        let letters = Letters::new(BTreeMap::new(), "en").expect("the shipped templates have no faults");
        let mut shown = String::new();
        for (name, _) in SHIPPED {
            let (language, rest) = name.split_once('/').expect("a language");
            let kind = rest.strip_suffix(".txt").expect("a text");
            let (kind, medium) = kind.rsplit_once('.').expect("a medium");
            let medium = if medium == "mail" { Medium::Mail } else { Medium::Sms };
            let letter = letters.write(medium, kind, "acme", Some(language), &facts()).expect("a text");
            assert!(!letter.text.is_empty() && !letter.text.contains("{{"), "{name}: {letter:?}");
            assert!(!letter.subject.contains(['\r', '\n']), "{name}: {letter:?}");
            shown.push_str(&format!("== {name}\n{}\n{}\n", letter.subject, letter.text));
        }
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/letters.txt");
        if std::env::var("LASTMILE_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, &shown).expect("the golden file can be written");
        }
        assert_eq!(shown, std::fs::read_to_string(&path).expect("the golden file"));
    }

    #[test]
    fn nobody_is_shown_json() {
        let letters = Letters::new(BTreeMap::new(), "en").expect("the shipped templates have no faults");
        let mut facts = facts();
        facts["data"]["detail"] = json!("{\"nas\":\"bng1\",\"off_seconds\":90,\"seen\":[{\"at\":\"10:00\"},null]}");
        facts["data"]["element"] = json!({ "kind": ["aaa"], "key": { "user": "u" } });
        facts["data"]["reason"] = json!({ "why": "no answer", "tries": 3 });
        for (name, _) in SHIPPED {
            let (language, rest) = name.split_once('/').expect("a language");
            let (kind, medium) = rest.trim_end_matches(".txt").rsplit_once('.').expect("a medium");
            let medium = if medium == "mail" { Medium::Mail } else { Medium::Sms };
            let letter = letters.write(medium, kind, "acme", Some(language), &facts).expect("a text");
            let shown = letter.subject + &letter.text;
            assert!(!shown.contains(['{', '}', '"', '[', ']']), "{name}: {shown}");
        }
        let letter = letters.write(Medium::Sms, "exception.opened", "acme", None, &facts).expect("a text");
        assert!(letter.text.ends_with("nas bng1, off seconds 90, seen ((at 10:00), -)"), "{}", letter.text);
        // What only looks like it is shown as it is; the body of a request stays JSON.
        facts["data"]["detail"] = json!("{no json} of [eth0]");
        let letter = letters.write(Medium::Sms, "exception.opened", "acme", None, &facts).expect("a text");
        assert!(letter.text.ends_with("{no json} of [eth0]"), "{}", letter.text);
        let body = filled("{{ data|tojson }}", &json!({ "data": { "a": [1] } })).expect("a body");
        assert_eq!(body, "{\"a\":[1]}");
    }

    #[test]
    fn the_nearest_template_is_taken() {
        let own = BTreeMap::from([
            ("acme/de/usage.threshold.mail.txt".to_owned(), "eigen {{ data.used }}\n\nText".to_owned()),
            ("sv/usage.threshold.mail.txt".to_owned(), "svenska\n\ntext".to_owned()),
        ]);
        let letters = Letters::new(own, "en").expect("sound");
        let subject = |tenant: &str, language: Option<&str>| {
            let letter = letters.write(Medium::Mail, "usage.threshold", tenant, language, &facts());
            letter.expect("a text").subject
        };
        assert_eq!(subject("acme", Some("de-AT")), "eigen 8");
        assert!(subject("other", Some("de")).starts_with("Datenverbrauch"));
        assert_eq!(subject("other", Some("sv")), "svenska");
        assert!(subject("acme", Some("tlh")).starts_with("Data usage"));
        assert!(subject("acme", None).starts_with("Data usage"));
        let none = letters.write(Medium::Mail, "account.created", "acme", None, &facts());
        assert_eq!(none, Err(LetterError::None("en/account.created.mail.txt".to_owned())));
    }

    #[test]
    fn a_template_that_never_ends_is_stopped_and_a_faulty_one_refused() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}".to_owned();
        let own = BTreeMap::from([("en/x.mail.txt".to_owned(), endless)]);
        let letters = Letters::new(own, "en").expect("it can be read");
        let stopped = letters.write(Medium::Mail, "x", "acme", None, &facts()).expect_err("it is stopped");
        assert!(stopped.to_string().contains("fuel"), "{stopped}");
        let faulty = BTreeMap::from([("en/x.mail.txt".to_owned(), "{{ a".to_owned())]);
        assert!(Letters::new(faulty, "en").is_err());
        assert_eq!(filled("{{ text|tojson }}", &json!({ "text": "a\"b" })), Ok("\"a\\\"b\"".to_owned()));
    }
}

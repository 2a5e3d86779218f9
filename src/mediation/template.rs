//! Templates of a profile: text with places of the record in braces, `{path|function|function('argument')}`.
//!
//! A template that is one pair of braces gives what stands there, a list too. Any other one gives a text: what is
//! missing leaves no trace, and blanks that meet become one. `{{` and `}}` are braces themselves.

use std::borrow::Cow;

use super::function::{Argument, Function, Scope, Trouble, Val, Vocabulary, squeeze, wrong};
use super::tree::Path;

#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Expression(Expression),
}

#[derive(Debug, Clone)]
pub struct Expression {
    pub path: Path,
    functions: Vec<Function>,
}

impl Template {
    /// **Errors**: what is wrong, with the character it was noticed at, counted from 1.
    pub fn parse(text: &str, vocabularies: &[Vocabulary]) -> Result<Self, String> {
        if text.len() > TEMPLATE_MAX {
            return Err(format!("a template has at most {TEMPLATE_MAX} octets"));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push(letter);
                rest = &rest[2..];
            } else if letter == '{' {
                let (inside, after) = expression(&rest[1..]).ok_or_else(|| at(text, rest, "a brace is not closed"))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let parsed = Expression::parse(inside, vocabularies).map_err(|detail| at(text, rest, &detail))?;
                parts.push(Part::Expression(parsed));
                rest = after;
            } else if letter == '}' {
                return Err(at(text, rest, "a brace closes nothing; write }} for a brace itself"));
            } else {
                literal.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Whether it gives a yes or no.
    pub fn is_test(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Expression(only)] if only.is_test())
    }

    /// Whether it says the same of every record.
    pub fn is_constant(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Literal(_)])
    }

    /// Every place it looks at.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(|part| match part {
            Part::Literal(_) => Vec::new(),
            Part::Expression(expression) => expression.paths(),
        })
    }

    /// The first place, for messages.
    pub fn first_path(&self) -> Option<&Path> {
        self.paths().next()
    }

    /// Whether it may lose digits of what stands at a path that `is` says yes to.
    pub fn rounds(&self, is: impl Fn(&Path) -> bool) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) => false,
            Part::Expression(one) => is(&one.path) && one.functions.iter().any(Function::rounds),
        })
    }

    pub fn value<'t>(&'t self, scope: &Scope<'t>) -> Result<Val<'t>, Trouble> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Ok(Val::Text(Cow::Borrowed(text))),
            [Part::Expression(only)] => only.value(scope),
            parts => joined(parts, scope, false),
        }
    }

    /// Like `value`, for keys: half a key could be another thing's, so that every place must say something.
    pub fn key<'t>(&'t self, scope: &Scope<'t>) -> Result<Val<'t>, Trouble> {
        match self.parts.as_slice() {
            [_] => self.value(scope),
            parts => joined(parts, scope, true),
        }
    }

    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, Trouble> {
        match self.value(scope)? {
            Val::Test(holds) => Ok(holds),
            _ => wrong("is no test".to_owned()),
        }
    }
}

fn joined<'t>(parts: &'t [Part], scope: &Scope<'t>, whole: bool) -> Result<Val<'t>, Trouble> {
    let mut text = String::new();
    let (mut said, mut empty, mut missing) = (false, false, false);
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Expression(expression) => match expression.value(scope)? {
                Val::Text(found) => {
                    said = true;
                    text.push_str(&found);
                }
                Val::Missing => missing = true,
                Val::Empty => empty = true,
                Val::List(_) => return wrong(format!("{} has several values", expression.path)),
                Val::Test(_) => return wrong("a test is no text".to_owned()),
            },
        }
    }
    match (said, empty) {
        (true, _) if whole && (empty || missing) => wrong("a part of the key is missing".to_owned()),
        (true, _) => Ok(Val::Text(Cow::Owned(squeeze(&text)))),
        (false, true) => Ok(Val::Empty),
        (false, false) => Ok(Val::Missing),
    }
}

impl Expression {
    fn parse(text: &str, vocabularies: &[Vocabulary]) -> Result<Self, String> {
        let mut pieces = pieces(text, '|').into_iter();
        let path: Path = pieces.next().unwrap_or_default().trim().parse()?;
        let mut functions: Vec<Function> = Vec::new();
        for piece in pieces {
            let function = function(piece.trim(), vocabularies)?;
            let after_test = functions.last().is_some_and(Function::is_test);
            if after_test != matches!(function, Function::Not) {
                return Err(match after_test {
                    true => "only `not` may follow a test".to_owned(),
                    false => "`not` follows a test".to_owned(),
                });
            }
            functions.push(function);
        }
        if functions.len() > FUNCTIONS_MAX {
            return Err(format!("at most {FUNCTIONS_MAX} functions in a row"));
        }
        Ok(Self { path, functions })
    }

    fn is_test(&self) -> bool {
        self.functions.last().is_some_and(Function::is_test)
    }

    fn paths(&self) -> Vec<&Path> {
        let more = self.functions.iter().filter_map(|function| match function {
            Function::Or(path) | Function::With(_, path) => Some(path),
            _ => None,
        });
        std::iter::once(&self.path).chain(more).collect()
    }

    fn value<'t>(&'t self, scope: &Scope<'t>) -> Result<Val<'t>, Trouble> {
        let mut value = scope.find(&self.path)?;
        for function in &self.functions {
            value = function.apply(value, scope).map_err(|trouble| match trouble {
                Trouble::Wrong(detail) => Trouble::Wrong(format!("{}: {detail}", self.path)),
                word => word,
            })?;
        }
        Ok(value)
    }
}

/// `name` or `name('text', path)`.
fn function(text: &str, vocabularies: &[Vocabulary]) -> Result<Function, String> {
    let Some((name, rest)) = text.split_once('(') else {
        return Function::named(text, Vec::new(), vocabularies);
    };
    let inside = rest.strip_suffix(')').ok_or_else(|| format!("{text:?} lacks its )"))?;
    let mut arguments = Vec::new();
    for piece in pieces(inside, ',') {
        let piece = piece.trim();
        arguments.push(match piece.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(text) => Argument::Text(text.replace("''", "'")),
            None => Argument::Path(piece.parse()?),
        });
    }
    Function::named(name.trim(), arguments, vocabularies)
}

/// The text up to the brace that closes, and what follows it; braces in quotes do not count.
fn expression(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (index, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '}' if !quoted => return Some((&text[..index], &text[index + 1..])),
            _ => {}
        }
    }
    None
}

/// Splits where `sign` stands outside quotes.
fn pieces(text: &str, sign: char) -> Vec<&str> {
    let (mut pieces, mut quoted, mut begun) = (Vec::new(), false, 0);
    for (index, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            letter if letter == sign && !quoted => {
                pieces.push(&text[begun..index]);
                begun = index + letter.len_utf8();
            }
            _ => {}
        }
    }
    pieces.push(&text[begun..]);
    pieces
}

fn at(whole: &str, rest: &str, detail: &str) -> String {
    let before = &whole[..whole.len() - rest.len()];
    format!("at character {} of the template: {detail}", before.chars().count() + 1)
}

const TEMPLATE_MAX: usize = 1024;
const FUNCTIONS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::sync::Arc;

    use super::*;
    use crate::mediation::figure::north_america;
    use crate::mediation::function::Customs;
    use crate::mediation::tree::Tree;
    use crate::vocabulary::Zone;

    fn customs() -> Customs {
        let words = HashMap::from([("live".to_owned(), "active".to_owned())]);
        Customs {
            vocabularies: vec![Vocabulary { name: "status".to_owned(), words }],
            phone: north_america(),
            zone: Zone::UTC,
            terms: BTreeMap::from([("usage".to_owned(), "Extra traffic".to_owned())]),
            nothing: HashSet::from(["NULL".to_owned()]),
            decimal: ',',
        }
    }

    fn record() -> Tree {
        let text = |text: &str| Tree::Text(text.to_owned());
        Tree::Map(
            [
                ("first", text("Jane")),
                ("last", text("NULL")),
                ("state", text("live")),
                ("odd", text("weird")),
                ("macs", text("02:00:5E:10:20:31, 0200.5e10.2032")),
                ("price", text("1,029.95")),
                ("kind", text("usage")),
                ("day", text("11/01/2026")),
                ("set", text("1, 3")),
                ("quote", text("it's")),
            ]
            .into_iter()
            .map(|(name, tree)| (Arc::from(name), tree))
            .collect(),
        )
    }

    fn value(template: &str) -> Result<String, String> {
        let (customs, record) = (customs(), record());
        let template = Template::parse(template, &customs.vocabularies)?;
        let scope = Scope { record: &record, item: &record, customs: &customs };
        match template.value(&scope) {
            Ok(Val::Text(text)) => Ok(text.into_owned()),
            Ok(Val::List(texts)) => Ok(texts.join(" + ")),
            Ok(Val::Test(holds)) => Ok(holds.to_string()),
            Ok(Val::Missing) => Ok("<missing>".to_owned()),
            Ok(Val::Empty) => Ok("<empty>".to_owned()),
            Err(trouble) => Err(format!("{trouble:?}")),
        }
    }

    #[test]
    fn templates_give_texts_lists_and_tests() {
        for (template, given) in [
            ("plain {{x}}", "plain {x}"),
            ("{first} {last}", "Jane"),
            ("{last}", "<empty>"),
            ("{nobody}", "<missing>"),
            ("{last} {nobody}", "<empty>"),
            ("{last|default('Doe')}", "Doe"),
            ("{last|or(first)|upper}", "JANE"),
            ("{first|with(' & ',state)}", "Jane & live"),
            ("{state|vocab('status')}", "active"),
            ("{macs|split(',')|mac}", "02:00:5e:10:20:31 + 02:00:5e:10:20:32"),
            ("{macs|split(',')|last|mac}", "02:00:5e:10:20:32"),
            ("{macs|split(',')|count}", "2"),
            ("{price|decimal}", "1029.95"),
            ("{price|decimal|number('3')}", "1029,950"),
            ("{kind|term}", "Extra traffic"),
            ("{day|date('MM/DD/YYYY')}", "2026-11-01"),
            ("{day|instant('MM/DD/YYYY')|unix}", "1793491200"),
            ("{set|has('3')}", "true"),
            ("{set|has('2')}", "false"),
            ("{first|like('^J')|not}", "false"),
            ("{nobody|present}", "false"),
            ("{nobody|ne('x')}", "true"),
            ("{quote|eq('it''s')}", "true"),
            ("{first|match('^(.)')}", "J"),
            ("{first|pad('.','6')}", "..Jane"),
            ("{first|slice('1','2')}", "an"),
            ("{first|flag('Jane','John')}", "true"),
        ] {
            assert_eq!(value(template).as_deref(), Ok(given), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_trouble() {
        for (template, words) in [
            ("{odd|vocab('status')}", "weird"),
            ("{last|required}", "is empty"),
            ("{nobody|required}", "is missing"),
            ("{odd|int}", "no whole number"),
            ("{macs|split(',')} x", "several values"),
            ("{odd|term}", "terms"),
        ] {
            let refused = value(template).expect_err(template);
            assert!(refused.contains(words), "{template}: {refused}");
        }
    }

    #[test]
    fn a_template_with_a_mistake_names_its_place() {
        for (template, words) in [
            ("ab{first", "at character 3"),
            ("}", "closes nothing"),
            ("{}", "empty step"),
            ("{first|frobnicate}", "no function frobnicate"),
            ("{first|vocab('x')}", "no [vocab.x]"),
            ("{first|present|lower}", "may follow a test"),
            ("{first|not}", "follows a test"),
            ("{first|like('(')}", "no pattern"),
            ("{first|like('\\w{1000}{100}')}", "no pattern"),
            ("{first|date('DD')}", "no year"),
            ("{first|times('0')}", "not zero"),
            ("{first|lower(}", "lacks its )"),
        ] {
            let refused = value(template).expect_err(template);
            assert!(refused.contains(words), "{template}: {refused}");
        }
    }

    #[test]
    fn half_a_key_is_no_key() {
        let (customs, record) = (customs(), record());
        let scope = Scope { record: &record, item: &record, customs: &customs };
        let key = |text: &str| Template::parse(text, &customs.vocabularies).expect(text).key(&scope).map(|_| ());
        assert_eq!(key("{first}-{state}"), Ok(()));
        assert!(key("{first}-{last}").is_err());
    }
}

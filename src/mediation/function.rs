//! The closed set of functions of a profile's templates: each is total, ends, and either gives a value or says why not.
//!
//! In: a text, a list of texts, or nothing. A function of a text is applied to every text of a list; nothing stays
//! nothing unless a function says otherwise. No function loops, reads the clock or remembers anything.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use regex_lite::{Regex, RegexBuilder};

use super::figure::{self, PhonePlan, shown};
use super::moment::Pattern;
use super::tree::{Found, Path, Tree};
use crate::vocabulary::{Exact, MacAddress, Zone, parse_instant};

/// What a template or function gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Val<'t> {
    /// The record has no such place.
    Missing,
    /// The place is there and says nothing.
    Empty,
    Text(Cow<'t, str>),
    List(Vec<Cow<'t, str>>),
    Test(bool),
}

/// Why a record has no answer here. The record is put aside; nothing is guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A vocabulary has no meaning for a word.
    Word {
        vocabulary: String,
        word: String,
    },
    Wrong(String),
}

/// The words and customs of a source that functions work with.
#[derive(Debug, Clone)]
pub struct Customs {
    pub vocabularies: Vec<Vocabulary>,
    pub phone: PhonePlan,
    /// Whose clock a date without an offset is on; on the way out, whose clock is written.
    pub zone: Zone,
    /// The source's words for our kinds of things.
    pub terms: BTreeMap<String, String>,
    /// Texts that say nothing: `NULL`, `0000-00-00`.
    pub nothing: HashSet<String>,
    /// The decimal sign on the way out.
    pub decimal: char,
}

/// Words of the source and what they mean here. A word that is not listed means nothing.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    pub name: String,
    pub words: HashMap<String, String>,
}

/// What a template is evaluated against.
#[derive(Clone, Copy)]
pub struct Scope<'t> {
    pub record: &'t Tree,
    /// The item of a repeated section; elsewhere the record.
    pub item: &'t Tree,
    pub customs: &'t Customs,
}

impl<'t> Scope<'t> {
    pub fn find(&self, path: &Path) -> Result<Val<'t>, Trouble> {
        Ok(match path.find(self.record, self.item, &self.customs.nothing) {
            Found::Missing => Val::Missing,
            Found::Empty => Val::Empty,
            Found::One(text) => Val::Text(Cow::Borrowed(text)),
            Found::Many(texts) => Val::List(texts.into_iter().map(Cow::Borrowed).collect()),
            Found::Conflict => return wrong(format!("the rows of this record do not agree on {path}")),
            Found::Branch => return wrong(format!("{path} is no text but has parts")),
        })
    }
}

/// One function with its arguments.
#[derive(Debug, Clone)]
pub enum Function {
    Trim,
    Lower,
    Upper,
    Squeeze,
    Digits,
    Replace(String, String),
    Before(String),
    After(String),
    Slice(usize, usize),
    Pad(char, usize),
    Match(Regex),
    Int,
    Decimal(char),
    Times(Exact),
    Places(u32),
    Date(Pattern),
    Instant(Pattern),
    Unix,
    Mac,
    MacPlus(u32),
    Phone,
    Zip,
    Vocab(usize),
    YesNo(String, String),
    Number(u32),
    Rounded(u32),
    Format(Pattern),
    Term,
    Default(String),
    Or(Path),
    With(String, Path),
    Required,
    Split(String),
    Join(String),
    First,
    Last,
    /// From 0.
    Nth(usize),
    Pick(Regex),
    Count,
    Is(Test),
    Not,
}

/// A question to a value.
#[derive(Debug, Clone)]
pub enum Test {
    Present,
    Eq(String),
    Ne(String),
    OneOf(Vec<String>),
    /// One of the words of a list, or of a text with commas.
    Has(String),
    Like(Regex),
}

/// An argument as it stands in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    Path(Path),
}

/// Every function with what it takes, for messages and the manual.
pub const NAMES: &str = "trim, lower, upper, squeeze, digits, replace('a','b'), before('x'), after('x'), \
    slice('start','length'), pad('0','width'), match('regex'), int, decimal('.'), times('n'), over('n'), places('n'), \
    date('MM/DD/YYYY'), instant('…'), unix, mac, mac_plus('n'), phone, zip, vocab('name'), flag('yes','no'), \
    number('places'), rounded('places'), format('…'), term, default('x'), or(path), with('-',path), required, \
    split(','), join(','), first, last, nth('2'), pick('regex'), count, present, eq('x'), ne('x'), one_of('a','b'), \
    has('x'), like('regex'), not";

impl Function {
    /// The function of a name; `vocabularies` are the names known, in order.
    pub fn named(name: &str, arguments: Vec<Argument>, vocabularies: &[Vocabulary]) -> Result<Self, String> {
        let mut texts = Vec::new();
        let mut paths = Vec::new();
        for argument in arguments {
            match argument {
                Argument::Text(text) => texts.push(text),
                Argument::Path(path) => paths.push(path),
            }
        }
        let count = (texts.len(), paths.len());
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap_or_default();
        let function = match (name, count) {
            ("trim", (0, 0)) => Self::Trim,
            ("lower", (0, 0)) => Self::Lower,
            ("upper", (0, 0)) => Self::Upper,
            ("squeeze", (0, 0)) => Self::Squeeze,
            ("digits", (0, 0)) => Self::Digits,
            ("replace", (2, 0)) => Self::Replace(filled(text())?, text()),
            ("before", (1, 0)) => Self::Before(filled(text())?),
            ("after", (1, 0)) => Self::After(filled(text())?),
            ("slice", (2, 0)) => Self::Slice(small(&text(), 100_000)?, small(&text(), 100_000)?),
            ("pad", (2, 0)) => Self::Pad(sign(&text())?, small(&text(), 256)?),
            ("match", (1, 0)) => Self::Match(pattern(&text())?),
            ("int", (0, 0)) => Self::Int,
            ("decimal", (0, 0)) => Self::Decimal('.'),
            ("decimal", (1, 0)) => Self::Decimal(point(&text())?),
            ("times", (1, 0)) => Self::Times(factor(&text())?),
            ("over", (1, 0)) => {
                let over = Exact::ONE.checked_div(factor(&text())?);
                Self::Times(over.map_err(|error| error.to_string())?)
            }
            ("places", (1, 0)) => Self::Places(places(&text())?),
            ("date", (1, 0)) => Self::Date(Pattern::parse(&text())?),
            ("instant", (1, 0)) => Self::Instant(Pattern::parse(&text())?),
            ("unix", (0, 0)) => Self::Unix,
            ("mac", (0, 0)) => Self::Mac,
            ("mac_plus", (1, 0)) => Self::MacPlus(small(&text(), 255)? as u32),
            ("phone", (0, 0)) => Self::Phone,
            ("zip", (0, 0)) => Self::Zip,
            ("vocab", (1, 0)) => {
                let name = text();
                let index = vocabularies.iter().position(|vocabulary| vocabulary.name == name);
                Self::Vocab(index.ok_or_else(|| format!("there is no [vocab.{name}]"))?)
            }
            ("flag", (2, 0)) => Self::YesNo(filled(text())?, text()),
            ("number", (1, 0)) => Self::Number(places(&text())?),
            ("rounded", (1, 0)) => Self::Rounded(places(&text())?),
            ("format", (1, 0)) => Self::Format(Pattern::parse_any(&text())?),
            ("term", (0, 0)) => Self::Term,
            ("default", (1, 0)) => Self::Default(filled(text())?),
            ("or", (0, 1)) => Self::Or(paths.remove(0)),
            ("with", (1, 1)) => Self::With(text(), paths.remove(0)),
            ("required", (0, 0)) => Self::Required,
            ("split", (1, 0)) => Self::Split(filled(text())?),
            ("join", (1, 0)) => Self::Join(text()),
            ("first", (0, 0)) => Self::First,
            ("last", (0, 0)) => Self::Last,
            ("nth", (1, 0)) => Self::Nth(small(&text(), 1_000)?.checked_sub(1).ok_or("nth counts from 1")?),
            ("pick", (1, 0)) => Self::Pick(pattern(&text())?),
            ("count", (0, 0)) => Self::Count,
            ("present", (0, 0)) => Self::Is(Test::Present),
            ("eq", (1, 0)) => Self::Is(Test::Eq(text())),
            ("ne", (1, 0)) => Self::Is(Test::Ne(text())),
            ("one_of", (1.., 0)) => Self::Is(Test::OneOf(texts.collect())),
            ("has", (1, 0)) => Self::Is(Test::Has(text())),
            ("like", (1, 0)) => Self::Is(Test::Like(pattern(&text())?)),
            ("not", (0, 0)) => Self::Not,
            _ => return Err(format!("there is no function {name} with such arguments; there are {NAMES}")),
        };
        Ok(function)
    }

    /// Whether it gives a test, which only another test may follow.
    pub fn is_test(&self) -> bool {
        matches!(self, Self::Is(_) | Self::Not)
    }

    /// Whether digits can be lost.
    pub fn rounds(&self) -> bool {
        matches!(self, Self::Rounded(_))
    }

    pub fn apply<'t>(&self, value: Val<'t>, scope: &Scope<'t>) -> Result<Val<'t>, Trouble> {
        Ok(match self {
            Self::Is(test) => Val::Test(test.holds(&value)?),
            Self::Not => match value {
                Val::Test(holds) => Val::Test(!holds),
                _ => return wrong("`not` follows a test".to_owned()),
            },
            Self::Default(text) => match value {
                Val::Missing | Val::Empty => Val::Text(Cow::Owned(text.clone())),
                other => other,
            },
            Self::Or(path) => match value {
                Val::Missing | Val::Empty => scope.find(path)?,
                other => other,
            },
            Self::With(between, path) => match (value, scope.find(path)?) {
                (Val::Text(text), Val::Text(more)) => Val::Text(Cow::Owned(format!("{text}{between}{more}"))),
                (Val::Missing | Val::Empty, found) => found,
                (found, _) => found,
            },
            Self::Required => match value {
                Val::Missing => return wrong("is missing".to_owned()),
                Val::Empty => return wrong("is empty".to_owned()),
                other => other,
            },
            Self::Split(sign) => match value {
                Val::Text(text) => {
                    let parts = text.split(sign.as_str()).map(str::trim).filter(|part| !part.is_empty());
                    let parts: Vec<Cow<'t, str>> = parts.map(|part| Cow::Owned(part.to_owned())).collect();
                    listed(parts)
                }
                other => other,
            },
            Self::Join(between) => match value {
                Val::List(texts) => Val::Text(Cow::Owned(texts.join(between))),
                other => other,
            },
            Self::First => match value {
                Val::List(texts) => texts.into_iter().next().map_or(Val::Empty, Val::Text),
                other => other,
            },
            Self::Last => match value {
                Val::List(texts) => texts.into_iter().next_back().map_or(Val::Empty, Val::Text),
                other => other,
            },
            Self::Nth(index) => match value {
                Val::List(texts) => texts.into_iter().nth(*index).map_or(Val::Missing, Val::Text),
                Val::Text(_) if *index > 0 => Val::Missing,
                other => other,
            },
            Self::Pick(regex) => match value {
                Val::Text(text) if regex.is_match(&text) => Val::Text(text),
                Val::Text(_) => Val::Empty,
                Val::List(texts) => listed(texts.into_iter().filter(|text| regex.is_match(text)).collect()),
                other => other,
            },
            Self::Count => {
                let count = match &value {
                    Val::List(texts) => texts.len(),
                    Val::Text(_) => 1,
                    _ => 0,
                };
                Val::Text(Cow::Owned(count.to_string()))
            }
            of_text => match value {
                Val::Text(text) => match of_text.text(text, scope.customs)? {
                    text if text.is_empty() => Val::Empty,
                    text => Val::Text(text),
                },
                Val::List(texts) => {
                    let mut changed = Vec::with_capacity(texts.len());
                    for text in texts {
                        let text = of_text.text(text, scope.customs)?;
                        if !text.is_empty() {
                            changed.push(text);
                        }
                    }
                    listed(changed)
                }
                other => other,
            },
        })
    }

    fn text<'t>(&self, text: Cow<'t, str>, customs: &Customs) -> Result<Cow<'t, str>, Trouble> {
        let owned = |result: Result<String, String>| result.map(Cow::Owned).map_err(Trouble::Wrong);
        match self {
            Self::Trim => match text {
                Cow::Borrowed(text) => Ok(Cow::Borrowed(text.trim())),
                Cow::Owned(text) => Ok(Cow::Owned(text.trim().to_owned())),
            },
            Self::Lower => Ok(Cow::Owned(text.to_lowercase())),
            Self::Upper => Ok(Cow::Owned(text.to_uppercase())),
            Self::Squeeze => Ok(Cow::Owned(squeeze(&text))),
            Self::Digits => Ok(Cow::Owned(text.chars().filter(char::is_ascii_digit).collect())),
            Self::Replace(from, to) => {
                // Bounded: every letter may become a longer text.
                if text.matches(from.as_str()).count().saturating_mul(to.len()) > TEXT_MAX {
                    return wrong("grows too long by replacing".to_owned());
                }
                Ok(Cow::Owned(text.replace(from.as_str(), to)))
            }
            Self::Before(sign) => Ok(Cow::Owned(text.split(sign.as_str()).next().unwrap_or_default().to_owned())),
            Self::After(sign) => {
                Ok(Cow::Owned(text.split_once(sign.as_str()).map_or(String::new(), |(_, after)| after.to_owned())))
            }
            Self::Slice(start, length) => Ok(Cow::Owned(text.chars().skip(*start).take(*length).collect())),
            Self::Pad(with, width) => {
                let lacking = width.saturating_sub(text.chars().count());
                Ok(Cow::Owned(std::iter::repeat_n(*with, lacking).chain(text.chars()).collect()))
            }
            Self::Match(regex) => {
                let found = regex.captures(&text);
                let found = found.as_ref().and_then(|found| found.get(1).or_else(|| found.get(0)));
                Ok(Cow::Owned(found.map_or(String::new(), |found| found.as_str().to_owned())))
            }
            Self::Int => owned(figure::whole(&text)),
            Self::Decimal(point) => owned(figure::decimal(&text, *point)),
            Self::Times(factor) => owned(figure::times(&text, *factor)),
            Self::Places(places) => owned(figure::places(&text, *places, false)),
            Self::Date(pattern) => owned(pattern.date(&text).map(|date| date.to_string())),
            Self::Instant(pattern) => owned(pattern.instant(&text, &customs.zone).map(|instant| instant.to_string())),
            Self::Unix => match parse_instant(text.trim()) {
                Some(instant) => Ok(Cow::Owned(instant.as_second().to_string())),
                None => wrong(format!("{:?} is no instant", shown(&text))),
            },
            Self::Mac => {
                let mac: Result<MacAddress, _> = text.parse();
                owned(mac.map(|mac| mac.to_string()).map_err(|error| error.to_string()))
            }
            Self::MacPlus(steps) => owned(figure::mac_plus(&text, *steps)),
            Self::Phone => owned(figure::phone(&text, &customs.phone)),
            Self::Zip => owned(figure::zip(&text)),
            Self::Vocab(index) => {
                let vocabulary = &customs.vocabularies[*index];
                match vocabulary.words.get(text.trim()) {
                    Some(meaning) => Ok(Cow::Owned(meaning.clone())),
                    None => Err(Trouble::Word { vocabulary: vocabulary.name.clone(), word: shown(text.trim()) }),
                }
            }
            Self::YesNo(yes, no) => match text.trim() {
                word if word == yes => Ok(Cow::Borrowed("true")),
                word if word == no => Ok(Cow::Borrowed("false")),
                word => wrong(format!("{:?} is neither {yes:?} nor {no:?}", shown(word))),
            },
            Self::Number(places) | Self::Rounded(places) => {
                let number = figure::places(&text, *places, self.rounds());
                let number = number.map_err(Trouble::Wrong)?;
                Ok(Cow::Owned(match customs.decimal {
                    '.' => number,
                    sign => number.replace('.', sign.encode_utf8(&mut [0; 4])),
                }))
            }
            Self::Format(pattern) => {
                let instant = parse_instant(text.trim()).or_else(|| {
                    let day: crate::vocabulary::Date = text.trim().parse().ok()?;
                    Some(day.to_zoned(customs.zone.clone()).ok()?.timestamp())
                });
                match instant {
                    Some(instant) => Ok(Cow::Owned(pattern.write(instant, &customs.zone))),
                    None => wrong(format!("{:?} is no instant and no date", shown(&text))),
                }
            }
            Self::Term => match customs.terms.get(text.as_ref()) {
                Some(word) => Ok(Cow::Owned(word.clone())),
                None => Err(Trouble::Word { vocabulary: "terms".to_owned(), word: shown(&text) }),
            },
            _ => Ok(text),
        }
    }
}

impl Test {
    fn holds(&self, value: &Val<'_>) -> Result<bool, Trouble> {
        let text = match value {
            Val::Test(_) => return wrong("a test of a test".to_owned()),
            Val::Missing | Val::Empty => return Ok(matches!(self, Test::Ne(_))),
            Val::List(texts) => {
                return match self {
                    Test::Present => Ok(true),
                    Test::Has(word) => Ok(texts.iter().any(|text| *text == word.as_str())),
                    Test::Like(regex) => Ok(texts.iter().any(|text| regex.is_match(text))),
                    _ => wrong("has several values".to_owned()),
                };
            }
            Val::Text(text) => text,
        };
        Ok(match self {
            Test::Present => true,
            Test::Eq(word) => text == word,
            Test::Ne(word) => text != word,
            Test::OneOf(words) => words.iter().any(|word| text == word),
            Test::Has(word) => text.split(',').any(|part| part.trim() == word),
            Test::Like(regex) => regex.is_match(text),
        })
    }
}

/// A regular expression that costs no more than its text is long.
pub fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > PATTERN_MAX {
        return Err(format!("a pattern has at most {PATTERN_MAX} octets"));
    }
    let built = RegexBuilder::new(text).size_limit(PROGRAM_MAX).nest_limit(20).build();
    built.map_err(|error| format!("{text:?} is no pattern: {}", error.to_string().replace('\n', " ")))
}

pub fn squeeze(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut squeezed = String::with_capacity(text.len());
    squeezed.push_str(words.next().unwrap_or_default());
    for word in words {
        squeezed.push(' ');
        squeezed.push_str(word);
    }
    squeezed
}

pub fn wrong<T>(detail: String) -> Result<T, Trouble> {
    Err(Trouble::Wrong(detail))
}

fn listed<'t>(mut texts: Vec<Cow<'t, str>>) -> Val<'t> {
    match texts.len() {
        0 => Val::Empty,
        1 => Val::Text(texts.remove(0)),
        _ => Val::List(texts),
    }
}

fn filled(text: String) -> Result<String, String> {
    if text.is_empty() { Err("an argument is empty".to_owned()) } else { Ok(text) }
}

fn small(text: &str, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| format!("{text:?} is no whole number from 0 to {most}"))
}

fn places(text: &str) -> Result<u32, String> {
    small(text, 12).map(|places| places as u32)
}

fn sign(text: &str) -> Result<char, String> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(letter),
        _ => Err(format!("{text:?} is not one sign")),
    }
}

fn point(text: &str) -> Result<char, String> {
    match sign(text)? {
        sign @ ('.' | ',') => Ok(sign),
        other => Err(format!("the decimal sign is '.' or ',', not {other:?}")),
    }
}

fn factor(text: &str) -> Result<Exact, String> {
    let exact: Exact = text.parse().map_err(|error: crate::vocabulary::ExactError| error.to_string())?;
    if exact.is_zero() {
        return Err("a factor is not zero".to_owned());
    }
    Ok(exact)
}

const TEXT_MAX: usize = 1 << 20;
const PATTERN_MAX: usize = 200;
const PROGRAM_MAX: usize = 1 << 18;

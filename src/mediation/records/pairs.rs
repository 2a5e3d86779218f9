//! One record out of names and values: a form (`application/x-www-form-urlencoded`) or a process environment.

use std::sync::Arc;

use super::{Encoding, MEMBERS_MAX, decode, shown};
use crate::mediation::tree::Tree;

/// A form. A name that comes several times is a list.
///
/// **Source**: WHATWG URL s5.1: `+` is a blank, `%` begins two hexadecimal digits.
pub fn form(octets: &[u8], encoding: Encoding) -> Result<Tree, String> {
    let octets = octets.strip_suffix(b"\n").unwrap_or(octets);
    let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
    let mut members: Vec<(Arc<str>, Tree)> = Vec::new();
    for (index, pair) in octets.split(|octet| *octet == b'&').filter(|pair| !pair.is_empty()).enumerate() {
        bounded(index)?;
        let (name, value) = match pair.iter().position(|octet| *octet == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        let name = unescaped(name, encoding)?;
        let value = unescaped(value, encoding).map_err(|detail| format!("{:?} {detail}", shown(&name)))?;
        if name.is_empty() {
            return Err("a value has no name".to_owned());
        }
        Tree::add(&mut members, Arc::from(name), Tree::Text(value));
    }
    some(members)
}

fn unescaped(octets: &[u8], encoding: Encoding) -> Result<String, String> {
    let mut plain = Vec::with_capacity(octets.len());
    let mut rest = octets;
    while let [octet, after @ ..] = rest {
        rest = after;
        match octet {
            b'+' => plain.push(b' '),
            b'%' => {
                let digit = |at: usize| rest.get(at).and_then(|octet| char::from(*octet).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    return Err("has a % without two hexadecimal digits".to_owned());
                };
                plain.push((high * 16 + low) as u8);
                rest = &rest[2..];
            }
            other => plain.push(*other),
        }
    }
    decode(&plain, encoding)
}

/// An environment: `NAME=value`, ended by zero octets (`env -0`, so that a value may have lines) or else by lines.
pub fn environment(octets: &[u8], encoding: Encoding) -> Result<Tree, String> {
    let end = if octets.contains(&0) { 0 } else { b'\n' };
    let mut members: Vec<(Arc<str>, Tree)> = Vec::new();
    for (index, pair) in octets.split(|octet| *octet == end).enumerate() {
        bounded(index)?;
        let pair = if end == b'\n' { pair.strip_suffix(b"\r").unwrap_or(pair) } else { pair };
        if pair.is_empty() {
            continue;
        }
        let text = decode(pair, encoding).map_err(|detail| format!("entry {}: {detail}", index + 1))?;
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("entry {} is no NAME=value", index + 1));
        };
        if members.iter().any(|(known, _)| **known == *name) {
            return Err(format!("{:?} is set twice", shown(name)));
        }
        members.push((Arc::from(name), Tree::Text(value.to_owned())));
    }
    some(members)
}

fn bounded(index: usize) -> Result<(), String> {
    match index < MEMBERS_MAX {
        true => Ok(()),
        false => Err(format!("there are more than {MEMBERS_MAX} values")),
    }
}

fn some(members: Vec<(Arc<str>, Tree)>) -> Result<Tree, String> {
    if members.is_empty() { Err("there is nothing".to_owned()) } else { Ok(Tree::Map(members)) }
}

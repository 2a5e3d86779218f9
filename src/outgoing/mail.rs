//! A mail as it goes over the wire: headers that hold nothing they should not, a text in UTF-8 as base64.
//!
//! **Source**: RFC 5322 (message), RFC 2047 (words that are not ASCII), RFC 2045 (base64 in lines of 76), RFC 3834
//! (`Auto-Submitted`, so that no holiday answer comes back).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::vocabulary::Timestamp;

/// A mail address and a name. **Shape**: `noc@isp.example` or `Acme NOC <noc@isp.example>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be a mail address like noc@isp.example, with a name or without")]
pub struct MailboxError;

const ADDRESS_MAX: usize = 254;
/// Octets of a text in one encoded word: RFC 2047 allows 75 characters with what stands around it.
const WORD_OCTETS: usize = 42;
const LINE_OCTETS: usize = 57;

impl std::str::FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, MailboxError> {
        let (name, address) = match text.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
            Some((name, address)) => (Some(name.trim().trim_matches('"')).filter(|name| !name.is_empty()), address),
            None => (None, text.trim()),
        };
        let (local, domain) = address.rsplit_once('@').ok_or(MailboxError)?;
        let plain = |letter: char| {
            letter.is_ascii_graphic() && !matches!(letter, '<' | '>' | '"' | ',' | ';' | ':' | '\\' | '(' | ')')
        };
        let good = !local.is_empty()
            && !domain.is_empty()
            && !local.contains('@')
            && address.len() <= ADDRESS_MAX
            && address.chars().all(plain)
            && !name.is_some_and(|name| name.chars().any(char::is_control));
        if !good {
            return Err(MailboxError);
        }
        Ok(Self { name: name.map(str::to_owned), address: address.to_owned() })
    }
}

impl Mailbox {
    fn header(&self) -> String {
        match &self.name {
            Some(name) => format!("{} <{}>", words(name), self.address),
            None => self.address.clone(),
        }
    }
}

/// What a mail says.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    pub from: &'a Mailbox,
    pub to: &'a Mailbox,
    pub subject: &'a str,
    pub text: &'a str,
    /// Names the mail: the same when it is sent again.
    pub id: &'a str,
    pub at: Timestamp,
}

/// The message, with CRLF; no line of it begins with a dot.
pub fn message(mail: &Mail<'_>) -> String {
    let domain = mail.from.address.rsplit('@').next().unwrap_or("localhost");
    let date = mail.at.strftime("%a, %d %b %Y %H:%M:%S +0000");
    let mut text = format!(
        "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{}@{domain}>\r\nAuto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        mail.from.header(),
        mail.to.header(),
        words(mail.subject),
        mail.id,
    );
    for line in mail.text.replace('\n', "\r\n").into_bytes().chunks(LINE_OCTETS) {
        text.push_str(&STANDARD.encode(line));
        text.push_str("\r\n");
    }
    text
}

/// A text of a header; what is not plain ASCII, or longer than a line, as encoded words.
fn words(text: &str) -> String {
    let plain = |letter: char| {
        letter == ' ' || letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | '/' | '%' | ':')
    };
    if text.len() <= 60 && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for letter in text.chars() {
        if word.len() + letter.len_utf8() > WORD_OCTETS {
            words.push(std::mem::take(&mut word));
        }
        word.push(letter);
    }
    words.push(word);
    let encoded: Vec<String> = words.iter().map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word))).collect();
    encoded.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_nothing_that_ends_a_command() {
        let read = |text: &str| text.parse::<Mailbox>().map(|mailbox| (mailbox.name, mailbox.address));
        assert_eq!(read("noc@isp.example"), Ok((None, "noc@isp.example".to_owned())));
        assert_eq!(read("Acme NOC <noc@isp.example>"), Ok((Some("Acme NOC".to_owned()), "noc@isp.example".to_owned())));
        for wrong in ["", "noc", "@isp", "a@", "a b@c", "a@b>\r\nRCPT TO:<x@y", "ä@b", "a@b@c", "a@b,c@d"] {
            assert_eq!(read(wrong), Err(MailboxError), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_ascii_in_short_lines_and_says_what_it_was_given() {
        let (from, to) = ("Größe <noc@isp.example>".parse().expect("one"), "ada@example.net".parse().expect("one"));
        let text = format!("Grüße\n.\n{}", "x".repeat(500));
        let subject = "Datenverbrauch: 80 % Ihres Tarifs — eine lange Zeile mit Umlauten äöü und noch mehr Text darin";
        let at = "2026-11-20T10:00:00Z".parse().expect("an instant");
        let message = message(&Mail { from: &from, to: &to, subject, text: &text, id: "acme.7.mail", at });
        assert!(message.is_ascii());
        assert!(
            message
                .split("\r\n")
                .all(|line| line.len() <= 78 && !line.starts_with('.') && !line.contains(['\r', '\n']))
        );
        assert!(message.contains("Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <acme.7.mail@isp.example>\r\n"));
        let (head, body) = message.split_once("\r\n\r\n").expect("a body");
        let decoded = STANDARD.decode(body.replace("\r\n", "")).expect("base64");
        assert_eq!(String::from_utf8(decoded).expect("UTF-8"), text.replace('\n', "\r\n"));
        let unfolded: String = head
            .split("\r\n")
            .skip_while(|line| !line.starts_with("Subject: "))
            .take_while(|line| !line.starts_with("Date"))
            .flat_map(|line| line.split("=?UTF-8?B?").skip(1))
            .map(|word| {
                String::from_utf8(STANDARD.decode(word.trim_end_matches("?=")).expect("base64")).expect("UTF-8")
            })
            .collect();
        assert_eq!(unfolded, subject);
    }
}

//! Whether a telephone line is in a call, as far as a model's own MIB tells: there is no standard object for it.

use std::str::FromStr;

use super::snmp::{Oid, row};

/// Which object of which models tells a line's state (`[[reset.line_status]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineStatus {
    pub model: ModelPattern,
    /// A table column; a line's ifIndex follows it.
    pub column: Vec<u32>,
    /// Values at which the line is not in use.
    pub idle: Vec<i64>,
}

/// The beginning of a model's name, or all of it; without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPattern {
    text: String,
    open: bool,
}

/// What is known of a device's lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lines {
    Idle,
    Busy,
    Unreadable(String),
}

/// ifIndex of the first line of a PacketCable 1.5 MTA; the others follow.
const FIRST_LINE: u32 = 9;
/// Lines looked at.
const MOST_LINES: u32 = 4;

impl LineStatus {
    /// The objects to read, one a line.
    pub fn objects(&self) -> Vec<Oid> {
        (FIRST_LINE..FIRST_LINE + MOST_LINES).map(|line| row(&self.column, &[line])).collect()
    }

    /// Judges what was read; a line that is not there is `None`.
    pub fn judge(&self, values: &[Option<i64>]) -> Lines {
        let mut read = values.iter().flatten().peekable();
        if read.peek().is_none() {
            return Lines::Unreadable("the modem has no such object".to_owned());
        }
        if read.all(|value| self.idle.contains(value)) { Lines::Idle } else { Lines::Busy }
    }
}

impl ModelPattern {
    pub fn holds(&self, model: &str) -> bool {
        let model = model.to_ascii_lowercase();
        if self.open { model.starts_with(&self.text) } else { model == self.text }
    }
}

impl FromStr for ModelPattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (begin, open) = text.strip_suffix('*').map_or((text, false), |begin| (begin, true));
        Ok(Self { text: begin.to_ascii_lowercase(), open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_use_is_a_call_and_no_answer_is_none() {
        let status =
            LineStatus { model: "arris*".parse().expect("a pattern"), column: vec![1, 3, 6, 1], idle: vec![1, 4] };
        assert_eq!(status.judge(&[Some(1), Some(4), None, None]), Lines::Idle);
        assert_eq!(status.judge(&[Some(1), Some(2), None, None]), Lines::Busy);
        assert!(matches!(status.judge(&[None, None]), Lines::Unreadable(_)));
        assert_eq!(status.objects()[1].to_string(), "1.3.6.1.10");
        assert!(status.model.holds("ARRIS-TM3402") && !status.model.holds("Ubee"));
        assert!("".parse::<ModelPattern>().expect("a pattern").holds(""));
    }
}

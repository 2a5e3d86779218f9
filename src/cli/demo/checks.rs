//! What the demo checked, step by step: printed as it happens, kept for `--json`, and the verdict at the end.

use serde::Serialize;

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub struct Check {
    pub step: String,
    pub what: String,
    pub expected: String,
    pub found: String,
    pub ok: bool,
}

/// All checks so far.
pub struct Checks {
    quiet: bool,
    step: String,
    number: u32,
    pub list: Vec<Check>,
}

impl Checks {
    /// `quiet`: only the list is wanted.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, step: String::new(), number: 0, list: Vec::new() }
    }

    /// A new step begins.
    pub fn step(&mut self, title: &str) {
        self.number += 1;
        title.clone_into(&mut self.step);
        self.say(&format!("\n{}. {title}", self.number));
    }

    /// Tells something that needs no check.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    /// Notes a comparison.
    pub fn equal(&mut self, what: &str, expected: impl ToString, found: impl ToString) {
        let (expected, found) = (expected.to_string(), found.to_string());
        let ok = expected == found;
        if ok {
            self.say(&format!("   ok    {what}: {found}"));
        } else {
            self.say(&format!("   WRONG {what}: {found}, expected {expected}"));
        }
        self.list.push(Check { step: self.step.clone(), what: what.to_owned(), expected, found, ok });
    }

    /// Notes a fact that must hold; `found` tells what was seen.
    pub fn holds(&mut self, what: &str, ok: bool, found: impl ToString) {
        let found = found.to_string();
        self.say(&format!("   {} {what}: {found}", if ok { "ok   " } else { "WRONG" }));
        self.list.push(Check { step: self.step.clone(), what: what.to_owned(), expected: String::new(), found, ok });
    }

    /// How many checks did not hold.
    pub fn wrong(&self) -> usize {
        self.list.iter().filter(|check| !check.ok).count()
    }
}

//! Source profiles: how each billing system writes its accounts, and wants its invoice lines, as data.
//!
//! A profile is a TOML file (`profiles/sources/` has the shipped ones, compiled in). It has no code and no loops, only
//! templates with a closed set of functions, so that reading a foreign record always ends, and costs no more than the
//! record is long. A word that is not in a vocabulary puts its record aside; nothing is guessed. In: octets. Out: account
//! documents, merge patches and deeds, checked by the room of accounts; and lines in the source's own words.
//!
//! ```toml
//! name = "acme"
//! about = "Acme Billing 7, nightly file"
//! format = "csv"                       # json | xml | csv | fixed | form | env
//! mode = "snapshot"                    # event: what happened | snapshot: everything there is
//! scope = "full"                       # full: the whole account | account: without services | service: some services
//! timezone = "America/Chicago"         # whose clock dates without an offset are on; absent: UTC
//! phone = { country_code = "1", trunk = "1", international = "011", digits = [10, 10] }    # this is the default
//! null = ["NULL", "0000-00-00"]        # texts that say nothing; blank ones never do
//! accept = ["{Company|eq('ACME')}"]    # records for which not all of these hold are not ours
//! ignore = ["Balance"]                 # places that are of no use here, for `profile check`
//!
//! [read]
//! each = "body/customers"              # json, xml: the list of records       count = "body/total": how many there are
//! encoding = "utf-8"                   # or windows-1252 (csv, fixed, form, env)
//! delimiter = ";"                      # csv            quote = "\"": the sign, or "" for none
//! header = true                        # csv: first row | false: columns are c0, c1, … | ["a", "b"]: these
//! optional = ["Fax"]                   # csv: columns the header may lack; any other one that is used must be there
//! fields = { acct = [0, 10] }          # fixed: start and length in letters     length = 117: of every line
//! skip = [{ line = "^H" }, { column = "c0", matches = "^FR#$" }]        stop = { line = "^Report Criteria:" }
//! group_by = "Acct"                    # neighbours of one record; or group_start = { column = …, matches = … }:
//!                                      # `rows` has its rows, and a column on which they differ has no value
//! trailer = "^T([0-9]+)"               # proves the file whole            counts = "records" | "rows"
//!
//! [op]                                 # absent: every record is an upsert
//! from = "{action}"
//! words = { add = "upsert", off = "suspend", on = "resume", del = "delete", ping = "ignore" }
//! others = "quarantine"                # or "ignore"
//!
//! [alias]                              # for events that do not know the account's id: username, service, number, mac, mailbox
//! username = "{login}"
//!
//! [account]                            # fields of the account document; in a partial scope a constant is for new ones only
//! id = "{site}-{acct}"
//! status = "{state|vocab('status')}"
//! bill_cycle = "monthly"
//! [[device]]                           # `id` is `cm_mac` where it is not named
//! cm_mac = "{modem|mac}"
//! [[service]]                          # also: repeat = "path", when = [tests], remove_when = [tests]
//! id = "{acct}-1"
//! type = "internet"
//! plan = "{package|vocab('plan')}"
//! device = "{modem|mac}"
//!
//! [vocab.status]
//! A = "active"
//!
//! event_id = "{uuid}"                  # what the source calls this event (at the top of the file): one that comes again
//!                                      # is the same and changes nothing
//! [verify]                             # how the source proves that it is itself; absent: only by an API key
//! by = "hmac"                          # a header signs the body:   header = "X-Signature"   hash = "sha1" | "sha256"
//!                                      #   encoding = "hex" | "base64"   prefix = "sha256="
//!                                      # header: it holds the secret | field: value = "{secret}" holds it | address: the
//!                                      # sender's | callback: path = "events/{uuid}" is asked for, and its answer is read
//! [frame]                              # where a message ends on a TCP connection
//! end = "</event>"                     # or length = 4: octets before it, big-endian
//!
//! [reply]                              # what the source takes for an answer
//! accepted = { status = 200, content_type = "text/plain", body = "success" }
//!
//! [terms]                              # its words for our kinds of lines and things: recurring, usage, one_off, tax, …
//! recurring = "Monthly charges"
//! tiers = ["Enterprise", "Division", "Account"]       # from the top: tier1, tier2, …
//!
//! [out.lines]                          # a file of ours in its words
//! of = "lines"                         # or "usage"
//! format = "csv"                       # csv | fixed | jsonl | xml      delimiter, decimal, newline, timezone, when
//! file = "acme-{batch}.csv"            # never used twice
//! columns = [{ name = "Acct", value = "{account}" }, { name = "What", value = "{kind|term}" }]
//!                                      # a line as GET /invoice-lines has it, and: source, username, phone, number (of the
//!                                      # row), total (with exclusive taxes), net (without any), taxes (all of them);
//!                                      # rows = [[…], { when = […], cells = […] }] where one line is several rows
//! ```
//!
//! Templates stand in `template.rs`, their functions in `function.rs`, paths in `tree.rs`.

mod change;
mod check;
mod figure;
mod frame;
mod function;
mod inventory;
mod map;
mod moment;
mod profile;
mod read;
mod records;
mod shipped;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod verify;
mod write;

use std::io::BufRead;

pub use change::{Body, Change, Refusal, ServiceChange, apply};
pub use frame::{Frame, TooLong};
pub use inventory::Inventory;
pub use profile::{AliasKind, Answer, Format, Operation, Profile, Repeats, Reply, Scope};
pub use read::PROFILE_MAX;
use records::ROWS;
pub use records::{Completeness, Encoding, RECORD_MAX};
use records::{Part, Record, Records};
pub use shipped::{shipped, shipped_names};
pub use verify::{Verify, Wanted};
pub use write::{Facts, Out, Subject, WriteFault, Written, shown_cell};

/// What became of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// From 1, refused pieces included.
    pub number: u64,
    /// Where it begins.
    pub line: u64,
    /// Its octets.
    pub raw: Vec<u8>,
    /// What the source calls this event, where the profile says so.
    pub event: Option<String>,
    /// What [verify] asks of the record itself: the shared field, or the path to ask back at.
    pub proof: Option<String>,
    /// `Ok(None)`: it is not meant for us.
    pub result: Result<Option<Change>, Refusal>,
}

/// How a whole input went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub records: u64,
    pub changes: u64,
    pub ignored: u64,
    pub quarantined: u64,
    /// Whether absence means anything: proven only where nothing was put aside either.
    pub completeness: Completeness,
    /// Why reading ended early.
    pub broken: Option<String>,
}

/// The changes of one input, record by record.
pub struct Changes<'p, R> {
    profile: &'p Profile,
    records: Records<R>,
    summary: Summary,
    inventory: Option<Inventory>,
}

impl Profile {
    /// Reads an input of this source.
    pub fn changes<R: BufRead>(&self, input: R) -> Changes<'_, R> {
        let summary = Summary {
            records: 0,
            changes: 0,
            ignored: 0,
            quarantined: 0,
            completeness: Completeness::Unproven,
            broken: None,
        };
        Changes { profile: self, records: Records::new(self, input), summary, inventory: None }
    }
}

impl<R: BufRead> Changes<'_, R> {
    /// Also notes which places of the records no template looks at.
    pub fn with_inventory(mut self) -> Self {
        self.inventory = Some(Inventory::new(self.profile));
        self
    }

    /// How it went; whole when the last outcome has been taken.
    pub fn summary(&self) -> Summary {
        let mut completeness = self.records.completeness();
        if completeness == Completeness::Proven && self.summary.quarantined > 0 {
            completeness = Completeness::Refuted(format!("{} records were put aside", self.summary.quarantined));
        }
        Summary { completeness, ..self.summary.clone() }
    }

    pub fn inventory(&self) -> Option<&Inventory> {
        self.inventory.as_ref()
    }

    fn refused(&mut self, line: u64, raw: Vec<u8>, detail: String) -> Outcome {
        self.outcome(line, raw, (None, None), Err(Refusal::of(detail)))
    }

    fn outcome(
        &mut self,
        line: u64,
        raw: Vec<u8>,
        (event, proof): (Option<String>, Option<String>),
        result: Result<Option<Change>, Refusal>,
    ) -> Outcome {
        self.summary.records += 1;
        match &result {
            Ok(Some(_)) => self.summary.changes += 1,
            Ok(None) => self.summary.ignored += 1,
            Err(refusal) => {
                self.summary.quarantined += 1;
                if let Some(inventory) = &mut self.inventory {
                    inventory.add_words(&refusal.words);
                }
            }
        }
        Outcome { number: self.summary.records, line, raw, event, proof, result }
    }
}

impl<R: BufRead> Iterator for Changes<'_, R> {
    type Item = Outcome;

    fn next(&mut self) -> Option<Outcome> {
        match self.records.next_part() {
            Ok(Part::End) => None,
            Ok(Part::Record(Record { tree, line, raw })) => {
                let result = map::change(self.profile, &tree);
                // What is not for us need not be mapped.
                if let Some(inventory) = self.inventory.as_mut().filter(|_| result != Ok(None)) {
                    inventory.add(&tree);
                }
                let besides = verify::besides(self.profile, &tree);
                Some(self.outcome(line, raw, besides, result))
            }
            Ok(Part::Refused { line, detail, raw }) => Some(self.refused(line, raw, detail)),
            Err(detail) => {
                self.summary.broken = Some(detail.clone());
                Some(self.refused(0, Vec::new(), detail))
            }
        }
    }
}

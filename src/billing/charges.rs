//! Charges posted for an account by hand or by its billing system: one-off charges, credits, deposits and their return,
//! and the price of top-ups.
//!
//! Each becomes a tariff of its own with one charge, so that it is rated, rounded, taxed, explained and corrected as
//! everything else is. Its taxes, currency and rounding are those of the tariff it names, if it names one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calendar::{BillCycle, CalendarError};
use super::facts::{KnownVersion, ServiceFacts, TariffBook};
use super::lines::StoredLine;
use super::run::RunError;
use super::tariff::{Apply, Audience, Charge, ChargeKind, LineRounding, Tariff, TaxLevel, TaxTags, digest};
use crate::account::{Node, Sink};
use crate::vocabulary::{Currency, Date, Exact, Fault, Faults, Period, Rounding, Timestamp, Zone};

/// A charge as it was posted and is stored; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posting {
    #[serde(rename = "type")]
    pub kind: PostingKind,
    /// The billing system's own id of it; the same one again is the same charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// External id of the service it is for; none: the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What the line says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of one piece, above zero; a credit and a returned deposit are taken off. Missing: that of the named charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub quantity: u32,
    /// The day it is for; missing: the day it was posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Date>,
    /// Whose taxes, currency and rounding apply; none: no tax, the tenant's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tariff: Option<String>,
    /// A one-off charge or deposit of that tariff, for its amount; of a top-up the usage charge it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<String>,
    /// Of a top-up: the one of the service's tariff by this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_up: Option<String>,
    /// Of a top-up of no name: how much is granted, `50 GB`, or a number in the charge's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Of a top-up: how long it may be used, as a tariff's `valid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_jurisdiction: Option<String>,
    /// Its description was taken out when its person was forgotten; SHA-256 of what it was before, which lines name. Never read
    /// from what is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostingKind {
    OneOff,
    Credit,
    Deposit,
    DepositReturn,
    /// Allowance beside the period's own; its amount is what it costs, if it costs anything.
    TopUp,
}

/// A posted charge as a run sees it.
#[derive(Debug, Clone)]
pub struct PostedCharge {
    /// Ours; also the id of the line's charge.
    pub id: String,
    pub posting: Posting,
    pub on: Date,
    pub version: KnownVersion,
}

/// What a posted charge's line keeps of it, to be explained by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostedBasis {
    pub posting: Posting,
    pub currency: Currency,
}

fn one() -> u32 {
    1
}

fn is_one(quantity: &u32) -> bool {
    *quantity == 1
}

impl PostingKind {
    pub fn is_deposit(self) -> bool {
        matches!(self, PostingKind::Deposit | PostingKind::DepositReturn)
    }
}

impl Posting {
    /// Reads a document that was posted, and everything that is wrong with it besides the ids it names. With faults it is
    /// what could be read, to be looked at further and never stored.
    pub fn read(document: &Value) -> (Self, Vec<Fault>) {
        let sink = Sink::default();
        let posting = Self::walked(&Node::root(document, &sink));
        let mut faults = sink.into_faults();
        let known: Vec<String> = faults.iter().map(|fault| fault.pointer.clone()).collect();
        if !known.iter().any(String::is_empty) {
            faults.extend(posting.faults().into_iter().filter(|fault| !known.contains(&fault.pointer)));
        }
        (posting, faults)
    }

    /// The fields that can be read; what is wrong with the others is in the node's sink.
    fn walked(document: &Node<'_>) -> Self {
        let fields = document.fields(&FIELDS);
        let field = |key: &str| fields.as_ref().and_then(|fields| fields.optional(key));
        let text = |key: &str| field(key).and_then(|node| node.checked(|text| Ok(text.to_owned())));
        let kind = fields.as_ref().and_then(|fields| fields.required("type")).and_then(|node| {
            node.checked(|word| {
                let known = KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
                known.ok_or_else(|| format!("must be one of {}", KINDS.map(|(name, _)| name).join(", ")))
            })
        });
        let quantity = field("quantity").and_then(|node| node.integer(1..=i64::from(MOST_QUANTITY)));
        Self {
            kind: kind.unwrap_or(PostingKind::OneOff),
            id: text("id"),
            service: text("service"),
            description: text("description"),
            amount: text("amount"),
            quantity: quantity.and_then(|quantity| u32::try_from(quantity).ok()).unwrap_or(1),
            on: field("on").and_then(|node| node.date()),
            tariff: text("tariff"),
            charge: text("charge"),
            top_up: text("top_up"),
            grant: text("grant"),
            valid: text("valid"),
            tax_category: text("tax_category"),
            tax_jurisdiction: text("tax_jurisdiction"),
            erased: None,
        }
    }

    /// The same charge without what somebody wrote into its description; its lines find their tariff's digest unchanged. `None`:
    /// it has none.
    pub fn without_description(&self) -> Option<Self> {
        self.description.as_ref()?;
        let document = serde_json::to_string(self).ok()?;
        let erased = Some(self.erased.clone().unwrap_or_else(|| digest(&document)));
        Some(Self { description: None, erased, ..self.clone() })
    }

    /// Everything that is wrong with it, besides the ids it names.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::new();
        match self.amount.as_deref().map(str::parse::<Exact>) {
            Some(Ok(amount)) => {
                let fits = amount > Exact::ZERO && amount <= Exact::from_int(MOST_AMOUNT);
                if !fits || amount.decimal_places().is_none_or(|places| places > MOST_PLACES) {
                    let detail =
                        format!("must be above 0 and at most {MOST_AMOUNT}, with at most {MOST_PLACES} places");
                    faults.add("/amount", detail);
                }
            }
            Some(Err(error)) => faults.add("/amount", error.to_string()),
            None if self.kind != PostingKind::TopUp && self.charge.is_none() => {
                faults.add("/amount", "is required where no `charge` of a tariff is named")
            }
            None => {}
        }
        if !(1..=MOST_QUANTITY).contains(&self.quantity) {
            faults.add("/quantity", format!("must be 1 to {MOST_QUANTITY}"));
        }
        if self.kind == PostingKind::TopUp {
            match (&self.top_up, &self.charge) {
                (Some(_), Some(_)) => faults.add("/charge", "is said by the `top_up` that is named"),
                (None, None) => {
                    faults.add("/top_up", "is required, or the usage `charge` and how much of it to `grant`")
                }
                _ => {}
            }
            match (&self.top_up, &self.grant) {
                (Some(_), Some(_)) => faults.add("/grant", "is said by the `top_up` that is named"),
                (None, None) if self.charge.is_some() => {
                    faults.add("/grant", "is required, for example \"50 GB\"");
                }
                _ => {}
            }
            if self.tariff.is_some() {
                faults.add("/tariff", "of a top-up is that of its service");
            }
        } else {
            if self.charge.is_some() && self.tariff.is_none() {
                faults.add("/charge", "needs the `tariff` it is of");
            }
            let of_top_ups = [("/top_up", &self.top_up), ("/grant", &self.grant), ("/valid", &self.valid)];
            for (pointer, text) in of_top_ups {
                if text.is_some() {
                    faults.add(pointer, "goes with the type top_up");
                }
            }
        }
        let texts = [
            ("/id", &self.id, 64),
            ("/description", &self.description, 256),
            ("/top_up", &self.top_up, 64),
            ("/grant", &self.grant, 64),
            ("/valid", &self.valid, 64),
            ("/tax_category", &self.tax_category, 64),
            ("/tax_jurisdiction", &self.tax_jurisdiction, 64),
        ];
        for (pointer, text, most) in texts {
            if text.as_ref().is_some_and(|text| {
                text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control)
            }) {
                faults.add(pointer, format!("must be 1 to {most} printable characters"));
            }
        }
        faults.into_vec()
    }
}

impl PostedCharge {
    /// A posted charge with its price. `base`: the version of the named tariff in force on its day. **Errors**: what it
    /// names is not there.
    pub fn of(
        id: &str,
        posting: &Posting,
        on: Date,
        base: Option<&Tariff>,
        currency: Currency,
        known_at: Timestamp,
    ) -> Result<Self, String> {
        let tariff = tariff_of(id, posting, on, base, currency)?;
        let version = KnownVersion { tariff, known_at };
        Ok(Self { id: id.to_owned(), posting: posting.clone(), on, version })
    }

    pub fn charge(&self) -> &Charge {
        &self.version.tariff.charges[0]
    }

    /// The facts its line hangs on.
    pub fn facts(&self) -> ServiceFacts {
        ServiceFacts {
            id: self.posting.service.clone().unwrap_or_default(),
            addon: Some(format!("charge {}", self.id)),
            times: self.posting.quantity,
            tax_jurisdiction: self.posting.tax_jurisdiction.clone(),
            ..ServiceFacts::default()
        }
    }

    /// The period and the day it is for.
    pub fn due(&self, cycle: &BillCycle) -> Result<(Period, (Timestamp, Timestamp)), CalendarError> {
        let from = cycle.midnight(self.on)?;
        let next = self.on.tomorrow().map_err(|_| CalendarError::OutOfRange)?;
        Ok((cycle.period_at(from)?, (from, cycle.midnight(next)?)))
    }
}

/// The tariff that a posted charge is: one charge, and the taxes of the tariff it names.
pub fn tariff_of(
    id: &str,
    posting: &Posting,
    on: Date,
    base: Option<&Tariff>,
    currency: Currency,
) -> Result<Tariff, String> {
    let amount = match (&posting.amount, &posting.charge) {
        (Some(text), _) => text.parse().map_err(|_| format!("{text:?} is no amount"))?,
        (None, Some(name)) => match base.and_then(|base| base.charge(name)).map(|charge| &charge.kind) {
            Some(ChargeKind::OneOff { amount } | ChargeKind::Deposit { amount }) => *amount,
            _ => return Err(format!("there is no one-off charge or deposit {name:?} in the tariff")),
        },
        (None, None) => return Err("a charge without an amount".to_owned()),
    };
    let negated = |amount: Exact| amount.checked_neg().map_err(|error| error.to_string());
    let kind = match posting.kind {
        PostingKind::OneOff | PostingKind::TopUp => ChargeKind::OneOff { amount },
        PostingKind::Credit => ChargeKind::OneOff { amount: negated(amount)? },
        PostingKind::Deposit => ChargeKind::Deposit { amount },
        PostingKind::DepositReturn => ChargeKind::Deposit { amount: negated(amount)? },
    };
    let named = base.zip(posting.charge.as_ref()).and_then(|(base, name)| base.charge(name));
    let tags = named.map(|charge| charge.tags.clone()).unwrap_or_default();
    let tags = TaxTags {
        category: posting.tax_category.clone().or(tags.category),
        jurisdiction: posting.tax_jurisdiction.clone().or(tags.jurisdiction),
    };
    let charge = Charge { id: id.to_owned(), kind, tags };
    let Some(base) = base else {
        let document = serde_json::to_string(posting).map_err(|error| error.to_string())?;
        return Ok(Tariff {
            id: POSTED.to_owned(),
            version: 1,
            currency,
            effective_from: on,
            apply: Apply::Split,
            retroactive: false,
            audience: Audience::All,
            rounding: LineRounding { mode: Rounding::HalfUp, places: currency.minor_digits() },
            tax_level: TaxLevel::Line,
            charges: vec![charge],
            discounts: Vec::new(),
            taxes: Vec::new(),
            thresholds: Vec::new(),
            top_ups: Vec::new(),
            digest: posting.erased.clone().unwrap_or_else(|| digest(&document)),
            document,
        });
    };
    // A tax of other charges is none of this one, unless this one is of that charge.
    let taxed = |tax: &&super::tariff::Tax| match (&tax.applies_to, &posting.charge) {
        (None, _) => true,
        (Some(list), Some(name)) => list.contains(name),
        (Some(_), None) => false,
    };
    let all = |tax: &super::tariff::Tax| super::tariff::Tax { applies_to: None, ..tax.clone() };
    let taxes = base.taxes.iter().filter(taxed).map(all).collect();
    let (discounts, thresholds, top_ups) = (Vec::new(), Vec::new(), Vec::new());
    Ok(Tariff { charges: vec![charge], discounts, taxes, thresholds, top_ups, ..base.clone() })
}

/// The tariff a line was rated by, a posted charge's made anew; `None`: it is not in the book.
pub fn tariff_of_line(stored: &StoredLine, book: &TariffBook) -> Result<Option<Tariff>, RunError> {
    let line = &stored.line;
    let versions = book.get(&line.tariff.id).map(Vec::as_slice).unwrap_or_default();
    let version = versions.iter().find(|version| version.tariff.version == line.tariff.version);
    let version = version.map(|version| &version.tariff);
    let Some(kept) = &stored.basis.posted else { return Ok(version.cloned()) };
    let zone = Zone::get(&line.period.timezone).unwrap_or(Zone::UTC);
    let from = stored.basis.coverage.first().map_or(line.period.start, |(from, _)| *from);
    let base = version.filter(|_| kept.posting.tariff.is_some());
    let made = tariff_of(&line.charge, &kept.posting, from.to_zoned(zone).date(), base, kept.currency);
    made.map(Some).map_err(|why| RunError::Posted { id: line.charge.clone(), why })
}

const FIELDS: [&str; 14] = [
    "type",
    "id",
    "service",
    "description",
    "amount",
    "quantity",
    "on",
    "tariff",
    "charge",
    "top_up",
    "grant",
    "valid",
    "tax_category",
    "tax_jurisdiction",
];
const KINDS: [(&str, PostingKind); 5] = [
    ("one_off", PostingKind::OneOff),
    ("credit", PostingKind::Credit),
    ("deposit", PostingKind::Deposit),
    ("deposit_return", PostingKind::DepositReturn),
    ("top_up", PostingKind::TopUp),
];
/// What the line of a charge says that has no description and names none.
pub const NAMELESS: &str = "charge";
/// How the line of a charge that names no tariff calls its tariff.
pub const POSTED: &str = "posted";
const MOST_AMOUNT: i128 = 1_000_000_000;
const MOST_PLACES: u32 = 12;
const MOST_QUANTITY: u32 = 1_000_000;

#[cfg(test)]
mod tests;

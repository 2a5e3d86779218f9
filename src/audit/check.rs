//! Follows a stored chain from its floor to its head and stops at the first row that cannot be as it was written.

use super::{Deed, Hash, commitment, link};

/// A deed as it is stored, with what the chain added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub sequence: i64,
    pub id: i64,
    /// Microseconds since 1970.
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub account_id: Option<i64>,
    pub subject: String,
    pub detail: String,
    /// `None`: subject and detail were erased.
    pub salt: Option<Vec<u8>>,
    pub commitment: Vec<u8>,
    pub hash: Vec<u8>,
}

/// The first place where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// Empty: the installation.
    pub tenant: String,
    pub sequence: i64,
    /// The row that stands there; `None`: none does.
    pub id: Option<i64>,
    pub why: String,
}

/// Follows one tenant's chain, row by row in the order of its sequence.
#[derive(Debug, Clone)]
pub struct Checker {
    tenant: String,
    sequence: i64,
    hash: Hash,
}

impl Checker {
    /// Begins behind `sequence`, whose deed had `hash` (0 and `ROOT` for a whole chain).
    pub fn new(tenant: &str, sequence: i64, hash: Hash) -> Self {
        Self { tenant: tenant.to_owned(), sequence, hash }
    }

    /// The last deed that holds.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Takes the next row; `may_be_erased` tells of which account erasure is on record.
    ///
    /// **Errors**: the row, or the one missing before it, and what is wrong.
    pub fn follow(&mut self, row: &Row, may_be_erased: impl Fn(i64) -> bool) -> Result<(), Break> {
        let next = self.sequence + 1;
        if row.sequence > next {
            return Err(self.broken(next, None, "the row is missing".to_owned()));
        }
        let broken = |why: &str| Err(self.broken(row.sequence, Some(row.id), why.to_owned()));
        if row.sequence < next {
            return broken("two rows have this place");
        }
        let Ok(stored) = Hash::try_from(row.commitment.as_slice()) else { return broken("its commitment is no hash") };
        match &row.salt {
            Some(salt) if commitment(salt, &row.subject, &row.detail) != stored => {
                return broken("its subject or detail is not what was written");
            }
            None if !row.account_id.is_some_and(may_be_erased) => {
                return broken("its subject and detail are gone, and no erasure of an account is on record");
            }
            Some(_) | None => {}
        }
        let deed = Deed {
            tenant: &self.tenant,
            sequence: row.sequence,
            id: row.id,
            at: row.at,
            actor: &row.actor,
            action: &row.action,
            account_id: row.account_id,
            commitment: stored,
        };
        let hash = link(&self.hash, &deed);
        if row.hash != hash {
            return broken("it is not what was written, or not in its place");
        }
        (self.sequence, self.hash) = (row.sequence, hash);
        Ok(())
    }

    /// After the last row: the chain must have come as far as its head says.
    ///
    /// **Errors**: rows are missing at the end, or stand there that no head tells of.
    pub fn end(&self, sequence: i64, hash: &Hash) -> Result<(), Break> {
        if self.sequence < sequence {
            let why = format!("the rows up to {sequence} are missing: the head tells of them");
            return Err(self.broken(self.sequence + 1, None, why));
        }
        if self.sequence > sequence {
            return Err(self.broken(sequence + 1, None, "rows stand behind the head".to_owned()));
        }
        if self.hash != *hash {
            return Err(self.broken(sequence, None, "the head is that of another chain".to_owned()));
        }
        Ok(())
    }

    fn broken(&self, sequence: i64, id: Option<i64>, why: String) -> Break {
        Break { tenant: self.tenant.clone(), sequence, id, why }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::ROOT;

    /// A chain of deeds as a sealer writes it.
    fn chain(length: usize) -> Vec<Row> {
        let mut before = ROOT;
        let mut rows = Vec::new();
        for number in 1..=length as i64 {
            let salt = number.to_be_bytes().repeat(2);
            let (subject, detail) = (format!("default/{number}"), format!("{{\"revision\":{number}}}"));
            let mut row = Row {
                sequence: number,
                id: number * 3,
                at: 1_780_000_000_000_000 + number,
                actor: "key k".to_owned(),
                action: "account.update".to_owned(),
                account_id: (number % 2 == 0).then_some(number % 7 + 1),
                commitment: commitment(&salt, &subject, &detail).to_vec(),
                subject,
                detail,
                salt: Some(salt),
                hash: Vec::new(),
            };
            before = link(&before, &deed(&row));
            row.hash = before.to_vec();
            rows.push(row);
        }
        rows
    }

    fn deed(row: &Row) -> Deed<'_> {
        Deed {
            tenant: "acme",
            sequence: row.sequence,
            id: row.id,
            at: row.at,
            actor: &row.actor,
            action: &row.action,
            account_id: row.account_id,
            commitment: row.commitment.as_slice().try_into().expect("a hash"),
        }
    }

    /// The first break, the head being that of the whole chain.
    fn first_break(rows: &[Row], head: &Row, erased: &[i64]) -> Option<i64> {
        let mut checker = Checker::new("acme", 0, ROOT);
        let hash = head.hash.as_slice().try_into().expect("a hash");
        let followed = rows.iter().try_for_each(|row| checker.follow(row, |account| erased.contains(&account)));
        followed.and_then(|()| checker.end(head.sequence, &hash)).err().map(|broken| broken.sequence)
    }

    type Tampering = fn(&mut Row);

    /// Each thing that can be changed of a row.
    const CHANGES: [Tampering; 8] = [
        |row| row.at += 1,
        |row| row.actor.push('x'),
        |row| row.action = "account.close".to_owned(),
        |row| row.account_id = Some(99),
        |row| row.subject.push('0'),
        |row| row.detail = "{}".to_owned(),
        |row| row.id += 1,
        |row| row.salt = None,
    ];

    proptest! {
        #[test]
        fn whatever_is_done_to_a_row_is_found_at_its_place(place in 0usize..200, change in 0usize..8) {
            let mut rows = chain(200);
            let head = rows[199].clone();
            prop_assert_eq!(first_break(&rows, &head, &[]), None);
            CHANGES[change](&mut rows[place]);
            prop_assert_eq!(first_break(&rows, &head, &[]), Some(place as i64 + 1));
        }

        #[test]
        fn rows_that_are_deleted_doubled_or_swapped_are_found(place in 0usize..199, other in 0usize..199) {
            let rows = chain(200);
            let head = rows[199].clone();
            let mut fewer = rows.clone();
            fewer.remove(place);
            prop_assert_eq!(first_break(&fewer, &head, &[]), Some(place as i64 + 1));
            let mut doubled = rows.clone();
            doubled.insert(place + 1, rows[place].clone());
            prop_assert_eq!(first_break(&doubled, &head, &[]), Some(place as i64 + 1));
            if place != other {
                let mut swapped = rows.clone();
                swapped.swap(place, other);
                (swapped[place].sequence, swapped[other].sequence) = (rows[place].sequence, rows[other].sequence);
                prop_assert_eq!(first_break(&swapped, &head, &[]), Some(place.min(other) as i64 + 1));
            }
        }

        #[test]
        fn a_chain_that_ends_early_is_found_by_its_head(length in 0usize..200) {
            let mut rows = chain(200);
            let head = rows[199].clone();
            rows.truncate(length);
            prop_assert_eq!(first_break(&rows, &head, &[]), Some(length as i64 + 1));
        }

        #[test]
        fn a_chain_written_anew_is_found_by_its_head(place in 0usize..200) {
            let mut rows = chain(200);
            let head = rows[199].clone();
            rows[place].actor = "mallory".to_owned();
            let mut before = if place == 0 { ROOT } else { rows[place - 1].hash.as_slice().try_into().expect("a hash") };
            for row in &mut rows[place..] {
                before = link(&before, &deed(row));
                row.hash = before.to_vec();
            }
            prop_assert_eq!(first_break(&rows, &head, &[]), Some(200));
        }
    }

    #[test]
    fn an_erased_account_leaves_its_rows_in_the_chain() {
        let mut rows = chain(200);
        let head = rows[199].clone();
        for row in rows.iter_mut().filter(|row| row.account_id == Some(3)) {
            (row.subject, row.detail, row.salt) = (String::new(), "null".to_owned(), None);
        }
        assert_eq!(first_break(&rows, &head, &[3]), None);
        assert!(first_break(&rows, &head, &[4]).is_some(), "nothing may vanish without an erasure on record");
    }
}

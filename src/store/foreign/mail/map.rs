//! What the tables and columns of a mail host are called: PostfixAdmin's names unless the configuration says others.
//!
//! Pure: names come in and are checked here, so that a statement can be made of them without harm; whether the tables
//! really have such columns is `tables`' affair.

use std::collections::BTreeMap;

/// The tables of a mail host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MailTable {
    Domain,
    Mailbox,
    Alias,
    /// What Dovecot counts a mailbox's mail in (`quota2`); only moved and cleared.
    Quota,
}

/// A column of ours and whether a mail host may do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    pub name: &'static str,
    pub required: bool,
}

/// A value that is written into a column with each new row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constant {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// Names of tables and columns, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailMap {
    tables: BTreeMap<MailTable, TableMap>,
    /// Whether nothing was renamed or added: only then missing tables are made.
    standard: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableMap {
    pub(super) name: String,
    /// Role and column, in PostfixAdmin's order.
    pub(super) columns: Vec<(&'static str, String)>,
    pub(super) constants: BTreeMap<String, Constant>,
}

const fn needed(name: &'static str) -> Role {
    Role { name, required: true }
}

const fn usual(name: &'static str) -> Role {
    Role { name, required: false }
}

const DOMAIN: [Role; 12] = [
    needed("domain"),
    usual("description"),
    usual("aliases"),
    usual("mailboxes"),
    usual("maxquota"),
    usual("quota"),
    usual("transport"),
    usual("backupmx"),
    usual("created"),
    usual("modified"),
    usual("active"),
    usual("password_expiry"),
];
const MAILBOX: [Role; 15] = [
    needed("username"),
    needed("password"),
    usual("name"),
    needed("maildir"),
    usual("quota"),
    usual("local_part"),
    usual("domain"),
    usual("created"),
    usual("modified"),
    needed("active"),
    usual("phone"),
    usual("email_other"),
    usual("token"),
    usual("token_validity"),
    usual("password_expiry"),
];
const ALIAS: [Role; 6] =
    [needed("address"), needed("goto"), usual("domain"), usual("created"), usual("modified"), needed("active")];
const QUOTA: [Role; 1] = [needed("username")];

/// PostgreSQL cuts longer names off.
const NAME_MAX: usize = 63;
const CONSTANT_MAX: usize = 1000;

impl MailTable {
    pub const ALL: [MailTable; 4] = [MailTable::Domain, MailTable::Mailbox, MailTable::Alias, MailTable::Quota];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            MailTable::Domain => "domain",
            MailTable::Mailbox => "mailbox",
            MailTable::Alias => "alias",
            MailTable::Quota => "quota",
        }
    }

    /// Columns that are written, in PostfixAdmin's order.
    pub fn roles(self) -> &'static [Role] {
        match self {
            MailTable::Domain => &DOMAIN,
            MailTable::Mailbox => &MAILBOX,
            MailTable::Alias => &ALIAS,
            MailTable::Quota => &QUOTA,
        }
    }

    /// Whether a mail host may have no such table.
    pub fn can_be_left_out(self) -> bool {
        matches!(self, MailTable::Domain | MailTable::Quota)
    }

    fn standard_name(self) -> &'static str {
        match self {
            MailTable::Quota => "quota2",
            other => other.as_str(),
        }
    }
}

impl Default for MailMap {
    fn default() -> Self {
        let table = |of: MailTable| {
            let columns = of.roles().iter().map(|role| (role.name, role.name.to_owned())).collect();
            (of, TableMap { name: of.standard_name().to_owned(), columns, constants: BTreeMap::new() })
        };
        Self { tables: MailTable::ALL.into_iter().map(table).collect(), standard: true }
    }
}

impl MailMap {
    /// Gives a table another name, on PostgreSQL also `schema.table`; an empty one leaves it out.
    ///
    /// **Errors**: a sentence about the name.
    pub fn name_table(&mut self, of: MailTable, name: &str) -> Result<(), String> {
        if name.is_empty() {
            if !of.can_be_left_out() {
                return Err(format!("cannot be left out: there is no mail without the table {}", of.as_str()));
            }
            self.standard = false;
            self.tables.remove(&of);
            return Ok(());
        }
        if name.split('.').count() > 2 {
            return Err(format!("{name:?} is no name of a table"));
        }
        name.split('.').try_for_each(plain)?;
        if let Some(table) = self.tables.get_mut(&of)
            && table.name != name
        {
            self.standard = false;
            name.clone_into(&mut table.name);
        }
        Ok(())
    }

    /// Gives a column another name; an empty one leaves it out. A table that was left out has no columns.
    ///
    /// **Errors**: a sentence about the name.
    pub fn name_column(&mut self, of: MailTable, role: &str, name: &str) -> Result<(), String> {
        let known = of.roles().iter().find(|known| known.name == role);
        let known = known.ok_or_else(|| format!("is no column that is written to the table {}", of.as_str()))?;
        if name.is_empty() && known.required {
            return Err(format!("cannot be left out: {} is needed", known.name));
        }
        if !name.is_empty() {
            plain(name)?;
        }
        let Some(table) = self.tables.get_mut(&of) else {
            return Err(format!("belongs to the table {}, which is left out", of.as_str()));
        };
        if table.columns.iter().any(|(other, column)| *other != known.name && column == name) {
            return Err(format!("the column {name:?} is named twice"));
        }
        match table.columns.iter().position(|(other, _)| *other == known.name) {
            Some(at) if name.is_empty() => {
                table.columns.remove(at);
            }
            Some(at) => name.clone_into(&mut table.columns[at].1),
            None => {}
        }
        self.standard = false;
        Ok(())
    }

    /// A column that gets the same value in each new row; it may be one we would write otherwise.
    ///
    /// **Errors**: a sentence about name or value.
    pub fn set_constant(&mut self, of: MailTable, column: &str, value: Constant) -> Result<(), String> {
        plain(column)?;
        if let Constant::Text(text) = &value
            && (text.len() > CONSTANT_MAX || text.contains(['\\', '\0']))
        {
            return Err(format!("must be shorter than {CONSTANT_MAX} letters, without backslash or NUL"));
        }
        let Some(table) = self.tables.get_mut(&of) else {
            return Err(format!("belongs to the table {}, which is left out", of.as_str()));
        };
        let roles = of.roles();
        let ours = table.columns.iter().position(|(_, name)| name == column);
        if let Some(at) = ours {
            let (role, _) = table.columns[at];
            if roles.iter().any(|known| known.name == role && known.required) {
                return Err(format!("{column} is written for each mailbox and cannot be a constant"));
            }
            table.columns.remove(at);
        }
        table.constants.insert(column.to_owned(), value);
        self.standard = false;
        Ok(())
    }

    pub(super) fn table(&self, of: MailTable) -> Option<&TableMap> {
        self.tables.get(&of)
    }

    pub(super) fn is_standard(&self) -> bool {
        self.standard
    }
}

impl TableMap {
    pub(super) fn column(&self, role: &str) -> Option<&str> {
        self.columns.iter().find(|(known, _)| *known == role).map(|(_, column)| column.as_str())
    }

    /// The name in double quotes, its parts apart.
    pub(super) fn quoted(&self) -> String {
        self.name.split('.').map(quoted).collect::<Vec<_>>().join(".")
    }
}

/// A checked name in double quotes, which both databases take for a name whatever it says.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Letters, digits and `_`: nothing that could end a quoted name.
fn plain(name: &str) -> Result<(), String> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    match starts && name.len() <= NAME_MAX && name.bytes().all(letters) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name of a table or column; names have letters, digits and _, at most {NAME_MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_end_a_quoted_name_are_refused() {
        let mut map = MailMap::default();
        for name in
            ["mail\"box", "mailbox; DROP TABLE alias", "a'b", "1st", "a b", "mailbox--", "a.b.c", &"x".repeat(64)]
        {
            assert!(map.name_table(MailTable::Mailbox, name).is_err(), "{name}");
            assert!(map.name_column(MailTable::Mailbox, "name", name).is_err(), "{name}");
            assert!(map.set_constant(MailTable::Mailbox, name, Constant::Number(1)).is_err(), "{name}");
        }
        assert_eq!(map, MailMap::default(), "what is refused changes nothing");
        map.name_table(MailTable::Mailbox, "postfix.mailbox").expect("a schema and a table");
        assert_eq!(map.table(MailTable::Mailbox).expect("there").quoted(), "\"postfix\".\"mailbox\"");
    }

    #[test]
    fn what_is_needed_cannot_be_left_out_and_nothing_is_named_twice() {
        let mut map = MailMap::default();
        assert!(map.name_column(MailTable::Mailbox, "password", "").is_err());
        assert!(map.name_table(MailTable::Alias, "").is_err());
        assert!(map.name_column(MailTable::Mailbox, "passwort", "x").is_err());
        let twice = map.name_column(MailTable::Mailbox, "name", "phone").expect_err("phone is taken");
        assert!(twice.contains("named twice"), "{twice}");
        map.name_column(MailTable::Mailbox, "phone", "").expect("a mail host may do without");
        map.name_column(MailTable::Mailbox, "name", "phone").expect("now it is free");
        map.name_table(MailTable::Quota, "").expect("left out");
        assert!(map.name_column(MailTable::Quota, "username", "user").is_err(), "a left out table has no columns");
        assert!(map.set_constant(MailTable::Mailbox, "username", Constant::Number(1)).is_err());
        assert!(!map.is_standard());
    }
}

//! Looks at the mail host's real tables, tells what does not fit the map, and makes the statements once.
//!
//! Statements are put together from names that `map` has checked and that a table here really has, in double quotes;
//! values are always bound, except constants of the configuration, which stand as quoted literals.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::map::{Constant, MailMap, MailTable, TableMap, quoted};
use super::schema;
use crate::store::StoreError;
use crate::store::foreign::{ForeignTx, SCHEMA_LOCK, on_foreign};

/// Every statement on the mail host's own tables, made for the columns it has.
#[derive(Debug)]
pub(super) struct Statements {
    /// $1 domain. `None`: the host has no such table.
    pub(super) add_domain: Option<Text>,
    /// $1 address: password, maildir, quota, active (0 or 1).
    pub(super) mailbox: Text,
    /// $1 address, $2 password, $3 maildir, $4 quota, $5 local part, $6 domain, $7 active.
    pub(super) add_mailbox: Text,
    /// The same, and $8: the address it has so far.
    pub(super) change_mailbox: Text,
    /// $1 address.
    pub(super) shut_mailbox: Text,
    pub(super) drop_mailbox: Text,
    /// $1 maildir: how many mailboxes are in it.
    pub(super) in_maildir: Text,
    /// $1 address: goto, active (0 or 1).
    pub(super) alias: Text,
    /// $1 address, $2 goto, $3 domain, $4 active.
    pub(super) add_alias: Text,
    pub(super) change_alias: Text,
    pub(super) drop_alias: Text,
    /// $1 address.
    pub(super) drop_quota: Option<Text>,
    /// $1 new address, $2 the one so far.
    pub(super) move_quota: Option<Text>,
    /// Whether a mailbox's quota can be read back.
    pub(super) has_quota: bool,
}

/// One statement, ready to be handed to the database as often as wanted.
#[derive(Debug, Clone)]
pub(super) struct Text(Arc<str>);

impl Text {
    pub(super) fn sql(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.0.clone())
    }
}

/// One column as the database describes it.
#[derive(Debug)]
struct Real {
    name: String,
    kind: Kind,
    /// A row without it is refused.
    must_be_given: bool,
}

/// How a value must be written into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Number,
    Text,
    Instant,
}

const COLUMNS_SQLITE: &str =
    "SELECT name, type, (\"notnull\" <> 0 AND dflt_value IS NULL AND NOT (pk = 1 AND UPPER(type) = 'INTEGER'))
     FROM pragma_table_info($1) ORDER BY cid";
const COLUMNS_POSTGRES: &str = "SELECT CAST(attname AS TEXT), CAST(format_type(atttypid, NULL) AS TEXT),
         CAST(attnotnull AND NOT atthasdef AND attidentity = '' AS BOOLEAN)
     FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
const MISSING_RIGHTS: &str = "SELECT CAST(right_name AS TEXT)
     FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS rights (right_name)
     WHERE NOT has_table_privilege(CAST(to_regclass($1) AS OID), right_name)";
const WHO: &str = "SELECT CAST(current_user AS TEXT)";
const LOCK: &str = "SELECT pg_advisory_xact_lock($1)";
const MAY_CREATE: &str = "SELECT has_schema_privilege(current_schema(), 'CREATE')";

/// What stands in `given` of the statements on mailboxes and aliases.
const GIVEN_DOMAIN: &str = "(SELECT CAST($1 AS TEXT) AS domain) AS given";
const GIVEN_MAILBOX: &str = "(SELECT CAST($1 AS TEXT) AS address, CAST($2 AS TEXT) AS password,
    CAST($3 AS TEXT) AS maildir, CAST($4 AS BIGINT) AS quota, CAST($5 AS TEXT) AS local_part,
    CAST($6 AS TEXT) AS domain, CAST($7 AS BOOLEAN) AS active) AS given";
const GIVEN_CHANGE: &str = "(SELECT CAST($1 AS TEXT) AS address, CAST($2 AS TEXT) AS password,
    CAST($3 AS TEXT) AS maildir, CAST($4 AS BIGINT) AS quota, CAST($5 AS TEXT) AS local_part,
    CAST($6 AS TEXT) AS domain, CAST($7 AS BOOLEAN) AS active, CAST($8 AS TEXT) AS was) AS given";
const GIVEN_ALIAS: &str = "(SELECT CAST($1 AS TEXT) AS address, CAST($2 AS TEXT) AS destinations,
    CAST($3 AS TEXT) AS domain, CAST($4 AS BOOLEAN) AS active) AS given";

/// Makes tables that may be made, and the statements for those that are there.
///
/// **Errors**: `Configuration` with every table, column and right that is missing.
pub(super) async fn learn(tx: &mut ForeignTx, map: &MailMap) -> Result<Statements, StoreError> {
    if matches!(tx, ForeignTx::Postgres(_)) {
        on_foreign!(tx, c => sqlx::query(LOCK).bind(SCHEMA_LOCK).execute(&mut *c).await.map(drop))?;
    }
    make_standard(tx, map).await?;
    let mut faults = Vec::new();
    let mut real = Vec::new();
    for of in MailTable::ALL {
        let Some(table) = map.table(of) else {
            real.push(Vec::new());
            continue;
        };
        let columns = columns(tx, table).await?;
        if columns.is_empty() {
            faults.push(format!(
                "there is no table {} ([mail.tables] {} names it, PostfixAdmin's upgrade.php makes it)",
                table.name,
                of.as_str()
            ));
        } else {
            fit(of, table, &columns, &mut faults);
            rights(tx, &table.quoted(), &table.name, &mut faults).await?;
        }
        real.push(columns);
    }
    if faults.is_empty() {
        make_ours(tx, &mut faults).await?;
    }
    if !faults.is_empty() {
        return Err(StoreError::Configuration(faults.join("; ")));
    }
    let seconds = match tx {
        ForeignTx::Sqlite { .. } => "CAST(strftime('%s', 'now') AS BIGINT)",
        ForeignTx::Postgres(_) => "CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) AS BIGINT)",
    };
    Ok(statements(map, &real, seconds))
}

/// PostfixAdmin's tables, where there are none at all and nothing was renamed.
async fn make_standard(tx: &mut ForeignTx, map: &MailMap) -> Result<(), StoreError> {
    if !map.is_standard() {
        return Ok(());
    }
    for of in MailTable::ALL {
        if let Some(table) = map.table(of)
            && !columns(tx, table).await?.is_empty()
        {
            return Ok(());
        }
    }
    may_create(tx, "PostfixAdmin's tables").await?;
    let all = match tx {
        ForeignTx::Sqlite { .. } => schema::SQLITE,
        ForeignTx::Postgres(_) => schema::POSTGRES,
    };
    for statement in all {
        on_foreign!(tx, c => sqlx::query(*statement).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

/// Our own list, made or brought to its newest form.
async fn make_ours(tx: &mut ForeignTx, faults: &mut Vec<String>) -> Result<(), StoreError> {
    for (name, statement) in schema::OURS {
        let table = TableMap { name: name.to_owned(), columns: Vec::new(), constants: Default::default() };
        let there = columns(tx, &table).await?;
        if there.is_empty() {
            may_create(tx, &format!("the table {name}: {statement}")).await?;
            on_foreign!(tx, c => sqlx::query(statement).execute(&mut *c).await.map(drop))?;
            continue;
        }
        for (of, column, change) in schema::ADDED {
            if of == name && !there.iter().any(|known| known.name == column) {
                on_foreign!(tx, c => sqlx::query(change).execute(&mut *c).await.map(drop))?;
            }
        }
        rights(tx, &quoted(name), name, faults).await?;
    }
    Ok(())
}

/// **Errors**: what to run for us, where we may not.
async fn may_create(tx: &mut ForeignTx, what: &str) -> Result<(), StoreError> {
    let ForeignTx::Postgres(transaction) = tx else { return Ok(()) };
    let may: Option<bool> = sqlx::query_scalar(MAY_CREATE).fetch_one(&mut **transaction).await?;
    if may == Some(true) {
        return Ok(());
    }
    let who: String = sqlx::query_scalar(WHO).fetch_one(&mut **transaction).await?;
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(StoreError::Configuration(format!(
        "user {who} may not create {what} -- GRANT CREATE ON SCHEMA public TO {who}, or let the owner run what `lastmile mail sql` prints"
    )))
}

async fn columns(tx: &mut ForeignTx, table: &TableMap) -> Result<Vec<Real>, StoreError> {
    let rows: Vec<(String, String, bool)> = match tx {
        ForeignTx::Sqlite { connection, .. } => {
            let rows: Vec<(String, String, i64)> =
                sqlx::query_as(COLUMNS_SQLITE).bind(&table.name).fetch_all(&mut **connection).await?;
            rows.into_iter().map(|(name, kind, given)| (name, kind, given != 0)).collect()
        }
        ForeignTx::Postgres(transaction) => {
            sqlx::query_as(COLUMNS_POSTGRES).bind(table.quoted()).fetch_all(&mut **transaction).await?
        }
    };
    let column =
        |(name, kind, must_be_given): (String, String, bool)| Real { name, kind: Kind::of(&kind), must_be_given };
    Ok(rows.into_iter().map(column).collect())
}

/// Notes which rights on a table are missing, as the GRANT that gives them.
async fn rights(tx: &mut ForeignTx, quoted: &str, name: &str, faults: &mut Vec<String>) -> Result<(), StoreError> {
    let ForeignTx::Postgres(transaction) = tx else { return Ok(()) };
    let missing: Vec<String> = sqlx::query_scalar(MISSING_RIGHTS).bind(quoted).fetch_all(&mut **transaction).await?;
    if !missing.is_empty() {
        let who: String = sqlx::query_scalar(WHO).fetch_one(&mut **transaction).await?;
        faults.push(format!("a right is missing: GRANT {} ON {name} TO {who}", missing.join(", ")));
    }
    Ok(())
}

/// Notes what of the map the table does not have, and what it needs that the map does not give.
fn fit(of: MailTable, table: &TableMap, real: &[Real], faults: &mut Vec<String>) {
    let there = |column: &str| real.iter().any(|known| known.name == column);
    for (role, column) in &table.columns {
        if !there(column) {
            let same = real.iter().find(|known| known.name.eq_ignore_ascii_case(column));
            let hint = same.map(|known| format!(", but {:?}", known.name)).unwrap_or_default();
            faults.push(format!(
                "the table {} has no column {column:?} ([mail.columns.{}] {role} names it, \"\" leaves it out){hint}",
                table.name,
                of.as_str()
            ));
        }
    }
    for column in table.constants.keys().filter(|column| !there(column)) {
        faults.push(format!("the table {} has no column {column:?} of [mail.constants.{}]", table.name, of.as_str()));
    }
    // Of the quota table, rows are only moved and removed.
    let written = |column: &str| table.columns.iter().any(|(_, known)| known == column);
    for column in real.iter().filter(|column| column.must_be_given && of != MailTable::Quota) {
        if !written(&column.name) && !table.constants.contains_key(&column.name) {
            faults.push(format!(
                "the table {} needs a value for its column {:?}: name it in [mail.columns.{}] or give it one in [mail.constants.{}]",
                table.name,
                column.name,
                of.as_str(),
                of.as_str()
            ));
        }
    }
}

impl Kind {
    /// By SQLite's declared type or PostgreSQL's name of it.
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["bool"]) {
            Kind::Boolean
        } else if has(&["int", "numeric", "decimal", "serial"]) {
            Kind::Number
        } else if has(&["time", "date"]) {
            Kind::Instant
        } else {
            Kind::Text
        }
    }

    /// A truth of ours, written into such a column.
    fn flag(self, truth: &str) -> String {
        match self {
            Kind::Boolean => truth.to_owned(),
            Kind::Text => format!("CASE WHEN {truth} THEN '1' ELSE '0' END"),
            Kind::Number | Kind::Instant => format!("CASE WHEN {truth} THEN 1 ELSE 0 END"),
        }
    }

    /// 0 or 1 of what such a column says.
    fn read_flag(self, column: &str) -> String {
        let truth = match self {
            Kind::Boolean => column.to_owned(),
            Kind::Text => format!("LOWER(CAST({column} AS TEXT)) IN ('1', 't', 'true', 'y', 'yes')"),
            Kind::Number | Kind::Instant => format!("{column} <> 0"),
        };
        format!("CAST(CASE WHEN {truth} THEN 1 ELSE 0 END AS BIGINT)")
    }
}

/// What goes into a column of a new row; `given.…` are the bound values.
fn standard(of: MailTable, role: &str, kind: Kind, seconds: &str) -> String {
    let text = match (of, role) {
        (MailTable::Mailbox, "username") | (MailTable::Alias, "address") => "given.address",
        (MailTable::Mailbox, "password") => "given.password",
        (MailTable::Mailbox, "maildir") => "given.maildir",
        (MailTable::Mailbox, "quota") => "given.quota",
        (MailTable::Mailbox, "local_part") => "given.local_part",
        (_, "domain") => "given.domain",
        (MailTable::Alias, "goto") => "given.destinations",
        (MailTable::Domain, "active") => return kind.flag("TRUE"),
        (_, "active") => return kind.flag("given.active"),
        (_, "backupmx") => return kind.flag("FALSE"),
        (_, "created" | "modified") if kind == Kind::Number => return seconds.to_owned(),
        (_, "created" | "modified") => "CURRENT_TIMESTAMP",
        (MailTable::Mailbox, "token_validity" | "password_expiry") if kind != Kind::Number => "'2000-01-01 00:00:00'",
        (_, "aliases" | "mailboxes" | "maxquota" | "quota" | "token_validity" | "password_expiry") => "0",
        (_, "transport") => "'virtual'",
        _ => "''",
    };
    text.to_owned()
}

impl Constant {
    fn literal(&self, kind: Kind) -> String {
        match self {
            Constant::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Constant::Number(number) => number.to_string(),
            Constant::Flag(flag) => kind.flag(if *flag { "TRUE" } else { "FALSE" }),
        }
    }
}

/// One mapped table with its real columns.
struct Known<'a> {
    of: MailTable,
    table: &'a TableMap,
    real: &'a [Real],
    /// Now as seconds since 1970, in the database's words.
    seconds: &'static str,
}

impl Known<'_> {
    fn kind(&self, column: &str) -> Kind {
        self.real.iter().find(|known| known.name == column).map_or(Kind::Text, |known| known.kind)
    }

    /// The column of a role that no table is without.
    fn needed(&self, role: &str) -> String {
        quoted(self.table.column(role).unwrap_or(role))
    }

    fn name(&self) -> String {
        self.table.quoted()
    }

    fn insert(&self, given: &str, rest: &str) -> Text {
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for (role, column) in &self.table.columns {
            columns.push(quoted(column));
            values.push(standard(self.of, role, self.kind(column), self.seconds));
        }
        for (column, constant) in &self.table.constants {
            columns.push(quoted(column));
            values.push(constant.literal(self.kind(column)));
        }
        let (columns, values) = (columns.join(", "), values.join(", "));
        text(format!("INSERT INTO {} ({columns}) SELECT {values} FROM {given} WHERE TRUE {rest}", self.name()))
    }

    /// Sets the columns of `roles` to what is given in the row that `place` names.
    fn update(&self, roles: &[&str], given: &str, place: &str) -> Text {
        let mut sets = String::new();
        for (role, column) in self.table.columns.iter().filter(|(role, _)| roles.contains(role)) {
            let comma = if sets.is_empty() { "" } else { ", " };
            let value = standard(self.of, role, self.kind(column), self.seconds);
            // Writing to a text never fails.
            let _ = write!(sets, "{comma}{} = {value}", quoted(column));
        }
        text(format!("UPDATE {} SET {sets} FROM {given} WHERE {place}", self.name()))
    }
}

fn text(statement: String) -> Text {
    Text(statement.into())
}

/// `real` stands in the order of `MailTable::ALL`, empty for a table left out.
fn statements(map: &MailMap, real: &[Vec<Real>], seconds: &'static str) -> Statements {
    let known = |of: MailTable| {
        let at = MailTable::ALL.iter().position(|known| *known == of)?;
        Some(Known { of, table: map.table(of)?, real: real.get(at)?, seconds })
    };
    let domain = known(MailTable::Domain);
    let quota = known(MailTable::Quota);
    // Neither can be left out of a map.
    let empty = TableMap { name: String::new(), columns: Vec::new(), constants: Default::default() };
    let there = |of: MailTable| known(of).unwrap_or(Known { of, table: &empty, real: &[], seconds });
    let (mailbox, alias) = (there(MailTable::Mailbox), there(MailTable::Alias));

    let (boxes, username, active) = (mailbox.name(), mailbox.needed("username"), mailbox.needed("active"));
    let (password, maildir) = (mailbox.needed("password"), mailbox.needed("maildir"));
    let read_active = mailbox.kind(mailbox.table.column("active").unwrap_or_default()).read_flag(&active);
    let quota_column = mailbox.table.column("quota").map(quoted);
    let read_quota = match &quota_column {
        Some(column) => format!("CAST(COALESCE({column}, 0) AS BIGINT)"),
        None => "CAST(0 AS BIGINT)".to_owned(),
    };
    let (aliases, address, goto) = (alias.name(), alias.needed("address"), alias.needed("goto"));
    let alias_active = alias.needed("active");
    let read_alias = alias.kind(alias.table.column("active").unwrap_or_default()).read_flag(&alias_active);
    let shut = mailbox.kind(mailbox.table.column("active").unwrap_or_default()).flag("FALSE");
    Statements {
        add_domain: domain.map(|domain| {
            let missing = format!(
                "AND NOT EXISTS (SELECT 1 FROM {} AS known WHERE known.{} = given.domain)",
                domain.name(),
                domain.needed("domain")
            );
            domain.insert(GIVEN_DOMAIN, &missing)
        }),
        mailbox: text(format!(
            "SELECT CAST(COALESCE({password}, '') AS TEXT), CAST(COALESCE({maildir}, '') AS TEXT), {read_quota}, {read_active}
             FROM {boxes} WHERE {username} = $1"
        )),
        add_mailbox: mailbox.insert(GIVEN_MAILBOX, ""),
        change_mailbox: mailbox.update(
            &["username", "password", "quota", "local_part", "domain", "modified", "active"],
            GIVEN_CHANGE,
            &format!("{boxes}.{username} = given.was"),
        ),
        shut_mailbox: text(format!("UPDATE {boxes} SET {active} = {shut} WHERE {username} = $1")),
        drop_mailbox: text(format!("DELETE FROM {boxes} WHERE {username} = $1")),
        in_maildir: text(format!("SELECT COUNT(*) FROM {boxes} WHERE {maildir} = $1")),
        alias: text(format!("SELECT CAST({goto} AS TEXT), {read_alias} FROM {aliases} WHERE {address} = $1")),
        add_alias: alias.insert(GIVEN_ALIAS, ""),
        change_alias: alias.update(
            &["goto", "modified", "active"],
            GIVEN_ALIAS,
            &format!("{aliases}.{address} = given.address"),
        ),
        drop_alias: text(format!("DELETE FROM {aliases} WHERE {address} = $1")),
        drop_quota: quota.as_ref().map(|quota| {
            text(format!("DELETE FROM {} WHERE {} = $1", quota.name(), quota.needed("username")))
        }),
        move_quota: quota.as_ref().map(|quota| {
            let column = quota.needed("username");
            text(format!("UPDATE {} SET {column} = $1 WHERE {column} = $2", quota.name()))
        }),
        has_quota: quota_column.is_some(),
    }
}

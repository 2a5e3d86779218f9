//! The tables themselves: PostfixAdmin's as its release 3.3 makes them, for a database that has none yet, and our own
//! list beside them. `tests/it/mail_schema.rs` compares them with those PostfixAdmin makes.

/// PostfixAdmin's tables as far as mail is concerned.
pub(super) const SQLITE: &[&str] = &[
    "CREATE TABLE domain (
        domain varchar(255) NOT NULL,
        description varchar(255) NOT NULL,
        aliases int(11) NOT NULL DEFAULT 0,
        mailboxes int(11) NOT NULL DEFAULT 0,
        maxquota bigint(20) NOT NULL DEFAULT 0,
        quota bigint(20) NOT NULL DEFAULT 0,
        transport varchar(255) NOT NULL,
        backupmx tinyint(1) NOT NULL DEFAULT 0,
        created datetime NOT NULL DEFAULT '2000-01-01',
        modified datetime NOT NULL DEFAULT '2000-01-01',
        active tinyint(1) NOT NULL DEFAULT 1,
        password_expiry int DEFAULT 0,
        PRIMARY KEY (domain)
    )",
    "CREATE TABLE mailbox (
        username varchar(255) NOT NULL,
        password varchar(255) NOT NULL,
        name varchar(255) NOT NULL,
        maildir varchar(255) NOT NULL,
        quota bigint(20) NOT NULL DEFAULT 0,
        local_part varchar(255) NOT NULL,
        domain varchar(255) NOT NULL,
        created datetime NOT NULL DEFAULT '2000-01-01',
        modified datetime NOT NULL DEFAULT '2000-01-01',
        active tinyint(1) NOT NULL DEFAULT 1,
        phone varchar(30) NOT NULL DEFAULT '',
        email_other varchar(255) NOT NULL DEFAULT '',
        token varchar(255) NOT NULL DEFAULT '',
        token_validity datetime NOT NULL DEFAULT '2000-01-01',
        password_expiry datetime NOT NULL DEFAULT '2000-01-01',
        PRIMARY KEY (username)
    )",
    "CREATE TABLE alias (
        address varchar(255) NOT NULL,
        goto text NOT NULL,
        domain varchar(255) NOT NULL,
        created datetime NOT NULL DEFAULT '2000-01-01',
        modified datetime NOT NULL DEFAULT '2000-01-01',
        active tinyint(1) NOT NULL DEFAULT 1,
        PRIMARY KEY (address)
    )",
    "CREATE TABLE alias_domain (
        alias_domain varchar(255) NOT NULL,
        target_domain varchar(255) NOT NULL,
        created datetime NOT NULL DEFAULT '2000-01-01',
        modified datetime NOT NULL DEFAULT '2000-01-01',
        active tinyint(1) NOT NULL DEFAULT 1,
        PRIMARY KEY (alias_domain)
    )",
    "CREATE TABLE quota2 (
        username varchar(255) NOT NULL,
        bytes bigint(20) NOT NULL DEFAULT 0,
        messages int(11) NOT NULL DEFAULT 0,
        PRIMARY KEY (username)
    )",
];

/// The same on PostgreSQL. Dovecot's `dict` counts into `quota2` by inserting differences, which its trigger adds up.
pub(super) const POSTGRES: &[&str] = &[
    "CREATE TABLE domain (
        domain varchar(255) NOT NULL PRIMARY KEY,
        description varchar(255) NOT NULL DEFAULT '',
        aliases integer NOT NULL DEFAULT 0,
        mailboxes integer NOT NULL DEFAULT 0,
        maxquota bigint NOT NULL DEFAULT 0,
        quota bigint NOT NULL DEFAULT 0,
        transport varchar(255) DEFAULT NULL,
        backupmx boolean NOT NULL DEFAULT false,
        created timestamp with time zone DEFAULT now(),
        modified timestamp with time zone DEFAULT now(),
        active boolean NOT NULL DEFAULT true,
        password_expiry integer DEFAULT 0
    )",
    "CREATE TABLE mailbox (
        username varchar(255) NOT NULL PRIMARY KEY,
        password varchar(255) NOT NULL DEFAULT '',
        name varchar(255) NOT NULL DEFAULT '',
        maildir varchar(255) NOT NULL DEFAULT '',
        quota bigint NOT NULL DEFAULT 0,
        created timestamp with time zone DEFAULT now(),
        modified timestamp with time zone DEFAULT now(),
        active boolean NOT NULL DEFAULT true,
        domain varchar(255) REFERENCES domain (domain),
        local_part varchar(255) NOT NULL,
        phone varchar(30) NOT NULL DEFAULT '',
        email_other varchar(255) NOT NULL DEFAULT '',
        token varchar(255) NOT NULL DEFAULT '',
        token_validity timestamp with time zone DEFAULT '2000-01-01 00:00:00+00',
        password_expiry timestamp with time zone DEFAULT '2000-01-01 00:00:00+00'
    )",
    "CREATE INDEX mailbox_username_active ON mailbox (username, active)",
    "CREATE INDEX mailbox_domain_idx ON mailbox (domain)",
    "CREATE TABLE alias (
        address varchar(255) NOT NULL PRIMARY KEY,
        goto text NOT NULL,
        domain varchar(255) NOT NULL REFERENCES domain (domain),
        created timestamp with time zone DEFAULT now(),
        modified timestamp with time zone DEFAULT now(),
        active boolean NOT NULL DEFAULT true
    )",
    "CREATE INDEX alias_address_active ON alias (address, active)",
    "CREATE INDEX alias_domain_idx ON alias (domain)",
    "CREATE TABLE alias_domain (
        alias_domain varchar(255) NOT NULL PRIMARY KEY REFERENCES domain (domain) ON DELETE CASCADE,
        target_domain varchar(255) NOT NULL REFERENCES domain (domain) ON DELETE CASCADE,
        created timestamp with time zone DEFAULT now(),
        modified timestamp with time zone DEFAULT now(),
        active boolean NOT NULL DEFAULT true
    )",
    "CREATE TABLE quota2 (
        username varchar(100) NOT NULL PRIMARY KEY,
        bytes bigint NOT NULL DEFAULT 0,
        messages integer NOT NULL DEFAULT 0
    )",
    "CREATE FUNCTION lastmile_add_quota() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         UPDATE quota2 SET bytes = bytes + NEW.bytes, messages = messages + NEW.messages
             WHERE username = NEW.username;
         IF FOUND THEN
             RETURN NULL;
         END IF;
         RETURN NEW;
     END $$",
    "CREATE TRIGGER lastmile_add_quota BEFORE INSERT ON quota2 FOR EACH ROW EXECUTE FUNCTION lastmile_add_quota()",
];

/// Our own list beside them: name of the table, and what makes it.
///
/// `lastmile_mailbox`: of which password a hash was made, whose mailbox it is, and whose sessions wait to be ended.
/// `lastmile_alias`: the aliases that are ours; `until_at` (microseconds since 1970) ends one that is a mailbox's former
/// address. `lastmile_maildir`: folders whose mailbox is gone, which nobody may inherit before they are removed.
pub(super) const OURS: [(&str, &str); 3] = [
    (
        "lastmile_mailbox",
        "CREATE TABLE lastmile_mailbox (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            password_digest VARCHAR(255) NOT NULL,
            owner VARCHAR(255) NOT NULL DEFAULT '',
            kick VARCHAR(255) NOT NULL DEFAULT ''
        )",
    ),
    (
        "lastmile_alias",
        "CREATE TABLE lastmile_alias (
            address VARCHAR(255) NOT NULL PRIMARY KEY,
            mailbox VARCHAR(255) NOT NULL,
            until_at BIGINT
        )",
    ),
    (
        "lastmile_maildir",
        "CREATE TABLE lastmile_maildir (
            maildir VARCHAR(255) NOT NULL PRIMARY KEY,
            address VARCHAR(255) NOT NULL,
            owner VARCHAR(255) NOT NULL,
            left_at BIGINT NOT NULL,
            remove_at BIGINT NOT NULL
        )",
    ),
];

/// Columns that our list got after its first form.
pub(super) const ADDED: [(&str, &str, &str); 3] = [
    ("lastmile_mailbox", "owner", "ALTER TABLE lastmile_mailbox ADD COLUMN owner VARCHAR(255) NOT NULL DEFAULT ''"),
    ("lastmile_mailbox", "kick", "ALTER TABLE lastmile_mailbox ADD COLUMN kick VARCHAR(255) NOT NULL DEFAULT ''"),
    ("lastmile_alias", "until_at", "ALTER TABLE lastmile_alias ADD COLUMN until_at BIGINT"),
];

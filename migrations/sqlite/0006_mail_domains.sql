-- Whose a mail domain is when several catalogs name it: the first tenant's, until its catalog names it no more.
-- Twin of postgres/0006_mail_domains.sql.

CREATE TABLE mail_domain (
    domain TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    since_at BIGINT NOT NULL
);

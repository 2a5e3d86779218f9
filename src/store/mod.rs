//! The only room that knows SQL; SQLite and PostgreSQL from one text.

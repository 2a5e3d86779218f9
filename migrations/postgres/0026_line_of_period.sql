-- Twin of sqlite/0026_line_of_period.sql, which shortens an index that SQLite writes all over and never reads to its end.
-- PostgreSQL lists the lines of a period by it, in the order of their ids: it stays as it is.
SELECT 1;

-- The ids of lines come from all over, so that an index that ends in them is written all over, a page for nearly every line
-- of a bill run. Here nobody reads the lines of a period in the order of their ids: a list walks the ids themselves.
-- Its twin, postgres/0026_line_of_period.sql, changes nothing: PostgreSQL does list a period's lines by this index.
DROP INDEX line_of_period;
CREATE INDEX line_of_period ON line (tenant, cycle, period_start_at);

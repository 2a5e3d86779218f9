-- A bill run has to know of lines of long ago only up to which ledger sequence they have seen usage; reading that in a
-- column, it parses the lines of the last months alone, however long an account has been billed. Lines of before have
-- none and are read whole, as ever: to write it into each would rewrite the largest table there is.
ALTER TABLE line ADD COLUMN watermark BIGINT;

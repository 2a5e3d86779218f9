//! One row of separated values out of one line or, where a quoted cell has lines, of several (RFC 4180).

/// A row while it is being read.
#[derive(Debug, Default)]
pub struct CsvRow {
    pub cells: Vec<String>,
    cell: String,
    quoted: bool,
}

/// How cells are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub delimiter: char,
    /// `None`: a quote is a sign like any other.
    pub quote: Option<char>,
}

impl CsvRow {
    /// Adds a line without its end; true: the row is whole, false: a quoted cell goes on in the next line.
    ///
    /// A quote inside a cell that does not begin with one is a sign like any other (`5" pipe`).
    pub fn line(&mut self, line: &str, dialect: Dialect) -> Result<bool, String> {
        let mut letters = line.chars().peekable();
        let mut fresh = !self.quoted;
        if self.quoted {
            self.cell.push('\n');
        }
        loop {
            if self.quoted {
                match letters.next() {
                    None => return Ok(false),
                    Some(letter) if Some(letter) == dialect.quote => {
                        if letters.peek().copied() == dialect.quote {
                            letters.next();
                            self.cell.push(letter);
                            continue;
                        }
                        self.quoted = false;
                        match letters.next() {
                            None => return self.end(),
                            Some(next) if next == dialect.delimiter => fresh = self.cell_ended()?,
                            Some(_) => {
                                return Err(format!(
                                    "something stands behind the quote of cell {}",
                                    self.cells.len() + 1
                                ));
                            }
                        }
                    }
                    Some(letter) => self.cell.push(letter),
                }
            } else {
                match letters.next() {
                    None => return self.end(),
                    Some(letter) if letter == dialect.delimiter => fresh = self.cell_ended()?,
                    Some(letter) if fresh && Some(letter) == dialect.quote => {
                        self.quoted = true;
                        fresh = false;
                    }
                    Some(letter) => {
                        self.cell.push(letter);
                        fresh = false;
                    }
                }
            }
        }
    }

    fn end(&mut self) -> Result<bool, String> {
        self.cell_ended().map(|_| true)
    }

    fn cell_ended(&mut self) -> Result<bool, String> {
        if self.cells.len() >= super::MEMBERS_MAX {
            return Err(format!("a row has more than {} cells", super::MEMBERS_MAX));
        }
        self.cells.push(std::mem::take(&mut self.cell));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &[&str], delimiter: char) -> Result<Vec<Vec<String>>, String> {
        let dialect = Dialect { delimiter, quote: Some('"') };
        let (mut rows, mut row) = (Vec::new(), CsvRow::default());
        for line in lines {
            if row.line(line, dialect)? {
                rows.push(std::mem::take(&mut row).cells);
            }
        }
        Ok(rows)
    }

    #[test]
    fn quotes_hold_delimiters_quotes_and_lines() {
        assert_eq!(rows(&["a,b,,d"], ',').expect("a row"), [["a", "b", "", "d"]]);
        assert_eq!(rows(&["\"a,b\",\"c\"\"d\",5\" pipe"], ',').expect("a row"), [["a,b", "c\"d", "5\" pipe"]]);
        assert_eq!(rows(&["\"a", "b\";c"], ';').expect("a row"), [["a\nb", "c"]]);
        assert_eq!(rows(&["\"\",x", ""], ',').expect("rows"), [vec!["", "x"], vec![""]]);
        assert!(rows(&["\"a\"b,c"], ',').is_err());
        assert!(rows(&["\"never closed", "x"], ',').expect("no row").is_empty());
    }
}

//! A cell is one of several PostgreSQL databases with its own payonce nodes. Each merchant is in one of them.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

const MAX: u16 = 9999;

/// The number of a cell, 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(NonZeroU16);

/// A text or a number that is no cell's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cell's number is needed, from 1 to {MAX}, without leading zeros")]
pub struct NotACell;

impl Cell {
    /// The cell of this number.
    ///
    /// # Errors
    ///
    /// [`NotACell`] outside of 1 to 9999.
    pub fn new(number: u16) -> Result<Self, NotACell> {
        match NonZeroU16::new(number) {
            Some(cell) if number <= MAX => Ok(Self(cell)),
            _ => Err(NotACell),
        }
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0.get()
    }

    /// As the database stores it.
    pub(super) fn to_column(self) -> i16 {
        i16::try_from(self.number()).unwrap_or(i16::MAX)
    }

    /// From the database, whose values were checked when they were written.
    pub(super) fn from_column(number: i16) -> Result<Self, NotACell> {
        u16::try_from(number)
            .map_err(|_| NotACell)
            .and_then(Self::new)
    }
}

impl FromStr for Cell {
    type Err = NotACell;

    /// One cell has one text: no sign, no leading zero.
    fn from_str(text: &str) -> Result<Self, NotACell> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        if !is_plain {
            return Err(NotACell);
        }
        text.parse().map_err(|_| NotACell).and_then(Self::new)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_one_text() {
        for (text, number) in [("1", 1), ("2", 2), ("10", 10), ("9999", 9999)] {
            let cell: Cell = text.parse().expect(text);
            assert_eq!((cell.number(), cell.to_string()), (number, text.to_owned()));
            assert_eq!(Cell::from_column(cell.to_column()), Ok(cell));
        }
        for text in ["", "0", "01", "+1", "-1", "1 ", "10000", "65537", "a", "1_"] {
            assert_eq!(text.parse::<Cell>(), Err(NotACell), "{text:?}");
        }
    }
}

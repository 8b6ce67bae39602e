//! Decimal digits of all scripts: a card number in full-width digits is still a card number.

/// The zeros whose nine successors are 1 to 9: Unicode's decimal digits (`Nd`, Unicode 16), subscripts, and digits with a comma.
/// Sorted.
const ZEROS: [u32; 77] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0x2080, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x10d40, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0,
    0x11650, 0x116c0, 0x116d0, 0x116da, 0x11730, 0x118e0, 0x11950, 0x11bf0, 0x11c50, 0x11d50,
    0x11da0, 0x11f50, 0x16130, 0x16a60, 0x16ac0, 0x16b50, 0x16d70, 0x1ccf0, 0x1d7ce, 0x1d7d8,
    0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e4f0, 0x1e5f1, 0x1e950, 0x1f101, 0x1fbf0,
];

/// The ones whose eight successors are 2 to 9: digits in circles, in brackets and with a full stop, and those of scripts without
/// a zero. Sorted.
const ONES: [u32; 10] = [
    0x1369, 0x2460, 0x2474, 0x2488, 0x24f5, 0x2776, 0x2780, 0x278a, 0x10e60, 0x11052,
];

/// The value of a character that stands for one digit.
pub(crate) fn digit_of(c: char) -> Option<u8> {
    if c.is_ascii() {
        return u8::try_from(c)
            .ok()
            .filter(u8::is_ascii_digit)
            .map(|c| c - b'0');
    }
    match c {
        '⁰' | '⓪' | '⓿' | '🄀' => Some(0),
        '¹' => Some(1),
        '²' => Some(2),
        '³' => Some(3),
        '⁴'..='⁹' => offset(c, '⁴'.into()).map(|offset| offset + 4),
        _ => within(&ZEROS, c, 10).or_else(|| within(&ONES, c, 9).map(|offset| offset + 1)),
    }
}

/// The distance of a character from the last start at or before it, if that is less than `length`.
fn within(starts: &[u32], c: char, length: u8) -> Option<u8> {
    let after = starts.partition_point(|start| *start <= u32::from(c));
    let start = starts.get(after.checked_sub(1)?)?;
    offset(c, *start).filter(|offset| *offset < length)
}

fn offset(c: char, start: u32) -> Option<u8> {
    u8::try_from(u32::from(c).checked_sub(start)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_its_digits() {
        for digits in [
            "0123456789",
            "٠١٢٣٤٥٦٧٨٩",
            "۰۱۲۳۴۵۶۷۸۹",
            "०१२३४५६७८९",
            "๐๑๒๓๔๕๖๗๘๙",
            "０１２３４５６７８９",
            "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗",
            "𝟶𝟷𝟸𝟹𝟺𝟻𝟼𝟽𝟾𝟿",
            "⁰¹²³⁴⁵⁶⁷⁸⁹",
            "₀₁₂₃₄₅₆₇₈₉",
            "⓪①②③④⑤⑥⑦⑧⑨",
            "🯰🯱🯲🯳🯴🯵🯶🯷🯸🯹",
        ] {
            let read: Vec<_> = digits.chars().map(digit_of).collect();
            assert_eq!(read, (0..10).map(Some).collect::<Vec<_>>(), "{digits}");
        }
    }

    #[test]
    fn other_characters_are_none() {
        for c in [
            'a',
            ' ',
            '.',
            '/',
            ':',
            '½',
            '十',
            '⑩',
            '\u{65f}',
            '\u{66a}',
            '\u{ff0f}',
            '\u{ff1a}',
            '\u{10ffff}',
        ] {
            assert_eq!(digit_of(c), None, "{c:?}");
        }
    }

    #[test]
    fn the_tables_are_sorted_and_apart() {
        assert!(ZEROS.windows(2).all(|pair| pair[0] + 10 <= pair[1]));
        assert!(ONES.windows(2).all(|pair| pair[0] + 9 <= pair[1]));
    }
}

use super::FieldError;
use super::value::Fault;
use crate::cards::digit_of;

/// Maximum length of a client's own field name in an error, in characters.
const MAX_NAME_SHOWN: usize = 64;

/// A field name with this many digits may be a card number, which errors must not repeat.
const MAX_NAME_DIGITS_SHOWN: usize = 11;

/// Proof that an error has been recorded. A reader that has one may return without reporting another.
#[derive(Clone, Copy, Debug)]
pub struct Rejected(());

/// The errors so far, shared by an object and the objects inside it.
#[derive(Default)]
pub(super) struct Problems {
    /// The names of the fields that lead to the object being read.
    pub(super) path: Vec<&'static str>,
    pub(super) errors: Vec<FieldError>,
    pub(super) malformed: Option<String>,
}

impl Problems {
    fn path_to(&self, name: &str) -> String {
        let mut path = self.path.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path + name
    }

    pub(super) fn invalid(&mut self, name: &str, message: impl Into<String>) -> Rejected {
        let field = self.path_to(name);
        self.errors.push(FieldError {
            field,
            message: message.into(),
        });
        Rejected(())
    }

    pub(super) fn fault(&mut self, name: &str, fault: Fault) -> Rejected {
        match fault {
            Fault::Invalid(message) => self.invalid(name, message),
            Fault::NotUnicode => {
                let field = self.path_to(name);
                self.malformed.get_or_insert_with(|| {
                    format!("`{field}` has an escape that is no Unicode character")
                });
                Rejected(())
            }
        }
    }
}

/// A client's own field name as an error shows it.
pub(crate) fn shown(name: &str) -> String {
    let is_digit = |c: &char| digit_of(*c).is_some();
    let digits_hidden = name.chars().filter(is_digit).count() > MAX_NAME_DIGITS_SHOWN;
    let hide = |c: char| {
        if c.is_control() || (digits_hidden && is_digit(&c)) {
            '*'
        } else {
            c
        }
    };
    let mut shown: String = name.chars().take(MAX_NAME_SHOWN).map(hide).collect();
    if name.chars().nth(MAX_NAME_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_names_are_shortened_and_hide_card_numbers() {
        let rows = [
            ("x".repeat(64), "x".repeat(64)),
            ("é".repeat(65), "é".repeat(64) + "…"),
            ("a\u{7}b\u{85}".to_owned(), "a*b*".to_owned()),
            ("order12345678901".to_owned(), "order12345678901".to_owned()),
            (
                "4242-4242-4242-4242".to_owned(),
                "****-****-****-****".to_owned(),
            ),
            ("４２４２４２４２４２４２".to_owned(), "*".repeat(12)),
        ];
        for (name, expected) in rows {
            assert_eq!(shown(&name), expected);
        }
    }
}

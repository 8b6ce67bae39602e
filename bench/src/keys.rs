//! Idempotency keys: as random as real clients' keys, but derived from a number.

/// A key's text. All keys of a kind have the same length.
pub type Key = Vec<u8>;

/// The forms of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The form of a random UUID: keys of consecutive numbers are far apart in an index, like clients' keys.
    Uuid {
        /// Another seed gives other keys.
        seed: u64,
    },
    /// Eighteen digits, which pgbench can generate, too.
    Digits,
}

/// The first of the keys that are digits.
pub const FIRST_DIGITS: u64 = 100_000_000_000_000_000;

impl KeyKind {
    /// The key of a number.
    pub fn key(self, number: u64) -> Key {
        match self {
            Self::Uuid { seed } => {
                let high = mix(seed.wrapping_add(number.wrapping_mul(2)));
                let low = mix(seed.wrapping_add(number.wrapping_mul(2)).wrapping_add(1));
                uuid::Builder::from_random_bytes(
                    (u128::from(high) << 64 | u128::from(low)).to_be_bytes(),
                )
                .into_uuid()
                .to_string()
                .into_bytes()
            }
            Self::Digits => (FIRST_DIGITS + number).to_string().into_bytes(),
        }
    }
}

/// The id of a payment that was not made by a request. Ids are in the order of their numbers, as real ids are in the order of time.
pub fn payment_id(seed: u64, number: u64) -> Vec<u8> {
    let bytes = (u128::from(number) << 80 | u128::from(mix(seed ^ number))).to_be_bytes();
    format!("pay_{}", uuid::Uuid::from_bytes(bytes)).into_bytes()
}

/// SplitMix64's output function: a bijection, so that no two numbers meet.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `turn`-th of `count` numbers in a scattered order that has each number once.
pub fn shuffled(turn: u64, count: u64) -> u64 {
    // A prime larger than any count is coprime to it, so that multiplying by it visits each number once.
    const STEP: u128 = 2_147_483_647;
    (u128::from(turn) * STEP % u128::from(count.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_of_a_kind_have_one_width_and_do_not_repeat() {
        for (kind, width) in [(KeyKind::Uuid { seed: 7 }, 36), (KeyKind::Digits, 18)] {
            let keys: HashSet<Key> = (0..10_000).map(|number| kind.key(number)).collect();
            assert_eq!(keys.len(), 10_000);
            assert!(keys.iter().all(|key| key.len() == width));
        }
    }

    #[test]
    fn a_shuffle_visits_each_number_once() {
        for count in [1, 2, 97, 60_000] {
            let visited: HashSet<u64> = (0..count).map(|turn| shuffled(turn, count)).collect();
            assert_eq!(visited.len() as u64, count);
            assert!(visited.iter().all(|number| *number < count));
        }
    }

    #[test]
    fn payment_ids_are_in_the_order_of_their_numbers() {
        let ids: Vec<_> = (0..1000).map(|number| payment_id(3, number)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 40));
    }
}

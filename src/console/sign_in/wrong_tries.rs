//! Attempts to sign in with a wrong token, counted by network and in total. A pause that grows follows each.
//!
//! The right token is always accepted, so an operator cannot be locked out, not even from behind the same proxy. The protection
//! against guessing is the token itself: there are too many tokens of 16 random characters to try. The pause tells a person or a
//! program to stop, and bounds how much work and how many rows wrong attempts cause.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong attempts from one network before the first pause: an operator may mistype, or use last month's token.
const FREE_OF_NETWORK: u32 = 5;

/// The same over all networks: more mistakes than all operators together will make.
const FREE_OF_ALL: u32 = 100;

/// The first pause; each further wrong try doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Wrong tries are forgotten after this long without one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Maximum number of networks whose wrong tries are counted separately, at about 100 bytes each.
const REMEMBERED_NETWORKS: usize = 1000;

/// Maximum number of networks that an hour's audit names; the others are one entry.
const AUDITED_NETWORKS: usize = 20;

/// The audit's name for the others.
const OTHER_NETWORKS: &str = "other addresses";

/// Wrong tries of the recent past, on this node.
#[derive(Default)]
pub(super) struct WrongTries(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    of_network: HashMap<IpAddr, Streak>,
    of_all: Streak,
    hour: i64,
    of_hour: HashMap<String, u64>,
}

/// What follows from a wrong try.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// Time until the next attempt is considered; `None` if this one was.
    pub(super) pause: Option<Duration>,
    /// What the audit should record.
    pub(super) audited: Option<Refusals>,
}

/// Wrong tries of one network within one hour.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusals {
    /// The network, or the name for all others.
    pub(super) network: String,
    /// Number of tries in this hour.
    pub(super) tries: u64,
}

/// Wrong tries without a long pause in between.
#[derive(Clone, Copy, Default)]
struct Streak {
    tries: u32,
    last: Option<Instant>,
    paused_until: Option<Instant>,
}

impl Streak {
    fn is_forgotten(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.saturating_duration_since(last) >= FORGOTTEN_AFTER)
    }

    /// The rest of the pause.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let left = self.paused_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    fn add(&mut self, now: Instant, free: u32) {
        if self.is_forgotten(now) {
            *self = Self::default();
        }
        self.tries = self.tries.saturating_add(1);
        self.last = Some(now);
        if let Some(doublings) = self.tries.checked_sub(free) {
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings));
            self.paused_until = now.checked_add(pause.min(LONGEST_PAUSE));
        }
    }
}

impl WrongTries {
    /// Counts a wrong try. `hour` is the number of the current hour, counted from any point.
    pub(super) fn note(&self, address: Option<IpAddr>, now: Instant, hour: i64) -> Noted {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network_of(address);
        Noted {
            audited: counted.audit(network, hour),
            pause: counted.pause_or_add(network, now),
        }
    }
}

impl Counted {
    fn pause_or_add(&mut self, network: IpAddr, now: Instant) -> Option<Duration> {
        let of_network = self.of_network.get(&network);
        let pause = of_network
            .and_then(|streak| streak.pause(now))
            .max(self.of_all.pause(now));
        if pause.is_some() {
            return pause;
        }
        self.of_all.add(now, FREE_OF_ALL);
        if self.of_network.len() >= REMEMBERED_NETWORKS {
            self.of_network
                .retain(|_, streak| !streak.is_forgotten(now));
        }
        let has_room = self.of_network.len() < REMEMBERED_NETWORKS;
        if has_room || self.of_network.contains_key(&network) {
            let streak = self.of_network.entry(network).or_default();
            streak.add(now, FREE_OF_NETWORK);
        }
        None
    }

    /// Adds an entry at the first wrong try of a network in an hour, and at its tenth, its hundredth and so on. So the audit shows
    /// the extent, and nobody can fill it.
    fn audit(&mut self, network: IpAddr, hour: i64) -> Option<Refusals> {
        if self.hour != hour {
            self.hour = hour;
            self.of_hour.clear();
        }
        let mut name = name_of(network);
        if !self.of_hour.contains_key(&name) && self.of_hour.len() >= AUDITED_NETWORKS {
            name = OTHER_NETWORKS.to_owned();
        }
        let tries = self.of_hour.entry(name.clone()).or_default();
        *tries = tries.saturating_add(1);
        let is_power_of_ten = 10_u64.checked_pow(tries.ilog10()) == Some(*tries);
        is_power_of_ten.then_some(Refusals {
            network: name,
            tries: *tries,
        })
    }
}

/// A host with one IPv6 address usually has a whole /64 network.
fn network_of(address: Option<IpAddr>) -> IpAddr {
    match address {
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        },
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn name_of(network: IpAddr) -> String {
    match network {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => "unknown".to_owned(),
        IpAddr::V6(network) => format!("{network}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn five_are_free_and_then_the_pause_grows() {
        let (wrong, mut now) = (WrongTries::default(), Instant::now());
        let note = |now, from: &str| wrong.note(address(from), now, 0).pause;
        for _ in 0..5 {
            assert_eq!(note(now, "2001:db8::1"), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(note(now, "2001:db8::ffff"), Some(pause), "the same /64");
            assert_eq!(
                note(now, "2001:db8::2"),
                Some(pause),
                "it does not grow by itself"
            );
            assert_eq!(
                note(now, &format!("2001:db8:0:{seconds}::1")),
                None,
                "another"
            );
            now += pause;
            assert_eq!(note(now, "2001:db8::3"), None, "listened to, and refused");
        }
        now += FORGOTTEN_AFTER;
        for _ in 0..5 {
            assert_eq!(note(now, "2001:db8::1"), None, "forgotten");
        }
    }

    #[test]
    fn many_addresses_together_are_paused_too_and_memory_is_bounded() {
        let (wrong, now) = (WrongTries::default(), Instant::now());
        let from = |n: u32| Some(IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64)));
        for n in 1..=100 {
            assert_eq!(wrong.note(from(n), now, 0).pause, None, "{n}");
        }
        assert_eq!(wrong.note(from(101), now, 0).pause, Some(FIRST_PAUSE));
        let mut later = now;
        for n in 102..3000 {
            later += LONGEST_PAUSE;
            assert_eq!(wrong.note(from(n), later, 0).pause, None);
        }
        let counted = wrong.0.lock().expect("a lock");
        assert!(counted.of_network.len() <= REMEMBERED_NETWORKS);
        assert!(counted.of_hour.len() <= AUDITED_NETWORKS + 1);
    }

    #[test]
    fn an_hour_of_guessing_is_a_few_entries() {
        let (wrong, now) = (WrongTries::default(), Instant::now());
        let mut entries = Vec::new();
        for n in 0..30_000_u32 {
            let from = IpAddr::V4((n % 300).into());
            entries.extend(wrong.note(Some(from), now, 7).audited);
        }
        // Twenty networks, each at 1, 10 and 100; the other 280 at 1, 10, … 10,000.
        assert_eq!(entries.len(), 20 * 3 + 5);
        let others = entries
            .iter()
            .filter(|entry| entry.network == "other addresses");
        let most = others.map(|entry| entry.tries).max();
        assert_eq!(most, Some(10_000));
        let next_hour = wrong.note(address("192.0.2.1"), now, 8).audited;
        let expected = Refusals {
            network: "192.0.2.1".to_owned(),
            tries: 1,
        };
        assert_eq!(next_hour, Some(expected));
    }
}

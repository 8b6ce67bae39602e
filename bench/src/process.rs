//! The resources that a process uses, from `/proc`. On other systems than Linux they are not known, and not shown.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// Processor time and memory of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The service's processor time per answer, in microseconds.
    pub service_us: Option<f64>,
    /// The generator's processor time per answer, in microseconds.
    pub generator_us: Option<f64>,
    /// The processor time of all other processes per answer, in microseconds; mostly PostgreSQL's.
    pub others_us: Option<f64>,
    /// The share of the machine's processor time that was in use, in percent.
    pub busy_percent: Option<f64>,
    /// The service's memory at the end of the measured time, in MiB.
    pub memory_mib: Option<f64>,
}

/// The counters at one moment, in clock ticks.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    service: u64,
    generator: u64,
    busy: u64,
    all: u64,
}

/// The resources used within a time.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    ticks: Option<(Ticks, Ticks)>,
    memory_mib: Option<f64>,
}

/// Waits for `begin` and then for `end`, or until `has_ended`, and returns what was used in between.
pub fn usage_between(
    service: u32,
    begin: Instant,
    end: Instant,
    has_ended: impl Fn() -> bool,
) -> anyhow::Result<Used> {
    std::thread::sleep(begin.saturating_duration_since(Instant::now()));
    let before = Ticks::now(service);
    while Instant::now() < end && !has_ended() {
        let left = end.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(Used {
        ticks: before.zip(Ticks::now(service)),
        memory_mib: memory_mib(service, "VmRSS"),
    })
}

impl Used {
    /// Divides it by `answers`.
    pub fn per_answer(self, answers: u64) -> Usage {
        let Some((before, after)) = self.ticks.filter(|_| answers > 0) else {
            return Usage {
                memory_mib: self.memory_mib,
                ..Usage::default()
            };
        };
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let us = |ticks: u64| ticks as f64 * 1e6 / per_second as f64 / answers as f64;
        let service = after.service.saturating_sub(before.service);
        let generator = after.generator.saturating_sub(before.generator);
        let busy = after.busy.saturating_sub(before.busy);
        let all = after.all.saturating_sub(before.all).max(1);
        Usage {
            service_us: Some(us(service)),
            generator_us: Some(us(generator)),
            others_us: Some(us(busy.saturating_sub(service + generator))),
            busy_percent: Some(busy as f64 / all as f64 * 100.0),
            memory_mib: self.memory_mib,
        }
    }
}

impl Ticks {
    fn now(service: u32) -> Option<Self> {
        let (busy, all) = machine_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        let of = |process: u32| {
            process_ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
        };
        Some(Self {
            service: of(service)?,
            generator: of(std::process::id())?,
            busy,
            all,
        })
    }
}

/// `utime` and `stime`. The second field is the program's name, which may hold anything but ends with the last bracket.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Busy and all ticks of the first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4)?;
    let all: u64 = fields.iter().sum();
    Some((all - idle, all))
}

/// A field of `/proc/PID/status`, in MiB: `VmRSS` is the memory in use, `VmHWM` its maximum.
pub fn memory_mib(process: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status_mib(&status, field)
}

fn status_mib(status: &str, field: &str) -> Option<f64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_where_the_kernel_writes_it() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 6 7 20 0 9 0 88 1 2";
        assert_eq!(process_ticks(stat), Some(200));
        let machine = "cpu  100 0 50 800 40 5 5 0 0 0\ncpu0 1 1 1 1";
        assert_eq!(machine_ticks(machine), Some((160, 1000)));
        let status = "VmPeak:\t  9216 kB\nVmHWM:\t   4096 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(status_mib(status, "VmRSS"), Some(2.0));
        assert_eq!(status_mib(status, "VmSwap"), None);
    }

    #[test]
    fn usage_is_shared_out_over_the_answers() {
        let ticks = |service, generator, busy, all| Ticks {
            service,
            generator,
            busy,
            all,
        };
        let used = Used {
            ticks: Some((ticks(100, 10, 1000, 2000), ticks(200, 60, 1250, 2500))),
            memory_mib: Some(1.0),
        };
        let usage = used.per_answer(100);
        let per_second = sysconf(SysconfVar::CLK_TCK).expect("known").expect("set") as f64;
        assert_eq!(usage.service_us, Some(1e6 / per_second));
        assert_eq!(usage.generator_us, Some(0.5e6 / per_second));
        assert_eq!(usage.others_us, Some(1e6 / per_second));
        assert_eq!(usage.busy_percent, Some(50.0));
        assert_eq!(used.per_answer(0).service_us, None);
    }
}

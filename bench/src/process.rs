//! The resources that a process uses, from `/proc`. On other systems than Linux they are not known, and not shown.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// Processor time and memory of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The service's processor time per answer, in microseconds.
    pub service_us: Option<f64>,
    /// That of PostgreSQL's processes, a standby's among them. Unknown where the server runs elsewhere.
    pub postgres_us: Option<f64>,
    /// The generator's.
    pub generator_us: Option<f64>,
    /// Everybody else's: the kernel's own, and PostgreSQL's where that is not known by itself.
    pub others_us: Option<f64>,
    /// The share of the machine's processor time that was in use, in percent.
    pub busy_percent: Option<f64>,
    /// The service's memory at the end of the measured time, in MiB.
    pub memory_mib: Option<f64>,
}

impl Usage {
    /// The processor time for an answer of service and PostgreSQL together, in microseconds.
    pub fn service_and_postgres_us(&self) -> Option<f64> {
        Some(self.service_us? + self.postgres_us?)
    }

    /// That of everybody but the generator.
    pub fn all_but_generator_us(&self) -> Option<f64> {
        Some(self.service_us? + self.postgres_us.unwrap_or(0.0) + self.others_us?)
    }
}

/// The processes whose share is told apart.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub service: Option<u32>,
    /// The first process of each PostgreSQL server that works for the service.
    pub postmasters: Vec<u32>,
}

/// The counters at one moment, in clock ticks.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    service: Option<u64>,
    postgres: Option<u64>,
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
    watched: &Watched,
    begin: Instant,
    end: Instant,
    has_ended: impl Fn() -> bool,
) -> anyhow::Result<Used> {
    std::thread::sleep(begin.saturating_duration_since(Instant::now()));
    let before = Ticks::now(watched);
    while Instant::now() < end && !has_ended() {
        let left = end.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(Used {
        ticks: before.zip(Ticks::now(watched)),
        memory_mib: watched
            .service
            .and_then(|service| memory_mib(service, "VmRSS")),
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
        let grown = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
        let service = grown(before.service, after.service);
        let postgres = grown(before.postgres, after.postgres);
        let generator = after.generator.saturating_sub(before.generator);
        let busy = after.busy.saturating_sub(before.busy);
        let all = after.all.saturating_sub(before.all).max(1);
        let told_apart = service.unwrap_or(0) + postgres.unwrap_or(0) + generator;
        Usage {
            service_us: service.map(us),
            postgres_us: postgres.map(us),
            generator_us: Some(us(generator)),
            others_us: Some(us(busy.saturating_sub(told_apart))),
            busy_percent: Some(busy as f64 / all as f64 * 100.0),
            memory_mib: self.memory_mib,
        }
    }
}

impl Ticks {
    fn now(watched: &Watched) -> Option<Self> {
        let (busy, all) = machine_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        Some(Self {
            service: watched.service.and_then(own_ticks),
            postgres: server_ticks(&watched.postmasters),
            generator: own_ticks(std::process::id())?,
            busy,
            all,
        })
    }
}

fn read(process: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/{file}")).ok()
}

fn own_ticks(process: u32) -> Option<u64> {
    process_ticks(&read(process, "stat")?)
}

/// Of all processes of these servers, those that have ended among them; `None` where there is none, or one is gone.
fn server_ticks(postmasters: &[u32]) -> Option<u64> {
    let servers: Option<Vec<u64>> = postmasters
        .iter()
        .map(|&postmaster| {
            let children = read(postmaster, &format!("task/{postmaster}/children"))?;
            let children = children
                .split_ascii_whitespace()
                .filter_map(|child| child.parse().ok());
            // One that ends between the two looks counts twice. Few end while something is measured.
            let living: u64 = children.filter_map(own_ticks).sum();
            let stat = read(postmaster, "stat")?;
            Some(living + process_ticks(&stat)? + ended_children_ticks(&stat)?)
        })
        .collect();
    servers
        .filter(|servers| !servers.is_empty())
        .map(|servers| servers.iter().sum())
}

/// The first process of the server whose data lie there, if it may be known.
pub fn postmaster(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    file.lines().next()?.trim().parse().ok()
}

/// The process that listens on a port of this machine, if it may be known.
pub fn listener_on(port: u16) -> Option<u32> {
    let inode = ["tcp", "tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(format!("/proc/net/{table}")).ok()?;
        listening_inode(&table, port)
    })?;
    let socket = format!("socket:[{inode}]");
    let has_socket = |process: u32| {
        let mut files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
        files
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*socket))
            .then_some(process)
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find_map(has_socket)
}

/// From `/proc/net/tcp`: the tenth field of the line whose second ends with the port and whose fourth is 0A, LISTEN.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&"0A");
        is_it.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// `utime` and `stime`. The second field is the program's name, which may hold anything but ends with the last bracket.
fn process_ticks(stat: &str) -> Option<u64> {
    two_fields(stat, 11)
}

/// `cutime` and `cstime`, of the children that have ended.
fn ended_children_ticks(stat: &str) -> Option<u64> {
    two_fields(stat, 13)
}

fn two_fields(stat: &str, skipped: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(skipped);
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
        assert_eq!(ended_children_ticks(stat), Some(13));
        let machine = "cpu  100 0 50 800 40 5 5 0 0 0\ncpu0 1 1 1 1";
        assert_eq!(machine_ticks(machine), Some((160, 1000)));
        let status = "VmPeak:\t  9216 kB\nVmHWM:\t   4096 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(status_mib(status, "VmRSS"), Some(2.0));
        assert_eq!(status_mib(status, "VmSwap"), None);
    }

    #[test]
    fn usage_is_shared_out_over_the_answers() {
        let ticks = |service, postgres, generator, busy, all| Ticks {
            service: Some(service),
            postgres,
            generator,
            busy,
            all,
        };
        let used = |before, after| Used {
            ticks: Some((
                ticks(100, before, 10, 1000, 2000),
                ticks(200, after, 60, 1250, 2500),
            )),
            memory_mib: Some(1.0),
        };
        let per_second = sysconf(SysconfVar::CLK_TCK).expect("known").expect("set") as f64;
        let us = |ticks: f64| Some(ticks * 1e4 / per_second);
        let usage = used(Some(20), Some(90)).per_answer(100);
        assert_eq!(usage.service_us, us(100.0));
        assert_eq!(usage.postgres_us, us(70.0));
        assert_eq!(usage.generator_us, us(50.0));
        assert_eq!(usage.others_us, us(30.0));
        assert_eq!(usage.busy_percent, Some(50.0));
        assert_eq!(usage.service_and_postgres_us(), us(170.0));
        assert_eq!(usage.all_but_generator_us(), us(200.0));
        // A server elsewhere: what is not told apart is the others'.
        let usage = used(None, None).per_answer(100);
        assert_eq!(usage.others_us, us(100.0));
        assert_eq!(usage.service_and_postgres_us(), None);
        assert_eq!(usage.all_but_generator_us(), us(200.0));
        assert_eq!(used(None, None).per_answer(0).service_us, None);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 11 1\n\
            1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 22 1\n";
        assert_eq!(listening_inode(table, 8080), Some(22));
        assert_eq!(listening_inode(table, 8081), None);
        let own = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = own.local_addr().expect("an address").port();
        // Elsewhere than on Linux nothing is known.
        let expected = cfg!(target_os = "linux").then(std::process::id);
        assert_eq!(listener_on(port), expected);
    }

    #[test]
    fn a_servers_processes_count_together() {
        // This process stands for a postmaster: its children are not known for lack of any, its own time is.
        let own = std::process::id();
        if cfg!(target_os = "linux") {
            assert!(server_ticks(&[own]) >= own_ticks(own));
        }
        assert_eq!(server_ticks(&[]), None);
        assert_eq!(server_ticks(&[own, 0]), None, "one that is gone");
    }
}

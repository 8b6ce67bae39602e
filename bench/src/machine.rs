//! The environment of the measurements.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::store::ServerSettings;

/// The machine, the server and the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: Option<f64>,
    pub system: String,
    pub postgresql: String,
    pub shared_buffers: String,
    pub max_wal_size: String,
    pub commit: String,
    pub date: String,
}

impl Machine {
    pub fn describe(settings: &ServerSettings) -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo").ok();
        let memory = fs::read_to_string("/proc/meminfo").ok();
        Self {
            cpu: cpu.as_deref().and_then(cpu_model).unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory.as_deref().and_then(total_gib),
            system: said("uname", &["-sr"]).unwrap_or_else(unknown),
            postgresql: settings.version.clone(),
            shared_buffers: settings.shared_buffers.clone(),
            max_wal_size: settings.max_wal_size.clone(),
            commit: commit().unwrap_or_else(unknown),
            date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
        }
    }
}

/// With a mark if the checkout has changes.
fn commit() -> Option<String> {
    said("git", &["describe", "--always", "--dirty", "--exclude=*"])
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let mut lines = cpuinfo.lines();
    let line = lines.find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn total_gib(meminfo: &str) -> Option<f64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_names_the_machine() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU: fast\n\nprocessor\t: 1\n";
        assert_eq!(cpu_model(cpuinfo).as_deref(), Some("A CPU: fast"));
        assert_eq!(total_gib("MemTotal:       2097152 kB\n"), Some(2.0));
    }
}

//! pgbench, PostgreSQL's own benchmark: the throughput of the database without a service.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;

use crate::database::Database;
use crate::programs::{self, Programs};

/// The result of pgbench.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Result {
    pub transactions: u64,
    pub per_second: f64,
}

/// A script and where it runs.
pub struct Script<'a> {
    pub sql: &'a str,
    /// Variables that it starts with.
    pub variables: &'a [(&'a str, u64)],
}

pub async fn run(
    programs: &Programs,
    database: &Database,
    script: &Script<'_>,
    clients: u32,
    duration: Duration,
) -> anyhow::Result<Result> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(script.sql.as_bytes())?;
    let mut command = programs.postgres("pgbench")?;
    database.set_environment(&mut command);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let seconds = duration.as_secs_f64().ceil();
    command
        .args(["--no-vacuum", "--protocol=prepared"])
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", threads.min(clients)))
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(file.path());
    for (name, value) in script.variables {
        command.arg(format!("--define={name}={value}"));
    }
    let said = programs::output(&mut command).await?;
    parse(&said).with_context(|| format!("pgbench says what is not understood: {said}"))
}

fn parse(said: &str) -> Option<Result> {
    let after = |label: &str| {
        let mut lines = said.lines();
        let rest = lines.find_map(|line| line.strip_prefix(label))?;
        rest.trim().split([' ', '/']).next()
    };
    Some(Result {
        transactions: after("number of transactions actually processed:")?
            .parse()
            .ok()?,
        per_second: after("tps =")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_and_rate_are_read() {
        let said = "transaction type: s.sql\nnumber of clients: 8\n\
            number of transactions actually processed: 1234\nnumber of failed transactions: 0 (0.000%)\n\
            latency average = 3.1 ms\ninitial connection time = 9.4 ms\n\
            tps = 617.250000 (without initial connection time)\n";
        let expected = Result {
            transactions: 1234,
            per_second: 617.25,
        };
        assert_eq!(parse(said), Some(expected));
        assert_eq!(parse("tps = 1"), None);
    }
}

//! `docs/BENCHMARKS.md`: all its figures come from the report.

use std::fmt::Write;
use std::time::Duration;

use super::ratios::{self, Ratio, thousands};
use super::runs_table::runs_table;
use super::{ReferencePool, Report, Series, headline, slow_commits};
use crate::load::Latency;

/// The document. `plot` is its link to the drawing.
pub fn markdown(report: &Report, plot: &str) -> String {
    let sections = [
        head(report),
        slow_commits::skipped(report),
        headline::section(report),
        required(report),
        fresh(report, plot),
        table_under_load(report),
        slow_commits::standby(report),
        slow_commits::slow_disk(report),
        many_keys(report),
        replays(report),
        storms(report),
        gateway(report),
        cleanup(report),
        layer(report),
        slow_commits::cleanup_beside(report),
        machine(report),
        METHOD.to_owned(),
    ];
    let sections = sections.into_iter().filter(|section| !section.is_empty());
    sections
        .map(|section| section.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n\n")
        + "\n"
}

const METHOD: &str = "\
## How it is measured

`payonce-bench` ([`bench/`](../bench)) starts each service as a process of its own on one PostgreSQL server with `fsync` on, each
on an empty database of its own, and refuses a server with `fsync`, `synchronous_commit` or `full_page_writes` off. Variants that
are compared run in turns, and a ratio is made of runs of the same round, so that a slow minute of the machine affects both.
Before each run there is a checkpoint, and then a warm-up that is not measured. Medians of the rounds are shown.

One generator drives all services with the same bytes over persistent HTTP/1.1 connections. It shares the machine with the service and
the database; its own processor time is in the tables. Keys look like random UUIDs. At a given rate (200 a second), a latency
counts from the time at which the request was due, not from when it could be sent.

**Each run checks itself.** After it the keys and payments in the database are counted: there must be as many new ones as answers
with 201. All replays must be marked as such, and add nothing. If a check fails, the program exits with 1 and writes no
report.

**Groups of one** is payonce with `PAYONCE_GROUP_SIZE=1`: each payment makes two commits of its own. There is one lane for claims
and one for settles, so these commits are made one after the other, or up to four at a time while commits are slow.

**The reference handler** ([`bench/src/rivals/reference.rs`](../bench/src/rivals/reference.rs)) is what a user of actix-web and
sqlx would write: one transaction per request that inserts the key on conflict do nothing, inserts the payment and saves the
answer, with prepared statements, validation and a SHA-256 of the request. It has the best of several pools. It does less than
payonce: it checks no API key and calls no gateway, so one commit is enough, where payonce makes two.

**The two-phase handler** ([`bench/src/rivals/two_phase.rs`](../bench/src/rivals/two_phase.rs)) is what the same user would write
with a gateway to call: one transaction inserts the key and the payment, the gateway (which answers at once) is called while no
transaction is open, and a second one locks the key, updates both rows and stores the answer. Its tables, statements and pools are
those of the reference handler. A crash between the two leaves a payment that nobody comes back to.

**The other revision** (`--against`) is checked out and built with this one's profile, and serves with the same settings.
**The running service** (`--yardstick URL --yardstick-database URL`) was started by somebody else; it gets the same bytes at its own
path, and its keys and payments are counted like everybody's.

**Processor time** of the service and of PostgreSQL is that of their processes, from `/proc`, over the measured time; the rest is the
kernel's own and everybody else's. Where PostgreSQL's cannot be told apart it is among the rest.

**The clean-up's rate** is what is gone of the expired keys after the measured time, in which `payonce-cleanup` runs with its
defaults; it is ended then. The keys of payments, which have not expired, must all be there.

**pgbench** runs the two transactions of a claim and a settle, three statements each
([`claim_and_settle.sql`](../bench/src/rivals/claim_and_settle.sql)), prepared, with no service before the database. It was
tried with several numbers of clients, and the best one takes part in the rounds.

**The bare endpoint** is an actix-web handler that reads the body and sends the bytes of one of payonce's replays.
**Keys not in memory** are rows that payonce has not read since it started, each requested once, in random order; pgbench reads
such rows by their primary key.

**A handler in one line** ([`bench/src/rivals/layered.rs`](../bench/src/rivals/layered.rs)) inserts one row. Wrapped, the row, the
key and the answer are one transaction of `payonce-actix`; bare, the row is a transaction of the handler's own, and a repeat would
make another. Both have a pool of the same size and the same runtime. The read that replays are compared with selects the row by its
primary key and sends the same answer.

**Many keys**: the tables are filled with copies of a row that payonce has written, with other keys, ids, merchants and
customers, and analyzed. This prepares nothing in the measured service.";

fn head(report: &Report) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    if report.plan.quick {
        text += "> **A quick run (`--quick`): it shows that everything works. Its figures mean nothing.**\n\n";
    }
    let _ = write!(
        text,
        "payonce and its alternatives, in one run. This page is written by `make bench`, from\n\
         `benchmarks.json`, on {}, commit `{}`; it took {}, and all of its {} checks hold.\n\n\
         ```console\n\
         $ make bench                                       # everything\n\
         $ make bench BENCH_ARGS=--quick                    # a smoke of a few minutes, into target/bench\n\
         $ make bench BENCH_ARGS='--only fresh --rounds 5'  # a part, into target/bench\n\
         $ make bench BENCH_ARGS='--against REVISION'       # beside another revision, which is built below target/bench\n\
         $ payonce-bench run --help                         # every option\n\
         ```",
        report.machine.date,
        report.machine.commit,
        humantime::format_duration(Duration::from_secs(report.took_seconds as u64)),
        thousands(report.checks),
    );
    text
}

fn required(report: &Report) -> String {
    let ratios = ratios::all(report);
    if ratios.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## Targets\n\n| measure | at least, at most | reached | | each round |\n| --- | --- | --- | --- | --- |\n",
    );
    for ratio in ratios {
        let Ratio {
            measure, required, ..
        } = &ratio;
        let rounds: Vec<String> = ratio
            .rounds
            .iter()
            .map(|round| format!("{round:.2}"))
            .collect();
        let _ = writeln!(
            text,
            "| {measure} | {} | {} | {} | {} |",
            required.text(),
            required.value(ratio.reached),
            if ratio.holds() { "✓" } else { "✗" },
            rounds.join(", "),
        );
    }
    text
}

fn fresh(report: &Report, plot: &str) -> String {
    let series = [
        Series::Payonce,
        Series::Against,
        Series::Yardstick,
        Series::PayonceAlone,
        Series::TwoPhase,
        Series::Reference,
        Series::Pgbench,
    ];
    if report.connections_of(Series::Payonce).is_empty() {
        return String::new();
    }
    let tried: Vec<String> = report
        .plan
        .reference_pools
        .iter()
        .map(u32::to_string)
        .collect();
    let pools = |best: &[ReferencePool]| -> String {
        let best: Vec<String> = best
            .iter()
            .map(|best| format!("{} at {}", best.pool, best.connections))
            .collect();
        best.join(", ")
    };
    format!(
        "## New payments\n\n![New payments a second by connections]({plot})\n\n{}\n\
         The per-request handlers' pools, the best of {} connections at each step:\n\
         {} in one phase; {} in two.\n\
         Groups of one were measured in the first round alone. pgbench at numbers of clients that were not the best was measured\n\
         once, for {} s at most.",
        runs_table(report, &series),
        tried.join(" and "),
        pools(&report.reference_pools),
        pools(&report.two_phase_pools),
        report.plan.duration.as_secs_f64().min(2.0),
    )
}

fn table_under_load(report: &Report) -> String {
    report.table.as_ref().map_or(String::new(), |table| {
        format!(
            "After these {} payments in payonce's tables: {:.1} % of the updates of `idempotency_keys` were HOT, {:.1} % of those of\n\
             `payments`; a key takes {:.0} bytes of `idempotency_keys` and {:.0} bytes of its indexes.",
            thousands(table.keys),
            table.keys_hot_percent,
            table.payments_hot_percent,
            table.heap_bytes_per_key,
            table.index_bytes_per_key,
        )
    })
}

fn many_keys(report: &Report) -> String {
    report.many_keys.as_ref().map_or(String::new(), |many| {
        format!(
            "## Many keys\n\n{}\n{} keys and their payments: {:.1} GiB of tables and {:.1} GiB of indexes, filled in {:.0} s.",
            runs_table(report, &[Series::EmptyTable, Series::ManyKeys]),
            thousands(many.keys),
            many.heap_gib,
            many.indexes_gib,
            many.fill_seconds,
        )
    })
}

fn replays(report: &Report) -> String {
    if report.connections_of(Series::HotKeys).is_empty() {
        return String::new();
    }
    let series = [
        Series::HotKeys,
        Series::OneKey,
        Series::Bare,
        Series::ColdKeys,
        Series::SelectOne,
    ];
    format!("## Replays\n\n{}", runs_table(report, &series))
}

fn storms(report: &Report) -> String {
    if report.storms.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## A storm of duplicates\n\n\
         The same request on 1,000 connections at once, over a gateway that takes 200 ms.\n\n\
         | storm | first answer ms | last answer after it ms | gateway calls | connections to the database |\n\
         | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (number, storm) in report.storms.iter().enumerate() {
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {} | {} |",
            number + 1,
            storm.first_answer_ms,
            storm.last_after_first_ms,
            storm.gateway_calls,
            storm.database_connections,
        );
    }
    text
}

fn gateway(report: &Report) -> String {
    if report.gateway.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## Added to the gateway's time\n\n\
         {} payments a second over a gateway that takes 100 ms; its 100 ms are taken off.\n\n\
         | round | payments | p50 ms | p99 ms |\n| ---: | ---: | ---: | ---: |\n",
        report.plan.steady_rate
    );
    for (number, added) in report.gateway.iter().enumerate() {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} |",
            number + 1,
            thousands(added.payments),
            added.p50_ms,
            added.p99_ms,
        );
    }
    text
}

fn cleanup(report: &Report) -> String {
    let Some(first) = report.cleanup.first() else {
        return String::new();
    };
    let mut text = format!(
        "## Clean-up\n\n\
         {} expired keys, deleted by `payonce-cleanup` and by a plain `delete … where expires_at < now()`; and {} payments a second\n\
         beside `payonce-cleanup`, and as long without it.\n\n\
         | round | payonce-cleanup, rows/s | plain DELETE, rows/s | payments' p50, p99 ms with it | without |\n\
         | ---: | ---: | ---: | --- | --- |\n",
        thousands(first.rows),
        report.plan.steady_rate,
    );
    for (number, round) in report.cleanup.iter().enumerate() {
        let waits = |waits: &Latency| format!("{:.1}, {:.1}", waits.p50_ms, waits.p99_ms);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            number + 1,
            thousands(round.payonce_per_second as u64),
            thousands(round.plain_per_second as u64),
            waits(&round.with),
            waits(&round.without),
        );
    }
    text
}

fn layer(report: &Report) -> String {
    if report.connections_of(Series::Wrapped).is_empty() {
        return String::new();
    }
    let series = [
        Series::Wrapped,
        Series::Unwrapped,
        Series::WrappedReplays,
        Series::UnwrappedReads,
    ];
    let memory: Vec<String> = report
        .layer_memory_mib
        .iter()
        .map(|memory| format!("{memory:.0}"))
        .collect();
    format!(
        "## A handler in one line\n\n{}\nThe wrapped handler's memory after each quarter of {} further requests, all with new keys: {} MiB.",
        runs_table(report, &series),
        thousands(report.plan.layer_requests),
        memory.join(", "),
    )
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let memory = machine
        .memory_gib
        .map_or(String::new(), |gib| format!(", {gib:.0} GiB of memory"));
    let mut text = format!(
        "## The machine\n\n\
         {} × {}{memory}, {}; PostgreSQL {} with `shared_buffers` {} and `max_wal_size` {}. {} rounds of {} s after {} s of warm-up,\n\
         a generator of {} threads.\n\n\
         `pg_test_fsync`, one 8 kB write ({}; the server uses `{}`, {} a second):\n\n| method | a second |\n| --- | ---: |\n",
        machine.cores,
        machine.cpu,
        machine.system,
        machine.postgresql,
        machine.shared_buffers,
        machine.max_wal_size,
        report.plan.rounds,
        report.plan.duration.as_secs_f64(),
        report.plan.warm_up.as_secs_f64(),
        report.plan.threads,
        match report.fsync.beside_the_data {
            true => "beside the server's data",
            false => "not beside the server's data, which cannot be reached",
        },
        report.fsync.server_method,
        report
            .fsync
            .server_rate()
            .map_or("unknown".to_owned(), |rate| thousands(rate.round() as u64)),
    );
    for (method, rate) in &report.fsync.methods {
        let _ = writeln!(text, "| {method} | {} |", thousands(rate.round() as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn figures_are_medians_and_a_ratio_says_whether_it_holds() {
        let text = markdown(&sample::report(), "plot.svg");
        let line = |start: &str| {
            text.lines()
                .find(|line| line.starts_with(start))
                .unwrap_or_default()
        };
        assert!(line("| payonce | 32 | 9,000 | 1.5 | 3.0 | 4.0 | 2 |").ends_with(" – | – | – |"));
        // Three rounds: 9,000 over 3,000, 8,000 over 4,000, 10,000 over 2,000.
        let ratio =
            line("| new payments, 32 connections, over the reference handler in one phase |");
        assert!(
            ratio.ends_with("| ≥ 1.5 × | 3.00 × | ✓ | 3.00, 2.00, 5.00 |"),
            "{ratio}"
        );
        let ratio = line("| HOT updates of `payments` |");
        assert!(
            ratio.ends_with("| ≥ 95 % | 90.0 % | ✗ | 90.00 |"),
            "{ratio}"
        );
        assert!(text.contains("](plot.svg)"));
    }

    #[test]
    fn what_was_not_measured_is_left_out_and_a_quick_run_is_marked() {
        let mut report = sample::report();
        let marked =
            |report: &Report| markdown(report, "plot.svg").contains("Its figures mean nothing");
        assert!(!marked(&report));
        report.plan.quick = true;
        assert!(marked(&report));
        let text = markdown(&report, "plot.svg");
        for absent in [
            "## Replays",
            "## Many keys",
            "## Clean-up",
            "over the bare endpoint",
            "128 connections",
        ] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}

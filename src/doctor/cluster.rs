//! The nodes of a cluster that the tables are distributed over: each is a PostgreSQL with settings of its own.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Finding, Verdict};
use crate::database::{ClusterNode, NodeSettings, OLDEST_VERSION, cluster_nodes};

/// Leases and expiry are compared with the clock of the node that has the row, or of the one that the statement came through.
const LARGEST_SOUND_DIFFERENCE: Duration = Duration::from_secs(1);

/// Returns no finding if the tables are on one server.
pub(super) async fn examine(connection: &mut PgConnection, allow_unsafe: bool) -> Vec<Finding> {
    let began = Instant::now();
    match cluster_nodes(connection).await {
        Ok(nodes) if nodes.is_empty() => Vec::new(),
        Ok(nodes) => judge(&nodes, began.elapsed(), allow_unsafe),
        Err(error) => vec![Finding::or_unseen("cluster", Err(error))],
    }
}

fn judge(nodes: &[ClusterNode], asked_for: Duration, allow_unsafe: bool) -> Vec<Finding> {
    let answered: Vec<(&str, &NodeSettings)> = nodes
        .iter()
        .filter_map(|node| Some((node.address.as_str(), node.settings.as_ref().ok()?)))
        .collect();
    vec![
        reach(nodes),
        durability(&answered, allow_unsafe),
        versions(&answered),
        clocks(&answered, asked_for),
        time_outs(&answered),
    ]
}

fn reach(nodes: &[ClusterNode]) -> Finding {
    const NAME: &str = "cluster-nodes";
    let lost: Vec<String> = nodes
        .iter()
        .filter_map(|node| {
            let error = node.settings.as_ref().err()?;
            Some(format!("{} ({error})", node.address))
        })
        .collect();
    if lost.is_empty() {
        return Finding::ok(NAME, format!("all {} answer", nodes.len()));
    }
    Finding::problem(
        NAME,
        format!("no answer from {}", lost.join(", ")),
        "start them, or promote their standbys: the merchants whose rows are there get 503",
    )
}

fn durability(nodes: &[(&str, &NodeSettings)], allow_unsafe: bool) -> Finding {
    const NAME: &str = "cluster-durability";
    let off: Vec<String> = nodes
        .iter()
        .flat_map(|(address, settings)| {
            let off = settings.off.iter();
            off.map(move |name| format!("{name} on {address}"))
        })
        .collect();
    if off.is_empty() {
        return Finding::ok(NAME, "on, on every node");
    }
    let found = format!(
        "off: {}: the node may lose confirmed commits",
        off.join(", ")
    );
    let finding = Finding::problem(
        NAME,
        found,
        "turn it on there, and restart or reload the node",
    );
    if allow_unsafe {
        return Finding {
            verdict: Verdict::Warning,
            ..finding
        };
    }
    finding
}

fn versions(nodes: &[(&str, &NodeSettings)]) -> Finding {
    const NAME: &str = "cluster-versions";
    let list = |nodes: &[(&str, u32)]| {
        let nodes = nodes
            .iter()
            .map(|(address, major)| format!("{major} on {address}"));
        nodes.collect::<Vec<_>>().join(", ")
    };
    let majors: Vec<(&str, u32)> = nodes
        .iter()
        .map(|(address, settings)| (*address, settings.version / 10_000))
        .collect();
    let old: Vec<(&str, u32)> = majors
        .iter()
        .copied()
        .filter(|(_, major)| *major < OLDEST_VERSION)
        .collect();
    if !old.is_empty() {
        let advice = format!("payonce needs PostgreSQL {OLDEST_VERSION} or later on every node");
        return Finding::problem(NAME, list(&old), advice);
    }
    let first = majors.first().map(|(_, major)| *major);
    if majors.iter().all(|(_, major)| Some(*major) == first) {
        return Finding::ok(
            NAME,
            first.map_or_else(String::new, |major| {
                format!("PostgreSQL {major} on every node")
            }),
        );
    }
    Finding::warning(NAME, list(&majors), "upgrade the others, too")
}

fn clocks(nodes: &[(&str, &NodeSettings)], asked_for: Duration) -> Finding {
    const NAME: &str = "cluster-clocks";
    let clock = |node: &&(&str, &NodeSettings)| node.1.clock;
    let by_clock =
        |a: &&(&str, &NodeSettings), b: &&(&str, &NodeSettings)| clock(a).total_cmp(&clock(b));
    let (Some(earliest), Some(latest)) =
        (nodes.iter().min_by(by_clock), nodes.iter().max_by(by_clock))
    else {
        return Finding::ok(NAME, "no node answers");
    };
    let difference =
        Duration::try_from_secs_f64(latest.1.clock - earliest.1.clock).unwrap_or_default();
    let found = format!(
        "{} is {} ms behind {}, at most; they were asked within {} ms",
        earliest.0,
        difference.as_millis(),
        latest.0,
        asked_for.as_millis()
    );
    if difference.saturating_sub(asked_for) > LARGEST_SOUND_DIFFERENCE {
        return Finding::problem(
            NAME,
            found,
            "keep the nodes' clocks by NTP: a lease may seem to be over on one node while it is renewed through another",
        );
    }
    Finding::ok(NAME, found)
}

fn time_outs(nodes: &[(&str, &NodeSettings)]) -> Finding {
    const NAME: &str = "cluster-time-outs";
    let without: Vec<&str> = nodes
        .iter()
        .filter(|(_, settings)| settings.statement_timeout == 0 || settings.lock_timeout == 0)
        .map(|(address, _)| *address)
        .collect();
    if without.is_empty() {
        return Finding::ok(NAME, "the role has its time-outs on every node");
    }
    Finding::warning(
        NAME,
        format!(
            "the role has no statement_timeout or lock_timeout on {}",
            without.join(", ")
        ),
        "a session's settings do not reach the nodes, the role's do: alter role … set lock_timeout = '3s'; \
         alter role … set statement_timeout = '5s' (docs/SCALING.md)",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A node that answers, with one of its settings changed.
    fn node(address: &str, name: &str, value: Value) -> ClusterNode {
        let mut settings = json!({
            "off": [],
            "version": 150_018,
            "clock": 1_700_000_000.0,
            "statement_timeout": 5000,
            "lock_timeout": 3000,
        });
        settings[name] = value;
        ClusterNode {
            address: address.to_owned(),
            settings: serde_json::from_value(settings).map_err(|error| error.to_string()),
        }
    }

    fn found(nodes: &[ClusterNode]) -> Vec<(&'static str, Verdict, String)> {
        let findings = judge(nodes, Duration::from_millis(100), false);
        let findings = findings.into_iter().filter(|it| it.verdict != Verdict::Ok);
        findings.map(|it| (it.name, it.verdict, it.found)).collect()
    }

    #[test]
    fn each_thing_that_a_node_lacks_is_found_and_the_node_is_named() {
        let sound = node("a:1", "version", json!(150_018));
        assert_eq!(found(&[sound.clone(), sound.clone()]), []);
        for (name, value, check, verdict) in [
            (
                "off",
                json!(["fsync"]),
                "cluster-durability",
                Verdict::Problem,
            ),
            (
                "version",
                json!(130_022),
                "cluster-versions",
                Verdict::Problem,
            ),
            (
                "version",
                json!(160_001),
                "cluster-versions",
                Verdict::Warning,
            ),
            (
                "clock",
                json!(1_700_000_001.2),
                "cluster-clocks",
                Verdict::Problem,
            ),
            (
                "lock_timeout",
                json!(0),
                "cluster-time-outs",
                Verdict::Warning,
            ),
            (
                "statement_timeout",
                json!(0),
                "cluster-time-outs",
                Verdict::Warning,
            ),
        ] {
            let found = found(&[sound.clone(), node("b:2", name, value)]);
            let [(found_by, found_verdict, text)] = &found[..] else {
                panic!("{name}: {found:?}");
            };
            assert_eq!((*found_by, *found_verdict), (check, verdict), "{name}");
            assert!(text.contains("b:2"), "{text}");
        }
        let lost = ClusterNode {
            address: "b:2".to_owned(),
            settings: Err("connection refused".to_owned()),
        };
        let (name, verdict, text) = found(&[sound, lost]).remove(0);
        assert_eq!((name, verdict), ("cluster-nodes", Verdict::Problem));
        assert!(text.contains("b:2 (connection refused)"), "{text}");
    }

    #[test]
    fn a_difference_that_the_question_itself_took_is_none() {
        let nodes = [
            node("a:1", "clock", json!(1_700_000_000.0)),
            node("b:2", "clock", json!(1_700_000_001.09)),
        ];
        assert_eq!(found(&nodes), []);
    }
}

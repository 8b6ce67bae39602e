//! Each metric is described once, in the room that raises it.

use std::collections::{BTreeMap, BTreeSet};

use super::source::sources;

/// The metrics' names that follow a macro: `counter!("…"`.
fn named_by<'a>(source: &'a str, macros: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    macros.iter().flat_map(move |name| {
        source.match_indices(name).filter_map(|(at, start)| {
            let is_whole = !source[..at].ends_with('_');
            let name = source[at + start.len()..].trim_start().strip_prefix('"')?;
            is_whole.then(|| name.split('"').next().unwrap_or_default())
        })
    })
}

#[test]
fn each_metric_is_described_where_it_is_raised() {
    let raising = ["counter!(", "gauge!(", "histogram!("];
    let describing = [
        "describe_counter!(",
        "describe_gauge!(",
        "describe_histogram!(",
    ];
    let mut raised = BTreeSet::new();
    let mut described: BTreeMap<(String, String), usize> = BTreeMap::new();
    for folder in ["src", "engine/src"] {
        for source in sources(folder) {
            let room: Vec<_> = source
                .path
                .iter()
                .take(2)
                .map(|part| part.to_string_lossy())
                .collect();
            let room = room.join("/");
            let source = source.lines.join("\n");
            for name in named_by(&source, &raising).filter(|name| name.starts_with("payonce_")) {
                raised.insert((room.clone(), name.to_owned()));
            }
            for name in named_by(&source, &describing) {
                *described
                    .entry((room.clone(), name.to_owned()))
                    .or_default() += 1;
            }
        }
    }
    assert!(raised.len() > 15, "{raised:?}");
    for metric in &raised {
        assert_eq!(described.get(metric), Some(&1), "{metric:?}");
    }
    assert_eq!(raised, described.into_keys().collect());
}

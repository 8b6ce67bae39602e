//! The metrics that Prometheus would find, and those that an expression needs.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::{AggregateExpr, Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};

/// The labels that Prometheus adds to each sample.
const ADDED_LABELS: [&str; 2] = ["instance", "job"];

/// One line of the text format.
pub struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
}

/// The lines of the text format, without their values.
pub fn samples(text: &str) -> Vec<Sample> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let (series, _value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    };
    let labels = labels.trim_end_matches('"').split("\",");
    let labels = labels.filter_map(|label| label.split_once("=\""));
    Sample {
        name: name.to_owned(),
        labels: labels
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// The parts of an expression that no sample has: a metric's name, a label, or a label's value.
pub fn missing(expression: &str, samples: &[Sample]) -> Vec<String> {
    let parsed = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut asked = Asked {
        samples,
        missing: Vec::new(),
    };
    walk_expr(&mut asked, &parsed).expect("walking cannot fail");
    asked.missing
}

/// The names of all metrics in an expression.
pub fn names(expression: &str) -> BTreeSet<String> {
    let parsed = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut names = Names(BTreeSet::new());
    walk_expr(&mut names, &parsed).expect("walking cannot fail");
    names.0
}

fn selector(expression: &Expr) -> Option<&VectorSelector> {
    match expression {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.vs),
        _ => None,
    }
}

struct Names(BTreeSet<String>);

impl ExprVisitor for Names {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        self.0
            .extend(selector(expression).and_then(|selector| selector.name.clone()));
        Ok(true)
    }
}

struct Asked<'a> {
    samples: &'a [Sample],
    missing: Vec<String>,
}

impl Asked<'_> {
    fn select(&mut self, selector: &VectorSelector) {
        let name = selector.name.as_deref().expect("a metric's name");
        // Prometheus's own metric: whether it could scrape the target.
        if name == "up" {
            return;
        }
        let found = self.samples.iter().any(|sample| {
            let matchers = &selector.matchers.matchers;
            sample.name == name
                && matchers.iter().all(|matcher| {
                    let value = sample.labels.get(&matcher.name);
                    value.is_some_and(|value| matcher.is_match(value))
                })
        });
        if !found {
            self.missing.push(format!("{name}{}", selector.matchers));
        }
    }

    fn group(&mut self, aggregate: &AggregateExpr) {
        let Some(modifier) = &aggregate.modifier else {
            return;
        };
        let mut inner = Names(BTreeSet::new());
        walk_expr(&mut inner, &aggregate.expr).expect("walking cannot fail");
        for name in inner.0 {
            for label in &modifier.labels().labels {
                let is_there = ADDED_LABELS.contains(&label.as_str())
                    || self
                        .samples
                        .iter()
                        .any(|sample| sample.name == name && sample.labels.contains_key(label));
                if !is_there {
                    self.missing.push(format!("label {label} of {name}"));
                }
            }
        }
    }
}

impl ExprVisitor for Asked<'_> {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        if let Some(selector) = selector(expression) {
            self.select(selector);
        }
        if let Expr::Aggregate(aggregate) = expression {
            self.group(aggregate);
        }
        Ok(true)
    }
}

//! None of the project's statements breaks the rules for a schema that is distributed by merchant (docs/SCALING.md, "A database
//! over several machines").

pub mod distribution;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use distribution::{Statement, breaches};

/// Statements that query every node. None of them is on the path of a payment.
const OVER_ALL_MERCHANTS: [&str; 20] = [
    // The clean-up: lists, counts and deletes expired keys.
    "select merchant_id, operation, key, expires_at from idempotency_keys where expires_at >=",
    "select count(*) as \"count!\" from idempotency_keys where expires_at >=",
    "select expires_at from idempotency_keys where expires_at >=",
    "select expires_at, extract(epoch from now() - expires_at)::float8",
    "delete from idempotency_keys where expires_at >=",
    // Recovery: abandoned claims, and the two gauges.
    "select u.merchant_id, u.operation, u.key, u.claimed_at from unsettled_keys u join",
    "select count(*) as \"unsettled!\"",
    // Pending refunds that are due for a check.
    "select r.merchant_id, r.refund_id, r.looks from refunds r join payments p",
    // The command line's lists.
    "select k.merchant_id, k.operation, k.key, k.fingerprint, k.state",
    "select merchant_id, operation, key, fingerprint, state, attempt, lease_expires_at, resource_id, response_status, created_at, completed_at, expires_at from idempotency_keys where $1::text is null",
    // The doctor: abandoned claims, and keys that the clean-up should have deleted.
    "select count(*) as \"count!\", coalesce(extract(epoch from now() - min(u.claimed_at)), 0)::double precision",
    "select count(*) as \"count!\" from ( select expires_at from idempotency_keys where expires_at < now() - $1",
    // The console's searches and its counts, for people.
    "with looked_at as ( select merchant_id, payment_id, idempotency_key",
    "with looked_at as ( select merchant_id, payment_id, state",
    "with looked_at as ( select merchant_id, refund_id",
    "with looked_at as ( select merchant_id, operation, key",
    "with named as ( select merchant_id, operation, key",
    "select merchant_id as \"merchant_id!\", payment_id as \"payment_id!\" from payments",
    "select count(*) as \"processing!\", count(*) filter",
    "select k.merchant_id, k.operation, k.key, k.state, left(encode(k.fingerprint, 'hex'), 16)",
];

/// All that the macros compiled, white space as single spaces.
pub fn statements() -> Vec<String> {
    // The service's and the engine's.
    let files = ["sqlx-data.json", "engine/sqlx-data.json"];
    let texts = files.map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let texts = texts.map(|file| std::fs::read_to_string(file).expect("a file"));
    let data = texts.map(|text| serde_json::from_str::<Value>(&text).expect("JSON"));
    let queries = data
        .iter()
        .flat_map(|data| data.as_object().expect("queries").values());
    queries
        .map(|query| one_line(query["query"].as_str().expect("SQL")))
        .collect()
}

fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn no_statement_asks_what_a_distributed_schema_cannot_do() {
    let statements = statements();
    assert!(statements.len() >= 40, "sqlx-data.json was read");
    let broken: Vec<_> = statements
        .iter()
        .map(|sql| (sql, breaches(sql)))
        .filter(|(_, breaches)| !breaches.is_empty())
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn only_those_statements_ask_every_node_that_have_a_reason() {
    let statements = statements();
    let everywhere: Vec<&String> = statements
        .iter()
        .filter(|sql| Statement::parse(sql).asks_every_node())
        .collect();
    let mut unused: BTreeSet<&str> = OVER_ALL_MERCHANTS.into();
    let mut unknown = Vec::new();
    for sql in everywhere {
        let known = OVER_ALL_MERCHANTS
            .into_iter()
            .find(|beginning| sql.starts_with(beginning));
        match known {
            Some(known) => drop(unused.remove(known)),
            None => unknown.push(sql),
        }
    }
    assert!(unknown.is_empty(), "no merchant is named: {unknown:#?}");
    assert!(unused.is_empty(), "these are no more: {unused:#?}");
}

/// What a cluster's lanes send: each is planned for one node, that of the merchant whose group it is.
#[test]
fn what_a_clusters_lanes_send_is_of_one_node() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/payments/store/of_merchant");
    let files = std::fs::read_dir(folder).expect("a folder");
    let paths = files.map(|file| file.expect("an entry").path());
    let sql: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    assert_eq!(sql.len(), 5, "{sql:?}");
    for path in sql {
        let text = std::fs::read_to_string(&path).expect("a file");
        let statement = Statement::parse(&text);
        assert!(statement.is_of_one_node(), "{}", path.display());
    }
    let many = "update payments p set state = s.state from unnest($1::text[], $2::text[]) as s (merchant_id, state) \
                where p.merchant_id = s.merchant_id";
    assert!(!Statement::parse(many).is_of_one_node());
}

/// The engine claims one key, and the payments' claims claim a group of them with their payments, of any merchants or of one. All
/// write the same columns, and those that replace a record do it by the same rule. The text is there more than once, because a query
/// macro takes string literals or one file, not a fragment of a file.
#[test]
fn all_claims_write_and_replace_a_record_by_one_rule() {
    let statements = statements();
    let columns: Vec<_> = statements.iter().filter_map(|sql| inserted(sql)).collect();
    let [one, other, another] = &columns[..] else {
        panic!("three statements claim keys, not these: {columns:#?}");
    };
    assert_eq!(one, other);
    assert_eq!(one, another);

    let replacements: Vec<_> = statements
        .iter()
        .filter_map(|sql| Replacement::find(sql))
        .collect();
    let [one, other] = &replacements[..] else {
        panic!("two statements replace records, not these: {replacements:#?}");
    };
    assert_eq!(one, other);
    let condition: Vec<_> = one.condition.iter().map(String::as_str).collect();
    assert_eq!(condition, ["expires_at < now()", "state <> 'PROCESSING'"]);
}

/// Payments are settled where their rows are, by their keys, or as those of one merchant, and each way writes the same.
#[test]
fn all_settles_write_the_same_columns() {
    let statements = statements();
    for update in [
        "settled as ( update idempotency_keys k set ",
        "updated as ( update payments p set ",
    ] {
        let written = statements.iter().filter_map(|sql| {
            let (_, assignments) = sql.split_once(update)?;
            Some(assignments.split_once(" from ")?.0)
        });
        let written: Vec<_> = written.collect();
        let [one, other, another] = &written[..] else {
            panic!("three statements settle payments, not these: {written:#?}");
        };
        assert_eq!(one, other);
        assert_eq!(one, another);
    }
}

/// The columns that a claim of keys writes, except `resource_id`: the payments' claim knows it, and the engine learns it later.
fn inserted(sql: &str) -> Option<BTreeSet<&str>> {
    let (_, insert) = sql.split_once("insert into idempotency_keys ")?;
    let (columns, _) = insert.split_once('(')?.1.split_once(')')?;
    Some(items(columns, ",").collect())
}

/// What a claim changes in a record that it replaces, and in which records.
#[derive(Debug, PartialEq)]
struct Replacement<'a> {
    columns: BTreeSet<&'a str>,
    condition: BTreeSet<String>,
}

impl<'a> Replacement<'a> {
    fn find(sql: &'a str) -> Option<Self> {
        let (_, replacement) = sql
            .split_once("on conflict (merchant_id, operation, key) do update set ")
            .or_else(|| sql.split_once("update idempotency_keys set "))?;
        let (assignments, rest) = replacement.split_once(" where ")?;
        if !assignments.contains("created_at = ") {
            return None;
        }
        let (condition, _) = rest.split_once(" returning ")?;
        let columns = items(assignments, ",").filter_map(|it| Some(it.split_once(" = ")?.0));
        // The key is named by the conflict or by the statement itself.
        let condition = items(condition, " and ").filter(|it| !it.contains(" = $"));
        Some(Self {
            columns: columns.collect(),
            condition: condition
                .map(|it| {
                    let plain = it.strip_prefix('(');
                    let plain = plain.and_then(|it| it.strip_suffix(") is true"));
                    let plain = plain.unwrap_or(it);
                    plain
                        .replace("k.", "")
                        .replace("excluded.created_at", "now()")
                })
                .collect(),
        })
    }
}

fn items<'a>(list: &'a str, separator: &'a str) -> impl Iterator<Item = &'a str> {
    let items = list.split(separator).map(str::trim);
    items.filter(|item| !item.starts_with("resource_id"))
}

/// Tests of the rules: statements that Citus refuses are found.
#[test]
fn what_a_distributed_schema_cannot_do_is_recognised() {
    for (sql, breach) in [
        (
            "select key from idempotency_keys where expires_at < now() limit 5 for update skip locked",
            "skip locked; locks rows of many merchants",
        ),
        (
            "select key from idempotency_keys where merchant_id = $1 for update skip locked",
            "skip locked",
        ),
        (
            "with c as (select key from payments where state = $1 for update) select * from c",
            "locks rows of many merchants",
        ),
        (
            "insert into payments as p (merchant_id, state) values ($1, $2) on conflict (merchant_id) do update set state = excluded.state where p.created_at < now()",
            "on conflict … do update calls now",
        ),
        (
            "insert into payments (payment_id) values ($1)",
            "inserts without merchant_id",
        ),
        (
            "update payments set merchant_id = $1 where merchant_id = $2",
            "sets merchant_id",
        ),
        (
            "update payments set updated_at = clock_timestamp() where merchant_id = $1",
            "clock_timestamp is volatile",
        ),
        (
            "update payments set state = $2 where merchant_id = $1 returning now() - created_at",
            "returning calls now",
        ),
        (
            "update refunds set next_look_at = case when $2 = 'PENDING' then now() + $3::interval end where merchant_id = $1",
            "now is inside of a CASE or COALESCE of an update",
        ),
        (
            "update refunds set next_look_at = statement_timestamp() + $2::interval * power(2, looks) where merchant_id = $1",
            "an update computes statement_timestamp with a column",
        ),
        (
            "delete from unsettled_keys u using idempotency_keys k where u.key = k.key",
            "u is not joined by merchant_id; k is not joined by merchant_id",
        ),
        (
            "select 1 from payments p join refunds r on r.payment_id = p.payment_id where p.merchant_id = $1",
            "r is not joined by merchant_id",
        ),
    ] {
        assert_eq!(breaches(sql).join("; "), breach, "{sql}");
    }
    for sql in [
        "select key from idempotency_keys where merchant_id = $1 and key = $2 for update",
        "select 1 from payments p join refunds r on r.merchant_id = p.merchant_id and r.payment_id = p.payment_id",
        "update payments set updated_at = statement_timestamp() where merchant_id = $1 returning updated_at",
        "update refunds set next_look_at = now() + $2::interval, looks = looks + 1 where merchant_id = $1",
    ] {
        assert_eq!(breaches(sql), [""; 0], "{sql}");
    }
}

/// Statements that the macros do not compile are not in sqlx-data.json. They use none of our tables.
#[test]
fn no_table_is_asked_past_the_macros() {
    let mut files = Vec::new();
    for folder in ["src", "engine/src"] {
        rust_files(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut files,
        );
    }
    assert!(files.len() > 50, "the sources were read");
    // A move takes its tables and their columns from the catalog, and refuses Citus.
    files.retain(|file| {
        !file
            .parent()
            .is_some_and(|folder| folder.ends_with("merchants/moves"))
    });
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        let program = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or("");
        let code: Vec<&str> = program
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let code = code.join("\n");
        for call in ["sqlx::query(", "query_scalar(", "query_as(", "raw_sql("] {
            for (at, _) in code.match_indices(call) {
                let argument: String = code[at..].chars().take(400).collect();
                let argument = argument.split(");").next().unwrap_or("");
                for table in distribution::TABLES
                    .into_iter()
                    .chain(distribution::COPIES)
                    .chain(distribution::ON_COORDINATOR)
                {
                    assert!(!argument.contains(table), "{}: {argument}", file.display());
                }
            }
        }
    }
}

fn rust_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            // Files of tests alone.
            && path.file_name().is_some_and(|name| name != "fenced_writes.rs" && name != "tests.rs")
        {
            files.push(path);
        }
    }
}

//! Every statement of the project, with values, in the way of the session that sends it.

use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use super::Installation;

/// A statement and the types of its parameters.
struct Statement {
    sql: String,
    parameters: Vec<String>,
}

fn statements() -> Vec<Statement> {
    let files = ["sqlx-data.json", "engine/sqlx-data.json"];
    let texts = files.map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let texts = texts.map(|file| std::fs::read_to_string(file).expect("a file"));
    let mut statements = Vec::new();
    for text in texts {
        let data: Value = serde_json::from_str(&text).expect("JSON");
        for query in data.as_object().expect("queries").values() {
            let parameters = query["describe"]["parameters"]["Left"].as_array();
            let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            statements.push(Statement {
                sql: query["query"].as_str().expect("SQL").to_owned(),
                parameters: parameters.into_iter().flatten().map(name).collect(),
            });
        }
    }
    statements
}

/// A value of a type. Null where any will do.
fn value(parameter: &str) -> &'static str {
    match parameter {
        "Text" => "'acme'",
        "TextArray" => "array['acme', 'globex']",
        "Int2" | "Int4" | "Int8" => "5",
        "Timestamptz" => "now()",
        "Uuid" => "'01a21b6b-99e4-7200-b3d5-b2ab851ffd0d'",
        "Bytea" => r"'\x00'",
        "Interval" => "interval '1s'",
        "Bool" => "true",
        "Jsonb" => "'{}'",
        "Float8" => "1",
        _ => "null",
    }
}

/// What executing a statement met, unless it was planned: then its values may be refused by a constraint.
async fn refusal(connection: &mut PgConnection, statement: &Statement) -> Option<String> {
    const OF_VALUES: [&str; 2] = ["22", "23"];
    let values: Vec<&str> = statement.parameters.iter().map(|it| value(it)).collect();
    let arguments = match &values[..] {
        [] => String::new(),
        values => format!("({})", values.join(", ")),
    };
    let sql = format!("begin; prepare planned as {}", statement.sql);
    let mut ran = sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut *connection)
        .await;
    if ran.is_ok() {
        let execute = AssertSqlSafe(format!("execute planned{arguments}"));
        ran = sqlx::raw_sql(execute).execute(&mut *connection).await;
    }
    sqlx::raw_sql("rollback; deallocate all")
        .execute(connection)
        .await
        .expect("undone");
    let error = ran.err()?;
    let code = error.as_database_error().and_then(|error| error.code());
    let is_of_values =
        code.is_some_and(|code| OF_VALUES.iter().any(|class| code.starts_with(class)));
    (!is_of_values).then(|| error.to_string())
}

#[tokio::test]
async fn every_statement_is_executed() {
    let Some(installation) = Installation::new("every statement on Citus").await else {
        return;
    };
    let mut connection = installation.connect().await;
    // As the sessions of the pool and of a cluster's lanes.
    sqlx::raw_sql("set plan_cache_mode = force_custom_plan; set jit = off")
        .execute(&mut connection)
        .await
        .expect("set");
    let statements = statements();
    assert!(statements.len() > 80, "{}", statements.len());
    let mut refused = Vec::new();
    for statement in &statements {
        if let Some(error) = refusal(&mut connection, statement).await {
            refused.push((error, &statement.sql));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    drop(connection);
    installation.remove().await;
}

/// How many parts of a statement are sent to nodes, and to how many shards at most.
async fn tasks(connection: &mut PgConnection, sql: &str, arguments: &str) -> Vec<u32> {
    let prepare = AssertSqlSafe(format!("prepare planned as {sql}"));
    sqlx::raw_sql(prepare)
        .execute(&mut *connection)
        .await
        .expect("prepared");
    let explain = AssertSqlSafe(format!("explain (costs off) execute planned({arguments})"));
    let plan: Vec<String> = sqlx::query_scalar(explain)
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .expect("planned");
    sqlx::raw_sql("deallocate planned")
        .execute(connection)
        .await
        .expect("forgotten");
    let counts = plan
        .iter()
        .filter_map(|line| line.trim().strip_prefix("Task Count: "));
    counts
        .map(|count| count.parse().expect("a number"))
        .collect()
}

/// What the lanes send for a group of one merchant: one task on one node, nothing through the coordinator.
#[tokio::test]
async fn a_group_of_one_merchant_is_one_task_a_statement() {
    let Some(installation) = Installation::new("the lanes' statements on Citus").await else {
        return;
    };
    let mut connection = installation.connect().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/payments/store/of_merchant");
    for (file, scalars, arrays) in [
        ("seen.sql", "'acme', 'create_payment'", 1),
        ("claim_unsettled.sql", "'acme', 'create_payment'", 2),
        ("claim_payments.sql", "'acme'", 23),
        (
            "settle.sql",
            "'acme', 'create_payment', '01a21b6b-99e4-7200-b3d5-b2ab851ffd0d'",
            20,
        ),
    ] {
        let sql = std::fs::read_to_string(folder.join(file)).expect("a file");
        let arguments = format!("{scalars}{}", ", null".repeat(arrays));
        let tasks = tasks(&mut connection, &sql, &arguments).await;
        assert_eq!(tasks, [1], "{file}");
    }
    let sql = std::fs::read_to_string(folder.join("claim_keys.sql")).expect("a file");
    let arguments =
        "'acme', 'create_payment', null, null, null, null, 1::smallint, null, null, null";
    assert_eq!(tasks(&mut connection, &sql, arguments).await, [1]);
    drop(connection);
    installation.remove().await;
}

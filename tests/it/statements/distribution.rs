//! The rules for statements on a schema that is distributed by `merchant_id`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    AssignmentTarget, BinaryOperator, Delete, Expr, FromTable, Insert, JoinConstraint,
    JoinOperator, LockClause, NonBlock, OnConflictAction, OnInsert, Query, Select, SetExpr,
    Statement as Parsed, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
    Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// The distributed tables. A merchant's rows of them are together on one node.
pub const TABLES: [&str; 4] = ["idempotency_keys", "unsettled_keys", "payments", "refunds"];

/// The tables that every node has a copy of (`deploy/citus/distribute.sql`).
pub const COPIES: [&str; 3] = ["api_keys", "fingerprint_secrets", "merchants"];

/// The tables that stay on the coordinator, where the other nodes find them. The console's.
pub const ON_COORDINATOR: [&str; 3] = ["operator_actions", "refused_reuses", "traffic_minutes"];

const MERCHANT: &str = "merchant_id";

/// Functions whose value changes within one statement: each node would have its own.
const VOLATILE: [&str; 5] = [
    "clock_timestamp",
    "gen_random_uuid",
    "nextval",
    "random",
    "timeofday",
];

/// Functions of the time. Citus takes their value once, for all nodes, before it sends a statement, where it can.
const OF_THE_TIME: [&str; 3] = ["now", "statement_timestamp", "current_timestamp"];

/// The rules that a statement breaks. Empty if there are none.
pub fn breaches(sql: &str) -> Vec<String> {
    Statement::parse(sql).breaches
}

/// One parsed statement.
#[derive(Default)]
pub struct Statement {
    breaches: Vec<String>,
    reads_a_table: bool,
    names_a_merchant: bool,
    /// A part of it reads or writes a table and does not compare its merchant with a value of its own.
    has_a_part_for_many: bool,
}

impl Statement {
    pub fn parse(sql: &str) -> Self {
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql);
        let parsed = parsed.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut statement = Self::default();
        let ControlFlow::Continue(()) = parsed.visit(&mut statement);
        statement
    }

    /// It uses a table, and no part of it names the merchants of its rows.
    pub fn asks_every_node(&self) -> bool {
        self.reads_a_table && !self.names_a_merchant
    }

    /// Each part of it compares each table's merchant with a parameter, so that one node plans and executes it all.
    pub fn is_of_one_node(&self) -> bool {
        self.reads_a_table && !self.has_a_part_for_many
    }

    fn breach(&mut self, breach: impl Into<String>) {
        self.breaches.push(breach.into());
    }

    /// The tables of one SELECT, UPDATE or DELETE, and its conditions on them.
    fn relate(&mut self, scope: &Scope) {
        self.reads_a_table |= !scope.tables.is_empty();
        self.names_a_merchant |= !scope.tables.is_empty() && scope.names_a_merchant();
        let valued = scope.compared_with_a_value();
        self.has_a_part_for_many |= scope
            .tables
            .iter()
            .any(|(alias, _)| !valued.contains(alias));
        for alias in scope.strangers() {
            self.breach(format!("{alias} is not joined by {MERCHANT}"));
        }
    }
}

/// The relations that stand side by side in one SELECT, UPDATE or DELETE.
#[derive(Default)]
struct Scope<'a> {
    /// Our tables, by alias.
    tables: Vec<(String, &'a str)>,
    /// Everything else: arrays, and the results of other parts of the statement.
    others: Vec<String>,
    /// What must hold, joined by AND.
    conditions: Vec<&'a Expr>,
}

impl<'a> Scope<'a> {
    fn add(&mut self, relations: &'a [TableWithJoins]) {
        for relation in relations {
            self.add_factor(&relation.relation);
            for join in &relation.joins {
                self.add_factor(&join.relation);
                if let JoinOperator::Join(JoinConstraint::On(on))
                | JoinOperator::Inner(JoinConstraint::On(on))
                | JoinOperator::Left(JoinConstraint::On(on)) = &join.join_operator
                {
                    self.require(on);
                }
            }
        }
    }

    fn add_factor(&mut self, factor: &'a TableFactor) {
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => (name.to_string(), alias),
            TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::TableFunction { alias, .. } => (String::new(), alias),
            other => panic!("what is this: {other}"),
        };
        let alias = alias
            .as_ref()
            .map_or_else(|| name.clone(), |alias| alias.name.value.clone());
        match TABLES.into_iter().find(|table| *table == name) {
            Some(table) => self.tables.push((alias, table)),
            None => self.others.push(alias),
        }
    }

    /// What is joined by AND must each hold.
    fn require(&mut self, condition: &'a Expr) {
        match condition {
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And,
                right,
            } => {
                self.require(left);
                self.require(right);
            }
            Expr::Nested(inner) => self.require(inner),
            other => self.conditions.push(other),
        }
    }

    /// The pairs that `a.merchant_id = b.merchant_id` joins; `None` for a parameter.
    fn merchants_compared(&self) -> Vec<(String, Option<String>)> {
        let mut pairs = Vec::new();
        for condition in &self.conditions {
            let Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } = condition
            else {
                continue;
            };
            match (self.merchant_of(left), self.merchant_of(right)) {
                (Some(left), right) => pairs.push((left, right)),
                (None, Some(right)) => pairs.push((right, None)),
                (None, None) => {}
            }
        }
        pairs
    }

    /// Whose `merchant_id` this is.
    fn merchant_of(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Identifier(column) if column.value == MERCHANT => {
                let (alias, _) = self.tables.first()?;
                Some(alias.clone())
            }
            Expr::CompoundIdentifier(parts) => match &parts[..] {
                [relation, column] if column.value == MERCHANT => Some(relation.value.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The merchant is a parameter, or comes from another part of the statement that names it.
    fn names_a_merchant(&self) -> bool {
        self.merchants_compared().iter().any(|(_, other)| {
            other
                .as_ref()
                .is_none_or(|other| self.others.contains(other))
        })
    }

    /// The relations whose merchant is a parameter.
    fn compared_with_a_value(&self) -> Vec<String> {
        let compared = self.merchants_compared().into_iter();
        let with_a_value = compared.filter(|(_, other)| other.is_none());
        with_a_value.map(|(alias, _)| alias).collect()
    }

    /// Our tables that are not joined to the rest by the merchant, and whose merchant is no parameter.
    fn strangers(&self) -> Vec<String> {
        let tables = self.tables.iter().map(|(alias, _)| alias.as_str());
        let all = tables.clone().chain(self.others.iter().map(String::as_str));
        // Each relation's group, to begin with its own; those that are compared become one.
        let mut groups: BTreeMap<&str, usize> = all.zip(0..).collect();
        for (left, right) in self.merchants_compared() {
            let group_of = |alias: &str| groups.get(alias).copied();
            let right = right.as_deref().and_then(group_of);
            if let (Some(left), Some(right)) = (group_of(&left), right) {
                for group in groups.values_mut().filter(|group| **group == right) {
                    *group = left;
                }
            }
        }
        let is_alone = |alias: &str| {
            let group = groups[alias];
            groups.len() > 1 && groups.values().filter(|other| **other == group).count() == 1
        };
        let valued = self.compared_with_a_value();
        let strangers = tables.clone().filter(|alias| {
            let is_apart =
                is_alone(alias) || tables.clone().any(|other| groups[other] != groups[alias]);
            is_apart && !valued.iter().any(|valued| valued == alias)
        });
        strangers.map(str::to_owned).collect()
    }
}

impl Visitor for Statement {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let skips = |lock: &LockClause| lock.nonblock == Some(NonBlock::SkipLocked);
        if query.locks.iter().any(skips) {
            self.breach("skip locked");
        }
        let names_a_merchant = || scope_of(query).is_some_and(|scope| scope.names_a_merchant());
        if !query.locks.is_empty() && !names_a_merchant() {
            self.breach("locks rows of many merchants");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        self.relate(&scope_of_select(select));
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Parsed) -> ControlFlow<Self::Break> {
        match statement {
            Parsed::Insert(insert) => self.insert(insert),
            Parsed::Update(update) => self.update(update),
            Parsed::Delete(delete) => self.delete(delete),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Statement {
    fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(name) = &insert.table else {
            return;
        };
        if !TABLES.contains(&name.to_string().as_str()) {
            return;
        }
        self.reads_a_table = true;
        if !insert
            .columns
            .iter()
            .any(|column| column.to_string() == MERCHANT)
        {
            self.breach(format!("inserts without {MERCHANT}"));
        }
        // Inserted values name their merchant; inserted rows of a SELECT get it from there.
        let is_given = insert
            .source
            .as_ref()
            .is_some_and(|source| matches!(*source.body, SetExpr::Values(_)));
        self.names_a_merchant |= is_given;
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on
            && let OnConflictAction::DoUpdate(update) = &conflict.action
        {
            for call in calls(update) {
                self.breach(format!("on conflict … do update calls {call}"));
            }
        }
        self.writes(insert, &insert.returning);
    }

    /// The rules for every statement that writes.
    fn writes(&mut self, statement: &impl Visit, returning: &impl Visit) {
        for call in calls(statement) {
            if VOLATILE.contains(&call.as_str()) {
                self.breach(format!("{call} is volatile"));
            }
        }
        for call in calls(returning) {
            self.breach(format!("returning calls {call}"));
        }
    }

    fn update(&mut self, update: &Update) {
        let mut scope = Scope::default();
        scope.add(std::slice::from_ref(&update.table));
        if let Some(UpdateTableFromKind::AfterSet(from)) = &update.from {
            scope.add(from);
        }
        if let Some(selection) = &update.selection {
            scope.require(selection);
        }
        self.relate(&scope);
        let sets_merchant = update.assignments.iter().any(|assignment| {
            matches!(&assignment.target, AssignmentTarget::ColumnName(name) if name.to_string() == MERCHANT)
        });
        if sets_merchant {
            self.breach(format!("sets {MERCHANT}"));
        }
        for assignment in &update.assignments {
            self.assigns(&assignment.value);
        }
        self.writes(update, &update.returning);
    }

    /// Citus takes a function's value before it sends an update: not inside of a CASE or COALESCE, and not where a column has a
    /// part in it.
    fn assigns(&mut self, value: &Expr) {
        let of_the_time = |part: &Expr| {
            let calls = calls(part);
            calls
                .into_iter()
                .find(|call| OF_THE_TIME.contains(&call.as_str()))
        };
        let mut parts = Parts::default();
        let ControlFlow::Continue(()) = value.visit(&mut parts);
        for branch in &parts.branches {
            if let Some(call) = of_the_time(branch) {
                self.breach(format!(
                    "{call} is inside of a CASE or COALESCE of an update"
                ));
                return;
            }
        }
        if let (Some(call), true) = (of_the_time(value), parts.has_columns) {
            self.breach(format!("an update computes {call} with a column"));
        }
    }

    fn delete(&mut self, delete: &Delete) {
        let mut scope = Scope::default();
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        scope.add(from);
        if let Some(using) = &delete.using {
            scope.add(using);
        }
        if let Some(selection) = &delete.selection {
            scope.require(selection);
        }
        self.relate(&scope);
        self.writes(delete, &delete.returning);
    }
}

fn scope_of(query: &Query) -> Option<Scope<'_>> {
    match &*query.body {
        SetExpr::Select(select) => Some(scope_of_select(select)),
        _ => None,
    }
}

fn scope_of_select(select: &Select) -> Scope<'_> {
    let mut scope = Scope::default();
    scope.add(&select.from);
    if let Some(selection) = &select.selection {
        scope.require(selection);
    }
    scope
}

/// What an expression is made of.
#[derive(Default)]
struct Parts {
    branches: Vec<Expr>,
    has_columns: bool,
}

impl Visitor for Parts {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        match expression {
            Expr::Case { .. } => self.branches.push(expression.clone()),
            Expr::Function(function) if function.name.to_string() == "coalesce" => {
                self.branches.push(expression.clone());
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.has_columns = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The functions that a part of a statement calls.
fn calls(part: &impl Visit) -> Vec<String> {
    let mut calls = Calls::default();
    let ControlFlow::Continue(()) = part.visit(&mut calls);
    calls.0
}

#[derive(Default)]
struct Calls(Vec<String>);

impl Visitor for Calls {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        if let Expr::Function(function) = expression {
            self.0.push(function.name.to_string());
        }
        ControlFlow::Continue(())
    }
}

//! A model of keys, payments and refunds, and histories of the real service that are checked against it: two nodes on one database,
//! a gateway that fails or holds its answers as the history prescribes, requests that reach both nodes at once, keys that expire,
//! leases that end, clean-ups, recovery passes and nodes that are started again.
//!
//! `make test` runs a fixed number of histories; `MODEL_CASES=500 MODEL_SEED=7` runs others. A history that fails is made shorter:
//! steps are left out for as long as the rest still fails. The shortest one is printed.

mod gateway;
mod history;
mod spec;
mod world;

use std::fmt::Write;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::Answer;

use self::gateway::Turn;
use self::history::{Step, next_step};
use self::spec::{Expected, Model, Reply};
use self::world::World;

const STEPS: usize = 40;

/// Maximum number of runs that make a failing history shorter.
const MAX_SHORTER: usize = 200;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")),
        _ => default,
    }
}

/// A history that differs from the model.
struct Failure {
    steps: Vec<Step>,
    /// The steps and their answers, and what was expected.
    told: String,
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn histories_of_two_nodes_are_the_models(_: PgPoolOptions, database: PgConnectOptions) {
    let (cases, seed) = (number("MODEL_CASES", 20), number("MODEL_SEED", 20_261_126));
    let mut world = World::new(database).await;
    for seed in seed..seed.saturating_add(cases) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut left = STEPS;
        let next = |model: &Model| {
            left = left.checked_sub(1)?;
            Some(next_step(&mut rng, model))
        };
        if let Err(failure) = run(&mut world, next).await {
            let all = failure.steps.len();
            let shortest = shortened(&mut world, failure).await;
            panic!(
                "MODEL_SEED={seed} MODEL_CASES=1, {} of {all} steps\n{}",
                shortest.steps.len(),
                shortest.told
            );
        }
    }
    world.clear().await;
    world.close().await;
}

/// Leaves out steps, many at once at first, for as long as the rest still fails.
async fn shortened(world: &mut World, mut failure: Failure) -> Failure {
    let mut left = MAX_SHORTER;
    let mut size = failure.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < failure.steps.len() && left > 0 {
            left -= 1;
            let end = (at + size).min(failure.steps.len());
            let mut rest = failure.steps.clone();
            rest.drain(at..end);
            let mut steps = rest.into_iter();
            match run(world, |_| steps.next()).await {
                Err(shorter) => failure = shorter,
                Ok(()) => at = end,
            }
        }
        size /= 2;
    }
    failure
}

/// Runs a history on empty tables, up to its end or its first difference from the model.
async fn run(
    world: &mut World,
    mut next: impl FnMut(&Model) -> Option<Step>,
) -> Result<(), Failure> {
    world.clear().await;
    let (mut model, mut steps, mut told) = (Model::default(), Vec::new(), String::new());
    let mut outcome = Ok(());
    while outcome.is_ok()
        && let Some(step) = next(&model)
    {
        if model.can(&step) {
            let step = model.made_honest(step);
            steps.push(step.clone());
            outcome = check(world, &mut model, &step, &mut told).await;
        }
    }
    if outcome.is_ok() {
        outcome = finish(world, &mut model, &mut told).await;
    }
    outcome.map_err(|difference| Failure {
        steps,
        told: format!("{told}{difference}"),
    })
}

async fn check(
    world: &mut World,
    model: &mut Model,
    step: &Step,
    told: &mut String,
) -> Result<(), String> {
    writeln!(told, "{step:?}").expect("a string");
    let before = world.calls();
    match step {
        Step::Send {
            request,
            node,
            turn,
        } => {
            let answer = world.send(request, *node, *turn).await;
            let Reply::Answer(expected) = model.request(request, *node, Some(*turn)) else {
                unreachable!("nothing is held");
            };
            heard(model, &answer, &expected, world.calls() - before, told)?;
        }
        Step::Hold { request, node } => {
            let answer = world.hold(request, *node).await;
            match (model.request(request, *node, None), answer) {
                (Reply::Held, None) => {}
                (Reply::Held, Some(answer)) => {
                    return Err(format!("answered without a call: {}", shown(&answer)));
                }
                (Reply::Answer(expected), None) => {
                    return Err(format!("a call; {expected:#?} was expected"));
                }
                (Reply::Answer(expected), Some(answer)) => {
                    heard(model, &answer, &expected, world.calls() - before, told)?;
                }
            }
        }
        Step::Open { node, turn } => {
            let answer = world.open(*node, *turn).await;
            let expected = model.open(*node, *turn);
            heard(model, &answer, &expected, world.calls() - before, told)?;
        }
        Step::Race { request, turn } => {
            let (answers, was_slow) = world.race(request, *turn).await;
            let calls = world.calls() - before;
            for answer in &answers {
                writeln!(told, "    {}", shown(answer)).expect("a string");
            }
            let mut possible = model.race(request, *turn, was_slow);
            let fitting = possible.iter_mut().position(|one| {
                one.calls == calls
                    && one.answers.iter().zip(&answers).all(|(expected, answer)| {
                        fits(answer, expected) && one.after.hears(expected, &answer.bytes)
                    })
            });
            match fitting {
                Some(one) => *model = possible.swap_remove(one).after,
                None => return Err(format!("{calls} calls; possible were {possible:#?}")),
            }
        }
        Step::Recover { node, turn } => {
            world.recover(*node, *turn).await;
            let (calls, expected) = (world.calls() - before, model.recover(*node, *turn));
            if calls != expected {
                return Err(format!("{calls} calls; {expected} were expected"));
            }
        }
        Step::CleanUp { node } => {
            let (deleted, expected) = (world.clean_up(*node).await, model.clean_up());
            if deleted != expected {
                return Err(format!("{deleted} keys deleted; {expected} were expected"));
            }
        }
        Step::Expire | Step::ExpireAll => {
            let with_unfinished = matches!(step, Step::ExpireAll);
            world.expire(with_unfinished).await;
            model.expire(with_unfinished);
        }
        Step::EndLeases => {
            world.end_leases().await;
            model.end_leases();
        }
        Step::Restart { node } => {
            world.restart(*node).await;
            model.restart(*node);
        }
    }
    rows(world, model).await
}

async fn rows(world: &World, model: &Model) -> Result<(), String> {
    let (payments, expected) = (world.payments().await, model.views());
    if payments != expected {
        return Err(format!(
            "the payments are {payments:#?}; {expected:#?} were expected"
        ));
    }
    let (keys, expected) = (world.keys().await, model.keys());
    if keys != expected {
        return Err(format!(
            "the keys are {keys:#?}; {expected:#?} were expected"
        ));
    }
    let (unsettled, expected) = (world.unsettled().await, model.unfinished().len());
    match unsettled == expected {
        true => Ok(()),
        false => Err(format!("{unsettled} unsettled; {expected} were expected")),
    }
}

fn heard(
    model: &mut Model,
    answer: &Answer,
    expected: &Expected,
    calls: usize,
    told: &mut String,
) -> Result<(), String> {
    writeln!(told, "    {}", shown(answer)).expect("a string");
    if expected.calls != calls || !fits(answer, expected) {
        return Err(format!("{calls} calls; {expected:#?} was expected"));
    }
    match model.hears(expected, &answer.bytes) {
        true => Ok(()),
        false => Err("other bytes than the first answer's".to_owned()),
    }
}

fn fits(answer: &Answer, expected: &Expected) -> bool {
    expected.status == answer.status.as_u16()
        && expected.replayed == answer.replayed()
        && expected.code.is_none_or(|code| code == answer.text("code"))
}

fn shown(answer: &Answer) -> String {
    let replayed = if answer.replayed() { ", replayed" } else { "" };
    let body = String::from_utf8_lossy(&answer.bytes);
    format!("{}{replayed} {body}", answer.status)
}

/// Ends everything that is under way: answers it, or sends it again after its lease has ended.
async fn finish(world: &mut World, model: &mut Model, told: &mut String) -> Result<(), String> {
    let turn = Turn::Answer;
    let mut last = Vec::new();
    for node in 0..2 {
        last.push(Step::Open { node, turn });
    }
    last.push(Step::EndLeases);
    for request in model.unfinished() {
        let node = 0;
        last.push(Step::Send {
            request,
            node,
            turn,
        });
    }
    for step in last {
        if model.can(&step) {
            let step = model.made_honest(step);
            check(world, model, &step, told).await?;
        }
    }
    match model.unfinished().len() {
        0 => Ok(()),
        left => Err(format!("{left} do not end")),
    }
}

//! A storm: the same request on many connections at once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use super::Connection;
use crate::keys::Key;
use crate::requests::Request;

/// The result of a storm.
#[derive(Debug)]
pub struct Storm {
    /// Answers with 201.
    pub created: u64,
    /// Answers that are not replays.
    pub executed: u64,
    /// Number of different bodies.
    pub bodies: usize,
    /// From the sending to the answer of the one that executed.
    pub first_answer: Duration,
    /// From that answer to the last one.
    pub last_after_first: Duration,
}

/// Opens `count` connections, then sends the same request on all of them.
pub async fn drive(
    to: SocketAddr,
    request: &Request,
    key: &Key,
    count: u32,
) -> anyhow::Result<Storm> {
    let mut opened = Vec::new();
    for _ in 0..count {
        opened.push(Connection::open(to).await?);
    }
    let bytes: std::sync::Arc<[u8]> = request.clone().with_key(key).into();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in opened {
        let bytes = std::sync::Arc::clone(&bytes);
        tasks.spawn(async move {
            let response = connection.exchange(&bytes).await?;
            let arrived = Instant::now();
            let body = connection.last_answer()[response.body_at..].to_vec();
            anyhow::Ok((response, arrived, body))
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer.context("a connection's task panicked")??);
    }
    let executed = |(response, ..): &&(super::response::Response, Instant, Vec<u8>)| {
        response.replayed != Some(true)
    };
    let (_, first, _) = answers
        .iter()
        .find(executed)
        .context("nobody executed the storm's request")?;
    let last = answers.iter().map(|(_, arrived, _)| *arrived).max();
    let count = |matching: usize| u64::try_from(matching).unwrap_or(u64::MAX);
    Ok(Storm {
        created: count(answers.iter().filter(|(r, ..)| r.status == 201).count()),
        executed: count(answers.iter().filter(executed).count()),
        bodies: answers
            .iter()
            .map(|(.., body)| body)
            .collect::<HashSet<_>>()
            .len(),
        first_answer: *first - began,
        last_after_first: last.unwrap_or(*first) - *first,
    })
}

//! The faults of the nodes and the database.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use payonce::idempotency::LONGEST_RECOVERY_PAUSE;
use payonce::merchants::Merchants;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;

use crate::support::gateway::{SECRET_KEY, TestGateway};
use crate::support::pair::Pair;
use crate::support::process::{Server, program, run};

const STOPS_EVERY: Duration = Duration::from_secs(10);

/// The primary is lost, and its standby promoted.
const FAILS_OVER_EVERY: Duration = Duration::from_secs(17);

/// A secret that Stripe does not know.
const WRONG_SECRET: &str = "sk_live_of_somebody_else";

/// Longer than any gateway remembers its idempotency keys.
const A_DAY_AND_MORE: Duration = Duration::from_secs(25 * 60 * 60);

/// The merchant's own accounts at the gateway; `None` is the account of the nodes' secret.
const ACCOUNTS: [Option<&str>; 3] = [None, Some("acct_1"), Some("acct_2")];

/// The error of a node whose fingerprint secret did not sign this database's keys.
const REFUSED: &str = "PAYONCE_FINGERPRINT_SECRET does not fit this database";

/// The nodes' log lines about commits whose answer was lost.
const UNKNOWN_COMMITS: [&str; 2] = [
    "canceling the wait for synchronous replication",
    "the database was lost while an outcome was being stored",
];

/// A claim that is not renewed for this long is taken over.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum duration of a call of the gateway.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(2);

const RECOVERY_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of tries of a claim once the gateway no longer fails: a search of a long list continues from one attempt to the
/// next.
const TRIES: u32 = 20;

/// Maximum time until everything is settled after the faults end, according to the nodes' settings.
pub fn settled_within() -> Duration {
    LONGEST_RECOVERY_PAUSE + (LOCK_TIMEOUT + GATEWAY_TIMEOUT + RECOVERY_INTERVAL) * TRIES
}

/// The present addresses of the two nodes: a restarted node has another port.
pub struct Nodes([Mutex<String>; 2]);

impl Nodes {
    pub fn url(&self, node: usize) -> String {
        self.0[node % self.0.len()].lock().expect("a url").clone()
    }

    fn moved(&self, node: usize, url: &str) {
        url.clone_into(&mut self.0[node].lock().expect("a url"));
    }
}

/// Two nodes, and their faults.
pub struct Storm {
    database: PgConnectOptions,
    gateway: Arc<TestGateway>,
    servers: [Server; 2],
    /// Seconds by which each node's clock is ahead of the machine's.
    clocks: [Clock; 2],
    nodes: Arc<Nodes>,
    /// A process with another gateway. No client uses it, but it looks for abandoned claims like the others.
    _stranger: Server,
    rng: StdRng,
    count: Count,
    past: String,
}

/// Counts of the faults.
#[derive(Default)]
struct Count {
    kills: u32,
    stops: u32,
    pauses: u32,
    failovers: u32,
    cut_offs: u32,
    endings: u32,
    wrong_secrets: u32,
    sleeps: u32,
    silences: u32,
    other_fingerprints: u32,
    moves: u32,
    failed_refunds: usize,
    unknown_commits: usize,
}

/// A file that a node reads: the number of seconds by which its wall clock is ahead, as after a suspension.
struct Clock {
    file: tempfile::NamedTempFile,
    ahead: Duration,
}

impl Clock {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut clock = Self {
            file,
            ahead: Duration::ZERO,
        };
        clock.advance(Duration::ZERO);
        clock
    }

    fn advance(&mut self, by: Duration) {
        self.ahead += by;
        let seconds = self.ahead.as_secs().to_string();
        std::fs::write(self.file.path(), seconds).expect("the clock");
    }
}

impl Storm {
    pub fn new(pair: &Pair, gateway: &Arc<TestGateway>, seed: u64) -> Self {
        let (database, gateway) = (pair.options(), Arc::clone(gateway));
        let clocks = [Clock::new(), Clock::new()];
        let servers = clocks
            .each_ref()
            .map(|clock| node(&database, &gateway, SECRET_KEY, clock));
        let nodes = Nodes(
            servers
                .each_ref()
                .map(|server| Mutex::new(server.url.clone())),
        );
        let stranger = Server::start(&database, &as_texts(&settings()));
        Self {
            database,
            gateway,
            servers,
            clocks,
            nodes: Arc::new(nodes),
            _stranger: stranger,
            rng: StdRng::seed_from_u64(seed ^ 0x5707),
            count: Count::default(),
            past: String::new(),
        }
    }

    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// Kills a node every second or two, stops the database every ten seconds, and loses it every 17 s, with rarer faults in
    /// between. Blocks.
    pub fn rage(&mut self, length: Duration, pair: &mut Pair, runtime: &Handle) {
        self.past.clear();
        let began = Instant::now();
        let (mut stops, mut failovers) = (0, 0);
        while began.elapsed() < length {
            if began.elapsed() >= STOPS_EVERY * (stops + 1) {
                self.stop_the_database(pair);
                stops += 1;
            }
            if began.elapsed() >= FAILS_OVER_EVERY * (failovers + 1) {
                self.lose_the_primary(pair, runtime);
                failovers += 1;
            }
            self.pause(200..1000);
            if self.rng.random_bool(0.3) {
                runtime.block_on(pair.end_sessions());
                self.count.endings += 1;
            }
            let victim = self.rng.random_range(0..self.servers.len());
            match self.rng.random_range(0..100) {
                0..20 => self.stand_still(victim),
                20..45 => self.sleep_for_a_day(victim, runtime),
                45..65 => self.fall_silent(pair),
                65..75 => self.start_with_another_fingerprint_secret(),
                75..95 => self.move_the_merchant(runtime),
                _ => {}
            }
            self.turn_the_refunds();
            self.kill(victim);
            // Sometimes no node is running for a moment.
            if self.rng.random_bool(0.25) {
                self.kill(1 - victim);
                self.start(1 - victim, SECRET_KEY);
            }
            self.pause(0..500);
            if self.rng.random_bool(0.1) {
                self.start(victim, WRONG_SECRET);
                self.count.wrong_secrets += 1;
                self.pause(500..1500);
                self.kill(victim);
            }
            self.start(victim, SECRET_KEY);
        }
        self.gateway.hasten_refunds();
        self.end_refunds();
        let log = self.logs();
        let lost = |text: &&str| log.matches(*text).count();
        self.count.unknown_commits += UNKNOWN_COMMITS.iter().map(lost).sum::<usize>();
    }

    /// A node is stopped while a day passes. In the meantime its claims are taken over and settled, and the gateway forgets their
    /// keys: a call by the node after it continues would be a second one.
    fn sleep_for_a_day(&mut self, node: usize, runtime: &Handle) {
        self.servers[node].signal(Signal::SIGSTOP);
        self.count.sleeps += 1;
        self.pause(2500..4500);
        if let Ok(settled) = runtime.block_on(settled(&self.database)) {
            self.gateway.forget_keys_of(&settled);
        }
        self.clocks[node].advance(A_DAY_AND_MORE);
        self.servers[node].signal(Signal::SIGCONT);
        self.pause(0..300);
    }

    /// The nodes' connections to the database no longer carry data, but are not closed.
    fn fall_silent(&mut self, pair: &Pair) {
        pair.silence();
        self.count.silences += 1;
        self.pause(500..2500);
    }

    /// It must not serve, because it would treat the clients' keys as mismatches.
    fn start_with_another_fingerprint_secret(&mut self) {
        let secret = ("PAYONCE_FINGERPRINT_SECRET", "another secret of the tests");
        let mut command = program("payonce", &self.database);
        command
            .arg("serve")
            .envs(settings())
            .env("PAYONCE_LISTEN", "127.0.0.1:0")
            .env(secret.0, secret.1);
        for _ in 0..10 {
            let output = run(&mut command);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "it served: {said}");
            if said.contains(REFUSED) {
                self.count.other_fingerprints += 1;
                return;
            }
            // The database may be starting.
            assert!(said.contains("database"), "{said}");
        }
        panic!("a node with another fingerprint secret never finds the database");
    }

    /// Changes the merchant's account at the gateway. Payments stay with the account that they started with.
    fn move_the_merchant(&mut self, runtime: &Handle) {
        let account = ACCOUNTS[self.rng.random_range(0..ACCOUNTS.len())];
        let moved = runtime.block_on(async {
            let pool = sqlx::PgPool::connect_with(self.database.clone()).await?;
            let moved = Merchants::new(pool.clone())
                .set_stripe_account("acme", account)
                .await;
            pool.close().await;
            Ok::<_, sqlx::Error>(moved.is_ok())
        });
        self.count.moves += u32::from(moved.is_ok_and(|moved| moved));
    }

    /// Switches between refunds that are pending first and refunds that succeed at once. Of the pending ones, half fail.
    fn turn_the_refunds(&mut self) {
        match self.rng.random_bool(0.5) {
            true => self.gateway.delay_refunds(),
            false => self.gateway.hasten_refunds(),
        }
        if self.rng.random_bool(0.7) {
            self.end_refunds();
        }
    }

    fn end_refunds(&mut self) {
        let succeed = self.rng.random_bool(0.5);
        let ended = self.gateway.end_refunds(succeed);
        self.count.failed_refunds += if succeed { 0 } else { ended };
    }

    /// For longer than the lease, so that its claims are taken over before it continues.
    fn stand_still(&mut self, node: usize) {
        self.servers[node].signal(Signal::SIGSTOP);
        self.count.pauses += 1;
        self.pause(1200..2500);
        self.servers[node].signal(Signal::SIGCONT);
        self.pause(0..300);
    }

    /// The primary dies. Half of the time its standby was cut off before, and sessions that waited for it were terminated: their
    /// commits were visible, and are lost.
    fn lose_the_primary(&mut self, pair: &mut Pair, runtime: &Handle) {
        if self.rng.random_bool(0.5) {
            pair.cut_off();
            self.count.cut_offs += 1;
            for _ in 0..3 {
                self.pause(100..500);
                runtime.block_on(pair.end_sessions());
            }
            self.pause(0..500);
        }
        pair.fail_over();
        self.count.failovers += 1;
        runtime.block_on(pair.renew_standby());
    }

    /// As by a power cut. Half of the time a node dies at the same time.
    fn stop_the_database(&mut self, pair: &Pair) {
        let cluster = pair.primary();
        cluster.down();
        self.count.stops += 1;
        let victim = self
            .rng
            .random_bool(0.5)
            .then(|| self.rng.random_range(0..self.servers.len()));
        if let Some(victim) = victim {
            self.kill(victim);
        }
        self.pause(300..1200);
        cluster.up();
        if let Some(victim) = victim {
            self.start(victim, SECRET_KEY);
        }
    }

    fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(milliseconds)));
    }

    fn kill(&mut self, node: usize) {
        self.servers[node].kill();
        self.count.kills += 1;
    }

    fn start(&mut self, number: usize, secret: &str) {
        let server = node(&self.database, &self.gateway, secret, &self.clocks[number]);
        self.nodes.moved(number, &server.url);
        let dead = std::mem::replace(&mut self.servers[number], server);
        self.past.push_str(&dead.log());
    }

    /// The output of the nodes, including dead ones.
    pub fn logs(&self) -> String {
        let now: String = self.servers.iter().map(Server::log).collect();
        format!("{}{now}", self.past)
    }

    pub fn summary(&self) -> String {
        let Count {
            kills,
            stops,
            pauses,
            failovers,
            cut_offs,
            endings,
            wrong_secrets,
            sleeps,
            silences,
            other_fingerprints,
            moves,
            failed_refunds,
            unknown_commits,
        } = &self.count;
        format!(
            "{kills} kills, {pauses} pauses, {sleeps} sleeps of a day, {stops} database stops, {failovers} failovers ({cut_offs} \
             of a standby that was cut off), all sessions terminated {endings} times, all connections silent {silences} times, \
             {wrong_secrets} starts with a wrong Stripe secret, {other_fingerprints} refused starts with another fingerprint \
             secret, {moves} changes of the merchant's account, {failed_refunds} refunds that failed late, {unknown_commits} \
             unknown commits"
        )
    }
}

fn settings() -> [(&'static str, String); 3] {
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
    [
        ("PAYONCE_GATEWAY_TIMEOUT", milliseconds(GATEWAY_TIMEOUT)),
        ("PAYONCE_LOCK_TIMEOUT", milliseconds(LOCK_TIMEOUT)),
        ("PAYONCE_RECOVERY_INTERVAL", milliseconds(RECOVERY_INTERVAL)),
    ]
}

fn as_texts<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

fn node(database: &PgConnectOptions, gateway: &TestGateway, secret: &str, clock: &Clock) -> Server {
    let (settings, clock) = (settings(), clock.file.path().to_string_lossy());
    let own = [
        ("PAYONCE_STRIPE_SECRET_KEY", secret),
        ("PAYONCE_TEST_CLOCK", clock.as_ref()),
    ];
    let all = [&as_texts(&settings)[..], &own].concat();
    Server::start_on(&gateway.url(), database, &all)
}

/// The payments and refunds for which there will be no further call of the gateway.
async fn settled(database: &PgConnectOptions) -> sqlx::Result<HashSet<String>> {
    let pool = sqlx::PgPool::connect_with(database.clone()).await?;
    let ids: Vec<String> = sqlx::query_scalar(
        "select payment_id from payments
            where state <> 'PROCESSING' and pending_operation is null and updated_at < now() - interval '1 second'
         union all
         select refund_id from refunds where state <> 'PROCESSING' and updated_at < now() - interval '1 second'",
    )
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    Ok(ids.into_iter().collect())
}

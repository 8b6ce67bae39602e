//! What befalls the nodes and the database.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;

use crate::support::gateway::{SECRET_KEY, TestGateway};
use crate::support::pair::Pair;
use crate::support::process::Server;

const STOPS_EVERY: Duration = Duration::from_secs(10);

/// The primary is lost, and its standby promoted.
const FAILS_OVER_EVERY: Duration = Duration::from_secs(17);

/// Stripe does not know it.
const WRONG_SECRET: &str = "sk_live_of_somebody_else";

/// A claim without a sign of life is taken over after this.
const LOCK_TIMEOUT: &str = "1s";

/// Where the two nodes are now: a node that is started again has another port.
pub struct Nodes([Mutex<String>; 2]);

impl Nodes {
    pub fn url(&self, node: usize) -> String {
        self.0[node % self.0.len()].lock().expect("a url").clone()
    }

    fn moved(&self, node: usize, url: &str) {
        url.clone_into(&mut self.0[node].lock().expect("a url"));
    }
}

/// Two nodes, and what is done to them.
pub struct Storm {
    database: PgConnectOptions,
    gateway: String,
    servers: [Server; 2],
    nodes: Arc<Nodes>,
    /// A process whose gateway is another one. No client asks it, but it looks for abandoned claims as the others do.
    _stranger: Server,
    rng: StdRng,
    count: Count,
    past: String,
}

/// How often each befell.
#[derive(Default)]
struct Count {
    kills: u32,
    stops: u32,
    pauses: u32,
    failovers: u32,
    cut_offs: u32,
    endings: u32,
    wrong_secrets: u32,
}

impl Storm {
    pub fn new(pair: &Pair, gateway: &TestGateway, seed: u64) -> Self {
        let (database, gateway) = (pair.options(), gateway.url());
        let servers = [
            node(&database, &gateway, SECRET_KEY),
            node(&database, &gateway, SECRET_KEY),
        ];
        let nodes = Nodes(
            servers
                .each_ref()
                .map(|server| Mutex::new(server.url.clone())),
        );
        let stranger = Server::start(&database, &SETTINGS);
        Self {
            database,
            gateway,
            servers,
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

    /// Kills a node every second or two, stops the database every ten, and loses it for good every 17. Blocks.
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
            self.pause(500..2000);
            if self.rng.random_bool(0.3) {
                runtime.block_on(pair.end_sessions());
                self.count.endings += 1;
            }
            let victim = self.rng.random_range(0..self.servers.len());
            if self.rng.random_bool(0.2) {
                self.stand_still(victim);
            }
            self.kill(victim);
            // Now and then nobody is there for a moment.
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
    }

    /// For longer than the lease, so that its claims are taken over before it wakes.
    fn stand_still(&mut self, node: usize) {
        self.servers[node].signal(Signal::SIGSTOP);
        self.count.pauses += 1;
        self.pause(1200..2500);
        self.servers[node].signal(Signal::SIGCONT);
        self.pause(0..300);
    }

    /// The primary dies. Half of the time its standby was cut off before, and whoever waited for it was terminated: what they
    /// committed is visible, and lost.
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

    /// As by a power cut, half of the time with a node that dies meanwhile.
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
        let server = node(&self.database, &self.gateway, secret);
        self.nodes.moved(number, &server.url);
        let dead = std::mem::replace(&mut self.servers[number], server);
        self.past.push_str(&dead.log());
    }

    /// What the nodes wrote, the dead ones too.
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
        } = &self.count;
        format!(
            "{kills} kills, {pauses} pauses, {stops} database stops, {failovers} failovers ({cut_offs} of a standby that was \
             cut off), all sessions terminated {endings} times, {wrong_secrets} starts with a wrong secret"
        )
    }
}

const SETTINGS: [(&str, &str); 3] = [
    ("PAYONCE_GATEWAY_TIMEOUT", "2s"),
    ("PAYONCE_LOCK_TIMEOUT", LOCK_TIMEOUT),
    ("PAYONCE_RECOVERY_INTERVAL", "200ms"),
];

fn node(database: &PgConnectOptions, gateway: &str, secret: &str) -> Server {
    let secret = [("PAYONCE_STRIPE_SECRET_KEY", secret)];
    Server::start_on(gateway, database, &[&SETTINGS[..], &secret].concat())
}

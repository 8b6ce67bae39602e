//! What befalls the nodes and the database.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnectOptions;

use crate::support::cluster::Cluster;
use crate::support::gateway::TestGateway;
use crate::support::process::Server;

const STOPS_EVERY: Duration = Duration::from_secs(10);

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
    rng: StdRng,
    kills: u32,
    stops: u32,
    past: String,
}

impl Storm {
    pub fn new(cluster: &Cluster, gateway: &TestGateway, seed: u64) -> Self {
        let (database, gateway) = (cluster.options(), gateway.url());
        let servers = [node(&database, &gateway), node(&database, &gateway)];
        let nodes = Nodes(
            servers
                .each_ref()
                .map(|server| Mutex::new(server.url.clone())),
        );
        Self {
            database,
            gateway,
            servers,
            nodes: Arc::new(nodes),
            rng: StdRng::seed_from_u64(seed ^ 0x5707),
            kills: 0,
            stops: 0,
            past: String::new(),
        }
    }

    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// Kills a node every second or two, and stops the database every ten.
    pub fn rage(&mut self, length: Duration, cluster: &Cluster) {
        let began = Instant::now();
        while began.elapsed() < length {
            if began.elapsed() >= STOPS_EVERY * (self.stops + 1) {
                self.stop_the_database(cluster);
            }
            self.pause(500..2000);
            let victim = self.rng.random_range(0..self.servers.len());
            self.kill(victim);
            // Now and then nobody is there for a moment.
            if self.rng.random_bool(0.25) {
                self.kill(1 - victim);
                self.start(1 - victim);
            }
            self.pause(0..500);
            self.start(victim);
        }
    }

    /// As by a power cut, half of the time with a node that dies meanwhile.
    fn stop_the_database(&mut self, cluster: &Cluster) {
        cluster.down();
        self.stops += 1;
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
            self.start(victim);
        }
    }

    fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(milliseconds)));
    }

    fn kill(&mut self, node: usize) {
        self.servers[node].kill();
        self.kills += 1;
    }

    fn start(&mut self, number: usize) {
        let server = node(&self.database, &self.gateway);
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
        format!("{} kills, {} database stops", self.kills, self.stops)
    }
}

fn node(database: &PgConnectOptions, gateway: &str) -> Server {
    Server::start_on(
        gateway,
        database,
        &[
            ("PAYONCE_GATEWAY_TIMEOUT", "2s"),
            ("PAYONCE_LOCK_TIMEOUT", LOCK_TIMEOUT),
            ("PAYONCE_RECOVERY_INTERVAL", "200ms"),
        ],
    )
}

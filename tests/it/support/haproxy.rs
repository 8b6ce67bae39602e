//! HAProxy with `deploy/scaling/haproxy.cfg` in front of two nodes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::deployed;
use super::process::Server;
use super::service::client;

pub const HAPROXY: &str = "/usr/sbin/haproxy";

/// Returns false, and says what is skipped, if there is no HAProxy here.
pub fn is_here(what: &str) -> bool {
    let is_here = Path::new(HAPROXY).exists();
    if !is_here {
        super::skipped::skip(&format!(
            "{what}: no {HAPROXY} here (apt-get install haproxy)"
        ));
    }
    is_here
}

/// HAProxy with the configuration and its variables: where it listens, where it tells its numbers, and the nodes.
pub fn command(listen: &str, metrics: &str, nodes: [&str; 2]) -> Command {
    let mut command = Command::new(HAPROXY);
    command
        .arg("-f")
        .arg(deployed::path("scaling/haproxy.cfg"))
        .env("PAYONCE_PROXY_LISTEN", listen)
        .env("PAYONCE_PROXY_METRICS_LISTEN", metrics)
        .env("PAYONCE_NODE_A", nodes[0])
        .env("PAYONCE_NODE_B", nodes[1]);
    command
}

/// A proxy in front of two nodes; it ends with the test.
pub struct Proxy {
    child: Child,
    pub url: String,
    pub metrics_url: String,
}

impl Proxy {
    /// Returns once both nodes are ready.
    pub async fn start(nodes: [&Server; 2]) -> Self {
        let (listen, metrics) = (free_address(), free_address());
        let nodes = nodes.map(|node| node.url.trim_start_matches("http://"));
        let child = command(&listen, &metrics, nodes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy starts");
        let proxy = Self {
            child,
            url: format!("http://{listen}"),
            metrics_url: format!("http://{metrics}/metrics"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while proxy.ready_nodes().await < 2 {
            assert!(Instant::now() < deadline, "the nodes are not ready");
            super::pause().await;
        }
        proxy
    }

    /// How many nodes it sends requests to.
    async fn ready_nodes(&self) -> usize {
        let up = |line: &&str| {
            line.starts_with("haproxy_server_status{proxy=\"nodes\"")
                && line.ends_with("state=\"UP\"} 1")
        };
        self.metrics().await.lines().filter(up).count()
    }

    /// Its numbers, in Prometheus's text format; nothing before it listens.
    pub async fn metrics(&self) -> String {
        match client().get(&self.metrics_url).send().await {
            Ok(answer) => answer.text().await.expect("text"),
            Err(_) => String::new(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where nobody listens.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", super::free_port())
}

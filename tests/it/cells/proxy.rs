//! HAProxy with `deploy/cells/haproxy.cfg` in front of two cells of two nodes each.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::deployed;
use crate::support::haproxy::{HAPROXY, free_address, is_here};
use crate::support::process::{Server, run};
use crate::support::service::client;

/// HAProxy with the configuration and its variables. `folder` has the maps and the socket.
fn command(folder: &str, listen: &str, metrics: &str, nodes: [&str; 4]) -> Command {
    let mut command = Command::new(HAPROXY);
    command
        .arg("-f")
        .arg(deployed::path("cells/haproxy.cfg"))
        .env("PAYONCE_PROXY_LISTEN", listen)
        .env("PAYONCE_PROXY_METRICS_LISTEN", metrics)
        .env("PAYONCE_PROXY_MAPS", folder)
        .env("PAYONCE_PROXY_SOCKET", format!("{folder}/socket"));
    let variables = ["1_NODE_A", "1_NODE_B", "2_NODE_A", "2_NODE_B"];
    for (variable, node) in variables.into_iter().zip(nodes) {
        command.env(format!("PAYONCE_CELL_{variable}"), node);
    }
    command
}

/// A folder with the maps as they are shipped.
fn maps() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for map in ["cells.map", "moved.map"] {
        let shipped = deployed::path(&format!("cells/{map}"));
        std::fs::copy(shipped, folder.path().join(map)).expect("copied");
    }
    folder
}

/// A proxy in front of two cells; it ends with the test.
pub struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
    pub url: String,
    metrics_url: String,
}

impl Proxy {
    /// Returns once all four nodes are ready.
    pub async fn start(cells: [[&Server; 2]; 2]) -> Self {
        let (listen, metrics) = (free_address(), free_address());
        let [[a, b], [c, d]] = cells;
        let nodes = [a, b, c, d].map(|node| node.url.trim_start_matches("http://"));
        let folder = maps();
        let path = folder.path().to_str().expect("text").to_owned();
        let child = command(&path, &listen, &metrics, nodes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy starts");
        let proxy = Self {
            child,
            folder,
            url: format!("http://{listen}"),
            metrics_url: format!("http://{metrics}/metrics"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while proxy.ready_nodes().await < 4 {
            assert!(Instant::now() < deadline, "the nodes are not ready");
            crate::support::pause().await;
        }
        proxy
    }

    async fn ready_nodes(&self) -> usize {
        let numbers = match client().get(&self.metrics_url).send().await {
            Ok(answer) => answer.text().await.expect("text"),
            Err(_) => String::new(),
        };
        let up = |line: &&str| {
            line.starts_with("haproxy_server_status{proxy=\"cell")
                && line.ends_with("state=\"UP\"} 1")
        };
        numbers.lines().filter(up).count()
    }

    /// Adds lines to the map of moved keys, as an operator does it, and makes sure that they are there.
    pub async fn learn(&self, lines: &[String]) {
        self.order("add map", lines).await;
    }

    /// Changes lines of the map of moved keys.
    pub async fn change(&self, lines: &[String]) {
        self.order("set map", lines).await;
    }

    async fn order(&self, order: &str, lines: &[String]) {
        let map = self.folder.path().join("moved.map");
        let map = map.to_str().expect("text");
        for line in lines {
            let said = self.tell(&format!("{order} {map} {line}")).await;
            assert_eq!(said.trim(), "", "{line}");
        }
        let shown = self.tell(&format!("show map {map}")).await;
        assert!(lines.iter().all(|line| shown.contains(line)), "{shown}");
    }

    async fn tell(&self, order: &str) -> String {
        let path = self.folder.path().join("socket");
        let mut socket = UnixStream::connect(path).await.expect("its socket");
        let order = format!("{order}\n");
        socket.write_all(order.as_bytes()).await.expect("written");
        let mut said = String::new();
        socket.read_to_string(&mut said).await.expect("an answer");
        said
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_configuration_is_good() {
    if !is_here("HAProxy's check of the cells' configuration") {
        return;
    }
    let folder = maps();
    let nodes = [
        "127.0.0.1:8081",
        "127.0.0.1:8082",
        "127.0.0.1:8083",
        "127.0.0.1:8084",
    ];
    let folder = folder.path().to_str().expect("text");
    let checked =
        run(command(folder, "127.0.0.1:8080", "127.0.0.1:8405", nodes).args(["-c", "-V"]));
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && !said.contains("[WARNING]"),
        "{said}"
    );
}

/// What makes it safe to send a request twice is the same as in front of one cell.
#[test]
fn each_cell_is_proxied_as_a_single_one_is() {
    let backend = |file: &str, name: &str| -> Vec<String> {
        let config = deployed::read(file);
        let lines = config
            .lines()
            .skip_while(|line| *line != format!("backend {name}"));
        let lines = lines
            .skip(1)
            .take_while(|line| line.starts_with([' ', '\t']));
        let settings = lines
            .map(str::trim)
            .filter(|line| !line.starts_with(['#']) && !line.starts_with("server "));
        settings
            .map(|line| line.replace(" resolvers docker", ""))
            .collect()
    };
    let one = backend("scaling/haproxy.cfg", "nodes");
    assert!(one.len() >= 7, "{one:?}");
    for cell in ["cell1", "cell2"] {
        assert_eq!(backend("cells/haproxy.cfg", cell), one, "{cell}");
    }
    let defaults = |file: &str| -> Vec<String> {
        let config = deployed::read(file);
        let lines = config.lines().skip_while(|line| *line != "defaults");
        let lines = lines.take_while(|line| !line.is_empty());
        let settings = lines.filter(|line| !line.trim_start().starts_with('#'));
        settings.map(str::to_owned).collect()
    };
    assert_eq!(
        defaults("cells/haproxy.cfg"),
        defaults("scaling/haproxy.cfg")
    );
}

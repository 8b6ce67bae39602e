//! A node as a process of its own, which may die.

use std::env;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use payonce_engine::failpoints::FailScenario;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::app::{Framework, Gates};
use crate::client::PATIENCE;

/// The environment's name of a node's database.
const DATABASE: &str = "PAYONCE_SUITE_DATABASE";

/// What a node says of itself on standard error.
const LISTENING: &str = "node listens on ";

/// A node that runs. It is killed when dropped.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts this program anew, as a node. `failpoints` are its steps to die at, as `claim-before=return`; none where it is empty.
    pub async fn start(database: &PgConnectOptions, failpoints: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program's path"))
            .args(["--exact", "node", "--ignored", "--nocapture"])
            .env(DATABASE, database.to_url_lossy().as_str())
            .env("FAILPOINTS", failpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the node starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its output")).lines();
        let address = async {
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await.expect("its output can be read") {
                match line.strip_prefix(LISTENING) {
                    Some(address) => return address.parse().expect("an address"),
                    None => said.push(line),
                }
            }
            panic!("the node ended: {said:?}")
        };
        let address = timeout(PATIENCE, address)
            .await
            .expect("the node listens in time");
        // What else it says must find a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time")
            .expect("its status")
    }
}

/// A node, until it is killed.
pub fn serve<F: Framework>() {
    let _scenario = FailScenario::setup();
    let database = env::var(DATABASE).expect("a test starts this, with a database");
    let database: PgConnectOptions = database.parse().expect("a URL");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let running = crate::node::<F>(&database, Gates::closed()).await;
        eprintln!("{LISTENING}{}", running.address);
        std::future::pending::<()>().await;
    });
}

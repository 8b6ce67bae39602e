//! Chromium without a screen, driven by its own chromedriver.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};

use crate::support::service::client;

/// The device and the settings of a reader.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    /// `light` or `dark`.
    pub scheme: &'static str,
}

pub const DESKTOP: Look = Look {
    width: 1280,
    height: 900,
    scheme: "light",
};

/// A small phone.
pub const TELEPHONE: Look = Look {
    width: 360,
    height: 740,
    scheme: "dark",
};

/// A browser that is started for a test, and ends with it.
pub struct Chromium {
    pub driver: Client,
    process: Child,
    /// Where chromedriver listens.
    url: String,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The browser is connected to its driver by a pipe, and ends with it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn driver_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromedriver"))
        .find(|program| program.is_file())
}

impl Chromium {
    /// Returns `None`, with a printed message, if there is no chromedriver.
    pub async fn start() -> Option<Self> {
        let Some(program) = driver_program() else {
            crate::support::skipped::skip(
                "the console in a browser: no chromedriver in PATH (apt-get install chromium chromium-driver)",
            );
            return None;
        };
        let mut process = Command::new(program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says its port");
        std::thread::spawn(move || lines.for_each(drop));
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ];
        let mut capabilities = Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), json!({"args": arguments}));
        let url = format!("http://127.0.0.1:{port}");
        let driver = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&url)
            .await
            .expect("Chromium starts");
        Some(Self {
            driver,
            process,
            url,
        })
    }

    pub async fn look(&self, look: Look) {
        let metrics = json!({"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": look.scheme}]});
        self.cdp("Emulation.setEmulatedMedia", scheme).await;
    }

    /// Chromium's own commands, which the standard does not have.
    async fn cdp(&self, method: &str, parameters: Value) {
        let session = self.driver.session_id().await.expect("a session");
        let session = session.expect("an open session");
        let sent = client()
            .post(format!("{}/session/{session}/goog/cdp/execute", self.url))
            .json(&json!({"cmd": method, "params": parameters}))
            .send()
            .await
            .expect("an answer");
        assert!(sent.status().is_success(), "{method}: {sent:?}");
    }

    /// Runs a script in the page, which itself may run none, and returns its result.
    pub async fn find_out(&self, script: &str) -> Value {
        let answer = self.driver.execute(script, Vec::new()).await;
        answer.expect("the script runs")
    }

    /// The same for a script that returns its result by a callback.
    pub async fn find_out_later(&self, script: &str) -> Value {
        let answer = self.driver.execute_async(script, Vec::new()).await;
        answer.expect("the script runs")
    }

    async fn wait_for(&self, what: Locator<'_>) -> Element {
        let found = self.driver.wait().for_element(what).await;
        found.unwrap_or_else(|error| panic!("{what:?} is not on the page: {error}"))
    }

    /// Waits for an element.
    pub async fn see(&self, css: &str) -> Element {
        self.wait_for(Locator::Css(css)).await
    }

    /// Waits for the page of this title.
    pub async fn see_page(&self, title: &str) {
        let is_it = format!("//h1[normalize-space()='{title}']");
        self.wait_for(Locator::XPath(&is_it)).await;
    }

    pub async fn press(&self, css: &str) {
        self.see(css).await.click().await.expect("a click");
    }

    pub async fn follow(&self, link: &str) {
        let found = self.wait_for(Locator::LinkText(link)).await;
        found.click().await.expect("a click");
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.see(css).await;
        field.clear().await.expect("an empty field");
        field.send_keys(text).await.expect("typing");
    }

    /// Types into the focused element.
    pub async fn type_keys(&self, keys: &str) {
        let focused = self.driver.active_element().await.expect("a focus");
        focused.send_keys(keys).await.expect("typing");
    }

    pub async fn tab(&self) {
        self.type_keys(&key(Key::Tab)).await;
    }

    pub async fn text(&self) -> String {
        let main = self.see("main").await;
        main.text().await.expect("its text")
    }
}

/// The code of a key that types no character.
pub fn key(key: Key) -> String {
    char::from(key).to_string()
}

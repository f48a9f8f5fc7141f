//! What does a real browser make of a page?
//!
//! Headless Chromium, asked over the DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::patience;

/// A browser with one page open.
pub struct Browser {
    process: Child,
    devtools: WebSocket<TcpStream>,
    page: String,
    asked: u64,
    /// The documents that were loaded whole.
    loaded: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; `None` if there is no Chromium on `PATH`.
    ///
    /// # Panics
    ///
    /// If Chromium doesn't do as it is told.
    #[must_use]
    pub fn open(url: &str) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(find()?);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
        command.args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("Chromium starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let address = loop {
            let line = lines.next().expect("Chromium says where it listens").expect("text");
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };
        // What it says later is read too, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("Chromium listens");
        stream.set_read_timeout(Some(patience())).expect("a deadline can be set");
        let (devtools, _) = client(&address, stream).expect("Chromium talks");
        let mut browser = Self { process, devtools, page: String::new(), asked: 0, loaded: Vec::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.ask("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.page = session["sessionId"].as_str().expect("a session").to_owned();
        browser.ask("Page.enable", &json!({}));
        browser.ask("Page.setLifecycleEventsEnabled", &json!({ "enabled": true }));
        // The empty page that it began with may be told to be loaded as late.
        let document = browser.ask("Page.navigate", &json!({ "url": url }))["loaderId"].clone();
        while !browser.loaded.contains(&document) {
            browser.hear();
        }
        Some(browser)
    }

    /// What an expression is in the page.
    ///
    /// # Panics
    ///
    /// If it throws.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let answer =
            self.ask("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Panics
    ///
    /// If it never is.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let end = Instant::now() + patience();
        // The page is asked once a frame, so that it gets to run.
        let frame = format!("new Promise(tell => requestAnimationFrame(() => setTimeout(() => tell({expression}))))");
        while self.eval(&frame) != json!(true) {
            assert!(Instant::now() < end, "waited for {expression}; the page says {}", self.eval("document.body.innerText"));
        }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut request = json!({ "id": self.asked, "method": method, "params": params });
        if !self.page.is_empty() {
            request["sessionId"] = self.page.clone().into();
        }
        self.devtools.send(Message::text(request.to_string())).expect("Chromium listens");
        loop {
            let answer = self.hear();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The next that the browser says.
    fn hear(&mut self) -> Value {
        let message = self.devtools.read().expect("Chromium talks on");
        let said: Value = message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        if said["method"] == "Page.lifecycleEvent" && said["params"]["name"] == "load" {
            self.loaded.push(said["params"]["loaderId"].clone());
        }
        said
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().flat_map(|name| places.iter().map(move |place| place.join(name))).find(|path| path.is_file())
}

//! A headless Chromium, driven by its own driver over the `WebDriver` protocol: JSON over HTTP, so
//! no library is needed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any condition may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// A browser with one window; ends with it.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: tempfile::TempDir,
}

/// Where a program is, if it is installed.
fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

impl Browser {
    /// Returns `None` without Chromium, and reports that; panics if `TIMESHARD_BROWSER=required`, as
    /// CI sets it.
    pub(crate) fn start() -> Option<Self> {
        let (Some(chromium), Some(driver)) = (program("chromium"), program("chromedriver")) else {
            let why =
                "no chromium and chromedriver on PATH (apt-get install chromium chromium-driver)";
            let required = std::env::var_os("TIMESHARD_BROWSER").is_some_and(|v| v == "required");
            assert!(!required, "{why}");
            // Written past the test harness, which shows the output of failed tests only.
            let line = format!("SKIPPED the page in a browser: {why}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let started = lines.find_map(|line| {
            line.ok()?
                .strip_prefix("ChromeDriver was started successfully on port ")
                .map(str::to_owned)
        });
        let port = started
            .expect("chromedriver prints its port")
            .trim_end_matches('.')
            .parse()
            .unwrap();
        // It writes on; a closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            profile,
        };
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-color-profile=srgb",
        ];
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.push(format!(
            "--user-data-dir={}",
            browser.profile.path().display()
        ));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call("POST", "/session", &capabilities);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        let (status, text) = exchange(self.port, method, path, &body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let mut value: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        assert!(
            status.contains(" 200 "),
            "{method} {path}: {status}: {}",
            value["value"]["message"]
        );
        value["value"].take()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// What `script`, the body of a function, returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    #[allow(
        clippy::disallowed_methods,
        reason = "the pause of a poll with a deadline"
    )]
    pub(crate) fn until(&self, expression: &str) {
        let start = Instant::now();
        while self.run(&format!("return !!({expression})")) != json!(true) {
            let shown = || {
                self.run("return document.body.innerText.slice(0, 3000)")
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            assert!(
                start.elapsed() <= DEADLINE,
                "in vain: {expression}\n{}",
                shown()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn cdp(&self, command: &str, params: &Value) {
        self.post(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": params}),
        );
    }

    /// As wide as this, at least as high.
    pub(crate) fn size(&self, width: u32, height: u32) {
        let mobile = width < 600;
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        );
    }

    pub(crate) fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        self.cdp(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"}]}),
        );
    }

    /// Keys as the protocol writes them: `\u{e004}` is Tab, `\u{e00d}` space, `\u{e007}` Enter.
    pub(crate) fn keys(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key.to_string()}),
                    json!({"type": "keyUp", "value": key.to_string()}),
                ]
            })
            .collect();
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// New errors and warnings of the console.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let bad = |entry: &Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        log.as_array()
            .unwrap()
            .iter()
            .filter(|entry| bad(entry))
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A picture of the window.
    pub(crate) fn picture(&self, path: &Path) {
        let text = self.call("GET", &format!("{}/screenshot", self.session), &Value::Null);
        std::fs::write(path, base64(text.as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = exchange(self.port, "DELETE", &self.session, "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Returns status line and body. The driver keeps connections open, so Content-Length ends the body.
fn exchange(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(String, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(DEADLINE * 2))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(format!("{head}{body}").as_bytes())?;
    let mut reader = BufReader::new(socket);
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text
        .bytes()
        .filter(|c| *c != b'=' && !c.is_ascii_whitespace())
        .map(digit)
        .collect();
    let bytes = |group: &[u32]| {
        let all = group.iter().fold(0, |all, digit| (all << 6) | digit) << (6 * (4 - group.len()));
        all.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(bytes).collect()
}

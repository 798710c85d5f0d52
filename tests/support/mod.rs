//! A pod without Kubernetes: directories as kubelet makes them, the agent as real processes, its
//! own ports.
//!
//! Every wait has a condition and a deadline; there are no fixed sleeps.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test helper: it may stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use thanos_timeshard::adapters::files::swap_volume;

pub const AGENT: &str = env!("CARGO_BIN_EXE_timeshard-agent");
pub const POD: &str = "store-0";
const DEADLINE: Duration = Duration::from_mins(2);
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The example that stands in for thanos; a plain `cargo test` builds it, `cargo test --test x`
/// does not.
pub fn stand_in() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_stand_in).clone()
}

fn build_stand_in() -> PathBuf {
    let built = Path::new(AGENT)
        .parent()
        .unwrap()
        .join("examples/stand-in-thanos");
    if built.exists() {
        return built;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--locked",
        "--no-default-features",
        "--features=agent",
    ]);
    cargo.args(["--example=stand-in-thanos", "--message-format=json"]);
    // Flags for a static target do not fit the host's build.
    cargo.env_remove("RUSTFLAGS");
    let built = cargo.stderr(Stdio::inherit()).output().unwrap();
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    programs
        .next()
        .expect("cargo build --example=stand-in-thanos")
}

/// Returns a real thanos if the environment names one.
#[allow(
    clippy::disallowed_methods,
    reason = "tests take their knobs from the environment"
)]
pub fn real_thanos() -> Option<PathBuf> {
    let path = std::env::var("TIMESHARD_TEST_THANOS")
        .ok()
        .map(PathBuf::from);
    if path.is_none() {
        println!(
            "skipped: set TIMESHARD_TEST_THANOS to a thanos binary to run this on the real thing"
        );
    }
    path
}

/// Waits until `attempt` succeeds; fails with `what` and the last error otherwise.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(
                Instant::now() < deadline,
                "waited {DEADLINE:?} for {what}: {why}"
            ),
        }
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pause between two looks, never the wait itself"
)]
pub fn pause() {
    std::thread::sleep(RETRY_PAUSE);
}

/// A port that nothing listens on, and that this process has not been given before.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Sends a GET; returns status and body.
pub fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(text)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or("no status")?;
    Ok((code, body.to_owned()))
}

/// A process that the test kills at its end.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.0.wait().unwrap();
    }

    pub fn code(&mut self) -> i32 {
        wait_for("the process to end", || {
            self.0.try_wait().unwrap().ok_or("it runs".to_owned())
        })
        .code()
        .unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Pod {
    pub dir: tempfile::TempDir,
    pub http: u16,
    pub grpc: u16,
    pub port: u16,
    pub sidecar_flags: Vec<String>,
    pub launch_flags: Vec<String>,
    pub command: Vec<OsString>,
}

impl Pod {
    /// Creates a pod with the stand-in as thanos, with these extra flags.
    pub fn stand_in(flags: &[&str]) -> Self {
        let mut pod = Self::new(&stand_in());
        let log = pod.dir.path().join("log");
        pod.command
            .push(format!("--stand-in-log={}", log.display()).into());
        pod.command
            .push(format!("--stand-in-bucket={}", pod.path("bucket").display()).into());
        pod.command
            .push(format!("--data-dir={}", pod.path("data").display()).into());
        pod.command.extend(flags.iter().map(OsString::from));
        pod
    }

    /// Creates a pod with this program as thanos.
    pub fn new(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["config", "shared", "data", "bucket"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let (http, grpc, port) = (free_port(), free_port(), free_port());
        let mut command: Vec<OsString> = vec![program.into(), "store".into()];
        command.push(format!("--http-address=127.0.0.1:{http}").into());
        command.push(format!("--grpc-address=127.0.0.1:{grpc}").into());
        command.extend(["--min-time=-100d".into(), "--max-time=1d".into()]);
        Self {
            dir,
            http,
            grpc,
            port,
            sidecar_flags: ["--drain=0s", "--check-interval=200ms", "--poll-interval=1h"]
                .map(String::from)
                .into(),
            launch_flags: Vec::new(),
            command,
        }
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub fn sidecar(&self) -> Process {
        let mut command = Command::new(AGENT);
        command
            .arg("sidecar")
            .arg("--install")
            .arg(format!("--pod={POD}"));
        command.arg(format!("--config-dir={}", self.path("config").display()));
        command.arg(format!("--shared-dir={}", self.path("shared").display()));
        command.arg(format!("--thanos-url=http://127.0.0.1:{}", self.http));
        command.arg(format!("--grpc-address=127.0.0.1:{}", self.grpc));
        command
            .arg(format!("--listen=127.0.0.1:{}", self.port))
            .args(&self.sidecar_flags);
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("sidecar.log"))
            .unwrap();
        Process(command.stderr(log).spawn().unwrap())
    }

    /// Waits as the startup probe does.
    pub fn wait_started(&self) {
        wait_for("the sidecar's /livez", || get(self.port, "/livez"));
    }

    pub fn launcher(&self) -> Process {
        self.launcher_with(Stdio::from(
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(self.path("launcher.log"))
                .unwrap(),
        ))
    }

    pub fn launcher_with(&self, stderr: Stdio) -> Process {
        let mut command = Command::new(self.path("shared/timeshard-agent"));
        command
            .arg("launch")
            .arg(format!("--shared-dir={}", self.path("shared").display()));
        command
            .args(&self.launch_flags)
            .arg("--")
            .args(&self.command);
        Process(
            command
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .unwrap(),
        )
    }

    /// Starts sidecar and launcher in kubelet's order.
    pub fn start(&self) -> (Process, Process) {
        let sidecar = self.sidecar();
        self.wait_started();
        (sidecar, self.launcher())
    }

    /// Replaces the mounted `ConfigMap`.
    pub fn swap(&mut self, files: &[(&str, &str)]) {
        swap_volume(&self.path("config"), files.iter().copied()).unwrap();
    }

    pub fn publish(&mut self, min: &str, max: &str) {
        let entry = format!("shard: 0\nreplica: 0\nmin_time: {min}\nmax_time: {max}\n");
        self.swap(&[(&format!("{POD}.yaml"), &entry)]);
    }

    /// Puts a block into the stand-in's bucket: of the day that ended `age` days ago, compacted
    /// from blocks of other ages.
    pub fn block(&self, age: u32, sources: &[u32]) -> String {
        let (name, max) = (ulid(age), hour() - i64::from(age) * DAY_MILLIS);
        let sources: Vec<String> = if sources.is_empty() {
            vec![name.clone()]
        } else {
            sources.iter().copied().map(ulid).collect()
        };
        let min = max - DAY_MILLIS * i64::try_from(sources.len()).unwrap();
        let meta = serde_json::json!({
            "ulid": name, "minTime": min, "maxTime": max, "compaction": {"level": 1, "sources": sources},
            "thanos": {"labels": {"cluster": "test"}, "downsample": {"resolution": 0}},
        });
        fs::write(
            self.path("bucket").join(format!("{name}.json")),
            meta.to_string(),
        )
        .unwrap();
        name
    }

    /// Makes a block loadable, or not.
    pub fn breaks(&self, block: &str, broken: bool) {
        let file = self.path("bucket").join(format!("{block}.broken"));
        if broken {
            fs::write(file, "").unwrap();
        } else {
            fs::remove_file(file).unwrap();
        }
    }

    pub fn status(&self) -> Result<Value, String> {
        let (code, body) = get(self.port, "/status")?;
        assert_eq!(code, 200);
        serde_json::from_str(&body).map_err(|error| error.to_string())
    }

    /// Waits until the pod is in `phase` and thanos serves from `min`; returns `/status`.
    pub fn wait(&self, phase: &str, min: &str) -> Value {
        wait_for(&format!("phase {phase} with {min}"), || {
            let status = self.status()?;
            if status["phase"] == phase && status["applied"]["min_time"] == min {
                Ok(status)
            } else {
                Err(format!("{status}\n{}", self.logs()))
            }
        })
    }

    pub fn ready(&self) -> bool {
        get(self.port, "/readyz").is_ok_and(|(code, _)| code == 200)
    }

    pub fn record(&self) -> Value {
        wait_for("the launcher's record", || {
            let text = fs::read_to_string(self.path("shared/launcher.json"))
                .map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
    }

    pub fn logs(&self) -> String {
        ["sidecar.log", "launcher.log"]
            .map(|name| fs::read_to_string(self.path(name)).unwrap_or_default())
            .concat()
    }

    /// Returns the lines of the stand-in's log.
    pub fn said(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

const HOUR_MILLIS: i64 = 3_600_000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// The last full hour. Not midnight: ages of blocks would depend on the time of the day.
fn hour() -> i64 {
    let millis = thanos_timeshard::adapters::clock::unix_seconds() * 1000;
    millis / HOUR_MILLIS * HOUR_MILLIS
}

/// Returns the id of the block that ended `age` days ago; another number of three digits makes
/// another block of the same day.
fn ulid(age: u32) -> String {
    format!("01K1H8R1000000000000000{age:03}")
}

/// Returns the ids that `/status` reports as missing; `None` if unknown.
pub fn missing(status: &Value) -> Option<Vec<String>> {
    let missing = status["blocks"]["missing"].as_array()?;
    Some(
        missing
            .iter()
            .map(|block| block["ulid"].as_str().unwrap().to_owned())
            .collect(),
    )
}

/// Kills the children of the launcher and waits for their end.
pub fn kill_children(parent: u32) {
    let killed = children_of(parent);
    for (pid, _) in &killed {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    wait_for("them to end", || {
        let left = children_of(parent);
        let alive = left
            .iter()
            .any(|(pid, state)| state != "Z" && killed.iter().any(|(dead, _)| dead == pid));
        if alive {
            Err(format!("{left:?}"))
        } else {
            Ok(())
        }
    });
}

/// Plays kubelet until the pod has settled: restarts ended processes, and returns the served
/// `min_time` once thanos answers in a lasting phase.
pub fn settle(pod: &Pod, launcher: &mut Process, sidecar: &mut Process, round: &str) -> String {
    wait_for("a serving thanos", || {
        if launcher.0.try_wait().unwrap().is_some() {
            *launcher = pod.launcher();
        }
        if sidecar.0.try_wait().unwrap().is_some() {
            *sidecar = pod.sidecar();
        }
        let status = pod.status()?;
        let settled = (status["phase"] == "serving" && status["published"] == status["applied"])
            || status["phase"] == "failed";
        let settled = settled && get(pod.http, "/-/ready").is_ok_and(|(code, _)| code == 200);
        let min = status["applied"]["min_time"]
            .as_str()
            .map(String::from)
            .filter(|_| settled);
        min.ok_or_else(|| format!("{round}: {status}\n{}", pod.logs()))
    })
}

/// Returns the processes with this parent.
pub fn children_of(parent: u32) -> Vec<(u32, String)> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat = stat(pid)?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    })
    .collect()
}

/// Waits until the pod is Ready and reports exactly these blocks as missing; returns its `/status`.
pub fn wait_missing(pod: &Pod, expected: &[&str]) -> serde_json::Value {
    wait_for(&format!("{expected:?} to be missing"), || {
        let status = pod.status()?;
        let named = missing(&status).is_some_and(|missing| missing == expected);
        if named && pod.ready() {
            Ok(status)
        } else {
            Err(format!("{status}\n{}", pod.logs()))
        }
    })
}

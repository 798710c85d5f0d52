//! A stand-in for `thanos store`, for tests and for the demo on machines without thanos. It serves
//! no data.
//!
//! With `--stand-in-bucket` it keeps a data directory as thanos does, from a folder that plays the
//! bucket ([`bucket`]). It reads the flags that the agent depends on, answers `/-/ready` and
//! `/api/v1/status/flags` as thanos does, and opens the gRPC port only when it is ready. Flags that
//! begin with `--stand-in-` make it misbehave; all other flags are ignored. Invariant: everything
//! it prints contains "stand-in", so that no one mistakes it for thanos.

mod bucket;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::core::agent::handoff::{self, WindowFile};
use crate::core::agent::loading::args;
use crate::core::model::window::Window;
use crate::core::thanos::flags;

use bucket::StandInBucket;

const EXIT_REFUSED: i32 = 1;
/// Thanos' default interval between two syncs.
const SYNC_EVERY: Duration = Duration::from_mins(15);
/// The largest request.
const REQUEST_BYTES: usize = 4096;

#[derive(Clone, Debug, Default)]
struct StandInOptions {
    http: String,
    grpc: String,
    ready_after: Duration,
    refuse_min: Vec<String>,
    never_ready_min: Vec<String>,
    ignore_term: bool,
    disable_web: bool,
    unauthorized: bool,
    orphans: u32,
    orphan: &'static str,
    flood_lines: u32,
    window_file: Option<PathBuf>,
    exit_code: i32,
    log: Option<PathBuf>,
    bucket: Option<PathBuf>,
    data: PathBuf,
    sync_every: Duration,
    /// Unrelated series, to make the metrics as large as those of a real thanos.
    other_series: u32,
    /// When the second sync begins. Thanos begins it when it is ready.
    second_sync: Duration,
}

fn options(args: &[OsString]) -> StandInOptions {
    let mut options = StandInOptions {
        http: "0.0.0.0:10902".to_owned(),
        grpc: "0.0.0.0:10901".to_owned(),
        orphan: "sleep 0.05 &",
        sync_every: SYNC_EVERY,
        ..StandInOptions::default()
    };
    // Without a data directory the stand-in uses one that cannot be created.
    options.data =
        args::data_dir(args).unwrap_or_else(|_| PathBuf::from("/proc/no-such-directory"));
    for arg in args {
        let text = arg.to_string_lossy();
        let (flag, value) = text.split_once('=').unwrap_or((&text, ""));
        match flag {
            "--http-address" => value.clone_into(&mut options.http),
            "--grpc-address" => value.clone_into(&mut options.grpc),
            "--stand-in-ready-after-ms" => {
                options.ready_after = Duration::from_millis(value.parse().unwrap_or_default());
            }
            "--stand-in-refuse-min" => options.refuse_min.push(value.to_owned()),
            "--stand-in-never-ready-min" => options.never_ready_min.push(value.to_owned()),
            "--stand-in-ignore-term" => options.ignore_term = true,
            "--stand-in-disable-web" => options.disable_web = true,
            "--stand-in-unauthorized" => options.unauthorized = true,
            "--stand-in-orphans" => options.orphans = value.parse().unwrap_or_default(),
            "--stand-in-orphans-in-sessions" => options.orphan = "setsid sleep 0.05 &",
            "--stand-in-flood-lines" => options.flood_lines = value.parse().unwrap_or_default(),
            "--stand-in-window-file" => options.window_file = Some(value.into()),
            "--stand-in-exit-code" => options.exit_code = value.parse().unwrap_or_default(),
            "--stand-in-bucket" => options.bucket = Some(value.into()),
            "--stand-in-sync-every-ms" => {
                options.sync_every = Duration::from_millis(value.parse().unwrap_or_default());
            }
            "--stand-in-other-series" => options.other_series = value.parse().unwrap_or_default(),
            "--stand-in-second-sync-after-ms" => {
                options.second_sync = Duration::from_millis(value.parse().unwrap_or_default());
            }
            "--stand-in-log" => options.log = Some(value.into()),
            _ => {}
        }
    }
    options
}

/// Runs until a signal ends it; `args` are thanos' arguments, including `store`.
///
/// # Errors
/// A port is in use, or the runtime cannot start.
pub fn main(args: &[OsString]) -> std::io::Result<i32> {
    let options = options(args);
    let window = flags::initial_window(args);
    say(&options, &format!("stand-in-thanos starts with {window}"));
    let is = |list: &[String]| {
        list.iter()
            .any(|text| text.parse().is_ok_and(|min| window.min == min))
    };
    if is(&options.refuse_min) {
        say(&options, "stand-in-thanos refuses this window");
        return Ok(EXIT_REFUSED);
    }
    for n in 0..options.flood_lines {
        let _ = writeln!(
            std::io::stdout(),
            "stand-in-thanos floods its output, line {n} {}",
            "x".repeat(200)
        );
    }
    for _ in 0..options.orphans {
        // The shell exits immediately and leaves an orphan.
        let _ = std::process::Command::new("/bin/sh")
            .args(["-c", options.orphan])
            .status();
    }
    let never_ready = is(&options.never_ready_min);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options, window, never_ready))
}

fn say(options: &StandInOptions, line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(path) = &options.log {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

async fn serve(
    options: StandInOptions,
    mut window: Window,
    never_ready: bool,
) -> std::io::Result<i32> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let http = TcpListener::bind(&options.http).await?;
    let ready_at = Instant::now() + options.ready_after;
    let mut grpc: Option<TcpListener> = None;
    let mut bucket = options
        .bucket
        .as_ref()
        .map(|dir| StandInBucket::new(dir, &options.data));
    let mut next_sync = ready_at + options.second_sync;
    loop {
        let ready = !never_ready && Instant::now() >= ready_at;
        if let Some(bucket) = bucket.as_mut().filter(|_| ready) {
            if grpc.is_none() {
                bucket.sync(window);
            }
            if Instant::now() >= next_sync {
                bucket.sync(window);
                next_sync = Instant::now() + options.sync_every;
            }
        }
        if ready && grpc.is_none() {
            grpc = Some(TcpListener::bind(&options.grpc).await?);
            say(&options, &format!("stand-in-thanos is ready with {window}"));
        }
        tokio::select! {
            _ = term.recv() => {
                say(&options, "stand-in-thanos got SIGTERM");
                if !options.ignore_term {
                    return Ok(options.exit_code);
                }
            }
            _ = int.recv() => return Ok(options.exit_code),
            _ = usr1.recv() => say(&options, "stand-in-thanos got SIGUSR1"),
            _ = hangup.recv() => {
                say(&options, "stand-in-thanos got SIGHUP");
                if let Some(order) = options.window_file.as_ref().and_then(|path| std::fs::read(path).ok())
                    && let Some(order) = handoff::decode::<WindowFile>(&order)
                {
                    window = order.window;
                }
            }
            () = tokio::time::sleep_until(ready_at), if !ready && !never_ready => {}
            () = tokio::time::sleep_until(next_sync), if ready && bucket.is_some() => {}
            accepted = http.accept() => {
                if let Ok((stream, _)) = accepted {
                    let _ = answer(stream, &options, window, bucket.as_ref().filter(|_| ready), ready).await;
                }
            }
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    options: &StandInOptions,
    window: Window,
    bucket: Option<&StandInBucket>,
    ready: bool,
) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    while request.len() < REQUEST_BYTES && !request.ends_with(b"\r\n\r\n") {
        if tokio::time::timeout(Duration::from_secs(1), stream.read_buf(&mut request)).await?? == 0
        {
            break;
        }
    }
    let request = String::from_utf8_lossy(&request);
    let (status, body) = match request.split(' ').nth(1) {
        _ if options.unauthorized => ("401 Unauthorized", "Unauthorized".to_owned()),
        Some("/-/healthy") => ("200 OK", "stand-in".to_owned()),
        Some("/metrics") if bucket.is_some() => (
            "200 OK",
            bucket
                .map(|bucket| bucket.metrics(options.other_series))
                .unwrap_or_default(),
        ),
        Some("/-/ready") if ready => ("200 OK", "stand-in".to_owned()),
        Some("/-/ready") => ("503 Service Unavailable", "stand-in".to_owned()),
        Some("/api/v1/status/flags") if !options.disable_web => {
            let body = serde_json::json!({"status": "success", "data": {
                "min-time": window.min, "max-time": window.max, "stand-in": "true",
            }});
            ("200 OK", body.to_string())
        }
        _ => ("404 Not Found", "stand-in".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

//! A server with scripted answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::server::TIMESHARD;

type Answers = dyn Fn(&str, usize) -> (u16, String) + Send + Sync;

/// A server with scripted answers: the path and how many were asked before give status and
/// body.
pub(super) struct Server {
    port: u16,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn new(
        answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log, count): (Arc<Answers>, _, _) = (
            Arc::new(answers),
            asked.clone(),
            Arc::new(AtomicUsize::new(0)),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, log, count) = (answers.clone(), log.clone(), count.clone());
                std::thread::spawn(move || answer(stream, &*answers, &log, &count));
            }
        });
        Self { port, asked }
    }

    /// A `timeshard serve` that always says the same.
    pub(super) fn of(document: &Value) -> Self {
        let body = document.to_string();
        Self::new(move |_, _| (200, body.clone()))
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn status(&self, args: &[&str]) -> Output {
        Command::new(TIMESHARD)
            .args(["status", "--server", &self.url()])
            .args(args)
            .output()
            .unwrap()
    }
}

fn answer(stream: TcpStream, answers: &Answers, log: &Mutex<Vec<String>>, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let Some(path) = head.split(' ').nth(1).map(str::to_owned) else {
        return;
    };
    log.lock().unwrap().push(path.clone());
    let (code, body) = answers(&path, count.fetch_add(1, Relaxed));
    let head = format!(
        "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    // A client that has read enough may be gone.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()));
}

//! The parts of an API server that a server needs to lead and to reconcile one StatefulSet, whose
//! only pod was admitted without injection: lists, watches without events, and one Lease.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Returns the port, served until the test ends.
pub(crate) fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let lease = Arc::<Mutex<Option<Value>>>::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lease = lease.clone();
            // Clients may leave at any time.
            std::thread::spawn(move || drop(answer(stream, &lease)));
        }
    });
    port
}

fn answer(mut stream: TcpStream, lease: &Mutex<Option<Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if first.contains("watch=true") {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        )?;
        // Until the client closes the connection.
        return reader.read(&mut [0]).map(drop);
    }
    let mut fields = first.split(' ');
    let (method, path) = (
        fields.next().unwrap_or_default(),
        fields.next().unwrap_or_default(),
    );
    let (code, value) = respond(
        method,
        path.split('?').next().unwrap_or_default(),
        &body,
        lease,
    );
    let text = value.to_string();
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())
}

fn respond(method: &str, path: &str, body: &[u8], lease: &Mutex<Option<Value>>) -> (u16, Value) {
    let sent = || -> Value {
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        sent["metadata"]["resourceVersion"] = json!("2");
        sent
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    match (method, last) {
        _ if path.contains("/leases") => {
            let mut lease = lease.lock().unwrap();
            if method != "GET" {
                *lease = Some(sent());
            }
            let missing = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "none", "code": 404});
            lease.clone().map_or((404, missing), |lease| (200, lease))
        }
        ("GET", "namespaces") => list(&json!([{"metadata": {"name": "monitoring"}}])),
        ("GET", "statefulsets") => list(
            &json!([{"metadata": {"name": "store", "namespace": "monitoring", "uid": "s", "generation": 1},
            "spec": {"replicas": 1, "serviceName": "store", "selector": {"matchLabels": {"app": "store"}}, "template": {"spec": store()}},
            "status": {"replicas": 1, "observedGeneration": 1}}]),
        ),
        ("GET", "pods") => list(
            &json!([{"metadata": {"name": "store-0", "namespace": "monitoring", "uid": "p", "labels": {"app": "store"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s", "controller": true}]}, "spec": store()}]),
        ),
        ("GET", _) => list(&json!([])),
        _ => (200, sent()),
    }
}

fn store() -> Value {
    json!({"containers": [{"name": "thanos", "image": "quay.io/thanos/thanos:v0.42.4", "args": ["store"]}]})
}

fn list(items: &Value) -> (u16, Value) {
    (
        200,
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}),
    )
}

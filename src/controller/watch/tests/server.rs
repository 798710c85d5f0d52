//! An API server that lists in pages, watches, and breaks on request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::MAPS;
use crate::adapters::kube::trimming_client::Trimmed;
use crate::testing::api_server;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn body(document: &Value) -> Answer {
    Full::new(Bytes::from(document.to_string())).boxed_unsync()
}

#[derive(Clone, Default)]
pub(super) struct ApiServer(pub(super) Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// By path, then by name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    pub(super) version: u64,
    refused: Vec<String>,
    pub(super) requests: Vec<String>,
}

impl ApiServer {
    pub(super) fn client(&self) -> Client {
        Client::new(
            tower::Layer::layer(&Trimmed::default(), self.clone()),
            "default",
        )
    }

    fn send(state: &State, path: &str, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        state
            .watches
            .iter()
            .filter(|(of, _)| of == path)
            .for_each(|(_, watch)| drop(watch.send(line.clone())));
    }

    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = state
            .objects
            .entry(path.to_owned())
            .or_default()
            .insert(name, object.clone())
            .is_some();
        Self::send(
            &state,
            path,
            if known { "MODIFIED" } else { "ADDED" },
            &object,
        );
    }

    pub(super) fn delete(&self, path: &str, name: &str) {
        let mut state = self.0.lock().unwrap();
        let object = state
            .objects
            .get_mut(path)
            .and_then(|objects| objects.remove(name))
            .unwrap();
        Self::send(&state, path, "DELETED", &object);
    }

    /// Ends every watch on a path; `expired` makes them list again.
    pub(super) fn cut(&self, path: &str, expired: bool) {
        let mut state = self.0.lock().unwrap();
        if expired {
            let (_, status) = api_server::status(410, "Expired", "too old");
            Self::send(&state, path, "ERROR", &status);
        }
        state.watches.retain(|(of, _)| of != path);
    }

    pub(super) fn refuse(&self, path: &str, refused: bool) {
        let mut state = self.0.lock().unwrap();
        state.refused.retain(|of| of != path);
        if refused {
            state.refused.push(path.to_owned());
        }
    }

    /// Deletes an object without an event, as while a watch is down.
    pub(super) fn lose(&self, path: &str, name: &str) {
        self.0
            .lock()
            .unwrap()
            .objects
            .get_mut(path)
            .unwrap()
            .remove(name)
            .unwrap();
    }

    pub(super) fn requests(&self, part: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|request| request.contains(part))
            .count()
    }

    fn answer(&self, uri: &hyper::Uri) -> Response<Answer> {
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
        let mut state = self.0.lock().unwrap();
        state.requests.push(uri.to_string());
        if state.refused.contains(&path) {
            let (_, status) = api_server::status(403, "Forbidden", "no");
            return Response::builder().status(403).body(body(&status)).unwrap();
        }
        let parameter = |key: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        if parameter("watch") == Some("true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            state.watches.push((path, sender));
            let lines = futures::stream::unfold(receiver, |mut lines| async {
                lines.recv().await.map(|line| (line, lines))
            });
            return Response::new(
                StreamBody::new(lines.map(|line| Ok::<_, Infallible>(Frame::data(line))))
                    .boxed_unsync(),
            );
        }
        if let Some((all, name)) = path.rsplit_once('/').filter(|(all, _)| *all == MAPS) {
            let object = state.objects.get(all).and_then(|objects| objects.get(name));
            let (_, gone) = api_server::status(404, "NotFound", "no");
            return Response::builder()
                .status(if object.is_some() { 200 } else { 404 })
                .body(body(object.unwrap_or(&gone)))
                .unwrap();
        }
        let from: usize = parameter("continue").map_or(0, |token| token.parse().unwrap());
        let limit: usize = parameter("limit").unwrap().parse().unwrap();
        let objects = state.objects.get(&path).cloned().unwrap_or_default();
        let items: Vec<&Value> = objects.values().skip(from).take(limit).collect();
        let rest = if from + limit < objects.len() {
            (from + limit).to_string()
        } else {
            String::new()
        };
        let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": state.version.to_string(), "continue": rest}});
        Response::new(body(&list))
    }
}

impl tower::Service<Request<Body>> for ApiServer {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::future::ready(Ok(self.answer(request.uri())))
    }
}

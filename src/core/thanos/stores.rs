//! Reads a querier's list of stores, `GET /api/v1/stores`, as it arrives.
//!
//! The list has the label sets of every store and grows with the bucket's tenants, so only names and
//! errors are collected. Invariants: at most [`MAX_KEPT_BYTES`] are collected of an answer, whatever
//! its size; what it says is never repeated except for names that the caller looks up: anyone who can
//! set a pod's address and arguments could otherwise read through it what answers there.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::core::kube::json_trim::{Keep, Trim};

/// The longest answer that is read: 5,000 stores with 1.5 KiB of label sets each. Bytes.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Names and errors that are collected of one answer: 20,000 stores without an error. Bytes.
const MAX_KEPT_BYTES: usize = 1024 * 1024;
/// Name and error of one store. Bytes.
const MAX_STORE_BYTES: usize = 8 * 1024;

/// `data` has a list for each type of component: `store`, `sidecar`, `query` and others.
static STORES: Keep = Keep::Keys(&[("status", Keep::All), ("data", Keep::Each(&STORE))]);
static STORE: Keep = Keep::Object(&[("name", Keep::All), ("lastError", Keep::All)]);

/// Why an answer is no list of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoresError {
    TooLong,
    TooManyStores,
    NotJson,
    NotStores,
}

impl fmt::Display for StoresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(
                f,
                "the answer is longer than {} MiB",
                MAX_ANSWER_BYTES / 1024 / 1024
            ),
            Self::TooManyStores => write!(
                f,
                "names and errors of its stores take more than {} MiB",
                MAX_KEPT_BYTES / 1024 / 1024
            ),
            Self::NotJson => f.write_str("the answer is not JSON"),
            Self::NotStores => f.write_str("the answer is not a list of stores"),
        }
    }
}

impl std::error::Error for StoresError {}

/// An answer that is being received.
#[derive(Debug)]
pub struct StoresReader {
    trim: Trim,
    read: usize,
    kept: Vec<u8>,
}

impl Default for StoresReader {
    fn default() -> Self {
        Self {
            trim: Trim::new(&STORES, MAX_STORE_BYTES),
            read: 0,
            kept: Vec::new(),
        }
    }
}

impl StoresReader {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The answer is too long already.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoresError> {
        self.read += bytes.len();
        if self.read > MAX_ANSWER_BYTES {
            return Err(StoresError::TooLong);
        }
        self.kept.extend(self.trim.push(bytes));
        if self.kept.len() > MAX_KEPT_BYTES {
            return Err(StoresError::TooManyStores);
        }
        Ok(())
    }

    /// Parses the complete answer.
    ///
    /// # Errors
    /// It is no list of stores.
    pub fn finish(&self) -> Result<Stores<'_>, StoresError> {
        let document: Document<'_> = serde_json::from_slice(&self.kept).map_err(|error| {
            if error.is_data() {
                StoresError::NotStores
            } else {
                StoresError::NotJson
            }
        })?;
        if document.status != "success" {
            return Err(StoresError::NotStores);
        }
        Ok(document.data)
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    data: Stores<'a>,
}

/// The stores of all types.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stores<'a>(pub Vec<StoreStatus<'a>>);

/// One store.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct StoreStatus<'a> {
    /// `10.0.0.5:10901`, or the endpoint as the querier's flag gives it.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Why the querier's last request to it failed, as one of a few kinds.
    #[serde(rename = "lastError", default, deserialize_with = "kind")]
    pub error: Option<StoreFault>,
}

/// The kind of an error, as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreFault(pub &'static str);

impl<'de: 'a, 'a> Deserialize<'de> for Stores<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StoresVisitor)
    }
}

struct StoresVisitor;

impl<'de> Visitor<'de> for StoresVisitor {
    type Value = Stores<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lists of stores by type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while map.next_key::<IgnoredAny>()?.is_some() {
            let of_type: Option<Vec<StoreStatus<'de>>> = map.next_value()?;
            all.extend(of_type.into_iter().flatten());
        }
        Ok(Stores(all))
    }
}

/// Names the kind of an error. Old versions of thanos write an error as `{}`.
fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StoreFault>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum LastError<'a> {
        #[serde(borrow)]
        Text(Cow<'a, str>),
        Other(IgnoredAny),
    }
    let error = Option::<LastError<'de>>::deserialize(deserializer)?;
    Ok(error.map(|error| {
        StoreFault(match error {
            LastError::Text(text) => kind_of(&text),
            LastError::Other(_) => "an error",
        })
    }))
}

/// Parts of the errors that gRPC reports, and what each means.
const KINDS: [(&str, &str); 7] = [
    ("connection refused", "connection refused"),
    ("no route to host", "no route to host"),
    ("no such host", "no such host"),
    ("i/o timeout", "a timeout"),
    ("DeadlineExceeded", "a timeout"),
    ("Unimplemented", "not a store"),
    ("Unavailable", "unavailable"),
];

fn kind_of(text: &str) -> &'static str {
    let known = KINDS.iter().find(|(part, _)| text.contains(part));
    known.map_or("an error", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::core::kube::json_trim::CUT;

    /// Reads an answer that arrives in chunks.
    fn read(
        answer: &[u8],
        chunk: usize,
    ) -> Result<Vec<(String, Option<&'static str>)>, StoresError> {
        let mut reader = StoresReader::default();
        for part in answer.chunks(chunk.max(1)) {
            reader.push(part)?;
        }
        let stores = reader.finish()?.0;
        let owned =
            |store: StoreStatus<'_>| (store.name.into_owned(), store.error.map(|fault| fault.0));
        Ok(stores.into_iter().map(owned).collect())
    }

    fn text(answer: &str) -> Result<Vec<(String, Option<&'static str>)>, StoresError> {
        read(answer.as_bytes(), usize::MAX)
    }

    #[test]
    fn stores_of_every_type_are_read() {
        // As thanos 0.42.4 answers; the second store was killed.
        let answer = json!({"status": "success", "data": {
            "sidecar": [{"name": "10.0.1.1:10901", "lastCheck": "2026-11-29T03:15:22.721136Z", "lastError": null,
                         "labelSets": [{"cluster": "a", "name": "x"}], "minTime": 0, "maxTime": 9_223_372_036_854_775_807_i64}],
            "store": [
                {"name": "10.0.0.1:10901", "lastCheck": "2026-11-29T03:15:22.721136Z", "lastError": null, "labelSets": [],
                 "minTime": 9_223_372_036_854_775_807_i64, "maxTime": -9_223_372_036_854_775_807_i64},
                {"name": "10.0.0.2:10901", "lastCheck": "2026-11-29T03:15:17.69Z", "labelSets": [], "minTime": 0, "maxTime": 0, "lastError":
                 "rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = \"transport: Error while dialing: dial tcp 10.0.0.2:10901: connect: connection refused\""},
                {"name": "thanos:///dns+store:10901", "lastError": {}},
            ],
            "unknown": null,
        }});
        let expected = [
            ("10.0.1.1:10901", None),
            ("10.0.0.1:10901", None),
            ("10.0.0.2:10901", Some("connection refused")),
            ("thanos:///dns+store:10901", Some("an error")),
        ]
        .map(|(name, error)| (name.to_owned(), error));
        let bytes = answer.to_string().into_bytes();
        for chunk in [1, 7, 1000, usize::MAX] {
            assert_eq!(read(&bytes, chunk).as_deref(), Ok(&expected[..]));
        }
        assert_eq!(text(r#"{"status":"success","data":{}}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_list_of_stores_is_refused() {
        for (answer, expected) in [
            ("", StoresError::NotJson),
            ("null", StoresError::NotStores),
            ("[]", StoresError::NotJson),
            ("{}", StoresError::NotStores),
            ("<html>", StoresError::NotJson),
            (r#"{"status":"success"}"#, StoresError::NotStores),
            (
                r#"{"status":"success","data":null}"#,
                StoresError::NotStores,
            ),
            (r#"{"status":"success","data":[]}"#, StoresError::NotStores),
            (r#"{"status":"error","data":{}}"#, StoresError::NotStores),
            (
                r#"{"status":"success","data":{"store":{"name":"a"}}}"#,
                StoresError::NotStores,
            ),
            (
                r#"{"status":"success","data":{"store":[{"name":7}]}}"#,
                StoresError::NotStores,
            ),
            (
                r#"{"status":"success","data":{"store":[{}]}}"#,
                StoresError::NotStores,
            ),
            (
                r#"{"status":"success","data":{"store":["a"]}}"#,
                StoresError::NotStores,
            ),
            (
                r#"{"status":"success","data":{"store":[{"name":"a"}"#,
                StoresError::NotJson,
            ),
            (r#"{"status":"success","data":{}} {"#, StoresError::NotJson),
        ] {
            let read = text(answer);
            assert!(read.is_err(), "{answer}: {read:?}");
            if answer != "[]" {
                assert_eq!(read, Err(expected), "{answer}");
            }
        }
        let latin = b"{\"status\":\"success\",\"data\":{\"store\":[{\"name\":\"\xe4\"}]}}";
        assert!(read(latin, 3).is_err());
    }

    #[test]
    fn size_depth_and_number_are_bounded() {
        let padded = |padding: usize, stores: &str| {
            let padding = " ".repeat(padding);
            format!(r#"{{"status":"success",{padding}"data":{{"store":[{stores}]}}}}"#)
        };
        let large = padded(MAX_ANSWER_BYTES, "");
        assert_eq!(text(&large), Err(StoresError::TooLong));
        assert_eq!(text(&padded(MAX_ANSWER_BYTES / 2, "")), Ok(Vec::new()));
        let million = vec![r#"{"name":"a"}"#; 600_000].join(",");
        assert_eq!(text(&padded(0, &million)), Err(StoresError::TooManyStores));
        let fleet = vec![r#"{"name":"10.100.100.100:10901","lastError":null}"#; 20_000].join(",");
        assert_eq!(
            text(&padded(0, &fleet)).map(|stores| stores.len()),
            Ok(20_000)
        );
        let name = format!(r#"{{"name":"{}"}}"#, "x".repeat(MAX_STORE_BYTES));
        assert_eq!(text(&padded(0, &name)), Err(StoresError::NotStores));
        // Labels take no memory.
        let labels = format!(r#"{{"labelSets":"{}","name":"a"}}"#, "x".repeat(1_000_000));
        assert_eq!(text(&padded(0, &labels)).map(|stores| stores.len()), Ok(1));
        for deep in ["[".repeat(2_000_000), r#"{"data":"#.repeat(500_000)] {
            assert!(text(&deep).is_err());
            let error = format!(r#"{{"name":"a","lastError":{deep}"#);
            assert!(text(&padded(0, &error)).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_chunks_make_no_difference(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"status\"", "\"success\"", "\"data\"", "\"store\"", "\"name\"",
                "\"lastError\"", "null", "1", "\"a\\u00e4\"", " ", "\n", "\\", "\"",
                r#"{"status":"success","data":{"#, r#"{"name":"a","lastError":"#,
            ]), 0..60),
            chunk in 1_usize..20,
        ) {
            let answer = parts.concat();
            let once = text(&answer);
            prop_assert_eq!(&read(answer.as_bytes(), chunk), &once);
            // Nothing is accepted that is not JSON with the key.
            if once.is_ok() {
                prop_assert!(answer.contains("success") && !answer.contains(CUT));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..50) {
            let _ = read(&bytes, chunk);
        }
    }
}

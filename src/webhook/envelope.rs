//! The `AdmissionReview` around an object: opened without copying, answered with the request's uid.
//!
//! In: bytes, by [`open`]. Out: bytes, by [`ResponseOut::encode`]. Next for a review:
//! `core/admission/eligible.rs`.
//!
//! An object that cannot be read does not hide the rest of its review, so that the response can
//! carry the uid; a review without one is an HTTP 400.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::core::model::text::short_line;
use crate::core::pod::Text;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// HTTP status of an object that cannot be read.
pub(super) const BAD_REQUEST: u16 = 400;
/// HTTP status of a policy's denial; kubectl prints `Error from server (Forbidden)`.
pub(super) const FORBIDDEN: u16 = 403;
/// Longest parser error that is passed on: it repeats what it could not read. Characters.
pub(super) const MAX_ERROR_CHARS: usize = 300;
/// Longest kind or API version that is repeated. Characters.
const MAX_KIND_CHARS: usize = 64;
/// A body of up to this size is parsed without knowing its shape. Bytes.
const UNSCANNED_BYTES: usize = 128 << 10;
/// Longest text in a review. All annotations of an object together have 256 KiB.
const MAX_TEXT_BYTES: usize = 512 << 10;
/// Commas outside texts: elements of lists and keys of objects.
const MAX_COMMAS: usize = 100_000;
/// Room for a response without its patch. Bytes.
const ENVELOPE_BYTES: usize = 512;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewView<'a, O> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow = "'a", default, bound(deserialize = "O: Deserialize<'de>"))]
    request: Option<RequestView<'a, O>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestView<'a, O> {
    #[serde(borrow, default)]
    pub(super) uid: Text<'a>,
    #[serde(borrow, default)]
    kind: KindView<'a>,
    #[serde(borrow, default)]
    pub(super) resource: ResourceView<'a>,
    #[serde(borrow, default)]
    pub(super) sub_resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) operation: Text<'a>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    pub(super) options: Option<OptionsView<'a>>,
    pub(super) object: Option<O>,
    #[serde(default)]
    pub(super) old_object: Option<O>,
}

#[derive(Default, Deserialize)]
struct KindView<'a> {
    #[serde(borrow, default)]
    group: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct ResourceView<'a> {
    #[serde(borrow, default)]
    pub(super) group: Text<'a>,
    #[serde(borrow, default)]
    pub(super) resource: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OptionsView<'a> {
    #[serde(borrow, default)]
    pub(super) propagation_policy: Option<Text<'a>>,
}

/// A review's request that can be answered.
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack of one call; a box would be an allocation for each request"
)]
pub(super) enum Opened<'a, O> {
    Request(RequestView<'a, O>),
    /// Only the object could not be read.
    Unreadable(RequestView<'a, IgnoredAny>, serde_json::Error),
}

/// Opens a review's bytes.
///
/// # Errors
/// A sentence for an HTTP 400.
pub(super) fn open<'a, O: Default + Deserialize<'a>>(
    body: &'a [u8],
) -> Result<Opened<'a, O>, String> {
    if body.len() > UNSCANNED_BYTES {
        Shape::of(body).check()?;
    }
    let error = match serde_json::from_slice::<ReviewView<'a, O>>(body) {
        Ok(review) => return Ok(Opened::Request(review.request()?)),
        Err(error) => error,
    };
    match serde_json::from_slice::<ReviewView<'a, IgnoredAny>>(body) {
        Ok(review) => Ok(Opened::Unreadable(review.request()?, error)),
        Err(_) => Err(not_a_review(body, &error)),
    }
}

/// What parsing a body may cost beyond its size: a text is quoted in error messages, several times as
/// long as it is, and an element of three bytes takes a hundred.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    longest_text: usize,
    commas: usize,
}

impl Shape {
    fn of(body: &[u8]) -> Self {
        let mut shape = Self::default();
        let (mut text, mut escaped) = (None, false);
        for (at, byte) in body.iter().enumerate() {
            match (text, byte) {
                (Some(_), _) if escaped => escaped = false,
                (Some(_), b'\\') => escaped = true,
                (Some(start), b'"') => {
                    shape.longest_text = shape.longest_text.max(at - start);
                    text = None;
                }
                (None, b'"') => text = Some(at + 1),
                (None, b',') => shape.commas += 1,
                _ => {}
            }
        }
        let unended = text.map_or(0, |start| body.len() - start);
        shape.longest_text = shape.longest_text.max(unended);
        shape
    }

    fn check(&self) -> Result<(), String> {
        if self.longest_text > MAX_TEXT_BYTES {
            return Err(format!(
                "the review has a text of {} bytes, and of at most {MAX_TEXT_BYTES} it is read",
                self.longest_text
            ));
        }
        if self.commas > MAX_COMMAS {
            return Err(format!(
                "the review has {} elements and keys, and of at most {MAX_COMMAS} it is read",
                self.commas
            ));
        }
        Ok(())
    }
}

fn not_a_review(body: &[u8], error: &serde_json::Error) -> String {
    let problem = if body.is_empty() {
        "the body is empty".to_owned()
    } else {
        let error = short_line(&error.to_string(), MAX_ERROR_CHARS);
        format!("the body is not an AdmissionReview: {error}")
    };
    format!("{problem}; expected JSON of kind {KIND:?}, apiVersion {API_VERSION:?}")
}

impl<'a, O> ReviewView<'a, O> {
    fn request(self) -> Result<RequestView<'a, O>, String> {
        if self.kind.0 != KIND || self.api_version.0 != API_VERSION {
            let [kind, api_version] = [&self.kind, &self.api_version]
                .map(|Text(text)| text.chars().take(MAX_KIND_CHARS).collect::<String>());
            return Err(format!(
                "the body is kind {kind:?} of apiVersion {api_version:?}, expected kind {KIND:?} of apiVersion {API_VERSION:?}"
            ));
        }
        let request = self.request.ok_or("the review has no request")?;
        if request.uid.0.is_empty() {
            return Err("the request has no uid, so it cannot be answered".to_owned());
        }
        Ok(request)
    }
}

impl<O> RequestView<'_, O> {
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", |namespace| &namespace.0)
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }

    pub(super) fn sub_resource(&self) -> &str {
        self.sub_resource.as_ref().map_or("", |sub| &sub.0)
    }

    pub(super) fn creates_a_pod(&self) -> bool {
        self.operation.0 == "CREATE"
            && self.kind.kind.0 == "Pod"
            && self.kind.group.0.is_empty()
            && self.sub_resource().is_empty()
    }
}

/// The `response` of a review.
#[derive(Default)]
pub(super) struct ResponseOut<'a> {
    pub(super) uid: &'a str,
    /// HTTP status and message of a denial.
    pub(super) denial: Option<(u16, String)>,
    /// Operations as JSON.
    pub(super) patch: Vec<u8>,
    pub(super) warnings: Vec<String>,
}

#[derive(Serialize)]
struct StatusOut {
    code: u16,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl ResponseOut<'_> {
    /// Encodes the review that carries the response. By hand: a serialiser would search each
    /// character of the patch's base64 for escapes.
    pub(super) fn encode(self) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + self.patch.len() / 3 * 4);
        out.extend_from_slice(
            br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#,
        );
        let failed = |error: serde_json::Error| error.to_string();
        serde_json::to_writer(&mut out, self.uid).map_err(failed)?;
        match self.denial {
            None => out.extend_from_slice(br#","allowed":true"#),
            Some((code, message)) => {
                out.extend_from_slice(br#","allowed":false,"status":"#);
                let status = StatusOut {
                    code,
                    message,
                    reason: (code == FORBIDDEN).then_some("Forbidden"),
                };
                serde_json::to_writer(&mut out, &status).map_err(failed)?;
            }
        }
        if !self.patch.is_empty() {
            out.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
            let start = out.len();
            out.resize(start + self.patch.len().div_ceil(3) * 4, 0);
            STANDARD
                .encode_slice(&self.patch, &mut out[start..])
                .map_err(|error| error.to_string())?;
            out.push(b'"');
        }
        if !self.warnings.is_empty() {
            out.extend_from_slice(br#","warnings":"#);
            serde_json::to_writer(&mut out, &self.warnings).map_err(failed)?;
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Option<String> {
        open::<IgnoredAny>(body.as_bytes()).err()
    }

    /// A review of an object with this member.
    fn review(member: &str) -> String {
        format!(
            r#"{{"kind":"{KIND}","apiVersion":"{API_VERSION}","request":{{"uid":"u","object":{{{member}}}}}}}"#
        )
    }

    #[test]
    fn a_body_that_costs_far_more_than_its_size_is_not_parsed() {
        // Quoted in an error message, each of these bytes takes six.
        let text = "\u{7f}".repeat(7 << 20);
        let long = refusal(&format!("\"{text}\"")).unwrap();
        assert!(long.contains("a text of 7340032 bytes"), "{long}");
        let nested = refusal(&review(&format!(r#""a":"{text}""#))).unwrap();
        assert!(nested.contains("a text of 7340032 bytes"), "{nested}");
        let many = refusal(&review(&format!(r#""a":[{}0]"#, "0,".repeat(3 << 20)))).unwrap();
        assert!(many.contains("elements and keys"), "{many}");
        // What is in a text is no structure, and an escape does not end it.
        let commas = format!(r#""a":"{}","b":"{}""#, ",\\\"".repeat(100_000), "x");
        assert_eq!(refusal(&review(&commas)), None);
        let most = format!(r#""a":"{}""#, "x".repeat(MAX_TEXT_BYTES));
        assert_eq!(refusal(&review(&most)), None);
    }

    #[test]
    fn a_text_that_does_not_end_counts() {
        let shape = Shape::of(br#"{"a": "b\"c, d"#);
        let expected = Shape {
            longest_text: 7,
            commas: 0,
        };
        assert_eq!(shape, expected);
    }
}

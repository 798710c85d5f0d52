//! The bucket's objects, read from a directory, in the form that S3 clients expect:
//! `GetBucketLocation`, `ListObjectsV2`, HEAD and GET of an object, the latter with one range.
//!
//! A key never leaves the directory: components `..`, `.` and empty ones name no object.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

/// How many keys a page of a listing has, as in S3.
const MAX_KEYS: usize = 1000;
/// The largest part of an object that is read at once, in bytes.
const MAX_READ_BYTES: u64 = 512 * 1024 * 1024;
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// The format of S3's times in XML: RFC 3339 with milliseconds.
const XML_TIME: &str = "%Y-%m-%dT%H:%M:%S%.3fZ";
/// The format of times in headers: RFC 9110.
const HEADER_TIME: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// Returns the key in a request's path: the part after the bucket's name.
pub(crate) fn key(path: &str) -> String {
    unescape(
        path.trim_start_matches('/')
            .split_once('/')
            .map_or("", |(_bucket, key)| key),
    )
}

/// Decodes percent escapes; invalid ones stay unchanged.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        let value =
            escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A response. hyper omits its body if the request was HEAD.
pub(crate) struct Reply {
    pub(crate) response: Response<Full<Bytes>>,
}

impl Reply {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { response }
    }

    fn xml(body: &str) -> Self {
        Self::new(
            StatusCode::OK,
            "application/xml",
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"),
        )
    }

    /// An error in S3's format.
    pub(crate) fn error(status: StatusCode, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        );
        Self::new(status, "application/xml", body)
    }

    /// Adds a header, unless its value is invalid.
    fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }
}

/// An object's file.
struct Object {
    path: PathBuf,
    size: u64,
    modified: DateTime<Utc>,
}

impl Object {
    fn find(path: PathBuf) -> Option<Self> {
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).into();
        Some(Self {
            size: metadata.len(),
            modified,
            path,
        })
    }

    fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.size, self.modified.timestamp_millis())
    }

    fn read(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The object, or the part in `range`.
    fn get(&self, range: Option<&str>) -> Reply {
        let whole = (0, self.size);
        let Some((start, length)) = range.map_or(Some(whole), |range| part(range, self.size))
        else {
            return Reply::error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        };
        if length > MAX_READ_BYTES {
            return Reply::error(StatusCode::NOT_IMPLEMENTED, "EntityTooLarge");
        }
        let Ok(bytes) = self.read(start, length) else {
            return Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        };
        let status = if range.is_some() {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        };
        let reply = Reply::new(status, "application/octet-stream", bytes);
        if range.is_none() {
            return reply;
        }
        reply.with(
            header::CONTENT_RANGE,
            &format!(
                "bytes {start}-{}/{}",
                start + length.saturating_sub(1),
                self.size
            ),
        )
    }

    fn head(&self) -> Reply {
        Reply::new(StatusCode::OK, "application/octet-stream", Bytes::new())
            .with(header::CONTENT_LENGTH, &self.size.to_string())
    }
}

/// Returns offset and length of a range; `None` if the object has no such part. Only a single range,
/// as thanos requests.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", count) => (size.saturating_sub(count.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => (
            first.parse().ok()?,
            size.min(last.parse::<u64>().ok()?.saturating_add(1)),
        ),
    };
    (start < end).then(|| (start, end - start))
}

/// The files of the bucket.
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) async fn answer(&self, request: &Request<Incoming>, key: &str) -> Reply {
        let query = request.uri().query().unwrap_or_default();
        let range = request
            .headers()
            .get(header::RANGE)
            .and_then(|value| value.to_str().ok());
        let (root, key, query, range) = (
            self.root.clone(),
            key.to_owned(),
            query.to_owned(),
            range.map(str::to_owned),
        );
        let method = request.method().clone();
        let read = tokio::task::spawn_blocking(move || {
            answer(&root, &method, &key, &query, range.as_deref())
        });
        read.await
            .unwrap_or_else(|_| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
    }
}

fn answer(root: &Path, method: &Method, key: &str, query: &str, range: Option<&str>) -> Reply {
    match (method, key) {
        (&Method::GET, "") if parameter(query, "location").is_some() => {
            Reply::xml(&format!("<LocationConstraint xmlns=\"{NAMESPACE}\"/>"))
        }
        (&Method::GET, "") => list(root, query),
        // The bucket exists.
        (&Method::HEAD, "") => Reply::new(StatusCode::OK, "application/xml", Bytes::new()),
        (&Method::GET | &Method::HEAD, key) => {
            let Some(object) = inside(root, key).and_then(Object::find) else {
                return Reply::error(StatusCode::NOT_FOUND, "NoSuchKey");
            };
            let reply = if method == Method::GET {
                object.get(range)
            } else {
                object.head()
            };
            reply
                .with(
                    header::LAST_MODIFIED,
                    &object.modified.format(HEADER_TIME).to_string(),
                )
                .with(header::ETAG, &object.etag())
                .with(header::ACCEPT_RANGES, "bytes")
        }
        _ => Reply::error(StatusCode::FORBIDDEN, "AccessDenied"),
    }
}

/// Returns a key's file, if the key stays within the directory.
fn inside(root: &Path, key: &str) -> Option<PathBuf> {
    let plain = key
        .split('/')
        .all(|component| !matches!(component, "" | "." | ".."));
    plain.then(|| root.join(key))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| unescape(&value.replace('+', " ")))
        .next()
}

/// `ListObjectsV2`: one page, with `/` as delimiter or none. A page continues after the last name of
/// the previous one.
fn list(root: &Path, query: &str) -> Reply {
    let prefix = parameter(query, "prefix").unwrap_or_default();
    let delimited = match parameter(query, "delimiter").as_deref() {
        None | Some("") => false,
        Some("/") => true,
        Some(_) => return Reply::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    };
    let after = parameter(query, "continuation-token")
        .or_else(|| parameter(query, "start-after"))
        .unwrap_or_default();
    let limit = parameter(query, "max-keys")
        .and_then(|keys| keys.parse().ok())
        .unwrap_or(MAX_KEYS)
        .min(MAX_KEYS);
    let mut names = BTreeSet::new();
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    if folder.is_empty() {
        gather(root, "", delimited, &mut names);
    } else if let Some(start) = inside(root, folder) {
        gather(&start, &format!("{folder}/"), delimited, &mut names);
    }
    let mut rest = names
        .into_iter()
        .filter(|name| name.starts_with(&prefix) && *name > after);
    let page: Vec<String> = rest.by_ref().take(limit).collect();
    let truncated = rest.next().is_some();

    let mut xml = format!(
        "<ListBucketResult xmlns=\"{NAMESPACE}\"><Prefix>{}</Prefix><KeyCount>{}</KeyCount><MaxKeys>{limit}</MaxKeys>\
         <IsTruncated>{truncated}</IsTruncated>",
        escape_xml(&prefix),
        page.len()
    );
    if let Some(last) = page.last().filter(|_| truncated) {
        // Writing to a string does not fail.
        _ = write!(
            xml,
            "<NextContinuationToken>{}</NextContinuationToken>",
            escape_xml(last)
        );
    }
    for name in &page {
        _ = match inside(root, name).and_then(Object::find) {
            Some(object) => write!(
                xml,
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                escape_xml(name),
                object.modified.format(XML_TIME),
                escape_xml(&object.etag()),
                object.size
            ),
            None => write!(
                xml,
                "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                escape_xml(name)
            ),
        };
    }
    xml.push_str("</ListBucketResult>");
    Reply::xml(&xml)
}

/// Adds the keys below a folder whose own key is `prefix`; of its folders only their names with a
/// final `/`, if `delimited`.
fn gather(folder: &Path, prefix: &str, delimited: bool, names: &mut BTreeSet<String>) {
    // A missing folder is a prefix without objects.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match (entry.path().is_dir(), delimited) {
            (false, _) => _ = names.insert(name),
            (true, true) => _ = names.insert(format!("{name}/")),
            (true, false) => gather(&entry.path(), &format!("{name}/"), false, names),
        }
    }
}

//! Trims JSON of the API server, or of a querier, as it arrives, so that unread fields never take memory.
//!
//! The `limit` of a list counts objects, but one object takes up to 1.5 MiB in etcd and six times
//! that as JSON (`<` is sent as `\u003c`). So memory is bounded here, before parsing, and not by
//! pages. Invariants: the output is JSON if the input is; only the kept part of one object is
//! buffered, up to the given size; an object with a larger kept part is replaced by its identity and
//! the key [`CUT`], never cut in half.

/// Key of an object whose kept part was larger than allowed.
pub const CUT: &str = "timeshardCut";

/// Of a key that is kept; a label's key has at most 317.
const MAX_KEY_BYTES: usize = 512;
/// Nesting; kept values have less than a tenth of it.
const MAX_DEPTH: usize = 64;
/// Keys in `metadata` of an object whose kept part is too large.
const IDENTITY: [&[u8]; 4] = [b"name", b"namespace", b"uid", b"resourceVersion"];

/// Which part of a value is kept. Elements of a list are treated like the list.
#[derive(Debug)]
pub enum Keep {
    All,
    /// These keys of an object; all scalars.
    Keys(&'static [(&'static str, Keep)]),
    /// The keys of an object with this prefix.
    Prefixed(&'static str),
    /// Every key of an object, with this part of each value.
    Each(&'static Keep),
    /// These keys of a Kubernetes object, whose kept part is bounded.
    Object(&'static [(&'static str, Keep)]),
}

/// An open object or list that is kept.
#[derive(Debug)]
struct Frame {
    is_object: bool,
    keep: &'static Keep,
    empty: bool,
    /// Whether this is a Kubernetes object's `metadata`.
    is_identity: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrimState {
    /// Between tokens.
    Between,
    /// In a key.
    Key { escaped: bool },
    /// In a string value.
    Text { kept: bool, escaped: bool },
    /// In a number, `true`, `false` or `null`.
    Word { kept: bool },
    /// In an object or list that is not kept.
    Skipped {
        depth: usize,
        quoted: bool,
        escaped: bool,
    },
}

/// The Kubernetes object that is being read.
#[derive(Debug)]
struct KeptPart {
    depth: usize,
    bytes: Vec<u8>,
    cut: bool,
    identity: Vec<(&'static [u8], Vec<u8>)>,
    /// Key and offset in `bytes` of an identity's value that is being read.
    began: Option<(&'static [u8], usize)>,
}

/// Trims one document after the other.
#[derive(Debug)]
pub struct Trim {
    root: &'static Keep,
    max_bytes: usize,
    state: TrimState,
    frames: Vec<Frame>,
    key: Vec<u8>,
    /// Whether a key was read and its value follows, and which part of the value is kept.
    after_key: bool,
    of_key: Option<&'static Keep>,
    held: Option<KeptPart>,
    out: Vec<u8>,
}

impl Trim {
    /// Keeps `root` of each document, and at most `max_bytes` of each Kubernetes object.
    #[must_use]
    pub const fn new(root: &'static Keep, max_bytes: usize) -> Self {
        Self {
            root,
            max_bytes,
            state: TrimState::Between,
            frames: Vec::new(),
            key: Vec::new(),
            after_key: false,
            of_key: None,
            held: None,
            out: Vec::new(),
        }
    }

    /// Takes the next bytes and returns the kept part of everything that is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
        std::mem::take(&mut self.out)
    }

    /// Consumes at least one byte, except at the end of a word: the next byte is read again.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            TrimState::Between => self.between(bytes[0]),
            TrimState::Key { escaped } => self.in_key(bytes, escaped),
            TrimState::Text { kept, escaped } => self.in_text(bytes, kept, escaped),
            TrimState::Word { kept } => {
                let ends =
                    |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
                let end = bytes.iter().position(ends);
                if kept {
                    self.emit(&bytes[..end.unwrap_or(bytes.len())]);
                }
                if end.is_some() {
                    self.ended();
                }
                end.unwrap_or(bytes.len())
            }
            TrimState::Skipped {
                depth,
                quoted,
                escaped,
            } => self.skip(bytes, (depth, quoted, escaped)),
        }
    }

    fn between(&mut self, byte: u8) -> usize {
        match byte {
            b'"' if !self.after_key && self.frames.last().is_some_and(|frame| frame.is_object) => {
                self.key.clear();
                self.state = TrimState::Key { escaped: false };
            }
            b'"' => {
                let kept = self.begin().is_some();
                if kept {
                    self.note_identity();
                    self.emit(b"\"");
                }
                self.state = TrimState::Text {
                    kept,
                    escaped: false,
                };
            }
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(byte),
            // Between documents: a watch sends one per line.
            b'\n' if self.frames.is_empty() => self.emit(b"\n"),
            byte if byte.is_ascii_whitespace() || matches!(byte, b',' | b':') => {}
            _ => {
                self.state = TrimState::Word {
                    kept: self.begin().is_some(),
                };
                return 0;
            }
        }
        1
    }

    fn in_key(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, ended, escaped) = text_end(bytes, escaped);
        let part = if ended {
            &bytes[..taken - 1]
        } else {
            &bytes[..taken]
        };
        // No kept key is that long; one byte more marks it as too long.
        let room = (MAX_KEY_BYTES + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(&part[..part.len().min(room)]);
        self.state = TrimState::Key { escaped };
        if ended {
            let keep = self.frames.last().map(|frame| frame.keep);
            let too_long = self.key.len() > MAX_KEY_BYTES;
            if let Some(held) = self
                .held
                .as_mut()
                .filter(|_| too_long && matches!(keep, Some(Keep::All)))
            {
                held.cut = true;
            }
            self.after_key = true;
            self.of_key = keep
                .and_then(|keep| below(keep, &self.key))
                .filter(|_| !too_long);
            self.state = TrimState::Between;
        }
        taken
    }

    fn in_text(&mut self, bytes: &[u8], kept: bool, escaped: bool) -> usize {
        let (taken, ended, escaped) = text_end(bytes, escaped);
        if kept {
            self.emit(&bytes[..taken]);
        }
        self.state = TrimState::Text { kept, escaped };
        if ended {
            if let Some(held) = &mut self.held
                && let Some((key, began)) = held.began.take()
                && !held.cut
            {
                held.identity.push((key, held.bytes[began..].to_vec()));
            }
            self.ended();
        }
        taken
    }

    fn skip(
        &mut self,
        bytes: &[u8],
        (mut depth, mut quoted, mut escaped): (usize, bool, bool),
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if quoted {
                let (taken, ended, still) = text_end(&bytes[at..], escaped);
                (at, quoted, escaped) = (at + taken, !ended, still);
                continue;
            }
            match bytes[at] {
                b'"' => quoted = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                self.ended();
                return at;
            }
        }
        self.state = TrimState::Skipped {
            depth,
            quoted,
            escaped,
        };
        at
    }

    /// Begins a value. If it is kept, writes the comma and the key before it.
    fn begin(&mut self) -> Option<&'static Keep> {
        let Some(frame) = self.frames.last() else {
            return Some(self.root);
        };
        let keep = if frame.is_object {
            self.of_key?
        } else {
            frame.keep
        };
        let (comma, named) = (!frame.empty, frame.is_object);
        if comma {
            self.emit(b",");
        }
        if named {
            let key = std::mem::take(&mut self.key);
            self.emit(b"\"");
            self.emit(&key);
            self.emit(b"\":");
            self.key = key;
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.empty = false;
        }
        Some(keep)
    }

    fn open(&mut self, is_object: bool) {
        let keep = if self.frames.len() < MAX_DEPTH {
            self.begin()
        } else {
            None
        };
        let Some(keep) = keep else {
            if let Some(held) = self
                .held
                .as_mut()
                .filter(|_| self.frames.len() >= MAX_DEPTH)
            {
                held.cut = true;
            }
            self.state = TrimState::Skipped {
                depth: 1,
                quoted: false,
                escaped: false,
            };
            return;
        };
        if is_object && matches!(keep, Keep::Object(_)) && self.held.is_none() {
            let (depth, bytes, identity) = (self.frames.len(), Vec::new(), Vec::new());
            self.held = Some(KeptPart {
                depth,
                bytes,
                cut: false,
                identity,
                began: None,
            });
        }
        let at_top = self
            .held
            .as_ref()
            .is_some_and(|held| held.depth + 1 == self.frames.len());
        self.emit(if is_object { b"{" } else { b"[" });
        self.frames.push(Frame {
            is_object,
            keep,
            empty: true,
            is_identity: at_top && is_object && self.key == b"metadata",
        });
        (self.after_key, self.of_key) = (false, None);
    }

    fn close(&mut self, byte: u8) {
        if self.frames.pop().is_none() {
            return;
        }
        self.emit(&[byte]);
        if let Some(held) = self.held.take_if(|held| held.depth == self.frames.len()) {
            if held.cut {
                let identity: Vec<Vec<u8>> = held
                    .identity
                    .iter()
                    .map(|(key, value)| [b"\"", *key, b"\":", value.as_slice()].concat())
                    .collect();
                self.out.extend(b"{\"metadata\":{");
                self.out.extend(identity.join(&b','));
                self.out.extend(format!("}},\"{CUT}\":true}}").bytes());
            } else {
                self.out.extend(held.bytes);
            }
        }
        self.ended();
    }

    fn ended(&mut self) {
        (self.state, self.after_key, self.of_key) = (TrimState::Between, false, None);
    }

    /// Remembers where a string of the identity begins.
    fn note_identity(&mut self) {
        let is_identity = self.frames.last().is_some_and(|frame| frame.is_identity);
        let key = IDENTITY
            .into_iter()
            .find(|key| is_identity && *key == self.key.as_slice());
        if let Some(held) = &mut self.held {
            held.began = key.map(|key| (key, held.bytes.len()));
        }
    }

    fn emit(&mut self, bytes: &[u8]) {
        match &mut self.held {
            None => self.out.extend_from_slice(bytes),
            Some(held) if held.cut => {}
            Some(held) if held.bytes.len() + bytes.len() > self.max_bytes => {
                held.cut = true;
                held.bytes = Vec::new();
            }
            Some(held) => held.bytes.extend_from_slice(bytes),
        }
    }
}

/// Returns the length of a string's rest with its closing quote, whether it ends here, and whether
/// the next byte is escaped.
fn text_end(bytes: &[u8], mut escaped: bool) -> (usize, bool, bool) {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (at + 1, true, false),
            _ => {}
        }
    }
    (bytes.len(), false, escaped)
}

fn below(keep: &'static Keep, key: &[u8]) -> Option<&'static Keep> {
    match keep {
        Keep::All => Some(&Keep::All),
        Keep::Keys(keys) | Keep::Object(keys) => keys
            .iter()
            .find(|(name, _)| name.as_bytes() == key)
            .map(|(_, keep)| keep),
        Keep::Each(keep) => Some(keep),
        Keep::Prefixed(prefix) => key.starts_with(prefix.as_bytes()).then_some(&Keep::All),
    }
}

#[cfg(test)]
mod tests;

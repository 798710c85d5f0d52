//! Whether a container runs `thanos store`, and where its words and time flags stand.
//!
//! Thanos reads its command line with kingpin: `--flag=value`, `--flag value`, `@file`; global flags may precede the
//! subcommand. Words are only read here; `$(ENV)` references stay as they are, kubelet expands them.

use super::names;
use super::pod::{ContainerView, Text};

/// Where a word stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In `command`, at this index.
    Command(usize),
    /// In `args`, at this index.
    Args(usize),
}

/// Arguments of one container that are looked at, of `command` and `args` together. No gateway has a tenth of this.
pub const MAX_ARGUMENTS: usize = 1_000;

/// What a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    /// `thanos store`.
    Store(Store<'a>),
    /// `thanos store` with more arguments than are looked at: this many.
    TooManyArguments(usize),
    /// Another subcommand of thanos; empty when there is none.
    OtherThanos(&'a str),
    /// Something that starts thanos store by way of a shell or another program.
    Wrapper(&'a str),
    /// thanos with its arguments in a file.
    ArgsFile(&'a str),
    /// `store` as first word, but nothing says that the image is Thanos.
    UnknownImage,
    /// Nothing to do with us.
    Other,
}

/// The words of a `thanos store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Whether our launcher runs it already.
    pub launched: bool,
    /// The time flags that are there, in order.
    pub time_flags: Vec<TimeFlag>,
    /// A bare `--`, after which kingpin reads no flags.
    pub end_of_flags: Option<At>,
    /// Value of `--http-address`, if given.
    pub http_address: Option<&'a str>,
    /// Value of `--grpc-address`, if given.
    pub grpc_address: Option<&'a str>,
}

impl Store<'_> {
    /// The port of `--grpc-address`, if it is given as a number.
    #[must_use]
    pub fn grpc_port(&self) -> Option<u16> {
        self.grpc_address.and_then(port_of)
    }
}

/// A `--min-time` or `--max-time` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeFlag {
    /// Which of the two.
    pub is_min: bool,
    /// The flag's word.
    pub flag: At,
    /// The value's word when it stands in a word of its own (`--min-time X`).
    pub value: Option<At>,
}

/// Global flags of Thanos that take a value, so that `--log.level debug store` is read right.
const GLOBAL_FLAGS_WITH_VALUE: [&str; 5] =
    ["--log.level", "--log.format", "--tracing.config-file", "--tracing.config", "--auto-gomemlimit.ratio"];

/// What a container runs. `vouched` says that the user vouches for the image.
#[must_use]
pub fn recognise<'a>(container: &'a ContainerView<'a>, vouched: bool) -> Runs<'a> {
    let (command, args) = (container.command(), container.args());
    let (launched, skip) = launcher_prefix(command);
    let words: Vec<(At, &'a str)> = (skip..command.len())
        .map(|i| (At::Command(i), command[i].0.as_ref()))
        .chain((0..args.len()).map(|i| (At::Args(i), args[i].0.as_ref())))
        .take(MAX_ARGUMENTS)
        .collect();
    let count = command.len() + args.len();
    let own_program = launched || !command.is_empty();
    let (is_thanos, rest) = if own_program {
        let Some(((_, program), rest)) = words.split_first() else {
            return Runs::Other;
        };
        (launched || base_name(program) == "thanos", rest)
    } else {
        (vouched || image_is_thanos(&container.image.0), words.as_slice())
    };
    if !is_thanos {
        if let Some(script) = words.iter().map(|(_, word)| *word).find(|word| mentions_store(word)) {
            return Runs::Wrapper(script);
        }
        if own_program
            && words.iter().skip(1).any(|(_, word)| base_name(word) == "thanos")
            && words.iter().any(|(_, word)| *word == "store")
        {
            return Runs::Wrapper(words[0].1);
        }
        return if !own_program && subcommand(rest).is_some_and(|i| rest[i].1 == "store") { Runs::UnknownImage } else { Runs::Other };
    }
    match subcommand(rest) {
        _ if rest.iter().any(|(_, word)| word.starts_with('@')) => {
            Runs::ArgsFile(rest.iter().map(|(_, word)| *word).find(|word| word.starts_with('@')).unwrap_or_default())
        }
        Some(i) if rest[i].1 == "store" && count > MAX_ARGUMENTS => Runs::TooManyArguments(count),
        Some(i) if rest[i].1 == "store" => Runs::Store(store(launched, &rest[i + 1..])),
        Some(i) if mentions_store(rest[i].1) || rest[i..].iter().any(|(_, word)| mentions_store(word)) => Runs::Wrapper(rest[i].1),
        Some(i) => Runs::OtherThanos(rest[i].1),
        None => Runs::OtherThanos(""),
    }
}

/// How many words of the command are our launcher's, and whether there is one.
fn launcher_prefix(command: &[Text<'_>]) -> (bool, usize) {
    let is_launcher = command.first().is_some_and(|word| word.0 == names::AGENT_IN_SHARED_DIR);
    match command.iter().position(|word| word.0 == "--") {
        Some(end) if is_launcher => (true, end + 1),
        _ => (false, 0),
    }
}

/// Index of the first word that is neither a global flag nor its value.
fn subcommand(words: &[(At, &str)]) -> Option<usize> {
    let mut i = 0;
    while let Some((_, word)) = words.get(i) {
        if !word.starts_with('-') {
            return Some(i);
        }
        i += if GLOBAL_FLAGS_WITH_VALUE.contains(word) { 2 } else { 1 };
    }
    None
}

fn store<'a>(launched: bool, words: &[(At, &'a str)]) -> Store<'a> {
    let mut found = Store { launched, time_flags: Vec::new(), end_of_flags: None, http_address: None, grpc_address: None };
    for (i, (at, word)) in words.iter().enumerate() {
        let (flag, inline) = word.split_once('=').map_or((*word, None), |(flag, value)| (flag, Some(value)));
        let next = words.get(i + 1);
        match flag {
            "--" if inline.is_none() && found.end_of_flags.is_none() => found.end_of_flags = Some(*at),
            "--min-time" | "--max-time" => {
                let value = if inline.is_some() { None } else { next.map(|(at, _)| *at) };
                found.time_flags.push(TimeFlag { is_min: flag == "--min-time", flag: *at, value });
            }
            "--http-address" => found.http_address = inline.or(next.map(|(_, word)| *word)),
            "--grpc-address" => found.grpc_address = inline.or(next.map(|(_, word)| *word)),
            _ => {}
        }
    }
    found
}

/// The last component of a path, in either slash, without `.exe`.
fn base_name(word: &str) -> &str {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    name.strip_suffix(".exe").unwrap_or(name)
}

/// Whether one word is a script that runs thanos store: in one of its commands the word store stands somewhere behind thanos.
/// The registrations ask the same of pods and StatefulSets by a regular expression (`deploy/base`); a test compares the two.
#[must_use]
pub fn mentions_store(word: &str) -> bool {
    word.split([';', '&', '|']).any(|command| {
        let Some((_, behind)) = command.split_once("thanos") else { return false };
        // A backslash ends a line that goes on.
        let mut words = behind.split([' ', '\t', '\n', '\x0c', '\r', '\\']).skip(1);
        words.any(|word| word.trim_start_matches(['"', '\'']).strip_prefix("store").is_some_and(ends))
    })
}

/// Whether a shell's word ends here.
fn ends(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['"', '\'', ')', '<', '>'])
}

/// Whether the last path component of an image names Thanos; tag and digest do not count.
#[must_use]
pub fn image_is_thanos(image: &str) -> bool {
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    last.split(':').next().unwrap_or(last).contains("thanos")
}

/// The port of a listen address such as `0.0.0.0:10902`, `:10902` or `[::]:10902`.
#[must_use]
pub fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port > 0)
}

/// The host to reach a listen address from within the pod; wildcards are reached on loopback.
#[must_use]
pub fn host_of(address: &str) -> &str {
    match address.rsplit_once(':').map_or("", |(host, _)| host) {
        "" | "0.0.0.0" | "[::]" | "::" => "127.0.0.1",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str, check: impl FnOnce(Runs<'_>)) {
        let container: ContainerView<'_> = serde_json::from_str(json).unwrap();
        check(recognise(&container, false));
    }

    #[test]
    fn images_by_their_last_component() {
        for (image, thanos) in [
            ("quay.io/thanos/thanos:v0.42.4", true),
            ("thanos", true),
            ("localhost:5000/x/my-thanos-build@sha256:00", true),
            ("quay.io/thanos/busybox:thanos", false),
            ("localhost:5000/busybox", false),
            ("", false),
        ] {
            assert_eq!(image_is_thanos(image), thanos, "{image}");
        }
    }

    #[test]
    fn store_is_found_behind_global_flags() {
        for json in [
            r#"{"image":"thanos:v1","args":["store","--x"]}"#,
            r#"{"image":"thanos:v1","args":["--log.level=debug","store"]}"#,
            r#"{"image":"thanos:v1","args":["--log.level","debug","--no-enable-auto-gomemlimit","store"]}"#,
            r#"{"image":"x","command":["/bin/thanos"],"args":["store"]}"#,
            r#"{"image":"x","command":["/bin/thanos","--log.format=json","store","--data-dir=/d"]}"#,
            r#"{"image":"x","command":["/run/timeshard/timeshard-agent","launch","--shared-dir=/run/timeshard","--","thanos"],"args":["store"]}"#,
        ] {
            run(json, |runs| assert!(matches!(runs, Runs::Store(_)), "{json}: {runs:?}"));
        }
    }

    #[test]
    fn everything_else_is_told_apart() {
        for (json, want) in [
            (r#"{"image":"thanos:v1","args":["query","store"]}"#, Runs::OtherThanos("query")),
            (r#"{"image":"thanos:v1"}"#, Runs::OtherThanos("")),
            (r#"{"image":"thanos:v1","args":[""]}"#, Runs::OtherThanos("")),
            (r#"{"image":"x","args":["store"]}"#, Runs::UnknownImage),
            (r#"{"image":"x","args":["serve"]}"#, Runs::Other),
            (r#"{"image":"prom","command":["/bin/prometheus"],"args":["--storage.tsdb.path=/x"]}"#, Runs::Other),
            (r#"{"image":"thanos:v1","args":["store","@/etc/flags"]}"#, Runs::ArgsFile("@/etc/flags")),
            (r#"{"image":"x","command":["sh","-c","exec thanos store --x"]}"#, Runs::Wrapper("exec thanos store --x")),
            (
                r#"{"image":"thanos:v1","command":["/bin/sh"],"args":["-c","/bin/thanos --log.level=x store"]}"#,
                Runs::Wrapper("/bin/thanos --log.level=x store"),
            ),
            (r#"{"image":"x","command":["/tini","--","/bin/thanos","store"]}"#, Runs::Wrapper("/tini")),
            (r#"{"image":"thanos:v1","args":["sh","-c","thanos store"]}"#, Runs::Wrapper("sh")),
            (r#"{"image":"x","command":["thanos-store"]}"#, Runs::Other),
            (r#"{"image":"x","args":["--endpoint=dns+thanos-store:10901"]}"#, Runs::Other),
            (r#"{"image":"thanos:v1","args":["query","--objstore.config-file=/etc/thanos/objstore.yml"]}"#, Runs::OtherThanos("query")),
            (r#"{"image":"x","command":[]}"#, Runs::Other),
        ] {
            run(json, |runs| assert_eq!(runs, want, "{json}"));
        }
    }

    #[test]
    fn arguments_beyond_the_limit_are_not_looked_at() {
        let with = |program: &str, flags: usize| {
            let args: Vec<&str> = std::iter::once(program).chain(std::iter::repeat_n("--min-time=-1d", flags)).collect();
            serde_json::json!({"image": "thanos", "args": args}).to_string()
        };
        run(&with("store", MAX_ARGUMENTS - 1), |runs| {
            assert!(matches!(&runs, Runs::Store(store) if store.time_flags.len() == MAX_ARGUMENTS - 1), "{runs:?}");
        });
        run(&with("store", 200_000), |runs| assert_eq!(runs, Runs::TooManyArguments(200_001)));
        run(&with("query", 200_000), |runs| assert_eq!(runs, Runs::OtherThanos("query")));
    }

    #[test]
    fn flags_are_found_in_both_forms() {
        run(
            r#"{"image":"thanos","args":["store","--min-time","-1d","--max-time=1d","--http-address=:80","--grpc-address","[::]:9"]}"#,
            |runs| {
                let Runs::Store(store) = runs else { panic!("{runs:?}") };
                assert_eq!(
                    store.time_flags,
                    [
                        TimeFlag { is_min: true, flag: At::Args(1), value: Some(At::Args(2)) },
                        TimeFlag { is_min: false, flag: At::Args(3), value: None }
                    ]
                );
                assert_eq!((store.http_address, store.grpc_address), (Some(":80"), Some("[::]:9")));
            },
        );
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!((host_of("0.0.0.0:10902"), port_of("0.0.0.0:10902")), ("127.0.0.1", Some(10902)));
        assert_eq!((host_of(":80"), port_of(":80")), ("127.0.0.1", Some(80)));
        assert_eq!((host_of("[::]:80"), port_of("[::]:80")), ("127.0.0.1", Some(80)));
        assert_eq!((host_of("$(POD_IP):80"), port_of("$(POD_IP):80")), ("$(POD_IP)", Some(80)));
        assert_eq!(port_of("localhost:$(PORT)"), None);
        assert_eq!(port_of(""), None);
    }
}

//! Whether a container runs `thanos store`, and where its words and time flags stand.
//!
//! Thanos reads its command line with kingpin: `--flag=value`, `--flag value`, `@file`; global flags may precede the
//! subcommand. Words are only read here; `$(ENV)` references stay as they are, kubelet expands them.

use super::names;
use super::pod::ContainerView;

mod image;
pub use image::{image_is_thanos, image_is_too_old};

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
    /// A shell's script that starts thanos store: its flags stand within one word.
    Wrapper(&'a str),
    /// A program that is given the arguments of thanos store: it starts thanos, or it is thanos under another name.
    Program(&'a str, Store<'a>),
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
    /// Behind another program: where the words that are for thanos begin.
    pub wrapped: Option<At>,
    /// The time flags that are there, in order.
    pub time_flags: Vec<TimeFlag>,
    /// A bare `--`, after which kingpin reads no flags.
    pub end_of_flags: Option<At>,
    /// Value of `--http-address`, if given.
    pub http_address: Option<&'a str>,
    /// Value of `--grpc-address`, if given.
    pub grpc_address: Option<&'a str>,
    /// Value of `--selector.relabel-config`, if given.
    pub selector: Option<&'a str>,
    /// Value of `--selector.relabel-config-file`, if given.
    pub selector_file: Option<&'a str>,
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
const GLOBAL_FLAGS_WITH_VALUE: [&str; 5] = [
    "--log.level",
    "--log.format",
    "--tracing.config-file",
    "--tracing.config",
    "--auto-gomemlimit.ratio",
];

/// Thanos' other components: behind their names the word `store` is not a subcommand.
const OTHER_COMPONENTS: [&str; 8] = [
    "sidecar",
    "query",
    "query-frontend",
    "rule",
    "compact",
    "tools",
    "receive",
    "downsample",
];
/// What flags begin with that `thanos store` has and hardly another program.
const STORE_FLAGS: [&str; 4] = [
    "--objstore.config",
    "--index-cache",
    "--chunk-pool-size",
    "--store.grpc.",
];

/// What a container runs. `vouched` says that the user vouches for the image.
#[must_use]
pub fn recognise<'a>(container: &'a ContainerView<'a>, vouched: bool) -> Runs<'a> {
    let count = container.command().len() + container.args().len();
    match by_arguments(container, vouched) {
        Runs::Store(_) | Runs::Program(..) if count > MAX_ARGUMENTS => {
            Runs::TooManyArguments(count)
        }
        runs => runs,
    }
}

/// What the first [`MAX_ARGUMENTS`] arguments say.
fn by_arguments<'a>(container: &'a ContainerView<'a>, vouched: bool) -> Runs<'a> {
    let (command, args) = (container.command(), container.args());
    let words: Vec<(At, &'a str)> = (0..command.len())
        .map(|i| (At::Command(i), command[i].0.as_ref()))
        .chain((0..args.len()).map(|i| (At::Args(i), args[i].0.as_ref())))
        .take(MAX_ARGUMENTS)
        .collect();
    if let Some(behind) = behind_launcher(&words) {
        return launched(&words[behind..]);
    }
    let own_program = !command.is_empty();
    let (is_thanos, rest) = if own_program {
        (base_name(words[0].1) == "thanos", &words[1..])
    } else {
        (
            vouched || image_is_thanos(&container.image.0),
            words.as_slice(),
        )
    };
    if !is_thanos {
        if let Some(script) = words
            .iter()
            .map(|(_, word)| *word)
            .find(|word| mentions_store(word))
        {
            return Runs::Wrapper(script);
        }
        let vouched = vouched || image_is_thanos(&container.image.0);
        if let Some((at, store)) = behind_program(&words, vouched && own_program) {
            return Runs::Program(
                words[0].1,
                Store {
                    wrapped: Some(at),
                    ..store
                },
            );
        }
        return if !own_program && subcommand(rest).is_some_and(|i| rest[i].1 == "store") {
            Runs::UnknownImage
        } else {
            Runs::Other
        };
    }
    match subcommand(rest) {
        _ if rest.iter().any(|(_, word)| word.starts_with('@')) => Runs::ArgsFile(
            rest.iter()
                .map(|(_, word)| *word)
                .find(|word| word.starts_with('@'))
                .unwrap_or_default(),
        ),
        Some(i) if rest[i].1 == "store" => Runs::Store(store(false, &rest[i + 1..])),
        Some(i)
            if mentions_store(rest[i].1)
                || rest[i..].iter().any(|(_, word)| mentions_store(word)) =>
        {
            Runs::Wrapper(rest[i].1)
        }
        Some(i) => match behind_program(&rest[i..], true).filter(|_| !own_program) {
            Some((at, store)) => Runs::Program(
                rest[i].1,
                Store {
                    wrapped: Some(at),
                    ..store
                },
            ),
            None => Runs::OtherThanos(rest[i].1),
        },
        None => Runs::OtherThanos(""),
    }
}

/// Index of the first word behind our launcher and its flags. Another program may stand before it.
fn behind_launcher(words: &[(At, &str)]) -> Option<usize> {
    let launcher = words
        .windows(2)
        .position(|pair| pair[0].1 == names::AGENT_IN_SHARED_DIR && pair[1].1 == "launch")?;
    let end = words[launcher..]
        .iter()
        .position(|(_, word)| *word == "--")?;
    Some(launcher + end + 1)
}

/// What our launcher starts. Before the subcommand there may be any program of the user's, as an annotation names it.
fn launched<'a>(words: &[(At, &'a str)]) -> Runs<'a> {
    let Some((_, rest)) = words.split_first() else {
        return Runs::Other;
    };
    match rest.iter().position(|(_, word)| *word == "store") {
        Some(i) => Runs::Store(store(true, &rest[i + 1..])),
        None => Runs::OtherThanos(subcommand(rest).map_or("", |i| rest[i].1)),
    }
}

/// The words for thanos store behind a program that is not called thanos, and where they begin. `vouched` says that image or
/// user name Thanos; without that, program or flags have to.
fn behind_program<'a>(words: &[(At, &'a str)], vouched: bool) -> Option<(At, Store<'a>)> {
    let at = words
        .iter()
        .position(|(_, word)| *word == "store")
        .filter(|at| *at > 0)?;
    let before = &words[..at];
    if before
        .iter()
        .any(|(_, word)| OTHER_COMPONENTS.contains(word))
    {
        return None;
    }
    let named = || {
        before
            .iter()
            .any(|(_, word)| !word.starts_with('-') && base_name(word).contains("thanos"))
    };
    let has_flag = || {
        words[at..]
            .iter()
            .any(|(_, word)| STORE_FLAGS.iter().any(|flag| word.starts_with(flag)))
    };
    if !(vouched || named() || has_flag()) {
        return None;
    }
    // Global flags stand before the subcommand.
    let mut begin = at;
    while begin > 1 {
        let flag = |i: usize| words[i].1.starts_with("--") && words[i].1.len() > 2;
        match begin {
            i if flag(i - 1) => begin -= 1,
            i if i > 2 && GLOBAL_FLAGS_WITH_VALUE.contains(&words[i - 2].1) => begin -= 2,
            _ => break,
        }
    }
    Some((words[begin].0, store(false, &words[at + 1..])))
}

/// Index of the first word that is neither a global flag nor its value.
fn subcommand(words: &[(At, &str)]) -> Option<usize> {
    let mut i = 0;
    while let Some((_, word)) = words.get(i) {
        if !word.starts_with('-') {
            return Some(i);
        }
        i += if GLOBAL_FLAGS_WITH_VALUE.contains(word) {
            2
        } else {
            1
        };
    }
    None
}

fn store<'a>(launched: bool, words: &[(At, &'a str)]) -> Store<'a> {
    let mut found = Store {
        launched,
        wrapped: None,
        time_flags: Vec::new(),
        end_of_flags: None,
        http_address: None,
        grpc_address: None,
        selector: None,
        selector_file: None,
    };
    for (i, (at, word)) in words.iter().enumerate() {
        let (flag, inline) = word
            .split_once('=')
            .map_or((*word, None), |(flag, value)| (flag, Some(value)));
        let next = words.get(i + 1);
        let text = || inline.or(next.map(|(_, word)| *word));
        match flag {
            "--" if inline.is_none() && found.end_of_flags.is_none() => {
                found.end_of_flags = Some(*at)
            }
            "--min-time" | "--max-time" => {
                let value = if inline.is_some() {
                    None
                } else {
                    next.map(|(at, _)| *at)
                };
                found.time_flags.push(TimeFlag {
                    is_min: flag == "--min-time",
                    flag: *at,
                    value,
                });
            }
            "--http-address" => found.http_address = text(),
            "--grpc-address" => found.grpc_address = text(),
            "--selector.relabel-config" => found.selector = text(),
            "--selector.relabel-config-file" => found.selector_file = text(),
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
        let Some((_, behind)) = command.split_once("thanos") else {
            return false;
        };
        // A backslash ends a line that goes on.
        let mut words = behind.split([' ', '\t', '\n', '\x0c', '\r', '\\']).skip(1);
        words.any(|word| {
            word.trim_start_matches(['"', '\''])
                .strip_prefix("store")
                .is_some_and(ends)
        })
    })
}

/// Whether a shell's word ends here.
fn ends(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['"', '\'', ')', '<', '>'])
}

/// The port of a listen address such as `0.0.0.0:10902`, `:10902` or `[::]:10902`.
#[must_use]
pub fn port_of(address: &str) -> Option<u16> {
    address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .filter(|port| *port > 0)
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
    use crate::core::pod::bounded::MAX_WORDS;

    fn run(json: &str, check: impl FnOnce(Runs<'_>)) {
        let container: ContainerView<'_> = serde_json::from_str(json).unwrap();
        check(recognise(&container, false));
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
            run(json, |runs| {
                assert!(matches!(runs, Runs::Store(_)), "{json}: {runs:?}")
            });
        }
    }

    #[test]
    fn everything_else_is_told_apart() {
        for (json, want) in [
            (
                r#"{"image":"thanos:v1","args":["query","store"]}"#,
                Runs::OtherThanos("query"),
            ),
            (r#"{"image":"thanos:v1"}"#, Runs::OtherThanos("")),
            (
                r#"{"image":"thanos:v1","args":[""]}"#,
                Runs::OtherThanos(""),
            ),
            (r#"{"image":"x","args":["store"]}"#, Runs::UnknownImage),
            (r#"{"image":"x","args":["serve"]}"#, Runs::Other),
            (
                r#"{"image":"prom","command":["/bin/prometheus"],"args":["--storage.tsdb.path=/x"]}"#,
                Runs::Other,
            ),
            (
                r#"{"image":"thanos:v1","args":["store","@/etc/flags"]}"#,
                Runs::ArgsFile("@/etc/flags"),
            ),
            (
                r#"{"image":"x","command":["sh","-c","exec thanos store --x"]}"#,
                Runs::Wrapper("exec thanos store --x"),
            ),
            (
                r#"{"image":"thanos:v1","command":["/bin/sh"],"args":["-c","/bin/thanos --log.level=x store"]}"#,
                Runs::Wrapper("/bin/thanos --log.level=x store"),
            ),
            (
                r#"{"image":"thanos:v1","args":["sh","-c","thanos store"]}"#,
                Runs::Wrapper("sh"),
            ),
            (r#"{"image":"x","command":["thanos-store"]}"#, Runs::Other),
            (
                r#"{"image":"x","args":["--endpoint=dns+thanos-store:10901"]}"#,
                Runs::Other,
            ),
            (
                r#"{"image":"thanos:v1","args":["query","--objstore.config-file=/etc/thanos/objstore.yml"]}"#,
                Runs::OtherThanos("query"),
            ),
            (r#"{"image":"x","command":[]}"#, Runs::Other),
        ] {
            run(json, |runs| assert_eq!(runs, want, "{json}"));
        }
    }

    #[test]
    fn a_program_before_thanos_is_found_by_the_words_that_it_hands_on() {
        for (json, program, begin) in [
            (
                r#"{"image":"x","command":["/tini","--","/bin/thanos","store"]}"#,
                "/tini",
                At::Command(3),
            ),
            (
                r#"{"image":"q/thanos:v1","command":["/bin/sh","/etc/gw/start.sh"],"args":["store","--x"]}"#,
                "/bin/sh",
                At::Args(0),
            ),
            (
                r#"{"image":"q/thanos:v1","command":["/etc/gw/start.sh"],"args":["--log.level","debug","store"]}"#,
                "/etc/gw/start.sh",
                At::Args(0),
            ),
            (
                r#"{"image":"x","command":["/bin/bash","/s.sh"],"args":["store","--objstore.config-file=/b"]}"#,
                "/bin/bash",
                At::Args(0),
            ),
            (
                r#"{"image":"x","command":["dumb-init","thanos","--log.level=info","store"]}"#,
                "dumb-init",
                At::Command(2),
            ),
            (
                r#"{"image":"x","command":["su-exec","1001"],"args":["/bin/thanos","store"]}"#,
                "su-exec",
                At::Args(1),
            ),
            (
                r#"{"image":"x","command":["gosu","thanos","/usr/bin/thanos-0.36","store"]}"#,
                "gosu",
                At::Command(3),
            ),
            (
                r#"{"image":"x","command":["catatonit","--","thanos","store"]}"#,
                "catatonit",
                At::Command(3),
            ),
            (
                r#"{"image":"x","command":["env","GOGC=50","thanos","store"]}"#,
                "env",
                At::Command(3),
            ),
            (
                r#"{"image":"x","command":["/opt/thanos-linux-amd64"],"args":["store"]}"#,
                "/opt/thanos-linux-amd64",
                At::Args(0),
            ),
            (
                r#"{"image":"x","args":["/bin/thanos","store"]}"#,
                "/bin/thanos",
                At::Args(1),
            ),
            (
                r#"{"image":"thanos:v1","args":["env","A=b","thanos","store"]}"#,
                "env",
                At::Args(3),
            ),
        ] {
            run(json, |runs| {
                let Runs::Program(found, store) = runs else {
                    panic!("{json}: {runs:?}")
                };
                assert_eq!((found, store.wrapped), (program, Some(begin)), "{json}");
            });
        }
        for json in [
            r#"{"image":"x","command":["/bin/vault"],"args":["kv","store"]}"#,
            r#"{"image":"x","command":["/tini","--","/bin/thanos","query","store"]}"#,
            r#"{"image":"thanos:v1","command":["/bin/sh","/x.sh"],"args":["tools","bucket","store"]}"#,
            r#"{"image":"x","command":["node","server.js"],"args":["store"]}"#,
        ] {
            run(json, |runs| assert_eq!(runs, Runs::Other, "{json}"));
        }
    }

    #[test]
    fn the_launcher_is_found_behind_other_programs() {
        for json in [
            r#"{"image":"x","command":["/vault/vault-env","/run/timeshard/timeshard-agent","launch","--a=b","--","thanos"],"args":["store"]}"#,
            r#"{"image":"x","command":["/vault/vault-env"],"args":["/run/timeshard/timeshard-agent","launch","--","thanos","store"]}"#,
            r#"{"image":"x","command":["/run/timeshard/timeshard-agent","launch","--","/bin/sh","/start.sh"],"args":["store"]}"#,
        ] {
            run(json, |runs| {
                assert!(
                    matches!(&runs, Runs::Store(store) if store.launched),
                    "{json}: {runs:?}"
                )
            });
        }
    }

    #[test]
    fn arguments_beyond_the_limit_are_not_looked_at() {
        let with = |program: &str, flags: usize| {
            let args: Vec<&str> = std::iter::once(program)
                .chain(std::iter::repeat_n("--min-time=-1d", flags))
                .collect();
            serde_json::json!({"image": "thanos", "args": args}).to_string()
        };
        run(&with("store", MAX_ARGUMENTS - 1), |runs| {
            assert!(
                matches!(&runs, Runs::Store(store) if store.time_flags.len() == MAX_ARGUMENTS - 1),
                "{runs:?}"
            );
        });
        run(&with("store", 200_000), |runs| {
            assert_eq!(
                runs,
                Runs::TooManyArguments(MAX_WORDS),
                "further ones are not even counted"
            )
        });
        run(&with("query", 200_000), |runs| {
            assert_eq!(runs, Runs::OtherThanos("query"))
        });
    }

    #[test]
    fn flags_are_found_in_both_forms() {
        run(
            r#"{"image":"thanos","args":["store","--min-time","-1d","--max-time=1d","--http-address=:80","--grpc-address","[::]:9"]}"#,
            |runs| {
                let Runs::Store(store) = runs else {
                    panic!("{runs:?}")
                };
                assert_eq!(
                    store.time_flags,
                    [
                        TimeFlag {
                            is_min: true,
                            flag: At::Args(1),
                            value: Some(At::Args(2))
                        },
                        TimeFlag {
                            is_min: false,
                            flag: At::Args(3),
                            value: None
                        }
                    ]
                );
                assert_eq!(
                    (store.http_address, store.grpc_address),
                    (Some(":80"), Some("[::]:9"))
                );
            },
        );
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(
            (host_of("0.0.0.0:10902"), port_of("0.0.0.0:10902")),
            ("127.0.0.1", Some(10902))
        );
        assert_eq!((host_of(":80"), port_of(":80")), ("127.0.0.1", Some(80)));
        assert_eq!(
            (host_of("[::]:80"), port_of("[::]:80")),
            ("127.0.0.1", Some(80))
        );
        assert_eq!(
            (host_of("$(POD_IP):80"), port_of("$(POD_IP):80")),
            ("$(POD_IP)", Some(80))
        );
        assert_eq!(port_of("localhost:$(PORT)"), None);
        assert_eq!(port_of(""), None);
    }
}

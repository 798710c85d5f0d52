//! Whether a container runs `thanos store`, and the positions of its time flags.
//!
//! Thanos parses its command line with kingpin: `--flag=value`, `--flag value`, `@file`; global
//! flags may precede the subcommand. References such as `$(ENV)` are not expanded; kubelet does that.

use crate::core::model::names;
use crate::core::pod::ContainerView;

mod image;
pub use image::{image_is_thanos, image_is_too_old};

/// The index of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In `command`.
    Command(usize),
    /// In `args`.
    Args(usize),
}

/// Arguments of one container that are read, `command` and `args` together. No gateway has a tenth
/// of it.
pub const MAX_ARGUMENTS: usize = 1_000;

/// The program of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    /// `thanos store`.
    Store(Store<'a>),
    /// `thanos store` with this many arguments, more than are read.
    TooManyArguments(usize),
    /// Another subcommand of thanos; empty if there is none.
    OtherThanos(&'a str),
    /// A shell script that starts thanos store: all flags are within one argument.
    Wrapper(&'a str),
    /// A program with the arguments of thanos store: it starts thanos, or is thanos under another
    /// name.
    Program(&'a str, Store<'a>),
    /// thanos with its arguments in a file.
    ArgsFile(&'a str),
    /// The first argument is `store`, but the image may not be Thanos.
    UnknownImage,
    Other,
}

/// The arguments of `thanos store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Whether timeshard's launcher starts it already.
    pub launched: bool,
    /// The first argument for thanos after another program.
    pub wrapped: Option<At>,
    /// In order.
    pub time_flags: Vec<TimeFlag>,
    /// A bare `--`, after which kingpin reads no flags.
    pub end_of_flags: Option<At>,
    pub http_address: Option<&'a str>,
    pub grpc_address: Option<&'a str>,
    /// Value of `--selector.relabel-config`.
    pub selector: Option<&'a str>,
    /// Value of `--selector.relabel-config-file`.
    pub selector_file: Option<&'a str>,
}

impl Store<'_> {
    /// Returns the port of `--grpc-address`, if it is a number.
    #[must_use]
    pub fn grpc_port(&self) -> Option<u16> {
        self.grpc_address.and_then(port_of)
    }
}

/// A `--min-time` or `--max-time` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeFlag {
    pub is_min: bool,
    pub flag: At,
    /// The value, if it is an argument of its own (`--min-time X`).
    pub value: Option<At>,
}

/// Global flags of Thanos that take a value, for `--log.level debug store`.
const GLOBAL_FLAGS_WITH_VALUE: [&str; 5] = [
    "--log.level",
    "--log.format",
    "--tracing.config-file",
    "--tracing.config",
    "--auto-gomemlimit.ratio",
];

/// Thanos' other components: after their names `store` is not a subcommand.
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
/// Prefixes of flags that are typical of `thanos store`.
const STORE_FLAGS: [&str; 4] = [
    "--objstore.config",
    "--index-cache",
    "--chunk-pool-size",
    "--store.grpc.",
];

/// Returns the program of a container. With `vouched`, the user vouches that the image is Thanos.
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

/// Reads the first [`MAX_ARGUMENTS`] arguments.
fn by_arguments<'a>(container: &'a ContainerView<'a>, vouched: bool) -> Runs<'a> {
    let (command, args) = (container.command(), container.args());
    let all: Vec<(At, &'a str)> = (0..command.len())
        .map(|i| (At::Command(i), command[i].0.as_ref()))
        .chain((0..args.len()).map(|i| (At::Args(i), args[i].0.as_ref())))
        .take(MAX_ARGUMENTS)
        .collect();
    if let Some(begin) = after_launcher(&all) {
        return launched(&all[begin..]);
    }
    let own_program = !command.is_empty();
    let (is_thanos, rest) = if own_program {
        (base_name(all[0].1) == "thanos", &all[1..])
    } else {
        (
            vouched || image_is_thanos(&container.image.0),
            all.as_slice(),
        )
    };
    if !is_thanos {
        if let Some(script) = all
            .iter()
            .map(|(_, arg)| *arg)
            .find(|arg| mentions_store(arg))
        {
            return Runs::Wrapper(script);
        }
        let vouched = vouched || image_is_thanos(&container.image.0);
        if let Some((at, store)) = after_program(&all, vouched && own_program) {
            return Runs::Program(
                all[0].1,
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
        _ if rest.iter().any(|(_, arg)| arg.starts_with('@')) => Runs::ArgsFile(
            rest.iter()
                .map(|(_, arg)| *arg)
                .find(|arg| arg.starts_with('@'))
                .unwrap_or_default(),
        ),
        Some(i) if rest[i].1 == "store" => Runs::Store(store(false, &rest[i + 1..])),
        Some(i)
            if mentions_store(rest[i].1)
                || rest[i..].iter().any(|(_, arg)| mentions_store(arg)) =>
        {
            Runs::Wrapper(rest[i].1)
        }
        Some(i) => match after_program(&rest[i..], true).filter(|_| !own_program) {
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

/// Returns the index of the first argument after timeshard's launcher and its flags. Another program
/// may precede the launcher.
fn after_launcher(args: &[(At, &str)]) -> Option<usize> {
    let launcher = args
        .windows(2)
        .position(|pair| pair[0].1 == names::AGENT_IN_SHARED_DIR && pair[1].1 == "launch")?;
    let end = args[launcher..].iter().position(|(_, arg)| *arg == "--")?;
    Some(launcher + end + 1)
}

/// Returns the program that the launcher starts. An annotation may put any program before the
/// subcommand.
fn launched<'a>(args: &[(At, &'a str)]) -> Runs<'a> {
    let Some((_, rest)) = args.split_first() else {
        return Runs::Other;
    };
    match rest.iter().position(|(_, arg)| *arg == "store") {
        Some(i) => Runs::Store(store(true, &rest[i + 1..])),
        None => Runs::OtherThanos(subcommand(rest).map_or("", |i| rest[i].1)),
    }
}

/// Returns the arguments for thanos store after a program that is not called thanos, and the first of
/// them. With `vouched`, image or user name Thanos; otherwise a program or flag must.
fn after_program<'a>(args: &[(At, &'a str)], vouched: bool) -> Option<(At, Store<'a>)> {
    let at = args
        .iter()
        .position(|(_, arg)| *arg == "store")
        .filter(|at| *at > 0)?;
    let before = &args[..at];
    if before.iter().any(|(_, arg)| OTHER_COMPONENTS.contains(arg)) {
        return None;
    }
    let named = || {
        before
            .iter()
            .any(|(_, arg)| !arg.starts_with('-') && base_name(arg).contains("thanos"))
    };
    let has_flag = || {
        args[at..]
            .iter()
            .any(|(_, arg)| STORE_FLAGS.iter().any(|flag| arg.starts_with(flag)))
    };
    if !(vouched || named() || has_flag()) {
        return None;
    }
    // Global flags precede the subcommand.
    let mut begin = at;
    while begin > 1 {
        let flag = |i: usize| args[i].1.starts_with("--") && args[i].1.len() > 2;
        match begin {
            i if flag(i - 1) => begin -= 1,
            i if i > 2 && GLOBAL_FLAGS_WITH_VALUE.contains(&args[i - 2].1) => begin -= 2,
            _ => break,
        }
    }
    Some((args[begin].0, store(false, &args[at + 1..])))
}

/// Returns the index of the first argument that is neither a global flag nor its value.
fn subcommand(args: &[(At, &str)]) -> Option<usize> {
    let mut i = 0;
    while let Some((_, arg)) = args.get(i) {
        if !arg.starts_with('-') {
            return Some(i);
        }
        i += if GLOBAL_FLAGS_WITH_VALUE.contains(arg) {
            2
        } else {
            1
        };
    }
    None
}

fn store<'a>(launched: bool, args: &[(At, &'a str)]) -> Store<'a> {
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
    for (i, (at, arg)) in args.iter().enumerate() {
        let (flag, inline) = arg
            .split_once('=')
            .map_or((*arg, None), |(flag, value)| (flag, Some(value)));
        let next = args.get(i + 1);
        let text = || inline.or(next.map(|(_, arg)| *arg));
        match flag {
            "--" if inline.is_none() && found.end_of_flags.is_none() => {
                found.end_of_flags = Some(*at);
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

/// Returns the last component of a path, with either slash, without `.exe`.
fn base_name(word: &str) -> &str {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    name.strip_suffix(".exe").unwrap_or(name)
}

/// Whether an argument is a script that runs thanos store: in one of its commands the word store
/// comes after thanos. The webhook registrations match the same with a regular expression
/// (`deploy/base`); a test compares the two.
#[must_use]
pub fn mentions_store(word: &str) -> bool {
    word.split([';', '&', '|']).any(|command| {
        let Some((_, rest)) = command.split_once("thanos") else {
            return false;
        };
        // A backslash continues the line.
        let mut words = rest.split([' ', '\t', '\n', '\x0c', '\r', '\\']).skip(1);
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

/// Returns the port of a listen address such as `0.0.0.0:10902`, `:10902` or `[::]:10902`.
#[must_use]
pub fn port_of(address: &str) -> Option<u16> {
    address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .filter(|port| *port > 0)
}

/// Returns the host at which a listen address is reached from within the pod; loopback for wildcards.
#[must_use]
pub fn host_of(address: &str) -> &str {
    match address.rsplit_once(':').map_or("", |(host, _)| host) {
        "" | "0.0.0.0" | "[::]" | "::" => "127.0.0.1",
        host => host,
    }
}

#[cfg(test)]
mod tests;

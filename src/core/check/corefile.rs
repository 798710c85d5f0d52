//! Reads from a Corefile how long DNS caches an answer about the cluster.
//!
//! Invariants: any text is read in one pass, with bounded size and depth, and never panics; anything
//! not understood is an error, and the caller then assumes the usual time. Deliberately absent:
//! imported files (they are not in the ConfigMap), environment variables, and plugins that do not
//! affect the time.

use crate::core::model::text::truncate;
use std::collections::HashMap;

/// Longer texts are rejected. A ConfigMap has at most 1 MiB.
const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 8;
/// How many lines all `import`s may add.
const MAX_IMPORTED_LINES: usize = 10_000;
/// Default TTL of the plugin `kubernetes`, in seconds.
const RECORD_TTL: u64 = 5;
/// Default minimum TTL of the plugin `cache`, in seconds.
const MIN_CACHE_TTL: u64 = 5;
/// Default maximum TTL, in seconds; also the highest that both plugins accept.
const MAX_TTL: u64 = 3_600;

/// How long an answer about a Service of the cluster is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DnsTimes {
    /// TTL of the record on the DNS server, in seconds.
    pub(super) record_ttl: u64,
    /// How long the server caches these answers, in seconds; `None` if it does not.
    pub(super) cached: Option<u64>,
    /// Whether an expired answer is served while a new one is fetched.
    pub(super) serves_stale: bool,
}

/// A line and the block that it opens.
#[derive(Debug, Default)]
struct CorefileNode<'a> {
    tokens: Vec<&'a str>,
    body: Vec<CorefileNode<'a>>,
}

/// Reads the server block that answers for the cluster's Services.
pub(super) fn times(text: &str) -> Result<DnsTimes, String> {
    let nodes = parse(text)?;
    let (snippets, servers): (Vec<&CorefileNode<'_>>, Vec<&CorefileNode<'_>>) =
        nodes.iter().partition(|node| {
            node.tokens
                .first()
                .is_some_and(|token| token.starts_with('('))
        });
    let snippets: HashMap<&str, &CorefileNode<'_>> = snippets
        .into_iter()
        .filter_map(|snippet| Some((snippet.tokens.first()?.trim_matches(['(', ')']), snippet)))
        .collect();
    let mut left = MAX_IMPORTED_LINES;
    let bodies: Vec<(&CorefileNode<'_>, Vec<&CorefileNode<'_>>)> = servers
        .into_iter()
        .map(|server| Ok((server, imported(&server.body, &snippets, &mut left)?)))
        .collect::<Result<_, String>>()?;
    let domain = bodies
        .iter()
        .flat_map(|(_, body)| directives(body, "kubernetes"))
        .flat_map(|plugin| plugin.tokens.iter().skip(1))
        .map(|zone| normalised(zone))
        .find(|zone| !zone.ends_with("arpa") && !zone.is_empty())
        .unwrap_or_else(|| "cluster.local".to_owned());
    let name = format!("svc.{domain}");
    let answering = bodies
        .iter()
        .filter_map(|(server, body)| {
            Some((
                zones(&server.tokens)
                    .filter(|zone| covers(zone, &name))
                    .map(|zone| zone.len())
                    .max()?,
                body,
            ))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, body)| body)
        .ok_or_else(|| format!("no server block answers for {domain} on port 53"))?;
    let kubernetes = directives(answering, "kubernetes")
        .next()
        .ok_or_else(|| format!("the server block for {domain} has no plugin kubernetes"))?;
    let record_ttl = match directives(&kubernetes.body.iter().collect::<Vec<_>>(), "ttl").next() {
        Some(line) => number(line.tokens.get(1))?.min(MAX_TTL),
        None => RECORD_TTL,
    };
    let mut times = DnsTimes {
        record_ttl,
        cached: None,
        serves_stale: false,
    };
    for plugin in directives(answering, "cache") {
        cache(plugin, &name, &mut times)?;
    }
    Ok(times)
}

/// Applies one `cache` plugin to answers about `name`.
fn cache(plugin: &CorefileNode<'_>, name: &str, times: &mut DnsTimes) -> Result<(), String> {
    let mut args = plugin.tokens.iter().skip(1).copied().peekable();
    let (mut min, mut max) = (MIN_CACHE_TTL, MAX_TTL);
    if let Some(ttl) = args.peek().and_then(|token| token.parse().ok()) {
        max = ttl;
        args.next();
    }
    let zones: Vec<String> = args.map(normalised).collect();
    if !zones.is_empty() && !zones.iter().any(|zone| covers(zone, name)) {
        return Ok(());
    }
    for line in &plugin.body {
        match (line.tokens.first().copied(), line.tokens.get(1).copied()) {
            (Some("success"), _) => {
                if line.tokens.len() > 2 {
                    max = number(line.tokens.get(2))?;
                }
                if line.tokens.len() > 3 {
                    min = number(line.tokens.get(3))?;
                }
            }
            (Some("disable"), Some("success")) => {
                let off: Vec<String> = line
                    .tokens
                    .iter()
                    .skip(2)
                    .map(|zone| normalised(zone))
                    .collect();
                if off.is_empty() || off.iter().any(|zone| covers(zone, name)) {
                    return Ok(());
                }
            }
            (Some("serve_stale"), _) => times.serves_stale = !line.tokens.contains(&"verify"),
            _ => {}
        }
    }
    times.cached = Some(times.record_ttl.max(min).min(max.min(MAX_TTL)));
    Ok(())
}

fn number(token: Option<&&str>) -> Result<u64, String> {
    let token = token.copied().unwrap_or_default();
    token
        .parse::<u64>()
        .map_err(|_| format!("{:?} is not a number of seconds", truncate(token, 40)))
}

fn directives<'a>(
    body: &'a [&'a CorefileNode<'a>],
    name: &'a str,
) -> impl Iterator<Item = &'a CorefileNode<'a>> {
    body.iter()
        .copied()
        .filter(move |line| line.tokens.first().is_some_and(|token| *token == name))
}

/// Returns the lines of a server block, including those of imported snippets.
fn imported<'a>(
    body: &'a [CorefileNode<'a>],
    snippets: &HashMap<&str, &'a CorefileNode<'a>>,
    left: &mut usize,
) -> Result<Vec<&'a CorefileNode<'a>>, String> {
    let mut lines: Vec<&CorefileNode<'_>> = body.iter().collect();
    let mut next = 0;
    while let Some(line) = lines.get(next).copied() {
        next += 1;
        let [first, name, ..] = line.tokens.as_slice() else {
            continue;
        };
        if *first != "import" {
            continue;
        }
        if let Some(snippet) = snippets.get(name) {
            // Also ends snippets that import each other.
            *left = left
                .checked_sub(snippet.body.len().max(1))
                .ok_or("it imports too many lines")?;
            lines.extend(&snippet.body);
        }
    }
    Ok(lines)
}

/// Returns the zones for which a server block answers plain DNS on port 53.
fn zones<'a>(tokens: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    tokens
        .iter()
        .flat_map(|token| token.split(','))
        .filter(|key| !key.is_empty())
        .filter_map(|key| {
            let (scheme, rest) = key.split_once("://").unwrap_or(("dns", key));
            let (zone, port) = rest.rsplit_once(':').unwrap_or((rest, "53"));
            (scheme == "dns" && port == "53").then(|| normalised(zone))
        })
}

/// Lower case without the trailing dot; the root is empty.
fn normalised(zone: &str) -> String {
    zone.trim_end_matches('.').to_ascii_lowercase()
}

fn covers(zone: &str, name: &str) -> bool {
    zone.is_empty()
        || name
            .strip_suffix(zone)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Parses lines and blocks; a block opens at the end of a line and closes on a line of its own.
fn parse(text: &str) -> Result<Vec<CorefileNode<'_>>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let mut open = vec![CorefileNode::default()];
    for (index, line) in text.lines().enumerate() {
        let at = |what: &str| format!("line {}: {what}", index + 1);
        let code = line
            .split_whitespace()
            .take_while(|token| !token.starts_with('#'));
        let mut tokens: Vec<&str> = code.map(|token| token.trim_matches('"')).collect();
        match tokens.last().copied() {
            None => {}
            Some("}") if tokens.len() == 1 => {
                let done = open
                    .pop()
                    .filter(|_| !open.is_empty())
                    .ok_or_else(|| at("a block ends that did not start"))?;
                let parent = open
                    .last_mut()
                    .ok_or_else(|| at("a block ends that did not start"))?;
                parent.body.push(done);
            }
            Some("{") => {
                tokens.pop();
                if open.len() > MAX_DEPTH {
                    return Err(at("blocks are nested too deeply"));
                }
                // The keys of a server block may span several lines, each ending with a comma.
                let mut node = CorefileNode {
                    tokens,
                    body: Vec::new(),
                };
                while let Some(before) = open
                    .last_mut()
                    .and_then(|parent| parent.body.pop_if(|last| continues(last)))
                {
                    node.tokens.splice(0..0, before.tokens);
                }
                open.push(node);
            }
            Some(_) => match open.last_mut() {
                Some(parent) => parent.body.push(CorefileNode {
                    tokens,
                    body: Vec::new(),
                }),
                None => return Err(at("a block ends that did not start")),
            },
        }
    }
    match open.pop() {
        Some(root) if open.is_empty() => Ok(root.body),
        _ => Err("a block does not end".to_owned()),
    }
}

fn continues(line: &CorefileNode<'_>) -> bool {
    line.body.is_empty() && line.tokens.last().is_some_and(|token| token.ends_with(','))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As kubeadm writes it; `{}` stands for the block of `cache`.
    fn kubeadm(cache: &str) -> String {
        format!(
            ".:53 {{\n    errors\n    health {{\n       lameduck 5s\n    }}\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {{\n       \
             pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }}\n    prometheus :9153\n    forward . /etc/resolv.conf \
             {{\n       max_concurrent 1000\n    }}\n    {cache}\n    loop\n    reload\n    loadbalance\n}}\n"
        )
    }

    fn cached(text: &str) -> Option<u64> {
        times(text).unwrap().cached
    }

    #[test]
    fn usual_corefiles() {
        let stale = |record_ttl, cached| DnsTimes {
            record_ttl,
            cached,
            serves_stale: false,
        };
        assert_eq!(times(&kubeadm("cache 30")).unwrap(), stale(30, Some(30)));
        let off = "cache 30 {\n disable success cluster.local\n disable denial cluster.local\n }";
        assert_eq!(times(&kubeadm(off)).unwrap(), stale(30, None));
        assert_eq!(times(&kubeadm("")).unwrap(), stale(30, None));
        // Without a TTL of its own the record has 5 s, which the cache never makes longer.
        let default_ttl = kubeadm("cache 30").replace("ttl 30", "");
        assert_eq!(times(&default_ttl).unwrap(), stale(5, Some(5)));
        // Without a TTL the cache keeps up to an hour.
        let hour = kubeadm("cache").replace("ttl 30", "ttl 4000");
        assert_eq!(times(&hour).unwrap(), stale(3_600, Some(3_600)));
    }

    #[test]
    fn a_cache_has_bounds_zones_and_exceptions() {
        for (cache, want) in [
            ("cache 10", Some(10)),
            ("cache 10 example.org", None),
            ("cache 10 example.org cluster.local.", Some(10)),
            ("cache cluster.local", Some(30)),
            ("cache 300 {\n success 9984 20\n }", Some(20)),
            (
                "cache 300 {\n success 9984 300 60\n denial 9984 5\n }",
                Some(60),
            ),
            ("cache 300 {\n disable success\n }", None),
            ("cache 300 {\n disable success example.org\n }", Some(30)),
            ("cache 300 {\n disable denial cluster.local\n }", Some(30)),
            ("cache 300 {\n disable success local\n }", None),
            ("# cache 300", None),
        ] {
            assert_eq!(cached(&kubeadm(cache)), want, "{cache}");
        }
        assert!(
            times(&kubeadm("cache 30 {\n serve_stale\n }"))
                .unwrap()
                .serves_stale
        );
        assert!(
            !times(&kubeadm("cache 30 {\n serve_stale 1h verify\n }"))
                .unwrap()
                .serves_stale
        );
        assert!(times(&kubeadm("cache 30 {\n success 9984 soon\n }")).is_err());
    }

    #[test]
    fn the_block_of_the_cluster_counts() {
        let two = |zones: &str| {
            format!(
                "{zones} {{\n kubernetes k8s.example {{\n }}\n cache 7\n}}\n. {{\n forward . 1.1.1.1\n cache 3600\n}}\n"
            )
        };
        for zones in [
            "k8s.example",
            "k8s.example.:53",
            "dns://K8S.Example",
            "other.example,\nk8s.example",
            "example",
            "svc.k8s.example",
        ] {
            assert_eq!(cached(&two(zones)), Some(5), "{zones}");
        }
        for zones in [
            "k8s.example:1053",
            "tls://k8s.example",
            "other.example",
            "8s.example",
        ] {
            assert!(
                times(&two(zones)).is_err(),
                "{zones}: the root forwards, so the TTL is not known"
            );
        }
        let snippet = "(common) {\n cache 30\n import more\n}\n(more) {\n errors\n import common\n}\n. {\n import common\n import custom/*.override\n \
                       kubernetes cluster.local {\n ttl 9\n }\n}\n";
        assert!(
            times(snippet).is_err(),
            "snippets that import each other are an error"
        );
        assert_eq!(
            cached(&snippet.replace("errors\n import common", "errors")),
            Some(9)
        );
    }

    #[test]
    fn malformed_and_huge_texts_are_errors() {
        for text in [
            "",
            "}",
            ". {",
            ". {\n}\n}",
            "{\n}",
            "import x",
            ". {\n kubernetes {\n ttl\n }\n}",
            &". {\n".repeat(5_000),
            &"x ".repeat(MAX_BYTES),
        ] {
            assert!(
                times(text).is_err(),
                "{:?}",
                text.chars().take(40).collect::<String>()
            );
        }
        let blocks = format!(
            "{}{}",
            "a.example {\n cache 5\n}\n".repeat(20_000),
            kubeadm("cache 30")
        );
        assert_eq!(cached(&blocks), Some(30));
    }

    proptest! {
        #[test]
        fn no_text_panics(words in prop::collection::vec(prop::sample::select(vec![
            "{", "}", ".", "(a)", "import", "a", "kubernetes", "cluster.local", "cache", "ttl", "30", "success", "disable", "\n", " ", ",", ":53", "://", "\"", "#", "é",
        ]), 0..60)) {
            let _ = times(&words.concat());
            let _ = times(&words.join(" "));
        }
    }
}

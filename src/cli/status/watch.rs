//! `status --watch` and `--until-settled`: polls the server, redraws on a terminal, and elsewhere
//! prints a line per change.
//!
//! The first request must succeed: otherwise the setup is wrong. Later the server may be unavailable
//! for a while.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use chrono::SecondsFormat;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::document::StatusDocument;
use super::{Args, KIND, Output, fetch, size, table};
use crate::adapters::clock;
use crate::cli::cluster::StatusServer;
use crate::cli::{Failure, output, say};
use crate::core::model::text;
use crate::core::rollout::report::{PodState, RolloutState, SetReport};

const POLL_EVERY: Duration = Duration::from_secs(2);

/// Why the watch ends.
enum WatchEnd {
    /// By Ctrl-C, or because the reader of standard output is gone.
    Stopped,
    Settled,
    TimedOut,
}

pub(super) async fn run(args: &Args, server: &StatusServer) -> Result<(), Failure> {
    let mut shown = Shown::new(args);
    let timeout = args
        .timeout
        .map(|timeout| Instant::now() + timeout.to_std());
    let end = tokio::select! {
        end = follow(args, server, &mut shown) => end?,
        () = clock::at(timeout) => WatchEnd::TimedOut,
        // Without a handler, Ctrl-C ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => WatchEnd::Stopped,
    };
    match end {
        WatchEnd::Stopped | WatchEnd::Settled => Ok(()),
        WatchEnd::TimedOut => {
            let limit = args
                .timeout
                .map_or_else(String::new, |timeout| timeout.to_string());
            let last = if shown.open.is_empty() {
                String::new()
            } else {
                format!(": {}", shown.open.join("; "))
            };
            Err(Failure::Failed(format!("not settled after {limit}{last}")))
        }
    }
}

async fn follow(
    args: &Args,
    server: &StatusServer,
    shown: &mut Shown,
) -> Result<WatchEnd, Failure> {
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = false;
    loop {
        ticks.tick().await;
        match fetch(args, server).await {
            Err(failure) if !answered => return Err(failure),
            Err(failure) => {
                if !shown.failed(&failure.to_string()) {
                    return Ok(WatchEnd::Stopped);
                }
            }
            Ok(document) => {
                answered = true;
                if !shown.show(&document)? {
                    return Ok(WatchEnd::Stopped);
                }
                if args.until_settled
                    && let Some(end) = shown.verdict(&document)?
                {
                    return Ok(end);
                }
            }
        }
    }
}

/// The current screen, or the lines printed so far.
struct Shown {
    output: Output,
    /// On a terminal: the current text, to redraw it below an error.
    screen: Option<String>,
    /// Elsewhere: the last line of each subject.
    lines: BTreeMap<String, String>,
    /// Headlines of the StatefulSets that are not settled.
    open: Vec<String>,
}

impl Shown {
    fn new(args: &Args) -> Self {
        let output = args.output;
        let terminal = matches!(output, Output::Table | Output::Wide) && size().1.is_some();
        Self {
            output,
            screen: terminal.then(String::new),
            lines: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    /// Returns false if the reader of standard output is gone.
    fn show(&mut self, document: &StatusDocument) -> Result<bool, Failure> {
        match self.output {
            Output::Json => return Ok(write(&output::json_line(KIND, &document.parts())?)),
            Output::Yaml => return self.yaml(document),
            Output::Table | Output::Wide => {}
        }
        if self.screen.is_some() {
            let remarks: String = document
                .remarks()
                .iter()
                .map(|remark| format!("{remark}\n"))
                .collect();
            let columns = (self.output == Output::Table).then(|| size().0);
            let text = remarks + &table::text(document, columns)?;
            let drawn = draw(&text);
            self.screen = Some(text);
            return Ok(drawn);
        }
        let mut now: Vec<LastMessage> = document
            .remarks()
            .into_iter()
            .map(|remark| LastMessage {
                key: format!("remark {remark}"),
                line: remark,
                healthy: false,
            })
            .collect();
        for set in &document.reports()? {
            now.extend(lines(set));
        }
        let changed = self.changed(now);
        Ok(changed.is_empty() || write(&changed))
    }

    /// Prints a document if the reports have changed.
    fn yaml(&mut self, document: &StatusDocument) -> Result<bool, Failure> {
        let text = format!("---\n{}", output::yaml(KIND, &document.parts())?);
        let before = self.lines.insert("document".to_owned(), text.clone());
        Ok(before.as_ref() == Some(&text) || write(&text))
    }

    /// Returns new lines. Prints a subject's healthy state only after an unhealthy one.
    fn changed(&mut self, now: Vec<LastMessage>) -> String {
        let stamp = clock::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = String::new();
        let mut next = BTreeMap::new();
        for LastMessage { key, line, healthy } in now {
            let before = self.lines.get(&key);
            if before != Some(&line) && (before.is_some() || !healthy) {
                text.push_str(&format!("{stamp} {line}\n"));
            }
            next.insert(key, line);
        }
        self.lines = next;
        text
    }

    /// Reports that the server does not answer.
    fn failed(&mut self, why: &str) -> bool {
        let line = format!("the server does not answer, so the output is stale: {why}");
        if let Some(screen) = &self.screen {
            return draw(&format!("{line}\n{screen}"));
        }
        if self
            .lines
            .insert("no answer".to_owned(), line.clone())
            .as_ref()
            != Some(&line)
        {
            say(&line);
        }
        true
    }

    fn verdict(&mut self, document: &StatusDocument) -> Result<Option<WatchEnd>, Failure> {
        if !document.is_complete() {
            // A server or leader that has just started may not know every StatefulSet yet.
            self.open = vec!["the server has not listed every namespace yet".to_owned()];
            return Ok(None);
        }
        let reports = document.reports()?;
        if reports.is_empty() {
            return Err(Failure::Failed(
                "there is no StatefulSet to wait for".to_owned(),
            ));
        }
        let stopped: Vec<String> = reports
            .iter()
            .filter(|set| matches!(set.state, RolloutState::Blocked | RolloutState::Refused))
            .map(table::headline)
            .collect();
        if !stopped.is_empty() {
            return Err(Failure::Found(stopped.join("; ")));
        }
        self.open = reports
            .iter()
            .filter(|set| set.state != RolloutState::Settled)
            .map(table::headline)
            .collect();
        Ok(self.open.is_empty().then_some(WatchEnd::Settled))
    }
}

/// A subject's line, printed again when it changes.
struct LastMessage {
    key: String,
    line: String,
    healthy: bool,
}

/// Returns the lines of a StatefulSet.
fn lines(set: &SetReport) -> Vec<LastMessage> {
    let name = format!("{}/{}", set.namespace, set.name);
    let mut lines = vec![LastMessage {
        key: name.clone(),
        line: table::headline(set),
        healthy: false,
    }];
    let served = match set.gap_seconds {
        _ if set.not_asked > 0 => format!(
            "{name}: coverage is unknown: {} sidecars not polled yet",
            set.not_asked
        ),
        0 => format!("{name}: every instant is served"),
        seconds => {
            let no_pod = set.unserved_by();
            format!("{name}: GAP: {no_pod} serves {seconds} s of the retention")
        }
    };
    lines.push(LastMessage {
        key: format!("{name} gaps"),
        line: served,
        healthy: set.gap_seconds == 0 || set.not_asked > 0,
    });
    let warning = |warning: &String| LastMessage {
        key: format!("{name} {warning}"),
        line: table::clean(&format!("{name}: warning: {warning}")),
        healthy: false,
    };
    lines.extend(set.warnings.iter().map(warning));
    for pod in &set.pods {
        let window = pod.published.map_or_else(
            || "without an entry".to_owned(),
            |window| window.to_string(),
        );
        let phase = pod
            .phase
            .as_ref()
            .map_or_else(String::new, |phase| format!(" ({phase})"));
        let why = pod
            .why
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let healthy = pod.state == PodState::Confirmed;
        let line = table::clean(&format!(
            "{}/{}: {window} {}{}{why}",
            set.namespace,
            pod.pod,
            table::pod_state(pod.state),
            if healthy { "" } else { &phase }
        ));
        lines.push(LastMessage {
            key: format!("{name} {}", pod.pod),
            line,
            healthy,
        });
    }
    lines
}

/// Redraws the screen; omits lines that do not fit, so that nothing scrolls.
fn draw(text: &str) -> bool {
    let (columns, rows) = size();
    let room = rows.unwrap_or(usize::MAX).saturating_sub(1).max(2);
    let all = text.lines().count();
    let mut screen = "\u{1b}[H".to_owned();
    let fits = if all > room { room - 1 } else { all };
    for line in text.lines().take(fits) {
        screen.push_str(&text::truncate(line, columns));
        screen.push_str("\u{1b}[K\n");
    }
    if all > fits {
        screen.push_str(&format!(
            "… {} more lines; enlarge the window to see them\u{1b}[K\n",
            all - fits
        ));
    }
    // Clears the rest of the previous screen.
    write(&(screen + "\u{1b}[J"))
}

/// Writes and flushes; false if the reader is gone.
fn write(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

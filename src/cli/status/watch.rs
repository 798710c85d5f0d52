//! `status --watch` and `--until-settled`: asks again and again, redraws on a terminal, and elsewhere writes a line for
//! what changed.
//!
//! The first answer must come: without it something is set up wrongly. Later a server may be away for a while.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use chrono::SecondsFormat;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::document::Document;
use super::{Args, Output, ask, size, table};
use crate::adapters::clock;
use crate::adapters::server_status::Server;
use crate::cli::{Failure, say};
use crate::core::report::{PodState, SetReport, State};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Why the watch ends.
enum End {
    /// Ctrl-C, or nobody reads any more.
    Asked,
    Settled,
    TimedOut,
}

pub(super) async fn run(args: &Args, server: &Server) -> Result<(), Failure> {
    let mut shown = Shown::new(args);
    let timeout = args
        .timeout
        .map(|timeout| Instant::now() + timeout.to_std());
    let end = tokio::select! {
        end = follow(args, server, &mut shown) => end?,
        () = async { if let Some(at) = timeout { sleep_until(at).await } else { std::future::pending().await } } => End::TimedOut,
        // Without a handler Ctrl-C ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => End::Asked,
    };
    match end {
        End::Asked | End::Settled => Ok(()),
        End::TimedOut => {
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

async fn follow(args: &Args, server: &Server, shown: &mut Shown) -> Result<End, Failure> {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = false;
    loop {
        ticks.tick().await;
        match ask(args, server).await {
            Err(failure) if !answered => return Err(failure),
            Err(failure) => {
                if !shown.failed(&failure.to_string()) {
                    return Ok(End::Asked);
                }
            }
            Ok(document) => {
                answered = true;
                if !shown.show(&document)? {
                    return Ok(End::Asked);
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

/// What stands on the screen, or was written already.
struct Shown {
    json: bool,
    /// On a terminal: what is drawn, for drawing it again with an error above.
    screen: Option<String>,
    /// Elsewhere: what was last said of each thing.
    lines: BTreeMap<String, String>,
    /// Heads of what is not settled.
    open: Vec<String>,
}

impl Shown {
    fn new(args: &Args) -> Self {
        let json = args.output == Output::Json;
        let terminal = !json && size().1.is_some();
        Self {
            json,
            screen: terminal.then(String::new),
            lines: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    /// Whether somebody still reads.
    fn show(&mut self, document: &Document) -> Result<bool, Failure> {
        if self.json {
            return Ok(write(&(document.json(false)? + "\n")));
        }
        if self.screen.is_some() {
            let remarks: String = document
                .remarks()
                .iter()
                .map(|remark| format!("{remark}\n"))
                .collect();
            let text = remarks + &table::text(document, size().0)?;
            let drawn = draw(&text);
            self.screen = Some(text);
            return Ok(drawn);
        }
        let mut now: Vec<Said> = document
            .remarks()
            .into_iter()
            .map(|remark| Said {
                key: format!("remark {remark}"),
                line: remark,
                usual: false,
            })
            .collect();
        for set in &document.reports()? {
            now.extend(lines(set));
        }
        let changed = self.changed(now);
        Ok(changed.is_empty() || write(&changed))
    }

    /// Lines for what was not said yet. What is as it should be is worth one only if it was not before.
    fn changed(&mut self, now: Vec<Said>) -> String {
        let stamp = clock::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = String::new();
        let mut next = BTreeMap::new();
        for Said { key, line, usual } in now {
            let before = self.lines.get(&key);
            if before != Some(&line) && (before.is_some() || !usual) {
                text.push_str(&format!("{stamp} {line}\n"));
            }
            next.insert(key, line);
        }
        self.lines = next;
        text
    }

    /// Shows that the server does not answer.
    fn failed(&mut self, why: &str) -> bool {
        let line = format!("no answer since the last one shown: {why}");
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

    fn verdict(&mut self, document: &Document) -> Result<Option<End>, Failure> {
        if !document.is_complete() {
            // A server that has just begun, or begun to lead, may not have seen those that are not settled.
            self.open = vec!["the server has not seen everything yet".to_owned()];
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
            .filter(|set| matches!(set.state, State::Blocked | State::Refused))
            .map(table::headline)
            .collect();
        if !stopped.is_empty() {
            return Err(Failure::Found(stopped.join("; ")));
        }
        self.open = reports
            .iter()
            .filter(|set| set.state != State::Settled)
            .map(table::headline)
            .collect();
        Ok(self.open.is_empty().then_some(End::Settled))
    }
}

/// One thing that is said again when it changes.
struct Said {
    key: String,
    line: String,
    /// As it should be.
    usual: bool,
}

/// What may change of a StatefulSet.
fn lines(set: &SetReport) -> Vec<Said> {
    let name = format!("{}/{}", set.namespace, set.name);
    let mut lines = vec![Said {
        key: name.clone(),
        line: table::headline(set),
        usual: false,
    }];
    let served = match set.gap_seconds {
        _ if set.not_asked > 0 => format!(
            "{name}: what is served is not known yet: {} sidecars were not asked",
            set.not_asked
        ),
        0 => format!("{name}: every instant is served"),
        seconds => format!("{name}: GAP: nobody serves {seconds} s of the retention"),
    };
    lines.push(Said {
        key: format!("{name} gaps"),
        line: served,
        usual: set.gap_seconds == 0 || set.not_asked > 0,
    });
    let warning = |warning: &String| Said {
        key: format!("{name} {warning}"),
        line: table::clean(&format!("{name}: warning: {warning}")),
        usual: false,
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
        let usual = pod.state == PodState::Confirmed;
        let line = table::clean(&format!(
            "{}/{}: {window} {}{}{why}",
            set.namespace,
            pod.pod,
            table::pod_state(pod.state),
            if usual { "" } else { &phase }
        ));
        lines.push(Said {
            key: format!("{name} {}", pod.pod),
            line,
            usual,
        });
    }
    lines
}

/// Draws over what is there; what does not fit is left out, so that nothing scrolls.
fn draw(text: &str) -> bool {
    let (columns, rows) = size();
    let room = rows.unwrap_or(usize::MAX).saturating_sub(1).max(2);
    let all = text.lines().count();
    let mut screen = "\u{1b}[H".to_owned();
    let fits = if all > room { room - 1 } else { all };
    for line in text.lines().take(fits) {
        screen.push_str(&table::short(line, columns));
        screen.push_str("\u{1b}[K\n");
    }
    if all > fits {
        screen.push_str(&format!(
            "… {} more lines: a larger window shows them\u{1b}[K\n",
            all - fits
        ));
    }
    // What the last drawing had below this one.
    write(&(screen + "\u{1b}[J"))
}

/// Writes at once; false when nobody reads any more.
fn write(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

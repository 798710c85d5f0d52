//! The store container's command and arguments: the launcher in front, and each time flag once.
//!
//! In: the recognised arguments, and the window. Out: operations on `command` and `args`. This is the
//! last file of a review: `inject` adds grace period, label and annotations, and returns to `webhook`.

use std::borrow::Cow;

use super::eligible::{Candidate, annotated_command};
use super::inject::Patch;
use super::patch::{Operation, Value};
use super::{Facts, Remark};
use crate::core::gateways::container::launcher_command;
use crate::core::model::window::Window;
use crate::core::pod::{ContainerView, Text};
use crate::core::thanos::args::At;

impl<'a> Patch<'a, '_> {
    pub(super) fn command_and_args(
        &mut self,
        facts: &Facts<'a>,
        window: Window,
        ours: bool,
        remarks: &mut Vec<Remark>,
    ) {
        let container = self.candidate.container;
        let mut args: Vec<Edit> = Vec::new();
        let mut command: Vec<Edit> = Vec::new();
        if !ours || self.candidate.store.time_flags.is_empty() {
            time_flag_edits(self.candidate, window, &mut command, &mut args);
        }
        if let (Some(At::Args(first)), false) =
            (self.candidate.store.wrapped, self.candidate.store.launched)
        {
            args.extend((0..first).map(|i| Edit {
                place: EditPlace::At(i),
                arg: None,
            }));
        }
        let base = format!("/spec/containers/{}", self.candidate.index);
        let launched = self.candidate.store.launched;
        if !launched || !command.is_empty() {
            let mut line: Vec<Cow<'a, str>> = Vec::with_capacity(container.command().len() + 6);
            if !launched {
                line.extend(launcher_command(facts.gateway.sharding.termination_drain()));
            }
            line.extend(self.program(container, command, launched, remarks));
            let put = if container.command.is_some() {
                Operation::replace
            } else {
                Operation::add
            };
            self.operations.push(put(
                Cow::Owned(format!("{base}/command")),
                Value::Strings(line),
            ));
        }
        self.args(&base, args);
    }

    /// Returns the command that the launcher runs: the annotation's, else the container's, else the
    /// image's `thanos`.
    fn program(
        &self,
        container: &'a ContainerView<'a>,
        edits: Vec<Edit>,
        launched: bool,
        remarks: &mut Vec<Remark>,
    ) -> Vec<Cow<'a, str>> {
        match annotated_command(self.pod).filter(|_| !launched) {
            Some(Ok(line)) => {
                // The annotation replaces only the program; the arguments after it stay.
                let program = match self.candidate.store.wrapped {
                    None => 1,
                    Some(At::Command(first)) => first,
                    Some(At::Args(_)) => container.command().len(),
                };
                let rest = container
                    .command()
                    .iter()
                    .skip(program)
                    .map(|arg| arg.0.clone());
                return line
                    .into_iter()
                    .map(Cow::Owned)
                    .chain(edited(rest.collect(), edits, program))
                    .collect();
            }
            Some(Err(())) => remarks.push(Remark::BadCommandAnnotation),
            None => {}
        }
        if container.command().is_empty() {
            return vec![Cow::Borrowed("thanos")];
        }
        edited(
            container
                .command()
                .iter()
                .map(|Text(arg)| arg.clone())
                .collect(),
            edits,
            0,
        )
    }

    fn args(&mut self, base: &str, mut edits: Vec<Edit>) {
        if self.candidate.container.args.is_none() {
            let appended: Vec<_> = edits
                .into_iter()
                .map(|edit| Cow::Owned(edit.arg.unwrap_or_default()))
                .collect();
            if !appended.is_empty() {
                self.operations.push(Operation::add(
                    format!("{base}/args"),
                    Value::Strings(appended),
                ));
            }
            return;
        }
        // From the back, so that no insertion or removal shifts an index that is still to come.
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.index()));
        for edit in edits {
            let value = edit.arg.map(|arg| Value::Text(Cow::Owned(arg)));
            self.operations.push(match (edit.place, value) {
                (EditPlace::End, Some(value)) => Operation::add(format!("{base}/args/-"), value),
                (EditPlace::Before(i), Some(value)) => {
                    Operation::add(format!("{base}/args/{i}"), value)
                }
                (EditPlace::At(i), Some(value)) => {
                    Operation::replace(format!("{base}/args/{i}"), value)
                }
                (EditPlace::At(i) | EditPlace::Before(i), None) => {
                    Operation::remove(format!("{base}/args/{i}"))
                }
                (EditPlace::End, None) => continue,
            });
        }
    }
}

/// A change of one argument.
struct Edit {
    place: EditPlace,
    /// `None` removes the argument.
    arg: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EditPlace {
    At(usize),
    Before(usize),
    End,
}

impl Edit {
    fn index(&self) -> usize {
        match self.place {
            EditPlace::At(i) | EditPlace::Before(i) => i,
            // Handled last, so that appended arguments keep the order of the edits: see `args`.
            EditPlace::End => 0,
        }
    }
}

/// Collects the edits after which each time flag occurs once, with the value of the window.
fn time_flag_edits(
    candidate: &Candidate<'_>,
    window: Window,
    command: &mut Vec<Edit>,
    args: &mut Vec<Edit>,
) {
    let mut put = |at: At, arg: Option<String>| match at {
        At::Command(i) => command.push(Edit {
            place: EditPlace::At(i),
            arg,
        }),
        At::Args(i) => args.push(Edit {
            place: EditPlace::At(i),
            arg,
        }),
    };
    let mut missing = Vec::new();
    for (is_min, name, bound) in [
        (true, "--min-time", window.min),
        (false, "--max-time", window.max),
    ] {
        let mut found = false;
        for flag in candidate
            .store
            .time_flags
            .iter()
            .filter(|flag| flag.is_min == is_min)
        {
            if found {
                // thanos exits on a repeated flag, so only the first occurrence stays.
                put(flag.flag, None);
                flag.value.into_iter().for_each(|at| put(at, None));
            } else if let Some(value) = flag.value {
                put(value, Some(bound.to_string()));
            } else {
                put(flag.flag, Some(format!("{name}={bound}")));
            }
            found = true;
        }
        if !found {
            missing.push(format!("{name}={bound}"));
        }
    }
    for arg in missing {
        match candidate.store.end_of_flags {
            None => args.push(Edit {
                place: EditPlace::End,
                arg: Some(arg),
            }),
            Some(At::Args(i)) => args.push(Edit {
                place: EditPlace::Before(i),
                arg: Some(arg),
            }),
            Some(At::Command(i)) => command.push(Edit {
                place: EditPlace::Before(i),
                arg: Some(arg),
            }),
        }
    }
}

/// Applies edits to arguments of which the first `offset` were removed. Each argument is moved
/// once: removals from the middle of a long list would move all later arguments each time.
fn edited(args: Vec<Cow<'_, str>>, mut edits: Vec<Edit>, offset: usize) -> Vec<Cow<'_, str>> {
    // Stable; an insertion comes before a change of the argument at its place.
    edits.sort_by_key(|edit| {
        (
            edit.index().saturating_sub(offset),
            matches!(edit.place, EditPlace::At(_)),
        )
    });
    let at_end = edits
        .iter()
        .filter(|edit| edit.place == EditPlace::End)
        .count();
    let mut result = Vec::with_capacity(args.len() + edits.len());
    let mut appended = Vec::with_capacity(at_end);
    let mut edits = edits.into_iter().peekable();
    for (i, arg) in args.into_iter().enumerate() {
        let mut kept = Some(arg);
        while let Some(edit) = edits.next_if(|edit| {
            edit.place == EditPlace::End || edit.index().saturating_sub(offset) <= i
        }) {
            match (edit.place, edit.arg) {
                (EditPlace::End, arg) => appended.extend(arg),
                (EditPlace::Before(_), arg) => result.extend(arg.map(Cow::Owned)),
                (EditPlace::At(_), arg) => kept = arg.map(Cow::Owned),
            }
        }
        result.extend(kept);
    }
    // Appended arguments keep the order of the edits.
    appended.extend(edits.filter_map(|edit| edit.arg));
    result.extend(appended.into_iter().map(Cow::Owned));
    result
}

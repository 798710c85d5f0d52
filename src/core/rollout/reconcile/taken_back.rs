//! A step that was taken back because a querier did not let a pod go: when it is tried again.

use std::time::Duration;

/// Pause after a step that was taken back, doubling to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_mins(5);
const MAX_RETRY: Duration = Duration::from_hours(1);

/// The last step that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// `namespace/pod` of the querier.
    pub querier: String,
    pub pod: String,
    pub ago: Duration,
    /// How often in a row.
    pub times: u32,
}

impl TakenBack {
    /// Notes that pods have got back the windows that they run, each with the querier that kept it.
    /// Pods of one step follow each other within the pause.
    #[must_use]
    pub fn note(before: Option<&Self>, pods: &[(String, String)]) -> Option<Self> {
        let (pod, querier) = pods.first()?;
        let times = match before {
            Some(last) if last.pause_left().is_some() => last.times,
            Some(last) => last.times.saturating_add(1),
            None => 1,
        };
        Some(Self {
            querier: querier.clone(),
            pod: pod.clone(),
            ago: Duration::ZERO,
            times,
        })
    }

    /// How long until the step is tried again; `None` if it may be tried now.
    #[must_use]
    pub fn pause_left(&self) -> Option<Duration> {
        let doublings = self.times.saturating_sub(1).min(8);
        let pause = (FIRST_RETRY * 2_u32.pow(doublings)).min(MAX_RETRY);
        Some(pause.saturating_sub(self.ago)).filter(|left| !left.is_zero())
    }
}

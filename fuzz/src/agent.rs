//! Input and output of the agent: entries, the files between sidecar and launcher, `/status`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thanos_timeshard::core::agent::handoff::{
    BlockList, Inspect, LaunchRecord, LaunchVerdict, WindowFile, decode, encode,
};
use thanos_timeshard::core::agent::status::AgentStatus;
use thanos_timeshard::core::model::entry::Entry;

use crate::{now, text};

/// A pod's entry in the ConfigMap: it reads back as written, and no window is inverted.
pub fn entry(input: &[u8]) {
    let Some(text) = text(input) else { return };
    match Entry::parse(text, now()) {
        Ok(entry) => {
            let written = entry.to_yaml();
            assert!(written.len() <= 512, "{written}");
            assert_eq!(
                Entry::parse(&written, now()).expect(&written),
                entry,
                "{written}"
            );
            assert!(
                entry.window.min.at(now()) < entry.window.max.at(now()),
                "{written}"
            );
        }
        Err(why) => {
            let why = why.to_string();
            assert!(
                !why.is_empty() && why.len() <= 2_000,
                "{} bytes: {why}",
                why.len()
            );
        }
    }
}

/// A sidecar's `/status`, as the leader reads it: it reads back as written, and every text is one short
/// line.
pub fn agent_status(input: &[u8]) {
    let Ok(status) = AgentStatus::read(input) else {
        return;
    };
    let texts = [
        Some(&status.agent_version),
        status.last_error.as_ref(),
        status.blocks_unknown.as_ref(),
        status.namespace.as_ref(),
    ];
    for text in texts.into_iter().chain([status.uid.as_ref()]).flatten() {
        assert!(
            text.len() <= 8_000 && !text.contains(char::is_control),
            "{text:?}"
        );
    }
    let blocks = status.blocks.iter().flat_map(|blocks| &blocks.missing);
    assert!(
        blocks.clone().count() <= 256
            && blocks
                .clone()
                .all(|block| block.ulid.len() == 26 && block.min_time <= block.max_time)
    );
    let written = serde_json::to_vec(&status).expect("a status is written");
    let again: AgentStatus = serde_json::from_slice(&written)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(again, status);
}

/// The files between sidecar and launcher: each reads back as written.
pub fn shared_files(input: &[u8]) {
    fn one<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(input: &[u8]) {
        let Some(file) = decode::<T>(input) else {
            return;
        };
        let written = encode(&file).expect("plain data is written");
        assert_eq!(
            decode::<T>(&written).as_ref(),
            Some(&file),
            "{}",
            String::from_utf8_lossy(&written)
        );
    }
    one::<WindowFile>(input);
    one::<LaunchVerdict>(input);
    one::<Inspect>(input);
    one::<BlockList>(input);
    one::<LaunchRecord>(input);
    if let Some(WindowFile {
        accepted: Some(accepted),
        generation,
        ..
    }) = decode::<WindowFile>(input)
    {
        let _ = accepted.with_generation(generation).to_yaml();
    }
}

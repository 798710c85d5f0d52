//! Lists of a pod, read up to a length. An element of three bytes takes a hundred in memory, so a request of some MiB would take
//! hundreds; no pod that runs is near these limits, and what is beyond one of them is refused as not readable.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Owner references; Kubernetes' own controllers set one.
const MAX_OWNERS: usize = 64;
/// Containers, and init containers.
const MAX_CONTAINERS: usize = 128;
/// Volumes, and claim templates.
const MAX_VOLUMES: usize = 1024;
/// Mounts, and ports, of one container.
const MAX_OF_CONTAINER: usize = 1024;
/// Words of one command, and arguments of one container, that are read. Further ones are skipped: a container with a quarter of
/// these is left alone already, with a warning.
pub(crate) const MAX_WORDS: usize = 4096;
/// Variables of one container.
const MAX_VARIABLES: usize = 4096;
/// A value that is read as a whole. Bytes.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Reads a list, or null.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    most: usize,
    what: &'static str,
) -> Listed<T, D::Error> {
    deserializer.deserialize_option(List {
        most,
        what,
        skips: false,
        of: PhantomData,
    })
}

type Listed<T, E> = Result<Option<Vec<T>>, E>;

pub(crate) fn owners<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(deserializer, MAX_OWNERS, "owner references")
}

pub(crate) fn containers<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(deserializer, MAX_CONTAINERS, "containers")
}

pub(crate) fn volumes<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(deserializer, MAX_VOLUMES, "volumes")
}

pub(crate) fn mounts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(
        deserializer,
        MAX_OF_CONTAINER,
        "volume mounts of a container",
    )
}

pub(crate) fn ports<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(deserializer, MAX_OF_CONTAINER, "ports of a container")
}

pub(crate) fn words<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    deserializer.deserialize_option(List {
        most: MAX_WORDS,
        what: "words",
        skips: true,
        of: PhantomData,
    })
}

pub(crate) fn variables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Listed<T, D::Error> {
    list(deserializer, MAX_VARIABLES, "variables of a container")
}

/// A value of a few words, read as a whole.
pub(crate) fn small_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    let Some(raw) = Option::<&RawValue>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if raw.get().len() > MAX_VALUE_BYTES {
        return Err(D::Error::custom(format_args!(
            "an update strategy of more than {MAX_VALUE_BYTES} bytes"
        )));
    }
    serde_json::from_str(raw.get()).map_err(D::Error::custom)
}

/// Reads a list, of which there may be none.
struct List<T> {
    most: usize,
    what: &'static str,
    /// Skips what is too much instead of refusing all.
    skips: bool,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.most {
            let Some(element) = list.next_element()? else {
                return Ok(Some(elements));
            };
            elements.push(element);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            if !self.skips {
                return Err(A::Error::custom(format_args!(
                    "more than {} {}",
                    self.most, self.what
                )));
            }
        }
        Ok(Some(elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::pod::PodView;

    fn pod(before: &str, element: &str, count: usize, after: &str) -> Result<usize, String> {
        let json = format!("{before}{}{after}", vec![element; count].join(","));
        PodView::parse(json.as_bytes())
            .map(|pod| pod.containers().len())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn long_lists_are_refused_by_name() {
        let container = |list: &str| format!("{{\"spec\":{{\"containers\":[{{\"{list}\":[");
        for (before, element, most, after, what) in [
            (
                "{\"metadata\":{\"ownerReferences\":[".to_owned(),
                "{}",
                MAX_OWNERS,
                "]}}",
                "owner references",
            ),
            (
                "{\"spec\":{\"containers\":[".to_owned(),
                "{}",
                MAX_CONTAINERS,
                "]}}",
                "containers",
            ),
            (
                "{\"spec\":{\"initContainers\":[".to_owned(),
                "{}",
                MAX_CONTAINERS,
                "]}}",
                "containers",
            ),
            (
                "{\"spec\":{\"volumes\":[".to_owned(),
                "{}",
                MAX_VOLUMES,
                "]}}",
                "volumes",
            ),
            (
                container("ports"),
                "{}",
                MAX_OF_CONTAINER,
                "]}]}}",
                "ports of a container",
            ),
            (
                container("volumeMounts"),
                "{}",
                MAX_OF_CONTAINER,
                "]}]}}",
                "volume mounts of a container",
            ),
        ] {
            pod(&before, element, most, after).unwrap();
            let refused = pod(&before, element, most + 1, after).unwrap_err();
            assert!(
                refused.starts_with(&format!("more than {most} {what} at line 1 column ")),
                "{refused}"
            );
        }
    }

    #[test]
    fn null_and_nothing_are_no_list() {
        let pod = PodView::parse(br#"{"metadata":{"ownerReferences":null},"spec":{"volumes":[]}}"#)
            .unwrap();
        assert!(pod.metadata.owner_references.is_none() && pod.spec.containers.is_none());
        assert!(pod.spec.volumes.is_some_and(|volumes| volumes.is_empty()));
        let wrong = PodView::parse(br#"{"spec":{"volumes":{}}}"#)
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("expected a list of volumes"), "{wrong}");
    }

    #[test]
    fn words_beyond_the_limit_are_skipped() {
        for list in ["args", "command"] {
            let json = format!(
                "{{\"spec\":{{\"containers\":[{{\"{list}\":[{}]}}]}}}}",
                vec!["\"x\""; 2 * MAX_WORDS].join(",")
            );
            let pod = PodView::parse(json.as_bytes()).unwrap();
            let container = &pod.containers()[0];
            assert_eq!(
                container.args().len().max(container.command().len()),
                MAX_WORDS
            );
        }
    }

    #[test]
    fn variables_beyond_the_limit_are_not_read() {
        let json = |count: usize| format!("{{\"env\":[{}]}}", vec!["{}"; count].join(","));
        let read = |json: &str| {
            serde_json::from_str::<crate::core::pod::ContainerView<'_>>(json)
                .unwrap()
                .variables()
                .len()
        };
        assert_eq!(
            (read(&json(MAX_VARIABLES)), read(&json(MAX_VARIABLES + 1))),
            (MAX_VARIABLES, 0)
        );
    }
}

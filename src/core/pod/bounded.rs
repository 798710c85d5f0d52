//! Bounds the lists of a pod. An element of three bytes takes a hundred in memory, so a request of
//! a few MiB would take hundreds. No real pod is near these limits, and a list beyond one counts as
//! unreadable.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Arguments of a container that are read, in `command` and in `args`. Further ones are ignored: a
/// pod with a quarter of these is skipped with a warning.
pub(crate) const MAX_READ_ARGUMENTS: usize = 4096;
/// Owner references; Kubernetes' controllers set one.
const MAX_OWNERS: usize = 64;
/// Containers, and init containers.
const MAX_CONTAINERS: usize = 128;
/// Volumes, and claim templates.
const MAX_VOLUMES: usize = 1024;
/// Pull secrets of a pod.
const MAX_SECRETS: usize = 1024;
/// Mounts, and ports, of one container.
const MAX_OF_CONTAINER: usize = 1024;
/// Variables of a container.
const MAX_VARIABLES: usize = 4096;
/// Longest value that is kept as a tree. Bytes.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Functions that deserialize a list, or null: `name(limit, what it lists, what a longer one does)`.
macro_rules! bounded_lists {
    ($($name:ident($max:expr, $what:literal, $beyond:ident);)*) => {
        $(pub(crate) fn $name<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
            deserializer: D,
        ) -> Result<Option<Vec<T>>, D::Error> {
            let (max, what, beyond) = ($max, $what, Beyond::$beyond);
            deserializer.deserialize_option(List { max, what, beyond, of: PhantomData })
        })*
    };
}

bounded_lists! {
    owners(MAX_OWNERS, "owner references", Fails);
    containers(MAX_CONTAINERS, "containers", Fails);
    volumes(MAX_VOLUMES, "volumes", Fails);
    secrets(MAX_SECRETS, "pull secrets", Fails);
    mounts(MAX_OF_CONTAINER, "volume mounts of a container", Fails);
    ports(MAX_OF_CONTAINER, "ports of a container", Fails);
    variables(MAX_VARIABLES, "variables of a container", Fails);
    arguments(MAX_READ_ARGUMENTS, "arguments", IsIgnored);
}

/// What happens to elements beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Fails,
    IsIgnored,
}

/// Deserializes a small value as a tree.
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

struct List<T> {
    max: usize,
    what: &'static str,
    beyond: Beyond,
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
        while elements.len() < self.max {
            let Some(element) = list.next_element()? else {
                return Ok(Some(elements));
            };
            elements.push(element);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            if self.beyond == Beyond::Fails {
                return Err(A::Error::custom(format_args!(
                    "more than {} {}",
                    self.max, self.what
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
                "{\"spec\":{\"imagePullSecrets\":[".to_owned(),
                "{}",
                MAX_SECRETS,
                "]}}",
                "pull secrets",
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
    fn null_and_a_missing_field_are_no_list() {
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
    fn arguments_beyond_the_limit_are_ignored() {
        for list in ["args", "command"] {
            let json = format!(
                "{{\"spec\":{{\"containers\":[{{\"{list}\":[{}]}}]}}}}",
                vec!["\"x\""; 2 * MAX_READ_ARGUMENTS].join(",")
            );
            let pod = PodView::parse(json.as_bytes()).unwrap();
            let container = &pod.containers()[0];
            assert_eq!(
                container.args().len().max(container.command().len()),
                MAX_READ_ARGUMENTS
            );
        }
    }

    #[test]
    fn variables_beyond_the_limit_are_ignored() {
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

//! What the containers of an observed object run, recognised as admission does: on the same
//! borrowed view.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Container;

use crate::core::pod::{ContainerView, Text};
use crate::core::thanos::args::{Runs, mentions_store, recognise};

/// The arguments of a container, borrowed as admission borrows them.
pub(super) fn view(container: &Container) -> ContainerView<'_> {
    fn text(text: &str) -> Text<'_> {
        Text(Cow::Borrowed(text))
    }
    fn texts(all: Option<&Vec<String>>) -> Option<Vec<Text<'_>>> {
        all.map(|all| all.iter().map(|one| text(one)).collect())
    }
    ContainerView {
        name: text(&container.name),
        image: text(container.image.as_deref().unwrap_or_default()),
        command: texts(container.command.as_ref()),
        args: texts(container.args.as_ref()),
        ..ContainerView::default()
    }
}

/// Passes what a container runs to `read`. With `vouched` its user vouches for the image.
pub(super) fn run<T>(container: &Container, vouched: bool, read: impl FnOnce(Runs<'_>) -> T) -> T {
    read(recognise(&view(container), vouched))
}

/// The port of the first thanos store's `--grpc-address`, if it is a number.
pub(super) fn grpc_port(containers: &[Container]) -> Option<u16> {
    let of = |runs: Runs<'_>| match runs {
        Runs::Store(store) | Runs::Program(_, store) => Some(store.grpc_port()),
        _ => None,
    };
    // The template's metadata, where the user vouches for the image, is not read.
    let first = |vouched| {
        containers
            .iter()
            .find_map(|container| run(container, vouched, of))
    };
    first(false).or_else(|| first(true)).flatten()
}

/// Whether containers may run thanos store, by the same test as the registration's
/// `matchConditions`: users of other StatefulSets get no Events.
#[must_use]
pub fn may_run_store(containers: &[Container]) -> bool {
    let mut args = containers
        .iter()
        .flat_map(|container| [&container.args, &container.command])
        .flatten()
        .flatten();
    args.any(|arg| arg == "store" || arg.starts_with('@') || mentions_store(arg))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn containers(all: Value) -> Vec<Container> {
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_statefulset_may_run_a_store_by_the_arguments_that_the_registration_matches() {
        for (words, may) in [
            (
                json!(["sh", "-c", "exec /bin/thanos --log.level=info store --x"]),
                true,
            ),
            (
                json!(["sh", "-c", "thanos query --endpoint=dns+thanos-store:10901"]),
                false,
            ),
            (json!(["store"]), true),
            (json!(["thanos", "@/etc/flags"]), true),
            (json!(["thanos", "query"]), false),
        ] {
            for key in ["command", "args"] {
                assert_eq!(
                    may_run_store(&containers(
                        json!([{"name": "a"}, {"name": "b", key: words}])
                    )),
                    may,
                    "{words}"
                );
            }
        }
    }

    #[test]
    fn the_port_is_read_from_the_arguments_of_thanos() {
        let store =
            |image: &str, args: &[&str]| json!([{"name": "c", "image": image, "args": args}]);
        for (all, port) in [
            (
                store("thanos", &["store", "--grpc-address=0.0.0.0:9090"]),
                Some(9090),
            ),
            (
                store("thanos", &["store", "--grpc-address", ":9090"]),
                Some(9090),
            ),
            (
                store("mine", &["store", "--grpc-address=[::]:9090"]),
                Some(9090),
            ),
            (store("thanos", &["store"]), None),
            (
                store("thanos", &["store", "--grpc-address=0.0.0.0:$(PORT)"]),
                None,
            ),
            (store("thanos", &["query", "--grpc-address=:9090"]), None),
            (
                json!([{"name": "c", "command": ["/bin/thanos", "store"], "args": ["--grpc-address=:9090"]}]),
                Some(9090),
            ),
            (
                json!([{"name": "a", "image": "mine", "args": ["store", "--grpc-address=:1"]},
                       {"name": "b", "image": "thanos", "args": ["store", "--grpc-address=:2"]}]),
                Some(2),
            ),
            (json!([{"name": "a"}]), None),
            (json!([]), None),
        ] {
            assert_eq!(grpc_port(&containers(all.clone())), port, "{all}");
        }
    }
}

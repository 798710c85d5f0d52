//! What the containers of an observed object run, asked the way admission asks: on the same borrowed view.

use k8s_openapi::api::core::v1::Container;

use crate::core::pod::ContainerView;
use crate::core::store_args::{Runs, mentions_store, recognise};

/// What `look` makes of a container's words. `vouched` says that its user vouches for the image.
pub fn run<T>(container: &Container, vouched: bool, look: impl FnOnce(Runs<'_>) -> T) -> Option<T> {
    // The rest of a container is long and says nothing about this.
    let words = Container {
        name: container.name.clone(),
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        ..Container::default()
    };
    let json = serde_json::to_string(&words).ok()?;
    let view: ContainerView<'_> = serde_json::from_str(&json).ok()?;
    Some(look(recognise(&view, vouched)))
}

/// The port of the first thanos store's `--grpc-address`, if it says one as a number.
#[must_use]
pub fn grpc_port(containers: &[Container]) -> Option<u16> {
    let of = |runs: Runs<'_>| match runs {
        Runs::Store(store) | Runs::Program(_, store) => Some(store.grpc_port()),
        _ => None,
    };
    // Whether the image is vouched for stands in the template's metadata, which is not read.
    let first = |vouched| {
        containers
            .iter()
            .find_map(|container| run(container, vouched, of).flatten())
    };
    first(false).or_else(|| first(true)).flatten()
}

/// As the registration asks it of pods (`matchConditions`): other StatefulSets' users have nothing to hear from us.
#[must_use]
pub fn may_run_store(containers: &[Container]) -> bool {
    let mut words = containers
        .iter()
        .flat_map(|container| [&container.args, &container.command])
        .flatten()
        .flatten();
    words.any(|word| word == "store" || word.starts_with('@') || mentions_store(word))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn containers(all: Value) -> Vec<Container> {
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_set_is_one_of_ours_by_the_words_that_the_registration_asks_for() {
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
    fn the_port_is_read_from_the_words_of_thanos() {
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

//! What becomes of the container's command and arguments.

use super::*;

#[test]
fn windows_and_launcher_are_added_to_the_command_line() {
    let pod = injected(&store_with(&json!({})));
    assert_eq!(
        args_of(&pod),
        [
            "store",
            "--data-dir=/d",
            "--min-time=-247d16h",
            "--max-time=-123d8h"
        ]
    );
    let command = "/run/timeshard/timeshard-agent launch --shared-dir=/run/timeshard --termination-drain=1m30s -- thanos";
    assert_eq!(
        pod["spec"]["containers"][0]["command"],
        command.split(' ').collect::<Value>()
    );
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 120);
    assert_eq!(pod["metadata"]["labels"][names::SHARD_LABEL], "1");
    let status: Value = serde_json::from_str(
        pod["metadata"]["annotations"][names::STATUS_ANNOTATION]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        (&status["shard"], &status["replica"], &status["source"]),
        (&json!(1), &json!(1), &json!("plan"))
    );
    assert_eq!(
        pod["spec"]["volumes"][1],
        json!({"name": "timeshard-config", "configMap": {"name": "store-time-shards", "optional": true}})
    );
}

#[test]
fn everything_in_command_keeps_its_arguments() {
    let pod = pod_of(
        &json!({"containers": [{"name": "t", "image": "x", "command": ["/bin/thanos", "store", "--data-dir=/d"]}]}),
    );
    let pod = injected(&pod);
    let command: Vec<&str> = pod["spec"]["containers"][0]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect();
    assert_eq!(
        command[4..],
        ["--", "/bin/thanos", "store", "--data-dir=/d"]
    );
    assert_eq!(args_of(&pod), ["--min-time=-247d16h", "--max-time=-123d8h"]);
}

#[test]
fn flags_stay_before_a_bare_double_dash() {
    let pod = injected(&store_with(&json!({"args": ["store", "--", "x"]})));
    let args = args_of(&pod);
    assert_eq!((args[0], args[3], args[4]), ("store", "--", "x"));
}

#[test]
fn time_flags_of_the_user_are_respected_unless_they_may_be_replaced() {
    let args = json!({"args": ["store", "--max-time", "-2w", "--min-time=-1y", "--data-dir=/d", "--min-time=-5d"]});
    let mut pod = store_with(&args);
    assert_eq!(admit(&pod).unwrap_err().label(), "time_flags");
    pod["metadata"]["annotations"] = json!({names::REPLACE_TIME_FLAGS: "true"});
    let pod = injected(&pod);
    assert_eq!(
        args_of(&pod),
        [
            "store",
            "--max-time",
            "-123d8h",
            "--min-time=-247d16h",
            "--data-dir=/d"
        ]
    );
    let in_command = pod_of(
        &json!({"containers": [{"name": "t", "command": ["thanos", "store", "--min-time=-1y", "--min-time", "-5d", "-x"]}]}),
    );
    let mut in_command = in_command;
    in_command["metadata"]["annotations"] = json!({names::REPLACE_TIME_FLAGS: "true"});
    let pod = injected(&in_command);
    let command: Vec<&str> = pod["spec"]["containers"][0]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect();
    assert_eq!(
        command[5..],
        ["thanos", "store", "--min-time=-247d16h", "-x"]
    );
    assert_eq!(args_of(&pod), ["--max-time=-123d8h"]);
}

#[test]
fn the_command_annotation_names_the_program() {
    let with = |value: &str| {
        let mut pod = store_with(&json!({}));
        pod["metadata"]["annotations"] = json!({names::COMMAND_ANNOTATION: value});
        let (after, _, remarks) = admit(&pod).unwrap();
        (
            after["spec"]["containers"][0]["command"]
                .as_array()
                .unwrap()
                .last()
                .unwrap()
                .clone(),
            remarks,
        )
    };
    assert_eq!(with("[\"/x/thanos\"]"), (json!("/x/thanos"), Vec::new()));
    for bad in ["/x/thanos", "[]", "[1]", ""] {
        assert_eq!(
            with(bad),
            (json!("thanos"), vec![Remark::BadCommandAnnotation]),
            "{bad}"
        );
    }
}

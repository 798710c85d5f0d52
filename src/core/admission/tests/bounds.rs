//! Pods made to be expensive: messages and work stay bounded.

use super::*;

const MANY: usize = 100_000;

/// The pod of a StatefulSet that lets its time flags be replaced, with this command and these
/// arguments.
fn replaceable(command: &[&str], args: &[&str]) -> Value {
    let mut pod = store_with(&json!({"args": args}));
    if !command.is_empty() {
        pod["spec"]["containers"][0]["command"] = json!(command);
    }
    pod["metadata"]["annotations"] = json!({names::REPLACE_TIME_FLAGS: "true"});
    pod
}

#[test]
fn a_hundred_thousand_annotations_make_a_handful_of_remarks() {
    let mut pod = store_with(&json!({}));
    let unknown = (0..MANY).map(|i| {
        (
            format!("thanos-timeshard.io/{i:05}-{}", "x".repeat(40)),
            json!(""),
        )
    });
    pod["metadata"]["annotations"] = Value::Object(unknown.collect());
    let remarks = admit(&pod).unwrap().2;
    assert!(remarks.len() <= 8, "{}", remarks.len());
    assert_eq!(
        remarks.last().unwrap().to_string(),
        "more than 900 more annotations beginning with thanos-timeshard.io/ have no effect"
    );
    assert!(
        remarks.iter().all(|remark| remark.to_string().len() < 512),
        "{remarks:?}"
    );
    let few = json!({"thanos-timeshard.io/injct": "", "thanos-timeshard.io/overlap": "1d", "thanos-timeshard.io/inject": "true"});
    pod["metadata"]["annotations"] = few;
    let reasons: Vec<_> = admit(&pod).unwrap().2.iter().map(Remark::reason).collect();
    assert_eq!(reasons, ["UnknownAnnotation", "KeyOnPodIgnored"]);
}

#[test]
fn too_many_arguments_are_skipped_with_a_warning() {
    for (command, args) in [(true, false), (false, true)] {
        let flags: Vec<&str> = std::iter::once("store")
            .chain(std::iter::repeat_n("--min-time=-1d", MANY))
            .collect();
        let with_program: Vec<&str> = std::iter::once("thanos")
            .chain(flags.iter().copied())
            .collect();
        let pod = replaceable(
            if command { &with_program } else { &[] },
            if args { &flags } else { &[] },
        );
        let skip = admit(&pod).unwrap_err();
        assert!(
            matches!(skip, Skip::TooManyArguments(_)) && skip.surprises(),
            "{skip:?}"
        );
        assert!(
            skip.to_string().contains("at most 1000 are allowed"),
            "{skip}"
        );
    }
}

#[test]
fn repeated_time_flags_of_a_command_become_one_of_each() {
    let repeated = std::iter::repeat_n(["--min-time=-1d", "--max-time", "0s"], 300).flatten();
    let command: Vec<&str> = ["thanos", "store"]
        .into_iter()
        .chain(repeated)
        .chain(["--x", "--", "y"])
        .collect();
    let after = injected(&replaceable(&command, &[]));
    let words: Vec<&str> = after["spec"]["containers"][0]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let own = words.iter().position(|word| *word == "--").unwrap();
    assert_eq!(words[own + 1..own + 3], ["thanos", "store"]);
    assert!(
        words[own + 3].starts_with("--min-time=-")
            && words[own + 4] == "--max-time"
            && words[own + 5].starts_with('-'),
        "{words:?}"
    );
    assert_eq!(words[own + 6..], ["--x", "--", "y"]);
}

/// Edits give the same result as a patch that applies them one by one from the back.
#[test]
fn edits_move_each_argument_once() {
    let cases = [
        (vec!["thanos", "store", "--", "y"], "y"),
        (
            vec!["thanos", "store", "--max-time=0s"],
            "--max-time=-123d8h",
        ),
    ];
    for (command, last) in cases {
        let after = injected(&replaceable(&command, &[]));
        let container = &after["spec"]["containers"][0];
        let words: Vec<&str> = container["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        assert_eq!(words.last(), Some(&last), "{container}");
        assert_eq!(
            container.to_string().matches("--min-time=").count(),
            1,
            "{container}"
        );
        assert_eq!(
            container.to_string().matches("--max-time=").count(),
            1,
            "{container}"
        );
    }
}

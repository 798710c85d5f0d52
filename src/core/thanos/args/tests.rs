//! Which containers run `thanos store`, and where its flags are.

use super::*;
use crate::core::pod::bounded::MAX_READ_ARGUMENTS;

fn run(json: &str, check: impl FnOnce(Runs<'_>)) {
    let container: ContainerView<'_> = serde_json::from_str(json).unwrap();
    check(recognise(&container, false));
}

#[test]
fn store_is_found_after_global_flags() {
    for json in [
        r#"{"image":"thanos:v1","args":["store","--x"]}"#,
        r#"{"image":"thanos:v1","args":["--log.level=debug","store"]}"#,
        r#"{"image":"thanos:v1","args":["--log.level","debug","--no-enable-auto-gomemlimit","store"]}"#,
        r#"{"image":"x","command":["/bin/thanos"],"args":["store"]}"#,
        r#"{"image":"x","command":["/bin/thanos","--log.format=json","store","--data-dir=/d"]}"#,
        r#"{"image":"x","command":["/run/timeshard/timeshard-agent","launch","--shared-dir=/run/timeshard","--","thanos"],"args":["store"]}"#,
    ] {
        run(json, |runs| {
            assert!(matches!(runs, Runs::Store(_)), "{json}: {runs:?}");
        });
    }
}

#[test]
fn other_programs_are_recognised() {
    for (json, want) in [
        (
            r#"{"image":"thanos:v1","args":["query","store"]}"#,
            Runs::OtherThanos("query"),
        ),
        (r#"{"image":"thanos:v1"}"#, Runs::OtherThanos("")),
        (
            r#"{"image":"thanos:v1","args":[""]}"#,
            Runs::OtherThanos(""),
        ),
        (r#"{"image":"x","args":["store"]}"#, Runs::UnknownImage),
        (r#"{"image":"x","args":["serve"]}"#, Runs::Other),
        (
            r#"{"image":"prom","command":["/bin/prometheus"],"args":["--storage.tsdb.path=/x"]}"#,
            Runs::Other,
        ),
        (
            r#"{"image":"thanos:v1","args":["store","@/etc/flags"]}"#,
            Runs::ArgsFile("@/etc/flags"),
        ),
        (
            r#"{"image":"x","command":["sh","-c","exec thanos store --x"]}"#,
            Runs::Wrapper("exec thanos store --x"),
        ),
        (
            r#"{"image":"thanos:v1","command":["/bin/sh"],"args":["-c","/bin/thanos --log.level=x store"]}"#,
            Runs::Wrapper("/bin/thanos --log.level=x store"),
        ),
        (
            r#"{"image":"thanos:v1","args":["sh","-c","thanos store"]}"#,
            Runs::Wrapper("sh"),
        ),
        (r#"{"image":"x","command":["thanos-store"]}"#, Runs::Other),
        (
            r#"{"image":"x","args":["--endpoint=dns+thanos-store:10901"]}"#,
            Runs::Other,
        ),
        (
            r#"{"image":"thanos:v1","args":["query","--objstore.config-file=/etc/thanos/objstore.yml"]}"#,
            Runs::OtherThanos("query"),
        ),
        (r#"{"image":"x","command":[]}"#, Runs::Other),
    ] {
        run(json, |runs| assert_eq!(runs, want, "{json}"));
    }
}

#[test]
fn a_program_in_front_of_thanos_is_found_by_the_arguments_that_it_passes_on() {
    for (json, program, begin) in [
        (
            r#"{"image":"x","command":["/tini","--","/bin/thanos","store"]}"#,
            "/tini",
            At::Command(3),
        ),
        (
            r#"{"image":"q/thanos:v1","command":["/bin/sh","/etc/gw/start.sh"],"args":["store","--x"]}"#,
            "/bin/sh",
            At::Args(0),
        ),
        (
            r#"{"image":"q/thanos:v1","command":["/etc/gw/start.sh"],"args":["--log.level","debug","store"]}"#,
            "/etc/gw/start.sh",
            At::Args(0),
        ),
        (
            r#"{"image":"x","command":["/bin/bash","/s.sh"],"args":["store","--objstore.config-file=/b"]}"#,
            "/bin/bash",
            At::Args(0),
        ),
        (
            r#"{"image":"x","command":["dumb-init","thanos","--log.level=info","store"]}"#,
            "dumb-init",
            At::Command(2),
        ),
        (
            r#"{"image":"x","command":["su-exec","1001"],"args":["/bin/thanos","store"]}"#,
            "su-exec",
            At::Args(1),
        ),
        (
            r#"{"image":"x","command":["gosu","thanos","/usr/bin/thanos-0.36","store"]}"#,
            "gosu",
            At::Command(3),
        ),
        (
            r#"{"image":"x","command":["catatonit","--","thanos","store"]}"#,
            "catatonit",
            At::Command(3),
        ),
        (
            r#"{"image":"x","command":["env","GOGC=50","thanos","store"]}"#,
            "env",
            At::Command(3),
        ),
        (
            r#"{"image":"x","command":["/opt/thanos-linux-amd64"],"args":["store"]}"#,
            "/opt/thanos-linux-amd64",
            At::Args(0),
        ),
        (
            r#"{"image":"x","args":["/bin/thanos","store"]}"#,
            "/bin/thanos",
            At::Args(1),
        ),
        (
            r#"{"image":"thanos:v1","args":["env","A=b","thanos","store"]}"#,
            "env",
            At::Args(3),
        ),
    ] {
        run(json, |runs| {
            let Runs::Program(found, store) = runs else {
                panic!("{json}: {runs:?}")
            };
            assert_eq!((found, store.wrapped), (program, Some(begin)), "{json}");
        });
    }
}

#[test]
fn the_word_store_alone_does_not_make_a_program_thanos() {
    for json in [
        r#"{"image":"x","command":["/bin/vault"],"args":["kv","store"]}"#,
        r#"{"image":"x","command":["/tini","--","/bin/thanos","query","store"]}"#,
        r#"{"image":"thanos:v1","command":["/bin/sh","/x.sh"],"args":["tools","bucket","store"]}"#,
        r#"{"image":"x","command":["node","server.js"],"args":["store"]}"#,
    ] {
        run(json, |runs| assert_eq!(runs, Runs::Other, "{json}"));
    }
}

#[test]
fn the_launcher_is_found_after_other_programs() {
    for json in [
        r#"{"image":"x","command":["/vault/vault-env","/run/timeshard/timeshard-agent","launch","--a=b","--","thanos"],"args":["store"]}"#,
        r#"{"image":"x","command":["/vault/vault-env"],"args":["/run/timeshard/timeshard-agent","launch","--","thanos","store"]}"#,
        r#"{"image":"x","command":["/run/timeshard/timeshard-agent","launch","--","/bin/sh","/start.sh"],"args":["store"]}"#,
    ] {
        run(json, |runs| {
            assert!(
                matches!(&runs, Runs::Store(store) if store.launched),
                "{json}: {runs:?}"
            );
        });
    }
}

#[test]
fn arguments_beyond_the_limit_are_not_read() {
    let with = |program: &str, flags: usize| {
        let args: Vec<&str> = std::iter::once(program)
            .chain(std::iter::repeat_n("--min-time=-1d", flags))
            .collect();
        serde_json::json!({"image": "thanos", "args": args}).to_string()
    };
    run(&with("store", MAX_ARGUMENTS - 1), |runs| {
        assert!(
            matches!(&runs, Runs::Store(store) if store.time_flags.len() == MAX_ARGUMENTS - 1),
            "{runs:?}"
        );
    });
    run(&with("store", 200_000), |runs| {
        assert_eq!(
            runs,
            Runs::TooManyArguments(MAX_READ_ARGUMENTS),
            "further ones are not even counted"
        );
    });
    run(&with("query", 200_000), |runs| {
        assert_eq!(runs, Runs::OtherThanos("query"));
    });
}

#[test]
fn flags_are_found_in_both_forms() {
    run(
        r#"{"image":"thanos","args":["store","--min-time","-1d","--max-time=1d","--http-address=:80","--grpc-address","[::]:9"]}"#,
        |runs| {
            let Runs::Store(store) = runs else {
                panic!("{runs:?}")
            };
            assert_eq!(
                store.time_flags,
                [
                    TimeFlag {
                        is_min: true,
                        flag: At::Args(1),
                        value: Some(At::Args(2))
                    },
                    TimeFlag {
                        is_min: false,
                        flag: At::Args(3),
                        value: None
                    }
                ]
            );
            assert_eq!(
                (store.http_address, store.grpc_address),
                (Some(":80"), Some("[::]:9"))
            );
        },
    );
}

#[test]
fn addresses_are_split_into_host_and_port() {
    assert_eq!(
        (host_of("0.0.0.0:10902"), port_of("0.0.0.0:10902")),
        ("127.0.0.1", Some(10902))
    );
    assert_eq!((host_of(":80"), port_of(":80")), ("127.0.0.1", Some(80)));
    assert_eq!(
        (host_of("[::]:80"), port_of("[::]:80")),
        ("127.0.0.1", Some(80))
    );
    assert_eq!(
        (host_of("$(POD_IP):80"), port_of("$(POD_IP):80")),
        ("$(POD_IP)", Some(80))
    );
    assert_eq!(port_of("localhost:$(PORT)"), None);
    assert_eq!(port_of(""), None);
}

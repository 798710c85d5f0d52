//! Lists of blocks that are read, and others that are refused with their place.

use super::*;

#[test]
fn log_lines_around_the_blocks_are_skipped() {
    let (one, two) = (meta(1, 0, 1_000, 5), meta(2, 1_000, 2_000, 5));
    let want = read(&format!("{one}{two}")).unwrap();
    let json =
        r#"{"caller":"main.go:67","level":"info","msg":"exiting","ts":"2026-11-21T14:44:47Z"}"#;
    for text in [
        format!("{LOG}{one}{two}"),
        format!("{one}{LOG}{LOG}{two}{LOG}"),
        format!("{one}{two}{}", LOG.trim_end()),
        format!("level=warn msg=x\n{one}{two}I1121 10:00:00.000000       1 main.go:1] bye\n"),
        format!(
            "Defaulted container \"thanos\" out of: thanos, config-sidecar\n{json}\n{one}{json}\n{two}{json}"
        ),
    ] {
        let found = read(&text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        assert_eq!(
            (found.blocks(), found.format()),
            (want.blocks(), Format::Json),
            "{text}"
        );
    }
}

#[test]
fn a_response_of_the_api_and_a_list_have_the_same_blocks() {
    let metas: Vec<String> = (0..40).map(|i| meta(i, 0, 1_000, 5)).collect();
    let want = read(&metas.concat()).unwrap();
    for (text, format) in [
        (answer(&metas), Format::Api),
        (
            answer(&metas).replace("\"blocks\":[", "\n  \"blocks\" : [\n") + "\n",
            Format::Api,
        ),
        (format!("{LOG}{}", answer(&metas)), Format::Api),
        (
            format!(
                "{{\"data\":{{\"blocks\":[{}],\"err\":null}},\"status\":\"success\"}}",
                metas.join(", ")
            ),
            Format::Api,
        ),
        (format!("[{}]\n", metas.join(",\n")), Format::Json),
    ] {
        let found = read(&text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        assert_eq!(
            (found.blocks(), found.format()),
            (want.blocks(), format),
            "{text}"
        );
        let mut reader = Reader::default();
        text.as_bytes()
            .chunks(7)
            .for_each(|piece| reader.push(piece).unwrap());
        assert_eq!(
            reader.finish().unwrap().blocks(),
            want.blocks(),
            "in pieces"
        );
    }
}

/// Checks that each text is refused at this line and column, with this message.
fn refused(cases: impl IntoIterator<Item = (String, u64, u64, &'static str)>) {
    for (text, line, column, why) in cases {
        let wrong = read(&text).unwrap_err();
        assert!(wrong.why.contains(why), "{why}: {wrong}");
        assert_eq!(
            (wrong.line, wrong.column),
            (line, column),
            "{text}\n{wrong}"
        );
    }
}

#[test]
fn other_formats_than_json_are_refused_with_the_command_that_prints_json() {
    let command = "give the JSON of `thanos tools bucket ls -o json --objstore.config-file=FILE`";
    refused([
        (String::new(), 1, 1, "there is no block: give the JSON"),
        (" \n\n".to_owned(), 3, 1, "there is no block"),
        (LOG.to_owned(), 2, 1, "there is no block"),
        (
            "hello, world\n".to_owned(),
            1,
            1,
            "\"hello, world\" is not JSON",
        ),
        ("[{}]".to_owned(), 1, 3, "missing field `ulid`"),
        (
            "01M7Z0746AHQ1WWSYTJKK5CWQ4\n".to_owned(),
            1,
            1,
            "\"01M7Z0746AHQ1WWSYTJKK5CWQ4\" is not JSON",
        ),
        (
            "01M7Z0746AHQ1WWSYTJKK5CWQ4 -- 2026-07-23 00:00 - 2026-08-06 00:00 Diff: 336h0m0s\n"
                .to_owned(),
            1,
            1,
            command,
        ),
        (
            format!("{LOG}| ULID | FROM |\n"),
            2,
            1,
            "\"| ULID | FROM |\" is not JSON",
        ),
        ("+----+\n| ULID |\n".to_owned(), 1, 1, command),
        ("ULID,FROM,UNTIL\n".to_owned(), 1, 1, command),
        (
            "ULID\tFROM\n".to_owned(),
            1,
            1,
            "\"ULID\\tFROM\" is not JSON",
        ),
    ]);
    let mut reader = Reader::default();
    assert_eq!(
        reader
            .push(&[b'|', 0xff, b'\n'])
            .unwrap_err()
            .to_string()
            .split(';')
            .next(),
        Some("1:2: not UTF-8 text")
    );
}

#[test]
fn an_impossible_block_is_refused_at_its_place() {
    let good = meta(1, 0, 1_000, 5);
    refused([
        (
            format!("{good}{}", &good[..40]),
            9,
            1,
            "the text ends within this block",
        ),
        (
            answer(std::slice::from_ref(&good))[..150].to_owned(),
            1,
            50,
            "the text ends within this block",
        ),
        (
            format!("{good}{}", meta(1, 5, 9, 1)),
            9,
            1,
            "was listed already on line 1",
        ),
        (
            format!("{good}{}", meta(2, 9, 5, 1)),
            9,
            1,
            "begins at 9 and ends at 5",
        ),
        (meta(2, 0, i64::MAX, 1), 1, 1, "milliseconds since 1970"),
        (
            good.replace("\"level\": 2", "\"level\": 100"),
            1,
            1,
            "compaction level 100",
        ),
        (
            good.replace("\"resolution\": 0", "\"resolution\": 60000"),
            1,
            1,
            "resolution 60000: 0, 300000 or 3600000",
        ),
        (
            good.replace("minTime\": 0", "minTime\": \"x\""),
            3,
            15,
            "invalid type: string \"x\"",
        ),
        (
            good.replace("\"ulid\"", "\"uuid\""),
            8,
            1,
            "missing field `ulid`",
        ),
        (
            good.replace(&name(1), "short"),
            1,
            1,
            "\"short\" is not the name of a block",
        ),
        (format!("{good}}}"), 9, 1, "\"}\" is not JSON"),
    ]);
}

#[test]
fn a_response_without_blocks_is_refused() {
    refused([
        (answer(&[]), 1, 1, "no block is listed"),
        (answer(&[]).replace("[]", "null"), 1, 1, "no block is listed"),
        ("{\"status\":\"error\",\"errorType\":\"x\",\"error\":\"not ready\"}".to_owned(), 1, 1, "thanos answered with an error: not ready"),
        // Found by fuzzing: a mistake at the end of a line was reported at column 0 of the next.
        ("[{\"ulid\": \"a\nb\"}]".to_owned(), 1, 13, "control character"),
        // Found by fuzzing, too: text before the list was not read if it came in one piece with the
        // list.
        ("{\"status\":\"success\"-\"$ata\":{\"blocks\":[]}}".to_owned(), 1, 20, "expected `,` or `}`"),
        (
            "{\"status\":\"success\",\"data\":{\"blocks\":[3]},\"ulid\":\"01K1H8R1000000000000A1B2C3\",\"minTime\":0,\"maxTime\":1}"
                .to_owned(),
            1,
            39,
            "not the meta.json of a block",
        ),
        ("{\"status\":\"error\",\"error\":\"\\u001b[2Jgone\"}".to_owned(), 1, 1, "thanos answered with an error: \\u{1b}[2Jgone"),
    ]);
}

/// Found by fuzzing: a list was refused if a piece ended after the sign or the point of a number.
#[test]
fn a_list_may_be_cut_at_any_byte() {
    let metas = [
        meta(1, -7_200_000, -1, 5),
        meta(2, -3_600_000, 7_200_000, 6),
    ];
    for text in [
        metas
            .concat()
            .replace("\"numSamples\": 7", "\"numSamples\": 7, \"x\": [-1.5e-3]"),
        answer(&metas),
    ] {
        let want = read(&text).unwrap();
        for cut in 0..=text.len() {
            let mut reader = Reader::default();
            let (head, tail) = text.as_bytes().split_at(cut);
            reader
                .push(head)
                .and_then(|()| reader.push(tail))
                .unwrap_or_else(|wrong| panic!("cut at {cut}: {wrong}"));
            assert_eq!(
                reader.finish().unwrap().blocks(),
                want.blocks(),
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn the_memory_of_an_endless_block_is_bounded() {
    let mut reader = Reader::default();
    reader.push(b"{\"ulid\": \"").unwrap();
    let piece = vec![b'x'; 1 << 20];
    let wrong = (0..17).find_map(|_| reader.push(&piece).err()).unwrap();
    assert!(wrong.why.contains("more than 16777216 bytes"), "{wrong}");
}

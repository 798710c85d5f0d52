use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const META: Keep = Keep::Keys(&[
    ("name", Keep::All),
    ("resourceVersion", Keep::All),
    ("annotations", Keep::Prefixed("our/")),
]);
const OBJECT: Keep = Keep::Object(&[
    ("metadata", META),
    (
        "spec",
        Keep::Keys(&[("a", Keep::All), ("b", Keep::Keys(&[("c", Keep::All)]))]),
    ),
]);
const LIST: Keep = Keep::Keys(&[("metadata", Keep::All), ("items", OBJECT)]);

fn cut(keep: &'static Keep, most: usize, text: &str, at_once: usize) -> (String, usize) {
    let mut trim = Trim::new(keep, most);
    let (mut out, mut held) = (Vec::new(), 0);
    for bytes in text.as_bytes().chunks(at_once) {
        out.extend(trim.push(bytes));
        held = held.max(trim.held.as_ref().map_or(0, |held| held.bytes.capacity()));
    }
    (String::from_utf8(out).unwrap(), held)
}

fn value(keep: &'static Keep, most: usize, text: &str) -> Value {
    serde_json::from_str(&cut(keep, most, text, 7).0).unwrap()
}

#[test]
fn only_listed_keys_are_kept() {
    let object = json!({"kind": "X", "metadata": {"name": "n\"}]", "managedFields": [{"f:x": {}}], "annotations": {"our/a": "1", "x": "]}"}},
        "spec": {"a": [1, {"deep": [true, null, -1.5e3]}], "b": [{"c": {}, "d": 1}, {"d": []}], "z": {"y": ["\\\"", "{"]}}, "status": "no"});
    let list =
        json!({"kind": "List", "metadata": {"continue": "abc"}, "items": [object, {}, object]});
    let left = json!({"metadata": {"name": "n\"}]", "annotations": {"our/a": "1"}},
        "spec": {"a": [1, {"deep": [true, null, -1.5e3]}], "b": [{"c": {}}, {}]}});
    assert_eq!(
        value(&LIST, 1_000, &list.to_string()),
        json!({"metadata": {"continue": "abc"}, "items": [left, {}, left]})
    );
    assert_eq!(
        value(&LIST, 1_000, &format!("{list:#}")),
        json!({"metadata": {"continue": "abc"}, "items": [left, {}, left]})
    );
}

#[test]
fn lines_stay_lines() {
    const EVENT: Keep = Keep::Keys(&[("type", Keep::All), ("object", OBJECT)]);
    let lines = "{\"type\":\"ADDED\",\"object\":{\"x\":\"\\n\",\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"ERROR\",\"object\":{}}\n";
    let left = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"ERROR\",\"object\":{}}\n";
    assert_eq!(cut(&EVENT, 100, lines, 1).0, left);
}

#[test]
fn an_object_with_a_large_kept_part_becomes_its_identity() {
    let large = |what: Value| json!({"metadata": {"name": "large", "resourceVersion": "7", "annotations": {"our/x": "y"}}, "spec": what});
    let small = json!({"metadata": {"name": "small"}, "spec": {"a": "b"}});
    let identity = json!({"metadata": {"name": "large", "resourceVersion": "7"}, CUT: true});
    let deep = (0..100).fold(json!(1), |value, _| json!([value]));
    // A text, many texts, many keys, nesting, a key.
    let many: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (n.to_string(), json!(n))).collect();
    for what in [
        json!({"a": "<".repeat(100_000)}),
        json!({"a": vec!["x"; 50_000]}),
        json!({"a": many}),
        json!({"a": deep}),
        json!({"a": {"k".repeat(5_000): 1}}),
    ] {
        let list = json!({"items": [small, large(what), small]})
            .to_string()
            .replace('<', "\\u003c");
        let (out, held) = cut(&LIST, 4_096, &list, 1_000);
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap(),
            json!({"items": [small, identity, small]})
        );
        assert!(held <= 2 * 4_096, "{held} bytes were held");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = prop_oneof![
            Just("metadata".to_owned()),
            Just("items".to_owned()),
            Just("spec".to_owned()),
            Just("a".to_owned()),
            ".{0,6}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_stays_json_in_any_pieces(value in any_json(), at_once in 1_usize..50, most in 1_usize..200) {
        let text = value.to_string();
        prop_assert_eq!(serde_json::from_str::<Value>(&cut(&Keep::All, most, &text, at_once).0).unwrap(), value.clone());
        for keep in [&LIST, &OBJECT] {
            let (out, _) = cut(keep, most, &text, at_once);
            prop_assert!(serde_json::from_str::<Value>(&out).is_ok(), "{text} became {out}");
            prop_assert_eq!(&out, &cut(keep, most, &text, text.len()).0);
        }
    }

    #[test]
    fn other_bytes_do_not_panic(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\a1 \n".to_vec()), 0..200)) {
        let mut trim = Trim::new(&LIST, 20);
        let _ = trim.push(&bytes);
    }
}

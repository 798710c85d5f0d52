use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;
use crate::core::config::Config;
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;

fn now() -> DateTime<Utc> {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

fn name(number: usize) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |i: u32| char::from(DIGITS[(number >> (5 * i)) % 32]);
    (0..26).rev().map(|i| if i < 8 { digit(i) } else { '0' }).collect()
}

fn read(text: &str) -> Result<Inventory, Unreadable> {
    let mut reader = Reader::default();
    reader.push(text.as_bytes())?;
    reader.finish()
}

/// As `ls -o json` prints it.
fn meta(number: usize, min: i64, max: i64, bytes: u64) -> String {
    format!(
        "{{\n\t\"ulid\": \"{}\",\n\t\"minTime\": {min},\n\t\"maxTime\": {max},\n\t\"stats\": {{\"numSamples\": 7}},\n\t\"compaction\": {{\"level\": 2}},\n\t\
         \"thanos\": {{\"downsample\": {{\"resolution\": 0}}, \"files\": [{{\"rel_path\": \"index\", \"size_bytes\": {bytes}}}, {{\"rel_path\": \"meta.json\"}}]}}\n}}\n",
        name(number)
    )
}

/// Blocks by age in hours: oldest edge, length, bytes.
fn inventory(blocks: &[(i64, i64, u64)]) -> Inventory {
    let at = |hours: i64| (now() - TimeDelta::hours(hours)).timestamp_millis();
    let text: String = (0..).zip(blocks).map(|(i, (age, length, bytes))| meta(i, at(*age), at(age - length), *bytes)).collect();
    read(&text).unwrap()
}

const LOG: &str = "ts=2026-11-21T14:44:47Z caller=fetcher.go:627 level=info msg=\"successfully synchronized block metadata\"\n";

/// As a store answers on `/api/v1/blocks`.
fn answer(metas: &[String]) -> String {
    let blocks = metas.join(",");
    format!(r#"{{"status":"success","data":{{"label":"","blocks":[{blocks}],"refreshedAt":"2026-11-21T00:00:00Z","err":null}}}}"#)
}

#[test]
fn lines_of_a_log_around_the_blocks_are_skipped() {
    let (one, two) = (meta(1, 0, 1_000, 5), meta(2, 1_000, 2_000, 5));
    let want = read(&format!("{one}{two}")).unwrap();
    let json = r#"{"caller":"main.go:67","level":"info","msg":"exiting","ts":"2026-11-21T14:44:47Z"}"#;
    for text in [
        format!("{LOG}{one}{two}"),
        format!("{one}{LOG}{LOG}{two}{LOG}"),
        format!("{one}{two}{}", LOG.trim_end()),
        format!("level=warn msg=x\n{one}{two}I1121 10:00:00.000000       1 main.go:1] bye\n"),
        format!("Defaulted container \"thanos\" out of: thanos, config-sidecar\n{json}\n{one}{json}\n{two}{json}"),
    ] {
        let found = read(&text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        assert_eq!((found.blocks(), found.format()), (want.blocks(), Format::Json), "{text}");
    }
}

#[test]
fn an_answer_of_the_api_and_a_list_hold_the_same_blocks() {
    let metas: Vec<String> = (0..40).map(|i| meta(i, 0, 1_000, 5)).collect();
    let want = read(&metas.concat()).unwrap();
    for (text, format) in [
        (answer(&metas), Format::Api),
        (answer(&metas).replace("\"blocks\":[", "\n  \"blocks\" : [\n") + "\n", Format::Api),
        (format!("{LOG}{}", answer(&metas)), Format::Api),
        (format!("{{\"data\":{{\"blocks\":[{}],\"err\":null}},\"status\":\"success\"}}", metas.join(", ")), Format::Api),
        (format!("[{}]\n", metas.join(",\n")), Format::Json),
    ] {
        let found = read(&text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        assert_eq!((found.blocks(), found.format()), (want.blocks(), format), "{text}");
        let mut reader = Reader::default();
        text.as_bytes().chunks(7).for_each(|piece| reader.push(piece).unwrap());
        assert_eq!(reader.finish().unwrap().blocks(), want.blocks(), "in pieces");
    }
}

/// Found by fuzzing: a list that came in pieces was refused where one of them ended behind the sign or the point of a number.
#[test]
fn a_list_may_be_cut_at_any_byte() {
    let metas = [meta(1, -7_200_000, -1, 5), meta(2, -3_600_000, 7_200_000, 6)];
    for text in [metas.concat().replace("\"numSamples\": 7", "\"numSamples\": 7, \"x\": [-1.5e-3]"), answer(&metas)] {
        let want = read(&text).unwrap();
        for cut in 0..=text.len() {
            let mut reader = Reader::default();
            let (head, tail) = text.as_bytes().split_at(cut);
            reader.push(head).and_then(|()| reader.push(tail)).unwrap_or_else(|wrong| panic!("cut at {cut}: {wrong}"));
            assert_eq!(reader.finish().unwrap().blocks(), want.blocks(), "cut at {cut}");
        }
    }
}

#[test]
fn every_refusal_has_its_place_and_says_what_is_right() {
    let good = meta(1, 0, 1_000, 5);
    let command = "give the JSON of `thanos tools bucket ls -o json --objstore.config-file=FILE`";
    for (text, line, column, words) in [
        (String::new(), 1, 1, "there is no block: give the JSON"),
        (" \n\n".to_owned(), 3, 1, "there is no block"),
        (LOG.to_owned(), 2, 1, "there is no block"),
        ("hello, world\n".to_owned(), 1, 1, "\"hello, world\" does not tell how large blocks are"),
        ("[{}]".to_owned(), 1, 3, "missing field `ulid`"),
        ("01M7Z0746AHQ1WWSYTJKK5CWQ4\n".to_owned(), 1, 1, "the names of blocks alone"),
        ("01M7Z0746AHQ1WWSYTJKK5CWQ4 -- 2026-07-23 00:00 - 2026-08-06 00:00 Diff: 336h0m0s\n".to_owned(), 1, 1, command),
        (format!("{LOG}| ULID | FROM |\n"), 2, 1, "a table does not tell"),
        ("+----+\n| ULID |\n".to_owned(), 1, 1, command),
        ("ULID,FROM,UNTIL\n".to_owned(), 1, 1, command),
        ("ULID\tFROM\n".to_owned(), 1, 1, "a table does not tell"),
        (format!("{good}{}", &good[..40]), 9, 1, "the text ends within this block"),
        (answer(std::slice::from_ref(&good))[..150].to_owned(), 1, 50, "the text ends within this block"),
        (format!("{good}{}", meta(1, 5, 9, 1)), 9, 1, "was listed already on line 1"),
        (format!("{good}{}", meta(2, 9, 5, 1)), 9, 1, "begins at 9 and ends at 5"),
        (meta(2, 0, i64::MAX, 1), 1, 1, "milliseconds since 1970"),
        (good.replace("\"level\": 2", "\"level\": 100"), 1, 1, "compaction level 100"),
        (good.replace("\"resolution\": 0", "\"resolution\": 60000"), 1, 1, "resolution 60000: 0, 300000 or 3600000"),
        (good.replace("minTime\": 0", "minTime\": \"x\""), 3, 15, "invalid type: string \"x\""),
        (good.replace("\"ulid\"", "\"uuid\""), 8, 1, "missing field `ulid`"),
        (good.replace(&name(1), "short"), 1, 1, "\"short\" is not the name of a block"),
        (format!("{good}}}"), 9, 1, "does not tell how large blocks are"),
        (answer(&[]), 1, 1, "no block is listed"),
        (answer(&[]).replace("[]", "null"), 1, 1, "no block is listed"),
        ("{\"status\":\"error\",\"errorType\":\"x\",\"error\":\"not ready\"}".to_owned(), 1, 1, "thanos answered with an error: not ready"),
        // Found by fuzzing: a mistake at the end of a line was told at column 0 of the next one.
        ("[{\"ulid\": \"a\nb\"}]".to_owned(), 1, 13, "control character"),
        // Also found so: what stood before the list was not read where it came in one piece with the list.
        ("{\"status\":\"success\"-\"$ata\":{\"blocks\":[]}}".to_owned(), 1, 20, "expected `,` or `}`"),
        (
            "{\"status\":\"success\",\"data\":{\"blocks\":[3]},\"ulid\":\"01K1H8R1000000000000A1B2C3\",\"minTime\":0,\"maxTime\":1}"
                .to_owned(),
            1,
            39,
            "not the meta.json of a block",
        ),
        ("{\"status\":\"error\",\"error\":\"\\u001b[2Jgone\"}".to_owned(), 1, 1, "thanos answered with an error: \\u{1b}[2Jgone"),
    ] {
        let wrong = read(&text).unwrap_err();
        assert!(wrong.why.contains(words), "{words}: {wrong}");
        assert_eq!((wrong.line, wrong.column), (line, column), "{text}\n{wrong}");
    }
    let mut reader = Reader::default();
    assert_eq!(reader.push(&[b'|', 0xff, b'\n']).unwrap_err().to_string().split(';').next(), Some("1:2: not UTF-8 text"));
}

#[test]
fn one_endless_block_is_not_held() {
    let mut reader = Reader::default();
    reader.push(b"{\"ulid\": \"").unwrap();
    let piece = vec![b'x'; 1 << 20];
    let wrong = (0..17).find_map(|_| reader.push(&piece).err()).unwrap();
    assert!(wrong.why.contains("more than 16777216 bytes"), "{wrong}");
}

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

fn shares(config: &Config, inventory: &Inventory) -> Shares {
    Shares::new(inventory, &Plan::new(&config.sharding, None), now())
}

#[test]
fn overlap_and_edges_are_told_apart() {
    // Shards meet at 10 d and overlap to 12 d.
    let config = config("sharding: {retention: 20d, boundaries: [10d], overlap: 2d, future_buffer: 1d}");
    let blocks = inventory(&[
        (9 * 24, 24, 1),             // newer shard
        (11 * 24, 12, 10),           // within the overlap
        (13 * 24, 48, 100),          // across the older edge of the overlap
        (300, 24 * 7, 1_000),        // across all of it
        (15 * 24, 24, 10_000),       // older shard
        (19 * 24 + 30, 24, 100_000), // reaches into the retention
        (30 * 24, 24, 1_000_000),    // older than that
        (-25, 2, 10_000_000),        // future
    ]);
    let shares = shares(&config, &blocks);
    assert_eq!(
        shares.shards.iter().map(|shard| (shard.loaded.bytes, shard.shared.bytes)).collect::<Vec<_>>(),
        [(1_111, 1_110), (111_110, 1_110)]
    );
    assert_eq!((shares.again.within_overlap.bytes, shares.again.across_edges.bytes), (10, 1_100));
    assert_eq!((shares.older.bytes, shares.future.bytes, shares.loaded.bytes), (1_000_000, 10_000_000, 111_111));
}

fn balance(measure: Measure) -> Balance {
    Balance { measure, half_life: None }
}

#[test]
fn a_bucket_that_grew_gets_narrower_new_shards() {
    let config = config("sharding: {total_shards: 3, retention: 300d}");
    // Two-day blocks; the newest hundred days hold ten times as much.
    let blocks: Vec<_> = (0..150).map(|i| ((i + 1) * 48, 48, if i < 50 { 1_000 } else { 100 })).collect();
    let inventory = inventory(&blocks);
    let plan = Plan::new(&config.sharding, None);
    let weights = Weights::new(&inventory, balance(Measure::Bytes), &plan, now());
    let suggestion = suggest(&config, &plan, &inventory, &weights, now()).unwrap();
    assert!(suggestion.on_block_edges);
    let better = Plan::new(&suggestion.sharding, None);
    let imbalance = |plan: &Plan| weights.of_even_share(weights.heaviest(plan), 3);
    assert!(imbalance(&plan) > 2.5 && imbalance(&better) < 1.1, "{} {}: {suggestion:?}", imbalance(&plan), imbalance(&better));
    let days: Vec<i64> = suggestion.boundaries.iter().map(|age| age.as_secs() / 86_400).collect();
    assert_eq!(days, [40, 80]);
    // By recency the newest shard gets narrower still.
    let recent = Balance { measure: Measure::Bytes, half_life: Some(PromDuration::from_days(30)) };
    let weights = Weights::new(&inventory, recent, &plan, now());
    let suggestion = suggest(&config, &plan, &inventory, &weights, now()).unwrap();
    assert!(suggestion.boundaries[0] < PromDuration::from_days(30), "{suggestion:?}");
}

#[test]
fn what_cannot_be_better_is_said() {
    let why = |text: &str, pods, blocks: &[(i64, i64, u64)]| {
        let (config, inventory) = (config(text), inventory(blocks));
        let plan = Plan::new(&config.sharding, pods);
        let weights = Weights::new(&inventory, balance(Measure::Bytes), &plan, now());
        suggest(&config, &plan, &inventory, &weights, now()).unwrap_err()
    };
    assert_eq!(why("sharding: {total_shards: 1}", None, &[(24, 24, 1)]), NoSuggestion::OneShard);
    assert_eq!(why("sharding: {total_shards: 5}", Some(4), &[(24, 24, 1)]), NoSuggestion::TooFewPods { pods: 4, shards: 5 });
    assert_eq!(why("sharding: {total_shards: 2}", None, &[(24 * 800, 24, 1)]), NoSuggestion::NothingLoaded);
    assert_eq!(why("sharding: {total_shards: 2}", None, &[(24, 24, 1)]), NoSuggestion::AlreadyBest);
    assert_eq!(why("sharding: {total_shards: auto, replicas_per_shard: 2}", Some(2), &[(24, 24, 1)]), NoSuggestion::OneShard);
}

fn any_blocks() -> impl Strategy<Value = Vec<(i64, i64, u64)>> {
    let block = (-48_i64..24 * 420, prop_oneof![Just(0), Just(2), Just(8), Just(48), Just(336)], 0..5_000_000_u64);
    proptest::collection::vec(block, 1..120)
}

fn any_config() -> impl Strategy<Value = Config> {
    let divided = prop_oneof![
        (1_u32..9).prop_map(|n| format!("total_shards: {n}")),
        proptest::collection::btree_set(1_u32..360, 1..7)
            .prop_map(|days| format!("boundaries: [{}]", days.iter().map(|day| format!("{day}d")).collect::<Vec<_>>().join(", "))),
    ];
    (divided, 30_u32..5_000, any::<bool>()).prop_map(|(divided, overlap, absolute)| {
        let format = if absolute { "absolute, quantum: 10m, drain: 1s, discovery_delay: 1s, replicas_per_shard: 1" } else { "relative" };
        config(&format!("sharding: {{{divided}, overlap: {}m, window_format: {format}}}", overlap + 30))
    })
}

fn any_balance() -> impl Strategy<Value = Balance> {
    let measure = prop_oneof![Just(Measure::Bytes), Just(Measure::Samples), Just(Measure::Blocks)];
    (measure, proptest::option::of(1_i64..400))
        .prop_map(|(measure, days)| Balance { measure, half_life: days.map(PromDuration::from_days) })
}

/// The heaviest shard, block by block and shard by shard.
fn heaviest(weigh: &Weights, inventory: &Inventory, balance: Balance, plan: &Plan) -> u128 {
    let loads = |shard: u32| {
        let window = plan.window(shard, now());
        let (min, max) = (window.min.at(now()).timestamp_millis(), window.max.at(now()).timestamp_millis());
        let one = |block: &&Block| block.max >= min && block.min <= max;
        let found = Inventory { blocks: inventory.blocks().iter().filter(one).copied().collect(), ..Inventory::new(Format::Json) };
        Weights::new(&found, balance, plan, now()).total()
    };
    let heaviest = (0..).zip(plan.shards()).map(|(shard, _)| loads(shard)).max().unwrap();
    assert_eq!(heaviest, weigh.heaviest(plan));
    heaviest
}

proptest! {
    /// A suggestion is accepted by the configuration (it was made by it), is better, stands at edges of blocks, and loses no block.
    #[test]
    fn every_suggestion_is_valid_and_better(config in any_config(), blocks in any_blocks(), balance in any_balance()) {
        let inventory = inventory(&blocks);
        let plan = Plan::new(&config.sharding, None);
        let weights = Weights::new(&inventory, balance, &plan, now());
        let before = heaviest(&weights, &inventory, balance, &plan);
        let Ok(suggestion) = suggest(&config, &plan, &inventory, &weights, now()) else { return Ok(()) };
        let better = Plan::new(&suggestion.sharding, None);
        prop_assert!(heaviest(&weights, &inventory, balance, &better) < before);
        prop_assert_eq!(better.shards().len(), plan.shards().len());
        prop_assert_eq!(suggestion.sharding.boundaries(), &suggestion.boundaries[..]);
        prop_assert_eq!(shares(&config, &inventory).loaded, Shares::new(&inventory, &better, now()).loaded);
        let list: Vec<String> = suggestion.boundaries.iter().map(ToString::to_string).collect();
        let pasted = Config::parse(&format!("sharding: {{total_shards: {}, boundaries: [{}]}}", list.len() + 1, list.join(", ")), "pasted");
        prop_assert!(pasted.is_ok(), "{:?}", pasted.err());
        if suggestion.on_block_edges {
            for age in &suggestion.boundaries {
                let at = plan.origin(now()).timestamp_millis() - age.as_millis();
                let near = inventory.blocks().iter().flat_map(|block| [block.min, block.max]).any(|edge| (1..=1_000).contains(&(edge - at)));
                prop_assert!(near, "{age} is at no edge");
            }
        }
    }

    /// Counting shard by shard gives the same as the sums.
    #[test]
    fn shares_are_what_thanos_would_load(config in any_config(), blocks in any_blocks()) {
        let inventory = inventory(&blocks);
        let (plan, found) = (Plan::new(&config.sharding, None), shares(&config, &inventory));
        let mut loads = 0;
        for (shard, share) in (0..).zip(&found.shards) {
            let window = plan.window(shard, now());
            let (min, max) = (window.min.at(now()).timestamp_millis(), window.max.at(now()).timestamp_millis());
            let loaded: Vec<&Block> = inventory.blocks().iter().filter(|block| block.max >= min && block.min <= max).collect();
            prop_assert_eq!(share.loaded.blocks, loaded.len() as u64);
            prop_assert_eq!(share.loaded.bytes, loaded.iter().filter_map(|block| block.bytes).sum::<u64>());
            loads += share.loaded.blocks;
        }
        prop_assert_eq!(loads, found.loaded.blocks + found.loaded_again().blocks);
        prop_assert_eq!(found.loaded.blocks + found.older.blocks + found.future.blocks, inventory.total().blocks);
    }

    /// No other choice among the edges of the blocks has a lighter heaviest shard.
    #[test]
    fn no_two_edges_are_better(blocks in proptest::collection::vec((0_i64..24 * 360, prop_oneof![Just(8), Just(48)], 1..1_000_u64), 2..9)) {
        let (config, inventory) = (config("sharding: {total_shards: 3, overlap: 1d}"), inventory(&blocks));
        let plan = Plan::new(&config.sharding, None);
        let weights = Weights::new(&inventory, balance(Measure::Bytes), &plan, now());
        let suggestion = suggest(&config, &plan, &inventory, &weights, now());
        let ours = suggestion.map_or(weights.heaviest(&plan), |found| weights.heaviest(&Plan::new(&found.sharding, None)));
        let ages: Vec<i64> = inventory.blocks().iter().flat_map(|block| [block.min, block.max])
            .map(|edge| (now().timestamp_millis() - edge).div_euclid(1_000) + 1).filter(|age| *age > 0).collect();
        for a in &ages {
            for b in ages.iter().filter(|b| *b > a) {
                let boundaries = format!("[{}, {}]", PromDuration::from_secs(*a), PromDuration::from_secs(*b));
                let other = config.sharding_for([("thanos-timeshard.io/boundaries", boundaries.as_str())]).unwrap();
                prop_assert!(weights.heaviest(&Plan::new(&other, None)) >= ours, "{boundaries} is lighter");
            }
        }
    }

    /// However the text is cut, the same is read.
    #[test]
    fn pieces_do_not_matter(cut in 1_usize..200, rows in any::<bool>()) {
        let metas: Vec<String> = (0..3).map(|i| meta(i, 0, 1_000, 5)).collect();
        let text = if rows { answer(&metas) } else { metas.join(LOG) };
        let mut reader = Reader::default();
        for piece in text.as_bytes().chunks(cut) {
            reader.push(piece).unwrap();
        }
        let (whole, pieces) = (read(&text).unwrap(), reader.finish().unwrap());
        prop_assert_eq!(whole.blocks(), pieces.blocks());
    }

    #[test]
    fn nothing_panics(text in "[|{}\\[\\]\",a-zA-Z0-9: \n\t-]{0,200}", cut in 1_usize..50, header in any::<bool>()) {
        let text = if header { format!("{{\"status\": 1, \"blocks\": [{text}") } else { text };
        let mut reader = Reader::default();
        let pushed = text.as_bytes().chunks(cut).try_for_each(|piece| reader.push(piece));
        if pushed.is_ok() {
            let _ = reader.finish();
        }
    }
}

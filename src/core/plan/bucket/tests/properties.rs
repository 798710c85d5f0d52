//! Shares and suggestions for any blocks under any configuration, and any text as a list.

use proptest::prelude::*;

use super::*;

fn any_blocks() -> impl Strategy<Value = Vec<(i64, i64, u64)>> {
    let block = (
        -48_i64..24 * 420,
        prop_oneof![Just(0), Just(2), Just(8), Just(48), Just(336)],
        0..5_000_000_u64,
    );
    proptest::collection::vec(block, 1..120)
}

fn any_config() -> impl Strategy<Value = Config> {
    let divided = prop_oneof![
        (1_u32..9).prop_map(|n| format!("total_shards: {n}")),
        proptest::collection::btree_set(1_u32..360, 1..7).prop_map(|days| format!(
            "boundaries: [{}]",
            days.iter()
                .map(|day| format!("{day}d"))
                .collect::<Vec<_>>()
                .join(", ")
        )),
    ];
    (divided, 30_u32..5_000, any::<bool>()).prop_map(|(divided, overlap, absolute)| {
        let format = if absolute {
            "absolute, quantum: 10m, drain: 1s, discovery_delay: 1s, replicas_per_shard: 1"
        } else {
            "relative"
        };
        config(&format!(
            "sharding: {{{divided}, overlap: {}m, window_format: {format}}}",
            overlap + 30
        ))
    })
}

fn any_balance() -> impl Strategy<Value = Balance> {
    let measure = prop_oneof![
        Just(Measure::Bytes),
        Just(Measure::Samples),
        Just(Measure::Blocks)
    ];
    (measure, proptest::option::of(1_i64..400)).prop_map(|(measure, days)| Balance {
        measure,
        half_life: days.map(PromDuration::from_days),
    })
}

/// The heaviest shard, block by block and shard by shard.
fn heaviest(weigh: &Weights, inventory: &Inventory, balance: Balance, plan: &Plan) -> u128 {
    let loads = |shard: u32| {
        let window = plan.window(shard, now());
        let (min, max) = (
            window.min.at(now()).timestamp_millis(),
            window.max.at(now()).timestamp_millis(),
        );
        let one = |block: &&Block| block.max >= min && block.min <= max;
        let found = Inventory {
            blocks: inventory.blocks().iter().filter(one).copied().collect(),
            ..Inventory::new(Format::Json)
        };
        Weights::new(&found, balance, plan, now()).total()
    };
    let heaviest = (0..)
        .zip(plan.shards())
        .map(|(shard, _)| loads(shard))
        .max()
        .unwrap();
    assert_eq!(heaviest, weigh.heaviest(plan));
    heaviest
}

proptest! {
    /// A suggestion is accepted by the configuration (which checked it), is better, stands at
    /// edges of blocks, and loses no block.
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
        prop_assert_eq!(shares(&config, &inventory).loaded, ShardShares::new(&inventory, &better, now()).loaded);
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

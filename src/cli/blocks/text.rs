//! The report for people: tables, and bars for the picture.

use chrono::{DateTime, Utc};

use super::super::{svg, timeline};
use super::found::{BucketReport, Side};
use crate::core::plan::bucket::Tally;

/// Rows of a table.
const MAX_ROWS: usize = 200;

impl BucketReport {
    pub(in super::super) fn text(&self, now: DateTime<Utc>) -> String {
        let mut text = format!(
            "{}, as `{}` prints them\n",
            self.sentence(&self.inventory.total()),
            self.inventory.format()
        );
        let mut kinds =
            timeline::plain_table(&["RESOLUTION", "LEVEL", "BLOCKS", "BYTES", "SAMPLES"]);
        for ((resolution, level), tally) in &self.inventory.kinds() {
            let [blocks, bytes, samples] = self.cells(tally);
            kinds.add_row([
                resolution.name().to_owned(),
                level.to_string(),
                blocks,
                bytes,
                samples,
            ]);
        }
        text.push_str(&format!("{kinds}\n\n{}", self.side(&self.today, now)));
        let shares = &self.today.shares;
        text.push_str(&format!(
            "in no window: {} older than the retention, {} {}\n",
            self.sentence(&shares.older),
            self.sentence(&shares.future),
            if self.ends_before_now {
                "newer than the newest window"
            } else {
                "in the future"
            }
        ));
        match &self.better {
            Err(why) => text.push_str(&format!("\nno other boundaries: {why}\n")),
            Ok((suggestion, side)) => {
                let list: Vec<String> = suggestion
                    .boundaries
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                text.push_str(&format!(
                    "\n# imbalance {:.2} -> {:.2}, by {}{}\nsharding:\n  total_shards: {}\n  boundaries: [{}]\n\n{}",
                    self.imbalance(&self.today),
                    self.imbalance(side),
                    self.measure(),
                    if suggestion.on_block_edges { "" } else { "; too few block edges for all boundaries" },
                    list.len() + 1,
                    list.join(", "),
                    self.side(side, now)
                ));
            }
        }
        text
    }

    /// Bars of what each shard loads, today and as suggested.
    pub(in super::super) fn picture(&self, now: DateTime<Utc>) -> String {
        let better = self.better.as_ref().ok().map(|(_, side)| side);
        let bars: Vec<svg::Bar> = (0..)
            .zip(&self.today.shares.shards)
            .map(|(shard, share)| svg::Bar {
                label: format!("shard {shard}: {}", self.sentence(&share.loaded)),
                today: self.of_even_share(&self.today, shard, now),
                better: better.map(|side| self.of_even_share(side, shard, now)),
            })
            .collect();
        let suggested = better.map_or_else(String::new, |side| {
            format!(
                ", {:.2} with the suggested boundaries",
                self.imbalance(side)
            )
        });
        svg::bars(
            &bars,
            &format!(
                "What each shard loads, against an even share by {}: imbalance {:.2}{suggested}",
                self.measure(),
                self.imbalance(&self.today)
            ),
        )
    }

    fn side(&self, side: &Side, now: DateTime<Utc>) -> String {
        let header = [
            "SHARD",
            "WINDOW",
            "BLOCKS",
            "BYTES",
            "SAMPLES",
            "RAW",
            "5M",
            "1H",
            "SHARED",
            "OF EVEN SHARE",
        ];
        let mut table = timeline::plain_table(&header);
        for (shard, share) in (0..).zip(side.shares.shards.iter().take(MAX_ROWS)) {
            let [blocks, bytes, samples] = self.cells(&share.loaded);
            let main = |tally: &Tally| self.main(tally);
            let [raw, five_minutes, one_hour] = share.by_resolution.each_ref().map(main);
            table.add_row([
                shard.to_string(),
                side.plan.window(shard, now).to_string(),
                blocks,
                bytes,
                samples,
                raw,
                five_minutes,
                one_hour,
                main(&share.shared),
                format!("{:.2}", self.of_even_share(side, shard, now)),
            ]);
        }
        let rest = side.shares.shards.len().saturating_sub(MAX_ROWS);
        let more = if rest > 0 {
            format!("… and {rest} older shards; -o json has them all\n")
        } else {
            String::new()
        };
        let again = &side.shares.again;
        format!(
            "{table}\n{more}loaded more than once: {} within the overlap, {} across an edge\nimbalance: {:.2} (the largest shard, of an even share by {})\n",
            self.sentence(&again.within_overlap),
            self.sentence(&again.across_edges),
            self.imbalance(side),
            self.measure()
        )
    }
}

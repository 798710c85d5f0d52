//! A bounded queue that serves its keys in turns and is full only for the keys that fill it.
//!
//! Invariants: the limits hold, per key and in total; an item is displaced only by a key with fewer
//! items; an item waits for at most as many items of another key as of its own, so a key with many
//! items delays only itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

#[derive(Debug)]
pub struct FairQueue<K, T> {
    max: usize,
    max_of_key: usize,
    waiting: BTreeMap<K, VecDeque<T>>,
    count: usize,
    /// The key that was served last.
    last: Option<K>,
}

/// An item that did not fit, or was displaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Dropped<T>(pub T);

impl<K: Ord + Clone, T> FairQueue<K, T> {
    #[must_use]
    pub const fn new(max: usize, max_of_key: usize) -> Self {
        Self {
            max,
            max_of_key,
            waiting: BTreeMap::new(),
            count: 0,
            last: None,
        }
    }

    /// Appends an item to its key's items.
    ///
    /// # Errors
    /// [`Dropped`] with this item if its key has too many, or with the newest item of the key that
    /// has most.
    pub fn push(&mut self, key: K, item: T) -> Result<(), Dropped<T>> {
        let own = self.waiting.get(&key).map_or(0, VecDeque::len);
        if own >= self.max_of_key {
            return Err(Dropped(item));
        }
        let mut displaced = None;
        if self.count >= self.max {
            let Some(longest) = self
                .waiting
                .values_mut()
                .max_by_key(|items| items.len())
                .filter(|items| items.len() > own + 1)
            else {
                return Err(Dropped(item));
            };
            displaced = longest.pop_back();
            self.count -= usize::from(displaced.is_some());
        }
        self.waiting.entry(key).or_default().push_back(item);
        self.count += 1;
        displaced.map_or(Ok(()), |item| Err(Dropped(item)))
    }

    /// Takes the oldest item of the next key.
    pub fn pop(&mut self) -> Option<T> {
        let after = self.last.as_ref().and_then(|last| {
            self.waiting
                .range((Bound::Excluded(last), Bound::Unbounded))
                .next()
        });
        let key = after
            .or_else(|| self.waiting.iter().next())
            .map(|(key, _)| key.clone())?;
        let items = self.waiting.get_mut(&key)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.waiting.remove(&key);
        }
        self.count -= usize::from(item.is_some());
        self.last = Some(key);
        item
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_take_turns() {
        let mut queue = FairQueue::new(100, 50);
        for i in 0..50 {
            queue.push("loud", ("loud", i)).unwrap();
        }
        assert_eq!(queue.push("loud", ("loud", 50)), Err(Dropped(("loud", 50))));
        queue.push("quiet", ("quiet", 0)).unwrap();
        queue.push("quiet", ("quiet", 1)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).take(5).collect();
        assert_eq!(
            order,
            [
                ("loud", 0),
                ("quiet", 0),
                ("loud", 1),
                ("quiet", 1),
                ("loud", 2)
            ]
        );
    }

    #[test]
    fn the_key_that_fills_the_queue_makes_room() {
        let mut queue = FairQueue::new(10, 10);
        for i in 0..10 {
            queue.push("loud", i).unwrap();
        }
        assert_eq!(
            queue.push("quiet", 100),
            Err(Dropped(9)),
            "the newest of the loud one"
        );
        assert_eq!(queue.pop(), Some(0));
        assert_eq!(queue.pop(), Some(100));
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 8);
        assert_eq!(queue.pop(), None);
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_a_modest_key_loses_nothing(keys in prop::collection::vec(0_u8..5, 0..200)) {
            let mut queue = FairQueue::new(12, 6);
            queue.push(200_u8, 200_u8).unwrap();
            for key in keys {
                let _ = queue.push(key, key);
                prop_assert!(queue.count <= 12 && queue.waiting.values().all(|items| (1..=6).contains(&items.len())));
                prop_assert_eq!(queue.count, queue.waiting.values().map(VecDeque::len).sum::<usize>());
            }
            let mut turns = 0;
            while queue.pop() != Some(200) {
                turns += 1;
                prop_assert!(turns < 6, "one of each other key at most");
            }
        }
    }
}

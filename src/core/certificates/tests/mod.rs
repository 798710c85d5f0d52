//! Combinations of faults, in which no API server ever refuses a serving replica.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;
use world::{
    FAULTS, Fault, HOUR, MINUTE, Millis, Mint, SECOND, SKEW_SECONDS, START, Scenario, World,
    settings, wall,
};

mod world;

fn span(most: Millis) -> impl Strategy<Value = Millis> {
    SECOND..most
}

/// Faults that may be combined. An edit of the Secret that no process remembers, together with an
/// edit of the caBundle that no process can revert, is beyond any replica.
fn scenario(faults: impl Strategy<Value = Fault> + Clone) -> impl Strategy<Value = Scenario> {
    let skews = prop::collection::vec(-SKEW_SECONDS..=SKEW_SECONDS, 1..4);
    let faults = prop::collection::vec((START..FAULTS, 0..3_usize, faults), 0..14);
    (any::<u64>(), skews, faults, 0..40_u32).prop_map(|(seed, skews, faults, bad)| Scenario {
        seed,
        skews,
        faults,
        bad,
    })
}

fn process() -> impl Strategy<Value = Fault> + Clone {
    prop_oneof![
        span(20 * MINUTE).prop_map(|back| Fault::Crash { back }),
        span(20 * MINUTE).prop_map(|back| Fault::CrashAll { back }),
        span(20 * MINUTE).prop_map(|span| Fault::Partition { span }),
    ]
}

#[test]
fn certificates_of_a_clock_that_was_ahead_are_replaced() {
    let (settings, mut mint) = (settings(), Mint::default());
    let mut write = |store: CertificateStore, change: StoreChange, at: Millis| {
        store
            .changed(&change, &settings, wall(at, 0), None, &[], &mut mint)
            .unwrap()
    };
    let sound = [StoreChange::Begin, StoreChange::Promote]
        .into_iter()
        .fold(CertificateStore::default(), |store, change| {
            write(store, change, 0)
        });
    let ahead = write(sound.clone(), StoreChange::Renew, 2 * HOUR);
    assert!(!sound.leaf_is_due(&settings, wall(0, 0)) && ahead.leaf_is_due(&settings, wall(0, 0)));
    let mended = write(ahead, StoreChange::Renew, 0);
    assert!(
        !mended.leaf_is_due(&settings, wall(0, 0))
            && mended.leaf.unwrap().validity.holds(wall(0, 0))
    );
    // The same with a CA.
    let ahead = [StoreChange::Begin, StoreChange::Promote]
        .into_iter()
        .fold(CertificateStore::default(), |store, change| {
            write(store, change, 2 * HOUR)
        });
    assert!(ahead.authority_is_due(wall(0, 0)) && !ahead.leaf_is_due(&settings, wall(0, 0)));
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn no_replica_is_refused_while_processes_die_and_the_secret_is_deleted_or_broken(
        scenario in scenario(prop_oneof![process(), Just(Fault::DeleteSecret), any::<u8>().prop_map(|part| Fault::Garble { part })])
    ) {
        World::new(scenario).run().ended_well();
    }

    #[test]
    fn no_replica_is_refused_while_processes_die_and_the_registration_is_overwritten(
        scenario in scenario(prop_oneof![
            process(),
            any::<bool>().prop_map(|theirs| Fault::Overwrite { theirs }),
            span(20 * MINUTE).prop_map(|after| Fault::Recreate { after }),
        ])
    ) {
        World::new(scenario).run().ended_well();
    }

    #[test]
    fn no_replica_is_refused_while_the_secret_gets_other_content(
        scenario in scenario(prop_oneof![Just(Fault::Swap), Just(Fault::DeleteSecret), span(20 * MINUTE).prop_map(|span| Fault::Partition { span })])
    ) {
        World::new(scenario).run().ended_well();
    }
}

//! One candidate, driven by hand; `simulation` has many of them.

use super::*;

mod simulation;
mod world;

/// Returns the request of a candidate driven by hand at `now`.
fn asks(election: &mut Election, now: Duration) -> Request {
    match election.next(now, DateTime::UNIX_EPOCH) {
        ElectionStep::Ask(request) => request,
        other => panic!("{other:?} at {now:?}"),
    }
}

/// Answers a write as the API server does.
fn written(election: &mut Election, now: Duration, version: &str) -> LeaseRecord {
    let (Request::Create(record) | Request::Replace { record, .. }) = asks(election, now) else {
        panic!("no write")
    };
    election.answered(
        now,
        LeaseAnswer::Found(Stored {
            record: record.clone(),
            version: version.to_owned(),
        }),
    );
    record
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn leader() -> (Election, LeaseRecord) {
    let mut election = Election::new("one".to_owned(), Duration::ZERO);
    assert_eq!(asks(&mut election, at(0)), Request::Get);
    election.answered(at(10), LeaseAnswer::Missing);
    let record = written(&mut election, at(20), "1");
    assert_eq!(
        (election.may_write_until(), record.transitions),
        (Some(at(20) + RENEW_DEADLINE), 0)
    );
    (election, record)
}

fn observe(election: &mut Election, now: Duration, record: &LeaseRecord, version: &str) {
    assert_eq!(asks(election, now), Request::Get);
    election.answered(
        now,
        LeaseAnswer::Found(Stored {
            record: record.clone(),
            version: version.to_owned(),
        }),
    );
}

#[test]
fn renewals_differ_even_if_the_wall_clock_is_stopped() {
    let (mut election, first) = leader();
    let second = written(&mut election, at(2_000), "2");
    assert_eq!((second.acquired, second.transitions), (first.acquired, 0));
    assert_ne!(second.renewed, first.renewed, "others judge by change");
    assert_eq!(election.may_write_until(), Some(at(2_000) + RENEW_DEADLINE));
}

#[test]
fn a_record_of_another_ends_the_permission_immediately() {
    let (mut election, mine) = leader();
    assert!(matches!(
        asks(&mut election, at(2_000)),
        Request::Replace { .. }
    ));
    election.answered(at(2_010), LeaseAnswer::Conflict);
    observe(
        &mut election,
        at(2_010),
        &LeaseRecord {
            holder: "two".to_owned(),
            ..mine
        },
        "2",
    );
    assert_eq!(
        (election.may_write_until(), election.holder()),
        (None, Some("two"))
    );
}

#[test]
fn a_second_process_with_the_same_name_is_another_candidate() {
    let (mut election, mine) = leader();
    assert!(matches!(
        asks(&mut election, at(2_000)),
        Request::Replace { .. }
    ));
    election.answered(at(2_010), LeaseAnswer::Conflict);
    let namesake = LeaseRecord {
        acquired: mine.acquired.map(|at| at + TimeDelta::seconds(1)),
        ..mine
    };
    observe(&mut election, at(2_010), &namesake, "2");
    assert_eq!(election.may_write_until(), None);
    assert!(
        matches!(
            election.next(at(2_020), DateTime::UNIX_EPOCH),
            ElectionStep::WaitUntil(_)
        ),
        "it may be alive"
    );
}

#[test]
fn a_lease_is_taken_the_moment_it_is_free() {
    let mut election = Election::new("two".to_owned(), Duration::ZERO);
    let other = LeaseRecord {
        holder: "one".to_owned(),
        lease_seconds: 10,
        acquired: None,
        renewed: None,
        transitions: 4,
    };
    for now in [0, 2_000, 4_000, 6_000, 8_000] {
        observe(&mut election, at(now), &other, "9");
        assert_eq!(
            election.next(at(now), DateTime::UNIX_EPOCH),
            ElectionStep::WaitUntil(at(now + 2_000))
        );
    }
    assert_eq!(written(&mut election, at(10_000), "10").transitions, 5);

    // The change was seen between two rounds, so the lease is free between two rounds.
    let mut election = Election::new("two".to_owned(), Duration::from_millis(300));
    observe(&mut election, at(500), &other, "9");
    for now in [2_800, 5_100, 7_400, 9_700] {
        assert_eq!(
            election.next(at(now - 1), DateTime::UNIX_EPOCH),
            ElectionStep::WaitUntil(at(now))
        );
        observe(&mut election, at(now), &other, "9");
    }
    assert_eq!(
        election.next(at(9_700), DateTime::UNIX_EPOCH),
        ElectionStep::WaitUntil(at(10_500))
    );
    assert!(
        matches!(asks(&mut election, at(10_500)), Request::Replace { version, .. } if version == "9")
    );
}

#[test]
fn a_duration_in_the_lease_is_limited() {
    for (seconds, waits) in [
        (0, LEASE),
        (1, LEASE),
        (30, Duration::from_secs(30)),
        (86_400, MAX_LEASE),
    ] {
        let mut election = Election::new("two".to_owned(), Duration::ZERO);
        let other = LeaseRecord {
            holder: "one".to_owned(),
            lease_seconds: seconds,
            acquired: None,
            renewed: None,
            transitions: 0,
        };
        observe(&mut election, at(0), &other, "9");
        assert!(
            !election.is_free(waits.saturating_sub(at(1))) && election.is_free(waits),
            "{seconds} s"
        );
    }
}

#[test]
fn a_release_that_is_never_answered_ends() {
    let (mut election, _) = leader();
    election.retire(at(1_000));
    assert_eq!(
        (
            election.may_write_until(),
            election.next(at(1_000), DateTime::UNIX_EPOCH)
        ),
        (None, ElectionStep::WaitUntil(at(1_000) + WRITE))
    );
    let mut now = at(1_000) + WRITE;
    while let ElectionStep::Ask(request) = election.next(now, DateTime::UNIX_EPOCH) {
        assert!(
            matches!(&request, Request::Replace { record, .. } if record.holder.is_empty() && record.lease_seconds == 1)
        );
        now += REQUEST;
        election.answered(now, LeaseAnswer::Failed);
    }
    assert!(now <= at(1_000) + RELEASE + REQUEST);
    assert_eq!(election.next(now, DateTime::UNIX_EPOCH), ElectionStep::Done);
}

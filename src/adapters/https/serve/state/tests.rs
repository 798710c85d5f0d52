use super::*;

#[tokio::test(start_paused = true)]
async fn the_deadline_follows_what_the_connection_does() {
    let limits = Limits::default();
    let state = ConnectionState::default();
    let start = Instant::now();
    state.established(false);
    assert_eq!(state.deadline(&limits), (start + limits.idle, Due::Idle));

    tokio::time::advance(Duration::from_secs(100)).await;
    state.read();
    tokio::time::advance(Duration::from_secs(1)).await;
    state.read();
    let headers_due = start + Duration::from_secs(100) + limits.header_read;
    assert_eq!(
        state.deadline(&limits),
        (headers_due, Due::Cut(ConnectionFailure::HeaderTimeout)),
        "drip-fed headers do not move it"
    );

    let request = state.begin();
    tokio::time::advance(Duration::from_secs(2)).await;
    state.read();
    let stalled = Instant::now() + limits.stalled;
    assert_eq!(
        state.deadline(&limits),
        (stalled, Due::Cut(ConnectionFailure::Stalled)),
        "body bytes move it"
    );

    tokio::time::advance(Duration::from_secs(3)).await;
    drop(request);
    assert_eq!(
        state.deadline(&limits),
        (Instant::now() + limits.idle, Due::Idle)
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_keeps_the_connection() {
    let limits = Limits::default();
    let state = ConnectionState::default();
    let start = Instant::now();
    state.established(false);
    drop(state.begin());
    tokio::time::advance(Duration::from_secs(100)).await;
    state.wrote();
    assert_eq!(
        state.deadline(&limits),
        (start + Duration::from_secs(100) + limits.idle, Due::Idle)
    );
    state.order(Order::Finish);
    tokio::time::advance(Duration::from_secs(1)).await;
    state.wrote();
    assert_eq!(
        state.deadline(&limits),
        (start + Duration::from_secs(100) + limits.close, Due::Closed),
        "not beyond the end"
    );
}

#[tokio::test(start_paused = true)]
async fn http2_frames_are_not_headers() {
    let limits = Limits::default();
    let state = ConnectionState::default();
    state.established(true);
    state.read();
    assert_eq!(state.deadline(&limits).1, Due::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off() {
    let limits = Limits::default();
    let state = ConnectionState::default();
    let start = Instant::now();
    state.established(false);
    state.blocked();
    tokio::time::advance(Duration::from_secs(1)).await;
    state.blocked();
    assert_eq!(
        state.deadline(&limits),
        (start + limits.unread, Due::Cut(ConnectionFailure::Unread)),
        "polling again does not move it"
    );
    state.wrote();
    assert_eq!(state.deadline(&limits).1, Due::Idle);
    // An HTTP/2 peer that reads, and lets no answer through.
    state.answer_begins();
    assert_eq!(
        state.deadline(&limits),
        (
            Instant::now() + limits.answer,
            Due::Cut(ConnectionFailure::Unread)
        )
    );
    state.answer_ends();
    assert_eq!(state.deadline(&limits).1, Due::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_classified_by_what_it_did() {
    let epoch = Instant::now();
    tokio::time::advance(Duration::from_millis(5)).await;
    let state = ConnectionState::default();
    state.established(false);
    state.read();
    assert_eq!(
        state.activity(epoch),
        Some(Activity::Unproven { since_ms: 5 }),
        "half a header is nothing"
    );
    let request = state.begin();
    assert_eq!(state.activity(epoch), Some(Activity::First { since_ms: 5 }));
    state.proven();
    drop(request);
    assert_eq!(state.activity(epoch), Some(Activity::Idle { since_ms: 5 }));
    tokio::time::advance(Duration::from_millis(5)).await;
    state.read();
    assert_eq!(
        state.activity(epoch),
        Some(Activity::Busy { since_ms: 10 }),
        "a request may be on its way"
    );
    state.make_room();
    assert_eq!(state.activity(epoch), None, "one order is enough");
}

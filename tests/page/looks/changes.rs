//! Keyboard use, live changes and a broken stream.

use super::*;

/// The Tab key in the `WebDriver` protocol.
const TAB: &str = "\u{e004}";

pub(super) fn keyboard(stage: &Stage) {
    let server = stage.serve(scenes::gap());
    stage.open(&server);
    let browser = &stage.browser;
    browser.keys(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        json!("skip"),
        "the first stop skips to the StatefulSets"
    );
    browser.keys("\u{e007}");
    browser.until("location.hash === '#sets'");
    let mut seen = Vec::new();
    for _ in 0..12 {
        browser.keys(TAB);
        let now = browser.run("const e = document.activeElement, s = getComputedStyle(e); return [e.tagName, e.id || e.value || '', e.matches(':focus-visible') && s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]");
        assert_eq!(now[2], json!(true), "the focus is visible on {now}");
        seen.push(now[0].as_str().unwrap().to_owned());
        if seen.iter().filter(|tag| *tag == "SUMMARY").count() == 1 {
            break;
        }
    }
    assert_eq!(
        seen,
        ["INPUT", "INPUT", "SUMMARY"],
        "search, the choice of scale, the first StatefulSet"
    );
    browser.keys("\u{e00d}");
    browser.until("!document.querySelector('.card').open");
    browser.keys("\u{e00d}");
    browser.until(
        "document.querySelector('.card').open && document.querySelector('.card svg.timeline')",
    );
    // A change keeps the focus.
    let mut known = scenes::gap();
    known.sets[0] = scenes::rolling().sets[0].clone();
    server.know(known);
    browser.until("document.querySelector('.card').textContent.includes('Rollout: ')");
    assert_eq!(
        browser.run("return document.activeElement.tagName"),
        json!("SUMMARY")
    );
}

pub(super) fn live(stage: &Stage) {
    let server = stage.serve(scenes::healthy());
    stage.open(&server);
    server.know(scenes::gap());
    stage
        .browser
        .until("document.getElementById('verdict').dataset.level === 'gap'");
    server.know(scenes::rolling());
    stage.browser.until("document.getElementById('verdict').dataset.level === 'complete' && document.querySelector('progress')");
    server.know(scenes::empty());
    stage
        .browser
        .until("document.querySelectorAll('.card').length === 0");
    assert_eq!(stage.browser.complaints(), Vec::<String>::new());
}

pub(super) fn stale(stage: &Stage) {
    let server = stage.serve(scenes::healthy());
    stage.open(&server);
    let browser = &stage.browser;
    let addr = stage.runtime.block_on(server.end());
    browser.until("document.getElementById('live').dataset.state === 'off'");
    browser.until(
        "/^stale since \\d\\d:\\d\\d:\\d\\d UTC, (next try in \\d+ s|trying again)$/.test(document.getElementById('live-text').textContent)",
    );
    assert!(
        stage
            .text("verdict-more")
            .starts_with("Stale: the stream broke at "),
        "{}",
        stage.text("verdict-more")
    );
    assert!(
        stage.text("verdict-text").contains("(as of "),
        "the state is marked as old"
    );
    assert_eq!(
        browser.run("return document.getElementById('verdict').dataset.level"),
        json!("unknown"),
        "and not shown as good"
    );
    assert_eq!(stage.text("say"), "The stream broke; this page is stale.");
    browser.picture(&stage.pictures.join("stale.png"));
    // Meanwhile one StatefulSet was deleted.
    let mut known = scenes::rolling();
    known.sets.pop();
    let again = stage.runtime.block_on(Server::at(addr, known));
    browser.until("document.getElementById('live').dataset.state === 'on'");
    browser.until("document.querySelectorAll('.card').length === 1");
    assert!(!stage.text("verdict-text").contains("as of"));
    // The server shuts down and rejects new streams.
    again.trigger.signal();
    browser.until("document.getElementById('verdict-more').textContent.includes('shutting down')");
    // Only the rejected connections are logged.
    let others: Vec<String> = browser
        .complaints()
        .into_iter()
        .filter(|line| !line.contains("/events - Failed to load resource"))
        .collect();
    assert_eq!(others, Vec::<String>::new());
}

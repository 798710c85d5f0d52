//! What a user does, and what happens while the page is open: keys, news, a stream that breaks.

use super::*;

/// The key, as a browser is told to press it.
const TAB: &str = "\u{e004}";

pub(super) fn keyboard(stage: &Stage) {
    let server = stage.serve(scenes::gap());
    stage.open(&server);
    let browser = &stage.browser;
    browser.keys(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        json!("skip"),
        "first of all one can skip to the StatefulSets"
    );
    browser.keys("\u{e007}");
    browser.until("location.hash === '#sets'");
    let mut seen = Vec::new();
    for _ in 0..12 {
        browser.keys(TAB);
        let now = browser.run("const e = document.activeElement, s = getComputedStyle(e); return [e.tagName, e.id || e.value || '', e.matches(':focus-visible') && s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]");
        assert_eq!(now[2], json!(true), "the focus is to be seen on {now}");
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
    // What changes meanwhile does not take the focus away.
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
    stage.browser.until("document.getElementById('verdict').dataset.level === 'whole' && document.querySelector('progress')");
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
        "/^stale since \\d\\d:\\d\\d:\\d\\d, (next try in \\d+ s|trying again)$/.test(document.getElementById('live-text').textContent)",
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
        "what is shown is said to be old"
    );
    assert_eq!(
        browser.run("return document.getElementById('verdict').dataset.level"),
        json!("unknown"),
        "and not shown as good"
    );
    assert_eq!(
        stage.text("say"),
        "The stream broke, what is shown is stale."
    );
    browser.picture(&stage.pictures.join("stale.png"));
    // While it was away one StatefulSet went, too.
    let mut known = scenes::rolling();
    known.sets.pop();
    let again = stage.runtime.block_on(Server::at(addr, known));
    browser.until("document.getElementById('live').dataset.state === 'on'");
    browser.until("document.querySelectorAll('.card').length === 1");
    assert!(!stage.text("verdict-text").contains("as of"));
    // The server ends in an orderly way, and refuses who comes then.
    again.trigger.signal();
    browser.until("document.getElementById('verdict-more').textContent.includes('about to end')");
    // Only the refused connections are complained of.
    let others: Vec<String> = browser
        .complaints()
        .into_iter()
        .filter(|words| !words.contains("/events - Failed to load resource"))
        .collect();
    assert_eq!(others, Vec::<String>::new());
}

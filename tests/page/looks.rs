//! What a browser shows of each scene: texts, roles, widths, colours. Screenshots go to
//! `target/page`.
//!
//! Two browsers share the scenes, since starting one takes longer than a scene; every failing scene
//! is listed. With `TIMESHARD_AXE=FILE` (axe-core's `axe.min.js`), axe checks each scene, too.

use std::sync::Mutex;

use serde_json::json;
use thanos_timeshard::core::rollout::report::BlocksReport;
use thanos_timeshard::page::feed::PageFacts;

use crate::scenes;
use crate::server::Server;

mod changes;
mod followers;
mod sizes;
mod stage;

use stage::Stage;

type Scene = fn(&Stage);

#[test]
fn in_a_browser() {
    let scenes: [(&str, Scene); 15] = [
        ("healthy", healthy),
        ("for ever", for_ever),
        ("rolling", rolling),
        ("gap", gap),
        ("unserved block", unserved_block),
        ("empty", empty),
        ("not reconciled", not_reconciled),
        ("follower", followers::follower),
        ("follower alone", followers::follower_alone),
        ("hostile", hostile),
        ("200 pods", sizes::two_hundred_pods),
        ("5000 pods", sizes::five_thousand_pods),
        ("keyboard", changes::keyboard),
        ("live", changes::live),
        ("stale", changes::stale),
    ];
    let (left, failed) = (Mutex::new(scenes.into_iter()), Mutex::new(Vec::new()));
    let play_all = || {
        let Some(stage) = Stage::set_up() else {
            return;
        };
        let next = || left.lock().unwrap().next();
        while let Some((name, scene)) = next() {
            if !stage.play(name, scene) {
                failed.lock().unwrap().push(name);
            }
        }
    };
    // Most of a scene is waiting: for the page's next update, for a picture.
    std::thread::scope(|scope| {
        scope.spawn(play_all);
        play_all();
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these scenes failed: {failed:?}");
}

fn healthy(stage: &Stage) {
    let server = stage.serve(scenes::healthy());
    stage.open(&server);
    assert_eq!(
        stage.text("verdict-text"),
        "Coverage is complete: every instant of 370d is served by at least 2 ready pods"
    );
    assert_eq!(
        stage.text("say"),
        stage.text("verdict-text"),
        "screen readers announce it"
    );
    assert!(
        stage
            .text("verdict-more")
            .contains("2 StatefulSets, 10 pods. At each instant at least 2 pods are confirmed")
    );
    let browser = &stage.browser;
    assert_eq!(stage.text("cluster"), "prod-eu");
    assert_eq!(
        browser.run("return document.title"),
        json!("✓ prod-eu – thanos-timeshard")
    );
    let shards = browser.run("return [...document.querySelector('.shards table').rows].map((row) => [...row.cells].map((cell) => cell.textContent))");
    assert_eq!(
        (&shards[0][4], &shards[1][4], &shards[1][5], &shards[1][3]),
        (
            &json!("Blocks"),
            &json!("130"),
            &json!("0"),
            &json!("2 of 2 pods")
        )
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('.card[open]').length"),
        json!(2)
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('svg .hole, svg .served-0').length - document.querySelectorAll('.key .hole').length"),
        json!(0)
    );
    // The table has the same data as the picture.
    let rows = browser.run("return [...document.querySelector('.card .body > div:not(.picture):not(.columns):not(.shards) table').rows].map((row) => [...row.cells].map((cell) => cell.textContent))");
    assert_eq!(rows[1][0], "thanos-store-gateway-0");
    assert_eq!(
        (&rows[1][3], &rows[5][3]),
        (&json!("-124d8h .. 1d"), &json!("-370d .. -246d16h"))
    );
    let described = browser.run("return document.querySelector('svg.timeline desc').textContent");
    assert!(
        described
            .as_str()
            .unwrap()
            .contains("shard 2: -370d .. -246d16h, 2 pods"),
        "{described}"
    );
    stage.sound("healthy");
    browser.run("document.querySelector('input[value=linear]').click()");
    browser.until("[...document.querySelectorAll('svg.timeline text')].some((text) => text.textContent === '-180d')");
    stage.sound("linear");
}

fn for_ever(stage: &Stage) {
    let server = stage.serve(scenes::for_ever());
    stage.open(&server);
    assert_eq!(
        stage.text("verdict-text"),
        "Coverage is complete: every instant of all time is served by at least 2 ready pods"
    );
    let browser = &stage.browser;
    let facts = browser.run("return document.querySelector('.card').textContent");
    assert!(facts.as_str().unwrap().contains("forever"), "{facts}");
    let described = browser.run("return document.querySelector('svg.timeline desc').textContent");
    assert!(
        described
            .as_str()
            .unwrap()
            .contains("shard 2: 0000-01-01T00:00:00Z .. -90d, 2 pods"),
        "{described}"
    );
    // The open window is drawn a quarter beyond the oldest end (91d), so that the others stay
    // visible.
    browser.run("document.querySelector('input[value=linear]').click()");
    browser.until("[...document.querySelectorAll('svg.timeline text')].some((text) => text.textContent === 'older')");
    let narrow = browser
        .run("return Math.min(...[...document.querySelectorAll('svg.timeline .bar')].map((bar) => bar.getBoundingClientRect().width))");
    assert!(narrow.as_f64().unwrap() > 50.0, "{narrow}");
    // Now is right of the newest window's end.
    let ends = browser.run("return [document.querySelector('svg.timeline .now').getBoundingClientRect().right, Math.max(...[...document.querySelectorAll('svg.timeline .bar')].map((bar) => bar.getBoundingClientRect().right))]");
    assert!(ends[0].as_f64() > ends[1].as_f64(), "{ends}");
    stage.sound("for ever");
}

fn rolling(stage: &Stage) {
    let server = stage.serve(scenes::rolling());
    stage.open(&server);
    assert!(
        stage
            .text("verdict-text")
            .starts_with("Coverage is complete: every instant of 370d is served by at least 1 "),
        "{}",
        stage.text("verdict-text")
    );
    let card = stage
        .browser
        .run("return document.querySelector('.card').textContent");
    for text in [
        "rolling",
        "Rollout: 1 of 2 steps done",
        "thanos-store-gateway-5 draining",
        "queriers learn of it within 12 s",
        "A rollout begins: 8 moves, expected in 2 steps",
        "What changed",
        "total_shards: 3 → 4",
        "Began ",
        " UTC",
        "Fewest ready pods1",
        "Fewest confirmed pods1",
    ] {
        assert!(
            card.as_str().unwrap().contains(text),
            "{text:?} is not in {card}"
        );
    }
    assert_eq!(stage.browser.run("const p = document.querySelector('progress'); return [p.value, p.max, p.getAttribute('aria-label').startsWith('Rollout: 1 of')]"), json!([1, 2, true]));
    numbers_agree(stage);
    stage.sound("rolling");
    // In the first step, the second is listed.
    let first = stage.serve(scenes::rolling_in(1));
    stage.open(&first);
    let card = stage
        .browser
        .run("return document.querySelector('.card').textContent");
    for text in ["Rollout: 0 of 2 steps done", "then: thanos-store-gateway-1"] {
        assert!(
            card.as_str().unwrap().contains(text),
            "{text:?} is not in {card}"
        );
    }
}

/// The numbers of a rollout are the same in its heading, its bar and its list; each time has a zone.
fn numbers_agree(stage: &Stage) {
    let shown = stage.browser.run("
        const card = document.querySelector('.card'), bar = card.querySelector('progress');
        const [, over, all] = /Rollout: (\\d+) of (\\d+) steps/.exec(card.textContent).map(Number);
        const signs = [...card.querySelectorAll('.steps .n')].map((sign) => sign.textContent);
        return [over === bar.value && all === bar.max, signs.at(-1) === String(all), card.querySelector('.steps li').textContent.includes(`${over} step`),
          [...card.querySelectorAll('.changes time')].every((time) => / UTC$/.test(time.textContent)), card.querySelectorAll('.changes time').length > 3]");
    assert_eq!(shown, json!([true, true, true, true, true]));
}

fn gap(stage: &Stage) {
    let server = stage.serve(scenes::gap());
    stage.open(&server);
    let verdict = stage.text("verdict-text");
    assert!(
        verdict.starts_with(
            "GAP: no ready pod serves 246d16h ago .. 124d8h ago of monitoring/thanos-store-gateway"
        ),
        "{verdict}"
    );
    assert!(
        stage
            .text("verdict-more")
            .contains("This has lasted for 3 min"),
        "{}",
        stage.text("verdict-more")
    );
    let attention = stage.text("attention-list");
    for text in [
        "thanos-store-gateway-2 is unreachable on port 10908",
        "thanos-store-gateway-5 is admitted without injection",
        "thanos-store-gateway-3 is not serving the published window",
    ] {
        assert!(attention.contains(text), "{text} is not in {attention}");
    }
    // Each finding has the command that shows more, and its runbook.
    let remedies = stage.browser.run("return [...document.querySelectorAll('#attention-list li')].map((one) => [one.querySelector('code')?.textContent, one.querySelector('a[rel]')?.getAttribute('href').split('#')[1]])");
    for pair in [
        json!(["timeshard check", "timeshardpodwithoutinjection"]),
        json!([
            "kubectl -n monitoring logs thanos-store-gateway-2 -c config-sidecar",
            "timeshardrolloutstuck"
        ]),
    ] {
        assert!(
            remedies.as_array().unwrap().contains(&pair),
            "{pair} is not in {remedies}"
        );
    }
    // Not by colour alone.
    assert_eq!(
        stage.browser.run("return [...document.querySelectorAll('svg text.alarm')].filter((text) => text.textContent === 'GAP').length"),
        json!(1)
    );
    assert!(
        stage
            .browser
            .run("return document.title")
            .as_str()
            .unwrap()
            .contains("GAP")
    );
    stage.sound("gap");
}

fn unserved_block(stage: &Stage) {
    let known = scenes::unserved_block();
    let server = stage.serve(known.clone());
    stage.open(&server);
    let verdict = stage.text("verdict-text");
    assert!(
        verdict.starts_with("1 block served by no pod: 20")
            && verdict.contains(" of monitoring/thanos-store-gateway"),
        "{verdict}"
    );
    let more = stage.text("verdict-more");
    for text in [
        "succeed with missing samples",
        "This has lasted for 22 min",
        "Not loaded on thanos-store-gateway-2, thanos-store-gateway-3",
    ] {
        assert!(more.contains(text), "{text:?} is not in {more}");
    }
    let attention = stage.text("attention-list");
    for text in [
        "no confirmed pod has loaded 01JDQ3Z8M4K7XW2ZV5T9R6B1CN (20",
        "2 blocks are missing on some pods but served by others",
    ] {
        assert!(attention.contains(text), "{text:?} is not in {attention}");
    }
    let card = stage
        .browser
        .run("return document.querySelector('.card').textContent");
    for text in [
        "1 unserved block",
        "Blocks outside the windows14 of 511",
        "Blocks that no confirmed pod has loaded01JDQ3Z8M4K7XW2ZV5T9R6B1CN 20",
        "Blocks missing on some pods but served by others01JDQ41XW2ZVM4K7T9R6B1CN3Z 20",
        "for 22 min, not on thanos-store-gateway-3",
    ] {
        assert!(
            card.as_str().unwrap().contains(text),
            "{text:?} is not in {card}"
        );
    }
    assert!(
        stage
            .browser
            .run("return document.title")
            .as_str()
            .unwrap()
            .contains("BLOCKS")
    );
    stage.sound("unserved-block");
    loaded_again(stage, &server, known);
}

/// The block is loaded again; then one pod cannot report its blocks.
fn loaded_again(stage: &Stage, server: &Server, mut known: PageFacts) {
    let mut report = (*known.sets[0].report).clone();
    report.blocks = BlocksReport {
        known_pods: 6,
        ..BlocksReport::default()
    };
    known.sets[0].report = std::sync::Arc::new(report.clone());
    server.know(known.clone());
    stage.browser.until("document.getElementById('verdict-more').textContent.includes('Every block within the retention is served.')");
    assert!(
        stage
            .text("verdict-text")
            .starts_with("Coverage is complete"),
        "{}",
        stage.text("verdict-text")
    );
    report.blocks = BlocksReport {
        known_pods: 5,
        unknown_pods: 1,
        ..BlocksReport::default()
    };
    known.sets[0].report = std::sync::Arc::new(report);
    server.know(known);
    stage.browser.until("document.getElementById('verdict-more').textContent.includes('The loaded blocks of 1 pod are unknown.')");
}

fn empty(stage: &Stage) {
    let server = stage.serve(scenes::empty());
    stage.open(&server);
    assert_eq!(stage.text("verdict-text"), "No StatefulSets yet");
    assert!(
        stage
            .text("verdict-more")
            .contains("kubectl label namespace NAME thanos-timeshard.io/injection=enabled")
    );
    stage.sound("empty");
}

fn not_reconciled(stage: &Stage) {
    let server = stage.serve(scenes::before_the_first_report());
    stage.open(&server);
    assert_eq!(stage.text("verdict-text"), "Not reconciled yet");
    assert_eq!(
        stage
            .browser
            .run("return document.querySelectorAll('.card[data-level=gap]').length"),
        json!(0),
        "an unknown state is not a gap"
    );
    stage.sound("not-reconciled");
    // A new leader has not polled a single sidecar.
    let mut known = scenes::gap();
    let mut report = (*known.sets[0].report).clone();
    report.not_asked = 6;
    known.sets[0].report = std::sync::Arc::new(report);
    server.know(known);
    stage.browser.until(
        "document.getElementById('verdict-more').textContent.includes('6 sidecars not polled yet')",
    );
}

fn hostile(stage: &Stage) {
    let server = stage.serve(scenes::hostile());
    stage.open(&server);
    assert!(
        stage.text("sets").contains(scenes::HOSTILE),
        "it is shown as text"
    );
    assert!(
        stage.text("attention-list").contains(scenes::HOSTILE)
            && stage.text("notes-list").contains(scenes::HOSTILE)
    );
    let made = stage.browser.run(
        "return [document.querySelectorAll('main img, main script, #notes img, #attention img').length, document.title === 'pwned']",
    );
    assert_eq!(made, json!([0, false]));
    stage.sound("hostile");
    let mut known = scenes::hostile();
    known.head["leader"]["self"] = json!(false);
    known.head["relayed"] =
        json!({"from": null, "error": scenes::HOSTILE, "as_of_unix_seconds": null});
    server.know(known);
    stage.browser.until("document.getElementById('verdict-text').textContent.startsWith('This replica is not the leader')");
    assert!(stage.text("verdict-more").contains(scenes::HOSTILE));
    assert_eq!(
        stage
            .browser
            .run("return document.querySelectorAll('#verdict code').length"),
        json!(0),
        "a name that a shell would read as more than a name is in no command"
    );
    assert_eq!(stage.browser.complaints(), Vec::<String>::new());
}

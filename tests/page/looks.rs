//! What a browser shows of each scene: words, roles, widths, colours; pictures of it are in `target/page`.
//!
//! One browser for all scenes, since starting one takes longer than a scene; each that fails is named. With
//! `TIMESHARD_AXE=FILE` (axe-core's `axe.min.js`) each is also given to axe.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use thanos_timeshard::core::report::BlocksReport;
use thanos_timeshard::page::feed::Known;
use tokio::runtime::Runtime;

use crate::browser::Browser;
use crate::scenes;
use crate::server::Server;

mod changes;
mod sizes;

/// Checks that hold for every scene, as a function's body that returns what is wrong.
const SOUND: &str = include_str!("sound.js");

/// What a scene is tried with.
struct Stage {
    browser: Browser,
    runtime: Runtime,
    pictures: PathBuf,
    axe: Option<String>,
}

impl Stage {
    fn serve(&self, known: Known) -> Server {
        self.runtime.block_on(Server::start(known))
    }

    /// Opens the page and waits until it has been told everything.
    fn open(&self, server: &Server) {
        self.browser.open("about:blank");
        self.browser.complaints();
        self.browser.open(&format!("http://{}/", server.addr));
        self.browser
            .until("document.getElementById('live').dataset.state === 'on'");
    }

    fn text(&self, id: &str) -> String {
        self.browser
            .run(&format!(
                "return document.getElementById('{id}').textContent"
            ))
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// In every width and both colour schemes: nothing overflows, nothing is wrong, and a picture of it.
    fn sound(&self, scene: &str) {
        for (width, height, name) in [
            (1_280, 900, ""),
            (768, 900, "-tablet"),
            (360, 2740, "-phone"),
        ] {
            self.browser.size(width, height);
            for dark in [false, true] {
                self.browser.dark(dark);
                self.browser.until("[...document.querySelectorAll('svg.timeline')].every((svg) => Number(svg.dataset.width) === svg.parentNode.clientWidth)");
                let wrong = self.browser.run(SOUND);
                assert_eq!(wrong, json!([]), "{scene}, {width} px wide, dark: {dark}");
                if let Some(axe) = &self.axe {
                    self.axe(axe, scene);
                }
                if width == 1_280 || width == 360 {
                    let suffix = if dark { "-dark" } else { "" };
                    self.browser
                        .picture(&self.pictures.join(format!("{scene}{name}{suffix}.png")));
                }
            }
        }
        self.browser.size(1_280, 900);
        self.browser.dark(false);
        assert_eq!(
            self.browser.complaints(),
            Vec::<String>::new(),
            "{scene}: the console"
        );
    }

    fn axe(&self, source: &str, scene: &str) {
        self.browser.run(&format!("{source}; window.found = null; axe.run().then((all) => {{ window.found = all.violations; }})"));
        self.browser.until("window.found");
        let found = self.browser.run("return window.found.map((one) => one.id + ': ' + one.nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary).slice(0, 3).join(' | '))");
        assert_eq!(found, json!([]), "{scene}: axe");
    }
}

type Scene = fn(&Stage);

#[test]
fn in_a_browser() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("page");
    std::fs::create_dir_all(&pictures).unwrap();
    let axe = std::env::var_os("TIMESHARD_AXE").map(|path| std::fs::read_to_string(path).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stage = Stage {
        browser,
        runtime,
        pictures,
        axe,
    };
    let scenes: [(&str, Scene); 14] = [
        ("healthy", healthy),
        ("for ever", for_ever),
        ("rolling", rolling),
        ("gap", gap),
        ("unserved block", unserved_block),
        ("empty", empty),
        ("not looked", not_looked),
        ("follower", follower),
        ("hostile", hostile),
        ("200 pods", sizes::two_hundred_pods),
        ("5000 pods", sizes::five_thousand_pods),
        ("keyboard", changes::keyboard),
        ("live", changes::live),
        ("stale", changes::stale),
    ];
    let mut failed = Vec::new();
    for (name, scene) in scenes {
        let began = Instant::now();
        let went = catch_unwind(AssertUnwindSafe(|| scene(&stage)));
        println!(
            "{name}: {} in {:.1} s",
            if went.is_ok() { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f32()
        );
        if went.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these scenes failed: {failed:?}");
}

fn healthy(stage: &Stage) {
    let server = stage.serve(scenes::healthy());
    stage.open(&server);
    assert_eq!(
        stage.text("verdict-text"),
        "Coverage is whole: every instant of 370d is held by at least 2 confirmed pods"
    );
    assert_eq!(
        stage.text("say"),
        stage.text("verdict-text"),
        "it is said to screen readers"
    );
    assert!(
        stage
            .text("verdict-more")
            .contains("2 StatefulSets, 10 pods")
    );
    let browser = &stage.browser;
    assert_eq!(
        browser.run("return document.querySelectorAll('.card[open]').length"),
        json!(2)
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('svg .hole, svg .held-0').length - document.querySelectorAll('.key .hole').length"),
        json!(0)
    );
    // The table says what the picture says.
    let rows = browser.run("return [...document.querySelector('.card .body > div:not(.picture):not(.columns) table').rows].map((row) => [...row.cells].map((cell) => cell.textContent))");
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
        "Coverage is whole: every instant of all time is held by at least 2 confirmed pods"
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
    // The open window is drawn a quarter beyond the oldest end (91d), so that the others are to be seen.
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
            .starts_with("Coverage is whole: every instant of 370d is held by at least 1 "),
        "{}",
        stage.text("verdict-text")
    );
    let card = stage
        .browser
        .run("return document.querySelector('.card').textContent");
    for words in [
        "rolling",
        "Rollout: 2 of ",
        "now: thanos-store-gateway-5 draining",
        "then: ",
        "queriers learn of it within 12 s",
        "A rollout begins: 8 moves in 4 steps",
    ] {
        assert!(
            card.as_str().unwrap().contains(words),
            "{words:?} is not in {card}"
        );
    }
    assert_eq!(stage.browser.run("const p = document.querySelector('progress'); return [p.value, p.max >= 4, p.getAttribute('aria-label').startsWith('Rollout: 2 of')]"), json!([2, true, true]));
    stage.sound("rolling");
}

fn gap(stage: &Stage) {
    let server = stage.serve(scenes::gap());
    stage.open(&server);
    let verdict = stage.text("verdict-text");
    assert!(
        verdict.starts_with("GAP: 246d16h ago .. 124d8h ago of monitoring/thanos-store-gateway is held by no confirmed pod"),
        "{verdict}"
    );
    assert!(
        stage
            .text("verdict-more")
            .contains("It has been so for 3 min"),
        "{}",
        stage.text("verdict-more")
    );
    let attention = stage.text("attention-list");
    for words in [
        "thanos-store-gateway-2 is not to be asked on port 10908",
        "thanos-store-gateway-5 is admitted without injection",
        "thanos-store-gateway-3 is not serving what is published",
    ] {
        assert!(attention.contains(words), "{words} is not in {attention}");
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
    let mut known = scenes::unserved_block();
    let server = stage.serve(known.clone());
    stage.open(&server);
    let verdict = stage.text("verdict-text");
    assert!(
        verdict.starts_with("1 block served by no pod: 20")
            && verdict.contains(" of monitoring/thanos-store-gateway"),
        "{verdict}"
    );
    let more = stage.text("verdict-more");
    for words in [
        "lack its samples and say success",
        "It has been so for 22 min",
        "Not loaded on thanos-store-gateway-2, thanos-store-gateway-3",
    ] {
        assert!(more.contains(words), "{words:?} is not in {more}");
    }
    let attention = stage.text("attention-list");
    for words in [
        "no confirmed pod has loaded 01JDQ3Z8M4K7XW2ZV5T9R6B1CN (20",
        "2 blocks are missing on some pod and served by another",
    ] {
        assert!(attention.contains(words), "{words:?} is not in {attention}");
    }
    let card = stage
        .browser
        .run("return document.querySelector('.card').textContent");
    for words in [
        "1 unserved block",
        "Blocks outside the windows14 of 511",
        "Blocks that no confirmed pod has loaded01JDQ3Z8M4K7XW2ZV5T9R6B1CN 20",
        "Blocks that some pod has not loaded, served by another01JDQ41XW2ZVM4K7T9R6B1CN3Z 20",
        "for 22 min, not on thanos-store-gateway-3",
    ] {
        assert!(
            card.as_str().unwrap().contains(words),
            "{words:?} is not in {card}"
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
    // It is loaded again, and one pod cannot say what it has.
    let mut report = (*known.sets[0].report).clone();
    report.blocks = BlocksReport {
        known_pods: 6,
        ..BlocksReport::default()
    };
    known.sets[0].report = std::sync::Arc::new(report.clone());
    server.know(known.clone());
    stage.browser.until("document.getElementById('verdict-more').textContent.includes('Every block within the retention is served.')");
    assert!(
        stage.text("verdict-text").starts_with("Coverage is whole"),
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
    stage.browser.until("document.getElementById('verdict-more').textContent.includes('Which blocks are loaded is not known of 1 pod.')");
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

fn not_looked(stage: &Stage) {
    let server = stage.serve(scenes::before_the_first_look());
    stage.open(&server);
    assert_eq!(stage.text("verdict-text"), "Not looked yet");
    assert_eq!(
        stage
            .browser
            .run("return document.querySelectorAll('.card[data-level=gap]').length"),
        json!(0),
        "nothing known is no gap"
    );
    stage.sound("not-looked");
    // A new leader has looked, and not one sidecar was asked.
    let mut known = scenes::gap();
    let mut report = (*known.sets[0].report).clone();
    report.not_asked = 6;
    known.sets[0].report = std::sync::Arc::new(report);
    server.know(known);
    stage.browser.until(
        "document.getElementById('verdict-more').textContent.includes('6 sidecars not asked yet')",
    );
}

fn follower(stage: &Stage) {
    let server = stage.serve(scenes::follower());
    stage.open(&server);
    assert_eq!(
        stage.text("verdict-text"),
        "This replica does not lead, so it does not know what runs"
    );
    let more = stage.text("verdict-more");
    assert!(
        more.contains("kubectl -n timeshard-system port-forward pod/timeshard-6f7c9-x2x4q 8080"),
        "{more}"
    );
    assert_eq!(
        stage
            .browser
            .run("return document.querySelectorAll('svg .bar.planned').length"),
        json!(5),
        "what is planned is shown"
    );
    stage.sound("follower");
}

fn hostile(stage: &Stage) {
    let server = stage.serve(scenes::hostile());
    stage.open(&server);
    assert!(
        stage.text("sets").contains(scenes::HOSTILE),
        "it is shown as it is written"
    );
    assert!(
        stage.text("attention-list").contains(scenes::HOSTILE)
            && stage.text("notes-list").contains(scenes::HOSTILE)
    );
    let made = stage.browser.run(
        "return [document.querySelectorAll('main img, main script, #notes img, #attention img').length, document.title.includes('pwned')]",
    );
    assert_eq!(made, json!([0, false]));
    stage.sound("hostile");
    let mut known = scenes::hostile();
    known.head["leader"]["self"] = json!(false);
    server.know(known);
    stage.browser.until("document.getElementById('verdict-text').textContent.startsWith('This replica does not lead')");
    assert!(stage.text("verdict-more").contains(scenes::HOSTILE));
    assert_eq!(stage.browser.complaints(), Vec::<String>::new());
}

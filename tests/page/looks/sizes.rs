//! Scenes with many pods.

use std::time::Instant;

use super::*;

pub(super) fn two_hundred_pods(stage: &Stage) {
    let server = stage.serve(scenes::two_hundred_pods());
    stage.open(&server);
    let browser = &stage.browser;
    let card = "document.querySelector('#set-monitoring_thanos-store-gateway')";
    assert_eq!(
        browser.run(&format!(
            "return {card}.querySelectorAll('.picture .shard').length"
        )),
        json!(21),
        "a row for each shard, and the coverage"
    );
    let names = |expression: &str| {
        browser.run(&format!(
            "return [...{card}.querySelectorAll('{expression}')].map((cell) => cell.textContent)"
        ))
    };
    assert_eq!(
        names(".body > div:not(.shards) > table tbody th"),
        json!([
            "thanos-store-gateway-17",
            "thanos-store-gateway-18",
            "thanos-store-gateway-140"
        ])
    );
    stage.sound("200-pods");
    browser.run(&format!("{card}.querySelector('button').click()"));
    assert_eq!(
        names(".body > div:not(.shards) > table tbody th")
            .as_array()
            .unwrap()
            .len(),
        100
    );
    browser.run(&format!("{card}.querySelector('button').click()"));
    assert_eq!(
        names(".body > div:not(.shards) > table tbody th")
            .as_array()
            .unwrap()
            .len(),
        200
    );
    let find = |query: &str| {
        browser.run(&format!("const f = document.getElementById('filter'); f.value = '{query}'; f.dispatchEvent(new Event('input'))"))
    };
    find("gateway-14");
    browser.until(&format!(
        "{card}.querySelectorAll('.body > div:not(.shards) > table tbody th').length === 11"
    ));
    find("recent");
    browser.until("document.querySelectorAll('.card').length === 1");
    assert_eq!(stage.text("found"), "1 of 2 StatefulSets");
    find("nothing-like-it");
    browser.until("document.querySelectorAll('.card').length === 0");
}

pub(super) fn five_thousand_pods(stage: &Stage) {
    for (known, scene) in [
        (scenes::five_thousand_pods(), "5000-pods"),
        (scenes::one_set_of_five_thousand(), "5000-in-one"),
    ] {
        let server = stage.serve(known);
        let began = Instant::now();
        stage.open(&server);
        println!(
            "  {scene}: shown after {:.1} s",
            began.elapsed().as_secs_f32()
        );
        let nodes = stage
            .browser
            .run("return document.querySelectorAll('*').length")
            .as_u64()
            .unwrap();
        println!("  {scene}: {nodes} elements");
        assert!(nodes < 8_000, "{scene}: {nodes} elements");
        // How long a redraw of all open cards takes.
        let redraw = |scale: usize| {
            let took = stage.browser.run(&format!("const t = performance.now(); document.querySelectorAll('input[name=scale]')[{scale}].click(); document.body.getBoundingClientRect(); return performance.now() - t"));
            took.as_f64().unwrap()
        };
        let took = [1, 0, 1, 0]
            .map(redraw)
            .into_iter()
            .fold(f64::MAX, f64::min);
        println!("  {scene}: redrawn in {took} ms");
        assert!(took < 2_000.0, "{scene}: {took} ms");
        stage.sound(scene);
    }
}

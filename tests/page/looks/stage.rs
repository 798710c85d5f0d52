//! The browser and what a scene checks in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use thanos_timeshard::page::feed::PageFacts;
use tokio::runtime::Runtime;

use super::Scene;
use crate::browser::Browser;
use crate::server::Server;

/// Checks for every scene: a function's body that returns the problems.
const SOUND: &str = include_str!("../sound.js");

pub(super) struct Stage {
    pub(super) browser: Browser,
    pub(super) runtime: Runtime,
    pub(super) pictures: PathBuf,
    axe: Option<String>,
}

impl Stage {
    pub(super) fn serve(&self, known: PageFacts) -> Server {
        self.runtime.block_on(Server::start(known))
    }

    /// Opens the page and waits until it is live.
    pub(super) fn open(&self, server: &Server) {
        self.browser.open("about:blank");
        self.browser.complaints();
        self.browser.open(&format!("http://{}/", server.addr));
        self.browser
            .until("document.getElementById('live').dataset.state === 'on'");
    }

    pub(super) fn text(&self, id: &str) -> String {
        self.browser
            .run(&format!(
                "return document.getElementById('{id}').textContent"
            ))
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Checks every width and both colour schemes for overflow and other problems, and takes
    /// screenshots.
    pub(super) fn sound(&self, scene: &str) {
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

    pub(super) fn axe(&self, source: &str, scene: &str) {
        self.browser.run(&format!("{source}; window.found = null; axe.run().then((all) => {{ window.found = all.violations; }})"));
        self.browser.until("window.found");
        let found = self.browser.run("return window.found.map((one) => one.id + ': ' + one.nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary).slice(0, 3).join(' | '))");
        assert_eq!(found, json!([]), "{scene}: axe");
    }
}

impl Stage {
    /// Returns `None` without a browser.
    pub(super) fn set_up() -> Option<Self> {
        let browser = Browser::start()?;
        let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("page");
        std::fs::create_dir_all(&pictures).unwrap();
        let axe =
            std::env::var_os("TIMESHARD_AXE").map(|path| std::fs::read_to_string(path).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Some(Self {
            browser,
            runtime,
            pictures,
            axe,
        })
    }

    /// Plays a scene; returns whether it went well.
    pub(super) fn play(&self, name: &str, scene: Scene) -> bool {
        let began = Instant::now();
        let went = catch_unwind(AssertUnwindSafe(|| scene(self))).is_ok();
        println!(
            "{name}: {} in {:.1} s",
            if went { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f32()
        );
        went
    }
}

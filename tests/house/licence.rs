//! Every place that names the licence names the same one. `REUSE.toml` covers every file, so files
//! need no header.

use serde_json::Value;

use crate::at;

const LICENCE: &str = "Apache-2.0";

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap()
}

#[test]
fn the_licence_is_the_same_everywhere() {
    assert!(read("LICENSE").contains("Apache License"));
    assert_eq!(read("LICENSES/Apache-2.0.txt"), read("LICENSE"));
    assert_eq!(env!("CARGO_PKG_LICENSE"), LICENCE);
    let reuse = read("REUSE.toml");
    for part in ["path = \"**\"", "SPDX-License-Identifier = \"Apache-2.0\""] {
        assert!(reuse.contains(part), "REUSE.toml: {part}");
    }
    let chart: Value = serde_saphyr::from_str(&read("deploy/chart/Chart.yaml")).unwrap();
    assert_eq!(chart["annotations"]["artifacthub.io/license"], LICENCE);
    let label = "org.opencontainers.image.licenses=\"Apache-2.0\"";
    assert!(read("Dockerfile").contains(label), "Dockerfile: {label}");
}

//! Every scenario in `sim/scenarios/` does what its file says: one that once found a bug passes, one with a planted bug
//! still finds it.
#![allow(clippy::disallowed_methods, reason = "a test is a part of the real world: it reads files")]

use std::path::Path;
use tidelog_core::plant::Plants;
use tidelog_sim::kept::{Kept, attempt};
use tidelog_sim::panics;

#[test]
fn every_kept_scenario_does_what_its_file_says() {
    panics::install(|| {});
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.display();
        let kept =
            Kept::parse(&std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let plants = kept.plants().unwrap_or_else(|error| panic!("{name}: {error}"));
        panics::quiet(kept.finds.is_some());
        if plants != Plants::default() {
            let without = attempt(&kept.scenario, Plants::default()).violation;
            assert_eq!(without, None, "{name} passes where no bug is planted");
        }
        let found = attempt(&kept.scenario, plants).violation;
        panics::quiet(false);
        let fingerprint = found.as_ref().map(|violation| violation.fingerprint());
        assert_eq!(fingerprint, kept.finds, "{name}: {found:?}\ncargo sim run {name} --trace");
    }
}

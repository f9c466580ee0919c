//! Changes of an administrator, while the broker crashes at any moment.

use tidelog_sim::history::{Change, Fact};
use tidelog_sim::script::Script;

const ACKNOWLEDGED: &str = "metadata changes acknowledged";

/// Whether the history has an acknowledged change like this one.
fn has_made(t: &Script, is_like: impl Fn(&Change) -> bool) -> bool {
    t.facts().windows(2).any(|pair| {
        matches!(&pair[0].fact, Fact::Changing { change, validate_only: false, .. } if is_like(change))
            && matches!(&pair[1].fact, Fact::Changed { error: Some(0), .. })
    })
}

#[test]
fn every_acknowledged_change_outlives_a_power_cut_at_any_moment() {
    for seed in 0..8 {
        let mut t = Script::new(100 + seed);
        t.admin();
        for round in 1..6 {
            t.run_until("more changes are acknowledged", |t| t.count(ACKNOWLEDGED) >= 7 * round);
            t.cut_power(0);
        }
        t.run_until("still more are", |t| t.count(ACKNOWLEDGED) >= 45);
        t.ends_well();
    }
}

#[test]
fn an_administrator_makes_every_kind_of_change() {
    let mut t = Script::new(1);
    t.admin();
    t.run_until("many changes are acknowledged", |t| t.count(ACKNOWLEDGED) >= 200);
    assert!(has_made(&t, |change| matches!(change, Change::Create { .. })));
    assert!(has_made(&t, |change| matches!(change, Change::Delete | Change::DeleteById(_))));
    assert!(has_made(&t, |change| matches!(change, Change::Grow(_))));
    assert!(has_made(&t, |change| matches!(change, Change::Set(_))));
    assert!(has_made(&t, |change| matches!(change, Change::Replace(_))));
    assert!(t.count("records kept for an administrator") > 0 && t.count("looks at metadata") > 100);
    t.ends_well();
}

//! A scenario kept in a file: what runs, which bugs are planted, and what a checker must find.

use crate::checkers::Violation;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::{self, Outcome};
use serde::{Deserialize, Serialize};
use tidelog_core::plant::{Plant, Plants};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What the scenario is about, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Known bugs to switch on, by name. If they are left out, the scenario must pass.
    #[serde(default)]
    pub plants: Vec<String>,
    /// The [fingerprint](Violation::fingerprint) of what is found with the bugs planted. None if the scenario must
    /// pass.
    #[serde(default)]
    pub finds: Option<String>,
    pub scenario: Scenario,
}

impl Kept {
    /// Reads the text of a file: a kept scenario, or a scenario alone.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        if !value.is_object() {
            return Err("not a scenario: a scenario is a JSON object, {...}".into());
        }
        // Read from the text once more: then an error says the line.
        let parsed = if value.get("scenario").is_some() {
            serde_json::from_str(text)
        } else {
            serde_json::from_str(text).map(|scenario| Self {
                note: String::new(),
                plants: Vec::new(),
                finds: None,
                scenario,
            })
        };
        parsed.map_err(|error| format!("not a scenario: {error}"))
    }

    pub fn plants(&self) -> Result<Plants, String> {
        self.plants.iter().try_fold(Plants::default(), |plants, name| Ok(plants.with(plant_named(name)?)))
    }
}

/// The planted bug of this name; an error that lists all names.
pub fn plant_named(name: &str) -> Result<Plant, String> {
    let names = || Plant::ALL.iter().map(|plant| format!("{plant:?}")).collect::<Vec<_>>().join(", ");
    let plain = name.replace(['-', '_'], "");
    let found = Plant::ALL.iter().copied().find(|plant| format!("{plant:?}").eq_ignore_ascii_case(&plain));
    found.ok_or_else(|| format!("there is no planted bug {name:?}; there are {}", names()))
}

/// Bugs that show in what no seed does yet.
const OUT_OF_REACH: [Plant; 2] = [
    // Its candidates keep a leader away for a minute: so rarely that the harness of pure quorums has to find it.
    Plant::ObserverStandsForElection,
    // A change of voters is cut off, and what follows names no voters.
    Plant::TruncationKeepsVoters,
];

/// The planted bugs that seeds can find.
pub fn plants_of_seeds() -> Vec<Plant> {
    Plant::ALL.iter().copied().filter(|plant| !OUT_OF_REACH.contains(plant)).collect()
}

/// The scenarios of the seeds from `from` on in which a planted bug may show: of a bug that needs several nodes, those of
/// clusters.
pub fn scenarios_for(plant: Plant, from: u64) -> impl Iterator<Item = Scenario> {
    let drawn = (from..).map(Scenario::draw);
    drawn.filter(move |scenario| scenario.nodes > 1 || !plant.needs_many_nodes())
}

/// Runs a scenario to its end. One that cannot begin is a violation too: of "panic".
pub fn attempt(scenario: &Scenario, plants: Plants) -> Outcome {
    attempt_until(scenario, plants, None)
}

/// Runs a scenario, for at most this many events.
pub fn attempt_until(scenario: &Scenario, plants: Plants, until: Option<u64>) -> Outcome {
    crate::panics::catch(|| world::run(scenario, plants, Trace::default().until(until))).unwrap_or_else(|text| {
        Outcome { violation: Some(Violation { checker: "panic", place: None, text }), ..Outcome::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_scenario_is_told_by_line_and_field() {
        let error = |text: &str| Kept::parse(text).unwrap_err();
        assert_eq!(error("{\n"), "not JSON: EOF while parsing an object at line 2 column 0");
        let bare = error("{\n  \"nodes\": 1,\n  \"fault\": []\n}");
        assert!(bare.starts_with("not a scenario: unknown field `fault`, expected one of `seed`"), "{bare}");
        assert!(bare.ends_with("at line 3 column 9"), "{bare}");
        let inner = error("{\"scenario\": {\"network\": {\"cuts\": 0}}}");
        assert!(inner.contains("unknown field `cuts`"), "{inner}");
        let kept = error("{\"scenario\": {}, \"find\": null}");
        assert!(kept.contains("unknown field `find`"), "{kept}");
        assert!(error("[]").starts_with("not a scenario: "), "{}", error("[]"));
    }
}

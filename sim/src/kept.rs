//! A scenario kept in a file: what runs, the bug that is planted, and what must then be found.

use crate::checkers::Violation;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::{self, Outcome};
use serde::{Deserialize, Serialize};
use tidelog_core::plant::{Plant, Plants};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Known bugs to switch on, by name. Without them the scenario must pass.
    #[serde(default)]
    pub plants: Vec<String>,
    /// The [fingerprint](Violation::fingerprint) of what is then found; none where it must pass.
    #[serde(default)]
    pub finds: Option<String>,
    pub scenario: Scenario,
}

impl Kept {
    /// Reads a kept scenario, or a bare one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let parsed = if value.get("scenario").is_some() {
            serde_json::from_value(value)
        } else {
            serde_json::from_value(value).map(|scenario| Self {
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

/// Runs a scenario, whatever its options: one that cannot even begin is a violation too, told as a panic.
pub fn attempt(scenario: &Scenario, plants: Plants) -> Outcome {
    attempt_until(scenario, plants, None)
}

/// The same, with at most so many events.
pub fn attempt_until(scenario: &Scenario, plants: Plants, until: Option<u64>) -> Outcome {
    crate::panics::catch(|| world::run(scenario, plants, Trace::default().until(until))).unwrap_or_else(|text| {
        Outcome { violation: Some(Violation { checker: "panic", place: None, text }), ..Outcome::default() }
    })
}

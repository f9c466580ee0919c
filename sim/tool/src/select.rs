//! What a command runs: a seed or a scenario file, with options overridden and bugs planted.

use clap::Args;
use serde_json::Value;
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::kept::{Kept, plant_named};
use tidelog_sim::scenario::Scenario;
use tidelog_sim::world;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Switch a known bug on (several times for several).
    #[arg(long = "plant", value_name = "NAME", value_parser = plant_named)]
    pub plants: Vec<Plant>,
    /// Set an option of the scenario by its path, such as `network.cut.of=0`, `disk.directories=2`, `faults=[]` or
    /// `clients.0.role.Producer.batches=1`; `scenario --seed S` prints all of them.
    #[arg(long = "override", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("what").args(["seed", "file"]).required(true)))]
pub struct Selected {
    /// A number, or a git commit (7 to 40 hex digits): its first seven digits, read as a hexadecimal number, are the
    /// seed. A name of decimal digits alone is a number.
    #[arg(long, value_parser = seed)]
    pub seed: Option<u64>,
    /// A scenario's file instead of a seed.
    pub file: Option<String>,
    #[command(flatten)]
    pub options: Options,
}

/// A scenario that can run, and how it was selected.
#[derive(Clone, Debug)]
pub struct Runnable {
    pub scenario: Scenario,
    pub plants: Plants,
    /// What a file says must be found.
    pub finds: Option<String>,
    /// A file's note on what it is about.
    pub note: String,
    /// The arguments that select the same again.
    pub arguments: String,
}

impl Runnable {
    /// The command line that runs this again with this program.
    pub fn reproduce(&self) -> String {
        format!("{} run {}", program(), self.arguments)
    }

    /// The command line that runs this again in any checkout.
    pub fn reproduce_anywhere(&self) -> String {
        format!("cargo sim run {}", self.arguments)
    }
}

/// This program, as it was called.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tidelog-sim".to_string())
}

impl Options {
    pub fn plants(&self) -> Plants {
        self.plants.iter().fold(Plants::default(), |plants, plant| plants.with(*plant))
    }

    pub fn apply(&self, scenario: &Scenario) -> Result<Scenario, String> {
        let mut value = serde_json::to_value(scenario).expect("a scenario is data");
        for text in &self.overrides {
            set(&mut value, text)?;
        }
        serde_json::from_value(value).map_err(|error| format!("after --override it is no scenario any more: {error}"))
    }

    /// The options as arguments of a process.
    pub fn words(&self) -> Vec<String> {
        let plants = self.plants.iter().flat_map(|plant| ["--plant".into(), format!("{plant:?}")]);
        plants.chain(self.overrides.iter().flat_map(|text| ["--override".into(), text.clone()])).collect()
    }

    /// The options as they are typed in a shell, with a space in front.
    pub fn arguments(&self) -> String {
        let plants = self.plants.iter().map(|plant| format!(" --plant {plant:?}"));
        plants.chain(self.overrides.iter().map(|text| format!(" --override '{text}'"))).collect()
    }

    /// Like [`of_seed`](Self::of_seed), and checks that a world can be made of the scenario. An override that is wrong
    /// for one seed is wrong for all, so one check is enough for many seeds.
    pub fn can_begin(&self, seed: u64) -> Result<Runnable, String> {
        let runnable = self.of_seed(seed)?;
        world::can_begin(&runnable.scenario).map_err(|error| format!("seed {seed}: {error}"))?;
        Ok(runnable)
    }

    pub fn of_seed(&self, seed: u64) -> Result<Runnable, String> {
        Ok(Runnable {
            scenario: self.apply(&Scenario::draw(seed))?,
            plants: self.plants(),
            finds: None,
            note: String::new(),
            arguments: format!("--seed {seed}{}", self.arguments()),
        })
    }
}

impl Selected {
    /// What to run, or what is wrong with the file or the overrides.
    pub fn runnable(&self) -> Result<Runnable, String> {
        let Some(file) = &self.file else {
            return self.options.can_begin(self.seed.expect("a seed or a file"));
        };
        let text = std::fs::read_to_string(file).map_err(|error| match seed(file) {
            Ok(_) => format!("cannot read the scenario {file:?}: {error}; a seed is `--seed {file}`"),
            Err(_) => format!("cannot read the scenario {file:?}: {error}"),
        })?;
        let kept = Kept::parse(&text).map_err(|error| format!("{file}: {error}"))?;
        let of_file = kept.plants().map_err(|error| format!("{file}: {error}"))?;
        let plants = if self.options.plants.is_empty() { of_file } else { self.options.plants() };
        let scenario = self.options.apply(&kept.scenario)?;
        world::can_begin(&scenario).map_err(|error| format!("{file}: {error}"))?;
        let arguments = format!("{file}{}", self.options.arguments());
        Ok(Runnable { scenario, plants, finds: kept.finds, note: kept.note, arguments })
    }
}

/// A seed from the command line.
pub fn seed(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let is_commit = (7..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_commit {
        return Err("a seed is a number, or a git commit of 7 to 40 hex digits".into());
    }
    Ok(u64::from_str_radix(&text[..7], 16).expect("seven hex digits are a number"))
}

/// Sets `path=value` in a tree of JSON. The value is JSON, or else a string.
fn set(root: &mut Value, text: &str) -> Result<(), String> {
    let (path, new) = text.split_once('=').ok_or_else(|| format!("--override {text}: it is PATH=VALUE"))?;
    let spelled = path.strip_prefix("net.").map(|rest| format!("network.{rest}"));
    let path = spelled.as_deref().unwrap_or(path);
    let mut value = root;
    let mut walked = String::new();
    let mut may_be_new = false;
    for name in path.split('.') {
        let place = if walked.is_empty() { "the scenario".to_string() } else { walked.clone() };
        let fail = |there: &str| Err(format!("--override {text}: {place} has no {name:?}; {there}"));
        match value {
            Value::Object(fields) => {
                // Maps of Kafka's configuration take any name. Such a name has dots, so it is the whole rest of the
                // path.
                may_be_new = place.ends_with("properties") || place.ends_with("configs");
                if may_be_new {
                    let rest = path.strip_prefix(&place).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
                    fields.insert(rest.to_string(), Value::String(new.to_string()));
                    return Ok(());
                }
                if !fields.contains_key(name) {
                    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    return fail(&format!("it has {}", names.join(", ")));
                }
                value = fields.get_mut(name).expect("it is there");
            }
            Value::Array(list) => {
                let len = list.len();
                match name.parse::<usize>().ok().and_then(|place| list.get_mut(place)) {
                    Some(entry) => value = entry,
                    None if len == 0 => return fail("it is empty"),
                    None => return fail(&format!("it has the places 0 to {}", len - 1)),
                }
            }
            other => return fail(&format!("it is {other}")),
        }
        walked = if walked.is_empty() { name.to_string() } else { format!("{walked}.{name}") };
    }
    debug_assert!(!may_be_new, "a map's entry has been set already");
    // A ratio may be written as `0` or `1/20`.
    let is_ratio = value.as_object().is_some_and(|fields| fields.contains_key("among"));
    *value = match new.split_once('/') {
        _ if is_ratio && new == "0" => serde_json::json!({"of": 0, "among": 1}),
        Some((of, among)) if is_ratio => {
            let number = |text: &str| text.parse::<u32>().map_err(|error| format!("--override {text}: {error}"));
            serde_json::json!({"of": number(of)?, "among": number(among)?.max(1)})
        }
        _ => serde_json::from_str(new).unwrap_or_else(|_| Value::String(new.to_string())),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overridden(text: &str) -> Result<Scenario, String> {
        Options { plants: Vec::new(), overrides: vec![text.to_string()] }.apply(&Scenario::draw(1))
    }

    #[test]
    fn a_commit_is_a_seed_and_its_short_form_the_same_one() {
        assert_eq!(seed("51"), Ok(51));
        assert_eq!(seed("0bc3a01"), Ok(0x0bc_3a01));
        assert_eq!(seed("0bc3a01f00d0bc3a01f00d0bc3a01f00d0bc3a01"), Ok(0x0bc_3a01));
        assert!(seed("0bc3a0").is_err());
        assert!(seed("zzzzzzz").is_err());
    }

    #[test]
    fn an_override_reaches_any_option() {
        assert!(overridden("network.cut=0").unwrap().network.cut.is_never());
        assert!(overridden("net.clog=0").unwrap().network.clog.is_never());
        assert_eq!(overridden("disk.read_error=1/7").unwrap().disk.read_error.among, 7);
        assert_eq!(overridden("disk.directories=2").unwrap().disk.directories, 2);
        assert!(overridden("faults=[]").unwrap().faults.is_empty());
        let scenario = overridden("properties.log.index.interval.bytes=1").unwrap();
        assert_eq!(scenario.properties["log.index.interval.bytes"], "1");
    }

    #[test]
    fn a_wrong_path_names_what_there_is_at_that_level() {
        let error = overridden("network.cuts=0").unwrap_err();
        assert!(error.contains("network has no \"cuts\"") && error.contains("clog, clog_ns_max, cut"), "{error}");
        let error = overridden("clients.99=0").unwrap_err();
        assert!(error.contains("clients has no \"99\"; it has the places 0 to"), "{error}");
        let error = overridden("disk.directories=many").unwrap_err();
        assert!(error.contains("no scenario any more"), "{error}");
        assert!(overridden("seed.x=1").unwrap_err().contains("seed has no \"x\"; it is 1"));
    }

    #[test]
    fn a_scenario_that_cannot_begin_is_an_error_and_no_panic() {
        let error =
            |text: &str| Options { plants: Vec::new(), overrides: vec![text.to_string()] }.can_begin(1).unwrap_err();
        assert!(error("nodes=0").contains("nodes is 0"), "{}", error("nodes=0"));
        assert!(
            error("clients.0.bootstrap=[9]").contains("client 0 knows the nodes [9]"),
            "{}",
            error("clients.0.bootstrap=[9]")
        );
        assert!(error("disk.directories=0").contains("disk.directories is 0"), "{}", error("disk.directories=0"));
        let text = error("properties.log.index.interval.bytes=many");
        assert!(text.contains("log.index.interval.bytes") && text.contains("many"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_scenario_is_named_with_what_is_wrong_in_it() {
        let file = |file: &str| Selected { seed: None, file: Some(file.into()), options: Options::default() };
        let error = file("51").runnable().unwrap_err();
        assert!(
            error.contains("cannot read the scenario \"51\"") && error.ends_with("a seed is `--seed 51`"),
            "{error}"
        );
    }
}

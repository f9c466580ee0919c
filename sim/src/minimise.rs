//! Shrinks a failing scenario to one that fails in the same way in as few events as can be found, since a person has to
//! read them all.
//!
//! The shrinker changes the scenario as JSON and knows few of its fields by name, so that new faults, clients and
//! options are shrunk without a change here. A changed scenario is a candidate. A candidate is taken only if the same
//! checker fails at the same partition (the
//! [fingerprint]) in no more events. Where bugs are planted, the same checker is enough
//! ([kind]), at any partition, if the candidate passes without the bugs: then a planted bug is what it
//! found. A candidate that fails for another reason, such as options that make no sense together, is not taken.
//!
//! [fingerprint]: crate::checkers::Violation::fingerprint
//! [kind]: crate::checkers::Violation::kind

use crate::kept::{Kept, attempt, attempt_until};
use crate::scenario::Scenario;
use crate::world::Outcome;
use serde_json::{Value, json};
use tidelog_core::plant::{Plant, Plants};

/// A shrunk scenario, and how it was found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub kept: Kept,
    pub events_before: u64,
    pub events_after: u64,
    /// How many candidates were run.
    pub runs: u32,
}

/// The runs that a scenario is shrunk in, where nobody says how many.
pub const RUNS_MAX_DEFAULT: u32 = 20_000;

/// Shrinks a scenario with at most `runs_max` runs of it and its candidates. None if it does not fail at all. `tell`
/// hears of each step that was taken: what it was, and the events that are left.
pub fn minimise(scenario: &Scenario, plants: Plants, runs_max: u32, tell: &mut dyn FnMut(&str, u64)) -> Option<Shrunk> {
    let outcome = attempt(scenario, plants);
    let violation = outcome.violation?;
    let mut shrinker = Shrinker {
        best: serde_json::to_value(scenario).expect("a scenario is data"),
        events: outcome.events,
        fingerprint: violation.fingerprint(),
        kind: violation.kind(),
        plants,
        runs: 1,
        runs_max,
        spent: 0,
        spent_max: FULL_RUNS_MAX * outcome.events,
        tell,
    };
    shrinker.shrink();
    let (events_after, runs) = (shrinker.events, shrinker.runs);
    let names = Plant::ALL.iter().copied().filter(|plant| plants.has(*plant)).map(|plant| format!("{plant:?}"));
    let kept = Kept {
        note: format!("seed {}, shrunk from {} events to {events_after}", scenario.seed, outcome.events),
        plants: names.collect(),
        finds: Some(shrinker.fingerprint),
        scenario: serde_json::from_value(shrinker.best).expect("the best candidate has run"),
    };
    Some(Shrunk { kept, events_before: outcome.events, events_after, runs })
}

struct Shrinker<'a> {
    best: Value,
    events: u64,
    fingerprint: String,
    /// What kind of failure it is: the same for every candidate that is taken.
    kind: String,
    plants: Plants,
    /// How many runs there were, and may be before the way down ends.
    runs: u32,
    runs_max: u32,
    /// The events of all candidates that were run, and how many they may come to before the way down ends.
    spent: u64,
    spent_max: u64,
    tell: &'a mut dyn FnMut(&str, u64),
}

/// The path to a value in JSON: names of fields, and places in lists as numbers.
type Path = Vec<String>;

/// However many runs are allowed, shrinking takes no longer than about this many runs of the whole scenario, or twice
/// that if it shrinks in two ways. Candidates have fewer events than the whole, so most scenarios use up their runs
/// first.
const FULL_RUNS_MAX: u64 = 2_000;

/// How many other seeds are tried where another seed may fail sooner.
const LUCK: u64 = 8;

/// Building a world takes about as long as this many events.
const EVENTS_TO_START: u64 = 50;

/// A scenario with this many times fewer events is shrunk well enough: no second way down is tried.
const WELL_SHRUNK: u64 = 10;

/// A candidate that has less in it is taken if it has at most this many percent of the best one's events.
const SIMPLER: u64 = 105;

impl Shrinker<'_> {
    fn shrink(&mut self) {
        let start = (self.best.clone(), self.events, self.fingerprint.clone());
        let (events_wanted, runs_max) = (start.1 / WELL_SHRUNK, self.runs_max);
        // Half of the runs are kept for a second way down; the first has them all once it has gone well.
        self.runs_max = runs_max / 2;
        self.descend(false);
        self.runs_max = runs_max;
        if self.events <= events_wanted {
            return self.shrink_on();
        }
        // Candidates are only ever taken if they are smaller, and such a way may end early: another first step is
        // another way.
        let reached = (self.best.clone(), self.events, self.fingerprint.clone());
        (self.best, self.events, self.fingerprint) = start;
        self.spent = 0;
        self.descend(true);
        if self.events >= reached.1 {
            (self.best, self.events, self.fingerprint) = reached;
        }
    }

    /// Shrinks until nothing more helps or the runs are used up. It begins with guesses ([`Self::bold`]), whose logs
    /// are busy ([`BUSY_LOG`]) or as they were.
    fn descend(&mut self, is_busy: bool) {
        self.bold(is_busy);
        self.shrink_on();
    }

    /// Shrinks the best scenario so far until nothing more helps or the runs are used up.
    fn shrink_on(&mut self) {
        // First come the steps that take whole parts away, until none helps any more: that makes every later run
        // cheaper.
        self.again_and_again(&|shrinker| {
            shrinker.numbers("fault_ns");
            shrinker.one_node();
            for list in ["faults", "clients"] {
                shrinker.list(&vec![list.to_string()]);
            }
            shrinker.options();
            shrinker.topics();
            shrinker.one_partition();
            shrinker.fewer_with_luck();
            shrinker.sooner();
            shrinker.other_luck();
        });
        self.again_and_again(&|shrinker| {
            for list in ["faults", "clients"] {
                shrinker.list(&vec![list.to_string()]);
                shrinker.numbers(list);
            }
            shrinker.nested_lists();
            shrinker.options();
            shrinker.one_partition();
            shrinker.sooner();
            shrinker.fewer_with_luck();
            shrinker.numbers("");
            shrinker.other_luck();
        });
    }

    /// Tries guesses at what the failure needs: one producer and at most one other client, on one node with one
    /// partition, with none, one or all of the faults, where rare faults happen often. Most bugs need no more. Single
    /// steps find such a scenario slowly, because each step needs other delays, and with them another lucky seed.
    fn bold(&mut self, is_busy: bool) {
        let guesses = self.guesses(is_busy);
        let (runs_end, spent_end) = self.share(3);
        for seed in 0..4 * LUCK {
            for (guess, fingerprint) in &guesses {
                if self.runs >= runs_end || self.spent >= spent_end {
                    return;
                }
                let mut candidate = guess.clone();
                candidate["seed"] = seed.into();
                // A guess must save a fifth of the events: few clients that need long to fail are no better than more
                // clients that fail soon.
                self.take_as(candidate, fingerprint.clone(), 80, "boldly");
            }
        }
    }

    /// The guesses, the simplest first, each with the fingerprint that its failure would have.
    fn guesses(&self, is_busy: bool) -> Vec<(Value, String)> {
        let mut guesses = Vec::new();
        for node in 0..self.best["nodes"].as_u64().unwrap_or(1) {
            let alone = with_nodes(&self.best, 1, |of| (of == node).then_some(0));
            let (alone, fingerprint) = with_one_partition(alone, &self.fingerprint);
            let list = |name: &str| alone[name].as_array().cloned().unwrap_or_default();
            for (clients, faults) in each_with_each(&few_of(&list("clients")), &few_faults_of(&list("faults"))) {
                for among in [0, 20, 4] {
                    let mut guess = alone.clone();
                    guess["clients"] = clients.clone().into();
                    guess["faults"] = faults.clone().into();
                    for path in paths(&guess, &|value| among > 0 && is_ratio(value)) {
                        *at_mut(&mut guess, &path).expect("it was just there") = json!({"of": 1, "among": among});
                    }
                    for topic in guess["topics"].as_array_mut().into_iter().flatten().filter(|_| is_busy) {
                        BUSY_LOG.iter().for_each(|(name, least)| topic["configs"][*name] = (*least).into());
                    }
                    guesses.push((guess, fingerprint.clone()));
                }
            }
        }
        guesses
    }

    fn again_and_again(&mut self, pass: &dyn Fn(&mut Self)) {
        loop {
            let before = (self.events, self.best.clone());
            pass(self);
            if self.is_spent() || before == (self.events, self.best.clone()) {
                return;
            }
        }
    }

    /// The values of `runs` and `spent` at which one part in `parts` of what is left of each will be used up.
    fn share(&self, parts: u32) -> (u32, u64) {
        let runs = self.runs_max.saturating_sub(self.runs) / parts;
        (self.runs + runs, self.spent + self.spent_max.saturating_sub(self.spent) / u64::from(parts))
    }

    /// Runs a candidate, and takes it if it fails in the same way in at most `percent` of the events.
    fn take(&mut self, candidate: Value, percent: u64, what: &str) -> bool {
        self.take_as(candidate, self.fingerprint.clone(), percent, what)
    }

    fn take_as(&mut self, candidate: Value, fingerprint: String, percent: u64, what: &str) -> bool {
        if self.is_spent() || candidate == self.best {
            return false;
        }
        let Ok(scenario) = serde_json::from_value::<Scenario>(candidate.clone()) else { return false };
        let most = self.events * percent / 100;
        let Some(outcome) = self.attempt(&scenario, self.plants, most + 1) else { return false };
        let Some(found) = outcome.violation else { return false };
        let is_planted = self.plants != Plants::default();
        let is_the_same = found.kind() == self.kind && (is_planted || found.fingerprint() == fingerprint);
        if !is_the_same || outcome.events > most {
            return false;
        }
        if is_planted {
            // Without the bug a run goes on to its end.
            let most = 5 * self.events + 5_000;
            let Some(outcome) = self.attempt(&scenario, Plants::default(), most) else { return false };
            if outcome.violation.is_some() || outcome.events >= most {
                return false;
            }
        }
        (self.best, self.events, self.fingerprint) = (candidate, outcome.events, found.fingerprint());
        (self.tell)(what, self.events);
        true
    }

    /// One run; none if all are used up.
    fn attempt(&mut self, scenario: &Scenario, plants: Plants, events_max: u64) -> Option<Outcome> {
        if self.runs >= self.runs_max {
            return None;
        }
        let outcome = attempt_until(scenario, plants, Some(events_max));
        self.runs += 1;
        self.spent += outcome.events + EVENTS_TO_START;
        Some(outcome)
    }

    fn is_spent(&self) -> bool {
        self.runs >= self.runs_max || self.spent >= self.spent_max
    }

    /// Like [`Self::take_as`], and tries other seeds too: the candidate may be able to fail in this way, but not with
    /// the delays that its own seed draws.
    fn take_with_luck(&mut self, candidate: &Value, fingerprint: &str, percent: u64, what: &str) -> bool {
        if self.take_as(candidate.clone(), fingerprint.to_string(), percent, what) {
            return true;
        }
        let (runs_end, spent_end) = self.share(20);
        (0..).take_while(|seed| *seed < 500).any(|seed| {
            let mut candidate = candidate.clone();
            candidate["seed"] = seed.into();
            self.runs < runs_end
                && self.spent < spent_end
                && self.take_as(candidate, fingerprint.to_string(), percent, what)
        })
    }

    /// Delta debugging: takes out half of a list, a quarter, and so on to single entries.
    fn list(&mut self, path: &Path) {
        let len = |shrinker: &Self| at(&shrinker.best, path).and_then(Value::as_array).map_or(0, Vec::len);
        let mut chunk = len(self);
        while chunk > 0 {
            let mut from = 0;
            while from < len(self) {
                let mut candidate = self.best.clone();
                let Some(list) = at_mut(&mut candidate, path).and_then(Value::as_array_mut) else { return };
                list.drain(from..(from + chunk).min(list.len()));
                if !self.take(candidate, SIMPLER, &format!("without some of {}", path.join("."))) {
                    from += chunk;
                }
            }
            chunk /= 2;
        }
    }

    /// Takes a topic away. The topics behind it move up by one place, in the fingerprint too.
    fn topics(&mut self) {
        for topic in (0..self.best["topics"].as_array().map_or(0, Vec::len)).rev() {
            let mut candidate = self.best.clone();
            candidate["topics"].as_array_mut().expect("a list").remove(topic);
            let mut fingerprint = self.fingerprint.clone();
            for behind in topic + 1..8 {
                fingerprint = fingerprint.replace(&format!(" t{behind}-"), &format!(" t{}-", behind - 1));
            }
            self.take_as(candidate, fingerprint, SIMPLER, "without a topic");
        }
    }

    /// Gives every topic one partition. The partition that fails becomes the first, in the fingerprint too.
    fn one_partition(&mut self) {
        let (candidate, fingerprint) = with_one_partition(self.best.clone(), &self.fingerprint);
        self.take_with_luck(&candidate, &fingerprint, SIMPLER, "with one partition");
    }

    /// Makes what is rare frequent, so that fewer events go by before it happens.
    fn sooner(&mut self) {
        for topic in 0..self.best["topics"].as_array().map_or(0, Vec::len) {
            for (name, least) in BUSY_LOG {
                let mut candidate = self.best.clone();
                candidate["topics"][topic]["configs"][name] = least.into();
                self.take(candidate, 90, "with a busier log");
            }
        }
        for path in paths(&self.best, &is_ratio) {
            for among in [2, 5, 20, 100] {
                let mut candidate = self.best.clone();
                let Some(ratio) = at_mut(&mut candidate, &path) else { break };
                if ratio["among"].as_u64().is_none_or(|now| now <= among) {
                    break;
                }
                *ratio = json!({"of": 1, "among": among});
                if self.take(candidate, 90, "sooner") {
                    break;
                }
            }
        }
    }

    /// Halves what clients do, and tries other seeds: first everything at once in half the time, then one number after
    /// the other.
    fn fewer_with_luck(&mut self) {
        loop {
            let mut candidate = self.best.clone();
            for path in paths(&self.best, &Value::is_number) {
                let name = path.last().map_or("", String::as_str);
                if MUCH.contains(&name) || name == "at_ns" {
                    let number = at_mut(&mut candidate, &path).expect("it was just there");
                    *number = (number.as_u64().unwrap_or(0) / 2).max(1).into();
                }
            }
            if !self.take_with_luck(&candidate, &self.fingerprint.clone(), 90, "in half the time") {
                break;
            }
        }
        for path in paths(&self.best, &Value::is_number) {
            let name = path.last().map_or("", String::as_str);
            while MUCH.contains(&name) {
                let mut candidate = self.best.clone();
                let Some(number) = at_mut(&mut candidate, &path) else { break };
                *number = (number.as_u64().unwrap_or(0) / 2).into();
                if *number == json!(0) || !self.take_with_luck(&candidate, &self.fingerprint.clone(), 90, "fewer") {
                    break;
                }
            }
        }
    }

    /// Leaves one node, which becomes node 0; or else one node less.
    fn one_node(&mut self) {
        let nodes = self.best["nodes"].as_u64().unwrap_or(1);
        if nodes < 2 {
            return;
        }
        for node in 0..nodes {
            let alone = with_nodes(&self.best, 1, |of| (of == node).then_some(0));
            if self.take_with_luck(&alone, &self.fingerprint.clone(), SIMPLER, "with one node") {
                return;
            }
        }
        let fewer = with_nodes(&self.best, nodes - 1, |of| (of < nodes - 1).then_some(of));
        self.take(fewer, SIMPLER, "with a node less");
    }

    /// Shortens the lists within faults and clients.
    fn nested_lists(&mut self) {
        for path in paths(&self.best, &|value| value.is_array()) {
            if path.len() > 1 {
                self.list(&path);
            }
        }
    }

    /// Brings options to those of a quiet world: whole groups, switches, ratios, entries of the configuration.
    fn options(&mut self) {
        let quiet = serde_json::to_value(Scenario::default()).expect("a scenario is data");
        let groups = quiet.as_object().expect("a scenario has fields");
        for (name, default) in groups.iter().filter(|(name, _)| !KEPT.contains(&name.as_str())) {
            let mut candidate = self.best.clone();
            candidate[name] = default.clone();
            self.take(candidate, SIMPLER, &format!("{name} as in a quiet world"));
        }
        for path in paths(&self.best, &|value| value == &Value::Bool(true) || is_ratio(value)) {
            let off =
                if at(&self.best, &path).is_some_and(is_ratio) { json!({"of": 0, "among": 1}) } else { json!(false) };
            self.set(&path, off, SIMPLER);
        }
        for path in paths(&self.best, &|value| value.is_string()) {
            let mut candidate = self.best.clone();
            let (name, parent) = path.split_last().expect("a string has a name");
            let is_map = parent.last().is_some_and(|parent| parent == "properties" || parent == "configs");
            if let Some(fields) = at_mut(&mut candidate, &parent.to_vec()).and_then(Value::as_object_mut)
                && is_map
            {
                fields.remove(name);
                self.take(candidate, SIMPLER, &format!("without {name}"));
            }
        }
        for path in paths(&self.best, &|value| value.is_string()) {
            if path.last().is_some_and(|field| field == "name") {
                continue;
            }
            // The plainest codec, and the like: a name that is no choice of its field is no scenario, and not taken.
            self.set(&path, json!("None"), SIMPLER);
        }
    }

    /// Makes the numbers below the field `root` as small as makes sense; all numbers, if `root` is empty.
    fn numbers(&mut self, root: &str) {
        for path in paths(&self.best, &|value| value.is_number()) {
            let name = path.last().map_or("", String::as_str);
            let is_wanted = root.is_empty() || path[0] == root;
            if !is_wanted || ["seed", "of", "among", "nodes"].contains(&name) {
                continue;
            }
            // Pauses are made longer: then less happens.
            if name.starts_with("gap") || name.starts_with("max_wait") {
                let longer = if name.ends_with("_ns_max") { json!(2_000_000_000_u64) } else { json!(500) };
                self.set(&path, longer, 97);
                continue;
            }
            let least = i64::from(!["_ns", "_ns_max", "_ms", "_ms_max", "node"].iter().any(|end| name.ends_with(end)));
            while let Some(now) = at(&self.best, &path).and_then(Value::as_i64) {
                let steps = [least, now / 16, now / 4, now / 2, now - now / 4, now - 1];
                let mut steps: Vec<i64> = steps.into_iter().filter(|step| (least..now).contains(step)).collect();
                steps.dedup();
                if now < 0 {
                    steps = vec![-now];
                }
                if least == 0 {
                    // A time is not shrunk by less than an eighth: its last digits do not matter.
                    steps.retain(|step| now - step > now / 8);
                }
                if !steps.into_iter().any(|step| self.set(&path, step.into(), 100)) {
                    break;
                }
            }
        }
    }

    fn set(&mut self, path: &Path, value: Value, percent: u64) -> bool {
        let mut candidate = self.best.clone();
        let Some(place) = at_mut(&mut candidate, path) else { return false };
        *place = value;
        let what = path.join(".");
        self.take(candidate, percent, &what)
    }

    /// Tries other seeds. The seed no longer draws the scenario, only delays and which faults hit: another one may run
    /// into the same bug much sooner.
    fn other_luck(&mut self) {
        for seed in 0..2 * LUCK {
            let mut candidate = self.best.clone();
            candidate["seed"] = seed.into();
            self.take(candidate, 85, "with other luck");
        }
    }
}

/// The numbers that say how much a scenario does.
const MUCH: [&str; 4] = ["batches", "records", "operations", "fault_ns"];

/// A topic's configuration with which a log does the most for its records: an index entry for each batch, and a new
/// segment as soon as may be.
const BUSY_LOG: [(&str, &str); 2] = [("index.interval.bytes", "0"), ("internal.segment.bytes", "1024")];

/// Fields that have shrinking steps of their own.
const KEPT: [&str; 5] = ["seed", "nodes", "topics", "clients", "faults"];

/// A scenario with this many nodes. `renamed` says which node each old node becomes. Faults of a node that becomes
/// none are taken out, and no client knows it.
fn with_nodes(scenario: &Value, nodes: u64, renamed: impl Fn(u64) -> Option<u64>) -> Value {
    let mut candidate = scenario.clone();
    candidate["nodes"] = nodes.into();
    // Nodes without an entry have both roles.
    let roles = scenario["cluster"]["roles"].as_array().cloned().unwrap_or_default().into_iter();
    let roles: Vec<Value> = roles.zip(0..).filter(|(_, node)| renamed(*node).is_some()).map(|(role, _)| role).collect();
    let is_apart = |role: &str| !roles.is_empty() && roles.len() as u64 == nodes && roles.iter().all(|of| of == role);
    let voters = &scenario["cluster"]["voters"];
    let stays = |node: &mut Value| match node.as_u64().and_then(&renamed) {
        Some(other) => {
            *node = other.into();
            true
        }
        None => false,
    };
    let cut_off = scenario["cluster"]["cut_off"].as_array().cloned().unwrap_or_default().into_iter();
    let cut_off: Vec<Value> =
        cut_off.filter_map(|mut cut_off| stays(&mut cut_off["node"]).then_some(cut_off)).collect();
    let joining = scenario["cluster"]["joining"].as_array().cloned().unwrap_or_default().into_iter();
    let joining: Vec<Value> = joining.filter_map(|mut node| stays(&mut node).then_some(node)).collect();
    let joins_by_itself = scenario["cluster"]["joins_by_itself"].as_bool().unwrap_or(false);
    candidate["cluster"] = match nodes {
        1 => json!({}),
        _ if is_apart("Broker") || is_apart("Controller") => {
            json!({"voters": voters, "joins_by_itself": joins_by_itself})
        }
        _ => json!({
            "roles": roles, "voters": voters, "cut_off": cut_off,
            "joining": joining, "joins_by_itself": joins_by_itself,
        }),
    };
    for client in candidate["clients"].as_array_mut().into_iter().flatten() {
        client["bootstrap"].as_array_mut().into_iter().for_each(|known| known.retain_mut(stays));
    }
    let faults = candidate["faults"].as_array_mut();
    faults.into_iter().for_each(|faults| faults.retain_mut(|fault| stays(&mut fault["node"])));
    for fault in candidate["faults"].as_array_mut().into_iter().flatten() {
        for list in ["with", "from"] {
            // Other faults than partitions have no such lists.
            let Some(ends) =
                fault["fault"].get_mut("Partition").and_then(|partition| partition.get_mut(list)?.as_array_mut())
            else {
                continue;
            };
            ends.retain_mut(|end| end.get_mut("Node").is_none_or(stays));
        }
    }
    candidate
}

fn with_one_partition(mut candidate: Value, fingerprint: &str) -> (Value, String) {
    for topic in candidate["topics"].as_array_mut().into_iter().flatten() {
        topic["partitions"] = json!(1);
    }
    if let Some(default) = candidate["properties"].get_mut("num.partitions") {
        *default = json!("1");
    }
    let fingerprint = match fingerprint.rsplit_once('-') {
        Some((topic, _)) if topic.contains(" t") => format!("{topic}-0"),
        _ => fingerprint.to_string(),
    };
    (candidate, fingerprint)
}

/// Each producer alone, then with each of the others.
fn few_of(clients: &[Value]) -> Vec<Vec<Value>> {
    let (producers, others): (Vec<&Value>, Vec<&Value>) =
        clients.iter().partition(|client| client["role"].get("Producer").is_some());
    let alone = producers.iter().map(|producer| vec![(*producer).clone()]);
    let pairs =
        producers.iter().flat_map(|producer| others.iter().map(|other| vec![(*producer).clone(), (*other).clone()]));
    alone.chain(pairs).collect()
}

fn each_with_each<'a, A, B>(left: &'a [A], right: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    left.iter().flat_map(|a| right.iter().map(move |b| (a, b)))
}

/// None of the faults, the first of each kind alone, and all.
fn few_faults_of(faults: &[Value]) -> Vec<Vec<Value>> {
    let kind = |fault: &Value| match &fault["fault"] {
        Value::Object(fields) => fields.keys().next().cloned(),
        name => name.as_str().map(str::to_string),
    };
    let mut few: Vec<Vec<Value>> = vec![Vec::new()];
    for fault in faults {
        if !few.iter().flatten().any(|other| kind(other) == kind(fault)) {
            few.push(vec![fault.clone()]);
        }
    }
    if faults.len() > 1 {
        few.push(faults.to_vec());
    }
    few
}

fn is_ratio(value: &Value) -> bool {
    value.get("among").is_some() && value["of"] != json!(0)
}

/// The ways to all values that are wanted, from the outside in.
fn paths(root: &Value, wanted: &dyn Fn(&Value) -> bool) -> Vec<Path> {
    let mut found = Vec::new();
    let mut walk = vec![(Path::new(), root)];
    while let Some((path, value)) = walk.pop() {
        if wanted(value) && !path.is_empty() {
            found.push(path.clone());
        }
        let below = |name: String| path.iter().cloned().chain([name]).collect::<Path>();
        match value {
            Value::Object(fields) => walk.extend(fields.iter().map(|(name, value)| (below(name.clone()), value))),
            Value::Array(list) => walk.extend(list.iter().enumerate().map(|(n, value)| (below(n.to_string()), value))),
            _ => {}
        }
    }
    found
}

fn at<'a>(root: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, name| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })
}

fn at_mut<'a>(root: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, name| match value {
        Value::Array(list) => list.get_mut(name.parse::<usize>().ok()?),
        other => other.get_mut(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_passes_is_not_shrunk() {
        assert!(minimise(&Scenario::draw(0), Plants::default(), 10, &mut |_, _| {}).is_none());
    }

    #[test]
    fn a_topic_of_one_partition_has_its_name_in_the_fingerprint() {
        let (scenario, fingerprint) = with_one_partition(json!({"topics": [{"partitions": 3}]}), "offsets t1-2");
        assert_eq!((scenario["topics"][0]["partitions"].as_i64(), fingerprint.as_str()), (Some(1), "offsets t1-0"));
        let (_, panic) = with_one_partition(json!({"topics": []}), "panic left-right (at core/x.rs:#)");
        assert_eq!(panic, "panic left-right (at core/x.rs:#)");
    }

    #[test]
    fn fewer_nodes_keep_their_roles_while_there_are_brokers_and_controllers() {
        let roles = ["Controller", "Both", "Broker"];
        let cluster = |nodes: u64, roles: &[&str]| {
            json!({"nodes": nodes, "clients": [], "faults": [{"node": 1, "fault": "CutAll"}],
                "cluster": {"roles": roles, "voters": "Recorded", "cut_off": [{"node": 0, "ways": "In"}],
                    "joining": [], "joins_by_itself": false}})
        };
        let two = with_nodes(&cluster(3, &roles), 2, |of| (of < 2).then_some(of));
        assert_eq!(two, cluster(2, &roles[..2]));
        let two = with_nodes(&cluster(3, &["Broker", "Broker", "Both"]), 2, |of| (of < 2).then_some(of));
        assert_eq!(two["cluster"], json!({"voters": "Recorded", "joins_by_itself": false}));
        let one = with_nodes(&cluster(3, &roles), 1, |of| (of == 1).then_some(0));
        assert_eq!((&one["cluster"], &one["faults"][0]["node"]), (&json!({}), &json!(0)));
    }

    #[test]
    fn a_planted_bug_shrinks_at_least_tenfold() {
        const RUNS: u32 = 2_000;
        let plants = Plants::default().with(Plant::TornTailAccepted);
        let fails = |seed: &u64| attempt(&Scenario::draw(*seed), plants);
        // Luck has a part in it: one of three seeds.
        let large = (0..200).filter(|seed| fails(seed).violation.is_some() && fails(seed).events > 2_000).take(3);
        let shrunk: Vec<_> =
            large.map(|seed| minimise(&Scenario::draw(seed), plants, RUNS, &mut |_, _| {}).unwrap()).collect();
        let shrinks: Vec<(u64, u64)> =
            shrunk.iter().map(|shrunk| (shrunk.events_before, shrunk.events_after)).collect();
        let shrunk = shrunk.into_iter().find(|shrunk| shrunk.events_after * 10 <= shrunk.events_before);
        let shrunk = shrunk.unwrap_or_else(|| panic!("{shrinks:?}"));
        let again = attempt(&shrunk.kept.scenario, plants);
        assert_eq!(again.violation.map(|violation| violation.fingerprint()), shrunk.kept.finds);
        assert_eq!(again.events, shrunk.events_after);
    }

    #[test]
    fn what_is_left_fails_in_the_same_checker_within_the_runs_that_are_allowed() {
        crate::panics::quiet(true);
        for plant in [Plant::SequenceGapAccepted, Plant::NewSegmentNameNotSynced, Plant::FetchAboveHighWatermark] {
            let plants = Plants::default().with(plant);
            let fails = |seed: &u64| attempt(&Scenario::draw(*seed), plants).violation.is_some();
            for seed in (0..200).filter(fails).take(3) {
                let kind = |scenario: &Scenario| attempt(scenario, plants).violation.map(|found| found.kind());
                for runs_max in [1, 2, 60] {
                    let shrunk = minimise(&Scenario::draw(seed), plants, runs_max, &mut |_, _| {}).unwrap();
                    assert!(shrunk.runs <= runs_max, "{} runs of {runs_max}", shrunk.runs);
                    assert_eq!(kind(&shrunk.kept.scenario), kind(&Scenario::draw(seed)), "{plant:?}, seed {seed}");
                }
            }
        }
        crate::panics::quiet(false);
    }

    #[test]
    fn every_value_of_a_scenario_has_a_path() {
        let scenario = serde_json::to_value(Scenario::draw(3)).unwrap();
        let numbers = paths(&scenario, &|value| value.is_number());
        assert!(numbers.contains(&vec!["disk".to_string(), "directories".to_string()]), "{numbers:?}");
        assert!(numbers.iter().all(|path| at(&scenario, path).is_some_and(Value::is_number)));
    }
}

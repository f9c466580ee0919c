//! The metadata is what the administrators made it: an acknowledged change is there after any crash, a deleted topic
//! does not come back, a topic that was seen stays until it is deleted, and no id is given out twice. The epoch and the
//! high watermark of the metadata log never go back.
//!
//! Each resource has one client that changes it, one change at a time. A change without an answer may have been made or
//! not, and may still be made while the process runs to which it was sent. So the checker keeps every possible state of
//! a resource, and each answer rules some of them out.
//!
//! In a cluster of several nodes, a broker may know less than the controller, which decides: what a broker shows is a
//! state of now or of some time before, and rules nothing out. Only the last administrator, who comes when all brokers
//! have had the time to catch up, must be shown the present.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Change, Entry, Fact, SUBSCRIPTION, Sight, TopicId};
use crate::world::LAST_ADMIN;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Metadata {
    /// Whether the process that gets a request also carries it out, because there is one node.
    is_alone: bool,
    resources: BTreeMap<String, Resource>,
    /// Every topic id that was told, with the name of its topic.
    ids: BTreeMap<TopicId, String>,
    producer_ids: BTreeSet<i64>,
    cluster: Option<String>,
    /// The greatest high watermark of the metadata log that was told, by epoch.
    quorum: BTreeMap<i32, i64>,
}

#[derive(Debug)]
struct Resource {
    /// The states that it may be in; never empty.
    possible: BTreeSet<Possible>,
    /// The states that it may have been in before. Kept only where there are brokers that may know no better.
    past: BTreeSet<State>,
    changes: Vec<Change>,
    under_way: Option<(Change, bool)>,
}

/// A state that a resource may be in, and which changes may still be made to it then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    state: State,
    /// Places in [`Resource::changes`] of changes without an answer.
    pending: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Absent,
    Topic {
        /// None if no answer has told it yet.
        id: Option<TopicId>,
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    /// What has only configs and can always be asked about: all brokers, or a subscription to clients' metrics.
    Always(BTreeMap<String, String>),
}

const NAME: &str = "metadata";

/// Error codes.
const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const UNKNOWN_TOPIC_ID: i16 = 100;

impl State {
    /// The state after a change, or the error with which the broker must refuse it.
    fn after(&self, change: &Change) -> Result<State, i16> {
        let mut next = self.clone();
        match (&mut next, change) {
            (State::Absent, Change::Create { partitions, configs }) => {
                return Ok(State::Topic { id: None, partitions: *partitions, configs: configs.clone() });
            }
            (_, Change::Create { .. }) => return Err(TOPIC_EXISTS),
            (State::Topic { .. }, Change::Delete) => return Ok(State::Absent),
            (State::Topic { id: Some(has), .. }, Change::DeleteById(id)) if has == id => return Ok(State::Absent),
            (_, Change::DeleteById(_)) => return Err(UNKNOWN_TOPIC_ID),
            (State::Topic { partitions, .. }, Change::Grow(count)) if *partitions < *count => *partitions = *count,
            (State::Topic { .. }, Change::Grow(_)) => return Err(INVALID_PARTITIONS),
            (State::Topic { configs, .. } | State::Always(configs), Change::Set(values)) => {
                for (name, value) in values {
                    match value {
                        Some(value) => drop(configs.insert(name.clone(), value.clone())),
                        None => drop(configs.remove(name)),
                    }
                }
            }
            (State::Topic { configs, .. } | State::Always(configs), Change::Replace(values)) => {
                configs.clone_from(values);
            }
            (_, Change::Delete | Change::Grow(_) | Change::Set(_) | Change::Replace(_)) => return Err(UNKNOWN_TOPIC),
        }
        Ok(next)
    }

    /// The state, if a broker in it would give this answer; a topic whose id was unknown takes the id from the answer.
    /// None if it would not.
    fn looks(self, sight: &Sight, id_is_new: bool) -> Option<State> {
        match (self, sight) {
            (State::Topic { id, partitions, configs }, Sight::Topic { id: told, partitions: count }) => {
                let fits = match (id, told) {
                    (Some(id), Some(told)) => id == *told,
                    (None, Some(_)) => id_is_new,
                    (_, None) => true,
                };
                (fits && partitions == *count).then(|| State::Topic { id: id.or(*told), partitions, configs })
            }
            (State::Topic { id, partitions, configs }, Sight::Configs(told)) => {
                (configs == *told).then_some(State::Topic { id, partitions, configs })
            }
            (State::Always(configs), Sight::Configs(told)) => (configs == *told).then_some(State::Always(configs)),
            // A subscription is listed while something is set for it.
            (State::Always(configs), Sight::Named) => (!configs.is_empty()).then_some(State::Always(configs)),
            (State::Always(configs), Sight::Absent) => configs.is_empty().then_some(State::Always(configs)),
            (State::Topic { id, partitions, configs }, Sight::Logs(count)) => {
                (*count <= partitions).then_some(State::Topic { id, partitions, configs })
            }
            (topic @ State::Topic { .. }, Sight::Named) => Some(topic),
            (State::Absent, Sight::Absent | Sight::Logs(0)) => Some(State::Absent),
            _ => None,
        }
    }
}

/// Whether the change deletes by an id a topic whose own id is not known.
fn may_delete(state: &State, change: &Change) -> bool {
    matches!((state, change), (State::Topic { id: None, .. }, Change::DeleteById(_)))
}

impl Resource {
    fn new(name: &str) -> Self {
        let is_always = name.is_empty() || name.starts_with(SUBSCRIPTION);
        let state = if is_always { State::Always(BTreeMap::new()) } else { State::Absent };
        let possible = BTreeSet::from([Possible { state, pending: BTreeSet::new() }]);
        Self { possible, past: BTreeSet::new(), changes: Vec::new(), under_way: None }
    }

    /// Every state that the resource may be in by now, with any of the changes made that have no answer.
    fn reachable(&self) -> BTreeSet<Possible> {
        let mut found = self.possible.clone();
        let mut open: Vec<Possible> = found.iter().cloned().collect();
        while let Some(possible) = open.pop() {
            for change in &possible.pending {
                let after = possible.state.after(&self.changes[*change]).unwrap_or_else(|_| possible.state.clone());
                // A topic whose id is not known may be the one.
                let may_be_gone = may_delete(&possible.state, &self.changes[*change]).then_some(State::Absent);
                let mut pending = possible.pending.clone();
                pending.remove(change);
                for state in may_be_gone.into_iter().chain([after]) {
                    let next = Possible { state, pending: pending.clone() };
                    if found.insert(next.clone()) {
                        open.push(next);
                    }
                }
            }
        }
        found
    }

    /// Keeps the possible states for which `keep` gives a state, as that state.
    fn narrow(&mut self, keep: impl Fn(State) -> Option<State>) -> Result<(), String> {
        let reachable = self.reachable();
        let kept = |possible: &Possible| {
            let state = keep(possible.state.clone())?;
            Some(Possible { state, pending: possible.pending.clone() })
        };
        let kept: BTreeSet<Possible> = reachable.iter().filter_map(kept).collect();
        if kept.is_empty() {
            let states: BTreeSet<String> = reachable.iter().map(|possible| format!("{:?}", possible.state)).collect();
            return Err(states.into_iter().collect::<Vec<_>>().join(", or "));
        }
        self.possible = kept;
        Ok(())
    }

    /// A broker that has lost the controller's answer asks again. So a topic whose id is not known may have been deleted
    /// by the first attempt of this change, although the second one has not found it.
    fn may_be_gone(&mut self, change: &Change) {
        let gone = self.possible.iter().filter(|possible| may_delete(&possible.state, change));
        let gone = gone.map(|possible| Possible { state: State::Absent, ..possible.clone() });
        self.possible = gone.chain(self.possible.clone()).collect();
    }

    /// Keeps what it may be now among what it may have been.
    fn remember(&mut self) {
        let now = self.reachable();
        self.past.extend(now.into_iter().map(|possible| possible.state));
    }

    /// Whether a broker that may know less than the controller would give this answer.
    fn resembles(&self, sight: &Sight) -> Result<(), String> {
        let reachable = self.reachable();
        let mut states = reachable.iter().map(|possible| &possible.state).chain(&self.past);
        match states.any(|state| state.clone().looks(sight, true).is_some()) {
            true => Ok(()),
            false => Err(format!("{:?}, or {:?} before", self.possible, self.past)),
        }
    }

    /// The change under way will have no answer.
    fn lose_sight(&mut self) {
        let Some((change, validate_only)) = self.under_way.take() else { return };
        if !validate_only {
            let place = self.changes.len();
            self.changes.push(change);
            let lost = std::mem::take(&mut self.possible).into_iter().map(|mut possible| {
                possible.pending.insert(place);
                possible
            });
            self.possible = lost.collect();
        }
    }

    /// The only node has a new process: a change that was sent to the process before was made by that process, or never
    /// will be.
    fn restart(&mut self) {
        self.lose_sight();
        let reachable = self.reachable().into_iter();
        self.possible = reachable.map(|possible| Possible { pending: BTreeSet::new(), ..possible }).collect();
    }
}

impl Metadata {
    pub fn new(rules: &Rules) -> Self {
        Self { is_alone: rules.nodes == 1, ..Self::default() }
    }

    fn resource(&mut self, name: &str) -> &mut Resource {
        self.resources.entry(name.to_owned()).or_insert_with(|| Resource::new(name))
    }

    /// Notes a topic's id. Gives true if it is told for the first time, and a violation if it belongs to another topic.
    fn meet(&mut self, id: TopicId, topic: &str) -> Result<bool, Violation> {
        match self.ids.get(&id) {
            None => {
                self.ids.insert(id, topic.to_owned());
                Ok(true)
            }
            Some(known) if known == topic => Ok(false),
            Some(known) => {
                violation(NAME, None, format!("the id {} of {topic} is that of {known}", hex(&id))).map(|()| false)
            }
        }
    }

    fn changed(&mut self, name: &str, error: Option<i16>, id: Option<TopicId>) -> Result<(), Violation> {
        let id_is_new = match id {
            Some(id) => self.meet(id, name)?,
            None => true,
        };
        let is_cluster = !self.is_alone;
        let id_is_new = id_is_new || is_cluster;
        let resource = self.resource(name);
        if is_cluster {
            resource.remember();
        }
        let Some(error) = error else {
            resource.lose_sight();
            return Ok(());
        };
        let Some((change, validate_only)) = resource.under_way.take() else { return Ok(()) };
        if is_cluster && error == UNKNOWN_TOPIC_ID {
            resource.may_be_gone(&change);
        }
        let narrowed = resource.narrow(|state| match state.after(&change) {
            // A broker that has lost the controller's answer asks again: then the change was made by the first attempt.
            Ok(made) if error != 0 && is_cluster => {
                let again = made.after(&change);
                (again == Err(error)).then_some(made)
            }
            Err(_) if error == 0 && is_cluster && may_delete(&state, &change) => Some(State::Absent),
            Ok(_) if error != 0 => None,
            Err(due) => (due == error).then_some(state),
            Ok(_) if validate_only => Some(state),
            Ok(State::Topic { id: None, partitions, configs }) => {
                id_is_new.then_some(State::Topic { id, partitions, configs })
            }
            Ok(State::Absent) => match (state, id) {
                // The answer to a deletion tells the id of the deleted topic, so it must be this one.
                (State::Topic { id: Some(had), .. }, Some(id)) if had != id => None,
                _ => Some(State::Absent),
            },
            Ok(next) => Some(next),
        });
        narrowed.or_else(|states| {
            violation(NAME, None, format!("{change:?} of {name:?} was answered with {error}, and it was {states}"))
        })
    }

    fn described(&mut self, name: &str, sight: &Sight, is_last: bool) -> Result<(), Violation> {
        let id_is_new = match sight {
            Sight::Topic { id: Some(id), .. } => self.meet(*id, name)?,
            _ => false,
        };
        let is_alone = self.is_alone;
        let resource = self.resource(name);
        let fits = match is_alone || is_last {
            true => resource.narrow(|state| state.looks(sight, id_is_new || !is_alone)),
            false => resource.resembles(sight),
        };
        fits.or_else(|states| violation(NAME, None, format!("{name:?} is {sight:?}, and it was {states}")))
    }
}

impl Checker for Metadata {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Changing { resource, change, validate_only } => {
                let resource = self.resource(resource);
                assert!(resource.under_way.is_none(), "one change at a time");
                resource.under_way = Some((change.clone(), *validate_only));
                Ok(())
            }
            Fact::Changed { resource, error, id } => self.changed(resource, *error, *id),
            Fact::Described { resource, sight } => self.described(resource, sight, entry.client == Some(LAST_ADMIN)),
            Fact::Topic { topic, id } => self.meet(*id, &format!("t{topic}")).map(drop),
            Fact::ProducerId { id } => match self.producer_ids.insert(*id) {
                true => Ok(()),
                false => violation(NAME, None, format!("the producer id {id} was given out twice")),
            },
            Fact::Cluster { id } => {
                let first = self.cluster.get_or_insert_with(|| id.clone());
                match first == id {
                    true => Ok(()),
                    false => violation(NAME, None, format!("the cluster {first} is now {id}")),
                }
            }
            Fact::Quorum { epoch, high_watermark, log_end } => {
                // A leader that others have replaced may answer too, until it learns of it.
                let epochs = self.quorum.range(if self.is_alone { 0..=i32::MAX } else { *epoch..=*epoch });
                if let Some((last, last_high)) = epochs.last()
                    && (epoch < last || high_watermark < last_high)
                {
                    let last = format!("epoch {last} and high watermark {last_high}");
                    return violation(
                        NAME,
                        None,
                        format!("the metadata log went from {last} back to {epoch} and {high_watermark}"),
                    );
                }
                if log_end < high_watermark {
                    return violation(
                        NAME,
                        None,
                        format!("the metadata log ends at {log_end}, below its high watermark {high_watermark}"),
                    );
                }
                self.quorum.insert(*epoch, *high_watermark);
                Ok(())
            }
            Fact::Restarted { .. } if self.is_alone => {
                self.resources.values_mut().for_each(Resource::restart);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn hex(id: &TopicId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    const TOPIC: &str = "topic";
    const RESTARTED: Fact = Fact::Restarted { node: 0, held: Vec::new() };

    fn changing(change: Change) -> Fact {
        Fact::Changing { resource: TOPIC.into(), change, validate_only: false }
    }

    fn changed(error: impl Into<Option<i16>>) -> Fact {
        Fact::Changed { resource: TOPIC.into(), error: error.into(), id: None }
    }

    fn described(sight: Sight) -> Fact {
        Fact::Described { resource: TOPIC.into(), sight }
    }

    fn create() -> Change {
        Change::Create { partitions: 2, configs: BTreeMap::new() }
    }

    fn topic(id: u8) -> Fact {
        described(Sight::Topic { id: Some([id; 16]), partitions: 2 })
    }

    fn absent() -> Fact {
        described(Sight::Absent)
    }

    fn set(value: Option<&str>) -> Change {
        Change::Set(vec![("retention.ms".into(), value.map(String::from))])
    }

    fn configs(value: &str) -> Fact {
        described(Sight::Configs(BTreeMap::from([("retention.ms".into(), value.into())])))
    }

    fn run(facts: Vec<Fact>) -> Result<(), String> {
        judge(Metadata::new(&rules()), facts, &[])
    }

    #[test]
    fn what_was_acknowledged_is_there_and_stays() {
        let made = || vec![changing(create()), changed(0), topic(1), RESTARTED];
        let with = |more: Vec<Fact>| run(made().into_iter().chain(more).collect());
        assert_eq!(with(vec![topic(1), changing(Change::Grow(3)), changed(0)]), Ok(()));
        assert!(with(vec![absent()]).unwrap_err().contains("is Absent, and it was Topic"));
        let more = described(Sight::Topic { id: None, partitions: 3 });
        assert!(with(vec![more.clone()]).is_err(), "nobody asked for a third partition");
        assert_eq!(with(vec![changing(Change::Grow(3)), changed(0), more]), Ok(()));
        assert!(with(vec![changing(create()), changed(0)]).is_err(), "it is there already");
        assert_eq!(with(vec![changing(create()), changed(TOPIC_EXISTS)]), Ok(()));
    }

    #[test]
    fn a_config_that_was_acknowledged_and_is_lost_is_found() {
        let made = || vec![changing(create()), changed(0), changing(set(Some("5"))), changed(0), RESTARTED];
        let with = |last: Fact| run(made().into_iter().chain([last]).collect());
        assert_eq!(with(configs("5")), Ok(()));
        assert!(with(configs("4")).is_err());
        assert!(with(described(Sight::Configs(BTreeMap::new()))).is_err());
    }

    #[test]
    fn a_subscription_that_was_acknowledged_and_is_lost_is_found() {
        let resource = || format!("{SUBSCRIPTION}0");
        let made = |value| {
            let changing = Fact::Changing { resource: resource(), change: set(value), validate_only: false };
            [changing, Fact::Changed { resource: resource(), error: Some(0), id: None }]
        };
        let told = |sight| Fact::Described { resource: resource(), sight };
        let nothing = || told(Sight::Configs(BTreeMap::new()));
        let with = |made: [Fact; 2], last: &[Fact]| run([&made[..], &[RESTARTED], last].concat());
        assert_eq!(run(vec![nothing(), told(Sight::Absent)]), Ok(()), "one that does not exist has its defaults");
        assert_eq!(with(made(Some("5")), &[told(Sight::Named)]), Ok(()));
        assert!(with(made(Some("5")), &[nothing()]).is_err());
        assert!(with(made(Some("5")), &[told(Sight::Absent)]).is_err());
        assert_eq!(with(made(None), &[nothing(), told(Sight::Absent)]), Ok(()));
    }

    #[test]
    fn what_was_deleted_does_not_come_back_and_its_id_is_not_used_again() {
        let gone = || vec![changing(create()), changed(0), topic(1), changing(Change::Delete), changed(0)];
        let with = |more: Vec<Fact>| run(gone().into_iter().chain(more).collect());
        assert_eq!(with(vec![absent(), RESTARTED, absent(), described(Sight::Logs(0))]), Ok(()));
        assert!(with(vec![RESTARTED, topic(1)]).is_err(), "it came back");
        assert!(with(vec![described(Sight::Logs(1))]).is_err(), "its logs are still shown");
        assert_eq!(with(vec![changing(create()), changed(0), topic(2)]), Ok(()));
        assert!(with(vec![changing(create()), changed(0), topic(1)]).is_err(), "the id is that of the first");
    }

    #[test]
    fn a_change_without_an_answer_may_happen_as_long_as_its_process_lives_and_once() {
        let lost = || vec![changing(create()), changed(None)];
        let with = |more: Vec<Fact>| run(lost().into_iter().chain(more).collect());
        assert_eq!(with(vec![absent(), topic(1), RESTARTED, topic(1)]), Ok(()));
        assert_eq!(with(vec![RESTARTED, topic(1)]), Ok(()));
        assert!(with(vec![absent(), RESTARTED, absent(), RESTARTED, topic(1)]).is_err());
        assert!(with(vec![topic(1), RESTARTED, absent()]).is_err(), "what was seen stays");
        let again = vec![topic(1), changing(Change::Delete), changed(0), topic(2)];
        assert!(with(again).is_err(), "one creation makes one topic");
    }

    #[test]
    fn what_was_only_asked_is_not_done() {
        let asked = |change| Fact::Changing { resource: TOPIC.into(), change, validate_only: true };
        assert_eq!(run(vec![asked(create()), changed(0), absent()]), Ok(()));
        assert!(run(vec![asked(create()), changed(0), topic(1)]).is_err());
        assert!(run(vec![asked(create()), changed(None), topic(1)]).is_err());
    }

    #[test]
    fn an_id_that_belongs_to_two_is_found() {
        let other = Fact::Topic { topic: 0, id: [1; 16] };
        assert!(run(vec![other, changing(create()), changed(0), topic(1)]).unwrap_err().contains("is that of t0"));
        let producer = |id| Fact::ProducerId { id };
        assert_eq!(run(vec![producer(1), producer(2)]), Ok(()));
        assert!(run(vec![producer(1), producer(1)]).unwrap_err().contains("given out twice"));
        let cluster = |id: &str| Fact::Cluster { id: id.into() };
        assert!(run(vec![cluster("a"), cluster("b")]).unwrap_err().contains("is now b"));
    }

    #[test]
    fn a_broker_of_several_may_know_less_and_shows_nothing_that_never_was() {
        let cluster = || Metadata::new(&Rules { nodes: 3, ..rules() });
        let has = |partitions| Sight::Topic { id: None, partitions };
        let see = |last: Option<u32>, sight: Sight| {
            let mut checker = cluster();
            let facts = [changing(create()), changed(0), changing(Change::Grow(3)), changed(0)];
            let facts = facts.into_iter().map(|fact| (Some(1), fact)).chain([(last, described(sight))]);
            facts
                .enumerate()
                .try_for_each(|(at, (client, fact))| checker.observe(&Entry { at: at as u64, client, fact }))
                .map_err(|violation| violation.to_string())
        };
        for sight in [Sight::Absent, has(2), has(3)] {
            assert_eq!(see(Some(1), sight), Ok(()));
        }
        assert!(see(Some(1), has(4)).unwrap_err().contains("before"));
        assert_eq!(see(Some(LAST_ADMIN), has(3)), Ok(()));
        assert!(see(Some(LAST_ADMIN), has(2)).is_err(), "all brokers have caught up");
        let again = |error: i16| judge(cluster(), vec![changing(create()), changed(error)], &[]);
        assert_eq!(again(TOPIC_EXISTS), Ok(()), "a broker asked again");
        assert!(again(UNKNOWN_TOPIC).is_err());
        let deleted = |last: Change, error: i16| {
            let by_id = Change::DeleteById([1; 16]);
            let facts = vec![changing(create()), changed(0), changing(by_id), changed(UNKNOWN_TOPIC_ID)];
            judge(cluster(), facts.into_iter().chain([changing(last), changed(error)]).collect(), &[])
        };
        assert_eq!(deleted(Change::Grow(3), UNKNOWN_TOPIC), Ok(()), "the first attempt has deleted it");
        assert_eq!(deleted(Change::Grow(3), 0), Ok(()), "it had another id");
        let quorum = |epoch, high_watermark| Fact::Quorum { epoch, high_watermark, log_end: 99 };
        assert_eq!(judge(cluster(), vec![quorum(3, 9), quorum(2, 8), quorum(3, 9)], &[]), Ok(()));
        assert!(judge(cluster(), vec![quorum(3, 9), quorum(2, 8), quorum(3, 8)], &[]).is_err());
    }

    #[test]
    fn a_metadata_log_that_went_back_is_found() {
        let quorum = |epoch, high_watermark, log_end| Fact::Quorum { epoch, high_watermark, log_end };
        let with = |last: Fact| run(vec![quorum(2, 10, 12), RESTARTED, last]);
        assert_eq!(with(quorum(3, 10, 10)), Ok(()));
        assert!(with(quorum(3, 9, 12)).unwrap_err().contains("back to 3 and 9"));
        assert!(with(quorum(1, 12, 12)).unwrap_err().contains("back to 1 and 12"));
        assert!(with(quorum(2, 12, 11)).unwrap_err().contains("ends at 11"));
    }

    #[test]
    fn a_list_names_what_is_there() {
        let made = || vec![changing(create()), changed(0)];
        let with = |more: Vec<Fact>| run(made().into_iter().chain(more).collect());
        assert_eq!(with(vec![described(Sight::Named)]), Ok(()));
        assert!(with(vec![changing(Change::Delete), changed(0), described(Sight::Named)]).is_err());
        assert!(run(vec![described(Sight::Named)]).is_err());
    }

    #[test]
    fn the_configs_of_all_brokers_are_always_there() {
        let of_brokers = |fact: Fact| match fact {
            Fact::Changing { change, validate_only, .. } => {
                Fact::Changing { resource: String::new(), change, validate_only }
            }
            Fact::Changed { error, id, .. } => Fact::Changed { resource: String::new(), error, id },
            Fact::Described { sight, .. } => Fact::Described { resource: String::new(), sight },
            other => other,
        };
        let facts = |last| [changing(set(Some("5"))), changed(0), last].map(of_brokers).into();
        assert_eq!(run(facts(configs("5"))), Ok(()));
        assert!(run(facts(configs("6"))).is_err());
    }
}

//! `tidelog health`: whether a cluster does what it is there for, for people, scripts and supervisors.

use super::output::{Format, Table, print, print_json};
use super::session::{Connection, Session, run};
use super::{Failure, Outcome};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use tidelog_client::Admin;
use tidelog_client::admin::{Answer, ClusterDescription, Operation, PartitionDescription, TopicDescription};
use tidelog_core::ids::NodeId;

/// Places of a kind that are named one by one.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog health
  tidelog health --wait 1 -b broker-1:9092 || alert
  tidelog health --format json | jq -r '.checks[] | select(.ok | not) | .found'

What is checked:
  brokers           a broker answers, and the cluster has a controller
  leaders           every partition has a leader
  replicas          every replica of every partition is in sync
  log directories   every directory of every broker is online
  quorum            the metadata log has a leader

The exit code is 0 if all of it is well, and 1 if anything is not.")]
pub struct Health {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

/// What was looked at, and what was found.
#[derive(Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    found: String,
}

#[derive(Serialize)]
struct Report {
    healthy: bool,
    checks: Vec<Check>,
}

impl Check {
    fn good(check: &'static str, found: String) -> Self {
        Self { check, ok: true, found }
    }

    fn bad(check: &'static str, found: String) -> Self {
        Self { check, ok: false, found }
    }

    /// What could not be asked for is not known to be well.
    fn unanswered(check: &'static str, failure: Failure) -> Self {
        Self::bad(check, failure.text)
    }
}

impl Health {
    pub fn run(self) -> Outcome {
        run(self.look())
    }

    async fn look(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let checks = checks(&mut session).await;
        let bad = checks.iter().filter(|check| !check.ok).count();
        let report = Report { healthy: bad == 0, checks };
        if self.format == Format::Json {
            print_json(&report)?;
        } else {
            print(&text(&report))?;
        }
        match bad {
            0 => Ok(()),
            _ => Err(Failure::of(format!("{bad} of {} checks failed", report.checks.len()))),
        }
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&["CHECK", "", "FOUND"]);
    for it in &report.checks {
        let verdict = if it.ok { "ok" } else { "FAILED" };
        let mut lines = it.found.lines();
        table.row([it.check.to_owned(), verdict.to_owned(), lines.next().unwrap_or_default().to_owned()]);
        for line in lines {
            table.row([String::new(), String::new(), line.to_owned()]);
        }
    }
    table.text()
}

async fn checks(session: &mut Session<Admin>) -> Vec<Check> {
    let cluster = match session.cluster("look at").await {
        Ok(cluster) => cluster,
        // Nothing else can be asked either.
        Err(failure) => return vec![Check::unanswered("brokers", failure)],
    };
    let mut checks = vec![brokers(&cluster)];
    match session.ask_for_all("list", Operation::ListTopics).await {
        Ok(answers) => {
            let Some(Answer::Topics(topics)) = answers.into_iter().next() else { unreachable!("that is its answer") };
            checks.extend([leaders(&topics), replicas(&topics)]);
        }
        Err(failure) => checks.push(Check::unanswered("leaders", failure)),
    }
    checks.push(log_dirs(session, &cluster).await);
    checks.push(quorum(session).await);
    checks
}

fn brokers(cluster: &ClusterDescription) -> Check {
    let mut ids: Vec<NodeId> = cluster.brokers.iter().map(|broker| broker.node).collect();
    ids.sort_unstable();
    let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
    let found = format!("cluster {} has the broker{} {}", cluster.cluster_id, plural(ids.len()), ids.join(", "));
    match cluster.controller {
        Some(controller) => Check::good("brokers", format!("{found}; broker {controller} is the controller")),
        None => Check::bad("brokers", format!("{found} and no controller")),
    }
}

fn leaders(topics: &[TopicDescription]) -> Check {
    let all = topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
    match those(topics, |partition| partition.leader.is_none()) {
        (0, _) => Check::good(
            "leaders",
            format!("{all} partition{} of {} topic{} have one", plural(all), topics.len(), plural(topics.len())),
        ),
        (count, names) => Check::bad("leaders", format!("{count} of {all} partitions have none: {names}")),
    }
}

fn replicas(topics: &[TopicDescription]) -> Check {
    let all = topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
    match those(topics, |partition| partition.in_sync_replicas.len() < partition.replicas.len()) {
        (0, _) => Check::good("replicas", "all are in sync".to_owned()),
        (count, names) => Check::bad("replicas", format!("{count} of {all} partitions lack some: {names}")),
    }
}

/// How many partitions there are of a kind, with the names of the first.
fn those(topics: &[TopicDescription], is_one: impl Fn(&PartitionDescription) -> bool) -> (usize, String) {
    let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |it| (&topic.name, it)));
    let names: Vec<String> =
        partitions.filter(|(_, it)| is_one(it)).map(|(topic, it)| format!("{topic}-{}", it.index)).collect();
    (names.len(), first(names))
}

fn first(names: Vec<String>) -> String {
    let mut text = names[..names.len().min(NAMED_MAX)].join(", ");
    if names.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", names.len() - NAMED_MAX);
    }
    text
}

async fn log_dirs(session: &mut Session<Admin>, cluster: &ClusterDescription) -> Check {
    const NAME: &str = "log directories";
    let brokers = cluster.brokers.iter().map(|broker| broker.node).collect();
    let results = match session.ask(Operation::DescribeLogDirs { brokers }).await {
        Ok(results) => results,
        Err(failure) => return Check::unanswered(NAME, failure),
    };
    let (mut count, mut offline) = (0, Vec::new());
    for (subject, result) in results {
        match result {
            Ok(Answer::LogDirs(dirs)) => {
                count += dirs.len();
                let bad = dirs.iter().filter(|dir| dir.error.is_error());
                offline.extend(bad.map(|dir| format!("{} of {subject} ({})", dir.path, dir.error)));
            }
            Ok(_) => unreachable!("that is its answer"),
            Err(error) => {
                return Check::unanswered(NAME, session.failure("look at the log directories of", &subject, &error));
            }
        }
    }
    match offline.len() {
        0 => Check::good(NAME, format!("{count} of {count} online")),
        bad => Check::bad(NAME, format!("{bad} of {count} offline: {}", first(offline))),
    }
}

async fn quorum(session: &mut Session<Admin>) -> Check {
    const NAME: &str = "quorum";
    let answers = match session.ask_for_all("look at", Operation::DescribeQuorum).await {
        Ok(answers) => answers,
        Err(failure) => return Check::unanswered(NAME, failure),
    };
    let Some(Answer::Quorum(quorum)) = answers.into_iter().next() else { unreachable!("that is its answer") };
    let voters = quorum.voters.len();
    match quorum.leader {
        Some(leader) => Check::good(NAME, format!("node {leader} leads {voters} voter{}", plural(voters))),
        None => Check::bad(NAME, format!("none of the {voters} voters leads")),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::ids::{LeaderEpoch, Uuid};

    fn topic(name: &str, partitions: &[(Option<i32>, usize)]) -> TopicDescription {
        let partition = |((leader, in_sync), index): (&(Option<i32>, usize), i32)| PartitionDescription {
            index,
            leader: leader.map(NodeId),
            leader_epoch: LeaderEpoch(0),
            replicas: [1, 2, 3].map(NodeId).to_vec(),
            in_sync_replicas: [1, 2, 3].map(NodeId)[..*in_sync].to_vec(),
        };
        let partitions = partitions.iter().zip(0..).map(partition).collect();
        TopicDescription { name: name.into(), id: Uuid::ZERO, is_internal: false, partitions }
    }

    #[test]
    fn what_is_wrong_is_counted_and_the_first_places_are_named() {
        let topics = [topic("a", &[(Some(1), 3), (None, 2)]), topic("b", &[(None, 0); 8])];
        let found = |check: Check| (check.ok, check.found);
        assert_eq!(
            found(leaders(&topics)),
            (false, "9 of 10 partitions have none: a-1, b-0, b-1, b-2, b-3 and 4 more".to_owned())
        );
        assert_eq!(found(replicas(&topics[..1])), (false, "1 of 2 partitions lack some: a-1".to_owned()));
    }

    #[test]
    fn a_sound_cluster_and_one_without_topics_are_well() {
        let topics = [topic("a", &[(Some(1), 3)])];
        assert!(leaders(&topics).ok && replicas(&topics).ok && leaders(&[]).ok && replicas(&[]).ok);
    }
}

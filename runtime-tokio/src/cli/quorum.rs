//! `tidelog quorum`: who leads the metadata log, and how far its replicas are.

use super::Outcome;
use super::output::{Format, Table, print, print_json};
use super::session::{Connection, run};
use clap::{Args, Subcommand};
use serde::Serialize;
use tidelog_client::admin::{Answer, Operation, QuorumDescription, QuorumReplica};

#[derive(Debug, Subcommand)]
pub enum Quorum {
    /// Show the leader of the metadata log, its high watermark, its voters and observers, and how far each is behind.
    #[command(after_help = "\
Examples:
  tidelog quorum describe
  tidelog quorum describe --format json | jq '.replicas[] | select(.lag > 100)'

LAG is how many records of the metadata log a replica has not fetched. CAUGHT UP is how long ago, by the leader's \
clock, it had all of them.")]
    Describe(Describe),
}

#[derive(Debug, Args)]
pub struct Describe {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct DescribedQuorum {
    leader: Option<i32>,
    leader_epoch: i32,
    high_watermark: i64,
    replicas: Vec<DescribedReplica>,
}

#[derive(Serialize)]
struct DescribedReplica {
    node: i32,
    /// `leader`, `voter` or `observer`.
    role: &'static str,
    directory_id: String,
    log_end_offset: i64,
    lag: i64,
    last_fetch_ms: Option<i64>,
    last_caught_up_ms: Option<i64>,
    /// How long ago, by the leader's clock.
    caught_up_before_ms: Option<i64>,
}

impl Quorum {
    pub fn run(self) -> Outcome {
        match self {
            Self::Describe(describe) => run(describe.run()),
        }
    }
}

impl Describe {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let answers = session.ask_for_all("describe", Operation::DescribeQuorum).await?;
        let Some(Answer::Quorum(quorum)) = answers.into_iter().next() else { unreachable!("that is its answer") };
        let described = described(&quorum);
        if self.format == Format::Json {
            return print_json(&described);
        }
        print(&text(&described))
    }
}

fn described(quorum: &QuorumDescription) -> DescribedQuorum {
    let leader = quorum.voters.iter().find(|voter| Some(voter.node) == quorum.leader);
    let end = leader.map_or(quorum.high_watermark, |leader| leader.log_end_offset);
    // A leader has always caught up just now: this is its clock.
    let now_ms = leader.and_then(|leader| leader.last_caught_up_ms);
    let replica = |it: &QuorumReplica, role| DescribedReplica {
        node: it.node.0,
        role: if Some(it.node) == quorum.leader { "leader" } else { role },
        directory_id: it.directory.to_string(),
        log_end_offset: it.log_end_offset,
        lag: (end - it.log_end_offset).max(0),
        last_fetch_ms: it.last_fetch_ms,
        last_caught_up_ms: it.last_caught_up_ms,
        caught_up_before_ms: now_ms.zip(it.last_caught_up_ms).map(|(now, then)| (now - then).max(0)),
    };
    let voters = quorum.voters.iter().map(|it| replica(it, "voter"));
    let observers = quorum.observers.iter().map(|it| replica(it, "observer"));
    DescribedQuorum {
        leader: quorum.leader.map(|node| node.0),
        leader_epoch: quorum.leader_epoch,
        high_watermark: quorum.high_watermark,
        replicas: voters.chain(observers).collect(),
    }
}

fn text(quorum: &DescribedQuorum) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "LOG END", "LAG", "CAUGHT UP"]);
    for it in &quorum.replicas {
        let caught_up = match it.caught_up_before_ms {
            Some(ms) => format!("{}.{:03} s ago", ms / 1000, ms % 1000),
            None => "unknown".to_owned(),
        };
        table.row([
            it.node.to_string(),
            it.role.to_owned(),
            it.log_end_offset.to_string(),
            it.lag.to_string(),
            caught_up,
        ]);
    }
    let leader = quorum.leader.map_or("no leader".to_owned(), |node| format!("leader {node}"));
    format!("{leader}  epoch {}  high watermark {}\n{}", quorum.leader_epoch, quorum.high_watermark, table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::ids::{NodeId, Uuid};

    #[test]
    fn replicas_are_measured_against_their_leader() {
        let replica = |node, log_end_offset, last_caught_up_ms| QuorumReplica {
            node: NodeId(node),
            directory: Uuid::ZERO,
            log_end_offset,
            last_fetch_ms: None,
            last_caught_up_ms,
        };
        let quorum = QuorumDescription {
            leader: Some(NodeId(2)),
            leader_epoch: 5,
            high_watermark: 90,
            voters: vec![replica(1, 80, Some(8_500)), replica(2, 91, Some(10_000))],
            observers: vec![replica(7, 91, None)],
        };
        let plain = anstream::adapter::strip_str(&text(&described(&quorum))).to_string();
        insta::assert_snapshot!(plain, @"
        leader 2  epoch 5  high watermark 90
        NODE  ROLE      LOG END  LAG  CAUGHT UP
        1     voter     80       11   1.500 s ago
        2     leader    91       0    0.000 s ago
        7     observer  91       0    unknown
        ");
    }
}

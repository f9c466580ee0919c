//! Elections of which nobody reminds the controller.

use super::elections::{cluster, leader};
use super::*;
use tidelog_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};

/// What an election of which nobody reminds the controller makes of the partitions, and whether there may be more.
fn unasked(cluster: &mut Cluster, elect: fn(&Image, &Context) -> Decision<bool>) -> bool {
    cluster.decide(|image, context, _| elect(image, context))
}

#[test]
fn leadership_goes_back_to_first_replicas_that_are_up_and_in_sync() {
    let (mut cluster, topic) = cluster(&[
        (&[1, 2], &[1, 2], 2),
        (&[1, 2], &[2], 2),
        (&[2, 1], &[2, 1], 1),
        (&[1], &[1], 1),
        (&[1, 2], &[2, 1], -1),
    ]);
    assert!(!unasked(&mut cluster, elect_preferred_leaders));
    let leaders: Vec<_> = (0..5).map(|index| leader(&cluster, topic, index).0).collect();
    assert_eq!(
        leaders,
        [Some(1), None, Some(1), Some(1), Some(1)],
        "node 2 is down, and 1 lacks records of partition 1"
    );
    assert_eq!(leader(&cluster, topic, 3).2, 0, "it was well");
    let records = cluster.committed.len();
    assert!(!unasked(&mut cluster, elect_preferred_leaders));
    assert_eq!(cluster.committed.len(), records, "nothing is left to be done");
}

#[test]
fn leaders_are_elected_uncleanly_where_there_are_none_and_the_topic_allows_it() {
    let (mut cluster, topic) = cluster(&[(&[2, 1], &[2], -1), (&[2], &[2], -1), (&[2, 1], &[2], 2)]);
    assert!(!unasked(&mut cluster, elect_unclean_leaders));
    assert_eq!(leader(&cluster, topic, 0).0, None, "the topic does not allow it");
    cluster.set("unclean.leader.election.enable", "true");
    assert!(!unasked(&mut cluster, elect_unclean_leaders));
    assert_eq!(leader(&cluster, topic, 0), (Some(1), vec![1], 1, true));
    assert_eq!(leader(&cluster, topic, 1).0, None, "nobody is there");
    assert_eq!(leader(&cluster, topic, 2).0, Some(2), "it has a leader, as far as anyone knows");
}

#[test]
fn whoever_allows_unclean_elections_has_them_at_once() {
    let of_topic =
        |cluster: &mut Cluster, value| cluster.alter(2, "t", &[("unclean.leader.election.enable", 0, value)]);
    let of_all = |cluster: &mut Cluster, value| cluster.alter(4, "", &[("unclean.leader.election.enable", 0, value)]);
    let partitions: &[(&[i32], &[i32], i32)] = &[(&[2, 1], &[2], -1)];
    let (mut first, topic) = cluster(partitions);
    assert_eq!(of_topic(&mut first, Some("false")), (ErrorCode::None, None));
    assert_eq!(leader(&first, topic, 0).0, None);
    assert_eq!(of_all(&mut first, Some("true")), (ErrorCode::None, None));
    assert_eq!(leader(&first, topic, 0).0, None, "the topic's own value counts");
    assert_eq!(first.alter(2, "t", &[("unclean.leader.election.enable", 1, None)]), (ErrorCode::None, None));
    assert_eq!(leader(&first, topic, 0), (Some(1), vec![1], 1, true));
    for set in [of_topic, of_all] {
        let (mut second, topic) = cluster(partitions);
        assert_eq!(set(&mut second, Some("true")), (ErrorCode::None, None));
        assert_eq!(leader(&second, topic, 0), (Some(1), vec![1], 1, true));
    }
}

#[test]
fn many_elections_are_decided_a_thousand_at_a_time() {
    let partitions: Vec<(&[i32], &[i32], i32)> = vec![(&[1, 2], &[1, 2], 2); 1_001];
    let (mut cluster, topic) = cluster(&partitions);
    assert!(unasked(&mut cluster, elect_preferred_leaders));
    assert_eq!(leader(&cluster, topic, 999).0, Some(1));
    assert_eq!(leader(&cluster, topic, 1_000).0, Some(2));
    assert!(!unasked(&mut cluster, elect_preferred_leaders));
    assert_eq!(leader(&cluster, topic, 1_000).0, Some(1));
}

#[test]
fn an_election_for_no_partition_is_answered_with_nothing() {
    let (mut cluster, _) = cluster(&[(&[1, 2], &[1, 2], 2)]);
    for election_type in [0, 1, 7] {
        let request = ElectLeadersRequest { election_type, topic_partitions: Some(Vec::new()), ..Default::default() };
        let response = cluster.decide(|image, context, _| elect_leaders(image, context, &request));
        assert_eq!(response, ElectLeadersResponse::default());
    }
}

#[test]
fn elections_of_leaders_that_were_not_in_sync_are_counted() {
    let (cluster, _) = cluster(&[(&[1, 2, 3, 4], &[1], 1)]);
    let mut before = cluster.partition("t", 0).clone();
    before.eligible_leaders = vec![NodeId(2)];
    let counted = |leader, isr: &[i32]| {
        let mut counts = ElectionCounts::default();
        let isr = isr.iter().copied().map(NodeId).collect();
        counts.count(&before, &Partition { leader, isr, ..before.clone() });
        (counts.unclean, counts.eligible)
    };
    assert_eq!(counted(Some(NodeId(1)), &[1, 2]), (0, 0), "the same leader");
    assert_eq!(counted(None, &[]), (0, 0));
    assert_eq!(counted(Some(NodeId(2)), &[2]), (0, 1));
    assert_eq!(counted(Some(NodeId(3)), &[3]), (1, 0));
    before.isr.push(NodeId(4));
    let after = Partition { leader: Some(NodeId(4)), ..before.clone() };
    let mut counts = ElectionCounts::default();
    counts.count(&before, &after);
    assert_eq!(counts, ElectionCounts::default(), "it was in sync");
}

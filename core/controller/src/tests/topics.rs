//! Limits of requests that create, delete and extend topics.

use super::*;

/// The first words of each message, after the name and the error.
fn short(outcomes: &[(String, ErrorCode, Option<String>)]) -> Vec<String> {
    text(outcomes).lines().map(|line| line.chars().take(60).collect()).collect()
}

#[test]
fn a_request_may_create_ten_thousand_records() {
    let mut cluster = Cluster::new();
    let before = cluster.offset;
    assert_eq!(text(&cluster.create(&creating(vec![topic("full", 9_999, 1)]))), "full: NONE -");
    assert_eq!(cluster.offset - before, 10_000, "the topic and its partitions");

    // More records than that refuse the whole request, but each topic that is wrong is told what is wrong with it.
    let mut cluster = Cluster::new();
    let outcomes = cluster.create(&creating(vec![topic("a b", 1, 1), topic("a", 9_998, 1), topic("b", 1, 1)]));
    assert_eq!(
        short(&outcomes),
        [
            "a b: INVALID_TOPIC_EXCEPTION Topic name is invalid: 'a b' co",
            "a: POLICY_VIOLATION Unable to perform excessively large batc",
            "b: POLICY_VIOLATION Unable to perform excessively large batc",
        ]
    );
    assert_eq!(cluster.image.topics().count(), 0);
    let outcomes = cluster.create(&creating(vec![topic("a", 10_000, 1)]));
    assert_eq!(short(&outcomes), ["a: POLICY_VIOLATION Unable to perform excessively large batc"]);
    let outcomes = cluster.create(&creating(vec![topic("a", 10_001, 1)]));
    assert_eq!(short(&outcomes), ["a: POLICY_VIOLATION Excessively large number of partitions p"]);
}

#[test]
fn partitions_that_are_assigned_by_hand_are_counted_by_hand() {
    let mut cluster = Cluster::with(&[("num.partitions", "10001")]);
    assert_eq!(text(&cluster.create(&creating(vec![assigned("a", &[(0, &[1]), (1, &[1])])]))), "a: NONE -");
}

#[test]
fn a_request_may_add_ten_thousand_partitions() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1), topic("b", 1, 1)]));
    let add =
        |name: &str, count| CreatePartitionsTopic { name: name.into(), count, assignments: None, ..Default::default() };
    let before = cluster.offset;
    let outcomes = cluster.extend(vec![add("a", 10_001), add("b", 2)]);
    assert_eq!(short(&outcomes), ["a: NONE -", "b: POLICY_VIOLATION Unable to perform excessively large batc"]);
    assert_eq!(cluster.offset - before, 10_000);
}

#[test]
fn replicas_of_one_topic_are_as_many_in_each_assignment() {
    let mut cluster = Cluster::new();
    cluster.start(NodeId(2), &[Uuid::from_bytes([2; 16])]);
    let outcomes = cluster.create(&creating(vec![assigned("a", &[(0, &[1]), (1, &[1, 2])])]));
    assert_eq!(
        text(&outcomes),
        "a: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes a partition with 2 replica(s), but this \
         is not consistent with previous partitions, which have 1 replica(s)."
    );
}

#[test]
fn names_are_at_most_249_characters_and_collide_only_by_dots_and_underscores() {
    let mut cluster = Cluster::new();
    let longest = "x".repeat(249);
    let names = ["..", &*longest, "a_b", "x.y", "abc"];
    let outcomes = cluster.create(&creating(names.map(|name| topic(name, 1, 1)).to_vec()));
    let errors: Vec<ErrorCode> = outcomes.into_iter().map(|(_, error, _)| error).collect();
    use ErrorCode::{InvalidTopicException, None};
    assert_eq!(errors, [InvalidTopicException, None, None, None, None]);
    let later = cluster.create(&creating(vec![topic("a.b", 1, 1), topic("d.e", 1, 1)]));
    assert_eq!(text(&later), "a.b: INVALID_TOPIC_EXCEPTION Topic 'a.b' collides with existing topic: a_b\nd.e: NONE -");
    assert_eq!(validate_topic_name("..").unwrap_err(), "Topic name is invalid: '..' is not allowed");
}

#[test]
fn a_value_of_32767_bytes_is_not_too_long_for_a_new_topic() {
    let mut cluster = Cluster::new();
    let refusal = |cluster: &mut Cluster, length| {
        let value = "x".repeat(length);
        text(&cluster.create(&creating(vec![topic_with("a", &[("cleanup.policy", Some(&value))])])))
    };
    assert!(refusal(&mut cluster, 32_767).starts_with("a: INVALID_CONFIG Invalid value xxx"));
    assert!(refusal(&mut cluster, 32_768).starts_with("a: INVALID_CONFIG The configuration value cannot be added"));
}

#[test]
fn a_topic_that_is_refused_takes_no_place_in_a_directory() {
    let mut cluster = Cluster::new();
    let refused = assigned("a", &[(0, &[1]), (1, &[9])]);
    let outcomes = cluster.create(&creating(vec![refused, assigned("b", &[(0, &[1])])]));
    assert_eq!(outcomes[0].1, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(cluster.partition("b", 0).directories, [DIR_A], "the first of two empty ones");
    // What is there counts in the next request.
    cluster.create(&creating(vec![assigned("c", &[(0, &[1])])]));
    assert_eq!(cluster.partition("c", 0).directories, [DIR_B]);
    cluster.create(&creating(vec![assigned("d", &[(0, &[1]), (1, &[1])])]));
    assert_eq!(
        (&*cluster.partition("d", 0).directories, &*cluster.partition("d", 1).directories),
        (&[DIR_A][..], &[DIR_B][..])
    );
}

#[test]
fn a_topic_is_deleted_by_its_id_which_the_answer_names() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1), topic("b", 1, 1)]));
    let [a, b] = ["a", "b"].map(|name| cluster.image.topic_named(name).unwrap().id);
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id, ..Default::default() };
    let topics = [a, b, b, Uuid::ZERO, Uuid::ZERO].map(by_id).to_vec();
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let response = cluster.decide(|image, context, _| delete_topics(image, context, &request, 6));
    let answers: Vec<_> = response
        .responses
        .into_iter()
        .map(|one| {
            (one.name.as_deref().map(str::to_owned), one.topic_id, one.error_message.as_deref().map(str::to_owned))
        })
        .collect();
    let neither = || Some("Neither topic name nor id were specified.".to_owned());
    assert_eq!(
        answers,
        [
            (None, Uuid::ZERO, neither()),
            (None, Uuid::ZERO, neither()),
            (None, b, Some("Duplicate topic id.".to_owned())),
            (Some("a".to_owned()), a, None),
        ]
    );
    assert!(cluster.image.topic_named("a").is_none() && cluster.image.topic_named("b").is_some());
}

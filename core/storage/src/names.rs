//! The names of the files and directories in a log directory. They are Kafka's.
//!
//! ```text
//! <log dir>/meta.properties, .kafka_cleanshutdown, *-checkpoint
//! <log dir>/<topic>-<partition>/00000000000000000042.log  .index .timeindex .txnindex .snapshot
//!                               leader-epoch-checkpoint, partition.metadata
//! <log dir>/<topic>-<partition>.<32 hex digits>-delete    (-future, -stray)
//! ```
//!
//! Any other name is [`ParsedFile::Other`] or [`DirName::Other`], and not an error, because people may put anything
//! into a directory.

use bytestring::ByteString;
use std::fmt;
use tidelog_wire::ids::{LeaderEpoch, Offset, Uuid};

/// The leader epochs of a log, and the offset at which each begins.
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// The topic id of a partition's directory (KIP-516).
pub const PARTITION_METADATA: &str = "partition.metadata";
/// The cluster and the node to which a log directory belongs, and the directory's own id.
pub const META_PROPERTIES: &str = "meta.properties";
/// The clean-shutdown marker: written at the end of a clean stop, removed at the beginning of a start.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
pub const LOG_START_CHECKPOINT: &str = "log-start-offset-checkpoint";
/// The high watermarks.
pub const REPLICATION_CHECKPOINT: &str = "replication-offset-checkpoint";
/// The records with which a new cluster begins. It lies in the log directory of the metadata log.
pub const BOOTSTRAP_CHECKPOINT: &str = "bootstrap.checkpoint";
/// The latest epoch, leader and vote that a member of the quorum knows (KIP-595).
pub const QUORUM_STATE: &str = "quorum-state";
/// The topic of the metadata log (KIP-500). It has one partition, and clients cannot see it.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// The directory of the metadata log.
pub const METADATA_PARTITION_DIR: &str = "__cluster_metadata-0";

/// The longest file name that every file system allows.
const NAME_BYTES_MAX: usize = 255;

/// One partition of a topic. It is displayed as `<topic>-<partition>`, which is also the name of its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: ByteString,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<ByteString>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Reads what [`Display`](fmt::Display) writes. The topic may contain `-`; the partition is plain decimal.
    pub fn parse(name: &str) -> Option<Self> {
        let (topic, partition) = name.rsplit_once('-')?;
        if !is_topic_name(topic) {
            return None;
        }
        Some(Self::new(topic, parse_plain_decimal(partition)?))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a file of a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offset → position.
    OffsetIndex,
    /// `.timeindex`: timestamp → offset.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TransactionIndex,
    /// `.snapshot`: producer state up to the offset in the name, exclusive.
    ProducerSnapshot,
}

impl FileKind {
    pub const ALL: [Self; 5] =
        [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TransactionIndex, Self::ProducerSnapshot];

    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TransactionIndex => ".txnindex",
            Self::ProducerSnapshot => ".snapshot",
        }
    }
}

/// The stage of a segment's file, which its suffix shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileStage {
    Live,
    /// The segment has left the log, and the file is unlinked after `file.delete.delay.ms`.
    Deleted,
    /// Compaction is writing the file. If it is found at a start, it is incomplete and is removed.
    Cleaned,
    /// Compaction has finished the file, which is about to replace others. If it is found at a start, it replaces them.
    Swap,
}

impl FileStage {
    pub const ALL: [Self; 4] = [Self::Live, Self::Deleted, Self::Cleaned, Self::Swap];

    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Deleted => ".deleted",
            Self::Cleaned => ".cleaned",
            Self::Swap => ".swap",
        }
    }
}

/// What the name of a file in a partition's directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedFile {
    /// A file of the segment that begins at `offset`. For a producer snapshot, `offset` is where the state ends.
    Segment {
        offset: Offset,
        kind: FileKind,
        stage: FileStage,
    },
    LeaderEpochCheckpoint,
    PartitionMetadata,
    QuorumState,
    /// `<end offset>-<epoch>.checkpoint`: a snapshot of the metadata (KIP-630).
    MetadataSnapshot {
        end_offset: Offset,
        epoch: LeaderEpoch,
        stage: SnapshotStage,
    },
    /// `*.tmp`: the new content of a file, which a crash kept from replacing it. It is of no use.
    Temporary,
    /// A file that does not belong to a log.
    Other,
}

/// The stage of a metadata snapshot, which its suffix shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStage {
    Live,
    /// `.part`: it is being written. After a crash it is of no use.
    Part,
    Deleted,
}

impl ParsedFile {
    pub fn parse(name: &str) -> Self {
        match name {
            LEADER_EPOCH_CHECKPOINT => return Self::LeaderEpochCheckpoint,
            PARTITION_METADATA => return Self::PartitionMetadata,
            QUORUM_STATE => return Self::QuorumState,
            _ if name.ends_with(".tmp") => return Self::Temporary,
            _ => {}
        }
        parse_segment_file(name).or_else(|| parse_metadata_snapshot(name)).unwrap_or(Self::Other)
    }
}

fn parse_segment_file(name: &str) -> Option<ParsedFile> {
    let (offset, rest) = parse_offset_prefix(name)?;
    for kind in FileKind::ALL {
        for stage in FileStage::ALL {
            if rest.strip_prefix(kind.suffix()) == Some(stage.suffix()) {
                return Some(ParsedFile::Segment { offset, kind, stage });
            }
        }
    }
    None
}

fn parse_metadata_snapshot(name: &str) -> Option<ParsedFile> {
    let (end_offset, rest) = parse_offset_prefix(name)?;
    let (epoch, suffix) = rest.strip_prefix('-')?.split_at_checked(10)?;
    if !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let stage = match suffix {
        ".checkpoint" => SnapshotStage::Live,
        ".checkpoint.part" => SnapshotStage::Part,
        ".checkpoint.deleted" => SnapshotStage::Deleted,
        _ => return None,
    };
    Some(ParsedFile::MetadataSnapshot { end_offset, epoch: LeaderEpoch(epoch.parse().ok()?), stage })
}

/// The offset in the 20 digits with which a name begins, and the rest of the name.
fn parse_offset_prefix(name: &str) -> Option<(Offset, &str)> {
    let (digits, rest) = name.split_at_checked(20)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), rest))
}

/// `00000000000000000042.log` and its like.
pub fn segment_file(offset: Offset, kind: FileKind) -> String {
    staged_segment_file(offset, kind, FileStage::Live)
}

/// `00000000000000000042.log.deleted` and its like.
pub fn staged_segment_file(offset: Offset, kind: FileKind, stage: FileStage) -> String {
    assert!(offset >= Offset::ZERO, "a file name has no negative offset: {offset}");
    format!("{:020}{}{}", offset.0, kind.suffix(), stage.suffix())
}

/// `00000000000000000042-0000000007.checkpoint` (KIP-630).
pub fn metadata_snapshot_file(end_offset: Offset, epoch: LeaderEpoch) -> String {
    assert!(end_offset >= Offset::ZERO && epoch.0 >= 0, "a file name has no negative number: {end_offset}-{epoch}");
    format!("{:020}-{:010}.checkpoint", end_offset.0, epoch.0)
}

/// Why a partition's directory has another name than the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AsideReason {
    /// The partition was deleted. The directory may be removed at any time.
    Delete,
    /// A copy of the partition that was to replace the one in another log directory (KIP-113).
    Future,
    /// A replica that the metadata does not assign to this broker.
    Stray,
}

impl AsideReason {
    pub const ALL: [Self; 3] = [Self::Delete, Self::Future, Self::Stray];

    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Delete => "-delete",
            Self::Future => "-future",
            Self::Stray => "-stray",
        }
    }
}

/// What the name of a directory in a log directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirName {
    Partition(TopicPartition),
    /// `<topic>-<partition>.<unique id>-delete` and its like. A long topic name is shortened in it, so the topic of this
    /// partition may be the beginning of the real one alone.
    Aside(TopicPartition, AsideReason),
    Other,
}

impl DirName {
    pub fn parse(name: &str) -> Self {
        for reason in AsideReason::ALL {
            let Some(rest) = name.strip_suffix(reason.suffix()) else { continue };
            return match rest.rsplit_once('.') {
                // A directory of this name may be removed, so only exactly the form that Kafka uses is accepted.
                Some((partition, unique)) if is_unique_id(unique) => match TopicPartition::parse(partition) {
                    Some(partition) => Self::Aside(partition, reason),
                    None => Self::Other,
                },
                _ => Self::Other,
            };
        }
        TopicPartition::parse(name).map_or(Self::Other, Self::Partition)
    }
}

/// The name that a partition's directory gets when it is set aside. The topic is shortened if the whole name would be
/// longer than file systems allow. It is not shortened for [`AsideReason::Future`], since the full topic name is needed
/// when the copy replaces the original.
pub fn aside_dir(partition: &TopicPartition, reason: AsideReason, unique: Uuid) -> String {
    let tail = format!("-{}.{}{}", partition.partition, unique.0.simple(), reason.suffix());
    let room = NAME_BYTES_MAX - tail.len();
    let topic: &str = &partition.topic;
    let cut = if reason == AsideReason::Future { topic } else { &topic[..topic.floor_char_boundary(room)] };
    format!("{cut}{tail}")
}

/// Kafka's rule for topic names. Other directories are not those of a partition.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_unique_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Parses digits without a sign and without leading zeros, so that a number has only one form.
fn parse_plain_decimal(text: &str) -> Option<i32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_topic_may_contain_dashes_and_dots() {
        assert_eq!(DirName::parse("a-b.c-7"), DirName::Partition(TopicPartition::new("a-b.c", 7)));
        assert_eq!(DirName::parse("a--1"), DirName::Partition(TopicPartition::new("a-", 1)));
        assert_eq!(DirName::parse("x.y-delete-0"), DirName::Partition(TopicPartition::new("x.y-delete", 0)));
        assert_eq!(
            DirName::parse(METADATA_PARTITION_DIR),
            DirName::Partition(TopicPartition::new("__cluster_metadata", 0))
        );
    }

    #[test]
    fn names_that_are_not_partition_directories_are_other() {
        for name in [
            "",
            "-",
            "a",
            "a-",
            "-1",
            "a-01",
            "a-+1",
            "a-x",
            "a-99999999999",
            "lost+found",
            "a b-1",
            "é-1",
            "..-1",
            "a-1.x-y-delete",
            "a-1-delete",
            "a-1.-delete",
            ".abc-delete",
            "-delete",
        ] {
            assert_eq!(DirName::parse(name), DirName::Other, "{name:?}");
        }
    }

    #[test]
    fn the_name_of_a_directory_set_aside_holds_the_partition_and_the_reason() {
        let partition = TopicPartition::new("a.b-c", 3);
        for reason in AsideReason::ALL {
            let name = aside_dir(&partition, reason, Uuid::METADATA_TOPIC);
            assert_eq!(name, format!("a.b-c-3.00000000000000000000000000000001{}", reason.suffix()));
            assert_eq!(DirName::parse(&name), DirName::Aside(partition.clone(), reason));
        }
    }

    #[test]
    fn a_long_topic_is_shortened_to_what_file_systems_allow() {
        let partition = TopicPartition::new("t".repeat(249), 1000);
        let name = aside_dir(&partition, AsideReason::Delete, Uuid::METADATA_TOPIC);
        assert_eq!(name.len(), 255);
        assert!(matches!(
            DirName::parse(&name),
            DirName::Aside(TopicPartition { partition: 1000, .. }, AsideReason::Delete)
        ));
    }

    #[test]
    fn file_names_are_those_of_kafka() {
        let live = |offset, kind| ParsedFile::Segment { offset: Offset(offset), kind, stage: FileStage::Live };
        assert_eq!(segment_file(Offset(42), FileKind::Log), "00000000000000000042.log");
        assert_eq!(ParsedFile::parse("00000000000000000042.timeindex"), live(42, FileKind::TimeIndex));
        assert_eq!(ParsedFile::parse("09223372036854775807.snapshot"), live(i64::MAX, FileKind::ProducerSnapshot));
        assert_eq!(
            ParsedFile::parse("00000000000000000000-0000000003.checkpoint.part"),
            ParsedFile::MetadataSnapshot { end_offset: Offset(0), epoch: LeaderEpoch(3), stage: SnapshotStage::Part }
        );
        assert_eq!(
            ParsedFile::parse(&metadata_snapshot_file(Offset(9), LeaderEpoch(1))),
            ParsedFile::MetadataSnapshot { end_offset: Offset(9), epoch: LeaderEpoch(1), stage: SnapshotStage::Live }
        );
        assert_eq!(ParsedFile::parse("leader-epoch-checkpoint.tmp"), ParsedFile::Temporary);
        assert_eq!(ParsedFile::parse("partition.metadata"), ParsedFile::PartitionMetadata);
        assert_eq!(ParsedFile::parse("leader-epoch-checkpoint"), ParsedFile::LeaderEpochCheckpoint);
        assert_eq!(ParsedFile::parse("quorum-state"), ParsedFile::QuorumState);
        let deleted = "00000000000000000009-0000000001.checkpoint.deleted";
        let (end_offset, epoch, stage) = (Offset(9), LeaderEpoch(1), SnapshotStage::Deleted);
        assert_eq!(ParsedFile::parse(deleted), ParsedFile::MetadataSnapshot { end_offset, epoch, stage });
    }

    #[test]
    fn names_that_are_not_files_of_a_log_are_other() {
        for name in [
            "",
            "42.log",
            "00000000000000000042",
            "00000000000000000042.logs",
            "99999999999999999999.log",
            "-0000000000000000042.log",
            "0000000000000000004é.log",
            "00000000000000000042.log.deleted.deleted",
            "00000000000000000000-9999999999.checkpoint",
        ] {
            assert_eq!(ParsedFile::parse(name), ParsedFile::Other, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_that_is_written_reads_back(offset in 0i64.., kind in 0usize..5, stage in 0usize..4) {
            let (kind, stage) = (FileKind::ALL[kind], FileStage::ALL[stage]);
            let name = staged_segment_file(Offset(offset), kind, stage);
            prop_assert_eq!(ParsedFile::parse(&name), ParsedFile::Segment { offset: Offset(offset), kind, stage });
        }

        #[test]
        fn every_partition_directory_reads_back(topic in "[a-zA-Z0-9._-]{3,249}", partition in 0i32..) {
            let partition = TopicPartition::new(topic, partition);
            prop_assert_eq!(DirName::parse(&partition.to_string()), DirName::Partition(partition));
        }

        #[test]
        fn no_name_panics(name in "\\PC*", digits in "[0-9]{18,22}[-.a-z0-9é]{0,30}") {
            let _ = (ParsedFile::parse(&name), DirName::parse(&name), ParsedFile::parse(&digits), DirName::parse(&digits));
        }
    }
}

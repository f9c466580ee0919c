//! Files as brokers write them, and as faults leave them.

use super::batches::BATCH_BYTES_MAX;
use super::{DumpArguments, DumpError, Format, Summary, dump};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tidelog_core::batch::{BatchBuilder, ControlRecord, ControlType};
use tidelog_core::ids::{LeaderEpoch, Offset, ProducerId, Uuid};
use tidelog_core::storage::offset_index::OffsetIndex;
use tidelog_core::storage::producer_snapshot::{SnapshotEntry, encode_snapshot};
use tidelog_core::storage::time_index::TimeIndex;
use tidelog_core::time::WallMs;
use tidelog_core::wire::MetadataRecord;
use tidelog_core::wire::messages::{SnapshotFooterRecord, SnapshotHeaderRecord, TopicRecord};

const LOG: &str = "00000000000000000010.log";

fn arguments(paths: &[&Path]) -> DumpArguments {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    DumpArguments { paths, records: false, metadata: false, format: Format::Text }
}

/// What a dump says, without the directory, and what came of it.
fn dumped(dir: &TempDir, arguments: &DumpArguments) -> (String, Summary) {
    let mut out = Vec::new();
    let summary = dump(arguments, &mut out, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.replace(&format!("{}/", dir.path().display()), ""), summary)
}

/// The faults that are found in a file.
fn faults(dir: &TempDir, name: &str) -> Vec<String> {
    let (text, summary) = dumped(dir, &arguments(&[&dir.path().join(name)]));
    let faults: Vec<String> =
        text.lines().filter_map(|line| line.trim().strip_prefix("FAULT: ")).map(str::to_owned).collect();
    assert_eq!(summary.faults, faults.len() as u64);
    faults
}

/// Two records at `offset`, at the times `offset * 100` and one later.
fn batch(offset: i64, epoch: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new().at(Offset(offset), LeaderEpoch(epoch));
    builder.push(offset * 100, Some(b"key"), Some(b"value \x1b[31m"), &[("h", Some(b"\xff"))]);
    builder.push(offset * 100 + 1, None, None, &[]);
    builder.build().to_vec()
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// The batches at 10, 12 and 14, and the index entries of the second and third.
fn segment(dir: &TempDir) -> [usize; 3] {
    let batches = [batch(10, 1), batch(12, 1), batch(14, 2)];
    write(dir, LOG, batches.concat());
    let positions = [0, batches[0].len(), batches[0].len() + batches[1].len()];
    let mut offsets = OffsetIndex::new(Offset(10), 1 << 10);
    let mut times = TimeIndex::new(Offset(10), 1 << 10);
    for (place, offset) in [(1, 12), (2, 14)] {
        assert!(offsets.maybe_append(Offset(offset + 1), positions[place] as u32));
        assert!(times.maybe_append(offset * 100 + 1, Offset(offset + 1)));
    }
    write(dir, "00000000000000000010.index", offsets.encode());
    write(dir, "00000000000000000010.timeindex", times.encode());
    positions
}

#[test]
fn a_segment_with_its_indexes_is_shown_as_text() {
    let dir = tempfile::tempdir().unwrap();
    segment(&dir);
    let (text, summary) = dumped(&dir, &DumpArguments { records: true, ..arguments(&[dir.path()]) });
    assert_eq!((summary.files, summary.faults), (3, 0));
    insta::assert_snapshot!(text);
}

#[test]
fn a_segment_is_shown_as_an_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = BatchBuilder::new().at(Offset(10), LeaderEpoch(1)).producer(ProducerId(7), 0, 3).transactional();
    builder.push(5, Some(b"key"), Some(b"\xff\x00"), &[("h", Some(b"v")), ("h", None)]);
    let end = ControlRecord::end_transaction(true, 9).transaction_marker(ProducerId(7), 0, WallMs(6)).to_vec();
    let mut marker = end;
    marker[..8].copy_from_slice(&11i64.to_be_bytes());
    let path = write(&dir, LOG, [builder.build().to_vec(), marker].concat());
    let json = DumpArguments { records: true, format: Format::Json, ..arguments(&[&path]) };
    let (text, _) = dumped(&dir, &json);
    for line in text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["file"], LOG);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_flipped_byte_is_told_with_its_place_and_the_rest_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let positions = segment(&dir);
    let mut bytes = fs::read(dir.path().join(LOG)).unwrap();
    bytes[positions[1] + 70] ^= 1;
    let path = write(&dir, LOG, bytes);
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert!(text.contains("offsets 14..=15"), "{text}");
    assert_eq!(summary.faults, 1);
    let fault = &summary.first_faults[0];
    let place = format!("{LOG}: position {}, offset 12: the batch is corrupt: its checksum is", positions[1]);
    assert!(fault.contains(&place), "{fault}");
}

#[test]
fn a_torn_tail_is_told_with_its_place_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let positions = segment(&dir);
    let bytes = fs::read(dir.path().join(LOG)).unwrap();
    // Of fewer bytes it cannot be told whether they are the zeros of an offset.
    for cut in positions[2] + 8..bytes.len() {
        write(&dir, LOG, &bytes[..cut]);
        let found = faults(&dir, LOG);
        let place = format!("position {}: a torn tail", positions[2]);
        assert!(found.len() == 1 && found[0].starts_with(&place), "cut at {cut}: {found:?}");
    }
}

#[test]
fn room_allocated_beforehand_is_no_fault_but_data_after_it_is() {
    let dir = tempfile::tempdir().unwrap();
    segment(&dir);
    let bytes = fs::read(dir.path().join(LOG)).unwrap();
    for zeros in [1, 60, 61, 3 << 20] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + zeros, 0);
        let path = write(&dir, LOG, &longer);
        let (text, summary) = dumped(&dir, &arguments(&[&path]));
        let note = format!("note: position {}: {zeros} zeros to the end of the file", bytes.len());
        assert!(summary.faults == 0 && text.contains(&note), "{text}");
    }
    let mut longer = bytes.clone();
    longer.resize(bytes.len() + (2 << 20), 0);
    longer.push(7);
    write(&dir, LOG, &longer);
    let expected = format!(
        "position {}: zeros, and other bytes again at {}: {} bytes are no batches",
        bytes.len(),
        longer.len() - 1,
        longer.len() - bytes.len()
    );
    assert_eq!(faults(&dir, LOG), [expected]);
}

#[test]
fn offsets_and_epochs_that_do_not_grow_are_faults() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, LOG, [batch(8, 3), batch(10, 3), batch(11, 2), batch(20, 2)].concat());
    write(&dir, "00000000000000000021.log", "");
    insta::assert_snapshot!(faults(&dir, LOG).join("\n"), @"
    position 0, offset 8: it begins at offset 8, below the segment's base offset 10
    position 186, offset 11: its offsets begin at 11, after the batch before it ended at 11
    position 186, offset 11: its leader epoch is 2, after 3
    position 279, offset 20: it ends at offset 21, but the next segment begins at 21
    ");
}

#[test]
fn what_is_no_batch_ends_the_reading_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let first = batch(10, 1);
    let damaged = |at: usize, value: u8| {
        let mut second = batch(12, 1);
        second[at] = value;
        write(&dir, LOG, [first.as_slice(), &second].concat());
        let found = faults(&dir, LOG);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let place = format!("position {}: ", first.len());
    assert!(damaged(16, 1).starts_with(&format!("{place}no batch begins here (the batch has magic 1")));
    assert!(damaged(8, 0x10).starts_with(&format!("{place}a torn tail: a batch of at least 268435")));
    assert!(damaged(11, 1).starts_with(&format!("{place}no batch begins here (the batch claims a size of 13")));
}

#[test]
fn a_length_beyond_any_batch_is_damage_and_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = batch(10, 1);
    bytes[8] = 0x20;
    let path = write(&dir, LOG, bytes);
    // A sparse file: as long as the batch claims to be.
    fs::File::options().write(true).open(path).unwrap().set_len(1 << 30).unwrap();
    let found = faults(&dir, LOG);
    let expected = format!("and none has more than {BATCH_BYTES_MAX}: 1073741824 bytes are not read");
    assert!(found.len() == 1 && found[0].ends_with(&expected), "{found:?}");
}

#[test]
fn batches_larger_than_what_is_read_at_once_and_cut_by_it_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bytes, mut offset) = (Vec::new(), 10);
    for size in [1, 700_000, 3_000_000, 348_500, 1 << 20, 5].into_iter().cycle().take(30) {
        let mut builder = BatchBuilder::new().at(Offset(offset), LeaderEpoch(0));
        builder.push(1, None, Some(&vec![b'x'; size]), &[]);
        bytes.extend_from_slice(&builder.build());
        offset += 1;
    }
    let path = write(&dir, LOG, &bytes);
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert_eq!(summary.faults, 0);
    let len = crate::looks::count(bytes.len());
    let last = format!("30 batches, 30 records, {len} bytes, offsets 10..=39, newest time 1\n");
    assert!(text.ends_with(&last), "{text}");
}

#[test]
fn an_index_that_lies_about_its_log_is_told_by_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    let positions = segment(&dir);
    let mut offsets = OffsetIndex::new(Offset(10), 1 << 10);
    offsets.maybe_append(Offset(12), positions[1] as u32);
    offsets.maybe_append(Offset(15), positions[1] as u32 + 5);
    write(&dir, "00000000000000000010.index", offsets.encode());
    let mut times = TimeIndex::new(Offset(10), 1 << 10);
    times.maybe_append(1200, Offset(13));
    times.maybe_append(1401, Offset(15));
    times.maybe_append(1402, Offset(16));
    write(&dir, "00000000000000000010.timeindex", times.encode());
    let found = [faults(&dir, "00000000000000000010.index"), faults(&dir, "00000000000000000010.timeindex")].concat();
    insta::assert_snapshot!(found.join("\n"), @"
    position 0, offset 12: entry 0 names the batch that ends with offset 12, and the log has a batch that ends with offset 13 at 93
    position 8, offset 15: entry 1 names the batch that ends with offset 15, and the log has no batch (the batch has magic 0; only 2 is supported) at 98
    position 0, offset 13: entry 0 says that the greatest time up to offset 13 is 1200, but the greatest time up to there is 1201
    position 24, offset 16: entry 2 says that the greatest time up to offset 16 is 1402, but the log's batches end at 279
    ");
}

#[test]
fn an_index_whose_entries_contradict_each_other_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    segment(&dir);
    let row = |offset: u32, position: u32| [offset.to_be_bytes(), position.to_be_bytes()].concat();
    write(&dir, "00000000000000000010.index", [row(3, 50), row(2, 60)].concat());
    assert_eq!(faults(&dir, "00000000000000000010.index"), ["entry 1 (2, 60) does not follow the one before it"]);
    write(&dir, "00000000000000000010.index", row(3, 5_000));
    assert!(faults(&dir, "00000000000000000010.index")[0].starts_with("entry 0 points to 5000 in a log of "));
    // Alone it can be held against nothing.
    fs::remove_file(dir.path().join(LOG)).unwrap();
    let (text, summary) = dumped(&dir, &arguments(&[&dir.path().join("00000000000000000010.index")]));
    assert!(summary.faults == 0 && text.contains("note: its log is not beside it"), "{text}");
}

#[test]
fn the_zeros_of_an_index_allocated_beforehand_are_no_entries() {
    let dir = tempfile::tempdir().unwrap();
    segment(&dir);
    let path = dir.path().join("00000000000000000010.index");
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(1 << 20, 0);
    fs::write(&path, &bytes).unwrap();
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert!(summary.faults == 0 && text.contains("note: 2 entries, and 1048560 zeros"), "{text}");
}

#[test]
fn a_snapshot_of_producers_must_not_know_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let entry = SnapshotEntry {
        producer_id: ProducerId(4),
        producer_epoch: 1,
        last_sequence: 9,
        last_offset: Offset(20),
        offset_delta: 4,
        timestamp: 77,
        coordinator_epoch: -1,
        current_transaction_first_offset: None,
    };
    let bytes = encode_snapshot([entry].into_iter());
    let path = write(&dir, "00000000000000000021.snapshot", &bytes);
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert_eq!(summary.faults, 0);
    insta::assert_snapshot!(text, @"
    00000000000000000021.snapshot
      producer 4 epoch 1 last batch at offsets 16..=20 last sequence 9 time 77 coordinator epoch -1 transaction since null
    ");
    write(&dir, "00000000000000000020.snapshot", &bytes);
    assert_eq!(
        faults(&dir, "00000000000000000020.snapshot"),
        ["producer 4 has a batch that ends with offset 20, but the snapshot is of all below 20"]
    );
    write(&dir, "00000000000000000021.snapshot", &bytes[..30]);
    assert!(faults(&dir, "00000000000000000021.snapshot")[0].starts_with("checksum "));
}

#[test]
fn a_snapshot_of_the_metadata_is_decoded_and_must_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    let control = |kind, value, offset| {
        ControlRecord::batch(&[ControlRecord { kind, value }], Offset(offset), LeaderEpoch(3), WallMs(1)).to_vec()
    };
    let header = control(ControlType::SnapshotHeader, SnapshotHeaderRecord::default().to_bytes(0), 0);
    let topic = TopicRecord { name: "orders".into(), topic_id: Uuid::METADATA_TOPIC, ..Default::default() };
    let mut builder = BatchBuilder::new().at(Offset(1), LeaderEpoch(3));
    builder.push(1, None, Some(&MetadataRecord::from(topic).encode(0)), &[]);
    let records = builder.build().to_vec();
    let footer = control(ControlType::SnapshotFooter, SnapshotFooterRecord::default().to_bytes(0), 2);
    let name = "00000000000000000042-0000000003.checkpoint";
    let path = write(&dir, name, [header.clone(), records.clone(), footer.clone()].concat());
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert_eq!(summary.faults, 0, "{text}");
    insta::assert_snapshot!(text);
    write(&dir, name, [header.clone(), records.clone()].concat());
    assert!(faults(&dir, name)[0].ends_with("it has no footer: its writing was cut short"));
    write(&dir, name, [records.clone(), footer.clone()].concat());
    assert_eq!(faults(&dir, name)[0], "position 0: it does not begin with a snapshot header");
    write(&dir, name, [header, footer, records].concat());
    assert!(faults(&dir, name)[0].ends_with("a batch follows the footer"));
}

#[test]
fn what_is_no_record_of_the_metadata_is_told_with_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &format!("__cluster_metadata-0/{LOG}"), batch(10, 1));
    let (text, summary) = dumped(&dir, &arguments(&[&path]));
    assert_eq!(summary.faults, 2, "{text}");
    assert!(summary.first_faults[1].contains("position 0, offset 11: a record of the metadata without a value"));
}

#[test]
fn the_small_files_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "leader-epoch-checkpoint", "0\n2\n0 0\n3 17\n");
    write(&dir, "partition.metadata", "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ");
    write(&dir, "meta.properties", "version=1\ncluster.id=c\nnode.id=4\n");
    write(
        &dir,
        "quorum-state",
        r#"{"leaderId":1,"leaderEpoch":7,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#,
    );
    for name in ["recovery-point", "log-start", "replication", "cleaner"] {
        write(&dir, &format!("{name}-offset-checkpoint"), "0\n2\nb 0 5\na 1 9\n");
    }
    write(&dir, ".kafka_cleanshutdown", r#"{"version":0,"brokerEpoch":12}"#);
    let row =
        [&[0; 2][..], &7i64.to_be_bytes(), &1i64.to_be_bytes(), &5i64.to_be_bytes(), &6i64.to_be_bytes()].concat();
    write(&dir, "00000000000000000000.txnindex", row);
    write(&dir, ".lock", "");
    let (text, summary) = dumped(&dir, &arguments(&[dir.path()]));
    assert_eq!((summary.files, summary.faults), (10, 0));
    insta::assert_snapshot!(text);
    let (text, _) = dumped(&dir, &DumpArguments { format: Format::Json, ..arguments(&[dir.path()]) });
    insta::assert_snapshot!(text);
}

#[test]
fn a_small_file_that_does_not_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "leader-epoch-checkpoint", "0\n3\n0 0\n3 17\n2 20\n");
    write(&dir, "partition.metadata", "version: 0\n");
    write(&dir, "meta.properties", "version=1\ncluster.id=c\n");
    write(&dir, "quorum-state", "{}");
    write(&dir, "recovery-point-offset-checkpoint", "0\n2\nb 0 5\n");
    write(&dir, "00000000000000000000.txnindex", [9; 40]);
    write(&dir, "00000000000000000034.txnindex", [9; 34]);
    let (_, summary) = dumped(&dir, &arguments(&[dir.path()]));
    let told = summary.first_faults.join("\n").replace(&format!("{}/", dir.path().display()), "");
    insta::assert_snapshot!(told, @r#"
    00000000000000000000.txnindex: 40 bytes are not a multiple of 34
    00000000000000000034.txnindex: position 0: entry 0 is impossible (version 2313)
    leader-epoch-checkpoint: only 2 of 3 entries agree with each other: epochs and start offsets must both increase
    meta.properties: node.id is missing
    partition.metadata: line 2 is "", expected `topic_id: ` and the 22 characters of an id that is not zero
    quorum-state: data_version is null, and must be an integer of 32 bits
    recovery-point-offset-checkpoint: the number of entries is 2, but there are 1
    "#);
}

#[test]
fn a_terminal_shows_files_as_headings_and_faults_in_red() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "quorum-state", "{}");
    let mut out = Vec::new();
    dump(&arguments(&[&path]), &mut out, true).unwrap();
    let text = String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(
        text,
        "\x1b[1mquorum-state\x1b[0m\n  \x1b[1m\x1b[31mFAULT: data_version is null, and must be an integer of 32 bits\x1b[0m\n"
    );
}

#[test]
fn a_file_that_cannot_be_dumped_is_refused_before_anything_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    segment(&dir);
    let unknown = write(&dir, "notes.txt", "x");
    let mut out = Vec::new();
    let error = dump(&arguments(&[&dir.path().join(LOG), &unknown]), &mut out, false).unwrap_err();
    assert!(matches!(&error, DumpError::Unknown { .. }) && out.is_empty());
    let text = error.to_string();
    for readable in ["NNN.log", "NNN-EEE.checkpoint", "meta.properties", "notes.txt"] {
        assert!(text.contains(readable), "{text}");
    }
    let missing = dump(&arguments(&[&dir.path().join("00000000000000000099.log")]), &mut out, false).unwrap_err();
    assert!(matches!(&missing, DumpError::Unreadable { .. }), "{missing}");
    let (text, summary) = dumped(&dir, &arguments(&[dir.path()]));
    assert_eq!((summary.files, summary.faults), (3, 0));
    assert!(text.contains("notes.txt\n  note: skipped"), "{text}");
}

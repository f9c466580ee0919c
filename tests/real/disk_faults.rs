//! Disks that fail under a running broker: power cuts, and one of two log directories that fails in many ways. Clients
//! and operator are told, the other directory goes on serving, and no acknowledged record is lost.
//!
//! Most of these tests need rights and programs that a machine may lack (`tidelog_tests::disks`); the limit of the file
//! size and the lost permission need none. Faults that a real disk cannot be made to show here are simulated thousands
//! of times by the simulator's disks (`sim/src/disk`; docs/SIMULATION.md).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::geteuid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Produced, Producer, batch};
use tidelog_tests::disks::{Ext4, Tampering, Tmpfs, assert_power_was_cut, write_witnesses};
use tidelog_tests::load::Writer;

const KAFKA_STORAGE_ERROR: i16 = 56;

#[test]
fn no_acknowledged_record_is_lost_or_doubled_by_power_cuts_under_load() {
    let test = "no_acknowledged_record_is_lost_or_doubled_by_power_cuts_under_load";
    let cuts = std::env::var("TIDELOG_POWER_CUTS").map_or(5, |cuts| cuts.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let home = tempfile::tempdir().expect("a directory");
    let Some(disk) = Ext4::new(test, 256) else { return };
    let setup = Setup::of(Kind::Tidelog, home.path()).set("log.dirs", disk.path().join("data").display());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let configs = [("internal.segment.bytes", "65536"), ("retention.bytes", "16777216")];
    assert_eq!(client.create_topic("cut", 3, &configs).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("cut").expect("leaders");
    let mut writers: Vec<Writer> = (0..2)
        .map(|partition| Writer::new("cut", partition, Some(client.init_producer().expect("InitProducerId"))))
        .collect();
    writers.push(Writer::new("cut", 2, None));
    let mut broker = Some(broker);

    for cut in 0..cuts {
        // Before the first cut there has been no clean stop since the topic was created.
        let running = broker.take().unwrap_or_else(|| setup.start());
        let address = running.address().to_owned();
        let mut client = Client::connect(&address).expect("a connection");
        client.wait_for_leaders("cut").expect("leaders");
        for writer in &mut writers {
            writer.verify(&mut client);
        }
        let stop = AtomicBool::new(false);
        let delay = Duration::from_micros(rng.random_range(0..500_000));
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.run(&address, &stop));
            }
            thread::sleep(delay);
            write_witnesses(&disk.path());
            running.kill();
            disk.cut_power();
            stop.store(true, Ordering::Relaxed);
        });
        disk.power_on();
        assert_power_was_cut(&disk.path());
        let counts: Vec<usize> = writers.iter().map(Writer::acknowledged).collect();
        println!("power cut {cut} after {delay:?}: {counts:?} records acknowledged");
    }

    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders("cut").expect("leaders");
    for writer in &mut writers {
        writer.verify(&mut client);
        let ended = writer.try_run(broker.address(), &AtomicBool::new(true));
        ended.unwrap_or_else(|error| panic!("the batches that were sent again are not acknowledged: {error}"));
        writer.verify_all(&mut client);
        assert!(writer.acknowledged() > 0, "the load did something");
    }
    let total: usize = writers.iter().map(Writer::acknowledged).sum();
    println!("figure: {cuts} power cuts under load on ext4, {total} records acknowledged, none lost or doubled");
    broker.stop();
}

/// A broker with two log directories, one of which will fail, and a partition in each.
struct TwoDirectories {
    setup: Setup,
    broker: Option<Broker>,
    client: Client,
    bad_dir: PathBuf,
    good: Partition,
    bad: Partition,
}

struct Partition {
    index: i32,
    acknowledged: i32,
}

fn ten_values(first: i32) -> Vec<Bytes> {
    (first..first + 10).map(|n| Bytes::from(format!("value {n} {}", "x".repeat(1000)))).collect()
}

impl Partition {
    /// Produces ten records; an error is the code of the refusal.
    fn produce(&mut self, client: &mut Client) -> Result<(), i16> {
        let records = batch(Producer::NONE, &ten_values(self.acknowledged));
        match client.produce("t", self.index, records).expect("Produce is answered") {
            Produced { error_code: 0, base_offset } => {
                assert_eq!(base_offset, i64::from(self.acknowledged));
                self.acknowledged += 10;
                Ok(())
            }
            Produced { error_code, .. } => Err(error_code),
        }
    }

    fn assert_all_readable(&self, client: &mut Client) {
        let records = client.read_from("t", self.index, 0).expect("every record is readable");
        assert!(records.len() >= usize::try_from(self.acknowledged).expect("a count"), "{} are there", records.len());
        for (offset, record) in (0..).zip(&records) {
            assert_eq!(record.offset, i64::from(offset));
            assert_eq!(record.value.as_ref(), Some(&ten_values(offset / 10 * 10)[(offset % 10) as usize]));
        }
    }
}

impl TwoDirectories {
    fn start(home: &Path, bad_dir: PathBuf, configs: &[(&str, &str)], through: &[&str]) -> Self {
        let good_dir = home.join("good");
        let setup = Setup::of(Kind::Tidelog, home)
            .set("log.dirs", format!("{},{}", good_dir.display(), bad_dir.display()))
            .set("metadata.log.dir", good_dir.display())
            .through(through);
        let broker = setup.start();
        let mut client = Client::connect(broker.address()).expect("a connection");
        assert_eq!(client.create_topic("t", 2, configs).expect("CreateTopics"), (0, None));
        client.wait_for_leaders("t").expect("leaders");
        let mut both = [0, 1].map(|index| Partition { index, acknowledged: 0 });
        for partition in &mut both {
            (0..20).for_each(|_| assert_eq!(partition.produce(&mut client), Ok(())));
        }
        both.sort_by_key(|partition| bad_dir.join(format!("t-{}", partition.index)).exists());
        let [good, bad] = both;
        assert!(good_dir.join(format!("t-{}", good.index)).exists(), "a partition in each");
        Self { setup, broker: Some(broker), client, bad_dir, good, bad }
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("it runs")
    }

    fn bad_partition_dir(&self) -> PathBuf {
        self.bad_dir.join(format!("t-{}", self.bad.index))
    }

    /// The log file of the partition in the bad directory.
    fn bad_file(&self) -> PathBuf {
        self.bad_partition_dir().join("00000000000000000000.log")
    }

    /// Produces into the bad directory until it refuses. The log must then name the file or the directory and contain
    /// `why`, and the good directory must go on serving.
    fn assert_bad_goes_offline_and_good_serves_on(&mut self, why: &str) {
        let refused = (0..20_000).find_map(|_| self.bad.produce(&mut self.client).err());
        assert_eq!(refused, Some(KAFKA_STORAGE_ERROR), "with {why}");
        self.assert_bad_is_offline(why);
    }

    fn assert_bad_is_offline(&mut self, why: &str) {
        let offline = format!("log directory {} is offline: ", self.bad_dir.display());
        let line = self.broker().log_lines(1, &["ERROR", &offline, why]).remove(0);
        let named = line.matches(&*self.bad_dir.to_string_lossy()).count();
        assert_eq!(named, 2, "the file is named too: {line}");
        let (error_code, _, records) = self.client.fetch("t", self.bad.index, 0).expect("Fetch is answered");
        assert_eq!((error_code, records.len()), (KAFKA_STORAGE_ERROR, 0));
        assert_eq!(self.client.offset_for("t", self.bad.index, -1).expect("ListOffsets").0, KAFKA_STORAGE_ERROR);
        for _ in 0..20 {
            assert_eq!(self.good.produce(&mut self.client), Ok(()));
        }
        self.good.assert_all_readable(&mut self.client);
        // A topic that is created now is served too: it gets the remaining directory.
        let topic = format!("after {}", self.good.acknowledged).replace(' ', "-");
        assert_eq!(self.client.create_topic(&topic, 2, &[]).expect("CreateTopics"), (0, None));
        self.client.wait_for_leaders(&topic).expect("leaders");
        self.broker().assert_alive();
    }

    /// The directory works again: after a restart every acknowledged record is there, and the partition serves.
    fn assert_restart_heals(mut self, clean: bool) {
        let broker = self.broker.take().expect("it runs");
        match clean {
            true => drop(broker.stop()),
            false => broker.kill(),
        }
        self.assert_start_finds_everything();
    }

    fn assert_start_finds_everything(mut self) {
        let broker = self.setup.start();
        self.client = Client::connect(broker.address()).expect("a connection");
        self.client.wait_for_leaders("t").expect("leaders");
        for partition in [&mut self.good, &mut self.bad] {
            partition.assert_all_readable(&mut self.client);
            let (error_code, end) = self.client.offset_for("t", partition.index, -1).expect("ListOffsets");
            assert_eq!(error_code, 0);
            // A refused record may be there all the same: a refusal does not promise that it is not.
            let more = self.client.produce("t", partition.index, batch(Producer::NONE, &ten_values(0)));
            assert_eq!(more.expect("Produce"), Produced { error_code: 0, base_offset: end });
        }
        broker.stop();
    }
}

const SMALL_SEGMENTS: [(&str, &str); 1] = [("internal.segment.bytes", "65536")];

#[test]
fn a_file_system_that_turns_read_only_takes_its_directory_offline_alone() {
    let test = "a_file_system_that_turns_read_only_takes_its_directory_offline_alone";
    let home = tempfile::tempdir().expect("a directory");
    let Some(disk) = Ext4::new(test, 64) else { return };
    let mut two = TwoDirectories::start(home.path(), disk.path().join("bad"), &SMALL_SEGMENTS, &[]);
    disk.turn_read_only();
    two.assert_bad_goes_offline_and_good_serves_on("Read-only file system");
    two.broker.take().expect("it runs").stop();
    disk.power_on();
    two.assert_start_finds_everything();
}

#[test]
fn a_device_that_is_gone_takes_its_directory_offline_alone() {
    let test = "a_device_that_is_gone_takes_its_directory_offline_alone";
    let home = tempfile::tempdir().expect("a directory");
    let Some(disk) = Ext4::new(test, 64) else { return };
    let mut two = TwoDirectories::start(home.path(), disk.path().join("bad"), &SMALL_SEGMENTS, &[]);
    disk.cut_power();
    two.assert_bad_goes_offline_and_good_serves_on("Input/output error");
    two.broker.take().expect("it runs").stop();
    disk.power_on();
    two.assert_start_finds_everything();
}

#[test]
fn a_broker_whose_metadata_log_is_gone_ends_with_the_reason() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(disk) = Ext4::new("a_broker_whose_metadata_log_is_gone_ends_with_the_reason", 64) else { return };
    let dir = disk.path().join("data");
    let setup = Setup::of(Kind::Tidelog, home.path()).set("log.dirs", dir.display());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic("before", 1, &[]).expect("CreateTopics"), (0, None));
    disk.cut_power();
    // Any error will do: a broker that cannot write its metadata creates no topic.
    if let Ok((error_code, text)) = client.create_topic("after", 1, &[]) {
        assert_ne!(error_code, 0, "{text:?}");
    }
    let (status, log) = broker.wait_for_end();
    assert!(!status.success() && !log.contains("panicked"), "{status}:\n{log}");
    let words = ["offline", "Input/output error", &*dir.to_string_lossy()];
    assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "the reason:\n{log}");
    disk.power_on();
    let broker = setup.start();
    let topics = Client::connect(broker.address()).and_then(|mut client| client.topics()).expect("Metadata");
    assert_eq!(topics, ["before"]);
    broker.stop();
}

#[test]
fn a_full_disk_takes_its_directory_offline_alone() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(disk) = Tmpfs::new("a_full_disk_takes_its_directory_offline_alone", "size=8m") else { return };
    let mut two = TwoDirectories::start(home.path(), disk.path().join("bad"), &[("segment.bytes", "1048576")], &[]);
    two.assert_bad_goes_offline_and_good_serves_on("No space left on device");
    disk.grow("size=32m");
    two.assert_restart_heals(true);
}

#[test]
fn a_failed_sync_or_write_takes_its_directory_offline_alone_and_is_not_tried_again() {
    let test = "a_failed_sync_or_write_takes_its_directory_offline_alone_and_is_not_tried_again";
    for calls in ["fdatasync,fsync", "pwritev,pwrite64,write,pwritev2"] {
        let home = tempfile::tempdir().expect("a directory");
        let mut two = TwoDirectories::start(home.path(), home.path().join("bad"), &[], &[]);
        let (process_id, file) = (two.broker().process_id(), two.bad_file());
        let Some(tampering) = Tampering::attach(test, process_id, calls, "EIO", &file) else { return };
        two.assert_bad_goes_offline_and_good_serves_on("Input/output error");
        drop(tampering);
        // The disk reports success again, but nobody knows what it lost meanwhile.
        assert_eq!(two.bad.produce(&mut two.client), Err(KAFKA_STORAGE_ERROR));
        two.assert_restart_heals(calls.starts_with("fdatasync"));
    }
}

#[test]
fn a_permission_that_is_lost_takes_its_directory_offline_alone() {
    let home = tempfile::tempdir().expect("a directory");
    let bad_dir = home.path().join("bad");
    // Root ignores permissions, so the broker runs without that capability.
    let unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    let through = if geteuid().is_root() { &unprivileged[..] } else { &[] };
    let mut two = TwoDirectories::start(home.path(), bad_dir, &SMALL_SEGMENTS, through);
    let dir = two.bad_partition_dir();
    fs::set_permissions(&dir, Permissions::from_mode(0o0)).expect("a directory without permissions");
    two.assert_bad_goes_offline_and_good_serves_on("Permission denied");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("a directory with permissions");
    two.assert_restart_heals(true);
}

/// Only Linux lets one process limit another.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_the_file_size_takes_a_directory_offline_and_does_not_end_the_process() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let home = tempfile::tempdir().expect("a directory");
    let mut two = TwoDirectories::start(home.path(), home.path().join("bad"), &[], &[]);
    let process = i32::try_from(two.broker().process_id()).ok().and_then(Pid::from_raw);
    let limit = |current| Rlimit { current, maximum: None };
    prlimit(process, Resource::Fsize, limit(Some(1 << 20))).expect("a limit");
    two.assert_bad_goes_offline_and_good_serves_on("File too large");
    prlimit(process, Resource::Fsize, limit(None)).expect("no limit");
    two.assert_restart_heals(true);
}

#[test]
fn records_that_cannot_be_read_are_told_to_the_operator_and_everything_else_is_served() {
    let test = "records_that_cannot_be_read_are_told_to_the_operator_and_everything_else_is_served";
    let home = tempfile::tempdir().expect("a directory");
    let mut two = TwoDirectories::start(home.path(), home.path().join("bad"), &[], &[]);
    let (process_id, file) = (two.broker().process_id(), two.bad_file());
    let calls = "sendfile,pread64,preadv,preadv2,read";
    let Some(tampering) = Tampering::attach(test, process_id, calls, "EIO", &file) else { return };
    // A short slice is copied into the answer, a long one is sent by sendfile.
    for (nth, offset) in [(1, two.bad.acknowledged - 1), (2, 0)] {
        let mut reader = Client::connect(two.broker().address()).expect("a connection");
        let read = reader.fetch("t", two.bad.index, offset.into()).map(|(code, _, records)| (code, records.len()));
        assert!(!matches!(read, Ok((0, _))), "an answer out of nothing: {read:?}");
        let words = ["ERROR", "cannot read", &*file.to_string_lossy(), "Input/output error"];
        assert_eq!(two.broker().log_lines(nth, &words).len(), nth, "the operator is told");
    }
    two.good.assert_all_readable(&mut two.client);
    assert_eq!(two.good.produce(&mut two.client), Ok(()));
    drop(tampering);
    two.broker().assert_alive();
    two.assert_restart_heals(true);
}

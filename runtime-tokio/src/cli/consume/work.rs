//! Reading and printing, until the end, an interrupt, or the reader of our output has seen enough.

use super::super::output::{self, is_watched, note, printed, warn};
use super::super::record::{JsonRecord, TextFormat};
use super::super::session::Session;
use super::super::watch::{BrokerWatch, Fate, LOOK_EVERY, TopicWatch};
use super::super::{Failure, Outcome};
use super::template::Template;
use bytestring::ByteString;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use tidelog_client::admin::{Subject, TopicDescription};
use tidelog_client::consumer::{Call, Event, Polled, Start};
use tidelog_client::{Consumer, TopicPartition};
use tokio::time::{Instant, sleep};

const BUFFER_BYTES: usize = 256 << 10;

/// How records are printed, with all that it takes.
pub enum Look {
    Text(TextFormat),
    Json,
    Template { template: Template, null: String },
}

pub struct Work {
    session: Session<Consumer>,
    out: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
    look: Look,
    topics: BTreeMap<ByteString, TopicWatch>,
    /// Topics that were deleted meanwhile.
    gone: Vec<ByteString>,
    broker: BrokerWatch,
    looked_at: Instant,
    /// Where the partitions that are read ended when the command began.
    ends: BTreeMap<TopicPartition, i64>,
    ends_there: bool,
    /// Whether a person has still to be told that everything is printed and that the command waits.
    is_waiting_untold: bool,
    /// Records that are still wanted.
    left: u64,
    /// Whether we decide where a partition goes on that has lost its position. Otherwise the consumer does, as
    /// `-X auto.offset.reset` says.
    resets: bool,
}

impl Work {
    pub fn new(
        session: Session<Consumer>,
        topics: &[TopicDescription],
        ends: BTreeMap<TopicPartition, i64>,
        look: Look,
        resets: bool,
    ) -> Self {
        let stdout = io::stdout().lock();
        Self {
            session,
            is_terminal: stdout.is_terminal(),
            out: BufWriter::with_capacity(BUFFER_BYTES, stdout),
            look,
            topics: topics.iter().map(|topic| (topic.name.clone(), TopicWatch::new(topic.id))).collect(),
            gone: Vec::new(),
            broker: BrokerWatch::default(),
            looked_at: Instant::now(),
            ends,
            ends_there: false,
            is_waiting_untold: is_watched(),
            left: u64::MAX,
            resets,
        }
    }

    /// Ends where the partitions ended when the command began.
    pub fn end_at_ends(&mut self) {
        self.ends_there = true;
        self.is_waiting_untold = false;
    }

    /// Ends after this many records.
    pub fn end_after(&mut self, records: u64) {
        self.left = records;
    }

    pub async fn run(mut self, starts: Vec<(TopicPartition, Start)>) -> Outcome {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        self.session.driver.call(Call::Assign(starts));
        self.session.driver.call(Call::Poll);
        while self.left > 0 {
            if self.looked_at.elapsed() >= LOOK_EVERY {
                self.look_around()?;
            }
            let event = match self.session.driver.take_event() {
                Some(event) => event,
                // Every record before the positions is written.
                None if self.ends_there && self.is_at_ends() => return self.outcome(),
                None => {
                    if let Err(error) = self.out.flush() {
                        return printed(Err(error));
                    }
                    tokio::select! {
                        biased;
                        _ = &mut interrupt => return Ok(()),
                        event = self.session.next() => event?,
                        () = sleep(LOOK_EVERY) => {
                            if reader_has_gone() {
                                return Ok(());
                            }
                            self.say_that_it_waits();
                            continue;
                        }
                    }
                }
            };
            match event {
                Event::Records(polled) => {
                    // Another topic may have the name of a deleted one by now: its records were not asked for.
                    self.look_at_topics()?;
                    if let Err(error) = self.write(&polled) {
                        return printed(Err(error));
                    }
                    self.session.driver.call(Call::Poll);
                }
                other => self.take(other)?,
            }
        }
        self.outcome()
    }

    /// Everything that was asked for is printed, but for what was deleted before.
    fn outcome(mut self) -> Outcome {
        printed(self.out.flush())?;
        if self.gone.is_empty() { Ok(()) } else { Err(Failure::of("not all was read: a topic was deleted meanwhile")) }
    }

    fn look_around(&mut self) -> Outcome {
        self.looked_at = Instant::now();
        self.broker.look(&self.session, true);
        self.look_at_topics()
    }

    /// Goes on without the topics that were deleted; a failure if none is left.
    fn look_at_topics(&mut self) -> Outcome {
        let (now, consumer) = (Instant::now(), self.session.driver.client());
        let look =
            |(name, watch): (&ByteString, &mut TopicWatch)| (name.clone(), watch.look(now, consumer.topic(name)));
        let fates: Vec<(ByteString, Fate)> = self.topics.iter_mut().map(look).collect();
        for (name, fate) in fates {
            let text = match fate {
                Fate::Exists => continue,
                Fate::Deleted => format!("topic {name} was deleted while it was read"),
                Fate::Replaced => {
                    format!("topic {name} was deleted while it was read, and another one has its name now")
                }
            };
            self.topics.remove(&name);
            self.ends.retain(|partition, _| partition.topic != name);
            if self.topics.is_empty() {
                let _ = self.out.flush();
                return Err(Failure::of(text));
            }
            warn(format_args!("{text}; the others are read on"));
            self.gone.push(name);
            // Partitions that stay assigned keep their positions, so `Latest` has no effect.
            let left = self.ends.keys().map(|partition| (partition.clone(), Start::Latest)).collect();
            self.session.driver.call(Call::Assign(left));
        }
        Ok(())
    }

    /// To a person, once: that nothing more is printed is no fault.
    fn say_that_it_waits(&mut self) {
        if !self.is_waiting_untold || !self.is_at_ends() {
            return;
        }
        self.is_waiting_untold = false;
        let names: Vec<&str> = self.topics.keys().map(|name| &name[..]).collect();
        let what = match &names[..] {
            [name] => format!("topic {name}"),
            names => format!("{} topics", output::count(names.len())),
        };
        note(format_args!("tidelog: waiting for records at the end of {what}; Ctrl-C ends"));
    }

    /// Whether everything is passed that there was when the command began. Positions also pass offsets that have no
    /// record, such as those of transaction markers.
    fn is_at_ends(&self) -> bool {
        let consumer = self.session.driver.client();
        self.ends.iter().all(|(partition, end)| consumer.position(partition) >= Some(*end))
    }

    fn write(&mut self, polled: &[Polled]) -> io::Result<()> {
        for Polled { partition, records, .. } in polled {
            let TopicPartition { topic, partition: index } = partition;
            let Some(end) = self.ends.get(partition) else { continue };
            let end = if self.ends_there { *end } else { i64::MAX };
            for record in records.iter().filter(|record| record.offset.0 < end) {
                if self.left == 0 {
                    return Ok(());
                }
                self.left -= 1;
                match &self.look {
                    Look::Text(format) => format.write(&mut self.out, topic, *index, record)?,
                    Look::Json => {
                        serde_json::to_writer(&mut self.out, &JsonRecord::of(topic, *index, record))?;
                        self.out.write_all(b"\n")?;
                    }
                    Look::Template { template, null } => template.write(&mut self.out, topic, *index, record, null)?,
                }
                if self.is_terminal {
                    self.out.flush()?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Outcome {
        let (partition, why) = match event {
            Event::OutOfRange { partition, position } => {
                (partition, format!("the log does not hold offset {position} any more"))
            }
            Event::Truncated { partition, position, diverged: None } => {
                (partition, format!("the log was cut before offset {position}"))
            }
            Event::Truncated { partition, position, diverged: Some(diverged) } => {
                warn(format_args!("{partition}: the log was cut before offset {position}; going on at {diverged}"));
                if self.resets {
                    let start = Start::Offset { offset: diverged, epoch: None };
                    self.session.driver.call(Call::Seek(partition, start));
                }
                return Ok(());
            }
            Event::Failed { partition, error } => {
                let _ = self.out.flush();
                return Err(self.session.failure("read", &Subject::Partition(partition), &error));
            }
            Event::Reset { .. } | Event::Records(_) | Event::Offsets { .. } => return Ok(()),
        };
        // In another topic of the same name the position has no meaning.
        self.look_at_topics()?;
        if !self.ends.contains_key(&partition) {
            return Ok(());
        }
        warn(format_args!("{partition}: {why}"));
        if self.resets {
            self.session.driver.call(Call::Seek(partition, Start::Earliest));
        }
        Ok(())
    }
}

/// Whether standard output is a pipe or socket that nobody reads any more.
fn reader_has_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

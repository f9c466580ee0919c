//! What a start says of the log directories: how the last life ended in each, and what it took to open its logs.

use crate::ids::LogDirId;
use crate::io::{Level, Outbox, Part};
use crate::storage::{Booted, DirState, Log, Recovery};
use crate::time::{Mono, Now};

const PART: Part = Part::Storage;

/// The directories whose logs are being opened; none once they are.
#[derive(Debug, Default)]
pub struct Openings {
    began: Mono,
    dirs: Vec<Opening>,
}

#[derive(Debug)]
struct Opening {
    dir: LogDirId,
    path: String,
    is_clean: bool,
    logs: usize,
    recovery: Recovery,
    /// When the last of its logs was open.
    ended: Mono,
}

impl Openings {
    /// Says how the last life ended. `path_of` gives the directories' names.
    pub fn begin<'a>(now: Now, booted: &Booted, path_of: impl Fn(LogDirId) -> &'a str, out: &mut Outbox) -> Self {
        let known = booted.dirs.iter().filter(|state| !state.is_new);
        let opening = |state: &DirState| {
            let path = path_of(state.dir);
            let text = match state.clean {
                true => format!("{path}: the last stop was clean"),
                false => format!("{path}: the last stop was not clean; its logs are recovered"),
            };
            out.event(Level::Info, PART, text);
            Opening {
                dir: state.dir,
                path: path.to_owned(),
                is_clean: state.clean,
                logs: 0,
                recovery: Recovery::default(),
                ended: now.mono,
            }
        };
        Self { began: now.mono, dirs: known.map(opening).collect() }
    }

    /// A log is open that lay on the disk.
    pub fn opened(&mut self, now: Now, log: &Log) {
        if let Some(opening) = self.dirs.iter_mut().find(|opening| opening.dir == log.place().dir) {
            opening.logs += 1;
            opening.recovery.add(log.recovery());
            opening.ended = now.mono;
        }
    }

    /// All are open, or have failed, which was said already.
    pub fn end(self, out: &mut Outbox) {
        for Opening { path, is_clean, logs, recovery, ended, .. } in self.dirs {
            let (logs, ms) = (count(logs as u64, "log"), ended.since(self.began).as_millis());
            let text = match is_clean {
                true => format!("{path}: {logs} opened in {ms} ms"),
                false => format!(
                    "{path}: {logs} recovered in {ms} ms; scanned {} of {}, cut {}",
                    count(recovery.scanned_bytes, "byte"),
                    count(recovery.scanned_segments, "segment"),
                    count(recovery.cut_bytes, "byte"),
                ),
            };
            out.event(Level::Info, PART, text);
        }
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

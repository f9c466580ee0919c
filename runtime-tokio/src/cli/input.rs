//! Standard input as records. It is read and parsed on a thread of its own, because a read from a terminal or a pipe
//! blocks, possibly for a long time.

use super::output::Format;
use super::record::JsonRecord;
use bytes::Bytes;
use bytestring::ByteString;
use std::io::{BufRead, BufReader, Read};
use tidelog_client::producer::ProducerRecord;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const BUFFER_BYTES: usize = 256 << 10;
/// Records that are handed over together, at most.
const CHUNK_RECORDS_MAX: usize = 1_000;
/// So many chunks may wait to be taken. This and the producer's buffer bound how far the input is read ahead.
const CHUNKS_MAX: usize = 4;

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub struct LineFormat {
    pub topic: ByteString,
    pub format: Format,
    pub key_separator: Option<String>,
    /// A key or value that is this text becomes null.
    pub null: Option<String>,
    /// If set, they replace what a JSON line says.
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    /// In addition to those of the line.
    pub headers: Vec<(ByteString, Option<Bytes>)>,
    /// A longer line is refused.
    pub line_bytes_max: usize,
}

/// Records whose ids are the numbers of their lines. An error says what is wrong with the next line; nothing follows
/// it.
pub type Chunk = Result<Vec<ProducerRecord>, String>;

/// Reads until the end of the input, or until a line that is refused.
pub fn read(source: impl Read + Send + 'static, format: LineFormat) -> Receiver<Chunk> {
    let (sender, receiver) = channel(CHUNKS_MAX);
    std::thread::spawn(move || Lines { source: BufReader::with_capacity(BUFFER_BYTES, source), format }.run(&sender));
    receiver
}

struct Lines<R> {
    source: BufReader<R>,
    format: LineFormat,
}

impl<R: Read> Lines<R> {
    fn run(mut self, sender: &Sender<Chunk>) {
        let mut records = Vec::new();
        for number in 1.. {
            let next = self.next(number);
            let is_end = !matches!(next, Ok(Some(_)));
            let error = match next {
                Ok(record) => {
                    records.extend(record);
                    None
                }
                Err(text) => Some(format!("line {number} of standard input: {text}")),
            };
            // As long as a whole line is buffered, the next read does not block, and the chunk can grow.
            let is_last_for_now = !self.source.buffer().contains(&b'\n');
            let is_due = is_end || is_last_for_now || records.len() >= CHUNK_RECORDS_MAX;
            if is_due && !records.is_empty() && sender.blocking_send(Ok(std::mem::take(&mut records))).is_err() {
                return;
            }
            if let Some(text) = error {
                let _ = sender.blocking_send(Err(text));
            }
            if is_end {
                return;
            }
        }
    }

    fn next(&mut self, number: u64) -> Result<Option<ProducerRecord>, String> {
        let max = self.format.line_bytes_max;
        let mut line = Vec::new();
        let mut limited = self.source.by_ref().take(max as u64 + 1);
        limited.read_until(b'\n', &mut line).map_err(|error| format!("it cannot be read: {error}"))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > max {
            return Err(format!("it is longer than {max} bytes; -X max.request.size=BYTES allows more"));
        }
        self.format.record(number, line.into()).map(Some)
    }
}

impl LineFormat {
    fn record(&self, id: u64, line: Bytes) -> Result<ProducerRecord, String> {
        let mut record = ProducerRecord {
            id,
            topic: self.topic.clone(),
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let unless_null =
            |field: Bytes| Some(field).filter(|field| self.null.as_ref().is_none_or(|null| null != field));
        match (self.format, &self.key_separator) {
            (Format::Json, _) => JsonRecord::parse(&line)?.fill(&mut record),
            (Format::Text, None) => record.value = unless_null(line),
            (Format::Text, Some(separator)) => {
                let place = line.windows(separator.len()).position(|window| window == separator.as_bytes());
                let place = place.ok_or_else(|| format!("there is no key separator {separator:?} in it"))?;
                record.key = unless_null(line.slice(..place));
                record.value = unless_null(line.slice(place + separator.len()..));
            }
        }
        record.partition = self.partition.or(record.partition);
        record.timestamp = self.timestamp.or(record.timestamp);
        record.headers.extend(self.headers.iter().cloned());
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> LineFormat {
        LineFormat {
            topic: "t".into(),
            format: Format::Text,
            key_separator: None,
            null: None,
            partition: None,
            timestamp: None,
            headers: Vec::new(),
            line_bytes_max: 100,
        }
    }

    fn read_all(text: &str, format: LineFormat) -> (Vec<ProducerRecord>, Option<String>) {
        let mut chunks = read(std::io::Cursor::new(text.as_bytes().to_vec()), format);
        let (mut records, mut error) = (Vec::new(), None);
        while let Some(chunk) = chunks.blocking_recv() {
            assert_eq!(error, None, "nothing comes behind an error");
            match chunk {
                Ok(some) => records.extend(some),
                Err(text) => error = Some(text),
            }
        }
        (records, error)
    }

    #[test]
    fn each_line_is_a_record_with_its_number_and_the_last_needs_no_end() {
        let (records, error) = read_all("a\n\n c ", format());
        let read: Vec<_> = records.iter().map(|record| (record.id, record.value.as_deref().unwrap())).collect();
        assert_eq!(read, [(1, &b"a"[..]), (2, b""), (3, b" c ")]);
        assert_eq!(error, None);
    }

    #[test]
    fn the_key_ends_at_the_first_separator_and_null_can_be_said() {
        let with_keys = LineFormat { key_separator: Some("::".into()), null: Some("-".into()), ..format() };
        let (records, error) = read_all("k::v::w\n-::-\nnone\nx::y\n", with_keys);
        let read: Vec<_> = records.iter().map(|record| (record.key.as_deref(), record.value.as_deref())).collect();
        assert_eq!(read, [(Some(&b"k"[..]), Some(&b"v::w"[..])), (None, None)]);
        insta::assert_snapshot!(error.unwrap(), @r#"line 3 of standard input: there is no key separator "::" in it"#);
    }

    #[test]
    fn what_the_command_line_says_wins_over_what_a_line_says() {
        let json = LineFormat {
            format: Format::Json,
            partition: Some(1),
            timestamp: Some(7),
            headers: vec![("b".into(), None)],
            ..format()
        };
        let line = r#"{"partition":0,"timestamp":1,"value":"v","headers":[{"key":"a","value":null}]}"#;
        let (records, error) = read_all(line, json);
        assert_eq!(error, None);
        assert_eq!((records[0].partition, records[0].timestamp), (Some(1), Some(7)));
        assert_eq!(records[0].headers, [("a".into(), None), ("b".into(), None)]);
    }

    #[test]
    fn a_line_without_an_end_is_not_read_without_end() {
        let (records, error) = read_all(&format!("{}\n{}", "a".repeat(100), "b".repeat(101)), format());
        assert_eq!(records.len(), 1);
        insta::assert_snapshot!(error.unwrap(), @"line 2 of standard input: it is longer than 100 bytes; -X max.request.size=BYTES allows more");
    }
}

//! The small text files: offset checkpoints, `partition.metadata`, `meta.properties`, the clean-shutdown marker.
//!
//! Each has an `encode` and a `decode`. If a file cannot be read, the [`TextFileError`] names the file and the line,
//! what was found, and what is allowed. The caller decides what follows: a checkpoint is rebuilt, a `meta.properties`
//! is not.

use super::names::TopicPartition;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use tidelog_wire::ids::{NodeId, Offset, Uuid};

/// Why a text file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFileError {
    #[error("{file}: not UTF-8 text")]
    NotText { file: String },
    #[error("{file}: line {line} is {found:?}, expected {allowed}")]
    Line { file: String, line: usize, found: String, allowed: &'static str },
    #[error("{file}: the number of entries is {announced}, but there are {held}")]
    Count { file: String, announced: u64, held: u64 },
    #[error("{file}: {key} is missing")]
    MissingKey { file: String, key: &'static str },
    #[error("{file}: {key} is {found:?}, expected {allowed}")]
    Value { file: String, key: &'static str, found: String, allowed: &'static str },
}

/// How much of a wrong line an error quotes.
const QUOTED_CHARS_MAX: usize = 80;

fn quote(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

fn as_text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, TextFileError> {
    str::from_utf8(bytes).map_err(|_| TextFileError::NotText { file: file.to_owned() })
}

/// Writes the common format of Kafka's checkpoints: a line with the version 0, a line with the number of entries, and
/// one line for each entry.
pub(super) fn encode_entries<E: Display>(entries: impl ExactSizeIterator<Item = E>) -> Bytes {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        writeln!(text, "{entry}").expect("writing to a String");
    }
    text.into()
}

/// Reads the common format of Kafka's checkpoints. `entry` parses the fields of a line. An empty file, or one with the
/// version alone, has no entries, because Kafka creates its checkpoints empty.
pub(super) fn decode_entries<E>(
    file: &str,
    bytes: &[u8],
    allowed: &'static str,
    mut entry: impl FnMut(&[&str]) -> Option<E>,
) -> Result<Vec<E>, TextFileError> {
    let wrong = |line: usize, found: &str, allowed| TextFileError::Line {
        file: file.to_owned(),
        line,
        found: quote(found),
        allowed,
    };
    let mut lines = as_text(file, bytes)?.lines();
    match lines.next() {
        None => return Ok(Vec::new()),
        Some("0") => {}
        Some(version) => return Err(wrong(1, version, "the version 0")),
    }
    let Some(count) = lines.next() else { return Ok(Vec::new()) };
    let announced: u64 = count.trim().parse().map_err(|_| wrong(2, count, "the number of entries"))?;
    let mut entries = Vec::new();
    for (place, line) in lines.enumerate() {
        let fields: smallvec::SmallVec<[&str; 4]> = line.split_ascii_whitespace().collect();
        entries.push(entry(&fields).ok_or_else(|| wrong(place + 3, line, allowed))?);
    }
    if entries.len() as u64 != announced {
        return Err(TextFileError::Count { file: file.to_owned(), announced, held: entries.len() as u64 });
    }
    Ok(entries)
}

/// The content of a recovery-point, log-start or replication checkpoint: an offset for each partition of a log
/// directory.
pub type Offsets = BTreeMap<TopicPartition, Offset>;

pub fn encode_offsets(offsets: &Offsets) -> Bytes {
    struct Line<'a>(&'a TopicPartition, Offset);
    impl Display for Line<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{} {} {}", self.0.topic, self.0.partition, self.1)
        }
    }
    encode_entries(offsets.iter().map(|(partition, offset)| Line(partition, *offset)))
}

/// If a partition has two lines, the later one counts.
pub fn decode_offsets(file: &str, bytes: &[u8]) -> Result<Offsets, TextFileError> {
    let entries = decode_entries(file, bytes, "<topic> <partition> <offset>, both numbers from 0 on", |fields| {
        let &[topic, partition, offset] = fields else { return None };
        let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
        Some((TopicPartition::new(topic, partition), Offset(offset)))
    })?;
    Ok(entries.into_iter().collect())
}

/// The content of `partition.metadata`: the topic id of a partition's directory (KIP-516).
pub fn encode_partition_metadata(topic_id: Uuid) -> Bytes {
    format!("version: 0\ntopic_id: {topic_id}").into()
}

/// Any version from 0 on is read, so that this broker can start after a later version has written the file.
pub fn decode_partition_metadata(file: &str, bytes: &[u8]) -> Result<Uuid, TextFileError> {
    let mut lines = as_text(file, bytes)?.lines();
    let version = lines.next().unwrap_or_default();
    let value = |line: &'_ str, key: &str| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned());
    if value(version, "version").and_then(|number| number.parse::<u16>().ok()).is_none() {
        let (found, allowed) = (quote(version), "`version: 0`");
        return Err(TextFileError::Line { file: file.to_owned(), line: 1, found, allowed });
    }
    let topic_id = lines.next().unwrap_or_default();
    match value(topic_id, "topic_id").and_then(|id| Uuid::parse(&id)) {
        Some(id) if id != Uuid::ZERO => Ok(id),
        _ => {
            let (found, allowed) = (quote(topic_id), "`topic_id: ` and the 22 characters of an id that is not zero");
            Err(TextFileError::Line { file: file.to_owned(), line: 2, found, allowed })
        }
    }
}

/// The content of `meta.properties`: the cluster and the node to which a log directory belongs, and its own id. In
/// version 1 the cluster id and the node id are always there. In version 0 (before KRaft) the node id is called
/// `broker.id`, and any key may be missing. The directory id was added by KIP-858.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaProperties {
    pub version: u8,
    pub cluster_id: Option<ByteString>,
    pub node_id: Option<NodeId>,
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    pub fn encode(&self) -> Bytes {
        let node_key = if self.version == 0 { "broker.id" } else { "node.id" };
        let mut text = format!("#\nversion={}\n", self.version);
        let mut put = |key: &str, value: String| {
            writeln!(text, "{key}={}", escape_property(&value)).expect("writing to a String");
        };
        if let Some(cluster_id) = &self.cluster_id {
            put("cluster.id", cluster_id.to_string());
        }
        if let Some(node_id) = self.node_id {
            put(node_key, node_id.to_string());
        }
        if let Some(directory_id) = self.directory_id {
            put("directory.id", directory_id.to_string());
        }
        text.into()
    }

    pub fn decode(file: &str, bytes: &[u8]) -> Result<Self, TextFileError> {
        let properties = parse_properties(as_text(file, bytes)?);
        let wrong = |key, found: &str, allowed| TextFileError::Value {
            file: file.to_owned(),
            key,
            found: quote(found),
            allowed,
        };
        let missing = |key| TextFileError::MissingKey { file: file.to_owned(), key };
        let version = match properties.get("version").map_or("0", |version| version.trim()) {
            "0" => 0,
            "1" => 1,
            other => return Err(wrong("version", other, "0 or 1")),
        };
        let node_key = if version == 0 { "broker.id" } else { "node.id" };
        let node_id = properties
            .get(node_key)
            .map(|id| id.trim().parse().map(NodeId).map_err(|_| wrong(node_key, id, "an integer of 32 bits")))
            .transpose()?;
        let directory_id = properties
            .get("directory.id")
            .map(|id| {
                // Kafka reserves the ids 0 to 99, for example for directories that are lost or unassigned (KIP-858).
                let id_read = Uuid::parse(id.trim()).filter(|id| id.0.as_u128() >= 100);
                id_read.ok_or_else(|| wrong("directory.id", id, "the 22 characters of an id that is not reserved"))
            })
            .transpose()?;
        let cluster_id = properties.get("cluster.id").map(|id| ByteString::from(id.as_str()));
        if version == 1 && cluster_id.is_none() {
            return Err(missing("cluster.id"));
        }
        if version == 1 && node_id.is_none() {
            return Err(missing("node.id"));
        }
        Ok(Self { version, cluster_id, node_id, directory_id })
    }
}

/// Reads the syntax of `java.util.Properties`: comments, continued lines, `=`, `:` or a blank between key and value,
/// and escapes. Unlike Java, it reads the text as UTF-8.
fn parse_properties(text: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut lines = text.split(['\n', '\r']);
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.starts_with(['#', '!']) {
            continue;
        }
        while logical.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
            logical.pop();
            let Some(next) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let (key, rest) = unescape_until(&logical, |c| matches!(c, '=' | ':' | ' ' | '\t' | '\x0c'));
        let rest = rest.trim_start();
        let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
        let (value, _) = unescape_until(rest, |_| false);
        if !key.is_empty() {
            properties.insert(key, value);
        }
    }
    properties
}

/// Unescapes the text up to the first character for which `ends` is true. Returns it, and the rest from that character
/// on.
fn unescape_until(text: &str, ends: impl Fn(char) -> bool) -> (String, &str) {
    // UTF-16, because a character beyond 16 bits is escaped as two UTF-16 units.
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.char_indices();
    let mut rest = "";
    while let Some((place, c)) = chars.next() {
        if ends(c) {
            rest = &text[place..];
            break;
        }
        let unescaped = match c {
            '\\' => match chars.next() {
                None => break,
                Some((_, 't')) => '\t',
                Some((_, 'n')) => '\n',
                Some((_, 'r')) => '\r',
                Some((_, 'f')) => '\x0c',
                Some((_, 'u')) => {
                    let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap_or(char::REPLACEMENT_CHARACTER as u16));
                    continue;
                }
                Some((_, other)) => other,
            },
            c => c,
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut [0; 2]));
    }
    (String::from_utf16_lossy(&units), rest)
}

fn escape_property(value: &str) -> String {
    let mut escaped = String::new();
    for (place, c) in value.chars().enumerate() {
        match c {
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\x0c' => escaped.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => escaped.extend(['\\', c]),
            ' ' if place == 0 => escaped.push_str("\\ "),
            // Java reads the file as Latin-1, so characters that are not ASCII are escaped as UTF-16 units.
            c if !(' '..='~').contains(&c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(escaped, "\\u{unit:04X}").expect("writing to a String");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The content of `.kafka_cleanshutdown`, whose presence means that the last stop was clean. It holds the broker epoch
/// of that run. With it the controller can tell that the broker has not run uncleanly since (KIP-966).
pub fn encode_clean_shutdown(broker_epoch: i64) -> Bytes {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}").into()
}

/// The broker epoch in a clean-shutdown marker. `None` if it has none: older versions of Kafka write an empty file.
pub fn decode_clean_shutdown(bytes: &[u8]) -> Option<i64> {
    let object = str::from_utf8(bytes).ok()?.trim().strip_prefix('{')?.strip_suffix('}')?;
    object.split(',').find_map(|member| {
        let (key, value) = member.split_once(':')?;
        if key.trim() == "\"brokerEpoch\"" { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_read_as_kafka_writes_them() {
        let offsets = decode_offsets("x", b"0\n2\nt-1 0 5\nother 12  0\n").unwrap();
        assert_eq!(offsets[&TopicPartition::new("t-1", 0)], Offset(5));
        assert_eq!(encode_offsets(&offsets), "0\n2\nother 12 0\nt-1 0 5\n");
        assert!(decode_offsets("x", b"").unwrap().is_empty(), "a file that was created and never written");
        assert!(decode_offsets("x", b"0\r\n0\r\n").unwrap().is_empty());
    }

    #[test]
    fn a_broken_checkpoint_says_what_is_wrong_where() {
        let errors: Vec<String> = [
            "1\n0\n",
            "0\nmany\n",
            "0\n2\na 0 1\n",
            "0\n1\na 0 1\nb 0 2\n",
            "0\n1\na 0\n",
            "0\n1\na 0 -1\n",
            "0\n2\na 0 1\n\n",
            "\n",
        ]
        .iter()
        .map(|text| decode_offsets("dir/checkpoint", text.as_bytes()).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        dir/checkpoint: line 1 is "1", expected the version 0
        dir/checkpoint: line 2 is "many", expected the number of entries
        dir/checkpoint: the number of entries is 2, but there are 1
        dir/checkpoint: the number of entries is 1, but there are 2
        dir/checkpoint: line 3 is "a 0", expected <topic> <partition> <offset>, both numbers from 0 on
        dir/checkpoint: line 3 is "a 0 -1", expected <topic> <partition> <offset>, both numbers from 0 on
        dir/checkpoint: line 4 is "", expected <topic> <partition> <offset>, both numbers from 0 on
        dir/checkpoint: line 1 is "", expected the version 0
        "#);
        assert_eq!(decode_offsets("x", b"\xff").unwrap_err().to_string(), "x: not UTF-8 text");
    }

    #[test]
    fn partition_metadata_reads_as_kafka_writes_it() {
        let text = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
        assert_eq!(encode_partition_metadata(Uuid::METADATA_TOPIC), text);
        assert_eq!(decode_partition_metadata("x", text.as_bytes()), Ok(Uuid::METADATA_TOPIC));
        let later = "version: 3\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\nmore: 1\n";
        assert_eq!(decode_partition_metadata("x", later.as_bytes()), Ok(Uuid::METADATA_TOPIC));
        for broken in [
            "",
            "version: 0",
            "version: -1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
            "topic_id: AAAAAAAAAAAAAAAAAAAAAQ\nversion: 0",
        ] {
            assert!(decode_partition_metadata("x", broken.as_bytes()).is_err(), "{broken:?}");
        }
        assert_eq!(
            decode_partition_metadata("x", b"version: 0\ntopic_id: no").unwrap_err().to_string(),
            r#"x: line 2 is "topic_id: no", expected `topic_id: ` and the 22 characters of an id that is not zero"#
        );
    }

    #[test]
    fn meta_properties_of_both_versions_read() {
        let text = b"#\n#Mon Nov 03 10:00:00 UTC 2025\nnode.id=1\nversion=1\ndirectory.id=vTr0bEQBQ3qHdxPCVLU5Wg\ncluster.id=ab\\=\\=\n";
        let read = MetaProperties::decode("x", text).unwrap();
        assert_eq!(read.cluster_id.as_deref(), Some("ab=="));
        assert_eq!((read.version, read.node_id), (1, Some(NodeId(1))));
        assert_eq!(read.directory_id, Uuid::parse("vTr0bEQBQ3qHdxPCVLU5Wg"));
        let old = MetaProperties::decode("x", b"broker.id : 7\r\n").unwrap();
        assert_eq!(old, MetaProperties { node_id: Some(NodeId(7)), ..Default::default() });
        assert_eq!(
            read.encode(),
            "#\nversion=1\ncluster.id=ab\\=\\=\nnode.id=1\ndirectory.id=vTr0bEQBQ3qHdxPCVLU5Wg\n"
        );
    }

    #[test]
    fn a_property_is_escaped_as_in_java_and_read_back() {
        for (value, escaped) in [
            (" a b ", r"\ a b "),
            ("a=b:c#d!e\\f", r"a\=b\:c\#d\!e\\f"),
            ("a\tb\nc\rd\x0c", r"a\tb\nc\rd\f"),
            ("~\x7f\u{e4}\u{20ac}\u{1f600}", r"~\u007F\u00E4\u20AC\uD83D\uDE00"),
        ] {
            assert_eq!(escape_property(value), escaped);
            assert_eq!(parse_properties(&format!("key={escaped}"))["key"], value);
        }
    }

    #[test]
    fn a_line_that_ends_with_an_odd_number_of_backslashes_continues_in_the_next() {
        let read = parse_properties("a=1\\\n  2\\\r3\nb=4\\\\\nc=5\\");
        let expected = [("a", "123"), ("b", "4\\"), ("c", "5")];
        assert!(read.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected), "{read:?}");
    }

    #[test]
    fn broken_meta_properties_name_the_key_and_what_is_allowed() {
        let errors: Vec<String> = [
            "version=2",
            "version=1\nnode.id=1",
            "version=1\ncluster.id=a",
            "version=1\ncluster.id=a\nnode.id=one",
            "directory.id=AAAAAAAAAAAAAAAAAAAAAQ",
        ]
        .iter()
        .map(|text| MetaProperties::decode("meta.properties", text.as_bytes()).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        meta.properties: version is "2", expected 0 or 1
        meta.properties: cluster.id is missing
        meta.properties: node.id is missing
        meta.properties: node.id is "one", expected an integer of 32 bits
        meta.properties: directory.id is "AAAAAAAAAAAAAAAAAAAAAQ", expected the 22 characters of an id that is not reserved
        "#);
    }

    #[test]
    fn the_clean_shutdown_marker_reads_as_kafka_writes_it() {
        assert_eq!(encode_clean_shutdown(12), r#"{"version":0,"brokerEpoch":12}"#);
        assert_eq!(decode_clean_shutdown(br#"{"version":0,"brokerEpoch":12}"#), Some(12));
        assert_eq!(decode_clean_shutdown(b" { \"brokerEpoch\" : -1 , \"later\" : \"x\" } \n"), Some(-1));
        for broken in ["", "{}", "brokerEpoch", r#"{"brokerEpoch":null}"#, r#"{"brokerEpoch":1"#] {
            assert_eq!(decode_clean_shutdown(broken.as_bytes()), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn offsets_round_trip(entries in proptest::collection::btree_map(("[a-zA-Z0-9._-]{1,20}", 0i32..), 0i64.., 0..30)) {
            let offsets: Offsets =
                entries.into_iter().map(|((t, p), o)| (TopicPartition::new(t, p), Offset(o))).collect();
            prop_assert_eq!(decode_offsets("x", &encode_offsets(&offsets)), Ok(offsets));
        }

        #[test]
        fn meta_properties_round_trip(
            version in 0u8..2, cluster_id in "[ -~\t\n\u{e4}\u{20ac}]{1,30}", node_id: i32, id in 100u128..,
        ) {
            let meta = MetaProperties {
                version,
                cluster_id: Some(cluster_id.into()),
                node_id: Some(NodeId(node_id)),
                directory_id: Some(Uuid(uuid::Uuid::from_u128(id))),
            };
            prop_assert_eq!(MetaProperties::decode("x", &meta.encode()), Ok(meta));
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9=:#!\\\\ \t\r\n.\u{e4}]*", bytes: Vec<u8>) {
            for bytes in [text.as_bytes(), &bytes] {
                let _ = decode_offsets("x", bytes);
                let _ = decode_partition_metadata("x", bytes);
                let _ = MetaProperties::decode("x", bytes);
                let _ = decode_clean_shutdown(bytes);
            }
        }
    }
}

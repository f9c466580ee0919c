//! Where in a partition reading begins.

use super::super::Failure;
use super::super::record::parse_time;
use super::super::topic::Offsets;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidelog_client::TopicPartition;
use tidelog_client::consumer::Start;

const ALLOWED: &str = "allowed is a number, earliest, latest, -N, a time ago such as -1h, 30m or 2d, a time in UTC such \
                       as 2026-11-21T18:00:00Z, or @MILLISECONDS since 1970";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Earliest,
    Latest,
    Offset(i64),
    /// So many records before the end.
    Last(i64),
    /// At the first record of this time or later, in milliseconds since 1970.
    Time(i64),
    /// At the first record that is not older.
    Ago(Duration),
}

impl Begin {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" | "beginning" => return Ok(Self::Earliest),
            "latest" | "end" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(number) = parse_number(text) {
            return Ok(match number {
                0 if text.starts_with('-') => Self::Latest,
                0.. => Self::Offset(number),
                _ => Self::Last(number.checked_neg().ok_or(ALLOWED)?),
            });
        }
        if let Some(ms) = text.strip_prefix('@') {
            return Ok(Self::Time(ms.parse().ok().filter(|ms| *ms >= 0).ok_or(ALLOWED)?));
        }
        if let Ok(ago) = humantime::parse_duration(text.strip_prefix('-').unwrap_or(text)) {
            return Ok(Self::Ago(ago));
        }
        Ok(Self::Time(parse_time(text).map_err(|_| ALLOWED)?))
    }

    /// Where that is in a partition that begins and ends there.
    pub fn start(self, partition: &TopicPartition, Offsets { earliest, latest }: Offsets) -> Result<Start, Failure> {
        let offset = match self {
            Self::Time(ms) => return Ok(Start::Timestamp(ms)),
            Self::Ago(ago) => return Ok(Start::Timestamp(before(SystemTime::now(), ago))),
            Self::Earliest => earliest,
            Self::Latest => latest,
            Self::Last(count) => (latest - count).max(earliest),
            Self::Offset(offset) if (earliest..=latest).contains(&offset) => offset,
            Self::Offset(offset) => {
                let text = format!(
                    "cannot begin at offset {offset} of {partition}: its records are those from {earliest} to before \
                     {latest}\n  --partition chooses a partition, --offset earliest begins with what there is"
                );
                return Err(Failure::of(text));
            }
        };
        Ok(Start::Offset { offset, epoch: None })
    }
}

/// A whole number, also with the separators that tables for people have.
fn parse_number(text: &str) -> Option<i64> {
    let mut groups = text.trim_start_matches('-').split(',').skip(1);
    groups.all(|group| group.len() == 3).then(|| text.replace(',', "").parse().ok())?
}

/// In milliseconds since 1970; times before that are the beginning of 1970.
fn before(now: SystemTime, ago: Duration) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_is_a_number_a_word_or_a_time() {
        let seconds = |count| Begin::Ago(Duration::from_secs(count));
        for (text, from) in [
            ("0", Begin::Offset(0)),
            ("15", Begin::Offset(15)),
            ("1,500", Begin::Offset(1500)),
            ("-3", Begin::Last(3)),
            ("-0", Begin::Latest),
            ("earliest", Begin::Earliest),
            ("latest", Begin::Latest),
            ("@5", Begin::Time(5)),
            ("1970-01-01T00:00:01Z", Begin::Time(1000)),
            ("1970-01-02", Begin::Time(86_400_000)),
            ("-1h", seconds(3600)),
            ("30m", seconds(1800)),
            ("-2d", seconds(2 * 86_400)),
            ("1h30m", seconds(5400)),
            ("500ms", Begin::Ago(Duration::from_millis(500))),
        ] {
            assert_eq!(Begin::parse(text), Ok(from), "{text}");
        }
        for text in ["", "soon", "@", "@-1", "1.5", "1,5", "-9223372036854775808", "--1h", "-1x", "h", "-2026-11-21"] {
            assert!(Begin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_ago_counts_from_now_and_ends_in_1970() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        assert_eq!(before(now, Duration::from_secs(3600)), 6_400_000);
        assert_eq!(before(now, Duration::from_secs(86_400)), 0);
    }

    #[test]
    fn the_last_records_are_no_more_than_there_are_and_an_offset_must_be_there() {
        let (partition, offsets) = (TopicPartition::new("t", 0), Offsets { earliest: 10, latest: 20 });
        let start = |from: Begin| match from.start(&partition, offsets) {
            Ok(Start::Offset { offset, epoch: None }) => Ok(offset),
            Ok(start) => panic!("{start:?}"),
            Err(failure) => Err(failure.text),
        };
        assert_eq!(start(Begin::Last(3)), Ok(17));
        assert_eq!(start(Begin::Last(300)), Ok(10));
        assert_eq!((start(Begin::Offset(10)), start(Begin::Offset(20))), (Ok(10), Ok(20)));
        insta::assert_snapshot!(start(Begin::Offset(21)).unwrap_err(), @"
        cannot begin at offset 21 of t-0: its records are those from 10 to before 20
          --partition chooses a partition, --offset earliest begins with what there is
        ");
    }
}

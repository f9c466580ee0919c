//! A format string, with the directives that `kcat -f` has: how each record is printed.

use super::super::record::write_headers;
use bytes::Bytes;
use std::io::{self, Write};
use tidelog_core::batch::Record;

const DIRECTIVES: &str = "allowed is %t (topic), %p (partition), %o (offset), %k (key), %v or %s (value), %K and %S (the \
                          bytes of key and value, -1 where there is none), %T (time in milliseconds since 1970), \
                          %h (headers) and %%";
const ESCAPES: &str = r"allowed is \n, \r, \t, \0, \\ and \xNN with two hexadecimal digits";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLen,
    Value,
    ValueLen,
    Timestamp,
    Headers,
}

impl Template {
    /// Reads a format string; an error says what in it is wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let piece = match char {
                '\\' => {
                    bytes.push(escaped(&mut chars)?);
                    continue;
                }
                '%' => match chars.next() {
                    Some('%') => {
                        bytes.push(b'%');
                        continue;
                    }
                    Some('t') => Piece::Topic,
                    Some('p') => Piece::Partition,
                    Some('o') => Piece::Offset,
                    Some('k') => Piece::Key,
                    Some('K') => Piece::KeyLen,
                    Some('v' | 's') => Piece::Value,
                    Some('S') => Piece::ValueLen,
                    Some('T') => Piece::Timestamp,
                    Some('h') => Piece::Headers,
                    Some(other) => return Err(format!("%{other} is no directive; {DIRECTIVES}")),
                    None => return Err(format!("nothing stands behind the last %; {DIRECTIVES}")),
                },
                other => {
                    bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !bytes.is_empty() {
                pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
            }
            pieces.push(piece);
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(Self(pieces))
    }

    /// Prints a record; `null` stands for a key or value that there is not.
    pub fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        partition: i32,
        record: &Record,
        null: &str,
    ) -> io::Result<()> {
        let len = |field: &Option<Bytes>| field.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.write_all(bytes)?,
                Piece::Topic => out.write_all(topic.as_bytes())?,
                Piece::Partition => write!(out, "{partition}")?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key => out.write_all(record.key.as_deref().unwrap_or(null.as_bytes()))?,
                Piece::KeyLen => write!(out, "{}", len(&record.key))?,
                Piece::Value => out.write_all(record.value.as_deref().unwrap_or(null.as_bytes()))?,
                Piece::ValueLen => write!(out, "{}", len(&record.value))?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::Headers => write_headers(out, record, null)?,
            }
        }
        Ok(())
    }
}

/// The byte that an escape stands for, of which the backslash is read.
fn escaped(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.take(2).collect();
            let is_hex = digits.len() == 2 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            byte.ok_or_else(|| format!(r"\x{digits} is no escape; {ESCAPES}"))
        }
        Some(other) => Err(format!(r"\{other} is no escape; {ESCAPES}")),
        None => Err(format!(r"nothing stands behind the last \; {ESCAPES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::batch::RecordHeader;
    use tidelog_core::ids::Offset;

    fn printed(format: &str, record: &Record) -> String {
        let mut out = Vec::new();
        Template::parse(format).unwrap().write(&mut out, "orders", 3, record, "NULL").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_directive_and_escape_stands_for_what_kcat_prints() {
        let record = Record {
            offset: Offset(5),
            timestamp: 1_700_000_000_123,
            key: Some("kä".into()),
            value: None,
            headers: vec![
                RecordHeader { key: "a".into(), value: Some("1".into()) },
                RecordHeader { key: "b".into(), value: None },
            ],
        };
        assert_eq!(printed("%t [%p] at %o", &record), "orders [3] at 5");
        assert_eq!(printed(r"%k\t%v %s\n", &record), "kä\tNULL NULL\n");
        assert_eq!(printed("%K %S %T %h", &record), "3 -1 1700000000123 a=1,b=NULL");
        assert_eq!(printed(r"100%% \x41\0\\\r ä", &record), "100% A\0\\\r ä");
    }

    #[test]
    fn what_is_no_directive_is_named_with_those_that_are() {
        let refused = |format: &str| Template::parse(format).unwrap_err();
        insta::assert_snapshot!(refused("%k %z"), @"%z is no directive; allowed is %t (topic), %p (partition), %o (offset), %k (key), %v or %s (value), %K and %S (the bytes of key and value, -1 where there is none), %T (time in milliseconds since 1970), %h (headers) and %%");
        insta::assert_snapshot!(refused("100%"), @"nothing stands behind the last %; allowed is %t (topic), %p (partition), %o (offset), %k (key), %v or %s (value), %K and %S (the bytes of key and value, -1 where there is none), %T (time in milliseconds since 1970), %h (headers) and %%");
        insta::assert_snapshot!(refused(r"%v\q"), @r"\q is no escape; allowed is \n, \r, \t, \0, \\ and \xNN with two hexadecimal digits");
        insta::assert_snapshot!(refused(r"%v\x4"), @r"\x4 is no escape; allowed is \n, \r, \t, \0, \\ and \xNN with two hexadecimal digits");
        insta::assert_snapshot!(refused(r"%v\"), @r"nothing stands behind the last \; allowed is \n, \r, \t, \0, \\ and \xNN with two hexadecimal digits");
    }
}

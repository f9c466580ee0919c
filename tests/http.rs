//! An HTTP client as a scraper uses it, and a strict parser of Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The timeout of a read, which is only reached if the broker hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The values by the names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Sends `GET` of one path on a new connection.
pub fn get(address: &str, path: &str) -> io::Result<Answer> {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends `text` unchanged on a new connection, and reads until the connection is closed.
pub fn request(address: &str, text: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {bytes:?}"));
    let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| bad("no end of the head"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let headers: Option<BTreeMap<String, String>> = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect();
    Ok(Answer {
        status: status.ok_or_else(|| bad("no status"))?,
        headers: headers.ok_or_else(|| bad("a header without a colon"))?,
        body: body.to_owned(),
    })
}

/// The samples of one scrape. The key is a sample's name with its labels, as written: `name{a="b"}`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
    /// The type of each family.
    pub families: BTreeMap<String, String>,
}

impl Scrape {
    /// The value of one sample.
    #[track_caller]
    pub fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} among {:#?}", self.samples.keys()))
    }

    pub fn find(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    pub fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().map(|(sample, value)| (sample.as_str(), *value))
    }

    /// The samples of counters and summaries that are smaller than in `earlier`.
    pub fn fallen_since<'a>(&'a self, earlier: &'a Self) -> Vec<&'a str> {
        let counts = |sample: &str| {
            let name = sample.split('{').next().unwrap_or(sample);
            let summary = name.strip_suffix("_count").or(name.strip_suffix("_sum"));
            self.families.get(name).is_some_and(|kind| kind == "counter")
                || summary.is_some_and(|name| self.families.get(name).is_some_and(|kind| kind == "summary"))
        };
        let fell =
            |(sample, value): &(&str, f64)| counts(sample) && earlier.find(sample).is_some_and(|was| *value < was);
        self.samples().filter(fell).map(|(sample, _)| sample).collect()
    }

    /// Parses the text format 0.0.4, more strictly than Prometheus does. Every family must have a help and a type
    /// before its samples, which must stand together; no sample may come twice; names, labels and numbers must be
    /// well-formed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut scrape, mut helped, mut family) = (Self::default(), BTreeSet::new(), String::new());
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        for line in text.lines() {
            let fail = |why: &str| Err(format!("{why}: {line}"));
            if let Some(help) = line.strip_prefix("# HELP ") {
                let Some((name, words)) = help.split_once(' ') else { return fail("no help") };
                if !is_name(name) || words.is_empty() || !helped.insert(name.to_owned()) {
                    return fail("a help without a name or text, or a second one");
                }
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let Some((name, kind)) = kind.split_once(' ') else { return fail("no type") };
                if name != family || !["counter", "gauge", "summary"].contains(&kind) {
                    return fail("an unknown type, or one of another family than the help before it");
                }
                if scrape.families.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return fail("a second type");
                }
            } else {
                let (sample, value) = split_sample(line)?;
                let (name, labels) = sample.split_at(sample.find('{').unwrap_or(sample.len()));
                let Some(kind) = scrape.families.get(&family) else { return fail("a sample without a type") };
                let suffix = name.strip_prefix(family.as_str());
                let belongs = match (kind.as_str(), suffix) {
                    ("summary", Some("")) => labels.contains("quantile=\""),
                    ("summary", Some("_sum" | "_count")) => true,
                    (_, suffix) => suffix == Some(""),
                };
                if !belongs {
                    return fail("a sample outside of its family");
                }
                if kind == "counter" && value < 0.0 {
                    return fail("a counter below 0");
                }
                if scrape.samples.insert(sample.to_owned(), value).is_some() {
                    return fail("a sample that comes twice");
                }
            }
        }
        Ok(scrape)
    }
}

/// A sample's name with its labels, and its value.
fn split_sample(line: &str) -> Result<(&str, f64), String> {
    let fail = |why: &str| format!("{why}: {line}");
    let end = match line.find('{') {
        None => line.find(' ').ok_or_else(|| fail("no value"))?,
        Some(open) => {
            if !is_name(&line[..open]) {
                return Err(fail("not a name"));
            }
            open + 1 + end_of_labels(&line[open + 1..]).ok_or_else(|| fail("malformed labels"))?
        }
    };
    let (sample, value) = line.split_at(end);
    if !sample.contains('{') && !is_name(sample) {
        return Err(fail("not a name"));
    }
    let value = value.strip_prefix(' ').and_then(|value| value.parse::<f64>().ok()).filter(|value| value.is_finite());
    Ok((sample, value.ok_or_else(|| fail("not a number"))?))
}

/// The length in bytes of `name="value",…}` at the start of `text`; `None` if it is malformed.
fn end_of_labels(text: &str) -> Option<usize> {
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        if !is_name(name) || name.contains(':') {
            return None;
        }
        let mut characters = after.char_indices();
        let close = loop {
            match characters.next()? {
                (_, '\\') if !matches!(characters.next()?.1, '\\' | '"' | 'n') => return None,
                (place, '"') => break place,
                _ => {}
            }
        };
        rest = &after[close + 1..];
        match rest.chars().next()? {
            ',' => rest = &rest[1..],
            '}' => return Some(text.len() - rest.len() + 1),
            _ => return None,
        }
    }
}

fn is_name(name: &str) -> bool {
    let good = |place: usize, c: char| c.is_ascii_alphabetic() || "_:".contains(c) || (place > 0 && c.is_ascii_digit());
    !name.is_empty() && name.chars().enumerate().all(|(place, c)| good(place, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_scrape_is_read() {
        let text = "# HELP a_total Some.\n# TYPE a_total counter\na_total 3\na_total{t=\"x\\\"{},y\",u=\"\"} 1.5\n\
                    # HELP s Times.\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 1\n";
        let scrape = Scrape::parse(text).unwrap();
        assert_eq!((scrape.value("a_total"), scrape.value("a_total{t=\"x\\\"{},y\",u=\"\"}")), (3.0, 1.5));
        assert_eq!(scrape.families["s"], "summary");
        let less = Scrape::parse(&text.replace("a_total 3", "a_total 2").replace("s_count 1", "s_count 0")).unwrap();
        assert_eq!(less.fallen_since(&scrape), ["a_total", "s_count"]);
    }

    #[test]
    fn a_malformed_scrape_is_refused() {
        let head = "# HELP a Some.\n# TYPE a gauge\n";
        for wrong in [
            "a 1\n",
            "# HELP a Some.\na 1\n",
            &format!("{head}b 1\n"),
            &format!("{head}a 1"),
            &format!("{head}a 1\na 2\n"),
            &format!("{head}a one\n"),
            &format!("{head}a NaN\n"),
            &format!("{head}a{{t=\"x}} 1\n"),
            &format!("{head}a{{t=\"\\x\"}} 1\n"),
            &format!("{head}a{{1t=\"x\"}} 1\n"),
            &format!("{head}a{{t=\"x\"}}1\n"),
            &format!("{head}a{{t=\"x\"y=\"z\"}} 1\n"),
            &format!("{head}{head}a 1\n"),
            "# HELP a Some.\n# TYPE a counter\na -1\n",
            "# HELP a Some.\n# TYPE a summary\na 1\n",
        ] {
            assert!(Scrape::parse(wrong).is_err(), "{wrong}");
        }
    }
}

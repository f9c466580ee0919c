//! A broker's properties, from a file, from the command line, or both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tidelog_core::config::{BrokerConfig, ConfigError, WITHOUT_A_FILE, Warning};

/// A file that is larger is none of properties.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Names with their values.
pub type Properties = BTreeMap<String, String>;

/// What is wrong with what the user gave us.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("cannot read {}: {source}\n  {WANTED}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "cannot read {path}: it is a directory\n  {WANTED}; `tidelog start --override log.dirs={path}` keeps its data \
         there",
        path = .0.display()
    )]
    Directory(PathBuf),
    #[error("cannot read {}: {what}\n  {WANTED}", .path.display())]
    NoProperties { path: PathBuf, what: String },
    #[error("--override {0}: allowed is KEY=VALUE, such as num.partitions=3")]
    Override(String),
    #[error("{}", lines(.0))]
    Config(Vec<ConfigError>),
}

const WANTED: &str = "wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties";

/// The properties of the file, or those that stand in for one, with the overrides over them.
pub fn read(file: Option<&Path>, overrides: &[String]) -> Result<Properties, UsageError> {
    let mut properties = match file {
        Some(path) => read_file(path)?,
        None => WITHOUT_A_FILE.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    };
    for text in overrides {
        let (key, value) = text.split_once('=').ok_or_else(|| UsageError::Override(text.clone()))?;
        if key.trim().is_empty() {
            return Err(UsageError::Override(text.clone()));
        }
        properties.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(properties)
}

/// What a start makes of properties.
pub fn configuration(properties: &Properties) -> Result<(BrokerConfig, Vec<Warning>), UsageError> {
    BrokerConfig::from_properties(properties).map_err(UsageError::Config)
}

/// What formatting makes of properties: a start may not support them yet.
pub fn for_formatting(properties: &Properties) -> Result<(BrokerConfig, Vec<Warning>), UsageError> {
    BrokerConfig::for_formatting(properties).map_err(UsageError::Config)
}

/// The warnings alone, which there are whether or not something is wrong, too.
pub fn warnings(properties: &Properties) -> Vec<Warning> {
    properties.iter().filter_map(|(name, value)| Warning::of_broker(name, value)).collect()
}

fn read_file(path: &Path) -> Result<Properties, UsageError> {
    let failed = |source| match source {
        source if io::Error::kind(&source) == io::ErrorKind::IsADirectory => UsageError::Directory(path.to_owned()),
        source => UsageError::File { path: path.to_owned(), source },
    };
    let none = |what: String| UsageError::NoProperties { path: path.to_owned(), what };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if let Some(place) = bytes.iter().position(|byte| byte.is_ascii_control() && !b"\t\n\x0c\r".contains(byte)) {
        let line = bytes[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
        return Err(none(format!("it is no text: line {line} holds a byte {:#04x}", bytes[place])));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(none(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let properties = java_properties::read(&bytes[..]).map_err(|error| {
        let line = error.line_number().map_or(String::new(), |line| format!("line {line}: "));
        none(format!("{line}an escape such as \\u0041 has four hexadecimal digits"))
    })?;
    Ok(properties.into_iter().collect())
}

fn lines(errors: &[ConfigError]) -> String {
    let mut text = String::from("the configuration cannot be used:");
    for error in errors {
        let _ = write!(text, "\n  {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: Option<&Path>, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        let read = read(file, &overrides).and_then(|properties| configuration(&properties));
        read.unwrap_err().to_string()
    }

    /// What is said of a file with this content, without its name.
    fn refused_content(content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        std::fs::write(&path, content).unwrap();
        refused(Some(&path), &[]).replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn a_file_that_is_not_there_or_no_file_is_named_with_what_is_wanted() {
        insta::assert_snapshot!(refused(Some(Path::new("no-such.properties")), &[]), @"
        cannot read no-such.properties: No such file or directory (os error 2)
          wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties
        ");
        insta::assert_snapshot!(refused(Some(Path::new(".")), &[]), @"
        cannot read .: it is a directory
          wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties; `tidelog start --override log.dirs=.` keeps its data there
        ");
    }

    #[test]
    fn a_file_that_holds_no_properties_is_named_with_the_place() {
        insta::assert_snapshot!(refused_content(b"a=1\n\x7fELF\x02\0"), @"
        cannot read FILE: it is no text: line 2 holds a byte 0x7f
          wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties
        ");
        insta::assert_snapshot!(refused_content(b"a=1\nb=\\u12\n"), @r"
        cannot read FILE: line 2: an escape such as \u0041 has four hexadecimal digits
          wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties
        ");
        insta::assert_snapshot!(refused_content(&vec![b'a'; 5 << 20]), @"
        cannot read FILE: it is larger than 4 MiB
          wanted is a text file with lines such as num.partitions=3, as Kafka's server.properties
        ");
    }

    #[test]
    fn an_override_without_a_value_is_named() {
        insta::assert_snapshot!(refused(None, &["num.partitions"]), @"--override num.partitions: allowed is KEY=VALUE, such as num.partitions=3");
        insta::assert_snapshot!(refused(None, &["=3"]), @"--override =3: allowed is KEY=VALUE, such as num.partitions=3");
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_with_what_is_allowed() {
        insta::assert_snapshot!(refused(None, &["num.partitions=many", "log.segment.bytes=-5"]), @r"
        the configuration cannot be used:
          log.segment.bytes=-5: allowed is a number of at least 1048576
          num.partitions=many: allowed is a number of at least 1
        ");
    }

    #[test]
    fn a_file_is_read_as_java_reads_it_and_overrides_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        std::fs::write(&path, "# a comment\nnode.id : 7\nlog.dirs=/a,\\\n  /b\nnum.partitions=2\nno.such.config=1\n")
            .unwrap();
        let properties = read(Some(&path), &["num.partitions=5".into()]).unwrap();
        let (config, told) = configuration(&properties).unwrap();
        assert_eq!((config.node_id.0, config.num_partitions), (7, 5));
        assert_eq!(config.log_dirs, ["/a", "/b"]);
        assert_eq!(told.len(), 1);
        assert!(told[0].text.starts_with("no.such.config"), "{}", told[0].text);
        assert_eq!(warnings(&properties), told);
    }

    #[test]
    fn without_a_file_it_is_a_broker_for_this_machine() {
        let (config, warnings) = configuration(&read(None, &[]).unwrap()).unwrap();
        assert!(warnings.is_empty());
        assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("127.0.0.1", 9092));
        assert_eq!(config.log_dirs, ["./tidelog-data"]);
    }
}

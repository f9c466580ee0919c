//! Parses the schemas in `core/wire/schema/`, whose README describes the notation.
//!
//! The generator uses this, and so do the tests of `wire`, which draw random messages from the schemas.
#![allow(dead_code)] // Each of the two users needs its own part.

/// First and last version, inclusive.
pub type Versions = (i16, i16);

/// The last version of an open range such as `3+`: greater than every version there is.
pub const OPEN: i16 = i16::MAX;

#[derive(Clone, Debug)]
pub struct Message {
    pub kind: String,
    pub key: Option<i16>,
    pub name: String,
    pub listeners: Vec<String>,
    /// `None`: the key is known and no longer served.
    pub versions: Option<Versions>,
    /// The first version with compact lengths and tagged fields; `OPEN` for none.
    pub flexible: i16,
    pub unstable: Option<i16>,
    /// The message itself first, then every struct below it.
    pub structs: Vec<Struct>,
}

#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub versions: Versions,
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    /// A basic type, or the name of a struct.
    pub element: String,
    pub is_array: bool,
    pub versions: Versions,
    /// The versions in which null is allowed.
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    pub is_key: bool,
    pub is_ignorable: bool,
    pub is_inflexible: bool,
    pub default: Option<String>,
}

impl Message {
    pub fn find(&self, name: &str) -> &Struct {
        let found = self.structs.iter().find(|s| s.name == name);
        found.unwrap_or_else(|| panic!("{}: no struct {name}", self.name))
    }

    /// The fewest bytes that a struct takes in any of its versions.
    pub fn min_size(&self, name: &str) -> usize {
        let (first, last) = self.find(name).versions;
        (first..=last).map(|version| self.min_size_in(name, version)).min().expect("a struct has a version")
    }

    fn min_size_in(&self, name: &str, version: i16) -> usize {
        let is_flexible = version >= self.flexible;
        let fields = self.find(name).fields.iter().filter(|f| f.tag.is_none() && has(f.versions, version));
        let sizes = fields.map(|f| match f.element.as_str() {
            _ if f.is_array => {
                if is_flexible {
                    1
                } else {
                    4
                }
            }
            "string" | "bytes" | "records" if is_flexible && !f.is_inflexible => 1,
            "bytes" | "records" => 4,
            basic if is_basic(basic) => basic_min_size(basic),
            _ if f.nullable.is_some_and(|n| has(n, version)) => 1,
            nested => self.min_size_in(nested, version),
        });
        sizes.sum::<usize>() + usize::from(is_flexible)
    }
}

impl Field {
    pub fn is_struct(&self) -> bool {
        !is_basic(&self.element)
    }
}

pub fn has(versions: Versions, version: i16) -> bool {
    versions.0 <= version && version <= versions.1
}

pub fn intersect(a: Versions, b: Versions) -> Versions {
    (a.0.max(b.0), a.1.min(b.1))
}

pub fn is_basic(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The fewest bytes of a value of a basic type, in versions that are not flexible.
pub fn basic_min_size(name: &str) -> usize {
    match name {
        "bool" | "int8" => 1,
        "int16" | "uint16" | "string" => 2,
        "int32" | "uint32" => 4,
        "int64" | "float64" => 8,
        "uuid" => 16,
        other => panic!("no basic type {other}"),
    }
}

/// Reads one file. Panics with the file's name and the line at anything that it does not understand, because the
/// schemas are our own.
pub fn parse(file: &str, text: &str) -> Message {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim_end()).filter(|l| !l.is_empty());
    let lines: Vec<&str> = lines.collect();
    let mut message = parse_head(file, lines[0], lines[1]);
    let Some(versions) = message.versions else { return message };

    // The structs that enclose the line at hand: (indentation of their fields, place in `structs`).
    let mut open: Vec<(usize, usize)> = vec![(0, 0)];
    message.structs.push(Struct { name: message.name.clone(), versions, fields: vec![] });
    for line in &lines[2..] {
        let indent = line.len() - line.trim_start().len();
        if let Some(rest) = line.strip_prefix("struct ") {
            let (name, range) = rest.split_once(' ').unwrap_or((rest, ""));
            let versions = if range.is_empty() { versions } else { intersect(parse_versions(file, range), versions) };
            message.structs.push(Struct { name: name.into(), versions, fields: vec![] });
            open = vec![(2, message.structs.len() - 1)];
            continue;
        }
        while open.last().is_some_and(|&(at, _)| at > indent) {
            open.pop();
        }
        let &(at, holder) = open.last().unwrap_or_else(|| panic!("{file}: indentation of `{line}`"));
        if indent > at {
            let field = message.structs[holder].fields.last();
            let field = field.unwrap_or_else(|| panic!("{file}: nothing holds `{line}`")).clone();
            assert!(field.is_struct() && indent == at + 2, "{file}: indentation of `{line}`");
            let fields = vec![parse_field(file, line.trim(), field.versions)];
            message.structs.push(Struct { name: field.element, versions: field.versions, fields });
            open.push((indent, message.structs.len() - 1));
        } else {
            let field = parse_field(file, line.trim(), message.structs[holder].versions);
            message.structs[holder].fields.push(field);
        }
    }
    check(file, &message);
    message
}

fn parse_head(file: &str, head: &str, versions: &str) -> Message {
    let (head, listeners) = head.split_once(" on ").unwrap_or((head, ""));
    let words: Vec<&str> = head.split(' ').collect();
    let (kind, key, name) = match words[..] {
        [kind, key, name] => (kind, Some(key.parse().unwrap_or_else(|_| panic!("{file}: key `{key}`"))), name),
        [kind, name] => (kind, None, name),
        _ => panic!("{file}: `{head}`"),
    };
    let mut message = Message {
        kind: kind.into(),
        key,
        name: name.into(),
        listeners: listeners.split(", ").filter(|l| !l.is_empty()).map(String::from).collect(),
        versions: None,
        flexible: OPEN,
        unstable: None,
        structs: vec![],
    };
    for part in versions.split(", ") {
        match part.split_once(' ') {
            Some(("versions" | "flexible", "none")) => {}
            Some(("versions", range)) => message.versions = Some(parse_versions(file, range)),
            Some(("flexible", range)) => message.flexible = parse_versions(file, range).0,
            Some(("unstable", version)) => message.unstable = Some(parse_versions(file, version).0),
            _ => panic!("{file}: `{part}`"),
        }
    }
    message
}

/// `name: type[?[versions]] [versions] [tag n] [key] [ignorable] [inflexible] [= default]`
fn parse_field(file: &str, line: &str, holder: Versions) -> Field {
    let (line, default) = match line.split_once(" = ") {
        Some((line, default)) => (line, Some(default.to_string())),
        None => (line, None),
    };
    let (name, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{file}: `{line}`"));
    let mut words = rest.split(' ').peekable();
    let type_word = words.next().expect("split gives one word at least");
    let (type_name, nullable) = match type_word.split_once('?') {
        None => (type_word, None),
        Some((name, "")) => (name, Some((0, OPEN))),
        Some((name, range)) => (name, Some(parse_versions(file, range))),
    };
    let element = type_name.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let mut field = Field {
        name: name.into(),
        element: element.unwrap_or(type_name).into(),
        is_array: element.is_some(),
        versions: holder,
        nullable,
        tag: None,
        is_key: false,
        is_ignorable: false,
        is_inflexible: false,
        default,
    };
    while let Some(word) = words.next() {
        match word {
            "tag" => field.tag = words.next().and_then(|tag| tag.parse().ok()),
            "key" => field.is_key = true,
            "ignorable" => field.is_ignorable = true,
            "inflexible" => field.is_inflexible = true,
            range => field.versions = intersect(parse_versions(file, range), holder),
        }
    }
    field.nullable = field.nullable.map(|n| intersect(n, field.versions));
    field
}

/// `3`, `3-5` or `3+`
fn parse_versions(file: &str, text: &str) -> Versions {
    let number = |n: &str| n.parse().unwrap_or_else(|_| panic!("{file}: versions `{text}`"));
    match text.split_once('-') {
        Some((first, last)) => (number(first), number(last)),
        None => match text.strip_suffix('+') {
            Some(first) => (number(first), OPEN),
            None => (number(text), number(text)),
        },
    }
}

fn check(file: &str, message: &Message) {
    for s in &message.structs {
        assert!(message.min_size(&s.name) > 0 || s.name == message.name, "{file}: {} can be empty", s.name);
        for f in &s.fields {
            assert!(f.versions.0 <= f.versions.1, "{file}: {} is in no version", f.name);
            assert!(f.tag.is_none() || f.versions.0 >= message.flexible, "{file}: {} is tagged too early", f.name);
            if f.is_struct() {
                message.find(&f.element);
            }
        }
    }
}

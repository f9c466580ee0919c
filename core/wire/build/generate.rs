//! Writes Rust code from the schemas.
//!
//! The code is kept small, because every build compiles it. Each struct has one `read` and one `write` for all of its
//! versions, which make plain calls on a concrete `Reader` and `Writer`. There are no error paths: a `Reader` remembers
//! its first error and gives empty values from then on.

use crate::schema::{Field, Message, OPEN, Struct, Versions, intersect};
use std::fmt::Write;

macro_rules! line {
    ($out:expr, $($arg:tt)*) => { writeln!($out, $($arg)*).expect("a String takes everything") };
}

/// Folders of messages that stand in logs. These messages get a `to_json`, so that tools can show them.
const DESCRIBED: [&str; 3] = ["control", "metadata", "remote_log"];

pub fn generate(messages: &[(String, Message)]) -> String {
    let mut out = String::new();
    for (folder, message) in messages {
        if message.versions.is_some() {
            module(&mut out, message, DESCRIBED.contains(&folder.as_str()));
        }
    }
    apis(&mut out, messages);
    records(&mut out, messages, "metadata", "MetadataRecord");
    records(&mut out, messages, "remote_log", "RemoteLogRecord");
    out
}

/// The table from which `messages.rs` makes `ApiKey`, `RequestBody` and `ResponseBody`.
fn apis(out: &mut String, messages: &[(String, Message)]) {
    let mut requests: Vec<&Message> = messages.iter().map(|(_, m)| m).filter(|m| m.kind == "request").collect();
    requests.sort_by_key(|m| (m.versions.is_some(), m.key));
    line!(out, "apis! {{");
    let mut removed_ended = false;
    for m in requests {
        if m.versions.is_some() && !std::mem::replace(&mut removed_ended, true) {
            line!(out, "@");
        }
        let key = m.key.expect("a request has a key");
        let api = m.name.strip_suffix("Request").expect("requests are named so");
        match m.versions {
            None => line!(out, "{key} {api} removed;"),
            Some((first, last)) => {
                let stable = m.unstable.map_or(last, |unstable| unstable - 1);
                let on = |listener: &str| m.listeners.iter().any(|l| l == listener);
                line!(
                    out,
                    "{key} {api} {api}Request {api}Response {first} {stable} {} {} {};",
                    m.flexible,
                    on("broker"),
                    on("controller")
                );
            }
        }
    }
    line!(out, "}}");
}

fn records(out: &mut String, messages: &[(String, Message)], folder: &str, enum_name: &str) {
    let mut records: Vec<&Message> =
        messages.iter().filter(|(f, m)| f == folder && m.kind == "record").map(|(_, m)| m).collect();
    records.sort_by_key(|m| m.key);
    line!(out, "records! {{ {enum_name}");
    for m in records {
        let short = m.name.strip_suffix("Record").unwrap_or(&m.name);
        line!(out, "{} {short} {};", m.key.expect("a record has a key"), m.name);
    }
    line!(out, "}}");
}

fn module(out: &mut String, message: &Message, is_described: bool) {
    let (first, last) = message.versions.expect("checked by the caller");
    line!(out, "pub mod {} {{", snake(&message.name));
    line!(out, "use super::prelude::*;");
    for (place, s) in message.structs.iter().enumerate() {
        if place == 0 {
            let key = message.key.map_or(String::new(), |key| format!(", key {key}"));
            let flexible = match message.flexible {
                OPEN => "never flexible".into(),
                from => format!("flexible from version {from} on"),
            };
            line!(out, "/// A {}{key}: versions {first} to {last}, {flexible}.", message.kind);
        }
        definition(out, message, s);
        line!(out, "impl {} {{", s.name);
        reader(out, message, s);
        writer(out, message, s);
        if is_described {
            describer(out, s);
        }
        line!(out, "}}");
    }
    line!(out, "message!({}, {first}, {last});", message.name);
    if is_described {
        line!(out, "described!({});", message.name);
    }
    line!(out, "}}\npub use {}::{};", snake(&message.name), message.name);
}

fn definition(out: &mut String, message: &Message, s: &Struct) {
    let defaults: Vec<Option<String>> = s.fields.iter().map(default).collect();
    let derived = if defaults.iter().all(Option::is_none) { ", Default" } else { "" };
    line!(out, "#[derive(Clone, Debug, PartialEq{derived})]\npub struct {} {{", s.name);
    for f in &s.fields {
        line!(out, "pub {}: {},", rust_name(f), rust_type(f));
    }
    let has_tags = has_tags(message, s);
    if has_tags {
        line!(out, "pub unknown_tagged_fields: TaggedFields,");
    }
    line!(out, "}}");
    if derived.is_empty() {
        line!(out, "impl Default for {} {{ fn default() -> Self {{ Self {{", s.name);
        for (f, default) in s.fields.iter().zip(defaults) {
            line!(out, "{}: {},", rust_name(f), default.as_deref().unwrap_or("Default::default()"));
        }
        if has_tags {
            line!(out, "unknown_tagged_fields: TaggedFields::default(),");
        }
        line!(out, "}} }} }}");
    }
}

fn reader(out: &mut String, message: &Message, s: &Struct) {
    line!(out, "pub(crate) fn read(version: i16, r: &mut Reader) -> Self {{");
    flexible_variable(out, message, s);
    let has_known_tags = s.fields.iter().any(|f| f.tag.is_some());
    line!(out, "{}Self {{", if has_known_tags { "let mut m = " } else { "" });
    for f in &s.fields {
        let absent = default(f).unwrap_or("Default::default()".into());
        let value = match condition(f.versions, s.versions) {
            _ if f.tag.is_some() => absent,
            None => read_value(message, s, f),
            Some(present) => format!("if {present} {{ {} }} else {{ {absent} }}", read_value(message, s, f)),
        };
        line!(out, "{}: {value},", rust_name(f));
    }
    let flexible = flexible(message, s);
    match (has_tags(message, s), has_known_tags) {
        (false, _) => line!(out, "}}"),
        (true, false) => line!(out, "unknown_tagged_fields: r.unknown_tags({flexible}) }}"),
        (true, true) => {
            line!(out, "unknown_tagged_fields: TaggedFields::default() }};");
            line!(out, "let mut tags = r.begin_tags({flexible});");
            line!(out, "while let Some(tag) = r.next_tag(&mut tags) {{ match tag {{");
            for f in s.fields.iter().filter(|f| f.tag.is_some()) {
                let guard = condition(f.versions, s.versions).map_or(String::new(), |c| format!(" if {c}"));
                let value = read_value(message, s, f);
                line!(out, "{}{guard} => m.{} = {value},", f.tag.expect("filtered"), rust_name(f));
            }
            line!(out, "_ => r.unknown_tag(&tags, &mut m.unknown_tagged_fields),");
            line!(out, "}} r.end_tag(&tags); }} m");
        }
    }
    line!(out, "}}");
}

fn writer(out: &mut String, message: &Message, s: &Struct) {
    line!(out, "pub(crate) fn write(&self, version: i16, w: &mut Writer) {{");
    flexible_variable(out, message, s);
    for f in s.fields.iter() {
        let name = rust_name(f);
        let must_be_default = |out: &mut String| {
            line!(
                out,
                "debug_assert!({}, \"{}.{} has a value, and version {{version}} has no such field\");",
                is_default(f, &format!("self.{name}")),
                s.name,
                f.name
            );
        };
        match condition(f.versions, s.versions) {
            None if f.tag.is_some() => {}
            None => write_value(out, message, s, f),
            Some(present) if f.tag.is_some() => {
                if !f.is_ignorable {
                    line!(out, "if !({present}) {{");
                    must_be_default(out);
                    line!(out, "}}");
                }
            }
            Some(present) => {
                line!(out, "if {present} {{");
                write_value(out, message, s, f);
                if !f.is_ignorable {
                    line!(out, "}} else {{");
                    must_be_default(out);
                }
                line!(out, "}}");
            }
        }
    }
    if has_tags(message, s) {
        let flexible = flexible(message, s);
        let mut known: Vec<&Field> = s.fields.iter().filter(|f| f.tag.is_some()).collect();
        known.sort_by_key(|f| f.tag);
        if known.is_empty() {
            line!(out, "w.unknown_tags({flexible}, &self.unknown_tagged_fields);");
        } else {
            line!(out, "if {flexible} {{ let mut tags = w.begin_tags(&self.unknown_tagged_fields);");
            for f in known {
                let present = condition(f.versions, s.versions).map_or(String::new(), |c| format!("{c} && "));
                let is_default = is_default(f, &format!("self.{}", rust_name(f)));
                line!(out, "if {present}!({is_default}) {{");
                line!(out, "w.begin_tag(&mut tags, {});", f.tag.expect("filtered"));
                write_value(out, message, s, f);
                line!(out, "w.end_tag(&mut tags); }}");
            }
            line!(out, "w.end_tags(tags); }}");
        }
    }
    line!(out, "}}");
}

/// Writes `describe`, which gives the same fields as Kafka's JSON converters: those that the version has, but a tagged
/// field only if its value is not the default.
fn describer(out: &mut String, s: &Struct) {
    line!(out, "pub(crate) fn describe(&self, version: i16, json: &mut JsonWriter) {{");
    line!(out, "json.begin('{{');");
    for f in &s.fields {
        let value = format!("self.{}", rust_name(f));
        let is_said = f.tag.map(|_| format!("!({})", is_default(f, &value)));
        let conditions: Vec<String> = condition(f.versions, s.versions).into_iter().chain(is_said).collect();
        let guard = if conditions.is_empty() { String::new() } else { format!("if {} ", conditions.join(" && ")) };
        line!(out, "{guard}{{ json.name(\"{}\");", camel(&f.name));
        if f.nullable.is_some() {
            line!(out, "match &{value} {{ None => json.null(), Some(value) => {{ {} }} }}", describe_value(f));
        } else {
            line!(out, "let value = &{value}; {}", describe_value(f));
        }
        line!(out, "}}");
    }
    line!(out, "json.end('}}'); }}");
}

/// Statements that describe what `value` refers to.
fn describe_value(f: &Field) -> String {
    let one = match f.element.as_str() {
        "string" | "bytes" | "uuid" => format!("json.{}(value);", f.element),
        "float64" => "json.float64(*value);".into(),
        "records" => panic!("{}: no record of a log holds batches", f.name),
        _ if f.is_struct() => "value.describe(version, json);".into(),
        _ => "json.plain(value);".into(),
    };
    if f.is_array {
        return format!("json.begin('['); for value in value {{ json.element(); {one} }} json.end(']');");
    }
    one
}

/// An expression that reads the field in a version that has it.
fn read_value(message: &Message, s: &Struct, f: &Field) -> String {
    let flex = if f.is_inflexible { "false".into() } else { flexible(message, s) };
    let element = |reader: &str| match f.element.as_str() {
        "string" => format!("{reader}.string({flex})"),
        "bytes" => format!("{reader}.bytes({flex})"),
        "records" => format!("{reader}.records({flex})"),
        "bool" => format!("{reader}.boolean()"),
        basic if !f.is_struct() => format!("{reader}.{}()", rust_basic(basic).to_lowercase()),
        nested => format!("{nested}::read(version, {reader})"),
    };
    if is_int32s(f) {
        return match nulls(f) {
            None => format!("r.int32s({flex})"),
            Some(allowed) => format!("r.nullable_int32s({flex}, {allowed})"),
        };
    }
    if f.is_array {
        let min = match f.element.as_str() {
            _ if f.is_struct() => message.min_size(&f.element).to_string(),
            "string" => format!("if {flex} {{ 1 }} else {{ 2 }}"),
            basic => crate::schema::basic_min_size(basic).to_string(),
        };
        return match nulls(f) {
            None => format!("r.array({flex}, {min}, |r| {})", element("r")),
            Some(allowed) => format!("r.nullable_array({flex}, {allowed}, {min}, |r| {})", element("r")),
        };
    }
    match nulls(f) {
        None => element("r"),
        Some(allowed) if !f.is_struct() => format!("r.nullable_{}({flex}, {allowed})", f.element),
        Some(allowed) => {
            let marker =
                if allowed == "true" { "r.is_present()".into() } else { format!("!({allowed}) || r.is_present()") };
            format!("if {marker} {{ Some({}) }} else {{ None }}", element("r"))
        }
    }
}

/// Statements that write the field in a version that has it.
fn write_value(out: &mut String, message: &Message, s: &Struct, f: &Field) {
    let flex = if f.is_inflexible { "false".into() } else { flexible(message, s) };
    let element = |value: &str, borrowed: bool| {
        let (by_ref, by_value) =
            if borrowed { (value.into(), format!("*{value}")) } else { (format!("&{value}"), value.into()) };
        match f.element.as_str() {
            "string" | "bytes" | "records" => format!("w.{}({flex}, {by_ref})", f.element),
            "bool" => format!("w.boolean({by_value})"),
            "uuid" => format!("w.uuid({by_ref})"),
            basic if !f.is_struct() => format!("w.{}({by_value})", rust_basic(basic)),
            _ => format!("{value}.write(version, w)"),
        }
    };
    let value = format!("self.{}", rust_name(f));
    if f.is_array {
        let each = format!("{{ {}; }}", element("item", true));
        match nulls(f) {
            None => {
                line!(out, "w.count({flex}, {value}.len());");
                line!(out, "for item in &{value} {each}");
            }
            Some(allowed) => {
                line!(out, "w.nullable_count({flex}, {allowed}, {value}.as_ref().map(|items| items.len()));");
                line!(out, "for item in {value}.iter().flatten() {each}");
            }
        }
        return;
    }
    match nulls(f) {
        None => line!(out, "{};", element(&value, false)),
        Some(allowed) if !f.is_struct() => {
            line!(out, "w.nullable_{}({flex}, {allowed}, {value}.as_ref());", f.element);
        }
        Some(allowed) => {
            line!(out, "match &{value} {{");
            line!(out, "Some(item) => {{ if {allowed} {{ w.i8(1); }} item.write(version, w); }}");
            line!(out, "None => if {allowed} {{ w.i8(-1); }} else {{ {}::default().write(version, w); }}", f.element);
            line!(out, "}}");
        }
    }
}

/// Whether null is allowed, as an expression; `None` if it never is.
fn nulls(f: &Field) -> Option<String> {
    let nullable = f.nullable?;
    Some(condition(nullable, f.versions).unwrap_or("true".into()))
}

/// An expression that tests whether `version`, which is one of `holder`, is one of `versions`. `None`: it always is.
fn condition(versions: Versions, holder: Versions) -> Option<String> {
    let (first, last) = intersect(versions, holder);
    match (first > holder.0, last < holder.1) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {first}")),
        (false, true) => Some(format!("version <= {last}")),
        (true, true) if first == last => Some(format!("version == {first}")),
        (true, true) => Some(format!("({first}..={last}).contains(&version)")),
    }
}

fn has_tags(message: &Message, s: &Struct) -> bool {
    message.flexible <= s.versions.1
}

/// Whether the version is flexible, as an expression.
fn flexible(message: &Message, s: &Struct) -> String {
    match condition((message.flexible, OPEN), s.versions) {
        _ if message.flexible > s.versions.1 => "false".into(),
        None => "true".into(),
        Some(_) => "flexible".into(),
    }
}

fn flexible_variable(out: &mut String, message: &Message, s: &Struct) {
    if flexible(message, s) == "flexible" {
        line!(out, "let flexible = version >= {};", message.flexible);
    }
}

/// The field's default as an expression, where it is not the default of its Rust type.
fn default(f: &Field) -> Option<String> {
    match f.default.as_deref() {
        Some("null") => None,
        Some(value) => {
            assert!(f.nullable.is_none(), "{}: a default other than null for what may be null", f.name);
            Some(value.into())
        }
        None if f.nullable.is_some() && f.element != "records" => Some("Some(Default::default())".into()),
        None => None,
    }
}

fn is_default(f: &Field, value: &str) -> String {
    let is_empty = f.is_array || matches!(f.element.as_str(), "string" | "bytes" | "records");
    match default(f).as_deref() {
        Some("Some(Default::default())") if is_empty => format!("{value}.as_ref().is_some_and(|v| v.is_empty())"),
        Some("Some(Default::default())") => format!("{value} == Some(Default::default())"),
        Some("true") => value.into(),
        Some("false") => format!("!{value}"),
        Some(number) => format!("{value} == {number}"),
        None if f.nullable.is_some() => format!("{value}.is_none()"),
        None if is_empty => format!("{value}.is_empty()"),
        None => match f.element.as_str() {
            "bool" => format!("!{value}"),
            "uuid" => format!("{value} == Uuid::ZERO"),
            "float64" => format!("{value} == 0.0"),
            basic if !f.is_struct() && !basic.is_empty() => format!("{value} == 0"),
            nested => format!("{value} == {nested}::default()"),
        },
    }
}

/// Whether the field is an array of int32, which has the Rust type `Int32s`.
fn is_int32s(f: &Field) -> bool {
    f.is_array && f.element == "int32"
}

fn rust_type(f: &Field) -> String {
    let mut name: String = if f.is_struct() { f.element.clone() } else { rust_basic(&f.element).into() };
    if f.is_array {
        name = if is_int32s(f) { "Int32s".into() } else { format!("Vec<{name}>") };
    }
    if f.nullable.is_some() { format!("Option<{name}>") } else { name }
}

fn rust_basic(name: &str) -> &'static str {
    match name {
        "bool" => "bool",
        "int8" => "i8",
        "int16" => "i16",
        "int32" => "i32",
        "int64" => "i64",
        "uint16" => "u16",
        "uint32" => "u32",
        "float64" => "f64",
        "string" => "ByteString",
        "bytes" => "Bytes",
        "uuid" => "Uuid",
        "records" => "Records",
        other => panic!("no basic type {other}"),
    }
}

fn rust_name(f: &Field) -> String {
    match f.name.as_str() {
        "type" | "match" => format!("r#{}", f.name),
        name => name.into(),
    }
}

/// `KRaftVersionRecord` → `kraft_version_record`
fn snake(name: &str) -> String {
    let name = name.replace("KRaft", "Kraft");
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `topic_id` → `topicId`
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_string();
    for word in words {
        let mut chars = word.chars();
        out.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

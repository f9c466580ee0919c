//! A configuration name with its rules, and how its values are read.
//!
//! The texts of refused values are those of Apache Kafka, which clients show to their users.

/// A configuration name with its type, default and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub valid: Valid,
    pub update: Update,
    pub documentation: &'static str,
    /// The config is for tests and for experts, and DescribeConfigs does not show it.
    pub internal: bool,
}

/// The type of a value, with the number DescribeConfigs gives it (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

/// What a name means where it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Apache Kafka refuses to start without a value. Tidelog takes a value of its own: see `BrokerConfig`.
    Required,
    Null,
    Text(&'static str),
}

/// Which values are allowed, beyond what the type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    Any,
    From(i64),
    Within(i64, i64),
    /// A real number from 0 to this one.
    Ratio(&'static str),
    /// 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    OneOf(&'static [&'static str]),
    OneOfNonEmpty(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    NonEmpty,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
}

/// How a value of a running broker may be changed (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    ReadOnly,
    PerBroker,
    ClusterWide,
}

/// A value that was read and found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Boolean(bool),
    Number(i64),
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// The value as text. Texts that are read as the same value have the same canonical form.
    pub fn canonical(&self) -> String {
        match self {
            Value::Boolean(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::Text(text) => text.clone(),
            Value::List(items) => items.join(","),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

impl ConfigKey {
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Default::Text(text) => Some(text),
            Default::Null | Default::Required => None,
        }
    }

    /// Reads `text` as a value of this name, or says in Kafka's words what is wrong with it.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim();
        let value = match self.kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Kind::Boolean => return Err(self.refuse(text, "Expected value to be either true or false")),
            Kind::Short => self.number(text, trimmed, i16::MIN.into(), i16::MAX.into())?,
            Kind::Int => self.number(text, trimmed, i32::MIN.into(), i32::MAX.into())?,
            Kind::Long => self.number(text, trimmed, i64::MIN, i64::MAX)?,
            Kind::Double => {
                // The number is parsed only to check it. The text is kept.
                if trimmed.parse::<f64>().is_err() {
                    return Err(self.refuse(text, "Not a number of type DOUBLE"));
                }
                Value::Text(trimmed.to_owned())
            }
            Kind::List => Value::List(split_list(trimmed)),
            Kind::String | Kind::Class | Kind::Password => Value::Text(trimmed.to_owned()),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// What this name allows, for a person to read.
    pub fn allowed(&self) -> String {
        match self.valid {
            Valid::From(min) => format!("a number of at least {min}"),
            Valid::Within(min, max) => format!("a number from {min} to {max}"),
            Valid::Ratio(max) => format!("a number from 0 to {max}"),
            Valid::GzipLevel => "a number from 1 to 9, or -1".to_owned(),
            Valid::OneOf(names) | Valid::OneOfNonEmpty(names) | Valid::OneOfAnyCase(names) => {
                let what = if self.kind == Kind::List { "a comma-separated list of " } else { "one of " };
                format!("{what}{}", names.join(", "))
            }
            Valid::ThrottledReplicas => "* or partition:broker,partition:broker,...".to_owned(),
            Valid::NonEmpty => "a value that is not empty".to_owned(),
            Valid::Any => match self.kind {
                Kind::Boolean => "true or false",
                Kind::Int => "a whole number of 32 bits",
                Kind::Short => "a whole number of 16 bits",
                Kind::Long => "a whole number of 64 bits",
                Kind::Double => "a number",
                Kind::List => "a comma-separated list",
                Kind::String | Kind::Class | Kind::Password => "any text",
            }
            .to_owned(),
        }
    }

    fn number(&self, text: &str, trimmed: &str, min: i64, max: i64) -> Result<Value, String> {
        match trimmed.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
            _ => Err(self.refuse(text, &format!("Not a number of type {}", self.kind.name()))),
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let name = self.name;
        match (self.valid, value) {
            (Valid::Any, Value::List(items)) if items.iter().any(String::is_empty) && !self.may_hold_empty_items() => {
                Err(format!("Configuration '{name}' values must not be empty."))
            }
            (Valid::Any, _) => Ok(()),
            (Valid::From(min), Value::Number(number)) => self.in_range(*number, min, i64::MAX),
            (Valid::Within(min, max), Value::Number(number)) => self.in_range(*number, min, max),
            (Valid::GzipLevel, Value::Number(-1)) => Ok(()),
            (Valid::GzipLevel, Value::Number(number)) => self.in_range(*number, 1, 9),
            (Valid::Ratio(max), Value::Text(text)) => self.in_ratio(text, max),
            (Valid::OneOf(allowed), Value::Text(text)) => self.is_one_of(text, allowed),
            (Valid::OneOfAnyCase(allowed), Value::Text(text)) => {
                if allowed.iter().any(|name| name.eq_ignore_ascii_case(text)) {
                    return Ok(());
                }
                let list = allowed.join(", ");
                Err(self.refuse(text, &format!("String must be one of (case insensitive): {list}")))
            }
            (Valid::OneOf(allowed), Value::List(items)) => self.all_of(items, allowed),
            (Valid::OneOfNonEmpty(allowed), Value::List(items)) if items.is_empty() => {
                Err(format!("Configuration '{name}' must not be empty. Valid values include: [{}]", allowed.join(", ")))
            }
            (Valid::OneOfNonEmpty(allowed), Value::List(items)) => self.all_of(items, allowed),
            (Valid::NonEmpty, Value::List(items)) if items.is_empty() => {
                Err(format!("Configuration '{name}' must not be empty. Valid values include: any non-empty value"))
            }
            (Valid::NonEmpty, Value::List(items)) => self.all_of(items, &[]),
            (Valid::NonEmpty, Value::Text(text)) if text.is_empty() => {
                Err(self.refuse(text, "String must be non-empty"))
            }
            (Valid::NonEmpty, Value::Text(_)) => Ok(()),
            (Valid::ThrottledReplicas, Value::List(items)) => {
                if is_all_replicas(items) || items.iter().all(|item| is_replica(item)) {
                    return Ok(());
                }
                Err(self.refuse(
                    &format!("[{}]", items.join(", ")),
                    &format!(
                        "{name} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                    ),
                ))
            }
            (valid, value) => unreachable!("{name}: the table gives {valid:?} to {value:?}"),
        }
    }

    /// Whether Kafka defines this list without a validator, so that its items may be empty.
    fn may_hold_empty_items(&self) -> bool {
        matches!(self.name, "controller.quorum.voters" | "controller.quorum.bootstrap.servers")
    }

    fn in_range(&self, number: i64, min: i64, max: i64) -> Result<(), String> {
        if number < min {
            return Err(self.refuse(&number.to_string(), &format!("Value must be at least {min}")));
        }
        if number > max {
            return Err(self.refuse(&number.to_string(), &format!("Value must be no more than {max}")));
        }
        Ok(())
    }

    fn in_ratio(&self, text: &str, max_text: &str) -> Result<(), String> {
        let max: f64 = max_text.parse().expect("the table holds numbers");
        let value: f64 = text.parse().expect("it was read before");
        // Kafka accepts NaN, because its comparisons are false for NaN. No config has a use for it, so it is refused
        // here.
        if value.is_nan() || value < 0.0 {
            return Err(self.refuse(text, "Value must be at least 0"));
        }
        if value > max {
            return Err(self.refuse(text, &format!("Value must be no more than {max_text}")));
        }
        Ok(())
    }

    fn is_one_of(&self, text: &str, allowed: &[&str]) -> Result<(), String> {
        if allowed.contains(&text) {
            return Ok(());
        }
        Err(self.refuse(text, &format!("String must be one of: {}", allowed.join(", "))))
    }

    fn all_of(&self, items: &[String], allowed: &[&str]) -> Result<(), String> {
        for item in items {
            if item.is_empty() {
                return Err(format!("Configuration '{}' values must not be empty.", self.name));
            }
            if !allowed.is_empty() {
                self.is_one_of(item, allowed)?;
            }
        }
        Ok(())
    }

    fn refuse(&self, value: &str, message: &str) -> String {
        let value = if self.sensitive() { "[hidden]" } else { value };
        format!("Invalid value {value} for configuration {}: {message}", self.name)
    }
}

/// The items of a comma-separated list in their order. An item that comes again is left out.
fn split_list(trimmed: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    if trimmed.is_empty() {
        return items;
    }
    for item in trimmed.split(',').map(str::trim) {
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
    }
    items
}

fn is_all_replicas(items: &[String]) -> bool {
    items.concat() == "*"
}

fn is_replica(item: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    item.is_empty() || item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

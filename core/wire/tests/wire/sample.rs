//! Bytes of messages, drawn from the schemas.

#[path = "../../build/schema.rs"]
pub mod schema;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schema::{Field, Message, has};

/// One drawn message.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub bytes: Vec<u8>,
    /// The counts and lengths in `bytes`: where they stand, and in which form.
    pub counts: Vec<Count>,
}

#[derive(Clone, Copy, Debug)]
pub struct Count {
    pub position: usize,
    /// How many bytes the number takes.
    pub len: usize,
    pub width: Width,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Width {
    Int16,
    Int32,
    Varint,
}

/// Where values come from.
pub enum Draw {
    /// Anything a field may hold, the corner cases often.
    Random(Box<ChaCha8Rng>),
    /// Each value differs from all others, nothing is null, and each array has two elements: for snapshots.
    Counting(u64),
}

impl Draw {
    pub fn random(seed: u64) -> Self {
        Self::Random(Box::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    /// A number below `limit`: at random, or always the greatest when counting.
    fn below(&mut self, limit: u64) -> u64 {
        match self {
            Self::Random(rng) => rng.next_u64() % limit,
            Self::Counting(_) => limit - 1,
        }
    }

    fn number(&mut self) -> u64 {
        match self {
            Self::Random(rng) => match rng.next_u64() % 4 {
                0 => [0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64, i32::MAX as u64][rng.next_u64() as usize % 6],
                _ => rng.next_u64(),
            },
            Self::Counting(last) => {
                *last += 1;
                *last
            }
        }
    }

    fn is_random(&self) -> bool {
        matches!(self, Self::Random(_))
    }
}

/// Draws the message in this version. With `unknown_tags`, flexible versions also get tagged fields that no schema has.
pub fn sample(message: &Message, version: i16, draw: &mut Draw, unknown_tags: bool) -> Sample {
    let mut sampler = Sampler { message, version, draw, unknown_tags, out: Sample::default() };
    sampler.structure(&message.name, false);
    sampler.out
}

struct Sampler<'a> {
    message: &'a Message,
    version: i16,
    draw: &'a mut Draw,
    unknown_tags: bool,
    out: Sample,
}

impl Sampler<'_> {
    fn is_flexible(&self) -> bool {
        self.version >= self.message.flexible
    }

    fn structure(&mut self, name: &str, not_default: bool) {
        let message = self.message;
        let fields: Vec<&Field> = message.find(name).fields.iter().filter(|f| has(f.versions, self.version)).collect();
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            self.field(field, not_default);
        }
        if !self.is_flexible() {
            return;
        }
        let mut known: Vec<&&Field> = fields.iter().filter(|f| f.tag.is_some()).collect();
        known.sort_by_key(|f| f.tag);
        known.retain(|_| not_default || self.draw.below(3) > 0);
        let mut unknown: Vec<u32> = vec![];
        if self.unknown_tags && self.draw.below(2) > 0 {
            unknown = vec![50, 127, 128 + self.draw.below(100) as u32, (1 << 31) - 1];
        }
        self.uvarint((known.len() + unknown.len()) as u32);
        for field in known {
            self.uvarint(field.tag.expect("filtered"));
            let before = std::mem::take(&mut self.out);
            self.field(field, true);
            let value = std::mem::replace(&mut self.out, before);
            self.count_of(value.bytes.len(), Width::Varint, 0);
            let shift = self.out.bytes.len();
            self.out.bytes.extend_from_slice(&value.bytes);
            let moved = value.counts.iter().map(|c| Count { position: c.position + shift, ..*c });
            self.out.counts.extend(moved);
        }
        for tag in unknown {
            self.uvarint(tag);
            let len = self.draw.below(200) as usize;
            self.count_of(len, Width::Varint, 0);
            self.filler(len);
        }
    }

    /// `not_default`: the value must differ from the default. A tagged field with its default would be left out.
    fn field(&mut self, field: &Field, not_default: bool) {
        let is_nullable = field.nullable.is_some_and(|n| has(n, self.version));
        let is_null = is_nullable && !not_default && self.draw.is_random() && self.draw.below(3) == 0;
        let flexible = self.is_flexible() && !field.is_inflexible;
        if is_null {
            match field.element.as_str() {
                _ if flexible && (field.is_array || !field.is_struct()) => self.uvarint(0),
                "string" if !field.is_array => self.put(&[0xff; 2]),
                _ if field.is_array || !field.is_struct() => self.put(&[0xff; 4]),
                _ => self.put(&[0xff]),
            }
            return;
        }
        if field.is_array {
            let count = if self.draw.is_random() { self.draw.below(4) as usize } else { 2 };
            let count = if not_default { count.max(1) } else { count };
            self.count_of(count, if flexible { Width::Varint } else { Width::Int32 }, u32::from(flexible));
            for _ in 0..count {
                self.value(&field.element, flexible, false, None);
            }
        } else {
            if is_nullable && field.is_struct() {
                self.put(&[1]);
            }
            let default = not_default.then_some(field.default.as_deref().unwrap_or("0"));
            self.value(&field.element, flexible, not_default, default);
        }
    }

    fn value(&mut self, element: &str, flexible: bool, not_default: bool, default: Option<&str>) {
        let mut number = self.draw.number();
        let width = match element {
            "bool" => {
                let is_true = if let Some(default) = default { default != "true" } else { number % 2 == 1 };
                return self.put(&[is_true.into()]);
            }
            "string" | "bytes" | "records" => return self.text(element, flexible, number, not_default),
            "int8" => 1,
            "int16" | "uint16" => 2,
            "int32" | "uint32" => 4,
            "int64" => 8,
            "float64" => return self.put(&(number as f64 / 7.0).to_be_bytes()),
            "uuid" => {
                let high = if not_default { number | 1 } else { number };
                self.put(&high.to_be_bytes());
                return self.put(&number.to_be_bytes());
            }
            nested => return self.structure(nested, not_default),
        };
        let bits = 8 * width;
        let mask = u64::MAX >> (64 - bits);
        let default: Option<i64> = default.and_then(|text| text.parse().ok());
        if default.is_some_and(|default| number & mask == default as u64 & mask) {
            number ^= 1;
        }
        self.put(&number.to_be_bytes()[8 - width..]);
    }

    fn text(&mut self, element: &str, flexible: bool, number: u64, not_default: bool) {
        let bytes = match (element, self.draw.is_random()) {
            ("string", false) => format!("s{number}").into_bytes(),
            (_, false) => format!("bytes {number}").into_bytes(),
            (_, true) => {
                let len = match self.draw.below(12) {
                    0 => 130,
                    1 if element == "records" => 700,
                    2 if element != "string" => 20_000,
                    len => len as usize,
                };
                let len = if not_default { len.max(1) } else { len };
                match element {
                    "string" => "Größe-für-Ελλάδα"
                        .chars()
                        .cycle()
                        .skip(number as usize % 16)
                        .take(len)
                        .collect::<String>()
                        .into(),
                    _ => number.to_be_bytes().into_iter().cycle().take(len).collect::<Vec<u8>>(),
                }
            }
        };
        let width = match element {
            _ if flexible => Width::Varint,
            "string" => Width::Int16,
            _ => Width::Int32,
        };
        self.count_of(bytes.len(), width, u32::from(flexible));
        self.put(&bytes);
    }

    /// `above` is what is added to the count: 1 for compact counts, whose 0 means null.
    fn count_of(&mut self, count: usize, width: Width, above: u32) {
        let position = self.out.bytes.len();
        match width {
            Width::Int16 => self.put(&(count as i16).to_be_bytes()),
            Width::Int32 => self.put(&(count as i32).to_be_bytes()),
            Width::Varint => self.uvarint(count as u32 + above),
        }
        let len = self.out.bytes.len() - position;
        self.out.counts.push(Count { position, len, width });
    }

    fn filler(&mut self, len: usize) {
        self.out.bytes.extend((0..len).map(|i| i as u8));
    }

    fn uvarint(&mut self, value: u32) {
        put_uvarint(&mut self.out.bytes, value);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.bytes.extend_from_slice(bytes);
    }
}

/// The tests' own encoder: it shares nothing with the one under test.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            return out.push(low);
        }
        out.push(low + 128);
    }
}

//! Variable-length numbers as Kafka writes them: seven bits a byte, the lowest first, the top bit set on all bytes but
//! the last. A signed number is first mapped to an unsigned one (zigzag), so that -1 becomes 1 and 1 becomes 2.
//!
//! Reading is strict: a number in more bytes than it needs, or of more bits than its type, is refused. So each value
//! has exactly one form, and a number that is read and written again has the same bytes.

use bytes::BufMut;

/// Reads from the start of `bytes`: the number and how many bytes it took. `None` if the bytes end too early or
/// are not in the strict form.
pub fn read_uvarlong(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (place, &byte) in bytes.iter().take(10).enumerate() {
        if place == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return (byte != 0 || place == 0).then_some((value, place + 1));
        }
    }
    None
}

pub fn read_uvarint(bytes: &[u8]) -> Option<(u32, usize)> {
    if let Some(&first) = bytes.first()
        && first < 0x80
    {
        return Some((u32::from(first), 1));
    }
    let (value, len) = read_uvarlong(bytes)?;
    Some((u32::try_from(value).ok()?, len))
}

pub fn read_varint(bytes: &[u8]) -> Option<(i32, usize)> {
    let (value, len) = read_uvarint(bytes)?;
    Some(((value >> 1).cast_signed() ^ -(value & 1).cast_signed(), len))
}

pub fn read_varlong(bytes: &[u8]) -> Option<(i64, usize)> {
    let (value, len) = read_uvarlong(bytes)?;
    Some(((value >> 1).cast_signed() ^ -(value & 1).cast_signed(), len))
}

pub fn put_uvarlong(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub fn put_uvarint(out: &mut impl BufMut, value: u32) {
    put_uvarlong(out, value.into());
}

pub fn put_varint(out: &mut impl BufMut, value: i32) {
    put_uvarint(out, zigzag(value));
}

pub fn put_varlong(out: &mut impl BufMut, value: i64) {
    put_uvarlong(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// How many bytes [`put_uvarint`] writes.
pub fn uvarint_len(value: u32) -> usize {
    uvarlong_len(value.into())
}

pub fn varint_len(value: i32) -> usize {
    uvarint_len(zigzag(value))
}

pub fn varlong_len(value: i64) -> usize {
    uvarlong_len(((value << 1) ^ (value >> 63)).cast_unsigned())
}

fn uvarlong_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

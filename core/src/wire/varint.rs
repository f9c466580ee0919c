//! Variable-length numbers as Kafka writes them: seven bits a byte, lowest first, the top bit set on all but the
//! last; signed ones zigzag first, so that -1 is 1 and 1 is 2.
//!
//! Reading is strict: a number in more bytes than it needs, or of more bits than its type, is refused. One value
//! has one form, so what is read and written again is the same bytes.

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_borders_take_the_bytes_they_should() {
        for (value, len) in [(0, 1), (127, 1), (128, 2), (16383, 2), (16384, 3), (u32::MAX, 5)] {
            let mut out = vec![];
            put_uvarint(&mut out, value);
            assert_eq!((out.len(), uvarint_len(value)), (len, len), "{value}");
            assert_eq!(read_uvarint(&out), Some((value, len)));
        }
        assert_eq!((varint_len(-64), varint_len(64), varint_len(i32::MIN)), (1, 2, 5));
        assert_eq!((varlong_len(-1), varlong_len(i64::MIN), varlong_len(i64::MAX)), (1, 10, 10));
    }

    #[test]
    fn overlong_overflowing_and_cut_off_numbers_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80], &[], &[0x80; 11]] {
            assert_eq!(read_uvarint(bytes), None, "{bytes:02x?}");
        }
        assert_eq!(read_uvarlong(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(read_uvarlong(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some((u64::MAX, 10)));
    }

    proptest! {
        #[test]
        fn signed_numbers_round_trip(short: i32, long: i64) {
            let mut out = vec![];
            put_varint(&mut out, short);
            prop_assert_eq!(read_varint(&out), Some((short, varint_len(short))));
            out.clear();
            put_varlong(&mut out, long);
            prop_assert_eq!(read_varlong(&out), Some((long, varlong_len(long))));
        }
    }
}

//! Variable-length numbers.

use proptest::prelude::*;
use tidelog_wire::varint::*;

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

//! Zig-zag varints, strictly: at most five bytes for 32 bits and ten for 64, and no bit beyond those.

/// Reads fields from the front of a slice.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a field could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Cut,
    Overlong,
}

impl Malformed {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Cut => "the records end in the middle of it",
            Self::Overlong => "a variable-length number is longer than its type",
        }
    }
}

impl<'a> Fields<'a> {
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    #[inline(always)]
    pub(super) fn read_bytes(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed::Cut)?;
        self.at += 1;
        Ok(byte)
    }

    /// Passes over a field of `len` bytes, -1 for null. A length below -1 is [`Malformed::Cut`]. Whether the bytes are
    /// there is only noticed by the next read.
    #[inline(always)]
    pub(super) fn pass(&mut self, len: i32) -> Result<(), Malformed> {
        if len != -1 {
            self.at += usize::try_from(len).map_err(|_| Malformed::Cut)?;
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<i32, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag32(u32::from(first)));
        }
        self.varint_rest(first)
    }

    #[inline]
    fn varint_rest(&mut self, first: u8) -> Result<i32, Malformed> {
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(unzigzag32(value));
            }
        }
        let byte = self.byte()?;
        if byte > 0x0f {
            return Err(Malformed::Overlong);
        }
        Ok(unzigzag32(value | u32::from(byte) << 28))
    }

    #[inline(always)]
    pub(super) fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed::Overlong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
        }
    }
}

#[inline(always)]
fn unzigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The bytes that [`put_varint`] writes.
pub(super) fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

/// The bytes that [`put_varlong`] writes.
pub(super) fn varlong_len(value: i64) -> usize {
    let bits = 64 - ((value << 1 ^ value >> 63) as u64 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were_written(value: i32, long: i64, small in -70i32..70) {
            for value in [value, small, i32::MIN, i32::MAX, 0] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                prop_assert_eq!(bytes.len(), varint_len(value));
                let mut fields = Fields::new(&bytes);
                prop_assert_eq!(fields.varint(), Ok(value));
                prop_assert_eq!(fields.read_bytes(), bytes.len());
            }
            for value in [long, i64::MIN, i64::MAX] {
                let mut bytes = Vec::new();
                put_varlong(&mut bytes, value);
                prop_assert_eq!(bytes.len(), varlong_len(value));
                prop_assert_eq!(Fields::new(&bytes).varlong(), Ok(value));
            }
        }
    }

    #[test]
    fn numbers_longer_than_their_type_are_refused() {
        assert_eq!(Fields::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(i32::MIN));
        assert_eq!(Fields::new(&[0xff, 0xff, 0xff, 0xff, 0x10]).varint(), Err(Malformed::Overlong));
        assert_eq!(Fields::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]).varint(), Err(Malformed::Overlong));
        let mut long = [0xff; 10];
        assert_eq!(Fields::new(&long).varlong(), Err(Malformed::Overlong));
        long[9] = 1;
        assert_eq!(Fields::new(&long).varlong(), Ok(i64::MIN));
        assert_eq!(Fields::new(&long[..9]).varlong(), Err(Malformed::Cut));
        assert_eq!(Fields::new(&[]).varint(), Err(Malformed::Cut));
    }
}

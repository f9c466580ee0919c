//! The checksum of a batch: CRC-32C of everything from the attributes on.

use super::error::BatchError;
use super::header::{BatchHeader, i32_at};

/// Where the checksummed part begins.
pub(super) const CHECKSUMMED_FROM: usize = 21;

/// Compares the checksum in the header with that of the bytes. `batch` is exactly one batch whose header was parsed.
#[inline]
pub fn verify_checksum(batch: &[u8]) -> Result<(), BatchError> {
    assert!(batch.len() >= BatchHeader::LEN, "a whole batch has at least a header");
    let stored = i32_at(batch, 17) as u32;
    let computed = crc32c::crc32c(&batch[CHECKSUMMED_FROM..]);
    if stored == computed { Ok(()) } else { Err(BatchError::Checksum { stored, computed }) }
}

/// The polynomial of CRC-32C, the coefficient of x^0 in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^(2^k), modulo the polynomial.
const POWERS: [u32; 32] = {
    // x^1.
    let mut powers = [1 << 30; 32];
    let mut k = 1;
    while k < 32 {
        powers[k] = product(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// The difference between two CRCs after the same `bytes` bytes have followed both: the earlier difference, multiplied
/// by x^(8 * bytes). (`crc32c_combine` gives the same and is 20 times slower, because it squares a matrix for each bit
/// of the length.)
pub(super) fn moved_past(difference: u32, bytes: usize) -> u32 {
    let mut moved = difference;
    // x has the order 2^31 - 1, so its 2^31st power is its first again.
    let mut bits = bytes as u64 * 8;
    let mut k = 0;
    while bits != 0 {
        if bits & 1 == 1 {
            moved = product(POWERS[k % 31], moved);
        }
        bits >>= 1;
        k += 1;
    }
    moved
}

/// The product of two polynomials over GF(2), modulo [`POLYNOMIAL`].
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            sum ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_difference_moves_as_the_library_combines(difference: u32, bytes in 0usize..1 << 31) {
            prop_assert_eq!(moved_past(difference, bytes), crc32c::crc32c_combine(difference, 0, bytes));
        }
    }
}

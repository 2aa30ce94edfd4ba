//! Variable-length integers: little-endian groups of seven bits, high bit = more follow.
//!
//! Message ids and MQTT's remaining length use the same form.

/// The reason why bytes are not a varint within its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarintError {
    /// The last group says that more follow, but the input ends.
    Truncated,
    /// More than `bytes_max` groups, or a value past 2^32 - 1.
    TooLong,
}

/// Value and number of bytes it took. Overlong forms (`80 00`) are accepted, as in the reference.
#[inline]
pub fn decode(input: &[u8], bytes_max: usize) -> Result<(u32, usize), VarintError> {
    if let Some(&byte) = input.first()
        && byte < 0x80
    {
        return Ok((u32::from(byte), 1));
    }
    let mut value = 0u64;
    for index in 0..bytes_max {
        let Some(&byte) = input.get(index) else {
            return Err(VarintError::Truncated);
        };
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let value = u32::try_from(value).map_err(|_| VarintError::TooLong)?;
            return Ok((value, index + 1));
        }
    }
    Err(VarintError::TooLong)
}

/// Bytes that [`fn@write`] writes, 1..=5.
#[inline]
pub fn len(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes the shortest form.
#[inline]
pub fn write(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_written_number_is_read_back() {
        for shift in 0..32 {
            for value in [1u32 << shift, (1u32 << shift) - 1, u32::MAX >> shift] {
                let mut out = Vec::new();
                write(&mut out, value);
                assert_eq!(out.len(), len(value), "{value}");
                assert_eq!(decode(&out, 5), Ok((value, out.len())));
                for end in 0..out.len() {
                    assert_eq!(decode(&out[..end], 5), Err(VarintError::Truncated));
                }
            }
        }
    }

    #[test]
    fn overlong_zero_is_zero_and_six_bytes_are_too_many() {
        assert_eq!(decode(&[0x80, 0x80, 0], 5), Ok((0, 3)));
        assert_eq!(
            decode(&[0x80, 0x80, 0x80, 0x80, 0x80, 1], 5),
            Err(VarintError::TooLong)
        );
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0x7f], 5),
            Err(VarintError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_number_or_an_error(
            input in prop::collection::vec(any::<u8>(), 0..8), bytes_max in 0..6_usize,
        ) {
            if let Ok((value, bytes)) = decode(&input, bytes_max) {
                prop_assert!(len(value) <= bytes && bytes <= input.len());
                let mut shortest = Vec::new();
                write(&mut shortest, value);
                prop_assert_eq!(decode(&shortest, 5), Ok((value, len(value))));
            }
        }
    }
}

//! How is an integer written, which the store adds to?
//!
//! As MessagePack has it, as all values are; numbers are the one kind that the store itself looks into.

/// The shortest form of `number`.
#[must_use]
pub(super) fn write(number: i64) -> Vec<u8> {
    let form = |marker: u8, bytes: &[u8]| [&[marker], bytes].concat();
    if let Ok(small) = i8::try_from(number)
        && small >= -32
    {
        return small.to_be_bytes().to_vec();
    }
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number), u64::try_from(number)) {
        (Ok(number), ..) => form(0xcc, &number.to_be_bytes()),
        (_, Ok(number), ..) => form(0xcd, &number.to_be_bytes()),
        (_, _, Ok(number), _) => form(0xce, &number.to_be_bytes()),
        (.., Ok(number)) => form(0xcf, &number.to_be_bytes()),
        _ => match (i8::try_from(number), i16::try_from(number), i32::try_from(number)) {
            (Ok(number), ..) => form(0xd0, &number.to_be_bytes()),
            (_, Ok(number), _) => form(0xd1, &number.to_be_bytes()),
            (.., Ok(number)) => form(0xd2, &number.to_be_bytes()),
            _ => form(0xd3, &number.to_be_bytes()),
        },
    }
}

/// An integer in any of its forms; `None` if it is something else or out of range.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> Option<i64> {
    let (&marker, rest) = bytes.split_first()?;
    Some(match marker {
        0x00..=0x7f | 0xe0..=0xff => i8::from_be_bytes([marker]).into(),
        0xcc => u8::from_be_bytes(*rest.first_chunk()?).into(),
        0xcd => u16::from_be_bytes(*rest.first_chunk()?).into(),
        0xce => u32::from_be_bytes(*rest.first_chunk()?).into(),
        0xcf => u64::from_be_bytes(*rest.first_chunk()?).try_into().ok()?,
        0xd0 => i8::from_be_bytes(*rest.first_chunk()?).into(),
        0xd1 => i16::from_be_bytes(*rest.first_chunk()?).into(),
        0xd2 => i32::from_be_bytes(*rest.first_chunk()?).into(),
        0xd3 => i64::from_be_bytes(*rest.first_chunk()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_and_read_as_plugins_do() {
        let edges = (0..63).flat_map(|bits| [-1, 0, 1].map(|beside| (1_i64 << bits) + beside)).chain([i64::MAX]);
        for number in edges.flat_map(|number| [number, -number, -number - 1]) {
            let theirs = rmp_serde::to_vec(&number).expect("a number");
            assert_eq!(write(number), theirs, "{number}");
            assert_eq!(read(&theirs), Some(number));
            assert_eq!(rmp_serde::from_slice::<i64>(&theirs).ok(), Some(number));
        }
    }

    #[test]
    fn what_is_no_integer_is_none_to_both() {
        let mut cases: Vec<Vec<u8>> = (0..=255).map(|marker| vec![marker]).collect();
        cases.extend((0..=255).map(|marker| [&[marker], &[0xff; 8][..]].concat()));
        cases.push(Vec::new());
        for bytes in cases {
            assert_eq!(read(&bytes), rmp_serde::from_slice::<i64>(&bytes).ok(), "{bytes:x?}");
        }
    }
}

//! How an input is cut into parts.

use perigee_wire::msgpack::{canonical, has_sentinel, validate};

/// A choice, and what follows it. Nothing comes of an empty input.
pub(crate) fn choice(data: &[u8], choices: u8) -> Option<(u8, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((first % choices, rest))
}

/// The first part, as long as the two bytes before it say, and the rest.
pub(crate) fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some(rest.split_at(length.min(rest.len())))
}

/// What `split` cuts into these parts again.
pub fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("a short part");
    [&length.to_be_bytes(), first, second].concat()
}

/// A value as it is stored, if the bytes are one that may be.
pub(crate) fn stored(bytes: &[u8]) -> Option<Vec<u8>> {
    let value = canonical(bytes).ok()?;
    (!has_sentinel(&value)).then_some(value)
}

/// Fails unless the bytes are a value that may be stored as it is.
pub(crate) fn assert_stored(value: &[u8], of: &dyn std::fmt::Debug) {
    let again = canonical(value);
    assert_eq!(again.as_deref(), Ok(value), "not canonical, of {of:02x?}");
    assert!(!has_sentinel(value), "a sentinel is stored, of {of:02x?}");
}

/// Fails unless the bytes are one value of msgpack, of no more bytes than `most`.
pub(crate) fn assert_result(result: &[u8], most: usize, of: &dyn std::fmt::Debug) {
    let valid = validate(result);
    assert!(
        valid.is_ok(),
        "{valid:?} in the result {result:02x?}, of {of:02x?}"
    );
    assert!(
        result.len() <= most,
        "{} bytes of result where {most} are enough, of {of:02x?}",
        result.len()
    );
}

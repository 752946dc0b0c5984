//! Operations on lists and maps: a stored value, and a call as it comes in a request.

use crate::part::{assert_result, assert_stored, split, stored};
use perigee_engine::record::cdt::{
    CONTEXT_STEPS_MAX, Call, CallBytes, Container, PADDING_MAX, Stored, index_of, modify, read,
};
use perigee_wire::ResultCode;

/// Bytes of an item's place in a result, and of what is put around.
const PLACE_BYTES: usize = 9;
const HEAD_BYTES: usize = 64;

pub(crate) fn run(data: &[u8]) {
    let Some((value, call)) = split(data) else {
        return;
    };
    let Some(value) = stored(value) else { return };
    let Ok(bytes) = CallBytes::of(call) else {
        return;
    };
    let Ok(parsed) = Call::parse(&bytes) else {
        return;
    };
    assert!(parsed.context.len() <= CONTEXT_STEPS_MAX);
    match parsed.is_modify() {
        Ok(true) => {
            modified(Some(&value), &bytes, call);
            modified(None, &bytes, call);
        }
        Ok(false) => was_read(&value, &bytes, call),
        Err(code) => assert_eq!(code, ResultCode::Parameter),
    }
}

fn call_of(bytes: &CallBytes) -> Call<'_> {
    Call::parse(bytes).expect("parsed before")
}

fn was_read(value: &[u8], bytes: &CallBytes, call: &[u8]) {
    let outcome = read(value, &mut call_of(bytes));
    if let Ok(Some(result)) = &outcome {
        let most = PLACE_BYTES * value.len() + HEAD_BYTES;
        assert_result(result, most, &(value, call));
    }
    if let Some(index) = index_of(value) {
        let indexed = Stored {
            bytes: value,
            index: Some(&index),
        };
        assert_eq!(read(indexed, &mut call_of(bytes)), outcome);
    }
}

fn modified(value: Option<&[u8]>, bytes: &CallBytes, call: &[u8]) {
    let outcome = modify(value, &mut call_of(bytes));
    let Ok(changed) = &outcome else { return };
    let of = (value, call);
    let before = value.map_or(0, <[u8]>::len);
    if let Some(after) = &changed.value {
        assert_stored(after, &of);
        let most = before + call.len() + PADDING_MAX + HEAD_BYTES * (1 + CONTEXT_STEPS_MAX);
        assert!(after.len() <= most, "{} bytes, of {of:02x?}", after.len());
        let is_map = |bytes: &[u8]| Container::parse(bytes).map(|it| it.is_map);
        if let Some(value) = value {
            assert_eq!(is_map(after), is_map(value), "of {of:02x?}");
        }
    }
    if let Some(result) = &changed.result {
        let most = PLACE_BYTES * (before + call.len()) + HEAD_BYTES;
        assert_result(result, most, &of);
    }
    if let Some(value) = value
        && let Some(index) = index_of(value)
    {
        let indexed = Stored {
            bytes: value,
            index: Some(&index),
        };
        let by_index = modify(Some(indexed), &mut call_of(bytes)).expect("as without the index");
        assert_eq!(by_index.value, changed.value);
        assert_eq!(by_index.result, changed.result);
    }
}

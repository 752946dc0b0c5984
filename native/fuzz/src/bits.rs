//! Operations on the bits of a blob.

use crate::part::{assert_result, split};
use perigee_engine::record::bits::BitCall;
use perigee_engine::record::cdt::CallBytes;

const BYTES_MAX: usize = 64 << 10;

pub(crate) fn run(data: &[u8]) {
    let Some((blob, call)) = split(data) else {
        return;
    };
    let Ok(bytes) = CallBytes::of(call) else {
        return;
    };
    let Ok(operation) = BitCall::parse(&bytes) else {
        return;
    };
    if !operation.is_modify() {
        if let Ok(result) = operation.read(blob) {
            assert_result(&result, blob.len() + 16, &(blob, call));
        }
        assert!(operation.modify(Some(blob), BYTES_MAX).is_err());
        return;
    }
    assert!(operation.read(blob).is_err());
    for old in [Some(blob), None] {
        if let Ok(Some(new)) = operation.modify(old, BYTES_MAX) {
            assert!(new.len() <= BYTES_MAX.max(blob.len()), "of {call:02x?}");
            assert_ne!(
                Some(new.as_slice()),
                old,
                "a change that is none, of {call:02x?}"
            );
        }
    }
}

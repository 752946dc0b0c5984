//! Operations on sketches.

use crate::part::{assert_result, split};
use perigee_engine::record::cdt::CallBytes;
use perigee_engine::record::hll::HllCall;
use perigee_wire::{ResultCode, particle_type as particle, validate_particle};

const BYTES_MAX: usize = 64 << 10;

pub(crate) fn run(data: &[u8]) {
    let Some((sketch, call)) = split(data) else {
        return;
    };
    let Ok(bytes) = CallBytes::of(call) else {
        return;
    };
    let Ok(operation) = HllCall::parse(&bytes) else {
        return;
    };
    let is_sketch = validate_particle(particle::HLL, sketch).is_ok();
    if !operation.is_modify() {
        match operation.read(sketch) {
            Ok(result) => assert_result(&result, sketch.len() + call.len() + 16, &call),
            Err(code) if !is_sketch => assert_eq!(code, ResultCode::IncompatibleType),
            Err(_) => {}
        }
        return;
    }
    for old in [is_sketch.then_some(sketch), None] {
        let Ok(changed) = operation.modify(old, BYTES_MAX) else {
            continue;
        };
        if let Some(result) = &changed.result {
            assert_result(result, 16, &call);
        }
        let Some(new) = changed.value else { continue };
        assert_eq!(validate_particle(particle::HLL, &new), Ok(()));
        // Done again, an operation has nothing more to add.
        let again = operation.modify(Some(&new), BYTES_MAX);
        if let Ok(again) = again {
            let after = again.value.as_deref().unwrap_or(&new);
            assert_eq!(registers(after), registers(&new), "of {call:02x?}");
        }
    }
}

/// Without the estimate that is kept beside them.
fn registers(sketch: &[u8]) -> (&[u8], &[u8]) {
    (&sketch[..3], &sketch[11..])
}

//! GGUF files: metadata and tensors.

use bitnet_gguf::{Error, Gguf, Value};

/// What messages call the file.
const NAME: &str = "input.gguf";

/// Opens a file and reads all that is in it.
///
/// # Errors
///
/// Where it is damaged.
pub fn gguf(input: &[u8]) -> Result<(), Error> {
    let gguf = named(Gguf::from_vec(NAME, input.to_vec()))?;
    for (key, value) in gguf.metadata() {
        metadata(&gguf, key, value);
    }
    let mut all = Ok(());
    for tensor in gguf.tensors() {
        let end = tensor.offset.checked_add(tensor.room);
        assert!(end.is_some_and(|end| end <= input.len() as u64), "{tensor:?} is outside");
        let data = named(gguf.data(tensor));
        assert_eq!(named(gguf.tensor_type(tensor)).is_ok(), data.is_ok());
        all = all.and(data.map(|data| assert!(data.len() as u64 <= tensor.room)));
    }
    all
}

/// Reads a value as everything that it could be.
fn metadata(gguf: &Gguf, key: &str, value: &Value) {
    assert_eq!(gguf.value(key).map(Value::kind), Some(value.kind()));
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        assert!(array.strings().is_none_or(|strings| strings.count() == array.len()));
    }
    drop(named(gguf.u32(key)));
    drop(named(gguf.f32(key)));
    drop(named(gguf.bool(key)));
    drop(named(gguf.str(key)));
    drop(named(gguf.i32s(key)));
    drop(named(gguf.u32s(key)));
    drop(named(gguf.f32s(key)));
    drop(named(gguf.strings(key).map(|strings| strings.map(Iterator::count))));
}

/// Errors name the file.
fn named<T>(result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| assert!(error.to_string().starts_with(NAME), "{error}"))
}

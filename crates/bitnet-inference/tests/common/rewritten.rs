//! Models in layouts that a file does not tell.

use bitnet_gguf::{Gguf, TensorType, Writer};
use bitnet_kernels::{Format, format};

use crate::common::DEMO;

/// The demo model with its matrices in a format that the file does not tell, in the place of I2_S.
pub(crate) fn rewritten(to: Format) -> Vec<u8> {
    let demo = Gguf::from_static("demo.gguf", DEMO).unwrap();
    let mut writer = Writer::new();
    for (key, value) in demo.metadata() {
        writer = writer.metadata(key, value.clone());
    }
    for t in demo.tensors() {
        let mut data = demo.data(t).unwrap().to_vec();
        if t.type_id == TensorType::I2S.id() {
            let (cols, rows) = (t.dims[0] as usize, t.dims[1] as usize);
            let scale = format::check(Format::I2S, &data, rows, cols).unwrap();
            let weights = format::decode(Format::I2S, &data, rows, cols).unwrap();
            data = format::encode(to, &weights, rows, cols, scale).unwrap();
        }
        writer = writer.tensor(&t.name, &t.dims, t.type_id, data);
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).unwrap();
    file
}

//! The demo model taken apart, to be changed and put together.

use bitnet_gguf::{Gguf, TensorType, Value, Writer};
use bitnet_inference::{Engine, Error};
use bitnet_kernels::{Format, format};
use half::f16;

use crate::common::DEMO;
use crate::exact::exact;

/// A tensor to write.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) type_id: u32,
    pub(crate) data: Vec<u8>,
}

/// The demo model taken apart, to be changed and put together.
pub(crate) struct Parts {
    pub(crate) version: u32,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

impl Parts {
    pub(crate) fn demo() -> Parts {
        let gguf = Gguf::from_static("demo.gguf", DEMO).unwrap();
        let metadata = gguf.metadata().map(|(key, value)| (key.to_owned(), value.clone()));
        let tensors = gguf.tensors().iter().map(|t| Tensor {
            name: t.name.clone(),
            dims: t.dims.clone(),
            type_id: t.type_id,
            data: gguf.data(t).unwrap().to_vec(),
        });
        Parts { version: 3, metadata: metadata.collect(), tensors: tensors.collect() }
    }

    pub(crate) fn load(self) -> Result<Engine, Error> {
        let gguf = Gguf::from_vec("variant.gguf", self.write()).unwrap();
        Engine::load(gguf, &exact())
    }

    pub(crate) fn write(self) -> Vec<u8> {
        let mut writer = Writer::new().version(self.version);
        for (key, value) in self.metadata {
            writer = writer.metadata(&key, value);
        }
        for t in self.tensors {
            writer = writer.tensor(&t.name, &t.dims, t.type_id, t.data);
        }
        let mut file = Vec::new();
        writer.write_to(&mut file).unwrap();
        file
    }

    /// Another type for the ternary matrices.
    pub(crate) fn ternary(mut self, format: Format, type_id: u32) -> Parts {
        for t in self.tensors.iter_mut().filter(|t| t.type_id == TensorType::I2S.id()) {
            let (cols, rows) = (t.dims[0] as usize, t.dims[1] as usize);
            let scale = format::check(Format::I2S, &t.data, rows, cols).unwrap();
            let weights = format::decode(Format::I2S, &t.data, rows, cols).unwrap();
            t.data = format::encode(format, &weights, rows, cols, scale).unwrap();
            t.type_id = type_id;
        }
        self
    }

    /// Another type for the embedding table.
    pub(crate) fn embedding(mut self, type_id: u32, encode: impl Fn(&[f32]) -> Vec<u8>) -> Parts {
        let table = self.tensors.iter_mut().find(|t| t.name == "token_embd.weight").unwrap();
        let halves = table.data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32());
        table.data = encode(&halves.collect::<Vec<_>>());
        table.type_id = type_id;
        self
    }

    /// Renames the architecture, and the keys that start with it.
    pub(crate) fn architecture(mut self, name: &str) -> Parts {
        for (key, value) in &mut self.metadata {
            *key = key.replace("bitnet-b1.58.", &format!("{name}."));
            if key == "general.architecture" {
                *value = name.into();
            }
        }
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Parts {
        let before = self.metadata.len();
        self.metadata.retain(|(k, _)| k != key);
        assert_eq!(self.metadata.len(), before - 1, "{key}");
        self
    }

    pub(crate) fn add(mut self, name: &str, dims: &[u64], type_id: u32, data: Vec<u8>) -> Parts {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), type_id, data });
        self
    }
}

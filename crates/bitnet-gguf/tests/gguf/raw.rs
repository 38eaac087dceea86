//! Builds GGUF bytes field by field, right or wrong, without the crate's own writer.

/// A file in parts. `bytes` puts them together as they are.
pub(crate) struct Raw {
    pub(crate) version: u32,
    /// Key, type id, encoded value.
    pub(crate) entries: Vec<(&'static str, u32, Vec<u8>)>,
    pub(crate) tensors: Vec<RawTensor>,
    /// The header is padded to a multiple of this.
    pub(crate) alignment: usize,
    /// Bytes after the padded header.
    pub(crate) data: usize,
}

/// Name, dimensions, type id, offset from the start of the data.
pub(crate) type RawTensor = (&'static str, Vec<u64>, u32, u64);

impl Raw {
    /// A version 3 file of architecture bitnet-b1.58 with these tensors and `data` zero bytes.
    pub(crate) fn new(tensors: Vec<RawTensor>, data: usize) -> Raw {
        let architecture = ("general.architecture", 8, string("bitnet-b1.58"));
        Raw { version: 3, entries: vec![architecture], tensors, alignment: 32, data }
    }

    /// A file without tensors, with one more metadata entry.
    pub(crate) fn entry(key: &'static str, type_id: u32, value: Vec<u8>) -> Raw {
        let mut raw = Raw::new(Vec::new(), 0);
        raw.entries.push((key, type_id, value));
        raw
    }

    pub(crate) fn architecture(mut self, name: &str) -> Raw {
        self.entries[0].2 = string(name);
        self
    }

    /// Byte position where the entry or tensor description `name` starts.
    pub(crate) fn position(&self, name: &str) -> u64 {
        let encoded = string(name);
        let bytes = self.bytes();
        let found = bytes.windows(encoded.len()).position(|window| window == encoded);
        found.expect("the name is in the file") as u64
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, type_id, value) in &self.entries {
            out.extend(string(key));
            out.extend(type_id.to_le_bytes());
            out.extend(value);
        }
        for (name, dims, type_id, offset) in &self.tensors {
            out.extend(string(name));
            out.extend((dims.len() as u32).to_le_bytes());
            out.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(type_id.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment) + self.data, 0);
        out
    }
}

/// An encoded string: length, bytes.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// The start of an encoded array: element type, count.
pub(crate) fn array(type_id: u32, count: u64) -> Vec<u8> {
    let mut out = type_id.to_le_bytes().to_vec();
    out.extend(count.to_le_bytes());
    out
}

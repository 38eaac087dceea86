//! Writes GGUF files.

use std::io::{self, Write};

use bitnet_gguf::{TensorType, Writer};
use bitnet_kernels::Format;

use super::{Conversion, Target, Watched};
use crate::source::Metadata;
use crate::{Error, Notice};

/// The key of what most tensors are.
const FILE_TYPE: &str = "general.file_type";

impl Conversion<'_> {
    pub(super) fn write_gguf(
        &self,
        out: &mut impl Write,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<(), Error> {
        let mut writer = Writer::new();
        for (key, value) in self.metadata()?.0 {
            writer = writer.metadata(&key, value);
        }
        for planned in &self.tensors {
            let kind = TensorType::named(planned.to.ggml_name());
            let id = kind.ok_or_else(|| self.unknown(planned.to))?.id();
            let tensor = planned.tensor;
            let produce = move |out: &mut dyn Write| {
                let mut out = Watched { out, written: progress };
                self.produce(planned, &mut out).map_err(io::Error::other)
            };
            let length = self.length(planned);
            writer = writer.tensor_from(&tensor.name, &tensor.dims, id, (length, produce));
            if let Some(ternary) = planned.ternary.as_ref().filter(|ternary| ternary.beside) {
                let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
                let scale = ternary.scale.to_le_bytes();
                writer = writer.tensor(&format!("{name}.scale"), &[1], TensorType::F32.id(), scale);
            }
        }
        writer.write_to(out).map_err(|error| match error {
            bitnet_gguf::Error::Write { source } => {
                Error::Output { file: "the model".to_owned(), source }
            }
            error => error.into(),
        })
    }

    /// The metadata of the file, and what the user should know of it.
    pub(super) fn metadata(&self) -> Result<(Metadata, Vec<Notice>), Error> {
        let Target::Gguf(format) = self.target else { return Ok(Default::default()) };
        let checkpoint = self.contents.checkpoint();
        let (mut metadata, notices) = checkpoint.metadata()?;
        // A split file becomes one.
        metadata.retain(|(key, _)| !key.starts_with("split.") && key != FILE_TYPE);
        if let Some(number) = file_type(format) {
            let behind = metadata.iter().position(|(key, _)| !key.starts_with("general."));
            let place = behind.unwrap_or(metadata.len());
            metadata.insert(place, (FILE_TYPE.to_owned(), number.into()));
        }
        Ok((metadata, notices))
    }

    fn unknown(&self, format: Format) -> Error {
        let what = format!("GGUF files cannot hold {}", format.ggml_name());
        Error::Variant { file: self.contents.checkpoint().name().to_owned(), what }
    }
}

/// The number that programs give files of mostly this format, if they do.
fn file_type(format: Format) -> Option<u32> {
    Some(match format {
        Format::Tq1_0 => 36,
        Format::Tq2_0 => 37,
        Format::Tl1 => 38,
        Format::Tl2 => 39,
        Format::I2S => 40,
        Format::Iq1Bn => 136,
        Format::Iq2Bn => 137,
        Format::Iq2BnR4 => 337,
        _ => return None,
    })
}

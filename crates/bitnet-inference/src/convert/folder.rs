//! Writes Hugging Face folders: packed weights in one file of safetensors, and what is beside them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use bitnet_kernels::Format;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use super::output::{finish, sync_folder};
use super::{Conversion, Planned, Watched};
use crate::config::packed;
use crate::source::hf_name;
use crate::{Error, Notice, tokenizer};

/// A file beside the weights: its name, and what it says.
type Beside = (&'static str, String);

impl Conversion<'_> {
    pub(super) fn write_folder(
        &self,
        path: &Path,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<(), Error> {
        let fail = |source| Error::Output { file: "the model".to_owned(), source };
        for (name, text) in self.beside()?.0 {
            let path = path.join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(fail)?;
            let mut file = File::create_new(path).map_err(fail)?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
        }
        let file = File::create_new(path.join("model.safetensors")).map_err(fail)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let header = self.header()?;
        let length = header.len() as u64;
        out.write_all(&length.to_le_bytes()).and_then(|()| out.write_all(&header)).map_err(fail)?;
        for planned in &self.tensors {
            let mut watched = Watched { out: &mut out, written: progress };
            self.produce(planned, &mut watched)?;
            if let Some(ternary) = &planned.ternary {
                out.write_all(&ternary.scale.to_le_bytes()).map_err(fail)?;
            }
        }
        finish(out)?;
        sync_folder(path).map_err(fail)
    }

    /// The header of the file of weights: JSON, padded to a multiple of eight bytes.
    fn header(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        let mut start = 0;
        let mut add = |name: String, dtype, shape, length: u64| {
            let end = start + length as usize;
            tensors.push((name, TensorInfo { dtype, shape, data_offsets: (start, end) }));
            start = end;
        };
        for planned in &self.tensors {
            let name = self.name(planned)?;
            let mut shape: Vec<_> =
                planned.tensor.dims.iter().rev().map(|&dim| dim as usize).collect();
            let dtype = match planned.to {
                Format::F16 => Dtype::F16,
                Format::Bf16 => Dtype::BF16,
                Format::F32 => Dtype::F32,
                _ => {
                    // Four rows of weights are in one of bytes.
                    shape[0] /= 4;
                    Dtype::U8
                }
            };
            let scale = planned.ternary.as_ref().map(|_| format!("{name}_scale"));
            add(name, dtype, shape, self.length(planned));
            if let Some(scale) = scale {
                add(scale, Dtype::F32, vec![1], 4);
            }
        }
        let about = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
        let damaged = |what: String| Error::Variant {
            file: self.contents.checkpoint().name().to_owned(),
            what,
        };
        let metadata =
            Metadata::new(Some(about), tensors).map_err(|error| damaged(error.to_string()))?;
        let mut header =
            serde_json::to_vec(&metadata).map_err(|error| damaged(error.to_string()))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(header)
    }

    /// The name in the folder.
    fn name(&self, planned: &Planned<'_>) -> Result<String, Error> {
        let checkpoint = self.contents.checkpoint();
        let tensor = planned.tensor;
        if checkpoint.folder().is_some() {
            return Ok(tensor.stored.clone());
        }
        let architecture = checkpoint.architecture()?;
        hf_name(architecture, &tensor.name).ok_or_else(|| Error::UnknownTensor {
            file: checkpoint.file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            architecture: architecture.to_owned(),
        })
    }

    /// The metadata of GGUF that folders have no place for.
    fn left_out(&self) -> Result<Option<Notice>, Error> {
        let checkpoint = self.contents.checkpoint();
        let own = format!("{}.", checkpoint.architecture()?);
        let kept = |key: &str| {
            key.starts_with(&own)
                || key.starts_with("tokenizer.")
                || key.starts_with("split.")
                || ["architecture", "alignment", "file_type", "quantization_version"]
                    .iter()
                    .any(|known| key.strip_prefix("general.") == Some(known))
        };
        let (metadata, _) = checkpoint.metadata()?;
        let names: Vec<_> =
            metadata.into_iter().map(|(key, _)| key).filter(|key| !kept(key)).collect();
        let file = checkpoint.name().to_owned();
        Ok((!names.is_empty()).then_some(Notice::LeftOut { file, names }))
    }

    /// The type of all tensors that are not ternary, as transformers calls it.
    fn dtype(&self) -> &'static str {
        match self.tensors.iter().find(|planned| planned.ternary.is_none()) {
            Some(Planned { to: Format::F16, .. }) => "float16",
            Some(Planned { to: Format::Bf16, .. }) => "bfloat16",
            _ => "float32",
        }
    }

    /// What is beside the weights, and what the user should know of it.
    pub(super) fn beside(&self) -> Result<(Vec<Beside>, Vec<Notice>), Error> {
        let checkpoint = self.contents.checkpoint();
        if let Some(folder) = checkpoint.folder() {
            // What could not run is not written.
            checkpoint.any_config()?;
            let mut config = folder.config().value.as_object().cloned().unwrap_or_default();
            let old = config.get_mut("quantization_config").map(Value::take);
            let mut settings = old.and_then(|old| old.as_object().cloned()).unwrap_or_default();
            settings.extend(packed());
            config.insert("quantization_config".to_owned(), settings.into());
            if self
                .tensors
                .iter()
                .any(|planned| planned.ternary.is_none() && planned.from != planned.to)
            {
                config.remove("dtype");
                config.insert("torch_dtype".to_owned(), self.dtype().into());
            }
            let mut files = folder.beside()?;
            files.push(("config.json", pretty(config)));
            return Ok((files, checkpoint.notices()));
        }
        let mut config = checkpoint.config()?;
        let names: BTreeSet<_> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
        config.vocabulary = checkpoint.embedding_rows().or(config.vocabulary);
        let norms = names.iter().any(|name| name.ends_with("_norm_in.weight"));
        let mut json = config.to_json(!names.contains("output.weight"), norms);
        json.insert("torch_dtype".to_owned(), self.dtype().into());
        let (vocabulary, mut notices) = checkpoint.vocabulary(config.vocabulary.unwrap_or(0))?;
        let mut files = Vec::new();
        if let Some(vocabulary) = vocabulary {
            json.extend(vocabulary.bos.map(|id| ("bos_token_id".to_owned(), id.into())));
            json.extend(vocabulary.eos.map(|id| ("eos_token_id".to_owned(), id.into())));
            let ([tokenizer, mut config, generation], lost) = tokenizer::to_json(&vocabulary);
            let chat = checkpoint.chat()?;
            for (name, text) in &chat.special {
                config.1.entry(*name).or_insert_with(|| text.as_str().into());
            }
            let written = [tokenizer, config, generation];
            files.extend(written.map(|(name, json)| (name, pretty(json))));
            files.extend(chat.files());
            let file = checkpoint.name();
            notices.extend(lost.map(|what| Notice::Tokenizer { file: file.to_owned(), what }));
        }
        files.push(("config.json", pretty(json)));
        notices.extend(self.left_out()?);
        Ok((files, notices))
    }
}

fn pretty(json: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(json))
}

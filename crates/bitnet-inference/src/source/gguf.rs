//! Models in GGUF: one file, or the parts it was split into.

use std::path::{Path, PathBuf};

use bitnet_gguf::{Gguf, TensorType};
use bitnet_kernels::Format;

use super::{StoredTensor, Weights};
use crate::Error;

/// The most parts of a file: their numbers have five digits.
const MOST_PARTS: u32 = 99_999;

/// Opens a file, and the other parts of the model if it is one of several.
pub(super) fn open(path: &Path) -> Result<Vec<Gguf>, Error> {
    let file = Gguf::open(path)?;
    let Some((part, parts)) = part(&file)? else {
        return Ok(vec![file]);
    };
    let wrong = |what: String| Error::Variant { file: file.name().to_owned(), what };
    let Some(prefix) = prefix(path, part, parts) else {
        return Err(wrong(format!(
            "this is part {} of {parts} of a split model, and the name does not end in \
             -{:05}-of-{parts:05}.gguf: give the parts their names back",
            part + 1,
            part + 1,
        )));
    };
    let mut files = Vec::new();
    for other in 0..parts {
        let path = PathBuf::from(format!("{prefix}-{:05}-of-{parts:05}.gguf", other + 1));
        let opened = Gguf::open(&path)?;
        if self::part(&opened)? != Some((other, parts)) {
            let what = format!(
                "this is not part {} of {parts} of a split model, as its name says",
                other + 1
            );
            return Err(Error::Variant { file: opened.name().to_owned(), what });
        }
        files.push(opened);
    }
    let found: usize = files.iter().map(|file| file.tensors().len()).sum();
    match files[0].u32("split.tensors.count")? {
        Some(stated) if stated as usize != found => Err(wrong(format!(
            "the parts have {found} tensors, of {stated} that split.tensors.count says: a part is \
             of another model"
        ))),
        _ => Ok(files),
    }
}

/// Which part of how many a file is, from 0; nothing if it is whole.
fn part(file: &Gguf) -> Result<Option<(u32, u32)>, Error> {
    let (Some(part), Some(parts)) = (file.u32("split.no")?, file.u32("split.count")?) else {
        return Ok(None);
    };
    match parts {
        // A tool wrote the keys and did not split.
        0 | 1 => Ok(None),
        2..=MOST_PARTS if part < parts => Ok(Some((part, parts))),
        _ => {
            let what = format!("split.no {part} and split.count {parts} make no sense");
            Err(Error::Variant { file: file.name().to_owned(), what })
        }
    }
}

/// A part alone is not a model.
pub(super) fn refuse_part(file: &Gguf) -> Result<(), Error> {
    match part(file)? {
        None => Ok(()),
        Some((part, parts)) => {
            let what = format!(
                "this is part {} of {parts} of a split model: open it by its path, beside the \
                 others",
                part + 1
            );
            Err(Error::Variant { file: file.name().to_owned(), what })
        }
    }
}

/// What the names of all parts start with.
fn prefix(path: &Path, part: u32, parts: u32) -> Option<String> {
    let end = format!("-{:05}-of-{parts:05}.gguf", part + 1);
    path.to_str()?.strip_suffix(&end).map(str::to_owned)
}

/// The tensors of all parts.
pub(super) fn tensors(files: &[Gguf]) -> Vec<StoredTensor> {
    let of = |(file, gguf): (usize, &Gguf)| {
        let stored = gguf.tensors().iter().enumerate().map(move |(place, tensor)| StoredTensor {
            name: tensor.name.clone(),
            stored: tensor.name.clone(),
            dims: tensor.dims.clone(),
            offset: tensor.offset,
            file,
            place,
        });
        stored.collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(of).collect()
}

/// The bytes of the tensor at a place of a file.
pub(super) fn weights(gguf: &Gguf, place: usize) -> Result<Weights, Error> {
    let tensor = &gguf.tensors()[place];
    let kind = gguf.tensor_type(tensor)?;
    let format = match kind {
        TensorType::F32 => Format::F32,
        TensorType::F16 => Format::F16,
        TensorType::Bf16 => Format::Bf16,
        TensorType::Q4_0 => Format::Q4_0,
        TensorType::Q8_0 => Format::Q8_0,
        TensorType::Q4K => Format::Q4K,
        TensorType::Q6K => Format::Q6K,
        TensorType::Iq2S => Format::Iq2S,
        TensorType::Q2_0 => Format::Q2_0,
        TensorType::Q2_0G128 => Format::Q2_0G128,
        TensorType::I2S => Format::I2S,
        TensorType::BitNet32F16 => Format::BitNet32F16,
        TensorType::Tl1 => Format::Tl1,
        TensorType::Tl2 => Format::Tl2,
        TensorType::Tq1_0 => Format::Tq1_0,
        TensorType::Tq2_0 => Format::Tq2_0,
        TensorType::Iq1Bn => Format::Iq1Bn,
        TensorType::Iq2Bn => Format::Iq2Bn,
        TensorType::Iq2BnR4 => Format::Iq2BnR4,
        other => {
            return Err(Error::TensorType {
                file: gguf.name().to_owned(),
                tensor: tensor.name.clone(),
                offset: tensor.offset,
                found: other.name().to_owned(),
                expected: "those that `bitnet kernels` lists",
            });
        }
    };
    Ok(Weights { format, bytes: gguf.data(tensor)? })
}

//! The same model in another format: GGUF with other types of tensors, or a Hugging Face folder.
//!
//! Ternary weights and their scales stay what they are, whatever they are stored as; what was written
//! is read again and held against that before it gets its name. Each tensor is read when it is written,
//! so that no more than one matrix is in memory at a time.

mod folder;
mod gguf;
mod output;
mod proof;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use bitnet_gguf::TensorType;
use bitnet_kernels::Format;
use bitnet_kernels::format::{self, FormatError};
use half::{bf16, f16};

use crate::source::{Contents, StoredTensor, TernaryMatrix};
use crate::{Error, Notice};
pub use proof::Proof;

/// What a model is converted to.
///
/// ```
/// use bitnet_inference::convert::Target;
///
/// assert_eq!("tq2_0".parse::<Target>()?.to_string(), "TQ2_0 in GGUF");
/// assert_eq!("hf".parse(), Ok(Target::Folder));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A GGUF file with ternary matrices in a format.
    Gguf(Format),
    /// A Hugging Face folder with packed weights.
    Folder,
}

impl Target {
    /// The formats that ternary matrices can have in GGUF.
    pub fn formats() -> impl Iterator<Item = Format> {
        let has_type = |format: &Format| TensorType::named(format.ggml_name()).is_some();
        Format::TERNARY.into_iter().filter(has_type)
    }

    fn format(self) -> Format {
        match self {
            Target::Gguf(format) => format,
            Target::Folder => Format::HfPacked,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Target, String> {
        let known = |format: &Format| format.ggml_name().eq_ignore_ascii_case(name);
        match Target::formats().find(known) {
            Some(format) => Ok(Target::Gguf(format)),
            None if name.eq_ignore_ascii_case("hf") => Ok(Target::Folder),
            None => {
                let names = Target::formats().map(|format| format.ggml_name().to_lowercase());
                let names: Vec<_> = names.chain(["hf".to_owned()]).collect();
                Err(format!("{name} is no format of models: there are {}", names.join(", ")))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Gguf(format) => write!(f, "{} in GGUF", format.ggml_name()),
            Target::Folder => f.write_str("a Hugging Face folder"),
        }
    }
}

/// The formats that embeddings and the output layer can be converted to.
pub const EMBEDDING: [Format; 5] =
    [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q6K];

/// Those without blocks.
const PLAIN: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];

/// A conversion that has been planned: all that can be known to go wrong before something is written
/// has not.
///
/// ```no_run
/// use bitnet_inference::convert::{Conversion, Target};
/// use bitnet_inference::{Checkpoint, Contents};
///
/// let checkpoint = Checkpoint::open("model.gguf")?;
/// let contents = Contents::new(&checkpoint, None)?;
/// let conversion = Conversion::plan(contents, "tq2_0".parse().unwrap(), None)?;
/// let proof = conversion.write("model-tq2_0.gguf".as_ref(), false, &|_| true)?;
/// assert_eq!(proof.before, proof.after);
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
pub struct Conversion<'a> {
    contents: Contents<'a>,
    target: Target,
    tensors: Vec<Planned<'a>>,
    notices: Vec<Notice>,
}

/// A tensor of a model, and what becomes of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Planned<'a> {
    /// The tensor.
    pub tensor: &'a StoredTensor,
    /// What it is stored as.
    pub from: Format,
    /// What it will be stored as.
    pub to: Format,
    /// What is known of it, if it is a ternary matrix.
    pub ternary: Option<Ternary>,
}

/// What is known of a ternary matrix that will be converted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ternary {
    /// What its weights are multiplied by.
    pub scale: f32,
    /// Whether that is stored beside the matrix, because the format of the matrix does not hold it.
    pub beside: bool,
    /// Of weights that are made ternary: the root of the mean square of what that changes, relative to
    /// that of the weights.
    pub error: Option<f64>,
    rows: usize,
    cols: usize,
    sha256: String,
}

impl<'a> Conversion<'a> {
    /// Plans a conversion; embeddings and the output layer stay in their format if none is given. In
    /// folders all tensors that are not ternary have that format, F32 if they come from GGUF. Reads all
    /// ternary matrices.
    ///
    /// # Errors
    ///
    /// Where a tensor is damaged, or cannot be in the format it is to have; where nothing is ternary.
    pub fn plan(
        contents: Contents<'a>,
        target: Target,
        embedding: Option<Format>,
    ) -> Result<Conversion<'a>, Error> {
        let checkpoint = contents.checkpoint();
        let mut tensors = Vec::new();
        for tensor in checkpoint.tensors() {
            if let Some(matrix) = contents.scale_of(tensor)
                && contents.is_ternary(matrix)?
            {
                continue;
            }
            let from = checkpoint.weights(tensor)?.format;
            let planned = match contents.is_ternary(tensor)? {
                true => plan_ternary(&contents, (tensor, from), target)?,
                false => plan_numbers(&contents, (tensor, from), target, embedding)?,
            };
            tensors.push(planned);
        }
        if tensors.iter().all(|planned| planned.ternary.is_none()) {
            let what = "no linear layer has ternary weights with one scale; `bitnet quantize` makes \
                        floating-point weights ternary";
            return Err(Error::Variant {
                file: checkpoint.name().to_owned(),
                what: what.to_owned(),
            });
        }
        let mut conversion = Conversion { contents, target, tensors, notices: Vec::new() };
        conversion.notices = conversion.check()?;
        Ok(conversion)
    }

    /// What becomes of each tensor, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Planned<'a>] {
        &self.tensors
    }

    /// What the user should know.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Bytes of all tensors that will be written.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tensors.iter().map(|planned| self.length(planned)).sum()
    }

    /// Whether all that is beside the tensors can be written.
    fn check(&self) -> Result<Vec<Notice>, Error> {
        match self.target {
            Target::Gguf(_) => self.metadata().map(|(_, notices)| notices),
            Target::Folder => self.beside().map(|(_, notices)| notices),
        }
    }

    /// Bytes of a tensor that will be written.
    fn length(&self, planned: &Planned<'_>) -> u64 {
        match &planned.ternary {
            // It was found to be in the format.
            Some(Ternary { rows, cols, .. }) => {
                format::payload(planned.to, *rows, *cols).unwrap_or_default() as u64
            }
            None => {
                let (numbers, bytes) = planned.to.block();
                planned.tensor.elements().saturating_mul(bytes as u64) / numbers as u64
            }
        }
    }

    /// Writes the bytes of a tensor.
    fn produce(&self, planned: &Planned<'_>, out: &mut dyn Write) -> Result<(), Error> {
        /// Copied at a time, so that a mapped file does not fill the memory.
        const PIECE: usize = 1 << 24;
        let fail = |source| Error::Output { file: "the model".to_owned(), source };
        if let Some(ternary) = &planned.ternary {
            let matrix = self.contents.matrix(planned.tensor)?;
            let bytes = self.encode(planned, ternary, matrix)?;
            return out.write_all(&bytes).map_err(fail);
        }
        let same_kind = self.contents.checkpoint().is_gguf() == (self.target != Target::Folder);
        let offset = self.contents.norm_offset(planned.tensor);
        if planned.from == planned.to && (same_kind || offset == 0.0) {
            let weights = self.contents.checkpoint().weights(planned.tensor)?;
            let bytes = &weights.bytes;
            for start in (0..bytes.len()).step_by(PIECE) {
                let piece = bytes.slice(start..bytes.len().min(start + PIECE));
                out.write_all(&piece).map_err(fail)?;
                piece.evict();
            }
            return Ok(());
        }
        let cols = planned.tensor.dims.first().map_or(1, |&cols| cols as usize);
        let less = if self.target == Target::Folder { offset } else { 0.0 };
        for rows in self.contents.pieces(planned.tensor)? {
            let numbers = self.contents.numbers(planned.tensor, rows)?;
            let numbers: Vec<f32> = numbers.iter().map(|x| x - less).collect();
            let bytes = narrow(planned.to, &numbers, cols)
                .map_err(|source| unsuitable(&self.contents, planned.tensor, source))?;
            out.write_all(&bytes).map_err(fail)?;
        }
        Ok(())
    }

    /// A matrix in its new format.
    fn encode(
        &self,
        planned: &Planned<'_>,
        ternary: &Ternary,
        matrix: TernaryMatrix,
    ) -> Result<Vec<u8>, Error> {
        let matrix = match self.target {
            Target::Gguf(_) => self.contents.in_gguf(planned.tensor, matrix),
            Target::Folder => matrix,
        };
        let TernaryMatrix { rows, cols, weights, scale, .. } = matrix;
        let scale = if ternary.beside { 1.0 } else { scale };
        format::encode(planned.to, &weights, rows, cols, scale)
            .map_err(|source| unsuitable(&self.contents, planned.tensor, source))
    }
}

/// The scale of a matrix, if the format holds one that is less precise: then there may be another
/// beside it.
fn plan_ternary<'a>(
    contents: &Contents<'_>,
    (tensor, from): (&'a StoredTensor, Format),
    target: Target,
) -> Result<Planned<'a>, Error> {
    let matrix = contents.matrix(tensor)?;
    let (to, (rows, cols)) = (target.format(), (matrix.rows, matrix.cols));
    format::payload(to, rows, cols).map_err(|source| unsuitable(contents, tensor, source))?;
    let beside = match to {
        Format::HfPacked => true,
        Format::Tq1_0 | Format::Tq2_0 | Format::Iq1Bn | Format::BitNet32F16 => {
            f16::from_f32(matrix.scale).to_f32() != matrix.scale
        }
        _ => false,
    };
    let (scale, error, sha256) = (matrix.scale, matrix.error, matrix.sha256());
    let ternary = Some(Ternary { scale, beside, error, rows, cols, sha256 });
    Ok(Planned { tensor, from, to, ternary })
}

fn plan_numbers<'a>(
    contents: &Contents<'_>,
    (tensor, from): (&'a StoredTensor, Format),
    target: Target,
    embedding: Option<Format>,
) -> Result<Planned<'a>, Error> {
    if matches!(target, Target::Gguf(_)) && !contents.has_gguf_form(tensor) {
        return Err(Error::UnknownTensor {
            file: contents.checkpoint().file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            architecture: contents.checkpoint().architecture()?.to_owned(),
        });
    }
    let table = ["token_embd.weight", "output.weight"].contains(&&*tensor.name);
    let to = match (target, embedding) {
        // transformers wants all of one type, and GGUF has norms in F32.
        (Target::Folder, Some(to)) => to,
        (Target::Folder, None) if contents.checkpoint().is_gguf() => Format::F32,
        (Target::Gguf(_), Some(to)) if table => to,
        (Target::Gguf(_), _) if tensor.dims.len() == 1 => Format::F32,
        _ => from,
    };
    if target == Target::Folder && !PLAIN.contains(&to) {
        let what = format!("folders hold no {}: choose f32, f16 or bf16", to.ggml_name());
        return Err(Error::Variant { file: contents.checkpoint().name().to_owned(), what });
    }
    if to != from
        && let [cols, ..] = tensor.dims[..]
        && !PLAIN.contains(&to)
    {
        to.row_bytes(cols as usize).map_err(|source| unsuitable(contents, tensor, source))?;
    }
    Ok(Planned { tensor, from, to, ternary: None })
}

/// Rows of any length in formats without blocks, of whole blocks in others.
fn narrow(to: Format, numbers: &[f32], cols: usize) -> Result<Vec<u8>, FormatError> {
    let too_great = |infinite: fn(f32) -> bool| {
        let index = numbers.iter().position(|&x| infinite(x));
        index.map_or(Ok(()), |index| Err(FormatError::Number { index, value: numbers[index] }))
    };
    Ok(match to {
        Format::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Format::F16 => {
            too_great(|x| f16::from_f32(x).is_infinite())?;
            numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
        }
        Format::Bf16 => {
            too_great(|x| bf16::from_f32(x).is_infinite())?;
            numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
        }
        to => format::narrow(to, numbers, cols)?,
    })
}

/// A matrix that cannot be in the format it is to have.
fn unsuitable(contents: &Contents<'_>, tensor: &StoredTensor, source: FormatError) -> Error {
    Error::Unsuitable {
        file: contents.checkpoint().file_of(tensor),
        tensor: tensor.stored.clone(),
        offset: tensor.offset,
        source,
    }
}

/// A sink that counts, and stops where nobody wants more.
struct Watched<'w> {
    out: &'w mut dyn Write,
    written: &'w (dyn Fn(u64) -> bool + Sync),
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        match (self.written)(n as u64) {
            true => Ok(n),
            false => Err(io::Error::other(Error::Stopped)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

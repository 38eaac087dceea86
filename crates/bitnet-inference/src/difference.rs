//! In what two models differ, whatever they are stored as.

use std::fmt;

use crate::source::{Contents, StoredTensor};
use crate::{Config, Error};

/// In what two models differ; nothing in it if they are the same.
///
/// ```no_run
/// use bitnet_inference::{Checkpoint, Contents, Difference};
///
/// let [a, b] = ["model.gguf", "folder"].map(Checkpoint::open);
/// let (a, b) = (a?, b?);
/// let found = Difference::of(&Contents::new(&a, None)?, &Contents::new(&b, None)?)?;
/// assert!(found.is_none(), "{}", found.tensors[0]);
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// Hyper-parameters: what they are called, and their values.
    pub settings: Vec<(&'static str, String, String)>,
    /// The first difference of the tokenizers.
    pub tokenizer: Option<String>,
    /// Whether the chat templates are others.
    pub templates: bool,
    /// Tensors, in the order in which a model computes with them.
    pub tensors: Vec<TensorDifference>,
    /// Ternary matrices that hold the same weights and the same scale.
    pub same_matrices: usize,
    /// Other tensors that hold the same numbers.
    pub same_numbers: usize,
}

/// In what two tensors of one name differ.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TensorDifference {
    /// The name in GGUF.
    pub name: String,
    /// How they differ.
    pub kind: Kind,
}

/// How two tensors differ.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Only the first model has it.
    First,
    /// Only the second model has it.
    Second,
    /// Their dimensions, fastest first.
    Shape(Vec<u64>, Vec<u64>),
    /// One is a ternary matrix, the other is not: whether it is the first.
    Ternary(bool),
    /// Ternary matrices.
    Weights {
        /// Weights that are not the same.
        count: usize,
        /// All weights.
        of: usize,
        /// Row and column of the first of them, and the two weights.
        first: Option<(usize, usize, i8, i8)>,
        /// The scales.
        scales: (f32, f32),
    },
    /// Other tensors.
    Numbers {
        /// Numbers that are not the same.
        count: usize,
        /// All numbers.
        of: usize,
        /// Row and column of the first of them, and the two numbers.
        first: (usize, usize, f32, f32),
        /// The root of the mean square of the differences, relative to that of the first.
        error: f64,
    },
}

impl Difference {
    /// Compares two models. One matrix of each is in memory at a time.
    ///
    /// # Errors
    ///
    /// Where one is damaged.
    pub fn of(a: &Contents<'_>, b: &Contents<'_>) -> Result<Difference, Error> {
        let mut difference = Difference {
            settings: settings(&a.checkpoint().config()?, &b.checkpoint().config()?),
            ..Difference::default()
        };
        let vocabulary = |contents: &Contents<'_>| {
            let checkpoint = contents.checkpoint();
            let rows = checkpoint.embedding_rows().unwrap_or(0);
            checkpoint.vocabulary(rows).map(|(found, _)| found)
        };
        difference.tokenizer = match (vocabulary(a)?, vocabulary(b)?) {
            (Some(a), Some(b)) => a.difference(&b),
            (None, None) => None,
            (a, _) => Some(match a {
                Some(_) => "only the first has one".to_owned(),
                None => "only the second has one".to_owned(),
            }),
        };
        let templates = |contents: &Contents<'_>| {
            let chat = contents.checkpoint().chat()?;
            Ok::<_, Error>((chat.text.map(|(_, text)| text), chat.with_tools))
        };
        difference.templates = templates(a)? != templates(b)?;
        let mut names: Vec<&StoredTensor> = tensors(a)?;
        let others = tensors(b)?;
        let missing = others.iter().filter(|t| a.checkpoint().tensor(&t.name).is_none());
        names.extend(missing);
        names.sort_by_key(|tensor| place(&tensor.name));
        for StoredTensor { name, .. } in names {
            let pair = (a.checkpoint().tensor(name), b.checkpoint().tensor(name));
            let kind = match pair {
                (Some(first), Some(second)) => difference.tensor((a, first), (b, second))?,
                (Some(_), None) => Some(Kind::First),
                _ => Some(Kind::Second),
            };
            let found = kind.map(|kind| TensorDifference { name: name.clone(), kind });
            difference.tensors.extend(found);
        }
        Ok(difference)
    }

    /// Whether the models are the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let Difference { settings, tokenizer, templates, tensors, .. } = self;
        settings.is_empty() && tokenizer.is_none() && !templates && tensors.is_empty()
    }

    fn tensor(
        &mut self,
        (a, first): (&Contents<'_>, &StoredTensor),
        (b, second): (&Contents<'_>, &StoredTensor),
    ) -> Result<Option<Kind>, Error> {
        if first.dims != second.dims {
            return Ok(Some(Kind::Shape(first.dims.clone(), second.dims.clone())));
        }
        let ternary = a.is_ternary(first)?;
        let kind = match (ternary, b.is_ternary(second)?) {
            (true, true) => weights((a, first), (b, second))?,
            (false, false) => numbers((a, first), (b, second))?,
            _ => return Ok(Some(Kind::Ternary(ternary))),
        };
        match (&kind, ternary) {
            (None, true) => self.same_matrices += 1,
            (None, false) => self.same_numbers += 1,
            _ => {}
        }
        Ok(kind)
    }
}

/// The tensors of a model, without the scales that belong to matrices.
fn tensors<'a>(contents: &Contents<'a>) -> Result<Vec<&'a StoredTensor>, Error> {
    let mut tensors = Vec::new();
    for tensor in contents.checkpoint().tensors() {
        let part = match contents.scale_of(tensor) {
            Some(matrix) => contents.is_ternary(matrix)?,
            None => false,
        };
        if !part {
            tensors.push(tensor);
        }
    }
    Ok(tensors)
}

/// Where a model computes with a tensor: embeddings, blocks, what comes behind them.
fn place(name: &str) -> (u8, u32) {
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
    match block {
        Some(block) => (1, block),
        None if name.starts_with("token_embd") => (0, 0),
        None => (2, 0),
    }
}

fn weights(
    (a, first): (&Contents<'_>, &StoredTensor),
    (b, second): (&Contents<'_>, &StoredTensor),
) -> Result<Option<Kind>, Error> {
    let (a, b) = (a.matrix(first)?, b.matrix(second)?);
    let unlike = || a.weights.iter().zip(&b.weights).enumerate().filter(|(_, (a, b))| a != b);
    let scales = (a.scale, b.scale);
    let first = unlike().next().map(|(at, (&x, &y))| (at / a.cols, at % a.cols, x, y));
    if first.is_none() && scales.0.to_bits() == scales.1.to_bits() {
        return Ok(None);
    }
    Ok(Some(Kind::Weights { count: unlike().count(), of: a.weights.len(), first, scales }))
}

fn numbers(
    (a, first): (&Contents<'_>, &StoredTensor),
    (b, second): (&Contents<'_>, &StoredTensor),
) -> Result<Option<Kind>, Error> {
    let cols = first.dims.first().map_or(1, |&cols| cols as usize);
    let (mut count, mut of, mut place) = (0, 0, None);
    let (mut change, mut size) = (0.0, 0.0);
    for rows in a.pieces(first)? {
        let (x, y) = (a.numbers(first, rows.clone())?, b.numbers(second, rows.clone())?);
        for (at, (&x, &y)) in x.iter().zip(&y).enumerate() {
            of += 1;
            size += f64::from(x) * f64::from(x);
            // Zeros of both signs are the same number.
            if x != y {
                count += 1;
                change += (f64::from(x) - f64::from(y)).powi(2);
                place.get_or_insert((rows.start + at / cols, at % cols, x, y));
            }
        }
    }
    let error = if size > 0.0 { (change / size).sqrt() } else { f64::INFINITY };
    Ok(place.map(|first| Kind::Numbers { count, of, first, error }))
}

/// The settings that are not the same.
fn settings(a: &Config, b: &Config) -> Vec<(&'static str, String, String)> {
    let all = |c: &Config| {
        let local = c.local.map_or_else(|| "none".to_owned(), |local| format!("{local:?}"));
        [
            ("architecture", c.architecture.clone()),
            ("layers", c.layers.to_string()),
            ("hidden", c.hidden.to_string()),
            ("ffn", c.ffn.to_string()),
            ("heads", c.heads.to_string()),
            ("kv_heads", c.kv_heads.to_string()),
            ("head_size", c.head_size.to_string()),
            ("context", c.context.to_string()),
            ("eps", c.eps.to_string()),
            ("rope_base", c.rope_base.to_string()),
            ("activation", c.activation.to_string()),
            ("local layers", local),
        ]
    };
    let pairs = all(a).into_iter().zip(all(b));
    let unlike = pairs.filter(|((_, a), (_, b))| a != b);
    unlike.map(|((name, a), (_, b))| (name, a, b)).collect()
}

impl fmt::Display for TensorDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.kind {
            Kind::First => f.write_str("only in the first"),
            Kind::Second => f.write_str("only in the second"),
            Kind::Shape(a, b) => write!(f, "shapes {a:?} and {b:?}"),
            Kind::Ternary(true) => f.write_str("ternary in the first, numbers in the second"),
            Kind::Ternary(false) => f.write_str("numbers in the first, ternary in the second"),
            Kind::Weights { count, of, first, scales: (a, b) } => {
                if let Some((row, col, x, y)) = first {
                    write!(
                        f,
                        "{count} of {of} weights, first in row {row}, column {col}: {x}, {y}"
                    )?;
                }
                match (first, a.to_bits() == b.to_bits()) {
                    (_, true) => Ok(()),
                    (Some(_), _) => write!(f, "; scales {a}, {b}"),
                    (None, _) => write!(f, "the same weights, scales {a}, {b}"),
                }
            }
            Kind::Numbers { count, of, first: (row, col, x, y), error } => write!(
                f,
                "{count} of {of} numbers, first in row {row}, column {col}: {x}, {y}; error {:.3} %",
                100.0 * error
            ),
        }
    }
}

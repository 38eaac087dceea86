//! Files of log probabilities, as `llama-perplexity --kl-divergence-base` writes and reads them.
//!
//! Eight bytes `_logits_`; then, little-endian, the length of a window, the size of the vocabulary and the
//! number of windows (i32), the tokens of all windows (i32), and a row for each scored position: a scale
//! and a least value (f32), then as many steps of the scale above the least as each token has (u16, even in
//! number). What is below the greatest by 16 or more is at the least.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use crate::Error;

const MAGIC: &[u8; 8] = b"_logits_";
/// Bytes before the tokens.
const HEADER: u64 = 20;
/// Log probabilities below the greatest that are told apart.
pub(super) const SPAN: f64 = 16.0;
/// Steps in a row.
const STEPS: f64 = 65535.0;

/// What a model gave for the positions of a text, to hold another model, or the same in other formats,
/// against: see [`Perplexity::compare`](super::Perplexity::compare).
#[derive(Debug)]
pub struct Base {
    pub(super) file: String,
    reader: BufReader<File>,
    window: usize,
    vocabulary: usize,
    windows: usize,
    /// Of all windows.
    pub(super) tokens: Vec<u32>,
}

/// Positions of a window that are scored.
fn scored(window: usize) -> usize {
    window - 1 - window / 2
}

/// Bytes of a row.
fn row_bytes(vocabulary: usize) -> usize {
    2 * (2 * vocabulary.div_ceil(2) + 4)
}

impl Base {
    /// Opens a file that [`Perplexity::save`](super::Perplexity::save) or llama-perplexity wrote.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where it cannot be read, [`Error::Base`] where it is none, or cut.
    pub fn open(path: impl AsRef<Path>) -> Result<Base, Error> {
        let name = path.as_ref().display().to_string();
        let read = |source| Error::File { file: name.clone(), source };
        let wrong = |what: &str| Error::Base { file: name.clone(), what: what.to_owned() };
        let file = File::open(path).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; HEADER as usize];
        let none = "it has no log probabilities in it: write some with --kl-divergence-base";
        reader.read_exact(&mut header).map_err(|_| wrong(none))?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(wrong(none));
        }
        let mut numbers = numbers.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        let mut number = |least: i32| {
            let number = numbers.next().filter(|&number| number >= least);
            let number = number.and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| wrong("its header makes no sense; the file is damaged"))
        };
        let (window, vocabulary, windows) = (number(3)?, number(1)?, number(1)?);
        let whole = length(window, vocabulary, windows);
        if whole != Some(bytes) {
            let whole = whole.map_or("more".to_owned(), |whole| whole.to_string());
            return Err(wrong(&format!(
                "it has {bytes} bytes and its header says {whole}; writing it was not finished, or it is \
                 damaged: write it again"
            )));
        }
        let mut ids = vec![0; 4 * window * windows];
        reader.read_exact(&mut ids).map_err(read)?;
        let tokens: Vec<_> =
            ids.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        if tokens.iter().any(|&token| token as usize >= vocabulary) {
            return Err(wrong("it has tokens that are not in its vocabulary; the file is damaged"));
        }
        Ok(Base { file: name, reader, window, vocabulary, windows, tokens })
    }

    /// Tokens of a window: the context that an engine must have for it.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// Tokens of the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Windows of text.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// The next rows, to be read with [`Row::of`].
    pub(super) fn rows(&mut self, count: usize, bytes: &mut Vec<u8>) -> Result<(), Error> {
        bytes.resize(count * row_bytes(self.vocabulary), 0);
        let read = |source| Error::File { file: self.file.clone(), source };
        self.reader.read_exact(bytes).map_err(read)
    }
}

/// Bytes of a whole file.
fn length(window: usize, vocabulary: usize, windows: usize) -> Option<u64> {
    let [window, windows, rows, row] =
        [window, windows, scored(window), row_bytes(vocabulary)].map(|n| n as u64);
    let each = (4 * window).checked_add(rows.checked_mul(row)?)?;
    each.checked_mul(windows)?.checked_add(HEADER)
}

/// Log probabilities of a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    scale: f64,
    least: f64,
    steps: &'a [[u8; 2]],
}

impl<'a> Row<'a> {
    /// Row `index` of some.
    pub(super) fn of(bytes: &'a [u8], index: usize, vocabulary: usize) -> Row<'a> {
        let row = &bytes[index * row_bytes(vocabulary)..][..row_bytes(vocabulary)];
        let number = |at: usize| f64::from(f32::from_le_bytes([0, 1, 2, 3].map(|i| row[at + i])));
        Row { scale: number(0), least: number(4), steps: &row[8..].as_chunks().0[..vocabulary] }
    }

    /// The log probability of a token.
    pub(super) fn log(&self, token: usize) -> f64 {
        self.scale * f64::from(u16::from_le_bytes(self.steps[token])) + self.least
    }
}

/// Writes what comes before the rows.
pub(super) fn write_header(
    out: &mut impl Write,
    [window, vocabulary, windows]: [usize; 3],
    tokens: &[u32],
) -> io::Result<()> {
    out.write_all(MAGIC)?;
    for number in [window, vocabulary, windows] {
        let number = i32::try_from(number).map_err(io::Error::other)?;
        out.write_all(&number.to_le_bytes())?;
    }
    for token in &tokens[..window * windows] {
        out.write_all(&token.to_le_bytes())?;
    }
    Ok(())
}

/// Writes the row of some logits, of which [`log_sum`](super::log_sum) is known.
pub(super) fn write_row(
    out: &mut impl Write,
    logits: &[f32],
    (most, log): (f64, f64),
) -> io::Result<()> {
    let least = f64::from(logits.iter().copied().fold(f32::MAX, f32::min)).max(most - SPAN);
    let scale = (most - least) / STEPS;
    out.write_all(&(scale as f32).to_le_bytes())?;
    out.write_all(&((least - most - log) as f32).to_le_bytes())?;
    let step =
        |logit: f64| if logit > least { ((logit - least) / scale).round_ties_even() } else { 0.0 };
    for &logit in logits {
        out.write_all(&(step(f64::from(logit)) as u16).to_le_bytes())?;
    }
    // Rows are whole numbers of four bytes.
    if logits.len() % 2 == 1 { out.write_all(&[0; 2]) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::log_sum;
    use super::*;

    #[test]
    fn rows_are_kept_to_half_a_step() {
        for logits in [vec![1.0_f32, -3.0, 2.5], vec![0.0, 30.0], vec![2.0; 4]] {
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let mut bytes = Vec::new();
            write_row(&mut bytes, &logits, log_sum(&logits)).unwrap();
            assert_eq!(bytes.len(), row_bytes(logits.len()));
            let row = Row::of(&bytes, 0, logits.len());
            let most = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
            for (token, &logit) in logits.iter().enumerate() {
                let want = f64::from(logit).max(most - SPAN) - sum.ln();
                assert!((row.log(token) - want).abs() < 1.3e-4, "{} {want}", row.log(token));
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_none() {
        assert_eq!(length(4, 3, 2), Some(20 + 2 * (16 + 16)));
        let most = i32::MAX as usize;
        assert_eq!(length(most, most, most), None);
    }
}

//! How far the predictions of a model are from those of another.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::base::{Base, Row, SPAN, write_header, write_row};
use super::{Perplexity, Score, Windows, bos, log_sum, rows};
use crate::{Engine, Error};

/// A mean, or what follows from some, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its standard error; not a number for less than two positions.
    pub error: f64,
}

/// What was found at a position.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// The negative logarithm of the probability of the token that follows, and that of the base.
    nats: [f64; 2],
    /// Kullback-Leibler divergence of the base from the model, in nats.
    divergence: f64,
    /// How much likelier the token that follows is than for the base.
    difference: f64,
    /// Whether the same token is the likeliest.
    same: bool,
}

/// How a model differs from a [`Base`], over some positions of a text.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    /// Windows that were run to their end.
    pub windows: usize,
    /// Tokens that were run.
    pub run: usize,
    /// Kullback-Leibler divergences of the base from the model at each position, in nats.
    pub divergences: Vec<f64>,
    /// Probabilities of the tokens that follow, less those that the base has.
    pub differences: Vec<f64>,
    /// Positions at which the same token is the likeliest.
    pub same: usize,
    /// Sums of losses, their squares, and their products.
    nats: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

/// The mean of numbers with these sums.
fn mean(count: f64, [sum, squares]: [f64; 2]) -> Estimate {
    let value = sum / count;
    let variance = (squares / count - value * value).max(0.0);
    Estimate { value, error: (variance / (count - 1.0)).sqrt() }
}

/// The sums of some numbers and of their squares.
fn sums(numbers: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    [numbers.clone().sum(), numbers.map(|x| x * x).sum()]
}

impl Divergence {
    fn count(&self) -> f64 {
        self.divergences.len() as f64
    }

    fn add(&mut self, position: &Position) {
        let Position { nats, divergence, difference, same } = *position;
        for (i, nats) in nats.iter().enumerate() {
            self.nats[i] += nats;
            self.squares[i] += nats * nats;
        }
        self.product += nats[0] * nats[1];
        self.divergences.push(divergence);
        self.differences.push(difference);
        self.same += usize::from(same);
    }

    /// Nats a token: of the model, and of the base.
    #[must_use]
    pub fn nats_per_token(&self) -> [Estimate; 2] {
        [0, 1].map(|i| mean(self.count(), [self.nats[i], self.squares[i]]))
    }

    /// The covariance of the two [`Divergence::nats_per_token`].
    fn covariance(&self) -> f64 {
        let (n, [a, b]) = (self.count(), self.nats_per_token());
        (self.product / n - a.value * b.value) / (n - 1.0)
    }

    /// How the losses of the two go together, from -1 to 1.
    #[must_use]
    pub fn correlation(&self) -> f64 {
        let [a, b] = self.nats_per_token();
        self.covariance() / (a.error * b.error)
    }

    /// The logarithm of the perplexity of the model divided by that of the base.
    #[must_use]
    pub fn log_ratio(&self) -> Estimate {
        let [a, b] = self.nats_per_token();
        let variance = a.error * a.error + b.error * b.error - 2.0 * self.covariance();
        Estimate { value: a.value - b.value, error: variance.max(0.0).sqrt() }
    }

    /// The mean Kullback-Leibler divergence, in nats.
    #[must_use]
    pub fn divergence(&self) -> Estimate {
        mean(self.count(), sums(self.divergences.iter().copied()))
    }

    /// The mean difference of the probabilities of the tokens that follow.
    #[must_use]
    pub fn difference(&self) -> Estimate {
        mean(self.count(), sums(self.differences.iter().copied()))
    }

    /// The root of the mean square of that difference.
    #[must_use]
    pub fn root_mean_square(&self) -> Estimate {
        let squares = mean(self.count(), sums(self.differences.iter().map(|x| x * x)));
        let value = squares.value.sqrt();
        Estimate { value, error: 0.5 * squares.error / value }
    }

    /// The share of positions at which the same token is the likeliest.
    #[must_use]
    pub fn same_top(&self) -> Estimate {
        let value = self.same as f64 / self.count();
        Estimate { value, error: (value * (1.0 - value) / (self.count() - 1.0)).sqrt() }
    }
}

/// The value below which a share of some sorted numbers lies, between the two next to it.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = (share * last as f64).clamp(0.0, last as f64);
    let (low, part) = (place.floor(), place.fract());
    let (low, high) = (sorted[low as usize], sorted[(low as usize + 1).min(last)]);
    low + part * (high - low)
}

impl<'a> Perplexity<'a> {
    /// The text of a base.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`]; [`Error::Base`] where it is of another vocabulary or context than the engine.
    pub fn of_base(engine: &'a Engine, base: &Base) -> Result<Perplexity<'a>, Error> {
        let (vocabulary, context) = (engine.vocabulary(), engine.context());
        let fail = |what| Err(Error::Base { file: base.file.clone(), what });
        if base.vocabulary() != vocabulary {
            let what = format!(
                "it is of a vocabulary of {} tokens, and this model has {vocabulary}: they cannot be compared",
                base.vocabulary()
            );
            return fail(what);
        }
        if base.window() != context {
            let what = format!(
                "it is of windows of {} tokens, and the context is {context}: write it again with \
                 -c {context}",
                base.window()
            );
            return fail(what);
        }
        let (tokens, bos) = (base.tokens.clone(), bos(engine.tokenizer()?));
        let (count, rows) = (base.windows(), rows(engine));
        Ok(Perplexity { engine, windows: Windows::Halves, count, rows, tokens, bos, lead: None })
    }

    /// As [`Perplexity::score`], and writes the log probabilities of each position to a file, which is
    /// replaced; see [`Base`].
    ///
    /// # Errors
    ///
    /// As [`Perplexity::score`]; [`Error::Output`] where the file cannot be written, [`Error::Perplexity`] where
    /// windows are not [`Windows::Halves`].
    pub fn save(
        &self,
        path: &Path,
        go_on: impl FnMut(&Score) -> bool,
    ) -> Result<Option<Score>, Error> {
        if self.windows != Windows::Halves {
            let what =
                "log probabilities are kept of windows side by side, scored in their second half";
            return Err(Error::Perplexity { what: what.to_owned() });
        }
        let fail = |source| Error::Output { file: path.display().to_string(), source };
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(fail)?);
        let vocabulary = self.engine.vocabulary();
        let sizes = [self.window(), vocabulary, self.count];
        write_header(&mut out, sizes, &self.tokens).map_err(fail)?;
        let score = self.run(go_on, |logits, _| {
            let mut rows = logits.chunks(vocabulary);
            rows.try_for_each(|row| write_row(&mut out, row, log_sum(row))).map_err(fail)
        })?;
        out.flush().map_err(fail)?;
        Ok(score)
    }

    /// Compares the model with a base of the same text, which [`Perplexity::of_base`] gave. `go_on` is told what
    /// was found so far after each forward pass; false ends early, with nothing.
    ///
    /// # Errors
    ///
    /// As [`Perplexity::score`]; [`Error::File`] where the base cannot be read.
    pub fn compare(
        &self,
        mut base: Base,
        mut go_on: impl FnMut(&Divergence) -> bool,
    ) -> Result<Option<Divergence>, Error> {
        let found = std::cell::RefCell::new(Divergence::default());
        let (mut bytes, mut positions) = (Vec::new(), Vec::new());
        let vocabulary = self.engine.vocabulary();
        let told = |score: &Score| {
            let mut found = found.borrow_mut();
            (found.windows, found.run) = (score.windows, score.run);
            go_on(&found)
        };
        let score = self.run(told, |logits, targets| {
            base.rows(targets.len(), &mut bytes)?;
            positions.clear();
            positions.resize(targets.len(), Position::default());
            self.engine.pool().tiles(&mut positions, 1, (1, 1), |mut tile| {
                for row in tile.rows() {
                    let logits = &logits[row * vocabulary..][..vocabulary];
                    let base = Row::of(&bytes, row, vocabulary);
                    tile.row(row)[0] = Position::new(logits, base, targets[row] as usize);
                }
            });
            let mut found = found.borrow_mut();
            positions.iter().for_each(|position| found.add(position));
            let finite =
                positions.iter().all(|p| p.divergence.is_finite() && p.nats[1].is_finite());
            let what =
                "it has log probabilities that are not finite; the file is damaged".to_owned();
            if finite { Ok(()) } else { Err(Error::Base { file: base.file.clone(), what }) }
        })?;
        Ok(score.map(|_| found.into_inner()))
    }
}

impl Position {
    fn new(logits: &[f32], base: Row<'_>, target: usize) -> Position {
        let (most, log) = log_sum(logits);
        let ours = |token: usize| f64::from(logits[token]) - most - log;
        // The first of the likeliest tokens, for each.
        let (mut top, mut top_of_base) = (0, (0, base.log(0)));
        let mut divergence = 0.0;
        for token in 0..logits.len() {
            let theirs = base.log(token);
            if logits[token] > logits[top] {
                top = token;
            }
            if theirs > top_of_base.1 {
                top_of_base = (token, theirs);
            }
            // What is less likely is not told apart in the base.
            if theirs > -SPAN {
                divergence += libm::exp(theirs) * (theirs - ours(token));
            }
        }
        let nats = [-ours(target), -base.log(target)];
        let difference = libm::exp(-nats[0]) - libm::exp(-nats[1]);
        Position { nats, divergence, difference, same: top == top_of_base.0 }
    }
}

//! How well a model predicts a text: its perplexity, as llama.cpp measures it and over all tokens; and how
//! far its predictions are from those of another (`divergence.rs`).

mod base;
mod divergence;

use std::ops::Range;

use bitnet_kernels::Pool;

use crate::session::{CHUNK, Input};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Engine, Error};

pub use base::Base;
pub use divergence::{Divergence, Estimate, quantile};

/// How a text is cut into windows of as many tokens as the context holds, and which of its tokens are
/// scored. Each window is run by itself: what lies before it is not known in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Windows {
    /// Windows side by side, whose first token becomes the one that the model wants before a text, if it
    /// wants one. The second half is scored: positions `n / 2` to `n - 2` predict the token behind them.
    /// What is left at the end is dropped. The method of llama.cpp.
    #[default]
    Halves,
    /// Windows that begin so many tokens after each other, of which the last so many tokens are scored.
    /// The first token and the end of the text are as in [`Windows::Halves`]. The strided method of
    /// llama.cpp, which for `-c n` has windows of `n + stride / 2`; of late it runs the first token as it is
    /// in the text.
    Strided(usize),
    /// Windows side by side in which every position predicts the token behind it, the last one that of the
    /// next window. The last window is shorter. So each token of the text is scored once.
    All,
}

/// Logits of a forward pass at most, in memory: 64 MiB.
const LOGITS: usize = 1 << 24;

/// A text to be scored.
///
/// ```no_run
/// use bitnet_inference::{Engine, Options, Perplexity, Windows};
///
/// let engine = Engine::open("model.gguf", &Options::default())?;
/// let text = Perplexity::new(&engine, "Once upon a time", Windows::All)?;
/// if let Some(score) = text.score(|_| true)? {
///     println!("{}", score.perplexity());
/// }
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Debug)]
pub struct Perplexity<'a> {
    engine: &'a Engine,
    windows: Windows,
    /// Windows to run.
    count: usize,
    /// Rows of a forward pass.
    rows: usize,
    /// Of the text, behind the one that the model wants before it.
    tokens: Vec<u32>,
    /// What the model wants before a text.
    bos: Option<u32>,
    /// Bytes at the beginning of the first token that are not of the text; nothing if the tokens do not
    /// spell the text.
    lead: Option<usize>,
}

/// A window in the tokens of a text.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    /// The first position that predicts.
    first: usize,
    /// Behind the last position that is run.
    end: usize,
}

/// Of a text, or of as much of it as has been run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Windows that were run to their end.
    pub windows: usize,
    /// Tokens that were run, scored or not.
    pub run: usize,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Negative logarithms of their probabilities, summed, in nats.
    pub nats: f64,
    /// The squares of those, summed.
    pub squares: f64,
    /// Bytes of text that they stand for, if the tokens spell the text as it is.
    pub bytes: Option<usize>,
}

impl Score {
    /// Nats a predicted token: the logarithm of the perplexity. Not a number where there is none.
    #[must_use]
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// The perplexity: among so many equally likely tokens the model seems to choose.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.nats_per_token())
    }

    /// The standard error of [`Score::nats_per_token`], if there are two tokens or more. That of the
    /// perplexity is as many times it as the perplexity says, to first order.
    #[must_use]
    pub fn standard_error(&self) -> Option<f64> {
        let (n, mean) = (self.tokens as f64, self.nats_per_token());
        let variance = (self.squares / n - mean * mean).max(0.0);
        (self.tokens > 1).then(|| (variance / (n - 1.0)).sqrt())
    }

    /// Bits a byte of the text, which models with other tokenizers have too.
    #[must_use]
    pub fn bits_per_byte(&self) -> Option<f64> {
        let bytes = self.bytes.filter(|&bytes| bytes > 0)?;
        Some(self.nats / std::f64::consts::LN_2 / bytes as f64)
    }
}

impl<'a> Perplexity<'a> {
    /// The tokens of `text`, in windows of the context of `engine`. Control tokens that are spelled in it
    /// are text.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`], and [`Error::Perplexity`] where the text is too short, or the windows for
    /// what is to be scored in them.
    pub fn new(engine: &'a Engine, text: &str, windows: Windows) -> Result<Perplexity<'a>, Error> {
        let tokenizer = engine.tokenizer()?;
        let special = Special { bos: true, ..Special::TEXT };
        let tokens = tokenizer.encode(text, special);
        let bos = bos(tokenizer);
        let (count, rows) = (count(&tokens, engine.context(), windows)?, rows(engine));
        let lead = lead(tokenizer, &tokens, text);
        Ok(Perplexity { engine, windows, count, rows, tokens, bos, lead })
    }

    /// Takes no more than the first so many windows, if there are more.
    #[must_use]
    pub fn limit(self, windows: usize) -> Perplexity<'a> {
        Perplexity { count: self.count.min(windows), ..self }
    }

    /// Runs no more than so many tokens at a time. The score does not depend on it.
    #[must_use]
    pub fn batch(self, rows: usize) -> Perplexity<'a> {
        Perplexity { rows: self.rows.min(rows.max(1)), ..self }
    }

    /// The windows that will be run.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.count
    }

    /// Tokens of a window.
    #[must_use]
    pub fn window(&self) -> usize {
        self.engine.context()
    }

    /// The tokens of the text, with the one that the model wants before it.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens that will be run.
    #[must_use]
    pub fn to_run(&self) -> usize {
        (0..self.count).map(|index| self.place(index)).map(|place| place.end - place.start).sum()
    }

    /// Runs the text, and gives its score. `go_on` is told the score so far before each forward pass and
    /// after the last; false ends early, with nothing.
    ///
    /// Logarithms and sums are in double precision, and the same bits on every machine.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where a logit is none, [`Error::Memory`].
    pub fn score(&self, go_on: impl FnMut(&Score) -> bool) -> Result<Option<Score>, Error> {
        self.run(go_on, |_, _| Ok(()))
    }

    /// As [`Perplexity::score`]. `seen` is given the logits of scored positions, and the tokens that follow.
    fn run(
        &self,
        mut go_on: impl FnMut(&Score) -> bool,
        mut seen: impl FnMut(&[f32], &[u32]) -> Result<(), Error>,
    ) -> Result<Option<Score>, Error> {
        let mut session = self.engine.session(1)?;
        let bytes = self.lead.map(|_| 0);
        let mut score = Score { windows: 0, run: 0, tokens: 0, nats: 0.0, squares: 0.0, bytes };
        for index in 0..self.count {
            session.truncate(0, 0);
            let window = self.place(index);
            let mut at = window.start;
            while at < window.end {
                if !go_on(&score) {
                    return Ok(None);
                }
                let next = if at < window.first { window.first } else { window.end };
                let next = next.min(at + self.rows);
                let logits = session.run(&self.inputs(window, at..next))?;
                score.run += next - at;
                if at >= window.first {
                    let targets = at + 1..next + 1;
                    self.add(logits, targets.clone(), &mut score)?;
                    seen(logits, &self.tokens[targets])?;
                }
                at = next;
            }
            score.windows += 1;
        }
        Ok(go_on(&score).then_some(score))
    }

    /// The window of this number.
    fn place(&self, index: usize) -> Place {
        let n = self.engine.context();
        let start = match self.windows {
            Windows::Strided(stride) => index * stride,
            Windows::Halves | Windows::All => index * n,
        };
        // The last position of a window would predict a token that is not in it.
        let (first, end) = match self.windows {
            Windows::Halves => (start + n / 2, start + n - 1),
            Windows::Strided(stride) => (start + n - 1 - stride, start + n - 1),
            Windows::All => (start, (start + n).min(self.tokens.len() - 1)),
        };
        Place { start, first, end }
    }

    /// The inputs of some tokens of a window. All are scored, or none.
    fn inputs(&self, window: Place, range: Range<usize>) -> Vec<Input> {
        let logits = range.start >= window.first;
        let input = |position| {
            let begins = position == window.start && self.windows != Windows::All;
            let token = self.bos.filter(|_| begins).unwrap_or(self.tokens[position]);
            Input { sequence: 0, token, logits }
        };
        range.map(input).collect()
    }

    /// Adds what some tokens got.
    fn add(&self, logits: &[f32], targets: Range<usize>, score: &mut Score) -> Result<(), Error> {
        let nats = losses(self.engine.pool(), logits, &self.tokens[targets.clone()]);
        if !nats.iter().all(|nats| nats.is_finite()) {
            return Err(Error::NotFinite);
        }
        score.tokens += nats.len();
        score.nats += nats.iter().sum::<f64>();
        score.squares += nats.iter().map(|nats| nats * nats).sum::<f64>();
        score.bytes = score.bytes.zip(self.bytes(targets)).map(|(all, these)| all + these);
        Ok(())
    }

    /// The bytes of text that some of the tokens stand for.
    fn bytes(&self, range: Range<usize>) -> Option<usize> {
        let (lead, tokenizer) = (self.lead?, self.engine.tokenizer().ok()?);
        // The token before the text has no bytes.
        let begins = range.contains(&usize::from(self.bos.is_some()));
        let of = |&token| tokenizer.bytes(token).map_or(0, <[u8]>::len);
        Some(self.tokens[range].iter().map(of).sum::<usize>() - if begins { lead } else { 0 })
    }
}

/// The token that a model wants before a text.
fn bos(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.encode("", Special { bos: true, ..Special::TEXT }).first().copied()
}

/// Tokens to run at a time.
fn rows(engine: &Engine) -> usize {
    (LOGITS / engine.vocabulary()).clamp(1, CHUNK)
}

/// How many windows a text has.
fn count(tokens: &[u32], context: usize, windows: Windows) -> Result<usize, Error> {
    let (len, fail) = (tokens.len(), |what: String| Err(Error::Perplexity { what }));
    let short = |least: usize, all: &str| {
        format!(
            "the text has {len} tokens, and {least} are needed at a context of {context}: give a longer \
             text{all}"
        )
    };
    let all = ", a smaller context (-c), or --all-tokens";
    match windows {
        Windows::All if len < 2 => fail(short(2, "")),
        Windows::All => Ok((len - 1).div_ceil(context)),
        Windows::Strided(stride) if stride == 0 || stride >= context => fail(format!(
            "a stride of {stride} does not fit windows of {context} tokens: it must be from 1 to {}",
            context - 1
        )),
        Windows::Halves if context < 3 => fail(format!(
            "no token is scored in the second half of windows of {context}: take a context of 3 or more \
             (-c)"
        )),
        _ if len < context.saturating_mul(2) => fail(short(context.saturating_mul(2), all)),
        Windows::Halves => Ok(len / context),
        Windows::Strided(stride) => Ok((len - context).div_ceil(stride)),
    }
}

/// The bytes that tokens have before a text which they spell; nothing if they do not spell it.
fn lead(tokenizer: &Tokenizer, tokens: &[u32], text: &str) -> Option<usize> {
    let of = |&token| tokenizer.bytes(token).map_or(0, <[u8]>::len);
    let all: usize = tokens.iter().map(of).sum();
    if tokenizer.decode(tokens) == text { all.checked_sub(text.len()) } else { None }
}

/// The negative logarithm of the probability that each row of `logits` gives its token, in nats.
/// `logits` is `[targets, vocabulary]`.
fn losses(pool: &Pool, logits: &[f32], targets: &[u32]) -> Vec<f64> {
    let mut losses = vec![0.0; targets.len()];
    let vocabulary = logits.len() / targets.len();
    pool.tiles(&mut losses, 1, (1, 1), |mut tile| {
        for row in tile.rows() {
            let logits = &logits[row * vocabulary..][..vocabulary];
            tile.row(row)[0] = loss(logits, targets[row] as usize);
        }
    });
    losses
}

/// The negative logarithm of a softmax. Not a number where a logit is not finite.
fn loss(logits: &[f32], target: usize) -> f64 {
    if !logits.iter().all(|logit| logit.is_finite()) {
        return f64::NAN;
    }
    let (most, log) = log_sum(logits);
    log + (most - f64::from(logits[target]))
}

/// The greatest logit, and the logarithm of the sum of the exponentials of what all are above it.
fn log_sum(logits: &[f32]) -> (f64, f64) {
    let most = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - most)).sum();
    (most, libm::log(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Model, samples};

    #[test]
    fn a_loss_is_the_logarithm_of_a_softmax() {
        let logits = [1.0_f32, 2.0, 4.0];
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for (target, logit) in logits.iter().enumerate() {
            let want = -(f64::from(*logit).exp() / sum).ln();
            assert!((loss(&logits, target) - want).abs() < 1e-12);
        }
        // What would overflow without the greatest taken off.
        assert!((loss(&[1e30, 1e30], 0) - 2_f64.ln()).abs() < 1e-12);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!loss(&[1.0, bad, 2.0], 0).is_finite());
        }
    }

    #[test]
    fn windows_of_a_text() {
        let of = |len: usize, context, windows| count(&vec![0; len], context, windows);
        assert_eq!(of(1025, 512, Windows::Halves).unwrap(), 2);
        assert_eq!(of(1535, 512, Windows::Halves).unwrap(), 2);
        assert_eq!(of(1024, 512, Windows::Strided(256)).unwrap(), 2);
        assert_eq!(of(1025, 512, Windows::Strided(256)).unwrap(), 3);
        assert_eq!(of(513, 512, Windows::All).unwrap(), 1);
        assert_eq!(of(514, 512, Windows::All).unwrap(), 2);
        for (len, context, windows, words) in [
            (1023, 512, Windows::Halves, "1023 tokens, and 1024"),
            (1, 512, Windows::All, "1 tokens, and 2"),
            (9, 2, Windows::Halves, "3 or more"),
            (1024, 512, Windows::Strided(0), "from 1 to 511"),
            (1024, 512, Windows::Strided(512), "from 1 to 511"),
        ] {
            let error = of(len, context, windows).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn bytes_before_a_text_and_tokens_that_do_not_spell_it() {
        let special = Special { bos: true, ..Special::TEXT };
        for vocabulary in samples::sentence_piece().into_iter().chain(samples::byte_level()) {
            let space = matches!(&vocabulary.model, Model::SentencePiece(model) if model.strip);
            let nfc = matches!(&vocabulary.model, Model::ByteLevel(model) if model.nfc);
            let tokenizer = Tokenizer::new(vocabulary).unwrap();
            let of = |text| lead(&tokenizer, &tokenizer.encode(text, special), text);
            assert_eq!(of("the \u{65e5} in 12"), Some(usize::from(space)));
            // Another character in normalisation form C.
            assert_eq!(of("e\u{301}").is_none(), nfc);
        }
        // No token is this character, nor its bytes.
        let tokenizer = Tokenizer::new(samples::scored(&[0.0; 6])).unwrap();
        let of = |text| lead(&tokenizer, &tokenizer.encode(text, special), text);
        assert_eq!((of("abc"), of("abd")), (Some(0), None));
    }

    #[test]
    fn statistics_of_a_score() {
        let losses = [1.0, 2.0, 6.0];
        let (nats, squares) = (9.0, losses.map(|x: f64| x * x).iter().sum());
        let score = Score { windows: 1, run: 3, tokens: 3, nats, squares, bytes: Some(4) };
        assert_eq!(score.nats_per_token(), 3.0);
        assert!((score.perplexity() - 3_f64.exp()).abs() < 1e-12);
        // The standard deviation of a sample, by the root of its size.
        let error = (14.0_f64 / 2.0 / 3.0).sqrt();
        assert!((score.standard_error().unwrap() - error).abs() < 1e-12);
        assert!((score.bits_per_byte().unwrap() - 9.0 / 2_f64.ln() / 4.0).abs() < 1e-12);
        assert_eq!(Score { tokens: 1, ..score }.standard_error(), None);
        assert_eq!(Score { bytes: None, ..score }.bits_per_byte(), None);
    }
}

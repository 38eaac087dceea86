//! Perplexity: the figure of the model card, and each method against its definition.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;

use bitnet_inference::{Engine, Error, KvType, Options, Perplexity, Score, Windows};
use common::{DEMO, load, logits};

/// Stories that the demo model was not trained with.
const HELDOUT: &str = include_str!("../../../models/heldout.txt");

fn score(engine: &Engine, text: &str, windows: Windows) -> Score {
    let text = Perplexity::new(engine, text, windows).unwrap();
    text.score(|_| true).unwrap().unwrap()
}

/// What `models/training/export.py` found with PyTorch: see `models/MODEL_CARD.md`.
#[test]
fn all_tokens_of_the_held_out_text_give_the_figure_of_the_model_card() {
    let found = score(&load(DEMO, &Options::default()), HELDOUT, Windows::All);
    assert_eq!((found.tokens, found.bytes), (57_465, Some(199_455)));
    assert_eq!(format!("{:.3}", found.nats_per_token()), "3.537");
    assert!((found.nats_per_token() - 3.536_728).abs() < 5e-4, "{}", found.nats_per_token());
    assert!((found.perplexity() - 34.3543).abs() < 0.02, "{}", found.perplexity());
    assert!((found.bits_per_byte().unwrap() - 1.470_06).abs() < 2e-4);
}

/// The sum of losses of positions, by the definition, and of their squares.
fn naive(engine: &Engine, window: &[u32], scored: std::ops::Range<usize>) -> [f64; 2] {
    let (vocabulary, logits) = (engine.vocabulary(), logits(engine, window));
    let mut sums = [0.0; 2];
    for at in scored {
        let row = &logits[at * vocabulary..][..vocabulary];
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        let loss = sum.ln() - f64::from(row[window[at + 1] as usize]);
        sums = [sums[0] + loss, sums[1] + loss * loss];
    }
    sums
}

fn same(score: &Score, tokens: usize, [nats, squares]: [f64; 2]) {
    assert_eq!(score.tokens, tokens);
    assert!((score.nats - nats).abs() < 1e-9 * nats, "{} {nats}", score.nats);
    assert!((score.squares - squares).abs() < 1e-9 * squares, "{} {squares}", score.squares);
}

#[test]
fn each_method_is_its_definition() {
    let n = 40;
    let engine = load(DEMO, &Options { context: Some(n), ..Options::default() });
    let text: String = HELDOUT.chars().take(600).collect();
    let tokens = engine.encode(&text).unwrap();
    let sum = |windows: &[(usize, usize, std::ops::Range<usize>)], bos: bool| {
        let mut sums = [0.0; 2];
        for (start, end, scored) in windows {
            let mut window = tokens[*start..*end].to_vec();
            if bos {
                window[0] = 2040;
            }
            let [nats, squares] = naive(&engine, &window, scored.clone());
            sums = [sums[0] + nats, sums[1] + squares];
        }
        sums
    };
    let halves: Vec<_> =
        (0..tokens.len() / n).map(|i| (i * n, (i + 1) * n, n / 2..n - 1)).collect();
    assert!(halves.len() > 2 && tokens.len() % n > 1, "{} tokens", tokens.len());
    same(&score(&engine, &text, Windows::Halves), halves.len() * 19, sum(&halves, true));

    let count = (tokens.len() - n).div_ceil(7);
    let strided: Vec<_> = (0..count).map(|i| (i * 7, i * 7 + n, n - 8..n - 1)).collect();
    same(&score(&engine, &text, Windows::Strided(7)), count * 7, sum(&strided, true));

    let last = tokens.len() - 1;
    let all: Vec<_> = (0..last.div_ceil(n))
        .map(|i| (i * n, (i * n + n + 1).min(tokens.len()), 0..n.min(last - i * n)))
        .collect();
    // A window has the token in it that its last position predicts; the context has no room to run it.
    let roomy = load(DEMO, &Options::default());
    let sums = all.iter().fold([0.0; 2], |sums, (start, end, scored)| {
        let [nats, squares] = naive(&roomy, &tokens[*start..*end], scored.clone());
        [sums[0] + nats, sums[1] + squares]
    });
    same(&score(&engine, &text, Windows::All), last, sums);
}

#[test]
fn the_score_depends_on_the_text_alone() {
    let text: String = HELDOUT.chars().take(1500).collect();
    let engine = |threads, isa| {
        let isa = Some(isa);
        load(
            DEMO,
            &Options { threads: Some(threads), isa, context: Some(96), ..Options::default() },
        )
    };
    let one = engine(1, bitnet_kernels::Isa::Scalar);
    let want = score(&one, &text, Windows::Halves);
    let cpu = bitnet_kernels::Cpu::detect();
    let two = engine(2, *cpu.isas().last().unwrap());
    assert_eq!(score(&two, &text, Windows::Halves), want);
    let cut = Perplexity::new(&two, &text, Windows::Halves).unwrap().batch(5);
    let (mut calls, mut before) = (0, 0);
    let found = cut.score(|score| {
        assert!(score.run >= before && score.run <= cut.to_run());
        (calls, before) = (calls + 1, score.run);
        true
    });
    let found = found.unwrap().unwrap();
    assert_eq!((found.tokens, found.windows, found.run), (want.tokens, want.windows, want.run));
    // The sums are cut elsewhere.
    assert!((found.nats - want.nats).abs() < 1e-9 * want.nats);
    assert_eq!((found.run, calls > cut.windows() * 10), (cut.to_run(), true));
    // Other numbers in the cache, another score.
    let options = Options { kv: KvType::Q8_0, context: Some(96), ..Options::default() };
    assert_ne!(score(&load(DEMO, &options), &text, Windows::Halves).nats, want.nats);
}

#[test]
fn a_text_is_scored_in_part_or_not_at_all() {
    let engine = load(DEMO, &Options { context: Some(64), ..Options::default() });
    let text: String = HELDOUT.chars().take(1500).collect();
    let whole = Perplexity::new(&engine, &text, Windows::Halves).unwrap();
    assert!(whole.windows() > 3);
    let part = Perplexity::new(&engine, &text, Windows::Halves).unwrap().limit(2);
    let score = part.score(|_| true).unwrap().unwrap();
    assert_eq!((score.windows, score.tokens), (2, 2 * 31));
    let mut left = 3;
    let stopped = whole.score(|_| {
        left -= 1;
        left > 0
    });
    assert_eq!((stopped.unwrap(), left), (None, 0));
    let short = Perplexity::new(&engine, "Once upon a time", Windows::Halves);
    assert!(matches!(short, Err(Error::Perplexity { .. })), "{short:?}");
    let empty = Perplexity::new(&engine, "", Windows::All).unwrap_err().to_string();
    assert!(empty.contains("the text has 1 tokens"), "{empty}");
}

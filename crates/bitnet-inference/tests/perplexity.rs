//! Perplexity: the figure of the model card, and each method against its definition.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;

use bitnet_inference::{
    Base, Divergence, Engine, Error, KvType, Options, Perplexity, Score, Windows, quantile,
};
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

fn compared(engine: &Engine, path: &std::path::Path) -> Divergence {
    let base = Base::open(path).unwrap();
    let text = Perplexity::of_base(engine, &base).unwrap();
    text.compare(base, |_| true).unwrap().unwrap()
}

#[test]
fn a_model_does_not_diverge_from_itself_and_others_do_as_defined() {
    let options = |kv| Options { context: Some(64), kv, ..Options::default() };
    let [same, other] = [KvType::F32, KvType::Q8_0].map(|kv| load(DEMO, &options(kv)));
    let text: String = HELDOUT.chars().take(700).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base");
    let saved = Perplexity::new(&same, &text, Windows::Halves).unwrap();
    let score = saved.save(&path, |_| true).unwrap().unwrap();
    assert_eq!(score, saved.score(|_| true).unwrap().unwrap());

    let found = compared(&same, &path);
    assert_eq!((found.windows, found.divergences.len()), (score.windows, score.tokens));
    let [ours, theirs] = found.nats_per_token();
    assert!((ours.value - score.nats_per_token()).abs() < 1e-9);
    assert!((ours.error - score.standard_error().unwrap()).abs() < 1e-9);
    // Files have steps of 16 / 65535.
    assert!((ours.value - theirs.value).abs() < 1e-4, "{theirs:?}");
    assert!(found.divergences.iter().all(|kld| kld.abs() < 1e-4), "{found:?}");
    assert_eq!((found.same, found.same_top().error), (score.tokens, 0.0));
    assert!(found.correlation() > 0.999_999);

    let found = compared(&other, &path);
    let (mut sum, mut same_top) = (0.0, 0);
    let tokens = saved.tokens();
    for start in (0..score.windows).map(|i| i * 64) {
        let mut window = tokens[start..start + 63].to_vec();
        window[0] = 2040;
        let [p, q] = [&same, &other].map(|engine| logits(engine, &window));
        for (p, q) in p.chunks(2048).zip(q.chunks(2048)).skip(32) {
            let [log_p, log_q] = [p, q].map(|row| {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                row.iter().map(|&x| f64::from(x) - sum.ln()).collect::<Vec<_>>()
            });
            sum += log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            let top = |row: &[f64]| {
                row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|top| top.0)
            };
            same_top += usize::from(top(&log_p) == top(&log_q));
        }
    }
    let mean = sum / found.divergences.len() as f64;
    assert!(mean > 1e-6 && (found.divergence().value - mean).abs() < 1e-5, "{mean}");
    assert_eq!(found.same, same_top);
    assert!(found.log_ratio().error < 0.5 * found.nats_per_token()[0].error);
    assert!(found.difference().value.abs() <= found.root_mean_square().value);
}

#[test]
fn bases_that_cannot_be_are_refused() {
    let engine = load(DEMO, &Options { context: Some(64), ..Options::default() });
    let text: String = HELDOUT.chars().take(700).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base");
    let saved = Perplexity::new(&engine, &text, Windows::Halves).unwrap();
    saved.save(&path, |_| true).unwrap().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let other = load(DEMO, &Options { context: Some(65), ..Options::default() });
    let error = Perplexity::of_base(&other, &Base::open(&path).unwrap()).unwrap_err();
    assert!(error.to_string().contains("windows of 64 tokens"), "{error}");
    let refused = |bytes: &[u8], words: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Base::open(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(b"", "no log probabilities");
    refused(&[0; 100], "no log probabilities");
    refused(&whole[..whole.len() - 1], "not finished");
    let with = |at: usize, number: i32| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    refused(&with(8, -1), "makes no sense");
    refused(&with(8, 2), "makes no sense");
    refused(&with(12, i32::MAX), "its header says");
    refused(&with(24, 4096), "not in its vocabulary");
    // A scale that is none, in the first row.
    let tokens = saved.windows() * 64;
    std::fs::write(&path, with(20 + 4 * tokens, f32::NAN.to_bits() as i32)).unwrap();
    let base = Base::open(&path).unwrap();
    let error = Perplexity::of_base(&engine, &base).unwrap().compare(base, |_| true).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}

#[test]
fn quantiles_lie_between_values() {
    let sorted = [1.0, 2.0, 4.0];
    for (share, want) in
        [(-1.0, 1.0), (0.0, 1.0), (0.25, 1.5), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0), (2.0, 4.0)]
    {
        assert_eq!(quantile(&sorted, share), want);
    }
    assert!(quantile(&[], 0.5).is_nan());
}

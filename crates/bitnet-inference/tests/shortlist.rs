//! Sampling from the greatest logits of a large vocabulary gives what sampling from all gives.

use bitnet_gguf::Gguf;
use bitnet_inference::synth::{Shape, Synthetic};
use bitnet_inference::{
    Constraint, Engine, Generation, Logits, Options, Request, Sampler, Sampling, Wanted,
};
use bitnet_kernels::Format;

/// A vocabulary that has a shortlist.
const SHAPE: Shape = Shape {
    name: "large vocabulary",
    hidden: 256,
    ffn: 256,
    layers: 1,
    heads: 4,
    kv_heads: 2,
    vocabulary: 4500,
    context: 256,
    rope_base: 10000.0,
};

fn engine() -> Engine {
    let model = Synthetic { shape: SHAPE, seed: 7, weights: Format::I2S, embedding: Format::F16 };
    let mut bytes = Vec::new();
    model.write_to(&mut bytes).expect("a shape that can be written");
    let gguf = Gguf::from_vec("synthetic", bytes).expect("a sound file");
    Engine::load(gguf, &Options { threads: Some(2), ..Options::default() }).expect("a sound model")
}

#[test]
fn the_greatest_logits_give_the_same_tokens() {
    let engine = engine();
    let plain = Sampling { seed: 3, ..Sampling::default() };
    let all = [
        Sampling { temperature: 0.0, ..plain.clone() },
        plain.clone(),
        Sampling { top_k: 3, min_p: 0.0, top_p: 1.0, temperature: 5.0, ..plain.clone() },
        Sampling { repeat_penalty: 1.5, repeat_last_n: 32, ..plain.clone() },
        Sampling { repeat_penalty: 0.7, temperature: 0.0, ..plain },
    ];
    for settings in all {
        let mut session = engine.session(2).expect("memory");
        let mut samplers =
            [0; 2].map(|_| Sampler::new(settings.clone(), &engine).expect("settings"));
        let mut history = vec![1_u32, 4000, 77];
        let mut from = 0;
        let mut best = 0;
        for _ in 0..60 {
            let tokens = history[from..].to_vec();
            from = history.len();
            let mut drawn = [0; 2];
            for (sequence, sampler) in samplers.iter_mut().enumerate() {
                let wanted = if sequence == 0 { sampler.wanted(&history, 0) } else { Wanted::All };
                let logits = session.extend(sequence, &tokens, wanted, || false);
                let logits = logits.expect("a forward pass").expect("not stopped");
                best += usize::from(matches!(logits, Logits::Best(found) if found.len() < 4000));
                drawn[sequence] = sampler.sample(logits, &history).expect("finite logits");
            }
            assert_eq!(drawn[0], drawn[1], "{settings:?} after {} tokens", history.len());
            history.push(drawn[0]);
        }
        assert_eq!(best, 60, "the shortlist was used");
    }
}

#[test]
fn all_tokens_take_part_where_sampling_asks_for_all() {
    let engine = engine();
    let settings = Sampling { top_k: 0, ..Sampling::default() };
    let mut sampler = Sampler::new(settings.clone(), &engine).expect("settings");
    assert_eq!(sampler.wanted(&[1, 2], 0), Wanted::All);
}

/// What a constraint leaves is looked for among the condensed rows, and multiplied at once where it is
/// little.
#[test]
fn what_a_constraint_allows_gives_the_same_tokens() {
    let engine = engine();
    let plain = Sampling { seed: 5, ..Sampling::default() };
    let samplings = [
        Sampling { temperature: 0.0, ..plain.clone() },
        Sampling { repeat_penalty: 1.5, logit_bias: [(97, 2.0)].into(), ..plain.clone() },
        plain,
    ];
    for regex in ["[a-z ]{60,90}", "([ab]c)+", "[^x]{1,40}"] {
        for sampling in &samplings {
            let request = Request {
                constraint: Some(Constraint::Regex(regex.to_owned())),
                ..Request::new(vec![1, 4000, 77], sampling.clone(), 30)
            };
            // Log-probabilities need all logits.
            let all = Request { logprobs: Some(1), ..request.clone() };
            let [(some, read), (all, read_all)] = [request, all].map(|request| {
                let mut text = Generation::new(&engine, request).expect("a sound request");
                while text.next(|| false).expect("a forward pass").is_some() {}
                let [_, read] = text.read();
                (text.generated().to_vec(), read.head)
            });
            assert_eq!(some, all, "{regex} {sampling:?}");
            assert!(some.len() > 1 && read < read_all, "{regex}: {read} of {read_all} bytes");
        }
    }
}

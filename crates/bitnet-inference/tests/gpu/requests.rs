//! Whole requests: drawn, constrained, guessed, with log-probabilities, many at once, and from files of keys and values.

use bitnet_gguf::{Gguf, TensorType};
use bitnet_inference::{
    Best, Capacity, Constraint, Cut, Draw, Engine, Event, Generation, Input, Logits, Options,
    PrecisionMode, Request, Sampling, Scheduler, Wanted,
};
use bitnet_kernels::Device;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load};
use crate::{both, on_cpu, on_gpu, prompt};

pub(crate) const CASES: &[Case] = &[
    ("requests_give_the_same_tokens", Library::Fake, "", requests),
    ("texts_that_go_on_on_the_device_are_the_same", Library::Fake, "", ahead),
    ("draws_that_are_wrong_change_nothing", Library::Fake, "", drawn_wrongly),
    ("others_have_another_past", Library::Fake, "", others),
    ("keys_and_values_are_those_of_the_processor", Library::Fake, "", stored),
];

fn asked(engine: &Engine) -> Vec<Request> {
    let ids = |text: &str| engine.encode(text).unwrap();
    let once = ids("Once upon a time");
    let all = Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3, ..Sampling::default() };
    let some = Sampling { seed: 4, repeat_penalty: 1.2, ..Sampling::default() };
    let regex = Constraint::Regex("[a-c ]{3,9}".to_owned());
    vec![
        Request::new(once.clone(), Sampling::greedy(), 8),
        Request::new(ids("The fox ran and the hare ran."), all, 4),
        Request { logprobs: Some(3), ..Request::new(once.clone(), some.clone(), 4) },
        Request { constraint: Some(regex), ..Request::new(once, some, 4) },
        Request { draft: 3, ..Request::new(ids("a b a b a b a b"), Sampling::greedy(), 5) },
    ]
}

/// What came of each request, one after another: tokens, and what is to be told of each.
fn alone(engine: &Engine) -> Vec<Vec<String>> {
    let one = |request: Request| {
        let mut generation = Generation::new(engine, request).unwrap();
        let mut tokens = Vec::new();
        while let Some(token) = generation.next(|| false).unwrap() {
            tokens.push(format!("{:?} {:?}", token.token, token.logprobs));
        }
        tokens
    };
    asked(engine).into_iter().map(one).collect()
}

/// The same, all at once.
fn together(engine: &Engine) -> Vec<Vec<String>> {
    let capacity = Capacity { sequences: 4, ..Capacity::default() };
    let mut scheduler = Scheduler::new(engine, capacity).unwrap();
    let ids: Vec<_> =
        asked(engine).into_iter().map(|request| scheduler.submit(request).unwrap()).collect();
    let mut tokens = vec![Vec::new(); ids.len()];
    while !scheduler.is_idle() {
        for event in scheduler.step().unwrap() {
            if let Event::Token(token) = event {
                let index = ids.iter().position(|id| *id == token.id).unwrap();
                tokens[index].push(format!("{:?} {:?}", token.token, token.logprobs));
            }
        }
    }
    tokens
}

fn requests() {
    let [cpu, gpu] = both(&on_cpu());
    let expected = alone(&cpu);
    assert!(expected.iter().all(|tokens| !tokens.is_empty()));
    assert_eq!(together(&gpu), expected);
}

/// A text that comes to a place, and to a position and a token, for which the device has gone on with another.
fn others() {
    let [here, there] = both(&on_cpu()).map(|engine| {
        let capacity = Capacity { sequences: 1, ..Capacity::default() };
        let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
        let greedy = |prompt: Vec<u32>, limit| Request {
            ignore_end: true,
            ..Request::new(prompt, Sampling::greedy(), limit)
        };
        let tokens = |scheduler: &mut Scheduler<'_>, request, most: usize| {
            let id = scheduler.submit(request).unwrap();
            let mut tokens = Vec::new();
            while !scheduler.is_idle() && tokens.len() < most {
                for event in scheduler.step().unwrap() {
                    if let Event::Token(token) = event {
                        tokens.push(token.token);
                    }
                }
            }
            scheduler.cancel(id);
            tokens
        };
        // The first sixteen of it stay in the cache.
        tokens(&mut scheduler, greedy(prompt(17), 1), 1);
        let other: Vec<u32> = prompt(40)[25..].to_vec();
        let begun = tokens(&mut scheduler, greedy(other, 8), 2);
        let last = [&prompt(16)[..], &begun[1..]].concat();
        (begun, tokens(&mut scheduler, greedy(last, 4), 4))
    });
    assert_eq!(there, here);
    assert_eq!((here.0.len(), here.1.len()), (2, 4));
}

/// Tokens that are drawn on the device and are not those that the text goes on with: as it was told so, and as more of the greatest logits
/// are equal than it has room for.
fn drawn_wrongly() {
    let last = Draw::new(0.999, [Cut::TopK(1), Cut::Temperature(9.0)]).unwrap();
    let other = Draw::new(0.999, [Cut::Temperature(9.0)]).unwrap();
    for (file, draw) in [(DEMO, last), (DEMO, other), (equal_rows(), Draw::greedy())] {
        let [here, there] = [Device::Cpu, Device::Cuda(0)]
            .map(|device| follow(&load(file, &Options { device, ..on_cpu() }), draw));
        assert_eq!(there.0, here.0, "{draw:?}");
        assert!(there.1 == here.1, "other logits, {draw:?}");
    }
}

/// The likeliest tokens of a text, where draws are said to be made in some way; then the logits after them.
fn follow(engine: &Engine, draw: Draw) -> (Vec<u32>, Vec<u32>) {
    let mut session = engine.session(1).unwrap();
    let (mut tokens, mut token) = (Vec::new(), 100);
    for _ in 0..6 {
        let wanted = Best { count: 8, also: &[], only: None, draw: Some(draw) };
        let input = [Input { sequence: 0, token, logits: true }];
        session.step(&input, &[Wanted::Best(wanted)]).unwrap();
        let mut found: Vec<(u32, f32)> = match session.found(0) {
            Logits::All(all) => (0..).zip(all.iter().copied()).collect(),
            Logits::Best(best) => best.iter().map(|best| (best.id, best.logit)).collect(),
        };
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        token = found[0].0;
        tokens.push(token);
    }
    let logits = session.run(&[Input { sequence: 0, token, logits: true }]).unwrap();
    (tokens, logits.iter().map(|x| x.to_bits()).collect())
}

/// The demo model with zeros for the first hundred tokens, and for all others one row or its opposite.
fn equal_rows() -> &'static [u8] {
    let gguf = Gguf::from_static("model.gguf", DEMO).unwrap();
    let tensor = gguf.tensor("token_embd.weight").unwrap();
    assert!(matches!(gguf.tensor_type(tensor).unwrap(), TensorType::F16 | TensorType::Bf16));
    let data = gguf.data(tensor).unwrap();
    let start = data.as_ptr().addr() - DEMO.as_ptr().addr();
    let mut bytes = DEMO.to_vec();
    let row = 2 * tensor.row() as usize;
    let of = data[100 * row..][..row].to_vec();
    for (token, to) in bytes[start..][..data.len()].chunks_mut(row).enumerate() {
        match token {
            ..100 => to.fill(0),
            100..1000 => to.copy_from_slice(&of),
            // The sign is in every other byte.
            _ => (0..row).for_each(|i| to[i] = of[i] ^ (i as u8 % 2 * 0x80)),
        }
    }
    bytes.leak()
}

/// Several greedy texts: over the end of a block, with one that ends early, one that comes later, one that is cancelled, and one whose
/// next token the device cannot draw.
fn ahead() {
    let [here, there] = both(&on_cpu()).map(|engine| {
        let ids = engine.encode("Once upon a time there was a fox").unwrap();
        let greedy = |prompt: &[u32], limit| Request {
            ignore_end: true,
            ..Request::new(prompt.to_vec(), Sampling::greedy(), limit)
        };
        let first = engine.encode(" the").unwrap()[0];
        let biased = Sampling { logit_bias: [(first, 5.0)].into(), ..Sampling::greedy() };
        let capacity = Capacity { sequences: 3, ..Capacity::default() };
        let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
        let mut seen = Vec::new();
        let mut ids_of = vec![
            scheduler.submit(greedy(&ids, 12)).unwrap(),
            scheduler.submit(greedy(&ids[..3], 4)).unwrap(),
        ];
        let mut steps = 0;
        while !scheduler.is_idle() {
            steps += 1;
            if steps == 3 {
                ids_of.push(scheduler.submit(greedy(&ids[2..], 30)).unwrap());
                let request = Request { sampling: biased.clone(), ..greedy(&ids[..5], 6) };
                ids_of.push(scheduler.submit(request).unwrap());
            }
            if steps == 9 {
                scheduler.cancel(ids_of[2]);
            }
            for event in scheduler.step().unwrap() {
                if let Event::Token(token) = event {
                    let index = ids_of.iter().position(|id| *id == token.id).unwrap();
                    seen.push((steps, index, token.token));
                }
            }
        }
        seen
    });
    assert_eq!(there, here);
    assert!(here.len() > 20, "{here:?}");
}

/// Written by either, and read by the other; in lesser precision only by what has the same.
fn stored() {
    let folder = tempfile::tempdir().unwrap();
    let [cpu, gpu] = both(&on_cpu());
    let half = Options { gpu_precision: PrecisionMode::Fp16, ..on_gpu() };
    let engines = [cpu, gpu, load(DEMO, &half)];
    let tokens = prompt(33);
    let files = [0, 1, 2].map(|which| {
        let path = folder.path().join(which.to_string());
        let request = Request::new(tokens.clone(), Sampling::greedy(), 2);
        let scheduler = Scheduler::new(&engines[which], Capacity::default()).unwrap();
        let mut generation = Generation::with(scheduler, request).unwrap();
        while generation.next(|| false).unwrap().is_some() {}
        assert_eq!(generation.into_scheduler().save(&path, &tokens).unwrap(), 32);
        path
    });
    for (which, from, flags) in [
        (0, 2, "--cache-type f16 and --gpu-precision fp16"),
        (2, 1, "--cache-type f16 and --gpu-precision fp32"),
    ] {
        let mut scheduler = Scheduler::new(&engines[which], Capacity::default()).unwrap();
        let error = scheduler.restore(&files[from]).unwrap_err().to_string();
        assert!(error.contains(flags), "{error}");
    }
    let mut scheduler = Scheduler::new(&engines[2], Capacity::default()).unwrap();
    assert_eq!(scheduler.restore(&files[2]).unwrap(), 32);
    // The order of the fields of the header is not always the same.
    let [here, there, _] = files.each_ref().map(|path| {
        let bytes = std::fs::read(path).unwrap();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
        bytes[8 + header as usize..].to_vec()
    });
    assert!(here == there, "the same bytes");
    let [here, there] = [0, 1].map(|which| {
        let mut scheduler = Scheduler::new(&engines[which], Capacity::default()).unwrap();
        assert_eq!(scheduler.restore(&files[1 - which]).unwrap(), 32);
        let request = Request::new(tokens.clone(), Sampling::greedy(), 2);
        let mut generation = Generation::with(scheduler, request).unwrap();
        while generation.next(|| false).unwrap().is_some() {}
        assert_eq!(generation.usage().cached, 32);
        generation.generated().to_vec()
    });
    assert_eq!(here, there);
}

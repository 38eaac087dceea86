//! Requests at the same time give what each gives alone, to the last bit.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;

use std::collections::HashMap;

use bitnet_inference::{
    CHUNK, Capacity, Constraint, Engine, Error, Event, Finish, Generation, KvType, Options,
    Request, RequestId, Sampling, Scheduler, Usage,
};
use common::{DEMO, load, logits};
use proptest::prelude::*;

fn engine(kv: KvType) -> Engine {
    load(DEMO, &Options { kv, threads: Some(2), ..Options::default() })
}

/// What a request gave.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    tokens: Vec<u32>,
    text: String,
    finish: Finish,
    logprobs: Vec<f32>,
}

/// What came of all requests, each submitted before the step that is given with it, and the usage of
/// each; and the most that ran at the same time.
fn run(
    scheduler: &mut Scheduler<'_>,
    requests: &[(usize, Request)],
) -> (Vec<(Outcome, Usage)>, usize) {
    let mut ids: HashMap<RequestId, usize> = HashMap::new();
    let none =
        Outcome { tokens: vec![], text: String::new(), finish: Finish::Stop, logprobs: vec![] };
    let mut outcomes: Vec<_> = requests.iter().map(|_| (none.clone(), None)).collect();
    let (mut step, mut most) = (0, 0);
    while outcomes.iter().any(|(_, usage)| usage.is_none()) {
        for (index, (at, request)) in requests.iter().enumerate() {
            if *at == step {
                ids.insert(scheduler.submit(request.clone()).unwrap(), index);
            }
        }
        for event in scheduler.step().unwrap() {
            match event {
                Event::Token(token) => {
                    let (outcome, _) = &mut outcomes[ids[&token.id]];
                    outcome.tokens.push(token.token);
                    outcome.text.push_str(&token.text);
                    outcome.logprobs.extend(token.logprobs.map(|logprobs| logprobs.token));
                }
                Event::End(end) => {
                    let (outcome, usage) = &mut outcomes[ids[&end.id]];
                    outcome.text.push_str(&end.text);
                    outcome.finish = end.finish;
                    *usage = Some(end.usage);
                }
                other => panic!("{other:?}"),
            }
        }
        most = most.max(scheduler.load().0);
        step += 1;
        assert!(step < 20_000, "it goes on and on");
    }
    (outcomes.into_iter().map(|(outcome, usage)| (outcome, usage.unwrap())).collect(), most)
}

/// What a request gives alone.
fn alone(engine: &Engine, request: &Request) -> Outcome {
    let capacity = Capacity { sequences: 1, prefix_cache: false, ..Capacity::default() };
    let mut scheduler = Scheduler::new(engine, capacity).unwrap();
    run(&mut scheduler, &[(0, request.clone())]).0.remove(0).0
}

/// Requests of every kind, at times and of lengths drawn by `seed`. Many begin with the same tokens.
fn requests(engine: &Engine, n: usize, seed: u64) -> Vec<(usize, Request)> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let story = engine
        .encode(
            "Once upon a time there was a king who had a daughter, and she was so beautiful that the sun \
             itself wondered. Every day the king went into the forest, and every day he came home and told \
             his daughter what he had seen.",
        )
        .unwrap();
    let one = |index: usize| {
        let shared = draw(story.len());
        let own = draw(150);
        let mut prompt = vec![2040];
        prompt.extend(&story[1..1 + shared.min(story.len() - 1)]);
        prompt.extend((0..own).map(|_| draw(2000) as u32));
        let sampling = match draw(4) {
            0 => Sampling::greedy(),
            1 => Sampling {
                repeat_penalty: 1.2,
                top_k: 0,
                seed: index as u64,
                ..Sampling::default()
            },
            _ => Sampling { seed: index as u64, ..Sampling::default() },
        };
        let request = Request {
            draft: [0, 0, 4, 16][draw(4)],
            logprobs: [None, None, None, Some(2)][draw(4)],
            stop: if draw(4) == 0 { vec![" the".to_owned()] } else { vec![] },
            ignore_end: draw(2) == 0,
            constraint: (draw(8) == 0).then(|| Constraint::Regex("[a-z ]{5,60}".to_owned())),
            ..Request::new(prompt, sampling, 1 + draw(60))
        };
        (draw(40), request)
    };
    (0..n).map(one).collect()
}

#[test]
fn thirty_two_sequences_are_each_as_alone() {
    let engine = engine(KvType::F16);
    let requests = requests(&engine, 32, 11);
    let expected: Vec<_> = requests.iter().map(|(_, request)| alone(&engine, request)).collect();
    assert!(expected.iter().any(|outcome| matches!(outcome.finish, Finish::StopString(_))));
    for prefix_cache in [true, false] {
        // Room for all, and for so few that many have to give way.
        for (tokens, chunk) in [(None, CHUNK), (Some(720), 48)] {
            let capacity = Capacity { sequences: 32, tokens, prefix_cache, chunk };
            let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
            let (outcomes, most) = run(&mut scheduler, &requests);
            let usages: Vec<_> = outcomes.iter().map(|(_, usage)| *usage).collect();
            for (index, ((outcome, _), expected)) in outcomes.into_iter().zip(&expected).enumerate()
            {
                assert_eq!(&outcome, expected, "{index}, {capacity:?}");
            }
            let preempted: usize = usages.iter().map(|usage| usage.preempted).sum();
            let cached: usize = usages.iter().map(|usage| usage.cached).sum();
            let accepted: usize = usages.iter().map(|usage| usage.accepted).sum();
            assert_eq!(preempted > 0, tokens.is_some(), "{preempted} gave way");
            assert_eq!(cached > 0, prefix_cache, "{cached} tokens were there");
            assert!(most > 2 && accepted > 0, "{most} at once, {accepted} right guesses");
            assert!(scheduler.is_idle());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever the requests, the room and the rows of a pass.
    #[test]
    fn sequences_are_as_alone(
        seed in 1_u64..,
        sequences in 1_usize..9,
        blocks in 32_usize..60,
        chunk in 9_usize..CHUNK,
        kv in prop::sample::select(vec![KvType::F32, KvType::F16, KvType::Q8_0]),
        prefix_cache: bool,
    ) {
        let engine = engine(kv);
        let requests = requests(&engine, 10, seed);
        let capacity = Capacity { sequences, tokens: Some(16 * blocks), prefix_cache, chunk };
        let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
        // Twice: the second time much of it is in the cache.
        for _ in 0..2 {
            let (outcomes, _) = run(&mut scheduler, &requests);
            for ((outcome, _), (_, request)) in outcomes.iter().zip(&requests) {
                prop_assert_eq!(outcome, &alone(&engine, request));
            }
        }
    }
}

#[test]
fn guesses_change_nothing() {
    let engine = engine(KvType::F16);
    let text = "The fox ran and the hare ran. ".repeat(6);
    let prompt = engine.encode(&text).unwrap();
    let mut right = 0;
    for sampling in [Sampling::greedy(), Sampling { seed: 5, ..Sampling::default() }] {
        let plain = Request { ignore_end: true, ..Request::new(prompt.clone(), sampling, 80) };
        let expected = alone(&engine, &plain);
        for draft in [1, 3, 16, 200] {
            let mut guessed = Generation::new(&engine, Request { draft, ..plain.clone() }).unwrap();
            let mut text = String::new();
            while let Some(token) = guessed.next(|| false).unwrap() {
                text.push_str(&token.text);
            }
            text.push_str(&guessed.end().unwrap().text);
            assert_eq!((guessed.generated(), &text), (&expected.tokens[..], &expected.text));
            let usage = guessed.usage();
            assert!(usage.drafted > 0, "{usage:?}");
            right += usage.accepted;
            // The last token is never guessed.
            assert_eq!(usage.positions, prompt.len() + 79);
        }
    }
    assert!(right > 0, "all guesses were wrong");
}

#[test]
fn a_prompt_waits_for_nobody_longer_than_a_chunk() {
    let engine = engine(KvType::F16);
    let capacity = Capacity { sequences: 4, chunk: 16, ..Capacity::default() };
    let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
    let greedy = |prompt, limit| Request {
        ignore_end: true,
        ..Request::new(prompt, Sampling::greedy(), limit)
    };
    let first = scheduler.submit(greedy(vec![2040, 1450], 100)).unwrap();
    scheduler.step().unwrap();
    // A long prompt comes: the first still has a token with each step.
    let second = scheduler.submit(greedy(vec![5; 300], 4)).unwrap();
    let mut steps = 0;
    loop {
        let events = scheduler.step().unwrap();
        steps += 1;
        let of = |id| {
            let is = |event: &&Event| matches!(event, Event::Token(token) if token.id == id);
            events.iter().filter(is).count()
        };
        assert_eq!(of(first), 1, "step {steps}");
        if of(second) > 0 {
            break;
        }
    }
    // One row of each pass was the first one's.
    assert_eq!(steps, 300_usize.div_ceil(15));
}

#[test]
fn what_was_said_before_is_not_run_again() {
    let engine = engine(KvType::F16);
    let mut scheduler = Scheduler::new(&engine, Capacity::default()).unwrap();
    let prompt: Vec<u32> = (0..100).collect();
    let request = |prompt: &[u32]| {
        let greedy = Request::new(prompt.to_vec(), Sampling::greedy(), 30);
        (0, Request { ignore_end: true, ..greedy })
    };
    let (first, usage) = run(&mut scheduler, &[request(&prompt)]).0.remove(0);
    assert_eq!(usage.cached, 0);
    // The same again: all whole blocks but that of the last token.
    let (again, usage) = run(&mut scheduler, &[request(&prompt)]).0.remove(0);
    assert_eq!((usage.cached, &again), (96, &first));
    assert_eq!(run(&mut scheduler, &[request(&prompt[..96])]).0[0].1.cached, 80);
    // A conversation goes on: the answer is there as well, but for its last token.
    let longer = [&prompt, &first.tokens[..], &[7, 8, 9]].concat();
    let (outcome, usage) = run(&mut scheduler, &[request(&longer)]).0.remove(0);
    assert_eq!(usage.cached, 128);
    assert_eq!(outcome, alone(&engine, &request(&longer).1));
}

#[test]
fn requests_end_when_they_are_told_to() {
    let engine = engine(KvType::F16);
    let capacity = Capacity { sequences: 2, ..Capacity::default() };
    let mut scheduler = Scheduler::new(&engine, capacity).unwrap();
    let ask = |n| Request::new(vec![2040; n], Sampling::greedy(), 1000);
    let ids: Vec<_> = (0..3).map(|_| scheduler.submit(ask(200)).unwrap()).collect();
    scheduler.step().unwrap();
    assert_eq!(scheduler.load(), (2, 1));
    // One that runs, one that waits, one that there is not.
    scheduler.cancel(ids[0]);
    scheduler.cancel(ids[2]);
    scheduler.cancel(ids[2]);
    let events = scheduler.step().unwrap();
    let ended: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::End(end) => Some((end.id, end.finish.clone(), end.usage.positions)),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [(ids[0], Finish::Cancelled, 128), (ids[2], Finish::Cancelled, 0)]);
    assert_eq!(scheduler.load(), (1, 0));
}

#[test]
fn what_cannot_be_is_refused() {
    let engine = engine(KvType::F16);
    let capacity = Capacity::default();
    for capacity in [
        Capacity { sequences: 0, ..capacity },
        Capacity { sequences: CHUNK + 1, ..capacity },
        Capacity { sequences: 8, chunk: 7, ..capacity },
        Capacity { chunk: CHUNK + 1, ..capacity },
        Capacity { tokens: Some(15), ..capacity },
    ] {
        let refused = Scheduler::new(&engine, capacity).map(|_| ());
        assert!(matches!(refused, Err(Error::Capacity { .. })), "{capacity:?}");
    }
    // Less room than the context is a smaller context.
    let small = Capacity { tokens: Some(100), ..capacity };
    let mut scheduler = Scheduler::new(&engine, small).unwrap();
    assert_eq!(scheduler.context(), 96);
    let ask = |n| Request::new(vec![1; n], Sampling::default(), 5);
    let mut refused = |request| scheduler.submit(request).unwrap_err();
    assert!(matches!(refused(ask(97)), Error::Context { tokens: 97, context: 96 }));
    assert!(matches!(refused(ask(0)), Error::EmptyPrompt));
    let strange = Request { prompt: vec![1, 2048], ..ask(1) };
    assert!(matches!(refused(strange), Error::Token { id: 2048, .. }));
    let stop = Request { stop: vec![String::new()], ..ask(1) };
    assert!(matches!(refused(stop), Error::StopString));
    let bias = Sampling { logit_bias: [(4000, 1.0)].into(), ..Sampling::default() };
    let bias = Request { sampling: bias, ..ask(1) };
    assert!(matches!(refused(bias), Error::Token { id: 4000, .. }));
    assert!(scheduler.is_idle());
    // To the end of that context.
    let (outcome, usage) =
        run(&mut scheduler, &[(0, Request { limit: 1000, ignore_end: true, ..ask(90) })])
            .0
            .remove(0);
    assert_eq!((outcome.finish, usage.positions, outcome.tokens.len()), (Finish::Length, 96, 7));
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let engine = engine(KvType::F16);
    let mut request = Request::new(vec![2040, 1450], Sampling::greedy(), 1);
    request.logprobs = Some(3);
    let mut generation = Generation::new(&engine, request.clone()).unwrap();
    let token = generation.next(|| false).unwrap().unwrap();
    let logprobs = token.logprobs.unwrap();
    let logits = &logits(&engine, &request.prompt)[engine.vocabulary()..];
    let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let expected = f64::from(logits[token.token as usize]) - sum.ln();
    assert!((f64::from(logprobs.token) - expected).abs() < 1e-5);
    assert_eq!(logprobs.top[0], (token.token, logprobs.token));
    assert_eq!(logprobs.top.len(), 3);
}

#[test]
fn where_nothing_can_come_the_text_ends() {
    let engine = engine(KvType::F16);
    for ignore_end in [false, true] {
        let constraint = Some(Constraint::Regex(String::new()));
        let plain = Request::new(vec![2040, 1450], Sampling::greedy(), 5);
        let outcome = alone(&engine, &Request { constraint, ignore_end, ..plain });
        assert_eq!((outcome.tokens, outcome.finish), (vec![], Finish::Stop));
    }
}

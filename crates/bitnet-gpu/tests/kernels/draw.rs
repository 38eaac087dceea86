//! Tokens that a device draws: those that the sampler of the processor draws.

use bitnet_kernels::op::{SoftmaxArgs, SoftmaxFn};

use crate::gpu::{Args, Gpu, Random, reference};

/// What is done before a draw: kinds as `DrawStep` of `select.cu` counts them, and their numbers.
type Step = (u32, u32);

fn top_k(k: u32) -> Step {
    (1, k)
}

fn top_p(p: f32) -> Step {
    (2, p.to_bits())
}

fn min_p(p: f32) -> Step {
    (3, p.to_bits())
}

fn temperature(t: f32) -> Step {
    (4, t.to_bits())
}

/// Tokens and their logits.
type Found = Vec<(u32, f32)>;

fn probabilities(list: &[(u32, f32)]) -> Vec<f32> {
    let mut x: Vec<f32> = list.iter().map(|(_, logit)| (logit - list[0].1).max(-1e9)).collect();
    (reference().select::<SoftmaxFn>(None).unwrap().run)(SoftmaxArgs { x: &mut x });
    x
}

/// The token that is drawn.
fn expected(mut list: Found, uniform: f32, steps: &[Step]) -> u32 {
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for &(kind, value) in steps {
        let x = f32::from_bits(value);
        let left = match kind {
            1 => value as usize,
            2 => {
                let mut sum = 0.0;
                let enough = probabilities(&list).iter().position(|p| {
                    sum += p;
                    sum >= x
                });
                enough.map_or(list.len(), |last| last + 1)
            }
            3 => {
                let probabilities = probabilities(&list);
                probabilities.iter().filter(|p| **p >= probabilities[0] * x).count().max(1)
            }
            _ => {
                let greatest = list[0].1;
                list.iter_mut().for_each(|(_, logit)| *logit = ((*logit - greatest) / x).max(-1e9));
                list.len()
            }
        };
        list.truncate(left);
    }
    let mut left = uniform;
    for ((token, _), p) in list.iter().zip(probabilities(&list)) {
        left -= p;
        if left < 0.0 {
            return *token;
        }
    }
    list.last().unwrap().0
}

/// What a device draws of some rows, each by the same steps.
fn drawn(target: &str, rows: &[Found], uniforms: &[f32], steps: &[Step]) -> Vec<u32> {
    const MOST: usize = 256;
    let mut gpu = Gpu::new(target);
    let found: Vec<i32> = rows.iter().map(|row| row.len() as i32).collect();
    let room = |of: &dyn Fn(&(u32, f32)) -> u32| -> Vec<u32> {
        let padded = rows.iter().flat_map(|row| (0..MOST).map(|i| row.get(i).map_or(7, of)));
        padded.collect()
    };
    let (tokens, logits) = (room(&|(token, _)| *token), room(&|(_, logit)| logit.to_bits()));
    let draws: Vec<u32> = uniforms
        .iter()
        .flat_map(|uniform| {
            let mut words = vec![uniform.to_bits()];
            words.extend(steps.iter().flat_map(|(kind, value)| [*kind, *value]));
            words.resize(9, 0);
            words
        })
        .collect();
    let next = gpu.room::<u32>(rows.len());
    let args = Args::default().with(gpu.upload(&found)).with(gpu.upload(&tokens));
    let args = args.with(gpu.upload(&logits)).with(MOST as i32);
    let args = args.with(gpu.upload(&draws)).with(next);
    gpu.launch("sample_draw", ([rows.len() as u32, 1, 1], 256, 0), &args);
    gpu.download(next, rows.len())
}

#[test]
fn tokens_are_those_of_the_sampler() {
    let mut random = Random::new(21);
    let mut row = |n: usize| -> Found {
        let mut logits = random.floats(n);
        // Some are equal.
        (0..n / 9).for_each(|i| logits[9 * i] = 1.25);
        (0..).map(|i| (i * 7919) % 10_007).zip(logits.iter().map(|x| 3.0 * x)).collect()
    };
    let rows: Vec<Found> = [1, 2, 40, 41, 64, 200, 256].map(&mut row).into();
    let all: [&[Step]; 6] = [
        &[],
        &[top_k(1)],
        &[top_k(40), top_p(0.95), min_p(0.05), temperature(0.8)],
        &[temperature(1.5), top_k(30), min_p(0.1)],
        &[top_k(300), top_p(0.5)],
        &[temperature(1e-6), min_p(1.0), top_p(0.0)],
    ];
    for target in ["sm_61", "sm_80"] {
        for steps in all {
            for uniform in [0.0, 0.31, 0.74, 0.999_999_9] {
                let uniforms = vec![uniform; rows.len()];
                let there = drawn(target, &rows, &uniforms, steps);
                let expected: Vec<u32> =
                    rows.iter().map(|row| expected(row.clone(), uniform, steps)).collect();
                assert_eq!(there, expected, "{target} {steps:?} {uniform}");
            }
        }
    }
}

/// Nothing to draw from, or more than there is room for.
#[test]
fn what_cannot_be_drawn_is_the_first_token() {
    let rows = [vec![], vec![(5, 1.0); 257], vec![(5, 1.0)]];
    assert_eq!(drawn("sm_80", &rows, &[0.5; 3], &[top_k(40)]), [0, 0, 5]);
}

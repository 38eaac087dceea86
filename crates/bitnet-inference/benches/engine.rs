//! What many requests at once cost, and what saves work: batches, shared prefixes, guesses, samplers.
//!
//! `cargo bench -p bitnet-inference --bench engine`: on the demo model, or on the models whose paths are
//! given (`-- 2b.gguf`). Medians of several rounds; what is compared is run in turns, round by round, and
//! ratios are medians of those within a round, since machines change from minute to minute.
//! `-- --smoke` runs everything once, small; `-- --threads=2 --rounds=9` say how many.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bitnet_inference::{
    Best, CHUNK, Capacity, Constraint, Dry, Engine, Event, Generation, Input, Options, Request,
    Sampler, Sampling, Scheduler, Usage, Wanted,
};
use bitnet_kernels::limits::median;
use serde_json::json;

/// How much to measure.
struct Effort {
    rounds: usize,
    /// Steps of a batch, and tokens of a text, in a round.
    steps: usize,
    /// Tokens of a long prompt at most.
    prompt: usize,
    /// Tokens drawn from the same logits in a round.
    draws: usize,
}

const FULL: Effort = Effort { rounds: 5, steps: 16, prompt: 512, draws: 20 };
const SMOKE: Effort = Effort { rounds: 1, steps: 2, prompt: 40, draws: 1 };

/// Sequences that generate at the same time.
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
/// Tokens in the context of each of them before.
const DEPTH: usize = 32;
/// Tokens that samplers look back at.
const HISTORY: usize = 2048;
/// Tokens to guess at most.
const DRAFT: usize = 16;
/// What sampling with the defaults asks for.
const DEFAULT: Wanted<'_> = Wanted::Best(Best { count: 40, also: &[], only: None, draw: None });

type Result<T> = std::result::Result<T, bitnet_inference::Error>;

struct Bench {
    engine: Engine,
    effort: Effort,
}

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let smoke = args.iter().any(|arg| arg == "--smoke");
    let number = |name: &str| {
        let value = args.iter().find_map(|arg| arg.strip_prefix(name));
        value.map(|value| value.parse::<NonZeroUsize>().expect("a number above zero").get())
    };
    let (threads, rounds) = (number("--threads="), number("--rounds="));
    let mut models: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).cloned().collect();
    if models.is_empty() {
        let folder = env!("CARGO_MANIFEST_DIR");
        models.push(format!("{folder}/../../models/bitnet-tales-i2_s.gguf"));
    }
    for model in models {
        let engine = Engine::open(&model, &Options { threads, ..Options::default() })?;
        let effort = if smoke { SMOKE } else { FULL };
        let effort = Effort { rounds: rounds.unwrap_or(effort.rounds), ..effort };
        let (threads, rounds, kv) = (engine.threads(), effort.rounds, engine.kv());
        println!("{model}: {threads} threads, keys and values in {kv}, medians of {rounds} rounds");
        let bench = Bench { engine, effort };
        let decode = bench.batches()?;
        bench.prefixes()?;
        bench.samplers(decode)?;
        bench.constraints()?;
        bench.guesses()?;
    }
    Ok(())
}

/// Middle values of some columns, of which each round gave a row.
fn medians<const N: usize>(rounds: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|i| median(&rounds.iter().map(|round| round[i]).collect::<Vec<_>>()))
}

/// How long `work` takes, in seconds.
fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The default sampler, as the request of such a number has it.
fn sampling(seed: usize) -> Sampling {
    Sampling { seed: seed as u64, ..Sampling::default() }
}

impl Bench {
    /// Some tokens, others for each `nth`.
    fn tokens(&self, nth: usize, n: usize) -> Vec<u32> {
        let id = |place: usize| (place * 7919 + nth * 104_729) % self.engine.vocabulary();
        (0..n).map(|place| id(place) as u32).collect()
    }

    /// The time of a step with so many sequences in seconds, as far as it goes: to the end of the last
    /// block, to the logits that sampling needs, to the tokens.
    fn batches(&self) -> Result<f64> {
        let steps = self.effort.steps;
        println!(
            "\n{:>10} {:>9} {:>9} {:>9}   blocks, logits, rest",
            "sequences", "ms", "x", "t/s"
        );
        let mut rounds = BATCHES.map(|_| Vec::new());
        for _ in 0..self.effort.rounds {
            let mut alone = f64::NAN;
            for (batch, rounds) in BATCHES.into_iter().zip(&mut rounds) {
                let blocks = self.passes(batch, None)?;
                let logits = self.passes(batch, Some(DEFAULT))?;
                let step = self.scheduled(batch)?;
                alone = if batch == 1 { step } else { alone };
                let shares = [blocks / step, (logits - blocks) / step, (step - logits) / step];
                rounds.push([step, step / alone, shares[0], shares[1], shares[2]]);
            }
        }
        let mut decode = f64::NAN;
        for (batch, rounds) in BATCHES.into_iter().zip(&rounds) {
            let [step, ratio, shares @ ..] = medians(rounds);
            decode = if batch == 1 { step } else { decode };
            let [blocks, logits, rest] = shares.map(|share| 100.0 * share);
            let (ms, speed) = (1e3 * step, batch as f64 / step);
            println!(
                "{batch:>10} {ms:>9.2} {ratio:>9.2} {speed:>9.1}   {blocks:.0} %, {logits:.0} %, {rest:.0} %"
            );
        }
        println!("{steps} steps, {DEPTH} tokens before them, the default sampler");
        Ok(decode)
    }

    /// The time of a forward pass of a token of each of `batch` sequences, in seconds.
    fn passes(&self, batch: usize, wanted: Option<Wanted<'_>>) -> Result<f64> {
        let mut session = self.engine.session(batch)?;
        let sequences: Vec<_> =
            (0..batch).map(|nth| self.tokens(nth, DEPTH + 1 + self.effort.steps)).collect();
        for (sequence, tokens) in sequences.iter().enumerate() {
            session.extend(sequence, &tokens[..DEPTH], DEFAULT, || false)?;
        }
        let (logits, wanted) = (wanted.is_some(), vec![wanted; batch]);
        let wanted: Vec<_> = wanted.into_iter().flatten().collect();
        let mut pass = |at: usize| {
            let input = |(sequence, tokens): (usize, &Vec<u32>)| {
                let token = tokens[DEPTH + at];
                Input { sequence, token, logits }
            };
            let inputs: Vec<_> = sequences.iter().enumerate().map(input).collect();
            session.step(&inputs, &wanted)
        };
        pass(0)?;
        let seconds = time(|| (1..=self.effort.steps).try_for_each(&mut pass))?;
        Ok(seconds / self.effort.steps as f64)
    }

    /// The time of a step of a scheduler in which `batch` requests have a token each, in seconds.
    fn scheduled(&self, batch: usize) -> Result<f64> {
        let capacity = Capacity { sequences: batch, prefix_cache: false, ..Capacity::default() };
        let mut scheduler = Scheduler::new(&self.engine, capacity)?;
        for nth in 0..batch {
            let (prompt, limit) = (self.tokens(nth, DEPTH), usize::MAX);
            let request = Request::new(prompt, sampling(nth), limit);
            scheduler.submit(Request { ignore_end: true, ..request })?;
        }
        // Until the last of them generates.
        while scheduler.step()?.len() < batch {}
        let seconds = time(|| (0..self.effort.steps).try_for_each(|_| scheduler.step().map(drop)))?;
        Ok(seconds / self.effort.steps as f64)
    }

    /// The time to the first token of a long prompt, and of another that begins in the same way.
    fn prefixes(&self) -> Result<()> {
        let prompt = self.effort.prompt.min(self.engine.context() - 2 * CHUNK);
        let mut rounds = Vec::new();
        let mut cached = 0;
        for round in 0..self.effort.rounds {
            let first = |prefix_cache| {
                let capacity = Capacity { sequences: 1, prefix_cache, ..Capacity::default() };
                let mut scheduler = Scheduler::new(&self.engine, capacity)?;
                let shared = self.tokens(round, prompt);
                let ask = |scheduler: &mut Scheduler<'_>, own: usize| {
                    let tokens = [&shared[..], &self.tokens(own, 16)].concat();
                    end(scheduler, Request::new(tokens, Sampling::greedy(), 1))
                };
                ask(&mut scheduler, 1)?;
                ask(&mut scheduler, 2)
            };
            let seconds = |usage: Usage| usage.timings.first_token.as_secs_f64();
            let (plain, shared) = (first(false)?, first(true)?);
            cached = shared.cached;
            rounds.push([seconds(plain), seconds(shared), seconds(plain) / seconds(shared)]);
        }
        let [plain, shared, ratio] = medians(&rounds);
        let (plain, shared) = (1e3 * plain, 1e3 * shared);
        let all = prompt + 16;
        println!("\nfirst token of a prompt of {all} tokens: {plain:.1} ms");
        println!(
            "with {cached} of them in the prefix cache: {shared:.1} ms, {ratio:.1} times as fast"
        );
        Ok(())
    }

    /// The time of a draw of each sampler, and as a share of a step.
    fn samplers(&self, decode: f64) -> Result<()> {
        let vocabulary = self.engine.vocabulary();
        println!(
            "\n{:<34} {:>9} {:>9}",
            format!("sampler, {vocabulary} tokens"),
            "µs",
            "% of step"
        );
        let history = self.tokens(0, HISTORY);
        let shortlist = [false; 5].into_iter().zip(samplers());
        let all = samplers().into_iter().take(2).map(|sampler| (true, sampler));
        let samplers: Vec<_> = shortlist.chain(all).collect();
        let mut rounds = samplers.iter().map(|_| Vec::new()).collect::<Vec<_>>();
        for _ in 0..self.effort.rounds {
            for ((all, (_, settings)), rounds) in samplers.iter().zip(&mut rounds) {
                rounds.push([self.draws(settings, &history, *all)?]);
            }
        }
        for ((all, (name, _)), rounds) in samplers.iter().zip(&rounds) {
            let [seconds] = medians(rounds);
            let (us, share) = (1e6 * seconds, 100.0 * seconds / decode);
            let name = if *all { format!("{name}, all logits") } else { (*name).to_owned() };
            println!("{name:<34} {us:>9.1} {share:>9.2}");
        }
        Ok(())
    }

    /// The time of a draw from the logits after some tokens, in seconds: from those that the sampler
    /// asks for, or from all.
    fn draws(&self, settings: &Sampling, history: &[u32], all: bool) -> Result<f64> {
        let mut sampler = Sampler::new(settings.clone(), &self.engine)?;
        let mut session = self.engine.session(1)?;
        let wanted = if all { Wanted::All } else { sampler.wanted(history, 0) };
        let Some(logits) = session.extend(0, &history[..1], wanted, || false)? else {
            return Ok(f64::NAN);
        };
        let draws = self.effort.draws;
        let seconds = time(|| {
            (0..draws).try_for_each(|_| {
                black_box(sampler.wanted(history, 0));
                sampler.sample(black_box(logits), history).map(|token| _ = black_box(token))
            })
        })?;
        Ok(seconds / draws as f64)
    }

    /// The time of a token of a text that must be JSON, against one that is free, and against one that is
    /// drawn from all logits.
    fn constraints(&self) -> Result<()> {
        let mut rounds = Vec::new();
        for round in 0..self.effort.rounds {
            let request = Request {
                ignore_end: true,
                ..Request::new(self.tokens(round, DEPTH), sampling(round), 1 + self.effort.steps)
            };
            let schema = json!({ "type": "array", "items": { "type": "string" }, "minItems": 20 });
            let constraint = Some(Constraint::JsonSchema(schema));
            let all = Sampling { top_k: 0, ..request.sampling.clone() };
            let all = Request { sampling: all, ..request.clone() };
            let json = Request { constraint, ignore_end: false, ..request.clone() };
            let [free, all, json] = [self.text(request)?, self.text(all)?, self.text(json)?];
            let [free, all, json] = [free, all, json].map(|usage| each(&usage));
            rounds.push([free, all, json, all / free, json / free]);
        }
        let [free, all, json, all_ratio, json_ratio] = medians(&rounds);
        let [free, all, json] = [free, all, json].map(|seconds| 1e3 * seconds);
        println!("\na token: {free:.2} ms; {all:.2} ms, {all_ratio:.2} times, from all logits");
        println!("a token of JSON by a schema: {json:.2} ms, {json_ratio:.2} times");
        Ok(())
    }

    /// What guesses gain and cost, on texts that repeat themselves and that do not.
    fn guesses(&self) -> Result<()> {
        println!("\n{:<34} {:>9} {:>9} {:>9}", "text", "speed x", "drafted", "accepted");
        // One token over and over: each guess is right.
        let biased = Sampling { logit_bias: [(7, 1e9)].into(), ..Sampling::greedy() };
        // Hot enough for any model to say something new.
        let hot = |seed| Sampling { temperature: 3.0, ..sampling(seed) };
        let loops = |_| Sampling::greedy();
        type Text<'a> = (&'a str, &'a dyn Fn(usize) -> Sampling, bool);
        let texts: [Text<'_>; 3] = [
            ("one token over and over", &|_| biased.clone(), false),
            ("greedy, after a prompt that repeats", &loops, true),
            ("temperature 3", &hot, false),
        ];
        for (name, sampling, repeats) in texts {
            let (mut rounds, mut drafted, mut accepted) = (Vec::new(), 0, 0);
            for round in 0..self.effort.rounds {
                let own = self.tokens(round, if repeats { 12 } else { DEPTH });
                let prompt = own.iter().copied().cycle().take(DEPTH).collect();
                let limit = 1 + 2 * self.effort.steps;
                let plain = Request::new(prompt, sampling(round), limit);
                let plain = Request { ignore_end: true, ..plain };
                let guessed = self.text(Request { draft: DRAFT, ..plain.clone() })?;
                drafted += guessed.drafted;
                accepted += guessed.accepted;
                rounds.push([each(&self.text(plain)?) / each(&guessed)]);
            }
            let [ratio] = medians(&rounds);
            println!("{name:<34} {ratio:>9.2} {drafted:>9} {accepted:>9}");
        }
        Ok(())
    }

    /// What a text takes alone.
    fn text(&self, request: Request) -> Result<Usage> {
        let mut text = Generation::new(&self.engine, request)?;
        while text.next(|| false)?.is_some() {}
        Ok(text.usage())
    }
}

/// The samplers that are compared. The first two can draw from all logits as well.
fn samplers() -> [(&'static str, Sampling); 5] {
    let usual = Sampling::default();
    let dry = Dry { multiplier: 0.8, ..Dry::default() };
    [
        ("greedy", Sampling::greedy()),
        ("defaults", usual.clone()),
        ("defaults and penalties", Sampling { repeat_penalty: 1.1, ..usual.clone() }),
        ("defaults and DRY over 2048 tokens", Sampling { dry, ..usual.clone() }),
        ("defaults without top-k", Sampling { top_k: 0, ..usual }),
    ]
}

/// The time of a token behind the first, in seconds.
fn each(usage: &Usage) -> f64 {
    let tokens = usage.generated.saturating_sub(1).max(1);
    usage.timings.decode.max(Duration::from_nanos(1)).as_secs_f64() / tokens as f64
}

/// Runs a request, and says what it took.
fn end(scheduler: &mut Scheduler<'_>, request: Request) -> Result<Usage> {
    scheduler.submit(request)?;
    loop {
        for event in scheduler.step()? {
            match event {
                Event::End(end) => return Ok(end.usage),
                Event::Failed { error, .. } => return Err(error),
                _ => {}
            }
        }
    }
}

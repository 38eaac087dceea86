//! `bitnet bench`: how fast a model runs, in the tests, options and columns of llama-bench.
//!
//! Measured is [`Session`] alone: neither tokenising nor sampling. The token at each place of each
//! sequence is fixed, so every run computes the same.

mod list;
mod report;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitnet_inference::{
    Best, CHUNK, Cut, Draw, Engine, Error, Input, Logits, Options, Session, Wanted,
};
use bitnet_kernels::{Device, Devices, Pool, limits};

use crate::exit::{self, End, Usage};
use crate::model;
use list::{List, Pair};
use report::{Format, Limits, Report, Speed, Test, To};

/// Flags of `bitnet bench`. Names and defaults are those of llama-bench.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Model files, folders or `ORG/NAME[:FILE]` from the cache, one after another; the demo model inside
    /// this program if not given.
    #[arg(short, long, value_name = "FILE", env = "BITNET_MODEL")]
    model: Vec<PathBuf>,
    /// Tokens of prompts to process; lists are 64,128 or 1-4 or 64-256+64 or 1-8*2, here and below.
    #[arg(short = 'p', long, value_name = "N,...", default_value = "512")]
    n_prompt: Vec<List>,
    /// Tokens to generate.
    #[arg(short = 'n', long, value_name = "N,...", default_value = "128")]
    n_gen: Vec<List>,
    /// A prompt and a generation in one test; -pg is the same.
    #[arg(long, value_name = "PP,TG")]
    pg: Vec<Pair>,
    /// Tokens in the context before each test.
    #[arg(short = 'd', long, value_name = "N,...", default_value = "0")]
    n_depth: Vec<List>,
    /// Sequences that generate at the same time, each with a prompt of its own; speeds count the tokens of
    /// all. -npl is the same, from llama-batched-bench.
    #[arg(long, value_name = "N,...", default_value = "1")]
    n_parallel: Vec<List>,
    /// Tokens of prompts that are handed over at a time.
    #[arg(short, long, value_name = "N,...", default_value = "2048")]
    batch_size: Vec<List>,
    /// Tokens of a forward pass; 128 at most, which more is too. -ub is the same.
    #[arg(long, value_name = "N,...", default_value = "128")]
    ubatch_size: Vec<List>,
    /// Threads; one for each core that may be used if not given.
    #[arg(short, long, value_name = "N,...")]
    threads: Vec<List>,
    /// Times that each test is run.
    #[arg(short, long, value_name = "N", default_value = "5")]
    repetitions: NonZeroUsize,
    /// What to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Md)]
    output: Format,
    /// What to print on stderr as well. -oe is the same.
    #[arg(long, value_name = "FORMAT", value_enum)]
    output_err: Option<Format>,
    /// Tell on stderr what is being measured.
    #[arg(long)]
    progress: bool,
    /// Known from llama-bench; 0 is the only one here.
    #[arg(long, value_name = "N", default_value = "0", value_parser = priority)]
    prio: u8,
    /// Do not run a test once before it is measured.
    #[arg(long)]
    no_warmup: bool,
    /// Seconds to wait before each test.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    delay: u64,
    /// Device to run on: cpu, or cuda:N; or several GPUs at the same time, each with sequences of its own:
    /// cuda:0,1 or cuda:all. Speeds count the tokens of all.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "BITNET_DEVICE")]
    device: Devices,
    #[command(flatten)]
    how: model::How,
    #[command(flatten)]
    cache: model::Cache,
    /// Measure read bandwidth and 8-bit multiply-adds around each test, with as many threads, and
    /// give speeds as shares of them.
    #[arg(long)]
    roofline: bool,
}

/// Priorities belong to whoever starts a process.
fn priority(text: &str) -> Result<u8, String> {
    let only = "the priority of a process is set where it is started: use `nice` or `chrt`, or 0";
    text.parse().ok().filter(|&priority| priority == 0).ok_or_else(|| only.to_owned())
}

/// How often they are read before and after a test.
const READS: usize = 5;
/// How often the peak is measured before and after a test: a round takes milliseconds.
const PEAKS: usize = 25;

pub(crate) fn run(args: &Args) -> Result<End> {
    args.check_batches()?;
    if args.roofline && args.device != Devices::These(vec![Device::Cpu]) {
        let what = "--roofline measures the processor: `bitnet check --device cuda` measures a GPU";
        return Err(Usage(what.to_owned()).into());
    }
    let tests = args.tests();
    if tests.is_empty() {
        return Err(Usage("no tests: give -p, -n or --pg more than 0 tokens".to_owned()).into());
    }
    let models: Vec<_> = match &args.model[..] {
        [] => vec![None],
        paths => paths.iter().map(|path| Some(path.as_path())).collect(),
    };
    let mut threads: Vec<_> = List::join(&args.threads).map(Some).collect();
    if threads.is_empty() {
        threads.push(None);
    }
    let columns = (args.shows_ubatch(), args.roofline);
    let beside = args.output_err.map(|format| Report::new(format, To::Stderr, columns));
    let mut reports: Vec<_> =
        [Report::new(args.output, To::Stdout, columns)].into_iter().chain(beside).collect();
    let mut progress = Progress { shown: args.progress, done: 0, all: 0 };
    progress.all = models.len() * threads.len() * tests.len();
    for path in models {
        for &threads in &threads {
            if !args.bench(path, threads, (&tests, &mut progress), &mut reports)? {
                return Ok(End::Done);
            }
        }
    }
    for report in reports {
        report.end()?;
    }
    Ok(End::Done)
}

/// How far all of it is.
struct Progress {
    shown: bool,
    /// Tests before this one.
    done: usize,
    all: usize,
}

impl Progress {
    /// Tells what is being done for the test.
    fn tell(&self, test: Test, what: &str) {
        if self.shown {
            exit::say(&format!("test {}/{}, {test}: {what}", self.done + 1, self.all));
        }
    }
}

impl Args {
    /// Batch by batch, depth by depth, number of sequences by number: prompts, generations, then both
    /// together.
    fn tests(&self) -> Vec<Test> {
        let prompts = List::join(&self.n_prompt).map(|n| (n, 0));
        let generations = List::join(&self.n_gen).map(|n| (0, n));
        let both = self.pg.iter().map(|&Pair(prompt, generate)| (prompt, generate));
        let kinds: Vec<_> =
            prompts.chain(generations).chain(both).filter(|&kind| kind != (0, 0)).collect();
        let mut tests = Vec::new();
        for batch in List::join(&self.batch_size) {
            for ubatch in List::join(&self.ubatch_size) {
                let ubatch = ubatch.min(batch).min(CHUNK);
                for depth in List::join(&self.n_depth) {
                    for parallel in List::join(&self.n_parallel) {
                        let test = |&(prompt, generate)| Test {
                            prompt,
                            generate,
                            depth,
                            parallel,
                            batch,
                            ubatch,
                        };
                        tests.extend(kinds.iter().map(test));
                    }
                }
            }
        }
        tests
    }

    /// Whether the rows of a forward pass were asked for.
    fn shows_ubatch(&self) -> bool {
        let mut all = self.tests().into_iter().map(|test| test.ubatch);
        all.any(|ubatch| ubatch != CHUNK)
    }

    /// Refuses batches of nothing and more sequences than there can be, and says which batches are larger than
    /// there are.
    fn check_batches(&self) -> Result<()> {
        let mut all = List::join(&self.batch_size).chain(List::join(&self.ubatch_size));
        if all.any(|n| n == 0) {
            return Err(Usage("no tokens in a batch: give -b and -ub 1 or more".to_owned()).into());
        }
        if let Some(n) = List::join(&self.n_parallel).find(|n| !(1..=CHUNK).contains(n)) {
            let range = format!("{n} sequences at the same time: give -npl from 1 to {CHUNK}");
            return Err(Usage(range).into());
        }
        for ubatch in List::join(&self.ubatch_size).filter(|&ubatch| ubatch > CHUNK) {
            exit::say(&format!(
                "note: a forward pass takes {CHUNK} tokens at most, which is what -ub {ubatch} gets"
            ));
        }
        Ok(())
    }

    /// All tests of a model with some threads. False if nobody reads the results any more.
    fn bench(
        &self,
        path: Option<&Path>,
        threads: Option<usize>,
        (tests, progress): (&[Test], &mut Progress),
        reports: &mut [Report],
    ) -> Result<bool> {
        self.cache.check()?;
        let options = Options { threads, kv: self.cache.kv, ..self.how.options()? };
        let options = model::on(&self.device, options)?;
        let engine = model::load(path, &options)?;
        let longest = tests.iter().map(Test::tokens).max().unwrap_or(0);
        if longest > engine.context() {
            return Err(Error::Context { tokens: longest, context: engine.context() }.into());
        }
        let sequences = tests.iter().map(|test| test.parallel).max().unwrap_or(1);
        let vocabulary = engine.vocabulary();
        let bench = |replica| {
            let session = engine.session_on(replica, sequences)?;
            Ok(Bench { session, sequences, vocabulary, next: vec![0; sequences] })
        };
        let mut benches =
            (0..engine.devices().len()).map(bench).collect::<Result<Vec<_>, Error>>()?;
        let machine = self.roofline.then(|| Machine::new(&engine)).transpose()?;
        let model = path.map_or("the demo model".to_owned(), |path| path.display().to_string());
        for &test in tests {
            thread::sleep(Duration::from_secs(self.delay));
            let (times, limits) = self.measure(&mut benches, test, machine.as_ref(), progress)?;
            let speed = Speed::new(&engine, model.clone(), test, (&times, limits));
            for report in &mut *reports {
                if !report.add(&speed)? {
                    return Ok(false);
                }
            }
            progress.done += 1;
        }
        Ok(true)
    }

    /// How long a test took each time, and what the machine did at best around it.
    fn measure(
        &self,
        benches: &mut [Bench],
        test: Test,
        machine: Option<&Machine<'_>>,
        progress: &Progress,
    ) -> Result<(Vec<Duration>, Option<Limits>)> {
        on_each(benches, |bench| bench.fill(test, test.depth))?;
        if !self.no_warmup {
            progress.tell(test, "warming up");
            timed(benches, Test { generate: test.generate.min(1), ..test })?;
        }
        let before = machine.map(Machine::measure).transpose()?;
        let count = self.repetitions.get();
        let mut times = Vec::with_capacity(count);
        for run in 1..=count {
            progress.tell(test, &format!("run {run}/{count}"));
            times.push(timed(benches, test)?);
        }
        let limits = match (before, machine) {
            (Some(before), Some(machine)) => Some(before.and(machine.measure()?)),
            _ => None,
        };
        Ok((times, limits))
    }
}

/// What sampling with the defaults asks for; of what it draws the likeliest.
fn wanted() -> Wanted<'static> {
    let cuts = [Cut::TopK(40), Cut::TopP(0.95), Cut::MinP(0.05), Cut::Temperature(0.8)];
    Wanted::Best(Best { count: 40, also: &[], only: None, draw: Draw::new(0.0, cuts) })
}

/// The likeliest token.
fn likeliest(logits: Logits<'_>) -> u32 {
    let first = |a: (u32, f32), b: (u32, f32)| if (b.1, a.0) > (a.1, b.0) { b } else { a };
    let none = (0, f32::NEG_INFINITY);
    match logits {
        Logits::All(logits) => (0..).zip(logits.iter().copied()).fold(none, first).0,
        Logits::Best(best) => best.iter().map(|best| (best.id, best.logit)).fold(none, first).0,
    }
}

/// Sequences to run tests on.
struct Bench {
    session: Session,
    sequences: usize,
    vocabulary: usize,
    /// The likeliest token after each sequence.
    next: Vec<u32>,
}

impl Bench {
    /// The token at a place of a sequence, the same in every run: of those that are generated, from the second on, the likeliest; of
    /// others a different one at each place.
    fn token(&self, test: Test, sequence: usize, position: usize) -> u32 {
        if position > test.depth + test.prompt {
            return self.next[sequence];
        }
        let place = position.wrapping_mul(7919).wrapping_add(sequence.wrapping_mul(104_729));
        (place % self.vocabulary) as u32
    }

    /// Makes the sequences of the test `length` tokens long, in forward passes as the test has them, and
    /// the others empty.
    fn fill(&mut self, test: Test, length: usize) -> Result<(), Error> {
        let mut inputs = Vec::new();
        for sequence in 0..self.sequences {
            let length = if sequence < test.parallel { length } else { 0 };
            self.session.truncate(sequence, length);
            inputs.extend((self.session.len(sequence)..length).map(|position| Input {
                sequence,
                token: self.token(test, sequence, position),
                logits: position + 1 == length,
            }));
        }
        for pass in inputs.chunks(test.batch).flat_map(|batch| batch.chunks(test.ubatch)) {
            let ends: Vec<_> = pass.iter().filter(|input| input.logits).collect();
            self.session.step(pass, &vec![wanted(); ends.len()])?;
            for (nth, input) in ends.into_iter().enumerate() {
                self.next[input.sequence] = likeliest(self.session.found(nth));
            }
        }
        Ok(())
    }

    /// The tokens of a test, behind those before it.
    fn test(&mut self, test: Test) -> Result<(), Error> {
        (test.depth + test.prompt..=test.tokens()).try_for_each(|length| self.fill(test, length))
    }
}

/// How long a test takes on all devices at the same time, without the tokens before it.
fn timed(benches: &mut [Bench], test: Test) -> Result<Duration, Error> {
    on_each(benches, |bench| bench.fill(test, test.depth))?;
    let start = Instant::now();
    on_each(benches, |bench| bench.test(test))?;
    Ok(start.elapsed())
}

/// Does something on each device: on several at the same time.
fn on_each(
    benches: &mut [Bench],
    work: impl Fn(&mut Bench) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let [first, others @ ..] = benches else { return Ok(()) };
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> =
            others.iter_mut().map(|bench| scope.spawn(move || work(bench))).collect();
        let first = work(first);
        let joined = others.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        first.and(joined.collect())
    })
}

/// The machine a model runs on, with as many threads.
struct Machine<'a> {
    engine: &'a Engine,
    pool: Pool,
}

impl Machine<'_> {
    fn new(engine: &Engine) -> Result<Machine<'_>> {
        let threads = NonZeroUsize::new(engine.threads()).unwrap_or(NonZeroUsize::MIN);
        let pool = Pool::new(threads).context("no threads to measure the machine with")?;
        Ok(Machine { engine, pool })
    }

    fn measure(&self) -> Result<Limits, Error> {
        let manager = self.engine.manager();
        Ok(Limits {
            bandwidth: limits::read_rates(manager, &self.pool, limits::STREAMED, READS)?,
            peak: limits::peak_rates(manager, &self.pool, PEAKS)?,
        })
    }
}

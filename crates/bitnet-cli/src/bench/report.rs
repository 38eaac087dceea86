//! What `bitnet bench` found, as a table, as CSV or as JSON.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Result;
use bitnet_inference::{CHUNK, Engine};
use bitnet_kernels::limits::median;
use serde::Serialize;

use crate::output::print;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table in Markdown.
    Md,
    /// A line of values for each test.
    Csv,
    /// One array of objects.
    Json,
    /// An object for each test, one to a line.
    Jsonl,
}

/// What is measured: some tokens, after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// Tokens processed together.
    pub(crate) prompt: usize,
    /// Tokens run one by one after it.
    pub(crate) generate: usize,
    /// Tokens in the context before.
    pub(crate) depth: usize,
}

impl Test {
    /// All tokens.
    pub(crate) fn tokens(&self) -> usize {
        [self.prompt, self.generate].iter().fold(self.depth, |sum, n| sum.saturating_add(*n))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prompt, self.generate) {
            (prompt, 0) => write!(f, "pp{prompt}")?,
            (0, generate) => write!(f, "tg{generate}")?,
            (prompt, generate) => write!(f, "pp{prompt}+tg{generate}")?,
        }
        match self.depth {
            0 => Ok(()),
            depth => write!(f, " @ d{depth}"),
        }
    }
}

/// What the machine did at best around a test, in several rounds.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Reads of memory, GB/s.
    pub(crate) bandwidth: Vec<f64>,
    /// 8-bit multiply-adds, 10^9 a second.
    pub(crate) peak: Vec<f64>,
}

impl Limits {
    /// Both together.
    pub(crate) fn and(mut self, after: Limits) -> Limits {
        self.bandwidth.extend(after.bandwidth);
        self.peak.extend(after.peak);
        self
    }
}

/// The result of a test. Its fields are those of the JSON; speeds are in tokens per second.
#[derive(Debug, Serialize)]
pub(crate) struct Speed {
    model_filename: String,
    model_type: String,
    /// Bytes of all tensors.
    model_size: u64,
    model_n_params: u64,
    /// Ternary multiply-adds for a token.
    model_n_products: u64,
    backend: String,
    /// Of the ternary weights in memory.
    layout: String,
    /// Format of keys and values.
    cache_type: String,
    n_threads: usize,
    /// Tokens of a prompt that are processed at a time.
    n_batch: usize,
    test: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    avg_ts: f64,
    stddev_ts: f64,
    median_ts: f64,
    samples_ts: Vec<f64>,
    samples_ns: Vec<u64>,
    /// Median read bandwidth of the machine, GB/s.
    bandwidth: Option<f64>,
    /// Median 8-bit multiply-adds of the machine, 10^9 a second.
    peak: Option<f64>,
    /// Of generation: the median speed for each GB/s of bandwidth.
    ts_per_gbs: Option<f64>,
    /// Of prompts: the share of the peak that the ternary multiply-adds make up.
    share_of_peak: Option<f64>,
}

impl Speed {
    pub(crate) fn new(
        engine: &Engine,
        model_filename: String,
        test: Test,
        (times, limits): (&[Duration], Option<Limits>),
    ) -> Speed {
        let tokens = (test.prompt + test.generate) as f64;
        let samples: Vec<f64> = times.iter().map(|time| tokens / time.as_secs_f64()).collect();
        let (average, deviation) = mean(&samples);
        let middle = median(&samples);
        let bandwidth = limits.as_ref().map(|limits| median(&limits.bandwidth));
        let peak = limits.as_ref().map(|limits| median(&limits.peak));
        let products = engine.ternary_products();
        let formats = engine.weight_formats().join("+");
        let best = engine.cpu().isas().last();
        Speed {
            model_filename,
            model_type: format!("{} {formats}", engine.config().architecture),
            model_size: engine.size(),
            model_n_params: engine.checkpoint().parameters(),
            model_n_products: products,
            backend: format!("CPU {}", best.map_or("", |isa| isa.name())),
            layout: engine.layouts().join("+"),
            cache_type: engine.kv().to_string(),
            n_threads: engine.threads(),
            n_batch: CHUNK,
            test: test.to_string(),
            n_prompt: test.prompt,
            n_gen: test.generate,
            n_depth: test.depth,
            avg_ts: average,
            stddev_ts: deviation,
            median_ts: middle,
            samples_ts: samples,
            samples_ns: times.iter().map(|time| time.as_nanos() as u64).collect(),
            bandwidth,
            peak,
            ts_per_gbs: bandwidth.filter(|_| test.prompt == 0).map(|bandwidth| middle / bandwidth),
            share_of_peak: peak
                .filter(|_| test.generate == 0)
                .map(|peak| products as f64 * middle / (peak * 1e9)),
        }
    }

    /// The columns of a table. The last four are those of the roofline.
    fn cells(&self) -> [String; 13] {
        let or_nothing = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let params = self.model_n_params as f64;
        [
            self.model_type.clone(),
            format!("{:.2} GiB", self.model_size as f64 / f64::from(1 << 30)),
            if params < 1e9 {
                format!("{:.2} M", params / 1e6)
            } else {
                format!("{:.2} B", params / 1e9)
            },
            self.backend.clone(),
            self.layout.clone(),
            self.cache_type.clone(),
            self.n_threads.to_string(),
            self.test.clone(),
            format!("{:.2} ± {:.2}", self.avg_ts, self.stddev_ts),
            or_nothing(self.bandwidth, 1),
            or_nothing(self.peak, 0),
            or_nothing(self.ts_per_gbs, 3),
            or_nothing(self.share_of_peak.map(|share| 100.0 * share), 1),
        ]
    }
}

/// The columns of [`Speed::cells`].
const COLUMNS: [&str; 13] = [
    "model",
    "size",
    "params",
    "backend",
    "layout",
    "cache",
    "threads",
    "test",
    "t/s",
    "GB/s",
    "GMAC/s",
    "t/s per GB/s",
    "% of peak",
];
/// Those of the table without a roofline.
const PLAIN: usize = 9;
/// Those that are text.
const TEXT: [&str; 5] = ["model", "backend", "layout", "cache", "test"];

/// The fields of [`Speed`] in CSV: all but the lists.
const FIELDS: [&str; 21] = [
    "model_filename",
    "model_type",
    "model_size",
    "model_n_params",
    "model_n_products",
    "backend",
    "layout",
    "cache_type",
    "n_threads",
    "n_batch",
    "test",
    "n_prompt",
    "n_gen",
    "n_depth",
    "avg_ts",
    "stddev_ts",
    "median_ts",
    "bandwidth",
    "peak",
    "ts_per_gbs",
    "share_of_peak",
];

/// Prints results as they come.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    /// Columns of the table.
    columns: usize,
    /// Results printed so far.
    count: usize,
}

impl Report {
    pub(crate) fn new(format: Format, roofline: bool) -> Report {
        Report { format, columns: if roofline { COLUMNS.len() } else { PLAIN }, count: 0 }
    }

    /// Prints a result. False if nobody reads any more.
    pub(crate) fn add(&mut self, speed: &Speed) -> Result<bool> {
        let first = self.count == 0;
        self.count += 1;
        let head = match self.format {
            Format::Md if first => self.table_head(),
            Format::Csv if first => csv(FIELDS.iter().copied()),
            Format::Json if first => "[\n".to_owned(),
            Format::Json => ",\n".to_owned(),
            _ => String::new(),
        };
        let body = match self.format {
            Format::Md => row(&speed.cells()[..self.columns]),
            Format::Csv => {
                let object = serde_json::to_value(speed)?;
                let text = |field| match &object[field] {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                csv(FIELDS.map(text).iter().map(String::as_str))
            }
            Format::Json => serde_json::to_string_pretty(speed)?,
            Format::Jsonl => serde_json::to_string(speed)? + "\n",
        };
        print(&mut io::stdout(), &(head + &body))
    }

    /// Ends the output.
    pub(crate) fn end(&self) -> Result<bool> {
        match self.format {
            Format::Json => print(&mut io::stdout(), "\n]\n"),
            _ => Ok(true),
        }
    }

    fn table_head(&self) -> String {
        let names = &COLUMNS[..self.columns];
        let rule = |name| if TEXT.contains(name) { "---" } else { "---:" };
        row(names) + &row(&names.iter().map(rule).collect::<Vec<_>>())
    }
}

fn row<S: AsRef<str>>(cells: &[S]) -> String {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// A line of quoted values.
fn csv<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = values.map(|v| format!("\"{}\"", v.replace('"', "\"\""))).collect();
    quoted.join(",") + "\n"
}

/// The mean and the standard deviation of a sample.
fn mean(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares = samples.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    (mean, if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_the_names_of_llama_bench() {
        let name = |prompt, generate, depth| Test { prompt, generate, depth }.to_string();
        assert_eq!(name(512, 0, 0), "pp512");
        assert_eq!(name(0, 128, 0), "tg128");
        assert_eq!(name(512, 0, 1024), "pp512 @ d1024");
        assert_eq!(name(16, 4, 0), "pp16+tg4");
    }

    #[test]
    fn statistics() {
        assert_eq!(mean(&[2.0, 4.0, 6.0]), (4.0, 2.0));
        assert_eq!(mean(&[3.0]), (3.0, 0.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn quotes_in_csv_are_doubled() {
        assert_eq!(csv(["a", "b\"c", ""].into_iter()), "\"a\",\"b\"\"c\",\"\"\n");
    }
}

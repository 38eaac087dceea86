//! What `bitnet bench` found, as a table, as CSV or as JSON.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use bitnet_inference::Engine;
use bitnet_kernels::limits::median;
use serde::Serialize;
use serde_json::Value;

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
    /// A table for a database, and a row for each test.
    Sql,
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
    /// Sequences of so many tokens, at the same time.
    pub(crate) parallel: usize,
    /// Tokens of the prompt that are handed over at a time.
    pub(crate) batch: usize,
    /// Tokens of a forward pass at most.
    pub(crate) ubatch: usize,
}

impl Test {
    /// All tokens of a sequence.
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
        if self.parallel > 1 {
            write!(f, " x{}", self.parallel)?;
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
    /// Tokens of a prompt that are handed over at a time, and those of a forward pass.
    n_batch: usize,
    n_ubatch: usize,
    test: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    /// Sequences at the same time, each of so many tokens; speeds count those of all.
    n_parallel: usize,
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
        // Each device has sequences of its own.
        let tokens =
            (engine.devices().len() * test.parallel * (test.prompt + test.generate)) as f64;
        let samples: Vec<f64> = times.iter().map(|time| tokens / time.as_secs_f64()).collect();
        let (average, deviation) = mean(&samples);
        let middle = median(&samples);
        let bandwidth = limits.as_ref().map(|limits| median(&limits.bandwidth));
        let peak = limits.as_ref().map(|limits| median(&limits.peak));
        let products = engine.ternary_products();
        let formats = engine.weight_formats().join("+");
        let names: Vec<_> = engine.gpus().into_iter().map(|gpu| gpu.name).collect();
        let backend = match names.is_empty() {
            false => format!("CUDA {}", names.join(" + ")),
            true => format!("CPU {}", engine.cpu().isas().last().map_or("", |isa| isa.name())),
        };
        Speed {
            model_filename,
            model_type: format!("{} {formats}", engine.config().architecture),
            model_size: engine.size(),
            model_n_params: engine.checkpoint().parameters(),
            model_n_products: products,
            backend,
            layout: engine.layouts().join("+"),
            cache_type: engine.kv().to_string(),
            n_threads: engine.threads(),
            n_batch: test.batch,
            n_ubatch: test.ubatch,
            test: test.to_string(),
            n_prompt: test.prompt,
            n_gen: test.generate,
            n_depth: test.depth,
            n_parallel: test.parallel,
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

    /// The columns of a table.
    fn cells(&self) -> [String; COLUMNS.len()] {
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
            self.n_ubatch.to_string(),
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
const COLUMNS: [&str; 14] = [
    "model",
    "size",
    "params",
    "backend",
    "layout",
    "cache",
    "threads",
    "n_ubatch",
    "test",
    "t/s",
    "GB/s",
    "GMAC/s",
    "t/s per GB/s",
    "% of peak",
];
/// The one that is shown if it was asked for.
const UBATCH: usize = 7;
/// The first of the roofline.
const ROOFLINE: usize = 10;
/// Those that are text.
const TEXT: [&str; 5] = ["model", "backend", "layout", "cache", "test"];

/// The fields of [`Speed`] in CSV and SQL: all but the lists.
const FIELDS: [&str; 23] = [
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
    "n_ubatch",
    "test",
    "n_prompt",
    "n_gen",
    "n_depth",
    "n_parallel",
    "avg_ts",
    "stddev_ts",
    "median_ts",
    "bandwidth",
    "peak",
    "ts_per_gbs",
    "share_of_peak",
];

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// What was asked for.
    Stdout,
    /// Beside it. That nobody reads there is no failure.
    Stderr,
}

/// Prints results as they come.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    to: To,
    /// Columns of the table, as indices.
    columns: Vec<usize>,
    /// Results printed so far.
    count: usize,
}

impl Report {
    /// With the column of rows in a forward pass, and those of the roofline, or without.
    pub(crate) fn new(format: Format, to: To, (ubatch, roofline): (bool, bool)) -> Report {
        let shown = |index: &usize| match *index {
            UBATCH => ubatch,
            index => roofline || index < ROOFLINE,
        };
        Report { format, to, columns: (0..COLUMNS.len()).filter(shown).collect(), count: 0 }
    }

    /// Prints a result. False if nobody reads any more.
    pub(crate) fn add(&mut self, speed: &Speed) -> Result<bool> {
        let first = self.count == 0;
        self.count += 1;
        let object = serde_json::to_value(speed)?;
        let fields = FIELDS.map(|field| &object[field]);
        let head = match self.format {
            Format::Md if first => self.table_head(),
            Format::Csv if first => csv(FIELDS.iter().copied()),
            Format::Sql if first => sql_table(&fields),
            Format::Json if first => "[\n".to_owned(),
            Format::Json => ",\n".to_owned(),
            _ => String::new(),
        };
        let body = match self.format {
            Format::Md => self.row(&speed.cells()),
            Format::Csv => csv(fields.map(text).iter().map(String::as_str)),
            Format::Json => serde_json::to_string_pretty(speed)?,
            Format::Jsonl => serde_json::to_string(speed)? + "\n",
            Format::Sql => sql_row(&fields),
        };
        self.print(&(head + &body))
    }

    /// Ends the output.
    pub(crate) fn end(&self) -> Result<bool> {
        match self.format {
            Format::Json => self.print("\n]\n"),
            _ => Ok(true),
        }
    }

    fn print(&self, text: &str) -> Result<bool> {
        match self.to {
            To::Stdout => print(&mut io::stdout(), text),
            To::Stderr => {
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(true)
            }
        }
    }

    fn table_head(&self) -> String {
        let rule = |name| if TEXT.contains(&name) { "---" } else { "---:" };
        self.row(&COLUMNS) + &self.row(&COLUMNS.map(rule))
    }

    /// A line of the table.
    fn row<S: AsRef<str>>(&self, cells: &[S]) -> String {
        let cells: Vec<_> = self.columns.iter().map(|&index| cells[index].as_ref()).collect();
        format!("| {} |\n", cells.join(" | "))
    }
}

/// A value without quotes; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// The table for rows of such values.
fn sql_table(values: &[&Value]) -> String {
    let column = |(name, value): (&&str, &&Value)| {
        let kind = match value {
            Value::String(_) => "TEXT",
            value if value.is_u64() => "INTEGER",
            _ => "REAL",
        };
        format!("  {name} {kind}")
    };
    let columns: Vec<_> = FIELDS.iter().zip(values).map(column).collect();
    format!("CREATE TABLE IF NOT EXISTS bitnet_bench (\n{}\n);\n\n", columns.join(",\n"))
}

/// A row of that table.
fn sql_row(values: &[&Value]) -> String {
    let value = |value: &&Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        value => value.to_string(),
    };
    let values: Vec<_> = values.iter().map(value).collect();
    format!("INSERT INTO bitnet_bench ({}) VALUES ({});\n", FIELDS.join(", "), values.join(", "))
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
        let name = |prompt, generate, depth| {
            Test { prompt, generate, depth, batch: 1, ubatch: 1, parallel: 1 }.to_string()
        };
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
    fn quotes_are_doubled() {
        assert_eq!(csv(["a", "b\"c", ""].into_iter()), "\"a\",\"b\"\"c\",\"\"\n");
        let values = ["it's".into(), 7.into(), 0.5.into(), Value::Null];
        let row = sql_row(&values.iter().collect::<Vec<_>>());
        assert!(row.ends_with(") VALUES ('it''s', 7, 0.5, NULL);\n"), "{row}");
        let table = sql_table(&values.iter().collect::<Vec<_>>());
        assert!(table.contains("(\n  model_filename TEXT,\n  model_type INTEGER,\n"), "{table}");
        assert!(table.contains("model_size REAL,\n  model_n_params REAL\n);"), "{table}");
    }
}

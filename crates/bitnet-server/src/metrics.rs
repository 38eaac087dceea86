//! Figures for those who watch the server: the classic text format of Prometheus, all families from the
//! start. Reading them takes no lock that the engine needs.

use std::fmt::{Display, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitnet_inference::{DeviceStatus, Usage};

use crate::devices::{self, Device};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper ends of the buckets of times, in seconds; the last bucket has no end.
const LONG: [f64; 20] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0,
];
/// The same for what comes with each token.
const SHORT: [f64; 20] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0, 10.0,
];

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug)]
pub(crate) struct Histogram {
    ends: &'static [f64; 20],
    buckets: [AtomicU64; 21],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn new(ends: &'static [f64; 20]) -> Histogram {
        Histogram { ends, buckets: Default::default(), nanoseconds: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, time: Duration) {
        let bucket = self.ends.partition_point(|&end| end < time.as_secs_f64());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) running: Counter,
    pub(crate) waiting: Counter,
    /// Of each device, once the model is loaded.
    devices: OnceLock<Vec<Device>>,
    pub(crate) prompt_tokens: Counter,
    pub(crate) generated_tokens: Counter,
    /// Tokens of prompts that were looked for in the prefix cache, and found.
    pub(crate) prefix_queries: Counter,
    pub(crate) prefix_hits: Counter,
    pub(crate) preemptions: Counter,
    pub(crate) drafted: Counter,
    pub(crate) accepted: Counter,
    /// Requests that ended, by [`ENDS`].
    ends: [Counter; ENDS.len()],
    /// Responses, by the first digit of their status less one.
    responses: [Counter; 5],
    first_token: Histogram,
    pub(crate) between_tokens: Histogram,
    request: Histogram,
    queued: Histogram,
    prefill: Histogram,
    decode: Histogram,
}

/// How requests end.
const ENDS: [&str; 4] = ["stop", "length", "cancelled", "error"];

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            running: Counter::default(),
            waiting: Counter::default(),
            devices: OnceLock::new(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            preemptions: Counter::default(),
            drafted: Counter::default(),
            accepted: Counter::default(),
            ends: Default::default(),
            responses: Default::default(),
            first_token: Histogram::new(&LONG),
            between_tokens: Histogram::new(&SHORT),
            request: Histogram::new(&LONG),
            queued: Histogram::new(&LONG),
            prefill: Histogram::new(&LONG),
            decode: Histogram::new(&LONG),
        }
    }
}

impl Metrics {
    /// Takes the devices of the model.
    pub(crate) fn set_devices(&self, found: &[DeviceStatus]) {
        // It is the only one.
        let _ = self.devices.set(found.iter().map(Device::new).collect());
    }

    /// Takes what is so now with each device.
    pub(crate) fn publish(&self, found: &[DeviceStatus]) {
        self.devices().iter().zip(found).for_each(|(device, status)| device.set(status));
    }

    /// The devices, once the model is loaded.
    pub(crate) fn devices(&self) -> &[Device] {
        self.devices.get().map_or(&[], Vec::as_slice)
    }

    /// The devices begin something.
    pub(crate) fn beat(&self) {
        self.devices().iter().for_each(|device| device.pulse.beat());
    }

    /// Seconds that a device has been busy with the same thing, at most.
    pub(crate) fn busy(&self) -> f64 {
        self.devices().iter().map(|device| device.pulse.busy()).fold(0.0, f64::max)
    }

    /// Counts the end of a request, of one of [`ENDS`].
    pub(crate) fn ended(&self, how: &str, usage: Option<&Usage>, all: Duration) {
        if let Some(at) = ENDS.iter().position(|end| *end == how) {
            self.ends[at].add(1);
        }
        self.request.add(all);
        let Some(usage) = usage else { return };
        let times = usage.timings;
        self.prompt_tokens.add(usage.prompt);
        self.prefix_queries.add(usage.prompt);
        self.prefix_hits.add(usage.cached);
        self.preemptions.add(usage.preempted);
        self.drafted.add(usage.drafted);
        self.accepted.add(usage.accepted);
        self.queued.add(times.queued);
        self.prefill.add(times.prompt);
        self.decode.add(times.decode);
        if usage.generated > 0 {
            self.first_token.add(times.queued + times.first_token);
        }
    }

    /// Counts a response.
    pub(crate) fn responded(&self, status: u16) {
        if let Some(counter) = self.responses.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.add(1);
        }
    }

    /// All of them as text, of a model; under the names of vLLM as well, if those are wanted.
    pub(crate) fn text(&self, model: &str, vllm: bool) -> String {
        let label = format!("model_name=\"{}\"", escaped(model));
        let mut page = Page { label, out: String::with_capacity(16 << 10), vllm };
        self.gauges(&mut page);
        devices::families(&mut page, self.devices());
        self.counters(&mut page);
        self.histograms(&mut page);
        page.out
    }

    fn gauges(&self, page: &mut Page) {
        let blocks = self.devices().iter().map(Device::blocks);
        let (used, all) = blocks.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let ratio = if all == 0 { 0.0 } else { used as f64 / all as f64 };
        page.one(
            ("requests_running", "num_requests_running"),
            "gauge",
            "Requests that are being generated.",
            self.running.get(),
        );
        page.one(
            ("requests_waiting", "num_requests_waiting"),
            "gauge",
            "Requests that wait for their turn.",
            self.waiting.get(),
        );
        page.one(
            ("kv_cache_usage_ratio", "kv_cache_usage_perc"),
            "gauge",
            "Share of the blocks of keys and values in use, from 0 to 1.",
            ratio,
        );
        let help = "How keys and values are kept.";
        let names = ("cache_config_info", Some("cache_config_info"));
        page.family(names, "gauge", help, |page, name| {
            page.line(name, &format!("block_size=\"16\",num_gpu_blocks=\"{all}\""), 1);
        });
        if page.vllm {
            // Routers that read vLLM's figures look for it with each of them.
            let name = "vllm:lora_requests_info";
            page.head(name, "gauge", "Adapters: there are none.");
            let labels = "max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"";
            page.line(name, labels, 0);
        }
    }

    fn counters(&self, page: &mut Page) {
        // Ours, vLLM's, and what it is.
        let all = [
            ("prompt_tokens", "prompt_tokens", &self.prompt_tokens, "Tokens of prompts."),
            ("generation_tokens", "generation_tokens", &self.generated_tokens, "Tokens generated."),
            (
                "prefix_cache_queries",
                "prefix_cache_queries",
                &self.prefix_queries,
                "Tokens looked for in the prefix cache.",
            ),
            (
                "prefix_cache_hits",
                "prefix_cache_hits",
                &self.prefix_hits,
                "Tokens found in the prefix cache.",
            ),
            (
                "preemptions",
                "num_preemptions",
                &self.preemptions,
                "How often a request had to give way to others.",
            ),
            (
                "drafted_tokens",
                "spec_decode_num_draft_tokens",
                &self.drafted,
                "Tokens that were guessed.",
            ),
            (
                "accepted_tokens",
                "spec_decode_num_accepted_tokens",
                &self.accepted,
                "Tokens that were guessed right.",
            ),
        ];
        for (ours, theirs, counter, help) in all {
            let names = (&*format!("{ours}_total"), &*format!("{theirs}_total"));
            page.one(names, "counter", help, counter.get());
        }
        let names = ("requests_total", Some("request_success_total"));
        page.family(names, "counter", "Requests that ended, by why.", |page, name| {
            for (end, counter) in ENDS.iter().zip(&self.ends) {
                let end = match *end {
                    "cancelled" if name.starts_with("vllm") => "abort",
                    end => end,
                };
                page.line(name, &format!("finished_reason=\"{end}\""), counter.get());
            }
        });
        let names = ("http_responses_total", None);
        page.family(names, "counter", "Responses, by class of status.", |page, name| {
            for (class, counter) in (1..).zip(&self.responses) {
                page.line(name, &format!("status=\"{class}xx\""), counter.get());
            }
        });
    }

    fn histograms(&self, page: &mut Page) {
        let all = [
            (
                "time_to_first_token_seconds",
                &self.first_token,
                "From a request to its first token.",
            ),
            ("inter_token_latency_seconds", &self.between_tokens, "From a token to the next."),
            ("e2e_request_latency_seconds", &self.request, "From a request to its end."),
            (
                "request_queue_time_seconds",
                &self.queued,
                "From a request to its first forward pass.",
            ),
            ("request_prefill_time_seconds", &self.prefill, "Forward passes of prompts."),
            ("request_decode_time_seconds", &self.decode, "From the first token to the last."),
        ];
        for (name, histogram, help) in all {
            page.family((name, Some(name)), "histogram", help, |page, name| {
                let mut count = 0;
                for (i, bucket) in histogram.buckets.iter().enumerate() {
                    count += bucket.load(Ordering::Relaxed);
                    let end = histogram.ends.get(i).map_or("+Inf".to_owned(), f64::to_string);
                    page.line(&format!("{name}_bucket"), &format!("le=\"{end}\""), count);
                }
                let seconds = histogram.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
                page.line(&format!("{name}_sum"), "", seconds);
                page.line(&format!("{name}_count"), "", count);
            });
        }
    }
}

/// A text in the making.
pub(crate) struct Page {
    label: String,
    out: String,
    vllm: bool,
}

impl Page {
    /// A family of one figure.
    fn one(&mut self, names: (&str, &str), kind: &str, help: &str, value: impl Display) {
        let names = (names.0, Some(names.1));
        self.family(names, kind, help, |page, name| page.line(name, "", &value));
    }

    /// A family, by its name and by that which vLLM has for it.
    pub(crate) fn family(
        &mut self,
        (ours, theirs): (&str, Option<&str>),
        kind: &str,
        help: &str,
        lines: impl Fn(&mut Page, &str),
    ) {
        let theirs = theirs.filter(|_| self.vllm).map(|name| format!("vllm:{name}"));
        for name in [Some(format!("bitnet_{ours}")), theirs].into_iter().flatten() {
            self.head(&name, kind, help);
            lines(self, &name);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(self.out, "{name}{{{}{comma}{labels}}} {value}", self.label);
    }
}

/// A value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

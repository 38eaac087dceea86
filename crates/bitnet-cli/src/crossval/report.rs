//! What was compared, for people.

use std::fmt::Write;

use bitnet_ffi::LibraryInfo;
use bitnet_ffi::compare::{PerformanceComparison, Verdict};
use bitnet_ffi::parity::{Parity, Test};
use serde::Serialize;

use super::Report;
use super::engines::{Found, OtherToken};

/// A line of the table.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// A format, or the model.
    pub(super) what: String,
    pub(super) theirs: String,
    pub(super) ours: String,
    pub(super) agreement: String,
    pub(super) holds: bool,
    /// Theirs and ours.
    pub(super) nanoseconds: Option<[u64; 2]>,
}

impl Line {
    pub(super) fn of_kernel(found: &Parity) -> Line {
        let test = match found.test {
            Test::Read => "read",
            Test::Write => "written",
            Test::Product => "product",
        };
        let agreement = match found.errors {
            Some([theirs, ours]) => format!("error {} theirs, {} ours", share(theirs), share(ours)),
            None if found.different == 0 => format!("{} the same", found.compared),
            None => format!("{} of {} different", found.different, found.compared),
        };
        Line {
            what: format!("{} {test}", found.format),
            theirs: found.theirs.clone(),
            ours: found.ours.clone(),
            agreement,
            holds: found.holds(),
            nanoseconds: found.nanoseconds,
        }
    }
}

impl Found {
    pub(super) fn lines(&self) -> Vec<Line> {
        let texts = self.texts.len();
        let other = self.texts.iter().filter(|text| text.other_token.is_some()).count();
        let a = &self.agreement;
        let [ours, theirs] = a.perplexities();
        let line =
            |what: &str, theirs: String, ours: String, agreement: String, holds: bool, times| {
                Line { what: what.to_owned(), theirs, ours, agreement, holds, nanoseconds: times }
            };
        let times = |found: &PerformanceComparison| Some([found.cpp_time_ns, found.rust_time_ns]);
        let tokens: usize = self.texts.iter().map(|text| text.tokens).sum();
        let holds = self.verdict > Verdict::Different;
        let greedy = format!("{} of {} tokens the same", self.greedy[0], self.greedy[1]);
        let mut lines = vec![
            line(
                "tokens",
                format!("{texts} texts"),
                format!("{tokens} tokens"),
                format!("{} of {texts} texts the same", texts - other),
                other == 0,
                None,
            ),
            line(
                "logits",
                format!("perplexity {theirs:.4}"),
                format!("perplexity {ours:.4}"),
                format!(
                    "{} of {} likeliest the same, mean KL {:.2e}, max difference {:.2e}",
                    a.same_top, a.positions, a.mean_kl, a.max_difference
                ),
                holds,
                times(&self.prompt),
            ),
        ];
        let count = self.tokens[1];
        if count > 0 {
            let tokens = || format!("{count} tokens");
            let times = times(&self.generation);
            lines.push(line("generation", tokens(), tokens(), greedy, holds, times));
        }
        lines
    }
}

/// A share, in words.
fn share(share: f64) -> String {
    match share {
        0.0 => "0".to_owned(),
        share if share < 1e-4 => format!("{share:.0e}"),
        share => format!("{:.2} %", share * 100.0),
    }
}

/// A library, in a line.
pub(super) fn library(info: &LibraryInfo) -> String {
    let versions: Vec<_> =
        info.versions.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut text = format!("{} ({}", info.path, info.contract.name());
    if !versions.is_empty() {
        let _ = write!(text, "; {}", versions.join(", "));
    }
    if !info.layouts.is_empty() {
        let _ = write!(text, "; structures as of {}", info.layouts.join(" and "));
    }
    text + ")"
}

/// Nanoseconds, for people.
fn time(nanoseconds: u64) -> String {
    match nanoseconds as f64 {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

impl Report {
    /// Whether nothing differs but for how numbers are rounded.
    pub(crate) fn holds(&self) -> bool {
        self.verdict != Verdict::Different
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let head =
            ["", "theirs", "ours", "agreement", "their time", "our time", ""].map(str::to_owned);
        let rows = self.table.iter().map(|line| {
            let [theirs, ours] =
                line.nanoseconds.map_or(["".to_owned(), "".to_owned()], |times| times.map(time));
            let ratio = line.nanoseconds.map(|[theirs, ours]| theirs as f64 / ours.max(1) as f64);
            [
                line.what.clone(),
                line.theirs.clone(),
                line.ours.clone(),
                format!("{}{}", line.agreement, if line.holds { "" } else { " (!)" }),
                theirs,
                ours,
                ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x")),
            ]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let widths: [usize; 7] = std::array::from_fn(|i| {
            rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)
        });
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if let Some(found) = &self.model {
            let _ = writeln!(text, "\nmodel: {}", found.described);
            let others = found.texts.iter().map(|text| text.other_token).enumerate();
            for (index, OtherToken { at, ours, theirs }) in
                others.filter_map(|(i, o)| Some((i, o?)))
            {
                let name = |token: Option<u32>| {
                    token.map_or("nothing".to_owned(), |token| token.to_string())
                };
                let _ = writeln!(
                    text,
                    "text {index}: token {at} is {} for the library and {} here",
                    name(theirs),
                    name(ours)
                );
            }
            if let Some(first) = &found.divergence {
                let _ = writeln!(
                    text,
                    "first other prediction: text {}, position {}: token {} for the library, {} here",
                    first.text, first.position, first.likeliest[1], first.likeliest[0]
                );
                let layers: Vec<_> =
                    first.layers.iter().map(|&difference| share(difference)).collect();
                if !layers.is_empty() {
                    let _ =
                        writeln!(text, "difference behind each layer there: {}", layers.join(", "));
                }
            }
            let measured = [("prompts", &found.prompt), ("generation", &found.generation)];
            for (what, times) in measured.into_iter().filter(|(_, times)| times.rust_time_ns > 0) {
                let improvement = times.performance_improvement() * 100.0;
                let advice =
                    if times.migration_recommended() { "recommended" } else { "not recommended" };
                let _ = writeln!(
                    text,
                    "{what}: {improvement:+.0} % of the library's time saved, migration {advice}"
                );
            }
        }
        let failed: Vec<_> =
            self.table.iter().filter(|line| !line.holds).map(|line| line.what.as_str()).collect();
        let failed =
            if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
        if let Some(error) = &self.error {
            let _ = writeln!(text, "no model was compared: {error}");
        }
        let verdict = match (self.verdict, &self.model) {
            (Verdict::Same, None) => "formats and kernels compute what they must",
            (verdict, _) => verdict.text(),
        };
        let _ = writeln!(text, "verdict: {verdict}{failed}");
        text
    }
}

//! Embeddings on stdout, as llama-embedding prints them.

use std::fmt::Write;
use std::io;

use anyhow::Result;
use serde::Serialize;

use crate::exit::End;
use crate::output;

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line for each text; of several the first 16 numbers, and how similar they are.
    #[default]
    Default,
    /// An array of arrays.
    Array,
    /// One JSON object, as servers with the API of OpenAI give it.
    Json,
    /// The same, with the cosine of each with each.
    #[value(name = "json+")]
    JsonPlus,
    /// A line of numbers for each text.
    Raw,
}

/// Embeddings to be printed.
#[derive(Debug, Default)]
pub(crate) struct Embeddings {
    pub(crate) model: String,
    pub(crate) texts: Vec<String>,
    /// An embedding for each.
    pub(crate) rows: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub(crate) tokens: usize,
    /// The norm they are scaled by; 0 has whole numbers.
    pub(crate) p: i32,
}

#[derive(Debug, Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry>,
    model: &'a str,
    usage: Usage,
    #[serde(rename = "cosineSimilarity", skip_serializing_if = "Option::is_none")]
    cosines: Option<Vec<Vec<f32>>>,
}

#[derive(Debug, Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Embeddings {
    pub(crate) fn print(mut self, format: Format) -> Result<End> {
        if self.p == 0 {
            self.rows.iter_mut().flatten().for_each(|x| *x = x.round());
        }
        let text = match format {
            Format::Default => output::plain(&self.lines()),
            Format::Raw => {
                let line = |row: &Vec<f32>| self.numbers(row, 7, 0, " ") + "\n";
                self.rows.iter().map(line).collect()
            }
            Format::Array => serde_json::to_string(&self.rows)? + "\n",
            Format::Json => self.json(false)? + "\n",
            Format::JsonPlus => self.json(true)? + "\n",
        };
        output::print(&mut io::stdout(), &text)?;
        Ok(End::Done)
    }

    fn json(self, plus: bool) -> Result<String> {
        let cosines = plus.then(|| self.cosines());
        let entry =
            |(index, embedding): (usize, Vec<f32>)| Entry { object: "embedding", index, embedding };
        Ok(serde_json::to_string(&List {
            object: "list",
            data: self.rows.into_iter().enumerate().map(entry).collect(),
            model: &self.model,
            usage: Usage { prompt_tokens: self.tokens, total_tokens: self.tokens },
            cosines,
        })?)
    }

    /// For people.
    fn lines(&self) -> String {
        /// Numbers of each, if there are several.
        const SHOWN: usize = 16;
        let several = self.rows.len() > 1;
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let shown = if several { row.len().min(SHOWN) } else { row.len() };
            let numbers = self.numbers(&row[..shown], 6, 9, " ");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "embedding {index}: {numbers}");
        }
        if several {
            text.push_str("\ncosine similarity matrix:\n\n");
            for (row, of) in self.cosines().iter().zip(&self.texts) {
                row.iter().for_each(|cosine| {
                    let _ = write!(text, "{cosine:>6.2} ");
                });
                let _ = writeln!(text, "{}", of.chars().take(10).collect::<String>());
            }
        }
        text
    }

    /// Numbers with so many digits behind the point, each so wide; whole ones without.
    fn numbers(&self, row: &[f32], digits: usize, width: usize, between: &str) -> String {
        let digits = if self.p == 0 { 0 } else { digits };
        let numbers: Vec<_> = row.iter().map(|x| format!("{x:>width$.digits$}")).collect();
        numbers.join(between)
    }

    /// The cosine of each with each.
    fn cosines(&self) -> Vec<Vec<f32>> {
        let length = |a: &[f32]| dot(a, a).sqrt();
        let cosine = |a: &Vec<f32>, b: &Vec<f32>| (dot(a, b) / (length(a) * length(b))) as f32;
        self.rows.iter().map(|a| self.rows.iter().map(|b| cosine(a, b)).collect()).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

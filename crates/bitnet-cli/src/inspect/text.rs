//! The report, for people.

use std::fmt::Write;

use super::values::short;
use super::{Matrix, Report, Settings};

/// Characters of the picture of a matrix.
const WIDTH: usize = 40;

impl Report {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, f: &mut String) -> std::fmt::Result {
        let size: u64 = self.files.iter().map(|(_, bytes)| bytes).sum();
        let files = match self.files.len() {
            1 => String::new(),
            n => format!("{n} files, "),
        };
        writeln!(
            f,
            "{}\n  {}, {files}{:.1} MB, {} parameters",
            self.name,
            self.container,
            size as f64 / 1e6,
            count(self.parameters)
        )?;
        writeln!(f, "  architecture {}", self.architecture.as_deref().unwrap_or("unknown"))?;
        if let Some(s) = &self.config {
            let Settings { layers, hidden, ffn, heads, kv_heads, head_size, .. } = s;
            writeln!(
                f,
                "  {layers} layers of width {hidden}, feed-forward {ffn} ({}), {heads} heads of \
                 {head_size}, {kv_heads} of keys and values, context {}",
                s.activation, s.context
            )?;
        }
        writeln!(f, "\ntypes")?;
        for of in &self.types {
            let bits = 8.0 * of.bytes as f64 / of.parameters.max(1) as f64;
            writeln!(
                f,
                "  {:<12} {:>5} tensors {:>9} parameters {:>9.1} MB {bits:>7.2} bits each",
                of.name,
                of.tensors,
                count(of.parameters),
                of.bytes as f64 / 1e6
            )?;
        }
        if !self.runs_on.is_empty() {
            writeln!(f, "\nwould run here on")?;
        }
        for on in &self.runs_on {
            writeln!(
                f,
                "  {:<12} in memory as {}: {} for a token, {} for a prompt",
                on.format, on.layout, on.gemv, on.gemm
            )?;
        }
        if !self.metadata.is_empty() {
            writeln!(f, "\nmetadata")?;
        }
        for (key, value) in &self.metadata {
            writeln!(f, "  {} = {}", key.escape_debug(), short(value))?;
        }
        self.write_tensors(f)?;
        self.write_ternary(f)?;
        if !self.warnings.is_empty() {
            writeln!(f, "\nwarnings")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        Ok(())
    }

    fn write_tensors(&self, f: &mut String) -> std::fmt::Result {
        let Some(tensors) = &self.tensors else { return Ok(()) };
        let width = tensors.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "\ntensors")?;
        for tensor in tensors {
            let dims: Vec<_> = tensor.dims.iter().rev().map(ToString::to_string).collect();
            let stored =
                tensor.stored.as_ref().map(|stored| format!(" ({})", stored.escape_debug()));
            writeln!(
                f,
                "  {:<width$} {:<10} {:>16} at {}{}",
                tensor.name.escape_debug().to_string(),
                tensor.kind.unwrap_or("unknown"),
                dims.join(" x "),
                tensor.offset,
                stored.unwrap_or_default()
            )?;
        }
        Ok(())
    }

    fn write_ternary(&self, f: &mut String) -> std::fmt::Result {
        let Some(matrices) = &self.ternary else { return Ok(()) };
        let width = matrices.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "\nternary matrices: sha256 {}\n  {:<width$} {:>13} {:>10}  {:<WIDTH$}  {:>6} {:>6} {:>6} \
             {:>8}",
            self.ternary_sha256.as_deref().unwrap_or_default(),
            "",
            "shape",
            "scale",
            "░ -1, · 0, █ 1",
            "-1",
            "0",
            "1",
            "entropy"
        )?;
        for matrix in matrices {
            let [minus, zero, plus] = matrix.shares.map(|share| 100.0 * share);
            write!(
                f,
                "  {:<width$} {:>13} {:>10.4e}  {}  {minus:>5.1}% {zero:>5.1}% {plus:>5.1}% {:>7.3} b",
                matrix.name.escape_debug().to_string(),
                format!("{} x {}", matrix.rows, matrix.cols),
                matrix.scale,
                picture(matrix),
                matrix.entropy
            )?;
            if matrix.zero_rows + matrix.duplicate_rows > 0 {
                let (zero, twice) = (matrix.zero_rows, matrix.duplicate_rows);
                write!(f, "  {zero} rows of zeros, {twice} duplicates")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The shares of -1, 0 and 1 as a bar.
fn picture(matrix: &Matrix) -> String {
    let [minus, zero, _] = matrix.shares;
    let end = |share: f64| (share * WIDTH as f64).round() as usize;
    let (minus, zero) = (end(minus), end(minus + zero));
    let mark = |at| match at {
        _ if at < minus => '░',
        _ if at < zero => '·',
        _ => '█',
    };
    (0..WIDTH).map(mark).collect()
}

/// A number of parameters in three digits.
fn count(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

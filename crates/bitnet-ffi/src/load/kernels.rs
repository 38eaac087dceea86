//! Functions of ggml for quantised rows.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Instant;

use bitnet_kernels::Format;

use super::{Libraries, int};

/// ggml's functions for quantised rows, with those for this processor.
#[derive(Debug)]
pub(crate) struct Kernels {
    libraries: Libraries,
}

/// Bytes of an activation row in any format: that of a number and more.
const ROOM: usize = 8;

type Dequantize = unsafe extern "C" fn(*const c_void, *mut f32, i64);
type Quantize = unsafe extern "C" fn(*const f32, *mut c_void, i64);
type QuantizeRows = unsafe extern "C" fn(*const f32, *mut c_void, i64, i64, *const f32) -> usize;
type Dot =
    unsafe extern "C" fn(c_int, *mut f32, usize, *const c_void, usize, *const c_void, usize, c_int);

impl Kernels {
    /// Opens a library, and that for this processor beside it.
    pub(crate) fn open(path: &Path) -> Result<Kernels, String> {
        let mut libraries = Libraries::open(path)?;
        if let Some(best) = best(&libraries.processors()) {
            libraries.add(&best)?;
        }
        // Tables of numbers of half precision are made when somebody begins; up to 2024 by libllama.
        for name in ["ggml_cpu_init", "llama_backend_init"] {
            // SAFETY: these take nothing and may be called more than once.
            unsafe {
                if let Ok(init) = libraries.get::<unsafe extern "C" fn()>(name) {
                    init();
                }
            }
        }
        Ok(Kernels { libraries })
    }

    /// The library with the functions for this processor, if it is one of its own.
    pub(crate) fn processor(&self) -> Option<&Path> {
        let mut paths = self.libraries.opened.iter().map(|(path, _)| path.as_path());
        paths.find(|path| path.to_string_lossy().contains("ggml-cpu"))
    }

    /// Which of these functions there are.
    pub(crate) fn has(&self, names: &[String]) -> Vec<bool> {
        names.iter().map(|name| self.libraries.has(name)).collect()
    }

    /// `dequantize_row_*`: so many numbers of rows.
    pub(crate) fn dequantize(
        &self,
        name: &str,
        data: &[u8],
        count: usize,
    ) -> Result<Vec<f32>, String> {
        let format = format("dequantize_row_", name)?;
        if data.len() != bytes_of(format, count)? {
            return Err(format!("{} bytes are not {count} numbers of {format}", data.len()));
        }
        let mut numbers = vec![0.0; count];
        // SAFETY: all functions of this name have this type; the bytes are those of so many numbers.
        unsafe {
            let dequantize: Dequantize = self.libraries.get(name)?;
            dequantize(data.as_ptr().cast(), numbers.as_mut_ptr(), count as i64);
        }
        Ok(numbers)
    }

    /// `quantize_*`: rows of numbers, as so many bytes.
    pub(crate) fn quantize(
        &self,
        name: &str,
        numbers: &[f32],
        (rows, bytes): (usize, usize),
    ) -> Result<Vec<u8>, String> {
        let format = format("quantize_", name)?;
        let cols = numbers.len() / rows.max(1);
        if rows * cols != numbers.len() || rows * bytes_of(format, cols)? != bytes {
            let count = numbers.len();
            return Err(format!(
                "{rows} rows of {count} numbers in {format} are not {bytes} bytes"
            ));
        }
        let mut data = vec![0_u8; bytes];
        // SAFETY: all functions of this name have this type; there is room for as many bytes as come of it.
        unsafe {
            let quantize: QuantizeRows = self.libraries.get(name)?;
            let (rows, cols) = (rows as i64, cols as i64);
            // Its tables are made when they are needed, which not every function does itself.
            self.prepare();
            let (from, to) = (numbers.as_ptr(), data.as_mut_ptr().cast());
            let written = quantize(from, to, rows, cols, ptr::null());
            if written != bytes {
                return Err(format!("`{name}` wrote {written} bytes, not {bytes}"));
            }
        }
        Ok(data)
    }

    /// Makes the tables of the formats that have some.
    fn prepare(&self) {
        /// `GGML_TYPE_IQ2_S`, the only one with tables here.
        const IQ2_S: c_int = 22;
        // SAFETY: it takes a type, and may be called more than once.
        unsafe {
            if let Ok(init) =
                self.libraries.get::<unsafe extern "C" fn(c_int)>("ggml_quantize_init")
            {
                init(IQ2_S);
            }
        }
    }

    /// The products of rows of weights with one row of numbers, which `activation` quantises, and the nanoseconds
    /// that the fastest of some rounds took for all rows.
    pub(crate) fn dot(
        &self,
        (name, activation): (&str, &str),
        (weights, rows): (&[u8], usize),
        numbers: &[f32],
        rounds: usize,
    ) -> Result<(u64, Vec<f32>), String> {
        let of = activation.strip_prefix("quantize_row_").and_then(|of| {
            let block = if of == "q8_K" { 256 } else { 32 };
            ["q8_K", "q8_0"].contains(&of).then_some((of, block))
        });
        let (of, block) = of.ok_or_else(|| format!("`{activation}` makes no activations"))?;
        let format = format("ggml_vec_dot_", name.trim_end_matches(of).trim_end_matches('_'))?;
        let stride = bytes_of(format, numbers.len())?;
        if rows * stride != weights.len() || !numbers.len().is_multiple_of(block) {
            let (len, cols) = (weights.len(), numbers.len());
            return Err(format!("{len} bytes are not {rows} rows of {cols} numbers in {format}"));
        }
        let cols = int(numbers.len())?;
        let mut quantized = vec![0_u8; numbers.len() * ROOM];
        let mut products = vec![0.0; rows];
        let mut best = u64::MAX;
        // SAFETY: all functions of these names have these types; rows have as many bytes as they need, and no
        // format of activations takes more than there is room for.
        unsafe {
            let quantize: Quantize = self.libraries.get(activation)?;
            let dot: Dot = self.libraries.get(name)?;
            quantize(numbers.as_ptr(), quantized.as_mut_ptr().cast(), numbers.len() as i64);
            for _ in 0..rounds.max(1) {
                let start = Instant::now();
                for (row, product) in weights.chunks_exact(stride.max(1)).zip(&mut products) {
                    let (row, numbers) = (row.as_ptr().cast(), quantized.as_ptr().cast());
                    dot(cols, product, 0, row, 0, numbers, 0, 1);
                }
                best = best.min(start.elapsed().as_nanos() as u64);
            }
        }
        Ok((best, products))
    }
}

/// The format that a function is for, by its name: those that are called otherwise are not called.
fn format(begin: &str, name: &str) -> Result<Format, String> {
    let known = name.strip_prefix(begin).and_then(|of| {
        let mut formats = Format::TERNARY.into_iter().chain(Format::FLOAT);
        formats.find(|format| format.ggml_name().eq_ignore_ascii_case(of))
    });
    known.ok_or_else(|| format!("`{name}` is for no format that is known"))
}

fn bytes_of(format: Format, count: usize) -> Result<usize, String> {
    format.row_bytes(count).map_err(|error| error.to_string())
}

/// The library that says of itself that it is best here.
fn best(paths: &[PathBuf]) -> Option<PathBuf> {
    let score = |path: &PathBuf| {
        let library = Libraries::open(path).ok()?;
        // SAFETY: the function has this type where it is.
        let score = unsafe {
            let score = library.get::<unsafe extern "C" fn() -> c_int>("ggml_backend_score");
            // One that has none is the only one there is.
            score.map_or(1, |score| score())
        };
        (score > 0).then_some((score, path.clone()))
    };
    paths.iter().filter_map(score).max().map(|(_, path)| path)
}

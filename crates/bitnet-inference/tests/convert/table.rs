//! `docs/formats.md`: every row is what was found here, with the demo model.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bitnet_gguf::TensorType;
use bitnet_inference::convert::EMBEDDING;
use bitnet_inference::{Engine, Options, ReadAs};
use bitnet_kernels::Format;

use super::{bits, change, convert, demo, open, rewritten};
use crate::common::{DEMO, load};

const HEAD: &str = "# Formats

Made by `BITNET_WRITE_DOCS=1 cargo test -p bitnet-inference --test convert`, which fails where this file is not what it finds: each row
was tried with the demo model on the machine that runs the tests. *The same bits* means that all logits are those of the model in I2_S,
bit for bit.

Ternary weights and their scales are never rounded: where a format holds scales of 16 bits and a scale needs more, it becomes a tensor
of its own beside the matrix (`blk.N.attn_q.scale`). After each conversion what was written is read again and compared before it gets
its name. `bitnet inspect --ternary` prints a hash of all ternary weights and scales that does not depend on the format, and
`bitnet diff` compares two models.

";

/// The document, made anew.
#[test]
fn the_table_says_what_is_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats.md");
    let folder = tempfile::tempdir().unwrap();
    let expected = bits(&load(DEMO, &Options::default()));
    let mut text = HEAD.to_owned();
    // Writing to a string cannot fail.
    writeln!(text, "## Ternary weights\n").unwrap();
    writeln!(text, "| format | id in GGUF | bits a weight | reads | writes | proof |").unwrap();
    writeln!(text, "|---|---|---|---|---|---|").unwrap();
    for format in Format::TERNARY {
        writeln!(text, "{}", ternary_row(format, folder.path(), &expected)).unwrap();
    }
    writeln!(
        text,
        "| F32, F16, BF16 | 0, 1, 30 | | yes, made ternary | no | ternary by the mean of the absolute \
         values, as training does it; the same bits where they are ternary already |"
    )
    .unwrap();
    writeln!(text, "\n## Embeddings, output layers, norms\n").unwrap();
    writeln!(text, "| format | id in GGUF | bits a number | reads | writes | proof |").unwrap();
    writeln!(text, "|---|---|---|---|---|---|").unwrap();
    for format in Format::FLOAT {
        writeln!(text, "{}", float_row(format, folder.path(), &expected)).unwrap();
    }
    if std::env::var_os("BITNET_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    // Where files are checked out with other ends of lines.
    assert!(found.replace("\r\n", "\n") == text, "docs/formats.md is not what is so:\n{text}");
}

fn id(format: Format) -> String {
    TensorType::named(format.ggml_name()).map_or_else(String::new, |kind| kind.id().to_string())
}

/// Bits of a weight, in a matrix of 256 by 512.
fn weight_bits(format: Format) -> String {
    let bytes = bitnet_kernels::format::payload(format, 256, 512).unwrap();
    format!("{:.2}", 8.0 * bytes as f64 / (256.0 * 512.0))
}

fn ternary_row(format: Format, folder: &Path, expected: &[u32]) -> String {
    let name = format.ggml_name();
    let path = folder.join(name);
    let said = match format {
        Format::I2SArm | Format::I2SR4 => Some(format.name().parse::<ReadAs>().unwrap()),
        _ => None,
    };
    let (reads, writes) = match said {
        // Written for this test only: I2_S is written in its one layout.
        Some(read_as) => {
            fs::write(&path, rewritten(format)).unwrap();
            let options = Options { read_as: Some(read_as), ..Options::default() };
            assert!(bits(&Engine::open(&path, &options).unwrap()) == expected, "{name}");
            (format!("with `--read-as {read_as}`"), "no".to_owned())
        }
        None => {
            let target = if format == Format::HfPacked { "hf" } else { name };
            let proof = convert(&demo(), &path, target, None).unwrap();
            assert_eq!((proof.matrices, proof.before), (28, proof.after), "{name}");
            assert!(bits(&open(&path)) == expected, "{name}");
            ("yes".to_owned(), format!("`--to {}`", target.to_lowercase()))
        }
    };
    let place = match format {
        Format::HfPacked => "in folders".to_owned(),
        Format::I2SArm | Format::I2SR4 => id(Format::I2S),
        _ => id(format),
    };
    let what = match format {
        Format::HfPacked => "U8 and `weight_scale` of Hugging Face",
        _ => name,
    };
    format!("| {what} | {place} | {} | {reads} | {writes} | the same bits |", weight_bits(format))
}

fn float_row(format: Format, folder: &Path, expected: &[u32]) -> String {
    let name = format.ggml_name();
    let bits_each = 8.0 * format.block().1 as f64 / format.block().0 as f64;
    let (writes, proof) = match EMBEDDING.contains(&format) {
        true => {
            let path = folder.join(format!("{name}-table"));
            convert(&demo(), &path, "i2_s", Some(format)).unwrap();
            let found = bits(&open(&path));
            let proof = match change(&found, expected) {
                0.0 => "the same bits with the embeddings of the demo model".to_owned(),
                change => {
                    format!("logits change by {:.2} % (root of mean squares)", 100.0 * change)
                }
            };
            (format!("`--embed {}`", name.to_lowercase()), proof)
        }
        false => ("no".to_owned(), vectors(format)),
    };
    format!("| {name} | {} | {bits_each:.2} | yes | {writes} | {proof} |", id(format))
}

/// Where the numbers are that a format is held against.
fn vectors(format: Format) -> String {
    let file = match format {
        Format::Iq2S => "iq2_s.safetensors",
        _ => "float_blocks.safetensors",
    };
    let path: PathBuf = ["../bitnet-kernels/tests/data", file].iter().collect();
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists());
    let of = match format {
        // No program in Python has it.
        Format::Q2_0 | Format::Q2_0G128 => "its definition",
        _ => "the reference",
    };
    format!("vectors of {of}, `crates/bitnet-kernels/tests/data/{file}`")
}

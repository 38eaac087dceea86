//! Models in every format of files: on a device their weights are all the same.

use std::fs;
use std::path::Path;

use bitnet_inference::convert::{Conversion, Target};
use bitnet_inference::receipt::verify;
use bitnet_inference::{Checkpoint, Contents, Engine};
use bitnet_kernels::Format;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load, logits};
use crate::receipts::{real, receipt};
use crate::rewritten::rewritten;
use crate::{bits, on_cpu, on_gpu, prompt};

pub(crate) const CASES: &[Case] =
    &[("other_formats_give_the_same_logits", Library::Fake, "", formats)];

/// The demo model in a format, and what reads it.
fn written(format: Format, folder: &Path) -> Engine {
    let path = folder.join(format.name());
    let mut options = on_gpu();
    if matches!(format, Format::I2SArm | Format::I2SR4) {
        fs::write(&path, rewritten(format)).unwrap();
        options.read_as = Some(format.name().parse().unwrap());
    } else {
        let demo =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/bitnet-tales-i2_s.gguf");
        let checkpoint = Checkpoint::open(demo).unwrap();
        let target = match format {
            Format::HfPacked => Target::Folder,
            format => Target::Gguf(format),
        };
        let contents = Contents::new(&checkpoint, None).unwrap();
        Conversion::plan(contents, target, None).unwrap().write(&path, false, &|_| true).unwrap();
    }
    Engine::open(path, &options).unwrap()
}

/// Receipts say what they were in the file.
fn formats() {
    let folder = tempfile::tempdir().unwrap();
    let ids = prompt(3);
    let expected = bits(&logits(&load(DEMO, &on_cpu()), &ids));
    for format in Format::TERNARY {
        let engine = written(format, folder.path());
        assert!(bits(&logits(&engine, &ids)) == expected, "{format}");
        let real = real(&receipt(&engine, ids.clone(), 1));
        assert_eq!(real.model.types, [format.ggml_name()]);
        assert!(real.model.matrices.iter().all(|matrix| matrix.layout == "i2_tiles"));
        assert!(verify(&real, None).unwrap().holds(), "{}", verify(&real, None).unwrap());
    }
}
